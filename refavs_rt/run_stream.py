"""The main job, as `refavs-rt stream` does it: a file or a camera through a model into an overlay and records."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from . import details, logs
from .config import RunConfig
from .controls import MOST_SENTENCES, Controls
from .exit_codes import DONE
from .ingest import Ingest, LiveIngest
from .jsonl import write_line
from .render import Overlay
from .result import Result
from .session import Session, load
from .sink import OverlayWriter
from .stream import Live, open_for, run_session

if TYPE_CHECKING:
    from .serve.page import Page

_log = logging.getLogger(__name__)

_LATENCIES = 100_000
"""The summary's latencies are those of so many frames, the last ones."""


class UsageError(Exception):
    """A wish that cannot be fulfilled as given; the message names it and the mend."""


def run_stream(
    source: str | Live,
    texts: Sequence[str],
    *,
    bundle: str | None = None,
    engine: str = "auto",
    run: RunConfig | None = None,
    overlay: Path | None = None,
    records: Path | None = None,
    serve: str | None = None,
    token: str | None = None,
    max_frames: int | None = None,
    duration_s: float | None = None,
) -> int:
    """Run sentences on a source; returns the exit code.

    Args:
        source: a media file or a stream, or a camera.
        texts: the sentences.
        bundle, engine, run: as `session.load` takes them.
        overlay: MP4 to write.
        records: JSONL to write, a line a frame.
        serve: HOST:PORT of a page to watch and to talk to; a live source without any other output has one at the usual place.
        token: that the page's viewers must know.
        max_frames, duration_s: where to stop.

    Raises:
        UsageError: a sentence or an output is not possible.
        BundleError, EngineError, IngestError, SinkError, ServeError: as they say.
    """
    _check_outputs(source, overlay, records)
    if len(texts) > MOST_SENTENCES:
        raise UsageError(f"{len(texts)} sentences are too many: {MOST_SENTENCES} at most")
    model = load(bundle, engine=engine, run=run)
    logs.result(
        _log,
        f"bundle {model.bundle.path} ({model.config.preset}), engine {model.engine.name} ({model.engine.device})",
    )
    details.log_model(_log, model)
    try:
        session = model.session(texts)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    # Of a live source the frames that pass by during a pause do not count.
    most = None if isinstance(source, Live) else max_frames
    opened = open_for(model, source, max_frames=most, duration_s=duration_s)
    if serve is None and isinstance(source, Live) and overlay is None and records is None:
        serve = ""
    with _StopOnSignal() as stop:
        summary = _write(stop, session, opened, overlay, records, serve, token, max_frames)
    logs.result(_log, summary.to_text(), **summary.to_fields())
    for path in (overlay, records):
        if path is not None:
            logs.result(_log, f"wrote {path}", path=str(path))
    return 128 + stop.number if stop.number else DONE


def _write(
    stop: _StopOnSignal,
    session: Session,
    source: Ingest | LiveIngest,
    overlay: Path | None,
    records: Path | None,
    serve: str | None,
    token: str | None,
    max_frames: int | None,
) -> _Summary:
    """Run the session over the source, write what was asked for, and show it on a page."""
    summary = _Summary()
    controls = Controls(session)
    with contextlib.ExitStack() as files, source:
        progress = _Progress()
        writer = files.enter_context(OverlayWriter.beside(overlay, source)) if overlay else None
        threshold = session.model.run.presence_threshold
        painter = Overlay(source.height, source.width, threshold)
        page = (
            files.enter_context(_page(serve, token, controls, painter, threshold))
            if serve is not None
            else None
        )
        # After the writer and the page, which may refuse: until then an older file of records stays as it is.
        lines = files.enter_context(open(records, "w", encoding="utf-8")) if records else None
        for note in [*source.notes, *(writer.notes if writer else [])]:
            logs.note(_log, note)
        details.log_source(_log, source, writer)

        def notice(when_s: float, text: str) -> None:
            logs.event(_log, when_s, text)
            if page:
                page.tell(when_s, text)

        results = run_session(session, source, notice, controls)
        files.callback(results.close)
        for result in stop.until_stopped(results):
            if lines:
                write_line(lines, result)
            if writer:
                writer.write(
                    painter.paint(result.image, result.texts, result.masks, result.presence), result.pts_s
                )
            if page:
                page.show(result, _dropped(source) + session.overdue)
            summary.add(result)
            progress.show(summary, result)
            if summary.frames == max_frames:
                break
        if isinstance(source, LiveIngest):
            summary.counters = {**source.counters, "overdue": session.overdue}
    return summary


def _page(address: str, token: str | None, controls: Controls, overlay: Overlay, threshold: float) -> Page:
    from .serve.address import DEFAULT_PORT, PortTakenError, parse_address
    from .serve.page import Page

    host, port = parse_address(address)
    try:
        page = Page(controls, overlay, threshold, host=host, port=port, token=token)
    except PortTakenError:
        if address:
            raise
        page = Page(controls, overlay, threshold, port=0, token=token)  # nobody asked for this port
        logs.note(_log, f"port {DEFAULT_PORT} is taken; another is used")
    logs.result(_log, f"watch it at {page.url}", url=page.url)
    return page


