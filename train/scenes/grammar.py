"""From facts to sentences: every expression of a scene that is true of one object alone, and some that fit nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..material.catalogue import PLAYED
from . import wording as w
from .facts import DURATION_GAP_S, DURATION_RATIO, ORDER_GAP_S, Facts, verbs_differ
from .wording import pick

if TYPE_CHECKING:
    from .scene import Scene

Kind = Literal["name", "sound", "silence", "order", "place", "motion", "loudness", "combination", "null"]
KINDS: tuple[Kind, ...] = (
    "name",
    "sound",
    "silence",
    "order",
    "place",
    "motion",
    "loudness",
    "combination",
    "null",
)
"""What one must know to find the object: its class; who sounds; who does not; when (order, duration); where (side, size,
neighbour); how it moves; how loud; two of these together; or that there is none."""


@dataclass(frozen=True)
class Expression:
    """A sentence about a scene."""

    text: str
    kind: Kind
    target: int | None
    """Index of the object it means, None for a null expression."""
    detail: str = ""
    """What it turns on: 'named', 'verb', 'side', 'absent', ..."""


def say(scene: Scene) -> list[Expression]:
    """All expressions of the scene, each text once; for a scene of test_n those that fit nothing alone."""
    from .nothing import say_nothing

    rng = np.random.default_rng((*scene.key, 1))
    facts = Facts(scene)
    true = unique(_Speaker(facts, rng).speak())
    if scene.split == "test_n":
        return say_nothing(facts, true, rng, 8)
    quiet = not facts.sounding
    count = max(2, round(len(true) / 9)) + (2 if quiet else 0)
    return true + say_nothing(facts, true, rng, count)


def unique(expressions: Iterable[Expression]) -> list[Expression]:
    """Without the texts that came up before, but for case and the full stop."""
    seen: set[str] = set()
    out = []
    for expression in expressions:
        key = plain(expression.text)
        if key not in seen:
            seen.add(key)
            out.append(expression)
    return out


def plain(text: str) -> str:
    """The text without what does not change its meaning."""
    return text.strip().rstrip(".").lower()


class _Speaker:
    """Collects the true expressions of one scene."""

    def __init__(self, facts: Facts, rng: np.random.Generator) -> None:
        self.facts = facts
        self.rng = rng
        self.out: list[Expression] = []

    def speak(self) -> list[Expression]:
        facts = self.facts
        for index in facts.all:
            self._names(index)
        everything = facts.all
        for _ in range(2):
            self._group(w.THINGS[self.rng.integers(len(w.THINGS))], everything)
        for word, group in facts.groups.items():
            if len(group) > 1:
                self._group(word, group)
        for reference in everything:
            names = facts.names(reference)
            if names:
                self._relations(reference, names)
        return self.out

    def add(
        self, kind: Kind, target: int | None, detail: str, phrases: tuple[str, ...], **words: str
    ) -> None:
        if target is not None:
            self.out.append(Expression(pick(phrases, self.rng, **words), kind, target, detail))

    def _name(self, names: list[str]) -> str:
        """The first of the names three times in four."""
        return (
            names[0]
            if len(names) == 1 or self.rng.random() < 0.75
            else names[self.rng.integers(1, len(names))]
        )

    def _names(self, index: int) -> None:
        """What can be said of an object by its name."""
        facts, item = self.facts, self.facts.scene.objects[index]
        names = facts.names(index)
        if not names:
            return
        for name in dict.fromkeys(
            (names[0], self._name(names))
        ):  # not a set: its order differs between processes
            self.add("name", index, "name" if name == item.thing.name else "alias", w.NAME, word=name)
        if bool((facts.scene.survey.visible[:, index] > 0.5).all()) and self.rng.random() < 0.2:
            self.add("name", index, "always", w.NAME_ALWAYS, word=self._name(names))
        if item.sounds:
            self.add("combination", index, "named_sound", w.SOUND, word=self._name(names))
        elif len(facts.all) > 1:
            self.add("combination", index, "named_silence", w.SILENCE, word=self._name(names))

    def _group(self, word: str, group: tuple[int, ...]) -> None:
        """What tells one of a group apart, the group being all objects or all that a word may mean."""
        facts = self.facts
        general = group == facts.all and word in w.THINGS
        heard = tuple(i for i in group if i in facts.sounding)
        silent = tuple(i for i in group if i not in facts.sounding)
        if len(heard) == 1:
            self._only_sound(word, heard[0], general)
        if len(silent) == 1 and len(group) > 1:
            self.add("silence", silent[0], "silence", w.SILENCE, word=word)
        if len(heard) > 1:
            self._order(word, heard)
            self._loudness(word, heard)
        if len(group) > 1:
            self._place("place", word, group)
            self._motion(word, group)
        if general and len(heard) > 1:
            self._place("combination", "sounding object", heard)
        if general and len(silent) > 1 and heard:
            self._place("combination", "silent object", silent)

    def _only_sound(self, word: str, index: int, general: bool) -> None:
        facts, rng = self.facts, self.rng
        self.add("sound", index, "sound", w.SOUND, word=word)
        if general and rng.random() < 0.4:
            self.add("sound", index, "source", w.SOURCE)
        verb = facts.scene.objects[index].thing.verb
        if verb and self._verb_is_clear(index, verb):
            if verb == PLAYED:
                self.add("sound", index, "verb", w.PLAYED, word="instrument" if rng.random() < 0.3 else word)
            else:
                self.add("sound", index, "verb", w.VERB, word=word, doing=w.doing(verb), does=w.does(verb))
        if facts.continuous(index) and rng.random() < 0.6:
            self.add("sound", index, "continuous", w.CONTINUOUS, word=word)
        if facts.intermittent(index) and rng.random() < 0.3:
            self.add("sound", index, "intermittent", w.INTERMITTENT, word=word)
        swell = facts.swells(index)
        if swell:
            self.add("loudness", index, "swell", w.SWELLS[swell], word=word)

    def _verb_is_clear(self, index: int, verb: str) -> bool:
        """No other object that sounds may be said to do the same."""
        others = [self.facts.scene.objects[i].thing.verb for i in self.facts.sounding if i != index]
        return all(verbs_differ(verb, other) for other in others)

    def _order(self, word: str, heard: tuple[int, ...]) -> None:
        facts = self.facts
        onset, end, duration = facts.onset, facts.end, facts.duration
        self.add("order", _first(heard, onset, ORDER_GAP_S), "first", w.FIRST, word=word)
        self.add("order", _first(heard, lambda i: -onset(i), ORDER_GAP_S), "last", w.LAST, word=word)
        if len(heard) == 3:
            middle = sorted(heard, key=onset)
            if all(onset(b) - onset(a) > ORDER_GAP_S for a, b in itertools.pairwise(middle)):
                self.add("order", middle[1], "second", w.SECOND, word=word)
        if self.rng.random() < 0.4:
            self.add("order", _first(heard, end, 1.0), "stops", w.STOPS_FIRST, word=word)
            self.add("order", _first(heard, lambda i: -end(i), 1.0), "stops", w.STOPS_LAST, word=word)
        by_length = sorted(heard, key=duration)
        if _longer(duration(by_length[-1]), duration(by_length[-2])):
            self.add("order", by_length[-1], "duration", w.LONGEST, word=word)
        if _longer(duration(by_length[1]), duration(by_length[0])):
            self.add("order", by_length[0], "duration", w.SHORTEST, word=word)
        steady = [i for i in heard if facts.continuous(i)]
        if len(steady) == 1 and all(facts.pauses(i) for i in heard if i != steady[0]):
            self.add("order", steady[0], "continuous", w.CONTINUOUS, word=word)

    def _loudness(self, word: str, heard: tuple[int, ...]) -> None:
        facts = self.facts
        self.add("loudness", _best(heard, facts.louder), "loudest", w.LOUDEST, word=word)
        self.add("loudness", _best(heard, lambda a, b: facts.louder(b, a)), "softest", w.SOFTEST, word=word)
        swelling = [(i, facts.swells(i)) for i in heard]
        for direction in ("louder", "lower"):
            found = [i for i, swell in swelling if swell == direction]
            if len(found) == 1 and not any(facts.changes(i) for i in heard if i != found[0]):
                self.add("loudness", found[0], "swell", w.SWELLS[direction], word=word)

    def _place(self, kind: Kind, word: str, group: tuple[int, ...]) -> None:
        facts = self.facts
        left = _best(group, facts.left_of)
        right = _best(group, lambda a, b: facts.left_of(b, a))
        self.add(kind, left, "side", w.SIDE["left"], word=word)
        self.add(kind, right, "side", w.SIDE["right"], word=word)
        if len(group) == 3 and left is not None and right is not None:
            middle = next(i for i in group if i not in (left, right))
            self.add(kind, middle, "side", w.MIDDLE, word=word)
        if self.rng.random() < 0.5:
            self.add(kind, _best(group, facts.above), "height", w.TOP, word=word)
            self.add(kind, _best(group, lambda a, b: facts.above(b, a)), "height", w.BOTTOM, word=word)
        if self.rng.random() < 0.7:
            self.add(kind, _best(group, facts.larger), "size", w.BIGGEST, word=word)
            self.add(kind, _best(group, lambda a, b: facts.larger(b, a)), "size", w.SMALLEST, word=word)

    def _motion(self, word: str, group: tuple[int, ...]) -> None:
        facts = self.facts
        if facts.camera_moves or any(facts.slides_out(i) for i in group):
            return
        moving = [i for i in group if facts.moves(i)]
        still = [i for i in group if facts.rests(i)]
        if len(moving) + len(still) == len(group):
            if len(moving) == 1:
                self.add("motion", moving[0], "moving", w.MOVING, word=word)
            if len(still) == 1:
                self.add("motion", still[0], "still", w.UNMOVED, word=word)
        motions = {i: facts.scene.objects[i].motion for i in group}
        for side in ("left", "right"):
            going = [i for i in group if facts.direction(i) == side]
            stray = [
                i for i, m in motions.items() if i not in going and m.kind in ("glide", "sway", "wander")
            ]
            if len(going) == 1 and not stray:
                self.add("motion", going[0], "direction", w.GOES[side], word=word)
        for kind, phrases in (("approach", w.NEARS), ("recede", w.RECEDES), ("bob", w.HOPS)):
            found = [i for i, motion in motions.items() if motion.kind == kind]
            if kind == "bob" and any(motion.kind == "wander" for motion in motions.values()):
                continue  # that one goes up and down too
            if len(found) == 1 and facts.moves(found[0]):
                self.add("motion", found[0], kind, phrases, word=word)

    def _relations(self, reference: int, names: list[str]) -> None:
        """Objects told by where they are, or when or how loud they sound, beside another that has a name."""
        facts = self.facts
        others = tuple(i for i in facts.all if i != reference)
        heard = tuple(i for i in others if i in facts.sounding)
        groups: tuple[tuple[str, tuple[int, ...], Kind], ...] = (
            ("object", others, "place"),
            ("sounding object", heard, "combination"),
        )
        for word, group, kind in groups:
            for side in ("left", "right"):
                self.add(
                    kind,
                    self._beside(side, reference, group),
                    "beside",
                    w.BESIDE[side],
                    word=word,
                    other=self._name(names),
                )
        if self.rng.random() < 0.5:
            self.add(
                "place",
                self._upright(reference, others, True),
                "beside",
                w.ABOVE,
                word="object",
                other=self._name(names),
            )
            self.add(
                "place",
                self._upright(reference, others, False),
                "beside",
                w.BELOW,
                word="object",
                other=self._name(names),
            )
        nearest = facts.nearest(reference)
        if nearest is not None:
            self.add("place", nearest, "near", w.NEAR, word="object", other=self._name(names))
            if heard == (nearest,):
                self.add(
                    "combination", nearest, "near", w.NEAR, word="sounding object", other=self._name(names)
                )
        if reference in facts.sounding and heard:
            self._after(reference, heard, names)

    def _beside(self, side: str, reference: int, group: tuple[int, ...]) -> int | None:
        """The only one of the group on that side, all the others being clearly on the opposite one."""
        facts = self.facts
        on_left = [i for i in group if facts.left_of(i, reference)]
        on_right = [i for i in group if facts.left_of(reference, i)]
        wanted, rest = (on_left, on_right) if side == "left" else (on_right, on_left)
        return wanted[0] if len(wanted) == 1 and len(wanted) + len(rest) == len(group) else None

    def _upright(self, reference: int, group: tuple[int, ...], above: bool) -> int | None:
        facts = self.facts
        up = [i for i in group if facts.above(i, reference)]
        down = [i for i in group if facts.above(reference, i)]
        wanted, rest = (up, down) if above else (down, up)
        return wanted[0] if len(wanted) == 1 and len(wanted) + len(rest) == len(group) else None

    def _after(self, reference: int, heard: tuple[int, ...], names: list[str]) -> None:
        facts = self.facts
        start = facts.onset(reference)
        later = [i for i in heard if facts.onset(i) > start + ORDER_GAP_S]
        sooner = [i for i in heard if facts.onset(i) < start - ORDER_GAP_S]
        if len(later) + len(sooner) == len(heard):
            for found, phrases, detail in ((later, w.AFTER, "after"), (sooner, w.BEFORE, "before")):
                if len(found) == 1:
                    self.add("order", found[0], detail, phrases, word="object", other=self._name(names))
                    self._named_order(found[0], reference, detail, names)
        longer = [i for i in heard if _longer(facts.duration(i), facts.duration(reference))]
        shorter = [i for i in heard if _longer(facts.duration(reference), facts.duration(i))]
        louder = [i for i in heard if facts.louder(i, reference)]
        lower = [i for i in heard if facts.louder(reference, i)]
        comparisons: tuple[tuple[Kind, str, list[int], list[int], tuple[str, ...]], ...] = (
            ("order", "duration", longer, shorter, w.LONGER_THAN),
            ("order", "duration", shorter, longer, w.SHORTER_THAN),
            ("loudness", "than", louder, lower, w.LOUDER_THAN),
            ("loudness", "than", lower, louder, w.LOWER_THAN),
        )
        for kind, detail, found, rest, sentences in comparisons:
            if len(found) == 1 and len(found) + len(rest) == len(heard):
                self.add(kind, found[0], detail, sentences, word="object", other=self._name(names))

    def _named_order(self, index: int, reference: int, detail: str, names: list[str]) -> None:
        """'The dog that barks after the guitar starts.'"""
        own = self.facts.names(index)
        verb = self.facts.scene.objects[index].thing.verb
        if not own or self.rng.random() < 0.5:
            return
        act = "sounds" if verb in (None, PLAYED) else w.does(verb or "sound")
        phrases = (
            f"the {{word}} that {act} {detail} the {{other}} starts.",
            f"the {{word}} sounding {detail} the {{other}}.",
        )
        self.add("combination", index, detail, phrases, word=self._name(own), other=self._name(names))


def _first(group: tuple[int, ...], value: Callable[[int], float], gap: float) -> int | None:
    """The one with the least value, if the next is farther than `gap` from it."""
    order = sorted(group, key=value)
    return order[0] if value(order[1]) - value(order[0]) > gap else None


def _best(group: tuple[int, ...], beats: Callable[[int, int], bool]) -> int | None:
    """The one that beats each other one of the group."""
    return next((i for i in group if all(beats(i, j) for j in group if j != i)), None)


def _longer(a: float, b: float) -> bool:
    return a > DURATION_RATIO * b and a - b > DURATION_GAP_S
