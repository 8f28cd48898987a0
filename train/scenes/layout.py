"""Drawing by chance how a scene looks: sizes, places, motions, light, camera, background."""

from __future__ import annotations

import numpy as np

from ..material import Background, Pack, Picture
from .backdrop import PROCEDURAL, Backdrop
from .motion import Camera, Motion, MotionKind
from .render import Finish, Look

_MOTIONS: tuple[tuple[MotionKind, float], ...] = (
    ("still", 0.58),
    ("glide", 0.14),
    ("sway", 0.07),
    ("bob", 0.06),
    ("wander", 0.07),
    ("approach", 0.04),
    ("recede", 0.04),
)
_SIZES, _SIZE_SHARES = (0.16, 0.32, 0.52, 0.78, 1.1), (0.08, 0.2, 0.34, 0.24, 0.14)
"""Of an object among two, in units of the frame's smaller side, and how often each is drawn. A network that has seen small ones
alone marks a large object in spots, and photographs are full of them."""
_LARGEST = 1.6
"""No side of an object is longer, in the same units; the frame may cut it."""
_ENLARGED = 4.5
"""A picture is shown at most this many times its size in a frame 360 high."""


def draw_size(picture: Picture, count: int, rng: np.random.Generator) -> tuple[float, float]:
    """(height, width) of an object among `count`, in units of the frame's smaller side.

    The geometric mean of both is mostly 0.3 to 1.1, and 0.08 to 1.4 at the outside.
    """
    crowd = (1.15, 1.0, 0.86, 0.74)[min(count, 4) - 1]
    middle = crowd * rng.choice(_SIZES, p=_SIZE_SHARES)
    mean = float(np.clip(middle * np.exp(rng.normal(0, 0.16)), 0.08, 1.4))
    mean = min(mean, _ENLARGED * float(np.sqrt(picture.width * picture.height)) / 360)
    ratio = float(np.sqrt(picture.width / picture.height))
    height, width = mean / ratio, mean * ratio
    shrink = min(1.0, _LARGEST / max(height, width))
    return height * shrink, width * shrink


def draw_motion(
    height: float,
    width: float,
    place: tuple[float, float],
    seconds: float,
    still: bool,
    rng: np.random.Generator,
) -> Motion:
    """A motion about `place` that stays in the frame as far as the size allows it."""
    kinds, shares = zip(*_MOTIONS, strict=True)
    kind: MotionKind = "still" if still else kinds[rng.choice(len(kinds), p=shares)]
    x, y = place
    angle = float(np.radians(rng.normal(0, 7))) if rng.random() < 0.6 else 0.0
    tilt = float(np.radians(rng.uniform(2, 8))) if kind != "still" and rng.random() < 0.35 else 0.0
    period = float(rng.uniform(2.0, 7.0))
    phase = float(rng.uniform(0, 2 * np.pi))
    start = float(rng.uniform(0, 0.4) * seconds)
    end = float(rng.uniform(0.6, 1.0) * seconds)
    dx = dy = 0.0
    growth = 1.0
    if kind == "glide":
        goal_x = (
            _inside(rng, width) if abs(x - 0.5) < 0.15 else _inside(rng, width, 0.5 - np.sign(x - 0.5) * 0.25)
        )
        dx, dy = goal_x - x, float(rng.normal(0, 0.08))
    elif kind == "sway":
        dx = float(rng.uniform(0.04, 0.12))
    elif kind == "bob":
        dy = float(rng.uniform(0.05, 0.14))
    elif kind == "wander":
        dx, dy = float(rng.uniform(0.04, 0.14)), float(rng.uniform(0.03, 0.1))
    elif kind == "approach":
        growth = float(rng.uniform(1.35, 1.9))
    elif kind == "recede":
        growth = float(1 / rng.uniform(1.35, 1.9))
    return Motion(kind, x, y, dx, dy, angle, tilt, growth, start, end, period, phase)


def draw_places(sizes: list[tuple[float, float]], rng: np.random.Generator) -> list[tuple[float, float]]:
    """Centres for objects of these (height, width): side by side in a random order, with play, or anywhere."""
    count = len(sizes)
    if rng.random() < 0.25:
        return [(_inside(rng, w), _inside(rng, h)) for h, w in sizes]
    order = rng.permutation(count)
    total = sum(w for _, w in sizes)
    free = max(0.0, 1.0 - total)
    gaps = rng.dirichlet(np.full(count + 1, 1.5)) * free
    places: list[tuple[float, float]] = [(0.0, 0.0)] * count
    squeeze = min(1.0, 1.0 / total)
    at = 0.0
    ground = rng.uniform(0.6, 0.98) if rng.random() < 0.5 else None
    for slot, k in enumerate(order):
        h, w = sizes[k]
        at += gaps[slot]
        x = at + w * squeeze / 2
        at += w * squeeze
        y = _inside(rng, h) if ground is None else ground - h / 2 + rng.normal(0, 0.04)
        places[k] = (
            float(np.clip(x, min(w * 0.4, 0.5), max(1 - w * 0.4, 0.5))),
            float(np.clip(y, min(h * 0.45, 0.5), max(1 - h * 0.45, 0.5))),
        )
    return places


