"""Pictures and sound that a caller pushes, as a session takes them: windows on one clock, as `ingest` gives them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import PATCH_SAMPLES, ModelConfig
from .ingest import SoundTrack, resize_normalize

_BEFORE_S = 10.0
"""A track's clock reads this at about the first frame: sound that came with it began earlier, and a track has no time below 0."""
_HELD_BACK_S = 0.002
"""A resampler gives the last sound only with what comes after it, so a window ends this much before its frame, or more."""
_MOST_CHANNELS = 64
_CHANNELS_AXIS = 2


@dataclass(frozen=True)
class PushedFrame:
    """One picture that was pushed, with the sound that ends at it; what `ingest.Frame` is of a source."""

    index: int
    pts_s: float
    image: NDArray[np.uint8]
    """[H, W, 3] RGB; the caller's own array."""
    tensor: NDArray[np.float32]
    """[3, S, S], normalised."""
    samples: NDArray[np.float32] | None
    """[15600]; None where no sound came for as long as a window."""
    log_mel: NDArray[np.float32] | None
    """[96, 64]"""
    audio_end_s: float | None
    audio_missing_samples: int

    @property
    def width(self) -> int:
        return self.image.shape[1]

    @property
    def height(self) -> int:
        return self.image.shape[0]


class Pushed:
    """Takes what is pushed, one piece after the other.

    Args:
        config: of the network.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._count = 0
        self._opened_s: float | None = None
        self._last_s = -math.inf
        self._track: SoundTrack | None = None
        self._origin_s = 0.0
        """What the frames' clock reads where the track's reads 0."""

    def take(
        self, image: NDArray[np.uint8], audio: NDArray[Any] | None, t: float | None, rate_hz: int
    ) -> PushedFrame:
        """The next frame; see `Session.push`.

        Raises:
            ValueError: an array has another shape or type, or holds NaN or infinity; a time is no finite number.
        """
        pts_s = self._now_s() if t is None else float(t)
        if not math.isfinite(pts_s):
            raise ValueError(f"t must be a finite number of seconds, not {t}")
        image = np.ascontiguousarray(image)
        tensor = resize_normalize(image, self._config.image_size)  # checks the picture
        mono = None if audio is None else _mono(audio)
        if pts_s < self._last_s:
            self._track = None
        if mono is not None and mono.size:
            self._hear(mono, pts_s, rate_hz)
        self._last_s = pts_s
        samples, log_mel, end_s, missing = self._window(pts_s)
        frame = PushedFrame(self._count, pts_s, image, tensor, samples, log_mel, end_s, missing)
        self._count += 1
        return frame

    def _now_s(self) -> float:
        now_s = time.monotonic()
        if self._opened_s is None:
            self._opened_s = now_s
        return now_s - self._opened_s

    def _hear(self, mono: NDArray[np.float32], pts_s: float, rate_hz: int) -> None:
        begins_s = pts_s - mono.size / rate_hz if rate_hz > 0 else pts_s
        if self._track is None or begins_s - self._origin_s < 0:
            # Whole seconds, so that hops stand at multiples of 10 ms on the caller's clock too.
            self._track, self._origin_s = SoundTrack(), math.floor(begins_s) - _BEFORE_S
        self._track.push(mono, rate_hz, begins_s - self._origin_s)

    def _window(
        self, pts_s: float
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None, float | None, int]:
        if self._track is None:
            return None, None, None, 0
        at_s = pts_s - _HELD_BACK_S + self._config.audio_offset_s - self._origin_s
        samples, log_mel, end_s, missing = self._track.window(at_s)
        if missing == PATCH_SAMPLES:
            return None, None, None, 0
        return samples, log_mel, end_s + self._origin_s, missing


def _mono(audio: NDArray[Any]) -> NDArray[np.float32]:
    """[n] float32 of [n] or [n, channels], floats or int16."""
    values = np.asarray(audio)
    if values.dtype == np.int16:
        values = values.astype(np.float32) / 32_768
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"audio must be floats in [-1, 1] or int16, not {values.dtype}")
    if values.ndim == _CHANNELS_AXIS and 1 <= values.shape[1] <= _MOST_CHANNELS:
        values = values.mean(axis=1)
    if values.ndim != 1:
        raise ValueError(f"audio must be [n] or [n, channels], not {list(values.shape)}")
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise ValueError("audio holds NaN or infinity")
    return np.ascontiguousarray(values, np.float32)
