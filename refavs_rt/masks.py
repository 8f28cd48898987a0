"""Mask logits to masks at the source's size, and what is said of a mask: box, centroid, area, COCO RLE.

Image coordinates are in pixels with the origin at the picture's top left corner: the pixel (0, 0) covers [0, 1] x [0, 1].
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


class Rle(TypedDict):
    """A mask as COCO's compressed run lengths, as pycocotools reads them."""

    size: list[int]
    """[height, width]"""
    counts: str


def binary_masks(logits: NDArray[np.float32], size: tuple[int, int], threshold: float) -> Mask:
    """Where the sigmoid of the resized logits is above the threshold.

    Args:
        logits: [N, h, w].
        size: (height, width) of the masks.
        threshold: in (0, 1).

    Returns:
        [N, height, width] bool.
    """
    level = np.float32(math.log(threshold / (1.0 - threshold)))
    masks = np.zeros((len(logits), *size), np.bool_)
    rows, columns = (_Taps.between(*lengths) for lengths in zip(logits.shape[1:], size, strict=True))
    for mask, plane in zip(masks, logits, strict=True):
        # A resized value is a mean of its neighbours, so only neighbours of a value above the level can be above it.
        hit = plane > level
        y, x = rows.reached_from(hit.any(axis=1)), columns.reached_from(hit.any(axis=0))
        wide = np.ascontiguousarray(columns[x].apply(np.ascontiguousarray(plane.T)).T)
        for top in range(y.start, y.stop, _CACHED_ROWS):
            part = slice(top, min(top + _CACHED_ROWS, y.stop))
            np.greater(rows[part].apply(wide), level, out=mask[part, x])
    return masks


def resize(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Antialiased bilinear resize of [h, w] to [height, width], pixel centres at halves, edges repeated.

    The filter of PIL's BILINEAR and of torch's `interpolate(mode="bilinear", antialias=True)`.
    """
    rows, columns = (_Taps.between(*lengths) for lengths in zip(plane.shape, size, strict=True))
    return rows.apply(np.ascontiguousarray(columns.apply(np.ascontiguousarray(plane.T)).T))


_CACHED_ROWS = 64
"""Rows resized at a time, few enough to stay in the cache: four times faster than a whole 720p frame at once."""


@dataclass(frozen=True)
class _Taps:
    """A resize of one axis as a weighted sum of few rows: out[i] = sum over k of weight[k, i] * in[index[k, i]].

    Rows are gathered rather than multiplied by a matrix: a matrix product starts the threads of numpy's BLAS, which fight
    with those of the engine and the decoder for the cores.
    """

    index: NDArray[np.intp]
    weight: NDArray[np.float32]

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def between(source: int, target: int) -> _Taps:
        """The triangle filter from `source` to `target` rows, as wide as the shrinking asks for; weights sum to 1."""
        scale = source / target
        support = max(scale, 1.0)
        centre = (np.arange(target) + 0.5) * scale
        first = np.floor(centre - support).astype(np.intp)
        index = first + np.arange(math.ceil(2 * support) + 1)[:, None]
        weight = np.maximum(0.0, 1.0 - np.abs(index + 0.5 - centre) / support)
        weight[(index < 0) | (index >= source)] = 0.0
        weight /= weight.sum(axis=0)
        used = weight.any(axis=1)
        return _Taps(np.clip(index, 0, source - 1)[used], weight[used].astype(np.float32))

    def __getitem__(self, part: slice) -> _Taps:
        return _Taps(self.index[:, part], self.weight[:, part])

    def apply(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resize the first axis of [source, n]."""
        total = rows[self.index[0]]
        total *= self.weight[0, :, None]
        for index, weight in zip(self.index[1:], self.weight[1:], strict=True):
            term = rows[index]
            term *= weight[:, None]
            total += term
        return total

    def reached_from(self, hit: NDArray[np.bool_]) -> slice:
        """The outputs, from the first to the last, that a source row with `hit` has a part in."""
        reached = np.flatnonzero(hit[self.index].any(axis=0))
        return slice(int(reached[0]), int(reached[-1]) + 1) if reached.size else slice(0, 0)


def box(mask: Mask) -> list[int] | None:
    """[x, y, width, height] of the smallest box around a mask [H, W]; None if it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return [int(v) for v in (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)]


def centroid(mask: Mask) -> list[float] | None:
    """[x, y] of a mask's [H, W] centre of area; None if it is empty."""
    by_row, by_column = mask.sum(axis=1), mask.sum(axis=0)
    area = int(by_row.sum())
    if not area:
        return None
    x, y = (float(np.arange(n.size) @ n) / area + 0.5 for n in (by_column, by_row))
    return [x, y]


def rle_encode(mask: Mask) -> Rle:
    """COCO RLE of a mask [H, W]: column by column, run lengths from a run of zeros on, as a compressed string."""
    height, width = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    first, last = (columns[0], columns[-1] + 1) if columns.size else (0, 0)
    # The transposed copy is the dear part, so only columns with something in them are copied.
    inner = mask[:, first:last].T.ravel()
    padded = np.concatenate([[False], inner, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1]) + first * height
    counts = np.diff(edges, prepend=0, append=height * width)
    if columns.size and counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [height, width], "counts": _counts_to_string(counts)}


def rle_decode(rle: Rle | dict[str, Any]) -> Mask:
    """The mask [H, W] of a COCO RLE.

    Raises:
        ValueError: the string is damaged, or its runs do not fill the size.
    """
    height, width = rle["size"]
    counts = _string_to_counts(rle["counts"])
    if any(n < 0 for n in counts) or sum(counts) != height * width:
        raise ValueError(f"an RLE mask of {sum(counts)} pixels does not fill {height} x {width}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


_BITS, _MORE, _SIGN, _OFFSET = 5, 0x20, 0x10, 48
"""A count is written in groups of 5 bits, low first, a sixth bit says that more follow, each as a character from '0' on."""
_GROUPS = 8
"""Enough for any 32-bit count and its sign."""
_BACK = 2
"""From the fourth on, a count is written as its difference from the one two before."""


def _counts_to_string(counts: NDArray[np.int64]) -> str:
    values = counts.astype(np.int64)
    values[_BACK + 1 :] -= counts[1:-_BACK]
    shifted = values[:, None] >> (_BITS * np.arange(_GROUPS))  # [runs, groups]
    groups = shifted & (_MORE - 1)
    # A value ends at the group whose rest is only its sign: 0 or -1, as that group's sign bit says.
    rest = shifted >> _BITS
    ends = rest == np.where(groups & _SIGN, -1, 0)
    length = ends.argmax(axis=1)
    order = np.arange(_GROUPS)
    characters = groups + _MORE * (order < length[:, None]) + _OFFSET
    return characters[order <= length[:, None]].astype(np.uint8).tobytes().decode("ascii")


def _string_to_counts(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - _OFFSET
        if not 0 <= group < 2 * _MORE:
            raise ValueError(f"an RLE mask has the foreign character {character!r}")
        value |= (group & (_MORE - 1)) << shift
        shift += _BITS
        if group & _MORE:
            continue
        if group & _SIGN:
            value -= 1 << shift
        counts.append(value + (counts[-_BACK] if len(counts) > _BACK else 0))
        value = shift = 0
    if shift:
        raise ValueError("an RLE mask ends in the middle of a number")
    return counts
