"""Expressions that nothing in the scene fits: true sentences about another scene."""

from __future__ import annotations

import numpy as np

from ..material.catalogue import PLAYED
from . import wording as w
from .facts import ORDER_GAP_S, Facts, verbs_differ
from .grammar import Expression, plain, unique
from .wording import pick


def say_nothing(
    facts: Facts, true: list[Expression], rng: np.random.Generator, count: int
) -> list[Expression]:
    """`count` null expressions at most, of differing details, none of them equal to a true one."""
    taken = {plain(e.text) for e in true}
    found = [e for e in unique(_all(facts, rng)) if plain(e.text) not in taken]
    by_detail: dict[str, list[Expression]] = {}
    for i in rng.permutation(len(found)).tolist():
        by_detail.setdefault(found[i].detail, []).append(found[i])
    out: list[Expression] = []
    while len(out) < count and by_detail:
        for detail in list(by_detail):
            out.append(by_detail[detail].pop())
            if not by_detail[detail]:
                del by_detail[detail]
    return out[:count]


def say_muted(facts: Facts, rng: np.random.Generator, count: int) -> list[Expression]:
    """Null expressions about the sound of a clip whose track is silent."""
    groups = (w.SOUND, w.FIRST, w.LAST, w.LOUDEST, w.SOFTEST, w.CONTINUOUS, w.LONGEST, w.TEMPO, w.SOURCE)
    chosen = rng.permutation(len(groups))[:count]
    return [_null(pick(groups[i], rng, word="object"), "muted") for i in chosen]


def _all(facts: Facts, rng: np.random.Generator) -> list[Expression]:
    return [*_absent(facts, rng), *_silent(facts, rng), *_elsewhere(facts, rng), *_otherwise(facts, rng)]


def _null(text: str, detail: str) -> Expression:
    return Expression(text, "null", None, detail)


_BROAD = frozenset({"animal", "food", "plant"})
"""Kinds too wide to make two things alike."""


def _absent(facts: Facts, rng: np.random.Generator) -> list[Expression]:
    """Classes that are not there: some like those that are, some not."""
    scene = facts.scene
    present = frozenset[str]().union(*(item.thing.words for item in scene.objects))
    unseen = scene.split == "test_u"
    pool = [
        t
        for t in scene.pack.things
        if t.unseen == unseen and not ({t.name, *t.aliases, *t.confusable} & present)
    ]
    alike = [t for t in pool if set(t.kinds) & present - _BROAD] or [
        t for t in pool if set(t.kinds) & present
    ]
    out: list[Expression] = []
    for things in (alike, pool, pool):
        if things:
            thing = things[rng.integers(len(things))]
            phrases = w.NAME if rng.random() < 0.6 else w.SOUND
            detail = "alike" if set(thing.kinds) & present - _BROAD else "absent"
            out.append(_null(pick(phrases, rng, word=thing.name), detail))
            if thing.verb and thing.verb != PLAYED:
                sure = all(verbs_differ(thing.verb, scene.objects[i].thing.verb) for i in facts.sounding)
                if sure and rng.random() < 0.5:
                    words = {"word": "object", "doing": w.doing(thing.verb), "does": w.does(thing.verb)}
                    out.append(_null(pick(w.VERB, rng, **words), "verb"))
    return out


def _silent(facts: Facts, rng: np.random.Generator) -> list[Expression]:
    """Things that are there and do not sound, said to sound; and the other way round."""
    out: list[Expression] = []
    for word, group in facts.groups.items():
        heard = [i for i in group if i in facts.sounding]
        if not heard:
            out.append(_null(pick(w.SOUND, rng, word=word), "silent"))
        elif len(heard) == len(group):
            out.append(_null(pick(w.SILENCE, rng, word=word), "sounding"))
    if not facts.sounding:
        out += [_null(e.text, "silent_scene") for e in say_muted(facts, rng, 4)]
    elif len(facts.sounding) == len(facts.all):
        out.append(_null(pick(w.SILENCE, rng, word="object"), "sounding"))
    return out


def _elsewhere(facts: Facts, rng: np.random.Generator) -> list[Expression]:
    """Nothing is on that side of the other: all are clearly on the opposite one."""
    out: list[Expression] = []
    for reference in facts.all:
        names = facts.names(reference)
        others = [i for i in facts.all if i != reference]
        if not names or not others:
            continue
        heard = [i for i in others if i in facts.sounding]
        on_right = {i for i in others if facts.left_of(reference, i)}
        on_left = {i for i in others if facts.left_of(i, reference)}
        for side, opposite in (("left", on_right), ("right", on_left)):
            if opposite.issuperset(others):
                out.append(_null(pick(w.BESIDE[side], rng, word="object", other=names[0]), "place"))
            if heard and opposite.issuperset(heard):
                out.append(_null(pick(w.BESIDE[side], rng, word="sounding object", other=names[0]), "place"))
            for i in others:
                own = facts.names(i)
                if own and i in opposite:
                    out.append(_null(pick(w.BESIDE[side], rng, word=own[0], other=names[0]), "place"))
    return out


def _otherwise(facts: Facts, rng: np.random.Generator) -> list[Expression]:
    """Nothing moves, nothing sounds later, nothing is louder."""
    out: list[Expression] = []
    if not facts.camera_moves and not any(facts.slides_out(i) for i in facts.all):
        moving = [i for i in facts.all if facts.moves(i)]
        if all(facts.rests(i) for i in facts.all):
            out.append(_null(pick(w.MOVING, rng, word="object"), "motion"))
        elif len(moving) == len(facts.all):
            out.append(_null(pick(w.UNMOVED, rng, word="object"), "motion"))
    for reference in facts.sounding:
        names = facts.names(reference)
        others = [i for i in facts.sounding if i != reference]
        if not names or not others:
            continue
        if all(facts.onset(i) < facts.onset(reference) - ORDER_GAP_S for i in others):
            out.append(_null(pick(w.STARTS_AFTER, rng, word="object", other=names[0]), "order"))
        if all(facts.onset(i) > facts.onset(reference) + ORDER_GAP_S for i in others):
            out.append(_null(pick(w.BEFORE, rng, word="object", other=names[0]), "order"))
        if all(facts.louder(reference, i) for i in others):
            out.append(_null(pick(w.LOUDER_THAN, rng, word="object", other=names[0]), "loudness"))
    return out
