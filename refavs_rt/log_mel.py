"""The VGGish log-mel patch in numpy, for training and for callers that bring their own samples.

Frames of 400 samples, 160 apart, periodic Hann window, 512-point magnitude spectrum, 64 HTK mel bins between 125 and
7500 Hz, log(mel + 0.01) (Hershey et al., arXiv 1609.09430). The C++ ingestion computes the same patch as a stream.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from .config import HOP_SAMPLES, MEL_BINS, PATCH_SAMPLES, SAMPLE_RATE_HZ

_FRAME_SAMPLES = 400
_FFT_SIZE = 512
_LOW_HZ, _HIGH_HZ = 125.0, 7_500.0
_LOG_OFFSET = 0.01


def log_mel(samples: NDArray[np.floating]) -> NDArray[np.float32]:
    """Log-mel patches of windows of sound.

    Args:
        samples: [..., 15600], 16 kHz mono in [-1, 1].

    Returns:
        [..., 96, 64] float32.

    Raises:
        ValueError: the last axis is not one window long.
    """
    if samples.shape[-1] != PATCH_SAMPLES:
        raise ValueError(f"a window has {PATCH_SAMPLES} samples, not {samples.shape[-1]}")
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float32), _FRAME_SAMPLES, axis=-1)
    frames = frames[..., ::HOP_SAMPLES, :] * _hann()
    magnitude = np.abs(np.fft.rfft(frames, _FFT_SIZE)).astype(np.float32)
    return np.log(magnitude @ mel_matrix() + np.float32(_LOG_OFFSET)).astype(np.float32)


@functools.cache
def mel_matrix() -> NDArray[np.float32]:
    """[257, 64] weights from the magnitude spectrum to mel bins, triangular on the mel scale, nothing from 0 Hz."""
    spectrum_mel = _hertz_to_mel(np.linspace(0.0, SAMPLE_RATE_HZ / 2, _FFT_SIZE // 2 + 1))
    edges = np.linspace(_hertz_to_mel(np.float64(_LOW_HZ)), _hertz_to_mel(np.float64(_HIGH_HZ)), MEL_BINS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (spectrum_mel[:, None] - lower) / (centre - lower)
    falling = (upper - spectrum_mel[:, None]) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return weights.astype(np.float32)


def _hertz_to_mel(hertz: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    return np.asarray(1127.0 * np.log1p(hertz / 700.0))


@functools.cache
def _hann() -> NDArray[np.float32]:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME_SAMPLES) / _FRAME_SAMPLES)).astype(np.float32)
