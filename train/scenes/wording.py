"""Phrases for each meaning, after the Ref-AVS table; `{word}` is what the expression speaks of, `{other}` what it refers to.

The commonest forms of the table come first and are drawn more often (`pick`). A few keep its slips of grammar.
"""

from __future__ import annotations

import numpy as np

THINGS = ("object", "object", "object", "object", "item", "entity", "thing")

NAME = (
    "the {word}.",
    "the {word}.",
    "{word}.",
    "the {word} in the picture.",
    "the {word} in the video.",
    "a {word}.",
)
NAME_ALWAYS = ("the {word} appearing through the entire video.", "the {word} that can be seen all the time.")

SOUND = (
    "the sounding {word}.",
    "the sounding {word}.",
    "the {word} making a sound.",
    "the {word} that is making a sound.",
    "the {word} emitting a sound.",
    "the {word} producing sound.",
    "the {word} that makes a sound.",
    "the {word} that can be heard.",
    "the {word} being heard.",
    "the {word} which is sounding.",
    "the {word} making noise.",
)
SOURCE = (
    "the source of the sound.",
    "the source of sound.",
    "the sound source.",
    "where the sound comes from.",
    "what is making the sound.",
)
VERB = (
    "the {word} making a sound by {doing}.",
    "the {word} that is {doing}.",
    "the {doing} {word}.",
    "the {word} {doing}.",
    "the {word} that {does}.",
)
PLAYED = (
    "the {word} making a sound by being played.",
    "the {word} being played.",
    "the {word} that is being played.",
    "the {word} producing sound through being played.",
)
CONTINUOUS = (
    "the {word} that keeps making sound at all times.",
    "the {word} making a continuous sound.",
    "the {word} making the continuous sound.",
    "the {word} continuously emitting sound.",
    "the {word} that never stops making sound.",
)
INTERMITTENT = (
    "the {word} making the intermittent sound.",
    "the {word} that makes a sound again and again with pauses.",
)

SILENCE = (
    "the {word} making no sound.",
    "the {word} that didn't make any sound.",
    "the {word} that did not make any sound.",
    "the silent {word}.",
    "the {word} remaining silent.",
    "the {word} that is not making a sound.",
    "the {word} that cannot be heard.",
    "the quiet {word}.",
)

FIRST = (
    "the first {word} to make a sound.",
    "the first {word} to make a sound.",
    "the {word} that makes a sound first.",
    "the initial {word} to emit sound.",
    "the first sounding {word}.",
    "the {word} making a sound first.",
)
LAST = (
    "the last {word} to make a sound.",
    "the last {word} to make a sound.",
    "the {word} that makes a sound last.",
    "the final {word} to emit sound.",
    "the {word} that starts sounding last.",
)
SECOND = ("the second {word} to make a sound.", "the {word} that makes a sound second.")
AFTER = (
    "the {word} that makes a sound after the {other}.",
    "the {word} that making a sound after the {other}.",
    "the {word} making a sound after the {other}.",
    "the {word} that starts sounding after the {other}.",
)
STARTS_AFTER = (
    "the {word} that starts sounding after the {other}.",
    "the {word} that starts making a sound after the {other}.",
)
"""Said where nothing does: what began before and still sounds then is not meant."""
BEFORE = (
    "the {word} that makes a sound before the {other}.",
    "the {word} making a sound before the {other}.",
    "the {word} that starts sounding before the {other}.",
)
LONGEST = (
    "the {word} making the longest sound duration.",
    "the {word} with the longest sound duration.",
    "the {word} that sounds the longest.",
)
SHORTEST = ("the {word} making the shortest sound duration.", "the {word} with the shortest sound duration.")
LONGER_THAN = (
    "the {word} making longer sound duration than the {other}.",
    "the {word} that sounds longer than the {other}.",
)
SHORTER_THAN = ("the {word} making shorter sound duration than the {other}.",)
STOPS_FIRST = ("the first {word} to stop making a sound.", "the {word} that falls silent first.")
STOPS_LAST = ("the last {word} to stop making a sound.",)

LOUDEST = (
    "the {word} making the loudest sound.",
    "the {word} making the loudest sound.",
    "the {word} making a loudest sound.",
    "the loudest {word}.",
    "the {word} emitting the most intense noise.",
    "the {word} with the loudest sound.",
    "the {word} emitting the most robust sound.",
)
SOFTEST = (
    "the {word} making the lowest sound.",
    "the {word} making a lowest sound.",
    "the {word} making the softest sound.",
    "the {word} with the quietest sound.",
)
LOUDER_THAN = (
    "the {word} making louder sound than the {other}.",
    "the {word} that is louder than the {other}.",
)
LOWER_THAN = (
    "the {word} making lower sound than the {other}.",
    "the {word} that is quieter than the {other}.",
)
SWELLS = {
    "louder": ("the {word} volume is louder over the time.", "the {word} getting louder over time."),
    "lower": ("the {word} volume is lower over the time.", "the {word} getting quieter over time."),
}