def draw_look(rng: np.random.Generator) -> Look:
    return Look(
        flip=bool(rng.random() < 0.5),
        brightness=float(np.clip(rng.normal(1.0, 0.14), 0.55, 1.4)),
        contrast=float(np.clip(rng.normal(1.0, 0.1), 0.7, 1.3)),
        saturation=float(np.clip(rng.normal(1.0, 0.2), 0.1, 1.5)),
        feather=float(rng.uniform(0.3, 0.9)) if rng.random() < 0.35 else 0.0,
        shadow=float(rng.uniform(0.2, 0.55)) if rng.random() < 0.15 else 0.0,
        shadow_x=float(rng.uniform(-0.04, 0.04)),
        shadow_y=float(rng.uniform(0.01, 0.05)),
    )


def draw_camera(seconds: float, rng: np.random.Generator) -> Camera:
    """Mostly still; else a slow drift of a few hundredths of the frame."""
    draw = rng.random()
    if draw < 0.62:
        return Camera(seconds=seconds)
    zoom = float(rng.uniform(1.04, 1.16))
    far = 0.5 - 0.5 / zoom
    if draw < 0.82:
        x, y = 0.5 + far * rng.uniform(-1, 1, 2), 0.5 + far * rng.uniform(-1, 1, 2)
        return Camera((float(x[0]), float(x[1])), (float(y[0]), float(y[1])), (zoom, zoom), seconds)
    ends = (1.0, zoom) if rng.random() < 0.5 else (zoom, 1.0)
    goal_x, goal_y = 0.5 + far * rng.uniform(-1, 1), 0.5 + far * rng.uniform(-1, 1)
    xs, ys = ((0.5, goal_x), (0.5, goal_y)) if ends[0] == 1.0 else ((goal_x, 0.5), (goal_y, 0.5))
    return Camera((float(xs[0]), float(xs[1])), (float(ys[0]), float(ys[1])), ends, seconds)


def draw_backdrop(photos: list[Background], rng: np.random.Generator) -> Backdrop:
    photo = photos[rng.integers(len(photos))] if photos and rng.random() < 0.62 else None
    kind = "photo" if photo else PROCEDURAL[rng.integers(len(PROCEDURAL))]
    return Backdrop(
        kind=kind,
        entry=photo.entry if photo else None,
        origin=photo.origin if photo else kind,
        seed=int(rng.integers(2**31)),
        crop=float(1 - 0.6 * rng.random() ** 2),
        at_x=float(rng.random()),
        at_y=float(rng.random()),
        flip=bool(rng.random() < 0.5),
        gain=float(np.clip(rng.normal(1, 0.15), 0.5, 1.4)),
        tint=(float(rng.normal(1, 0.05)), 1.0, float(rng.normal(1, 0.05))),
        blur=float(rng.uniform(0.2, 1.5)) if rng.random() < 0.25 else 0.0,
    )


def draw_finish(rng: np.random.Generator) -> Finish:
    return Finish(
        gain=float(np.clip(rng.normal(1, 0.15), 0.6, 1.3)) if rng.random() < 0.3 else 1.0,
        blur=float(rng.uniform(0.3, 1.0)) if rng.random() < 0.15 else 0.0,
        noise=float(rng.uniform(2, 10)) if rng.random() < 0.2 else 0.0,
        jpeg=int(rng.integers(30, 85)) if rng.random() < 0.2 else 0,
        seed=int(rng.integers(2**31)),
    )


def photos_for(pack: Pack, split: str) -> list[Background]:
    """The photographs that a split of scenes may use as backgrounds."""
    return [b for b in pack.backgrounds if b.split == material_split(split)]


def material_split(split: str) -> str:
    """The split of the material behind a split of scenes: all test splits share theirs."""
    return split if split in ("train", "val") else "test"


def _inside(rng: np.random.Generator, extent: float, about: float | None = None) -> float:
    """A centre at which an object of this extent is in the frame but for a tenth of it."""
    low = min(0.4 * extent, 0.5)
    if about is None:
        return float(rng.uniform(low, 1 - low))
    return float(np.clip(rng.normal(about, 0.12), low, 1 - low))
