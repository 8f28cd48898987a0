"""Drawing by chance what is heard: who sounds, when, how loud, and over which noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..material import Pack, Recording, Thing
from .layout import material_split
from .voice import Noise, Play, Voice

_LONG_S = 4.0
"""A recording at least this long is played once through or in part; a shorter one repeats."""


@dataclass(frozen=True)
class Part:
    """When one object is to sound: from `start_s` to `end_s`, with pauses of `gap_s` between repetitions."""

    start_s: float
    end_s: float
    gap_s: float
    once: bool


def recordings_for(thing: Thing, split: str) -> list[Recording]:
    """The recordings of a thing that a split of scenes may play.

    Val and test play recordings of their own where the thing has some, else those of training; a thing that is never
    trained on plays all it has, but in test_u alone.
    """
    if thing.unseen:
        return list(thing.recordings)
    own = [r for r in thing.recordings if r.split == material_split(split)]
    return own or [r for r in thing.recordings if r.split == "train"]


def draw_count(capable: int, rng: np.random.Generator) -> int:
    """How many of the things that could sound do sound: mostly one."""
    if not capable:
        return 0
    draw = rng.random()
    if draw < 0.07:
        return 0
    if draw < 0.64 or capable == 1:
        return 1
    return 2 if draw < 0.92 or capable == 2 else 3


def draw_parts(count: int, seconds: float, rng: np.random.Generator) -> list[Part]:
    """Parts for `count` voices: together, one after another, or with clear beginnings."""
    if count == 0:
        return []
    if count == 1:
        early = rng.random() < 0.65
        start = float(rng.uniform(0, 0.4)) if early else float(rng.uniform(0.4, 0.6 * seconds))
        return [_part(start, seconds, seconds, rng)]
    style = rng.random()
    if style < 0.3:
        return [_part(float(rng.uniform(0, 0.3)), seconds, seconds, rng) for _ in range(count)]
    longest = 0.75 * seconds / count
    gap = float(rng.uniform(min(1.0, longest), longest))
    starts = [float(rng.uniform(0, 0.3)) + k * gap + float(rng.uniform(0, 0.3)) for k in range(count)]
    parts = []
    for k, start in enumerate(starts):
        end = seconds
        if style > 0.7 and k + 1 < count:  # the one stops before the next begins
            end = max(start + 0.6, starts[k + 1] - 0.1)
        parts.append(_part(start, end, seconds, rng))
    order = rng.permutation(count)
    return [parts[i] for i in order]


def draw_voice(
    pack: Pack,
    recording: Recording,
    part: Part,
    base_gain_db: float,
    seconds: float,
    rng: np.random.Generator,
) -> Voice:
    """A voice that plays `recording` in `part`."""
    speed = float(np.exp(rng.normal(0, 0.05))) if rng.random() < 0.7 else 1.0
    plays: list[Play] = []
    first_sound = recording.active[0][0]
    if recording.seconds >= _LONG_S:
        latest = max(0.0, recording.seconds - (part.end_s - part.start_s) * speed)
        offset = float(rng.uniform(0, latest)) if rng.random() < 0.5 else first_sound
        offset = next((a for a, b in recording.active if b > offset + 0.2 and a >= offset), offset)
    else:
        offset = first_sound
    at = part.start_s
    while at < part.end_s - 0.1:
        length = min((recording.seconds - offset) / speed, part.end_s - at)
        plays.append(Play(at, offset, length))
        if part.once:
            break
        at += length + part.gap_s * float(rng.uniform(0.7, 1.3))
        offset = first_sound
    return Voice(
        recording=recording,
        plays=tuple(plays),
        gain_db=base_gain_db,
        speed=speed,
        ramp_db=float(rng.choice([-1, 1]) * rng.uniform(12, 18)) if rng.random() < 0.08 else 0.0,
        echo_s=float(rng.uniform(0.03, 0.15)),
        echo_gain=float(rng.uniform(0.1, 0.4)) if rng.random() < 0.2 else 0.0,
        low_pass_hz=float(rng.uniform(2500, 6500)) if rng.random() < 0.15 else 0.0,
    )


def draw_gains(count: int, rng: np.random.Generator) -> list[float]:
    """Gains in dB: alike, or one clearly louder than the rest."""
    if count < 2 or rng.random() < 0.4:
        return (
            [float(rng.uniform(-9, 5)) for _ in range(count)]
            if count < 2
            else [float(rng.uniform(-5, 1))] * count
        )
    quiet = float(rng.uniform(-12, -6))
    gains = [quiet + k * float(rng.uniform(6, 9)) for k in range(count)]
    return [gains[i] - max(0.0, max(gains) - 4) for i in rng.permutation(count)]


def draw_noise(pack: Pack, split: str, rng: np.random.Generator) -> Noise:
    """Half of the scenes have none to speak of; loud noise lies 15 dB below the objects."""
    draw = rng.random()
    seed = int(rng.integers(2**31))
    level = float(rng.uniform(-62, -36))
    if draw < 0.3:
        return Noise()
    places = [a for a in pack.ambiences if a.split == material_split(split)]
    if draw < 0.4 and places:
        return Noise("place", level - 2, places[rng.integers(len(places))].entry, seed)
    if draw < 0.6:
        return Noise("white", level - 6, None, seed)
    return Noise("pink" if draw < 0.8 else "brown", level, None, seed)


def _part(start: float, end: float, seconds: float, rng: np.random.Generator) -> Part:
    """Repeats without a pause to speak of, with long pauses, or a single time."""
    draw = rng.random()
    if draw < 0.5:
        gap = float(rng.uniform(0.0, 0.3))
    elif draw < 0.85:
        gap = float(rng.uniform(0.5, 2.0))
    else:
        gap = 0.0
    if end >= seconds and rng.random() < 0.25:
        end = float(rng.uniform(min(start + 1.5, seconds), seconds))
    return Part(start, end, gap, once=bool(draw >= 0.85))
