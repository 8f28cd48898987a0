"""An oracle for expressions about generated scenes: is this sentence true of its target, and of nothing else?

It judges from `Evidence` alone and shares nothing with `train/scenes/facts.py`. Its margins are about half of those with which
scenes are made, so a sentence that it refuses is one that a person would argue with.
"""

from __future__ import annotations

from refavs_rt.train.scenes import Expression

from . import scene_oracle_sight as sight
from .scene_evidence import Evidence, meant_by, nouns, perhaps_meant_by

ORDER_S = 0.3
LOUDER_DB = 2.5


def judge(expression: Expression, seen: Evidence) -> str | None:
    """Why the expression is not true of its target alone (or, if it is null, of nothing); None if it is."""
    text = expression.text.lower()
    words = nouns(text, seen.scene)
    word = words[0] if words else "object"
    for said in words:
        if perhaps_meant_by(said, seen.scene) != meant_by(said, seen.scene):
            return f"{said!r} could be taken to mean another object"
    if len(words) > 1 and len(meant_by(words[1], seen.scene)) != 1:
        return f"{words[1]!r} does not mean one object"
    group = meant_by(word, seen.scene)
    other = next(iter(meant_by(words[1], seen.scene))) if len(words) > 1 else None
    if expression.kind == "null":
        return _judge_null(expression, text, word, group, other, seen)
    target = expression.target
    if target not in group:
        return f"{word!r} does not mean the target"
    if "sounding" in text and expression.detail in ("side", "height", "size", "beside", "near"):
        group = {i for i in group if seen.sounds(i)}
    if "silent" in text and expression.detail in ("side", "height", "size"):
        group = {i for i in group if not seen.sounds(i)}
    if other is not None:
        group -= {other}
    if target not in group:
        return "the target is not among those that are spoken of"
    if expression.kind in ("order", "loudness") and not seen.sounds(target):
        return "it makes no sound"
    return _JUDGES[expression.detail](text, target, sorted(group - {target}), other, seen)


def _name(text, target, others, other, seen):
    if others:
        return f"{others} may be called so too"
    if ("all the time" in text or "entire" in text) and not (seen.area[:, target] > 0).all():
        return "it is not to be seen all the time"
    return None


def _sound(text, target, others, other, seen):
    if not seen.sounds(target) or seen.audible[target].sum() < 3:
        return "it makes no sound"
    loud = [i for i in others if seen.sounds(i)]
    return f"{loud} sound too" if loud else None


def _silence(text, target, others, other, seen):
    if seen.sounds(target):
        return "it sounds"
    mute = [i for i in others if not seen.sounds(i)]
    return f"{mute} are silent too" if mute else None


def _verb(text, target, others, other, seen):
    verb = seen.scene.objects[target].thing.verb
    if verb is None or not seen.sounds(target):
        return "it has no verb, or no sound"
    said = "played" if verb == "=play" else verb.removesuffix("e")[:4]
    if said not in text:
        return f"the text does not say {verb!r}"
    doubtful = [
        i
        for i in range(seen.count)
        if i != target and seen.sounds(i) and not tell_apart(verb, seen.scene.objects[i].thing.verb)
    ]
    return f"{doubtful} may do the same" if doubtful else None


def tell_apart(verb: str, other: str | None) -> bool:
    """Whether who hears the one would never say the other. A dog's bark is no moo, but a growl may be a grunt."""
    alike = (
        {"grunt", "growl", "roar", "bellow", "bark", "moo"},
        {"sing", "call", "chirp", "squeak"},
        {"screech", "squawk", "caw", "honk", "call"},
        {"call", "croak", "hoot", "quack", "crow", "cluck", "gobble"},
        {"bellow", "bray", "trumpet", "call", "moo"},
        {"click", "chatter", "chirp"},
        {"hit", "cut", "saw"},
    )
    return other is not None and verb != other and not any({verb, other} <= family for family in alike)


def _continuous(text, target, others, other, seen):
    if not seen.sounds(target):
        return "it makes no sound"
    if max(seen.pauses_s(target)) > 1.0:
        return f"it pauses for {max(seen.pauses_s(target)):.2f} s"
    steady = [i for i in others if seen.sounds(i) and max(seen.pauses_s(i)) < 1.2]
    return f"{steady} sound all the time too" if steady else None


def _intermittent(text, target, others, other, seen):
    if [i for i in others if seen.sounds(i)]:
        return "another sounds too"
    pauses = [p for p in seen.pauses_s(target, inside=True) if p > 0.4]
    return None if len(pauses) >= 2 else f"it has {len(pauses)} pauses"


def _least(target, others, value, margin):
    """The target's value is the least by `margin`."""
    near = [i for i in others if value(i) - value(target) < margin]
    return f"{near} come within {margin}: {[round(value(i), 2) for i in (target, *near)]}" if near else None


def _heard(others, seen):
    return [i for i in others if seen.sounds(i)]


def _first(text, target, others, other, seen):
    return _least(target, _heard(others, seen), seen.onset, ORDER_S)


def _last(text, target, others, other, seen):
    return _least(target, _heard(others, seen), lambda i: -seen.onset(i), ORDER_S)


def _second(text, target, others, other, seen):
    sooner = [i for i in _heard(others, seen) if seen.onset(i) < seen.onset(target) - ORDER_S]
    later = [i for i in _heard(others, seen) if seen.onset(i) > seen.onset(target) + ORDER_S]
    return (
        None
        if len(sooner) == 1 and len(sooner) + len(later) == len(_heard(others, seen))
        else "not the second"
    )


