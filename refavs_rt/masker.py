"""From what the network says of a frame to the masks that people are shown."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .aligned_masks import AlignedMasks
from .config import RunConfig
from .masks import Mask, binary_masks
from .result import SeenFrame


class Masker:
    """Masks of N sentences from frame to frame.

    A sentence that something fits is shown from a presence of `RunConfig.presence_threshold` on, and no longer once it falls
    below that by more than `presence_hysteresis`, or to less than half of it, so that one near the threshold does not
    flicker. Logits may be smoothed over time (`mask_smoothing_s`), and edges are put where the picture has them
    (`align_edges`).
    """

    def __init__(self, run: RunConfig) -> None:
        self._run = run
        self._shown = np.zeros(0, np.bool_)
        self._smooth: list[NDArray[np.float32] | None] = []
        self._last_s: float | None = None
        self._aligned = AlignedMasks()

    def add(self, count: int) -> None:
        """So many sentences more."""
        self._shown = np.concatenate([self._shown, np.zeros(count, np.bool_)])
        self._smooth += [None] * count

    def remove(self, index: int) -> None:
        """Later sentences move up."""
        self._shown = np.delete(self._shown, index)
        del self._smooth[index]

    def forget(self, index: int | None = None) -> None:
        """What was shown of one sentence, or of all."""
        for i in range(len(self._shown)) if index is None else [index]:
            self._shown[i] = False
            self._smooth[i] = None

    def masks(self, logits: NDArray[np.float32], presence: NDArray[np.float32], frame: SeenFrame) -> Mask:
        """[N, H, W] at the frame's size; those that nothing fits are empty.

        Args:
            logits: [N, h, w].
            presence: [N].
            frame: what they were found in.
        """
        run = self._run
        # At least half of it: a low threshold must not become one that nothing falls below.
        leaves_at = max(run.presence_threshold - run.presence_hysteresis, run.presence_threshold / 2)
        stays = self._shown & (presence >= leaves_at)
        self._shown = (presence >= run.presence_threshold) | stays
        logits = self._smoothed(logits, frame.pts_s)
        masks = np.zeros((len(logits), frame.height, frame.width), np.bool_)
        found = np.flatnonzero(self._shown)
        if found.size:
            masks[found] = self._upsampled(logits[found], frame)
        return masks

    def _smoothed(self, logits: NDArray[np.float32], pts_s: float) -> NDArray[np.float32]:
        if not self._run.mask_smoothing_s:
            return logits
        passed_s = 0.0 if self._last_s is None else abs(pts_s - self._last_s)
        self._last_s = pts_s
        share = 1.0 - math.exp(-passed_s / self._run.mask_smoothing_s)
        for i, plane in enumerate(logits):
            old = self._smooth[i]
            self._smooth[i] = plane.copy() if old is None else old + np.float32(share) * (plane - old)
        return np.stack([plane for plane in self._smooth if plane is not None]) if len(logits) else logits

    def _upsampled(self, logits: NDArray[np.float32], frame: SeenFrame) -> Mask:
        if self._run.align_edges:
            return self._aligned.masks(logits, frame, self._run.mask_threshold)
        return binary_masks(logits, (frame.height, frame.width), self._run.mask_threshold)
