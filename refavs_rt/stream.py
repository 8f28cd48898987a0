"""From a source to results: ingestion drives a session."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .controls import Controls
from .ingest import Frame, Ingest, LiveIngest, open_live, open_source
from .masks import Mask, binary_masks
from .session import Model, Session


@dataclass(frozen=True)
class Result:
    """What was found in one frame for N sentences."""

    index: int
    """Of the frame, from 0 on."""
    pts_s: float
    """When the frame is shown, in seconds of the source."""
    frame: Frame
    """The frame itself, with its sound."""
    texts: tuple[str, ...]
    """The N sentences."""
    presence: NDArray[np.float32]
    """[N], the chance that anything in the frame fits each sentence."""
    masks: Mask
    """[N, H, W]; empty where the presence is below `RunConfig.presence_threshold`."""
    mask_logits: NDArray[np.float32]
    """[N, h, w], before the presence is looked at."""
    latency_ms: float
    """Of a live source, from the frame's capture to this result; of a file, from the frame's leaving the decoder."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """[H, W, 3], RGB, as the source shows it; converted when first asked for."""
        return self.frame.image


_NOTICE_PERIOD_S = 0.25
"""How late it may be told that a source is lost."""
_PAUSE_PERIOD_S = 0.05
"""How late a file goes on after a pause."""


@dataclass(frozen=True)
class Live:
    """A camera and a microphone, to be opened; see `ingest.open_live` for the addresses and the settings."""

    camera: str | int | os.PathLike[str]
    """An address with pictures; a number is that V4L2 camera, a path a file."""
    mic: str = "auto"
    """An address with sound; "auto": the camera's own sound, else the default microphone, else none; "none"."""
    latency_s: float = 0.2
    """How long a frame may wait for its sound, and how much of a network stream may be held back."""
    hwaccel: str = ""
    """FFmpeg's name of a hardware decoder."""
    camera_size: str = ""
    """"WxH" of a V4L2 camera; empty: chosen from what it offers."""
    camera_rate: float = 0.0
    """Frames a second of a V4L2 camera; 0: chosen from what it offers."""


Source = str | os.PathLike[str] | Live
"""A media file or a stream, of which every frame is taken (a path is a file, a str may be an address: `ingest.open_source`), or
a live source, of which the newest."""
OnNotice = Callable[[float, str], None]
"""Takes what happens to a live source: when, on the stream's clock, and what, in one line."""


def stream(
    model: Model,
    source: Source,
    texts: Sequence[str],
    *,
    max_frames: int | None = None,
    duration_s: float | None = None,
    on_notice: OnNotice | None = None,
) -> Iterator[Result]:
    """`Model.stream`: sentences and source are checked at once, frames are run as results are asked for."""
    session = model.session(texts)
    opened = open_for(model, source, max_frames=max_frames, duration_s=duration_s)
    return run_session(session, opened, on_notice)


def open_for(
    model: Model, source: Source, *, max_frames: int | None = None, duration_s: float | None = None
) -> Ingest | LiveIngest:
    """Open a source so that its frames are as the model takes them."""
    size, offset_s = model.config.image_size, model.config.audio_offset_s
    if not isinstance(source, Live):
        return open_source(
            source, size, audio_offset_s=offset_s, max_frames=max_frames, duration_s=duration_s
        )
    return open_live(
        source.camera,
        size,
        mic=source.mic,
        audio_offset_s=offset_s,
        max_frames=max_frames,
        duration_s=duration_s,
        latency_s=source.latency_s,
        hwaccel=source.hwaccel,
        camera_size=source.camera_size,
        camera_rate=source.camera_rate,
    )


def run_session(
    session: Session,
    source: Ingest | LiveIngest,
    on_notice: OnNotice | None = None,
    controls: Controls | None = None,
) -> Iterator[Result]:
    """Push the frames of an opened source into a session, and close the source at the end.

    Args:
        session: with its sentences.
        source: is closed at the end.
        on_notice: as `Model.stream` takes it.
        controls: of this session; what they are asked for is done between two frames. While they are paused a file waits and the
            frames of a live source pass by.
    """
    with source:
        if isinstance(source, LiveIngest):
            for frame in _newest(source, on_notice, controls):
                if controls and controls.is_paused:
                    continue
                result = _result(session, frame)
                yield replace(result, latency_ms=(source.now_s - frame.pts_s) * 1e3)
        else:
            for frame in source:
                _wait_paused(controls)
                yield _result(session, frame)


def _wait_paused(controls: Controls | None) -> None:
    if controls is None:
        return
    controls.apply()
    while controls.is_paused:
        time.sleep(_PAUSE_PERIOD_S)
        controls.apply()


def _newest(source: LiveIngest, on_notice: OnNotice | None, controls: Controls | None) -> Iterator[Frame]:
    """The frames of a live source; what happens to it is told, and commands are taken, also while none come."""
    while True:
        if controls:
            controls.apply()
        try:
            frame = source.read(timeout_s=_NOTICE_PERIOD_S)
        except StopIteration:
            frame, ended = None, True
        else:
            ended = False
        for when_s, notice in source.take_notices():
            if on_notice:
                on_notice(when_s, notice)
        if ended:
            return
        if frame is not None:
            yield frame


def _result(session: Session, frame: Frame) -> Result:
    run = session.model.run
    started = time.perf_counter()
    prediction = session.push(frame.tensor, frame.log_mel, frame.pts_s)
    masks = binary_masks(prediction.mask_logits, (frame.height, frame.width), run.mask_threshold)
    masks[prediction.presence < run.presence_threshold] = False
    return Result(
        index=frame.index,
        pts_s=frame.pts_s,
        frame=frame,
        texts=tuple(session.texts),
        presence=prediction.presence,
        masks=masks,
        mask_logits=prediction.mask_logits,
        latency_ms=(time.perf_counter() - started) * 1e3,
    )
