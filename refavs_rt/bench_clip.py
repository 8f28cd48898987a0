"""A clip to measure on where none is given: the demo clip enlarged to the size of a camera's pictures, with its sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .demo import DEMO, Demo
from .ingest import open_source
from .masks import resize
from .sink import OverlayWriter

WIDTH, HEIGHT = 1280, 720
_GRAIN, _STEP = 5, 37
"""A camera's noise: its height in levels of 255, and how far it moves from picture to picture."""


def write_clip(folder: Path, frames: int) -> Path:
    """The clip in a folder: H.264 where this FFmpeg has it.

    Raises:
        FileNotFoundError: the demo clip is missing.
    """
    demo, clip = Demo.read(DEMO).clip, folder / "clip.mp4"
    with open_source(demo, max_frames=frames) as source:
        with OverlayWriter(clip, WIDTH, HEIGHT, frame_rate=source.frame_rate, source=demo) as writer:
            grain = np.random.default_rng(0).integers(-_GRAIN, _GRAIN + 1, (HEIGHT, WIDTH, 1), np.int16)
            for frame in source:
                moved = np.roll(grain, frame.index * _STEP, axis=(0, 1))
                writer.write(np.clip(_enlarged(frame.image) + moved, 0, 255).astype(np.uint8), frame.pts_s)
    return clip


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.int16]:
    planes = [resize(plane.astype(np.float32), (HEIGHT, WIDTH)) for plane in np.moveaxis(image, 2, 0)]
    return np.stack(planes, axis=2).round().astype(np.int16)
