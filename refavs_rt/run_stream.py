"""The main job, as `refavs-rt stream` does it: a file or a camera through a model into an overlay and records."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from .config import RunConfig
from .controls import MOST_SENTENCES, Controls
from .ingest import Ingest, LiveIngest
from .outputs.base import Facts, Output
from .outputs.mask_files import MaskFilesOutput
from .outputs.metrics import MetricsOutput
from .outputs.overlay import OverlayOutput
from .outputs.push import PushOutput
from .outputs.records import RecordsOutput
from .render import Overlay
from .session import Session, load
from .stream import Live, Result, open_for, run_session

if TYPE_CHECKING:
    from .serve.metrics import MetricsServer
    from .serve.page import Page

INTERRUPTED = 130
"""Exit code of a run that was stopped by a signal; its files are finished all the same."""

_LATENCIES = 100_000
"""The summary's latencies are those of so many frames, the last ones."""
_TERMINAL_PERIOD_S, _LOG_PERIOD_S = 0.2, 5.0
"""How often progress is shown on a terminal, and in a log."""


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
    masks: Path | None = None,
    push: str | None = None,
    metrics: str | None = None,
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
        masks: a folder for PNG files, one a frame and sentence.
        push: URL that the overlay is sent to.
        metrics: HOST:PORT where Prometheus finds what is counted.
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
    print(
        f"bundle {model.bundle.path} ({model.config.preset}), engine {model.engine.name} ({model.engine.device})"
    )
    try:
        session = model.session(texts)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    # Of a live source the frames that pass by during a pause do not count.
    most = None if isinstance(source, Live) else max_frames
    opened = open_for(model, source, max_frames=most, duration_s=duration_s)
    if serve is None and isinstance(source, Live) and not (overlay or records or masks or push):
        serve = ""
    outputs: list[Output] = []
    with _StopOnSignal() as stop:
        summary = _write(
            stop, session, opened, outputs, overlay, records, masks, push, metrics, serve, token, max_frames
        )
    print(summary.to_text())
    for output in outputs:
        if output.summary:
            print(output.summary)
    return INTERRUPTED if stop.stopped else 0


def _write(
    stop: _StopOnSignal,
    session: Session,
    source: Ingest | LiveIngest,
    outputs: list[Output],
    overlay: Path | None,
    records: Path | None,
    masks: Path | None,
    push: str | None,
    metrics: str | None,
    serve: str | None,
    token: str | None,
    max_frames: int | None,
) -> _Summary:
    """Run the session over the source, write what was asked for into `outputs`, and show it on a page."""
    summary = _Summary()
    controls = Controls(session)
    page: Page | None = None
    with contextlib.ExitStack() as files, source, _Progress() as progress:
        threshold = session.model.run.presence_threshold
        facts = Facts.of(source, threshold)
        pushing = PushOutput(push, facts) if push else None
        metering = MetricsOutput(facts, viewers=lambda: page.viewers if page else 0, push=pushing)

        def add(output: Output) -> None:
            outputs.append(files.enter_context(output))

        add(metering)
        if pushing:
            add(pushing)
        if overlay:
            add(OverlayOutput(overlay, facts))
        if masks:
            add(MaskFilesOutput(masks, facts))
        if metrics is not None:
            files.enter_context(_metrics_server(metrics, token, metering))
        if serve is not None:
            painter = Overlay(source.height, source.width, threshold)
            page = files.enter_context(_page(serve, token, controls, painter, threshold, metering))
        # After those which may refuse: until then an older file of records stays as it is.
        if records:
            add(RecordsOutput(records))
        _tell([*source.notes, *(note for output in outputs for note in output.notes)])

        def notice(when_s: float, text: str) -> None:
            progress.notice(when_s, text)
            if page:
                page.tell(when_s, text)

        for result in stop.until_stopped(run_session(session, source, notice, controls)):
            for output in outputs:
                output.write(result)
                for when_s, text in output.take_notices():
                    notice(when_s, text)
            if page:
                page.show(result, _dropped(source))
            summary.add(result)
            progress.show(summary, result)
            if summary.frames == max_frames:
                break
        if isinstance(source, LiveIngest):
            summary.counters = source.counters
    return summary


