"""Masks at the source's size whose edges are the picture's, by a guided filter (csrc/guided.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .config import IMAGENET_MEAN, IMAGENET_STD
from .masks import Mask, resize
from .result import SeenFrame

if TYPE_CHECKING:
    from ._ingest import GuidedUpsampler

_SMALL = 128
"""About how many pixels the small picture, in which masks are fitted to colours, has on a side."""
_RADIUS, _EPSILON = 6, 1e-3
"""Of the filter's windows, in pixels of the small picture; and how little a change of colour may be to count as an edge."""


class AlignedMasks:
    """Upsamples logits of frames; what a frame's size asks for is kept from one to the next."""

    def __init__(self) -> None:
        self._upsampler: GuidedUpsampler | None = None
        self._size = (0, 0, 0)

    def masks(self, logits: NDArray[np.float32], frame: SeenFrame, threshold: float) -> Mask:
        """[N, H, W]: where the probability, fitted to the colours around it, is above the threshold.

        Args:
            logits: [N, h, w].
            frame: what they were found in.
            threshold: in (0, 1).
        """
        small = _small(frame.tensor)
        side = small.shape[-1]
        size = frame.width, frame.height, side
        if self._upsampler is None or self._size != size:
            from ._ingest import GuidedUpsampler

            self._upsampler, self._size = GuidedUpsampler(*size, _RADIUS, _EPSILON), size
        probabilities = np.stack([_sigmoid(resize(plane, (side, side))) for plane in logits])
        return self._upsampler.run(probabilities, small, frame.image, threshold)


def _small(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """[3, s, s] in [0, 1]: the network's picture [3, S, S], shrunk by a whole number."""
    side = tensor.shape[-1]
    factor = max(f for f in range(1, max(1, side // _SMALL) + 1) if side % f == 0)
    small = tensor.reshape(3, side // factor, factor, side // factor, factor).mean(axis=(2, 4))
    small *= np.array(IMAGENET_STD, np.float32)[:, None, None]
    small += np.array(IMAGENET_MEAN, np.float32)[:, None, None]
    return small


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.reciprocal(np.float32(1.0) + np.exp(-x))