SIDE = {
    "left": (
        "the {word} on the left.",
        "the {word} on the left.",
        "the {word} on the left side.",
        "the leftmost {word}.",
        "the {word} to the left.",
    ),
    "right": (
        "the {word} on the right.",
        "the {word} on the right.",
        "the {word} on the right side.",
        "the rightmost {word}.",
        "the {word} to the right.",
    ),
}
MIDDLE = ("the {word} in the middle.", "the {word} in the center.", "the middle {word}.")
TOP = ("the {word} at the top.", "the highest {word} in the picture.", "the upper {word}.")
BOTTOM = (
    "the {word} at the bottom.",
    "the {word} at the bottom of the picture.",
    "the lower {word} in the picture.",
)
BIGGEST = ("the biggest {word}.", "the largest {word}.", "the {word} that takes up the most space.")
SMALLEST = ("the smallest {word}.", "the smallest {word} in the picture.")
BESIDE = {
    "left": (
        "the {word} on the left of the {other}.",
        "the {word} on the left of the {other}.",
        "the {word} to the left of the {other}.",
    ),
    "right": (
        "the {word} on the right of the {other}.",
        "the {word} on the right of the {other}.",
        "the {word} to the right of the {other}.",
    ),
}
ABOVE = ("the {word} above the {other}.", "the {word} higher than the {other}.")
BELOW = ("the {word} below the {other}.", "the {word} under the {other}.")
NEAR = (
    "the {word} near the {other}.",
    "the {word} next to the {other}.",
    "the {word} closest to the {other}.",
)

MOVING = (
    "the moving {word}.",
    "the {word} moving.",
    "the {word} that is moving.",
    "the {word} that keeps moving.",
    "the {word} that moves.",
)
UNMOVED = (
    "the {word} that did not move.",
    "the {word} not moving.",
    "the {word} keeping unmoved.",
    "the {word} standing still.",
)
GOES = {
    "left": (
        "the {word} moving to the left.",
        "the {word} going to the left.",
        "the {word} that moves left.",
    ),
    "right": (
        "the {word} moving to the right.",
        "the {word} going to the right.",
        "the {word} that moves right.",
    ),
}
NEARS = ("the {word} coming closer.", "the {word} getting bigger.", "the {word} moving toward the camera.")
RECEDES = ("the {word} moving away.", "the {word} getting smaller.")
HOPS = ("the {word} moving up and down.", "the bouncing {word}.", "the {word} hopping.")

_PLURAL = frozenset(
    {"scissors", "binoculars", "pliers", "cherries", "grapes", "holly leaves", "leaves", "drums", "flames"}
)
_AGREEMENT = (
    ("that is ", "that are "),
    ("which is ", "which are "),
    ("that makes ", "that make "),
    ("that starts ", "that start "),
    ("that moves", "that move"),
)
_NO_ARTICLE = _PLURAL | {
    "Earth",
    "corn",
    "garlic",
    "fire",
    "ginger",
    "holly",
    "lavender",
    "lettuce",
    "broccoli",
    "thyme",
}
"""Words that take no 'a'."""

TEMPO = (
    "the {word} making a sound with a faster rhythm.",
    "the {word} making a sound with a lower rhythm.",
    "the {word} making the fastest rhythm.",
    "the {word} making the slowest rhythm.",
)
"""In the table these are common; no scene knows a rhythm, so they are said where nothing sounds at all."""


def pick(phrases: tuple[str, ...], rng: np.random.Generator, **words: str) -> str:
    """One of the phrases, filled in; the earlier ones are likelier."""
    weights = 1.0 / (1.0 + 0.35 * np.arange(len(phrases)))
    text = phrases[rng.choice(len(phrases), p=weights / weights.sum())].format(**words)
    if words.get("word") in _PLURAL:
        for one, many in _AGREEMENT:
            text = text.replace(one, many)
    return dress(text, rng)


def dress(text: str, rng: np.random.Generator) -> str:
    """Begun with a capital and closed with a stop, or, now and then, with one of the table's slips."""
    if text.startswith("a "):
        noun = text[2:].split(" of ")[0].rstrip(".")
        if noun in _NO_ARTICLE or noun.startswith("planet "):
            text = text[2:]
        elif noun[0] in "aeiou":
            text = f"an {text[2:]}"
    draw = rng.random()
    if draw >= 0.03:
        text = text[0].upper() + text[1:]
    if 0.03 <= draw < 0.06:
        text = text.removesuffix(".")
    if 0.06 <= draw < 0.065:
        text += " "
    return text


def doing(verb: str) -> str:
    """'bark' -> 'barking', 'whistle' -> 'whistling', 'cut' -> 'cutting'."""
    if verb.endswith("e"):
        return verb[:-1] + "ing"
    short = (
        sum(letter in "aeiou" for letter in verb) == 1 and verb[-2] in "aeiou" and verb[-1] not in "aeiouwxy"
    )
    return verb + (verb[-1] if short else "") + "ing"


def does(verb: str) -> str:
    """'bark' -> 'barks', 'hiss' -> 'hisses'."""
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "z", "x")) else "s")
