"""The part of the oracle that looks: places, sizes, neighbours and movements in the masks."""

from __future__ import annotations

import numpy as np

from .scene_evidence import Evidence

SIDE, HEIGHT, RATIO = 0.04, 0.08, 1.2
"""Distances in frame widths and heights; ratio of areas."""
MOVES, STILL = 0.04, 0.012
"""Smaller sides of the frame from which something moves, and up to which it does not."""


def side(text, target, others, other, seen):
    if "left" in text:
        near = [i for i in others if (seen.x[:, i] - seen.x[:, target]).min() < SIDE]
    elif "right" in text:
        near = [i for i in others if (seen.x[:, target] - seen.x[:, i]).min() < SIDE]
    else:
        left = [i for i in others if (seen.x[:, target] - seen.x[:, i]).min() > SIDE]
        right = [i for i in others if (seen.x[:, i] - seen.x[:, target]).min() > SIDE]
        near = [] if len(left) == len(right) == 1 and len(others) == 2 else others
    return f"{near} lie as far out" if near else None


def height(text, target, others, other, seen):
    sign = -1 if "bottom" in text or "lower" in text else 1
    near = [i for i in others if (sign * (seen.y[:, i] - seen.y[:, target])).min() < HEIGHT]
    return f"{near} are as high or low" if near else None


def size(text, target, others, other, seen):
    sign = -1 if "small" in text else 1
    ratio = sign * np.log(seen.area / seen.area[:, [target]])
    near = [i for i in others if ratio[:, i].max() > -np.log(RATIO)]
    return f"{near} are as large or small: {np.exp(ratio[:, near].max()):.2f}" if near else None


def beside(text, target, others, other, seen):
    if "left" in text or "right" in text:
        sign = 1 if "left" in text else -1
        way, margin = sign * (seen.x - seen.x[:, [other]]), SIDE
    else:
        sign = -1 if "below" in text or "under" in text else 1
        way, margin = sign * (seen.y - seen.y[:, [other]]), HEIGHT
    if way[:, target].max() > -margin:
        return f"it is not there at all times: {way[:, target].max():.3f}"
    also = [i for i in others if way[:, i].min() < margin]
    return f"{also} are there too" if also else None


def near(text, target, others, other, seen):
    h, w = seen.size
    away = np.hypot((seen.x - seen.x[:, [other]]) * w / h, seen.y - seen.y[:, [other]])
    near = [i for i in others if (away[:, i] < 1.15 * away[:, target]).any()]
    return f"{near} are as near" if near else None


def travel(seen: Evidence, k: int) -> float:
    """The longest way between two of its places, in smaller sides of the frame, growth counted as movement of its edge."""
    at = seen.alone[:, k]
    radius = np.sqrt(at[:, 0] / np.pi) / min(seen.size)
    way = np.hypot(at[:, None, 1] - at[None, :, 1], at[:, None, 2] - at[None, :, 2])
    return float((way + np.abs(radius[:, None] - radius[None])).max())


def moves(seen: Evidence, k: int) -> bool:
    """It is elsewhere, or of another size, for all to see."""
    area = seen.alone[:, k, 0]
    return travel(seen, k) > MOVES or bool(area.max() > 1.4 * area.min())


def moving(text, target, others, other, seen):
    if not moves(seen, target):
        return f"it moves by {travel(seen, target):.3f}"
    also = [i for i in others if travel(seen, i) > STILL]
    return f"{also} move too" if also else None


def still(text, target, others, other, seen):
    if travel(seen, target) > STILL:
        return f"it moves by {travel(seen, target):.3f}"
    also = [i for i in others if not moves(seen, i)]
    return f"{also} hardly move" if also else None


def direction(text, target, others, other, seen):
    sign = -1 if "left" in text else 1
    way = sign * (seen.alone[-1, :, 1] - seen.alone[0, :, 1])
    if way[target] < 0.1 * seen.size[1] / min(seen.size):
        return f"it goes {way[target]:.2f}"
    also = [i for i in others if way[i] > 0.02 * seen.size[1] / min(seen.size)]
    return f"{also} go there too" if also else None


def growth(text, target, others, other, seen):
    sign = 1 if any(word in text for word in ("closer", "bigger", "toward")) else -1
    ratio = sign * np.log(seen.alone[-1, :, 0] / seen.alone[0, :, 0])
    if ratio[target] < np.log(1.2):
        return f"its size changes by {np.exp(ratio[target]):.2f}"
    also = [i for i in others if ratio[i] > np.log(1.15)]
    return f"{also} too" if also else None


def bob(text, target, others, other, seen):
    height = np.ptp(seen.alone[:, :, 2], axis=0)
    if height[target] < 0.02:
        return f"it moves up and down by {height[target]:.3f}"
    also = [i for i in others if height[i] > 0.025 and seen.scene.objects[i].motion.kind != "glide"]
    return f"{also} too" if also else None
