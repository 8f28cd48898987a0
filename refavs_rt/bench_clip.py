"""A clip to measure on where none is given: moving pictures and a tone, encoded as a camera's recording would be."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .sink import OverlayWriter

WIDTH, HEIGHT, RATE_HZ = 1280, 720, 25
_SOUND_HZ = 16_000


def write_clip(folder: Path, frames: int) -> Path:
    """The clip in a folder: H.264 with AAC, as far as this FFmpeg has them."""
    sound, clip = folder / "sound.wav", folder / "clip.mp4"
    _write_tone(sound, frames / RATE_HZ)
    with OverlayWriter(clip, WIDTH, HEIGHT, frame_rate=RATE_HZ, source=sound) as writer:
        grain = np.random.default_rng(0).integers(0, 24, (HEIGHT, WIDTH, 3), np.uint8)
        for index in range(frames):
            writer.write(_picture(grain, index), index / RATE_HZ)
    return clip


def _picture(grain: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
    """Waves that move, under a grain that moves otherwise, so that the decoder has what to do."""
    x = np.sin(np.arange(WIDTH)[None, :, None] / 47 + index / 9 + np.arange(3))
    y = np.cos(np.arange(HEIGHT)[:, None, None] / 31 - index / 13)
    return (104 + 100 * x * y).astype(np.uint8) + np.roll(grain, 3 * index, axis=1)


def _write_tone(path: Path, duration_s: float) -> None:
    t = np.arange(round(duration_s * _SOUND_HZ)) / _SOUND_HZ
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_SOUND_HZ)
        file.writeframes((8_000 * np.sin(2 * np.pi * 440 * t)).astype("<i2").tobytes())
