"""From a source to results: ingestion drives a session."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from .ahead import Ahead
from .controls import Controls
from .ingest import Frame, Ingest, LiveIngest, open_live, open_source
from .result import Result
from .session import Model, Seen, Session

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
) -> Generator[Result]:
    """Drive a session with the frames of an opened source, and close the source at the end.

    While one frame is with the caller, its sentences are run on the next one, and the one after that is seen: each in a thread
    of its own. A source without an end waits for nobody; a file waits for the caller.

    Args:
        session: with its sentences, which may change meanwhile; results that are on their way have the old ones.
        source: is closed at the end.
        on_notice: as `Model.stream` takes it.
        controls: of this session; what they are asked for is done between two frames. While they are paused a file waits and the
            frames of a live source pass by.
    """
    ended = threading.Event()

    def seen() -> Generator[_Item]:
        if isinstance(source, LiveIngest):
            return _see_live(session, source, controls)
        return _see_file(session, source)

    def answered() -> Generator[Result | _Notice]:
        with Ahead(seen, "refavs-see") as items:
            yield from _answer(session, source, items, controls, ended)

    with Ahead(answered, "refavs-answer") as results:
        try:
            with source:
                for result in results:
                    if isinstance(result, _Notice):
                        if on_notice:
                            on_notice(result.when_s, result.text)
                    elif isinstance(source, LiveIngest):
                        yield replace(result, latency_ms=(source.now_s - result.pts_s) * 1e3)
                    else:
                        yield result
        finally:
            ended.set()


@dataclass(frozen=True)
class _Seen:
    frame: Frame
    seen: Seen
    started: float
    """What `time.perf_counter()` was when the frame came."""


@dataclass(frozen=True)
class _Notice:
    when_s: float
    text: str


class _Overdue:
    """A frame that was given up."""


_Item = _Seen | _Notice | _Overdue | None
"""None: nothing has come for a while."""


def _see_file(session: Session, source: Ingest) -> Generator[_Item]:
    for frame in source:
        started = time.perf_counter()
        yield _Seen(frame, session.see(frame.tensor, frame.log_mel, frame.pts_s), started)


def _see_live(session: Session, source: LiveIngest, controls: Controls | None) -> Generator[_Item]:
    """The frames of a live source and what happens to it; None now and then, also while neither comes."""
    ended = False
    while not ended:
        try:
            frame = source.read(timeout_s=_NOTICE_PERIOD_S)
        except StopIteration:
            frame, ended = None, True
        yield from itertools.starmap(_Notice, source.take_notices())
        if frame is None or (controls and controls.is_paused):
            yield None
        elif _is_overdue(session, source, frame):
            yield _Overdue()
        else:
            started = time.perf_counter()
            yield _Seen(frame, session.see(frame.tensor, frame.log_mel, frame.pts_s), started)


def _answer(
    session: Session,
    source: Ingest | LiveIngest,
    items: Iterator[_Item],
    controls: Controls | None,
    ended: threading.Event,
) -> Generator[Result | _Notice]:
    """Run the sentences, and take commands before each frame. How old a live result is tells who hands it on."""
    live = source if isinstance(source, LiveIngest) else None
    for item in items:
        if controls:
            controls.apply()
            while live is None and controls.is_paused and not ended.wait(_PAUSE_PERIOD_S):
                controls.apply()
        if isinstance(item, _Notice):
            yield item
        elif isinstance(item, _Overdue):
            session.overdue += 1
        elif item is not None:
            if live and item.seen.tick is None and _is_overdue(session, live, item.frame):
                session.overdue += 1
                continue
            result = session.result(item.frame, item.seen)
            yield result if live else replace(result, latency_ms=(time.perf_counter() - item.started) * 1e3)


def _is_overdue(session: Session, source: LiveIngest, frame: Frame) -> bool:
    """Whether a frame is too old to be worth its work."""
    return source.now_s - frame.pts_s > session.model.run.deadline_s
