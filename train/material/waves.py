"""Recordings made alike: trimmed, at one level, with the intervals in which they are to be heard."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import SAMPLE_RATE_HZ

_FRAME = SAMPLE_RATE_HZ // 50
"""Samples of the 20 ms frames in which loudness is taken."""
_HEARD = 0.08
"""A frame is heard above this share of the loud frames' level (-22 dB)."""
_SHORTEST_GAP_S = 0.12
_LOUD = 10 ** (-20 / 20) * 32768
"""Level that loud parts are brought to: -20 dB of full scale."""


def frame_levels(samples: NDArray[np.int16] | NDArray[np.float32]) -> NDArray[np.float64]:
    """Root mean square of each 20 ms frame; a last part of a frame counts as one."""
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % _FRAME))
    levels: NDArray[np.float64] = np.sqrt(np.mean(padded.reshape(-1, _FRAME) ** 2, axis=1))
    return levels


def trim(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """Without the silence before and after.

    Raises:
        ValueError: there is nothing but silence.
    """
    levels = frame_levels(samples)
    if not len(levels) or levels.max() < 16:
        raise ValueError("the recording is silent")
    heard = np.flatnonzero(levels > 0.02 * _loud_level(levels))
    return samples[heard[0] * _FRAME : (heard[-1] + 1) * _FRAME]


def level(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """Loud parts at -20 dB of full scale, less where a peak would clip."""
    gain = _LOUD / _loud_level(frame_levels(samples))
    gain = min(gain, 32000 / max(float(np.abs(samples.astype(np.int32)).max()), 1.0))
    return np.round(samples * gain).astype(np.int16)


def active_intervals(samples: NDArray[np.int16]) -> list[tuple[float, float]]:
    """Intervals in seconds in which a recording is heard; gaps shorter than 0.12 s are closed."""
    levels = frame_levels(samples)
    heard = levels > _HEARD * _loud_level(levels)
    edges = np.flatnonzero(np.diff(heard.astype(np.int8), prepend=0, append=0)) * (_FRAME / SAMPLE_RATE_HZ)
    out: list[tuple[float, float]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if out and start - out[-1][1] < _SHORTEST_GAP_S:
            out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return [(round(a, 3), round(min(b, len(samples) / SAMPLE_RATE_HZ), 3)) for a, b in out]


def _loud_level(levels: NDArray[np.float64]) -> float:
    """The level of the loud parts: root mean square of the loudest third of the frames that are not silent."""
    ordered = np.sort(levels[levels > 0.02 * levels.max()])
    return float(np.sqrt(np.mean(ordered[-max(1, len(ordered) // 3) :] ** 2)))
