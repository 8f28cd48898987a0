"""Files as frames with the sound that ends at them, read by the compiled extension `refavs_rt._ingest`.

Clock: seconds since the earlier of the file's picture and sound begins. Hops stand at multiples of 10 ms on it; a frame
at t comes with the log-mel patch of the 15,600 samples (16 kHz mono) that end at the last hop at or before t.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from .config import IMAGENET_MEAN, IMAGENET_STD

try:
    from . import _ingest
    from ._ingest import Frame, Ingest, IngestError, StreamingLogMel, ffmpeg_version, log_mel
except ImportError as error:  # not built, or FFmpeg's libraries have gone since
    raise ImportError(
        f"the compiled part of refavs_rt does not load ({error}); build it with `make demo` or `pip install .`"
    ) from error

__all__ = [
    "Frame",
    "Ingest",
    "IngestError",
    "StreamingLogMel",
    "ffmpeg_version",
    "log_mel",
    "open_source",
    "resize_normalize",
]


def open_source(
    path: str | os.PathLike[str],
    size: int = 256,
    *,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    audio_offset_s: float = 0.0,
    max_frames: int | None = None,
    duration_s: float | None = None,
    decode_threads: int = 0,
) -> Ingest:
    """Open a media file and start reading it.

    Every frame is delivered; where the caller is slow, reading waits. Close it, or use it in a `with` block.

    Args:
        path: a file with a video stream. Sound is optional.
        size: S, the side of `Frame.tensor` [3, S, S].
        mean: of RGB in [0, 1], for the tensor.
        std: of RGB in [0, 1], for the tensor.
        audio_offset_s: the sound's window ends this long after the frame.
        max_frames: stop after so many frames.
        duration_s: only frames before this time on the source's clock.
        decode_threads: for the video decoder; 0 takes half of the cores, 4 at most.

    Raises:
        IngestError: the file cannot be read, has no video stream, or nothing in it decodes.
        ValueError: an argument is out of range.
    """
    return Ingest(
        os.fspath(path),
        size=size,
        mean=mean,
        std=std,
        audio_offset_s=audio_offset_s,
        max_frames=max_frames,
        duration_s=duration_s,
        decode_threads=decode_threads,
    )


def resize_normalize(
    image: NDArray[np.uint8],
    size: int,
    *,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> NDArray[np.float32]:
    """A picture as the network's input: (resize(image) / 255 - mean) / std.

    The resize is one stretch by an antialiased triangle filter, that of PIL.Image.resize(BILINEAR) without its rounding to
    bytes, so within 1/255 of it.

    Args:
        image: [H, W, 3] uint8 RGB.
        size: S.

    Returns:
        [3, S, S] float32.

    Raises:
        ValueError: another shape or dtype.
    """
    return _ingest.resize_normalize(image, size, mean=mean, std=std)
