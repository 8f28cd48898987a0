"""What a frame gave, for those who use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .masks import Mask


class SeenFrame(Protocol):
    """A picture with the sound that ends at it: `ingest.Frame`, or one that was pushed."""

    @property
    def index(self) -> int:
        """0, 1, 2, ..."""

    @property
    def pts_s(self) -> float:
        """When it is shown, in seconds of its source."""

    @property
    def width(self) -> int:
        """Of `image`, in pixels."""

    @property
    def height(self) -> int:
        """Of `image`, in pixels."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """[H, W, 3] RGB."""

    @property
    def tensor(self) -> NDArray[np.float32]:
        """[3, S, S], as the network takes it."""

    @property
    def samples(self) -> NDArray[np.float32] | None:
        """[15600], the window's sound; None where there is none."""

    @property
    def log_mel(self) -> NDArray[np.float32] | None:
        """[96, 64] of the window; None where there is no sound."""

    @property
    def audio_end_s(self) -> float | None:
        """Where the window ends; None where there is no sound."""

    @property
    def audio_missing_samples(self) -> int:
        """Of the window's samples, those that there is no sound for."""


@dataclass(frozen=True)
class Result:
    """What was found in one frame for N sentences."""

    index: int
    """Of the frame, from 0 on."""
    pts_s: float
    """When the frame is shown, in seconds of the source."""
    frame: SeenFrame
    """The frame itself, with its sound."""
    texts: tuple[str, ...]
    """The N sentences."""
    presence: NDArray[np.float32]
    """[N], the chance that anything in the frame fits each sentence."""
    masks: Mask
    """[N, H, W]; empty where nothing fits (`Masker`)."""
    mask_logits: NDArray[np.float32]
    """[N, h, w], before the presence is looked at."""
    latency_ms: float
    """Of a live source, from the frame's capture to this result; else from when the frame was decoded or pushed."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """[H, W, 3], RGB, as the source shows it; converted when first asked for."""
        return self.frame.image
