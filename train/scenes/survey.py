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
"""Pixels of the raster's side."""


@dataclass(frozen=True)
class Survey:
    """Of K objects at T whole seconds, each [T, K]."""

    visible: NDArray[np.float64]
    """Share of the object's pixels that is in the frame and not covered."""
    area: NDArray[np.float64]
    """Visible share of the frame."""
    whole: NDArray[np.float64]
    """Share of the frame that it would have, were it all in the frame with nothing before it."""
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
    masks = np.zeros((ticks, count, _SIDE, _SIDE), bool)
    whole = np.zeros((ticks, count))
    for k, (item, (outline, share), pose) in enumerate(zip(objects, outlines, poses, strict=True)):
        whole[:, k] = item.width * item.height * share * (pose.scale * zoom) ** 2
        at_x = ((pose.x - cx) * zoom + 0.5) * _SIDE
        at_y = ((pose.y - cy) * zoom + 0.5) * _SIDE
        zoomed = pose.scale * zoom * item.width * _SIDE / outline.width
        for i in range(ticks):
            turned = place(
                outline, float(at_x[i]), float(at_y[i]), float(zoomed[i]), float(pose.angle[i]), _SIDE, _SIDE
            )
            if turned is None:
                continue
            (rows, columns), alpha = turned
            solid = alpha >= 128
            masks[i, :k, rows, columns] &= ~solid
            masks[i, k, rows, columns] = solid
    columns_of, rows_of = masks.sum(axis=2, dtype=np.int32), masks.sum(axis=3, dtype=np.int32)
    pixels = columns_of.sum(axis=2)
    area = pixels / _SIDE**2
    visible = area / np.maximum(whole, 1e-6)
    grid = (np.arange(_SIDE) + 0.5) / _SIDE
    weight = np.where(pixels > 0, pixels, np.nan)
    x, y = columns_of @ grid / weight, rows_of @ grid / weight
    if still:
        repeat = max(1, int(seconds))
        visible, area, whole, x, y = (np.repeat(v, repeat, axis=0) for v in (visible, area, whole, x, y))
    return Survey(np.minimum(visible, 1.0), area, whole, x, y)


def _outline(pack: Pack, item: SceneObject) -> tuple[Image.Image, float]:
    """The picture's alpha at the size it has on the raster, and the share of its box that is solid."""
    width, height = max(2, round(item.width * _SIDE)), max(2, round(item.height * _SIDE))
    alpha = pack.cutout(item.picture.entry, width).getchannel("a")
    if item.look.flip:
        alpha = alpha.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    small = alpha.resize((width, height), Image.Resampling.BILINEAR)
    return small, float((np.asarray(small) >= 128).mean())