def _dropped(source: Ingest | LiveIngest) -> int:
    if not isinstance(source, LiveIngest):
        return 0
    counters = source.counters
    return int(counters["dropped"] + counters["late"])


class _Summary:
    """Counts of a run."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.frames = 0
        self._latencies_ms: deque[float] = deque(maxlen=_LATENCIES)
        self._asked: dict[str, int] = {}
        self._present: dict[str, int] = {}
        self.counters: dict[str, float] = {}
        """Of a live source."""

    @property
    def frames_per_second(self) -> float:
        """Over the whole run, with decoding, drawing and writing."""
        return self.frames / (time.perf_counter() - self._started)

    def add(self, result: Result) -> None:
        self.frames += 1
        self._latencies_ms.append(result.latency_ms)
        found = {text: bool(mask.any()) for text, mask in zip(result.texts, result.masks, strict=True)}
        for text, is_found in found.items():
            if text not in self._asked and len(self._asked) >= MOST_SENTENCES:
                continue
            self._asked[text] = self._asked.get(text, 0) + 1
            self._present[text] = self._present.get(text, 0) + is_found

    def to_text(self) -> str:
        if not self.frames:
            return "no frame"
        median, p95, p99 = self._latency_ms()
        lines = [
            f"{self.frames} frames in {time.perf_counter() - self._started:.1f} s: {self.frames_per_second:.1f} fps, "
            f"latency {median:.0f} ms (median), {p95:.0f} ms (p95), {p99:.0f} ms (p99)"
        ]
        lines += self._live_lines()
        for text, asked in self._asked.items():
            lines.append(f"  {text!r}: segmented in {self._present[text]} of {asked} frames")
        return "\n".join(lines)

    def to_fields(self) -> dict[str, Any]:
        """The same for machines."""
        if not self.frames:
            return {"frames": 0}
        median, p95, p99 = (round(value, 1) for value in self._latency_ms())
        return {
            "frames": self.frames,
            "seconds": round(time.perf_counter() - self._started, 3),
            "fps": round(self.frames_per_second, 2),
            "latency_ms": {"median": median, "p95": p95, "p99": p99},
            "sentences": [
                {"text": text, "frames": asked, "segmented": self._present[text]}
                for text, asked in self._asked.items()
            ],
            "counters": self.counters,
        }

    def _latency_ms(self) -> tuple[float, float, float]:
        """Median, p95 and p99."""
        ordered = sorted(self._latencies_ms)
        p95, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.95, 0.99))
        return statistics.median(ordered), p95, p99

    def _live_lines(self) -> list[str]:
        if not self.counters:
            return []
        count = {name: int(value) for name, value in self.counters.items()}
        heard = count["decoded"] + count["late"]
        return [
            f"latency from capture to result; {count['dropped'] + count['late'] + count['overdue']} of {heard} pictures dropped, "
            f"{count['corrupt']} damaged, {count['reconnects']} reconnects, "
            f"{count['sound_late']} frames before their sound, "
            f"sound drift {self.counters['sound_drift_ppm']:+.0f} ppm"
        ]


class _Progress:
    """A line now and then."""

    def __init__(self) -> None:
        self._pace = logs.Pace()

    def show(self, summary: _Summary, result: Result) -> None:
        if not self._pace.is_due():
            return
        logs.progress(
            _log,
            f"frame {summary.frames}, {result.pts_s:.2f} s, "
            f"{summary.frames_per_second:.1f} fps, latency {result.latency_ms:.0f} ms",
            frame=summary.frames,
            pts_s=round(result.pts_s, 3),
            fps=round(summary.frames_per_second, 1),
            latency_ms=round(result.latency_ms, 1),
        )


class _StopOnSignal:
    """Ends a loop between two frames on Ctrl-C or SIGTERM, so that files are finished.

    While a frame is waited for, the signal interrupts at once; while one is written, at the end of that.
    """

    def __init__(self) -> None:
        self.number = 0
        """Of the signal that came first; 0 where none did."""
        self._waiting = False
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> _StopOnSignal:
        if threading.current_thread() is threading.main_thread():  # Python sets handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def until_stopped(self, results: Iterator[Result]) -> Iterator[Result]:
        while True:
            self._waiting = True
            try:
                if self.number:
                    return
                result = next(results, None)
            except KeyboardInterrupt:
                return
            finally:
                self._waiting = False
            if result is None:
                return
            yield result

    def _stop(self, number: int, frame: FrameType | None) -> None:
        again, self.number = self.number != 0, self.number or number
        if self._waiting or again:
            raise KeyboardInterrupt(number)


def _check_outputs(source: str | Live, overlay: Path | None, records: Path | None) -> None:
    """Refuse at once what would fail, or destroy, at the end."""
    for path in (overlay, records):
        if path is None:
            continue
        if not path.parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}; make it first")
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; name a file in it")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageError(f"{path}: may not be written; choose another place")
        if isinstance(source, str) and path.exists() and os.path.exists(source) and path.samefile(source):
            raise UsageError(f"{path}: is the source itself; write to another file")
    if overlay is not None and records is not None and overlay.absolute() == records.absolute():
        raise UsageError(f"{overlay}: asked for as overlay and as records; give two names")
