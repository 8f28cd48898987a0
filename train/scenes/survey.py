"""A rough look at a scene before anything is said of it: where each object is, and how much of it is to be seen.

It draws the outlines alone, on a square raster. A square is the worst case: in a wider frame the objects have the same size
and lie farther apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..material import Pack
from .motion import Camera
from .render import place

if TYPE_CHECKING:
    from .scene import SceneObject

_SIDE = 64


@dataclass(frozen=True)
class Survey:
    """Of K objects at T whole seconds, each [T, K]."""

    visible: NDArray[np.float64]
    """Share of the object's pixels that is in the frame and not covered."""
    area: NDArray[np.float64]
    """Visible share of the frame."""
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    """Centre of the visible pixels, 0 to 1 over the frame; NaN where there is none."""


def survey(pack: Pack, objects: Sequence[SceneObject], camera: Camera, seconds: float) -> Survey:
    """Look at each whole second of the clip."""
    still = not camera.moves and all(item.motion.kind == "still" and not item.motion.tilt for item in objects)
    ticks = 1 if still else max(1, int(seconds))
    times = np.arange(ticks, dtype=np.float64)
    outlines = [_outline(pack, item) for item in objects]
    poses = [item.motion.at(times) for item in objects]
    cx, cy, zoom = camera.at(times)
    count = len(objects)
    visible, area = np.zeros((ticks, count)), np.zeros((ticks, count))
    x, y = np.full((ticks, count), np.nan), np.full((ticks, count), np.nan)
    grid = (np.arange(_SIDE) + 0.5) / _SIDE
    for i in range(ticks):
        masks = np.zeros((count, _SIDE, _SIDE), bool)
        whole = np.zeros(count)
        for k, (item, (outline, share), pose) in enumerate(zip(objects, outlines, poses, strict=True)):
            scale = pose.scale[i] * zoom[i]
            whole[k] = item.width * item.height * share * scale**2
            at_x = float(((pose.x[i] - cx[i]) * zoom[i] + 0.5) * _SIDE)
            at_y = float(((pose.y[i] - cy[i]) * zoom[i] + 0.5) * _SIDE)
            zoomed = float(scale * item.width * _SIDE / outline.width)
            placed = place(outline, at_x, at_y, zoomed, float(pose.angle[i]), _SIDE, _SIDE)
            if placed is None:
                continue
            (rows, columns), alpha = placed
            solid = alpha >= 128
            masks[:k, rows, columns] &= ~solid
            masks[k, rows, columns] = solid
        area[i] = masks.mean(axis=(1, 2))
        visible[i] = area[i] / np.maximum(whole, 1e-6)
        for k in np.flatnonzero(area[i]):
            x[i, k] = _centre(masks[k].sum(axis=0), grid)
            y[i, k] = _centre(masks[k].sum(axis=1), grid)
    if still:
        repeat = max(1, int(seconds))
        visible, area, x, y = (np.repeat(values, repeat, axis=0) for values in (visible, area, x, y))
    return Survey(np.minimum(visible, 1.0), area, x, y)


def _centre(weights: NDArray[np.int64], grid: NDArray[np.float64]) -> float:
    return float(weights @ grid / weights.sum())


def _outline(pack: Pack, item: SceneObject) -> tuple[Image.Image, float]:
    """The picture's alpha at the size it has on the raster, and the share of its box that is solid."""
    alpha = pack.picture(item.picture.entry).getchannel("A")
    if item.look.flip:
        alpha = alpha.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    width, height = max(2, round(item.width * _SIDE)), max(2, round(item.height * _SIDE))
    small = alpha.resize((width, height), Image.Resampling.BILINEAR)
    return small, float((np.asarray(small) >= 128).mean())