def _metrics_server(address: str, token: str | None, metrics: MetricsOutput) -> MetricsServer:
    from .serve.address import parse_address
    from .serve.metrics import DEFAULT_PORT, MetricsServer

    host, port = parse_address(address, DEFAULT_PORT)
    server = MetricsServer(metrics.text, host=host, port=port, token=token)
    print(f"metrics at {server.url}", flush=True)
    return server


def _page(
    address: str,
    token: str | None,
    controls: Controls,
    overlay: Overlay,
    threshold: float,
    metrics: MetricsOutput,
) -> Page:
    from .serve.address import DEFAULT_PORT, PortTakenError, parse_address
    from .serve.page import Page

    host, port = parse_address(address)
    try:
        page = Page(controls, overlay, threshold, host=host, port=port, token=token, metrics=metrics.text)
    except PortTakenError:
        if address:
            raise
        # Nobody asked for this port.
        page = Page(controls, overlay, threshold, port=0, token=token, metrics=metrics.text)
        print(f"note: port {DEFAULT_PORT} is taken; another is used", file=sys.stderr)
    print(f"watch it at {page.url}", flush=True)
    return page


def _dropped(source: Ingest | LiveIngest) -> int:
    if not isinstance(source, LiveIngest):
        return 0
    counters = source.counters
    return int(counters["dropped"] + counters["late"])


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


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
        ordered = sorted(self._latencies_ms)
        p95, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.95, 0.99))
        lines = [
            f"{self.frames} frames in {time.perf_counter() - self._started:.1f} s: {self.frames_per_second:.1f} fps, "
            f"latency {statistics.median(ordered):.0f} ms (median), {p95:.0f} ms (p95), {p99:.0f} ms (p99)"
        ]
        lines += self._live_lines()
        for text, asked in self._asked.items():
            lines.append(f"  {text!r}: segmented in {self._present[text]} of {asked} frames")
        return "\n".join(lines)

    def _live_lines(self) -> list[str]:
        if not self.counters:
            return []
        count = {name: int(value) for name, value in self.counters.items()}
        heard = count["decoded"] + count["late"]
        return [
            f"latency from capture to result; {count['dropped'] + count['late']} of {heard} pictures dropped, "
            f"{count['corrupt']} damaged, {count['reconnects']} reconnects, "
            f"{count['sound_late']} frames before their sound, "
            f"sound drift {self.counters['sound_drift_ppm']:+.0f} ppm"
        ]


class _Progress:
    """A line on stderr: rewritten on a terminal, now and then a new one elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._period_s = _TERMINAL_PERIOD_S if self._terminal else _LOG_PERIOD_S
        self._shown = time.monotonic()
        self._open = False

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            print(file=sys.stderr)

    def notice(self, when_s: float, text: str) -> None:
        """Tell what happened to a live source, above the line of progress."""
        print(f"\r{when_s:.1f} s: {text}\x1b[K" if self._open else f"{when_s:.1f} s: {text}", file=sys.stderr)

    def show(self, summary: _Summary, result: Result) -> None:
        if time.monotonic() - self._shown < self._period_s:
            return
        self._shown = time.monotonic()
        line = (
            f"frame {summary.frames}, {result.pts_s:.2f} s, "
            f"{summary.frames_per_second:.1f} fps, latency {result.latency_ms:.0f} ms"
        )
        self._open = self._terminal
        print(
            f"\r{line}\x1b[K" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )


class _StopOnSignal:
    """Ends a loop between two frames on Ctrl-C or SIGTERM, so that files are finished.

    While a frame is waited for, the signal interrupts at once; while one is written, at the end of that.
    """

    def __init__(self) -> None:
        self.stopped = False
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
                if self.stopped:
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
        again, self.stopped = self.stopped, True
        if self._waiting or again:
            raise KeyboardInterrupt


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
