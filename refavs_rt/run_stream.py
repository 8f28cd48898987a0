"""The main job, as `refavs-rt stream` does it: a file or a camera through a model into whatever was asked for."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import details, logs
from .config import RunConfig
from .controls import MOST_SENTENCES, Controls
from .exit_codes import DONE
from .ingest import Ingest, LiveIngest
from .outputs.base import Facts, Output
from .outputs.mask_files import MaskFilesOutput
from .outputs.metrics import MetricsOutput
from .outputs.overlay import OverlayOutput
from .outputs.push import PushOutput
from .outputs.records import STDOUT, RecordsOutput
from .render import Overlay
from .result import Result
from .run_summary import RunSummary
from .session import Session, load
from .stop_on_signal import StopOnSignal
from .stream import Live, open_for, run_session

if TYPE_CHECKING:
    from .serve.metrics import MetricsServer
    from .serve.page import Page

_log = logging.getLogger(__name__)


class UsageError(Exception):
    """A wish that cannot be fulfilled as given; the message names it and the mend."""


@dataclass(frozen=True)
class Wanted:
    """What becomes of the results."""

    overlay: Path | None = None
    """MP4 to write."""
    records: Path | None = None
    """JSONL to write, a line a frame; `outputs.records.STDOUT` for stdout."""
    masks: Path | None = None
    """A folder for PNG files, one a frame and sentence."""
    push: str | None = None
    """URL that the overlay is sent to."""
    metrics: str | None = None
    """HOST:PORT where Prometheus finds what is counted."""
    serve: str | None = None
    """HOST:PORT of a page to watch and to talk to; a live source without any other output has one at the usual place."""
    token: str | None = None
    """That viewers of the page and readers of the metrics must know."""

    @property
    def is_written(self) -> bool:
        """Whether anything is kept or sent."""
        return any(x is not None for x in (self.overlay, self.records, self.masks, self.push))


def run_stream(
    source: str | Live,
    texts: Sequence[str],
    wanted: Wanted,
    *,
    bundle: str | None = None,
    engine: str = "auto",
    run: RunConfig | None = None,
    max_frames: int | None = None,
    duration_s: float | None = None,
) -> int:
    """Run sentences on a source; returns the exit code.

    Args:
        source: a media file or a stream, or a camera.
        texts: the sentences.
        wanted: what becomes of the results.
        bundle, engine, run: as `session.load` takes them.
        max_frames, duration_s: where to stop.

    Raises:
        UsageError: a sentence or an output is not possible.
        BundleError, EngineError, IngestError, SinkError, ServeError: as they say.
    """
    _check_outputs(source, wanted)
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
    outputs: list[Output] = []
    with StopOnSignal() as stop:
        summary = _write(stop, session, opened, wanted, outputs, max_frames)
    logs.result(_log, summary.to_text(), **summary.to_fields())
    for output in outputs:
        if output.summary:
            logs.result(_log, output.summary, **output.fields)
    return 128 + stop.number if stop.number else DONE


def _write(
    stop: StopOnSignal,
    session: Session,
    source: Ingest | LiveIngest,
    wanted: Wanted,
    outputs: list[Output],
    max_frames: int | None,
) -> RunSummary:
    """Run the session over the source, into `outputs`, which are filled with what was wanted."""
    summary, pace = RunSummary(), logs.Pace()
    with contextlib.ExitStack() as files, source:
        page = _open_outputs(files, session, source, wanted, outputs)
        for note in [*source.notes, *(note for output in outputs for note in output.notes)]:
            logs.note(_log, note)
        details.log_source(_log, source)
        for output in outputs:
            if output.details:
                _log.info("%s", output.details)

        def notice(when_s: float, text: str) -> None:
            logs.event(_log, when_s, text)
            if page:
                page.tell(when_s, text)

        results = run_session(session, source, notice, page.controls if page else None)
        files.callback(results.close)
        for result in stop.until_stopped(results):
            for output in outputs:
                output.write(result)
                for when_s, text in output.take_notices():
                    notice(when_s, text)
            if page:
                page.show(result, _dropped(source) + session.overdue)
            summary.add(result)
            if pace.is_due():
                _show_progress(summary, result)
            if summary.frames == max_frames:
                break
        if stop.number and not summary.frames:
            raise KeyboardInterrupt(stop.number)  # there is nothing to complete
        if isinstance(source, LiveIngest):
            summary.counters = {**source.counters, "overdue": session.overdue}
    return summary


def _open_outputs(
    files: contextlib.ExitStack,
    session: Session,
    source: Ingest | LiveIngest,
    wanted: Wanted,
    outputs: list[Output],
) -> Page | None:
    """Open what was wanted, closed with `files`; returns the page if there is one."""
    page: Page | None = None
    facts = Facts.of(source, session.model.run.presence_threshold)
    pushing = PushOutput(wanted.push, facts) if wanted.push is not None else None
    metering = MetricsOutput(
        facts,
        viewers=lambda: page.viewers if page else 0,
        push=pushing,
        overdue=lambda: session.overdue,
    )

    def add(output: Output) -> None:
        outputs.append(files.enter_context(output))

    add(metering)
    if pushing:
        add(pushing)
    if wanted.overlay is not None:
        add(OverlayOutput(wanted.overlay, facts))
    if wanted.metrics is not None:
        files.enter_context(_metrics_server(wanted, metering))
    if wanted.serve is not None or (isinstance(source, LiveIngest) and not wanted.is_written):
        page = files.enter_context(_page(session, source, wanted, metering))
    # After those which may refuse: until then no folder is made, and an older file of records stays as it is.
    if wanted.masks is not None:
        add(MaskFilesOutput(wanted.masks, facts))
    if wanted.records is not None:
        add(RecordsOutput(wanted.records))
    return page


def _metrics_server(wanted: Wanted, metrics: MetricsOutput) -> MetricsServer:
    from .serve.address import parse_address
    from .serve.metrics import DEFAULT_PORT, MetricsServer

    host, port = parse_address(wanted.metrics or "", DEFAULT_PORT)
    server = MetricsServer(metrics.text, host=host, port=port, token=wanted.token)
    logs.result(_log, f"metrics at {server.url}", url=server.url)
    return server


def _page(session: Session, source: Ingest | LiveIngest, wanted: Wanted, metrics: MetricsOutput) -> Page:
    from .serve.address import DEFAULT_PORT, PortTakenError, parse_address
    from .serve.page import Page

    host, port = parse_address(wanted.serve or "", DEFAULT_PORT)
    threshold = session.model.run.presence_threshold
    controls, overlay = Controls(session), Overlay(source.height, source.width, threshold)

    def serve(port: int) -> Page:
        return Page(
            controls, overlay, threshold, host=host, port=port, token=wanted.token, metrics=metrics.text
        )

    try:
        page = serve(port)
    except PortTakenError:
        if wanted.serve:
            raise
        page = serve(0)  # nobody asked for this port
        logs.note(_log, f"port {DEFAULT_PORT} is taken; another is used")
    logs.result(_log, f"watch it at {page.url}", url=page.url)
    return page


def _dropped(source: Ingest | LiveIngest) -> int:
    if not isinstance(source, LiveIngest):
        return 0
    counters = source.counters
    return int(counters["dropped"] + counters["late"])


def _show_progress(summary: RunSummary, result: Result) -> None:
    logs.progress(
        _log,
        f"frame {summary.frames}, {result.pts_s:.2f} s, "
        f"{summary.frames_per_second:.1f} fps, latency {result.latency_ms:.0f} ms",
        frame=summary.frames,
        pts_s=round(result.pts_s, 3),
        fps=round(summary.frames_per_second, 1),
        latency_ms=round(result.latency_ms, 1),
    )


def _check_outputs(source: str | Live, wanted: Wanted) -> None:
    """Refuse at once what would fail, or destroy, at the end."""
    for path in (wanted.overlay, None if wanted.records == STDOUT else wanted.records):
        if path is None:
            continue
        if not path.parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}; make it first")
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; name a file in it")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageError(f"{path}: may not be written; choose another place")
        for read in (source.camera, source.mic) if isinstance(source, Live) else (source,):
            if (
                path.exists()
                and isinstance(read, str | os.PathLike)
                and os.path.exists(read)
                and path.samefile(read)
            ):
                raise UsageError(f"{path}: is the source itself; write to another file")
    overlay, records = wanted.overlay, wanted.records
    if overlay is not None and records is not None and overlay.absolute() == records.absolute():
        raise UsageError(f"{overlay}: asked for as overlay and as records; give two names")
