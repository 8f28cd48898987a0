"""Masks at the source's size whose edges are the picture's, by a guided filter (csrc/guided.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .config import IMAGENET_MEAN, IMAGENET_STD
from .masks import Mask
from .result import SeenFrame

if TYPE_CHECKING:
    from ._ingest import GuidedUpsampler

_RADIUS, _EPSILON = 3, 1e-3
"""Of the filter's windows, in pixels of the network's mask; and how little a change of colour may be to count as an edge."""


class AlignedMasks:
    """Upsamples logits of frames; what a frame's size asks for is kept from one to the next."""

    def __init__(self) -> None:
        self._upsampler: GuidedUpsampler | None = None
        self._size = (0, 0, 0)

    def __getstate__(self) -> dict[str, Any]:
        """For a copy, which makes an upsampler of its own."""
        return {"_upsampler": None, "_size": (0, 0, 0)}

    def masks(self, logits: NDArray[np.float32], frame: SeenFrame, threshold: float) -> Mask:
        """[N, H, W]: where the probability, fitted to the colours around it, is above the threshold.

        Args:
            logits: [N, h, h], with h a divisor of the network's picture.
            frame: what they were found in.
            threshold: in (0, 1).
        """
        size = frame.width, frame.height, logits.shape[-1]
        if self._upsampler is None or self._size != size:
            from ._ingest import GuidedUpsampler

            self._upsampler, self._size = GuidedUpsampler(*size, _RADIUS, _EPSILON), size
        return self._upsampler.run(
            _sigmoid(logits),
            frame.tensor,
            frame.image,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            threshold=threshold,
        )


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.reciprocal(np.float32(1.0) + np.exp(-x))
