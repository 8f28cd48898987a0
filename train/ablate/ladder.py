"""Sentences about one object of a scene that say ever less of what it is: the scale of `ambiguity`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..material.catalogue import PLAYED
from ..scenes import Expression, Scene
from ..scenes import wording as w
from ..scenes.facts import SPOKEN_KINDS, Facts, verbs_differ
from ..scenes.wording import pick

LEVELS = ("0 name and place", "1 name", "2 wider word", "3 whether it is heard", "4 relation or order")
"""The dog on the left; the dog; the animal; the sounding object, the silent object; the object to the left of the cat."""

_RELATIONS = frozenset(
    "beside near first second last after before stops duration loudest softest than".split()
)
"""Details of the grammar's sentences that place one object among others."""


@dataclass(frozen=True)
class Ladder:
    """One object and a sentence for each of `LEVELS`, each true of it and of nothing else in its scene."""

    target: int
    sounds: bool
    sentences: tuple[Expression, ...]


def ladders(scene: Scene) -> list[Ladder]:
    """A ladder for each object of which there is a true sentence at every level; always the same for the same scene."""
    facts, rng = Facts(scene), np.random.default_rng((*scene.key, 7))
    said = scene.expressions()
    out = []
    for target, item in enumerate(scene.objects):
        if facts.names(target)[:1] != [item.class_name]:
            continue
        rungs = (
            _placed(facts, target, rng),
            Expression(pick(w.NAME, rng, word=item.class_name), "name", target, "name"),
            _widely(facts, target, rng),
            _by_ear(facts, target, rng),
            _related([e for e in said if e.target == target], rng),
        )
        sentences = tuple(rung for rung in rungs if rung is not None)
        if len(sentences) == len(LEVELS):
            out.append(Ladder(target, item.sounds, sentences))
    return out


def _placed(facts: Facts, target: int, rng: np.random.Generator) -> Expression | None:
    """Its name, and where it is among all objects or how large beside them."""
    traits: tuple[tuple[str, tuple[str, ...], Callable[[int], bool]], ...] = (
        ("side", w.SIDE["left"], lambda i: facts.left_of(target, i)),
        ("side", w.SIDE["right"], lambda i: facts.left_of(i, target)),
        ("height", w.TOP, lambda i: facts.above(target, i)),
        ("height", w.BOTTOM, lambda i: facts.above(i, target)),
        ("size", w.BIGGEST, lambda i: facts.larger(target, i)),
        ("size", w.SMALLEST, lambda i: facts.larger(i, target)),
    )
    others = [i for i in facts.all if i != target]
    for detail, phrases, beats in traits:
        if others and all(map(beats, others)):
            name = facts.scene.objects[target].class_name
            return Expression(pick(phrases, rng, word=name), "place", target, detail)
    return None


def _widely(facts: Facts, target: int, rng: np.random.Generator) -> Expression | None:
    """The widest word that means it alone: 'the animal' rather than 'the bird'."""
    for kind in facts.scene.objects[target].thing.kinds:
        if kind in SPOKEN_KINDS and facts.groups.get(kind) == (target,):
            return Expression(pick(w.NAME, rng, word=kind), "name", target, "alias")
    return None


def _by_ear(facts: Facts, target: int, rng: np.random.Generator) -> Expression | None:
    """It alone sounds, or sounds so; or it alone does not."""
    if target not in facts.sounding:
        if not facts.sounding or len(facts.sounding) < len(facts.all) - 1:
            return None
        return Expression(pick(w.SILENCE, rng, word="object"), "silence", target, "silence")
    if facts.sounding == (target,):
        return Expression(pick(w.SOUND, rng, word="object"), "sound", target, "sound")
    return by_verb(facts, target, rng)


def by_verb(facts: Facts, target: int, rng: np.random.Generator) -> Expression | None:
    """'The object that barks', where nothing else that sounds may be said to do so."""
    verb = facts.scene.objects[target].thing.verb
    others = [facts.scene.objects[i].thing.verb for i in facts.sounding if i != target]
    if verb is None or not all(verbs_differ(verb, other) for other in others):
        return None
    if verb == PLAYED:
        return Expression(pick(w.PLAYED, rng, word="object"), "sound", target, "verb")
    words = {"word": "object", "doing": w.doing(verb), "does": w.does(verb)}
    return Expression(pick(w.VERB, rng, **words), "sound", target, "verb")


def _related(said: list[Expression], rng: np.random.Generator) -> Expression | None:
    """One of the grammar's sentences that name another object, or an order, and say nothing of what is meant."""
    found = [
        e for e in said if e.detail in _RELATIONS and e.kind != "combination" and says_only_thing(e.text)
    ]
    return found[rng.integers(len(found))] if found else None


def says_only_thing(text: str) -> bool:
    """Whether the sentence speaks of an 'object' and not of an animal."""
    words = text.lower().rstrip(". ").split()
    return any(word in w.THINGS for word in words)
