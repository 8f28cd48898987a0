"""Files, cameras and streams as frames with the sound that ends at them, read by the compiled extension `refavs_rt._ingest`.

Clock: of a file, seconds since the earlier of its picture and sound begins; of a live source, seconds on the machine's
monotonic clock since it was opened. Hops stand at multiples of 10 ms on it; a frame at t comes with the log-mel patch of the
15,600 samples (16 kHz mono) that end at the last hop at or before t.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from .config import IMAGENET_MEAN, IMAGENET_STD

try:
    from . import _ingest
    from ._ingest import (
        DeviceClock,
        Frame,
        Ingest,
        IngestError,
        LiveIngest,
        SoundTrack,
        StreamingLogMel,
        ffmpeg_version,
        list_devices,
        log_mel,
    )
except ImportError as error:  # not built, or FFmpeg's libraries have gone since
    raise ImportError(
        f"the compiled part of refavs_rt does not load ({error}); build it with `make demo` or `pip install .`"
    ) from error

__all__ = [
    "DeviceClock",
    "Frame",
    "Ingest",
    "IngestError",
    "LiveIngest",
    "SoundTrack",
    "StreamingLogMel",
    "ffmpeg_version",
    "list_devices",
    "log_mel",
    "open_live",
    "open_source",
    "resize_normalize",
]


def open_source(
    source: str | os.PathLike[str],
    size: int = 256,
    *,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    audio_offset_s: float = 0.0,
    max_frames: int | None = None,
    duration_s: float | None = None,
    decode_threads: int = 0,
) -> Ingest:
    """Open a file or a stream and start reading it as fast as it is used.

    Every frame is delivered; where the caller is slow, reading waits. Close it, or use it in a `with` block. A stream of the
    network that breaks off gives what it has sent, then an error.

    Args:
        source: with a video stream; sound is optional. A path is a file; a str may also be a stream (`rtsp://`, `http://` and
            the others of `open_live`) or `lavfi:GRAPH`. Cameras and screens are live: `open_live` takes them.
        size: S, the side of `Frame.tensor` [3, S, S].
        mean: of RGB in [0, 1], for the tensor.
        std: of RGB in [0, 1], for the tensor.
        audio_offset_s: the sound's window ends this long after the frame.
        max_frames: stop after so many frames.
        duration_s: only frames before this time on the source's clock.
        decode_threads: for the video decoder; 0 takes half of the cores, 4 at most.

    Raises:
        IngestError: the source cannot be read, has no video stream, or nothing in it decodes.
        ValueError: an argument is out of range.
    """
    return Ingest(
        os.fspath(source),
        is_file=not isinstance(source, str),
        size=size,
        mean=mean,
        std=std,
        audio_offset_s=audio_offset_s,
        max_frames=max_frames,
        duration_s=duration_s,
        decode_threads=decode_threads,
    )


def open_live(
    camera: str | int | os.PathLike[str],
    size: int = 256,
    *,
    mic: str = "auto",
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    audio_offset_s: float = 0.0,
    max_frames: int | None = None,
    duration_s: float | None = None,
    latency_s: float = 0.2,
    silence_s: float = 5.0,
    decode_threads: int = 0,
    hwaccel: str = "",
    camera_size: str = "",
    camera_rate: float = 0.0,
) -> LiveIngest:
    """Open a camera, and a microphone, as one live stream of frames with their sound.

    Who takes less time for a frame than the camera gets every one, in order; to who is slower the newest goes, and those
    before it are dropped and counted. A frame is ready as soon as its sound is there, or `latency_s` after its capture with
    what there is; `Frame.audio_missing_samples` says how much of the window is missing, and a window without any sound comes
    as no sound (`log_mel` None). A source that is lost is opened again, after 0.25 s and then twice as long up to 8 s, for
    ever; `LiveIngest.take_notices` tells.

    Addresses: `0` or `/dev/video0` (a V4L2 camera; as `mic`, an ALSA card), `rtsp://` `rtmp://` `srt://` `udp://` `tcp://`
    `http://` (a stream), `screen::0.0+X,Y?size=WxH&rate=N` (X11), `lavfi:GRAPH` (FFmpeg's test sources),
    `gst:PIPELINE` (what gst-launch-1.0 takes, where GStreamer is installed; for pictures and sound of one pipeline end its
    branches in `appsink name=picture` and `appsink name=sound`), `default`, `pulse:NAME`, `alsa:NAME` (a microphone), or a
    file. What FFmpeg would give faster than real time is paced.

    Args:
        camera: an address with pictures; a number is that V4L2 camera, a path a file.
        size: S, the side of `Frame.tensor` [3, S, S].
        mic: an address with sound; "auto": the camera's own sound, else the default microphone, else none; "none".
        mean: of RGB in [0, 1], for the tensor.
        std: of RGB in [0, 1], for the tensor.
        audio_offset_s: the sound's window ends this long after the frame.
        max_frames: stop after so many frames.
        duration_s: only frames within this time of the first.
        latency_s: how long a frame may wait for its sound, and how much of a network stream may be held back to put it in
            order; 0 to 10.
        silence_s: a source that sends nothing for so long is lost.
        decode_threads: for the video decoder; 0 takes half of the cores, 4 at most.
        hwaccel: FFmpeg's name of a hardware decoder (cuda, vaapi, ...).
        camera_size: "WxH" of a V4L2 camera; empty: chosen from what it offers.
        camera_rate: frames a second of a V4L2 camera; 0: chosen from what it offers.

    Raises:
        IngestError: an address is none, or what it names cannot be opened at first.
        ValueError: an argument is out of range.
    """
    return LiveIngest(
        str(camera) if isinstance(camera, int) else os.fspath(camera),
        size=size,
        mean=mean,
        std=std,
        microphone=mic,
        audio_offset_s=audio_offset_s,
        max_frames=max_frames,
        duration_s=duration_s,
        latency_s=latency_s,
        silence_s=silence_s,
        decode_threads=decode_threads,
        hwaccel=hwaccel,
        camera_size=camera_size,
        camera_rate=camera_rate,
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