def _stops(text, target, others, other, seen):
    sign = -1 if "last" in text else 1
    return _least(target, _heard(others, seen), lambda i: sign * seen.end(i), ORDER_S)


def _duration(text, target, others, other, seen):
    sign = 1 if "short" in text else -1
    if other is not None:  # than one: the only one that is
        if sign * (seen.duration(target) - seen.duration(other)) > -0.5:
            return f"not {seen.duration(target):.1f} against {seen.duration(other):.1f}"
        also = [i for i in _heard(others, seen) if sign * (seen.duration(i) - seen.duration(other)) < 0]
        return f"{also} too" if also else None
    return _least(target, _heard(others, seen), lambda i: sign * seen.duration(i), 0.5)


def _after(text, target, others, other, seen):
    sign = 1 if " after " in text else -1
    if not seen.sounds(other) or not seen.sounds(target):
        return "one of them makes no sound"
    if sign * (seen.onset(target) - seen.onset(other)) < ORDER_S:
        return f"onsets {seen.onset(target):.2f} and {seen.onset(other):.2f}"
    also = [i for i in _heard(others, seen) if sign * (seen.onset(i) - seen.onset(other)) > -ORDER_S]
    return f"{also} too" if also else None


def _loudest(text, target, others, other, seen):
    return _least(target, _heard(others, seen), lambda i: -seen.loudness_db(i), LOUDER_DB)


def _softest(text, target, others, other, seen):
    return _least(target, _heard(others, seen), seen.loudness_db, LOUDER_DB)


def _than(text, target, others, other, seen):
    sign = -1 if "lower" in text or "quieter" in text else 1
    if not seen.sounds(other) or not seen.sounds(target):
        return "one of them makes no sound"
    if sign * (seen.loudness_db(target) - seen.loudness_db(other)) < LOUDER_DB:
        return f"{seen.loudness_db(target):.1f} dB against {seen.loudness_db(other):.1f}"
    also = [
        i for i in _heard(others, seen) if sign * (seen.loudness_db(i) - seen.loudness_db(other)) > -LOUDER_DB
    ]
    return f"{also} too" if also else None


def _swell(text, target, others, other, seen):
    sign = 1 if "louder" in text else -1
    if sign * seen.swell_db(target) < 3:
        return f"it changes by {seen.swell_db(target):.1f} dB"
    also = [i for i in _heard(others, seen) if seen.scene.objects[i].voice.ramp_db]
    return f"{also} change too" if also else None


_JUDGES = {
    "name": _name,
    "alias": _name,
    "always": _name,
    "named_sound": _sound,
    "named_silence": _silence,
    "sound": _sound,
    "source": _sound,
    "verb": _verb,
    "continuous": _continuous,
    "intermittent": _intermittent,
    "silence": _silence,
    "first": _first,
    "last": _last,
    "second": _second,
    "stops": _stops,
    "duration": _duration,
    "after": _after,
    "before": _after,
    "loudest": _loudest,
    "softest": _softest,
    "than": _than,
    "swell": _swell,
    "side": sight.side,
    "height": sight.height,
    "size": sight.size,
    "beside": sight.beside,
    "near": sight.near,
    "moving": sight.moving,
    "still": sight.still,
    "direction": sight.direction,
    "approach": sight.growth,
    "recede": sight.growth,
    "bob": sight.bob,
}


def _judge_null(expression, text, word, group, other, seen):
    detail = expression.detail
    everything = range(seen.count)
    if detail in ("absent", "alike"):
        return f"{group} may be called so" if perhaps_meant_by(word, seen.scene) else None
    if detail == "verb":
        said = [t.verb for t in seen.scene.pack.things if t.verb and t.verb.removesuffix("e")[:4] in text]
        heard = [seen.scene.objects[i].thing.verb for i in everything if seen.sounds(i)]
        alike = [v for v in heard if not any(tell_apart(verb, v) for verb in said)]
        return f"{alike} may be called so" if alike else None
    if detail in ("silent", "silent_scene", "muted"):
        loud = [i for i in group if seen.sounds(i)]
        return f"{loud} sound" if loud else None
    if detail == "sounding":
        mute = [i for i in group if not seen.sounds(i)]
        return f"{mute} are silent" if mute or not group else None
    if detail == "place":
        sign = 1 if "left" in text else -1
        named = [i for i in group - {other} if "sounding" not in text or seen.sounds(i)]
        there = [i for i in named if (sign * (seen.x[:, i] - seen.x[:, other])).min() < sight.SIDE]
        return f"{there} may be there" if there else None
    if detail == "motion":
        if "mov" in text and not any(w in text for w in ("not", "unmoved", "still")):
            moving = [i for i in group if sight.travel(seen, i) > sight.STILL]
            return f"{moving} move" if moving else None
        still = [i for i in group if not sight.moves(seen, i)]
        return f"{still} hardly move" if still else None
    heard = [i for i in group - {other} if seen.sounds(i)]
    if detail == "order":
        sign = 1 if " after " in text else -1
        found = [i for i in heard if sign * (seen.onset(i) - seen.onset(other)) > -ORDER_S]
        return f"{found} do" if found else None
    if detail == "loudness":
        found = [i for i in heard if seen.loudness_db(i) > seen.loudness_db(other) - LOUDER_DB]
        return f"{found} may be louder" if found else None
    raise KeyError(detail)
