"""What each stage of a frame costs on this machine, measured on the code that `refavs-rt stream` runs.

Stages are timed where they run: decoding beside an idle caller, the graphs inside a session that a source drives, drawing and
encoding beside all of it. The first frames of each pass warm up and are left out.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .contract import GRAPHS
from .ingest import Ingest, LiveIngest
from .masker import Masker
from .render import Overlay
from .result import Result
from .session import Model
from .sink import OverlayWriter
from .stream import open_for, run_session

SENTENCES = (1, 2, 4, 8)
"""How many are asked for, a pass each."""
FRAMES = 60
"""Of the source, at most, in each pass."""

_TEXTS = (
    "The avocado.",
    "the sounding object",
    "the first object to make a sound",
    "the silent object",
    "the object on the left",
    "the violin that is being played",
    "the object making the loudest sound",
    "the cat on the right of the dog",
)
"""The first is in the demo clip from its beginning, so that there is a mask to draw."""
_STAGES = (
    "text, once a sentence",
    "decoding",
    "picture to the network's input",
    "vision",
    "audio",
    "step",
    "masks",
    "picture as RGB",
    "drawing",
    "encoding",
)
_NEW_TEXTS = 12
"""Sentences that are read to measure the text graph."""
_WARM_UP = 5
_LIMIT_S = 4.0
"""Of a pass, so that a slow machine too is done in a minute."""
_MASKED = 12
"""Results whose masks are computed once more, alone."""


class TooShortError(Exception):
    """The source has too few frames to measure anything."""


@dataclass
class Figures:
    """What was measured."""

    stages_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Stage -> what each frame took."""
    results_fps: dict[int, float] = field(default_factory=dict)
    """Sentences -> results a second, from the file to masks."""
    overlay_fps: dict[int, float] = field(default_factory=dict)
    """Sentences -> the same with the overlay drawn and encoded."""
    source: dict[str, Any] = field(default_factory=dict)
    """Size, rate and codec of the source."""

    def rows(self) -> list[tuple[str, float, float, int]]:
        """Stage, median in ms, p95 in ms, frames; in the order in which a frame passes them."""
        measured = {stage: times for stage, times in self.stages_ms.items() if times}
        return [
            (stage, statistics.median(times), _share(times, 0.95), len(times))
            for stage, times in sorted(measured.items(), key=lambda item: _STAGES.index(_of_all(item[0])))
        ]


def passes() -> int:
    """How many steps of progress `measure` tells."""
    return 2 + 2 * len(SENTENCES)


def measure(model: Model, source: str | Path, figures: Figures, progress: Callable[[str], None]) -> None:
    """Measure everything.

    Args:
        model: the network; its engine is replaced by one that keeps the time of each graph.
        source: a media file.
        figures: are filled in as they come, so that a run that is interrupted leaves what it has.
        progress: is told what is measured next.

    Raises:
        IngestError: the source cannot be read.
        TooShortError: as it says.
    """
    timed: Any = _TimedEngine(model.engine)
    model.engine = timed
    progress("decoding")
    _measure_decoding(model, source, figures)
    progress("sentences")
    for index in range(_NEW_TEXTS):
        model.read([f"the object number {index}"])
    figures.stages_ms["text, once a sentence"] = _warm(timed.take("text"))
    for count in SENTENCES:
        progress(f"results for {_sentences(count)}")
        figures.results_fps[count] = _measure_results(model, timed, source, count, figures)
    for count in SENTENCES:
        progress(f"overlays for {_sentences(count)}")
        figures.overlay_fps[count] = _measure_overlay(model, source, count, figures)


def _measure_decoding(model: Model, source: str | Path, figures: Figures) -> None:
    decoding: list[float] = []
    converting: list[float] = []
    with open_for(model, source, max_frames=FRAMES) as opened:
        figures.source = _describe(opened)
        frames = iter(opened)
        until_s = time.perf_counter() + _LIMIT_S
        while time.perf_counter() < until_s:
            with _kept(decoding):
                frame = next(frames, None)
            if frame is None:
                decoding.pop()
                break
            with _kept(converting):
                assert frame.tensor.size and (frame.log_mel is None or frame.log_mel.size)
    figures.stages_ms["decoding"] = _warm(decoding)
    figures.stages_ms["picture to the network's input"] = _warm(converting)


def _measure_results(model: Model, timed: Any, source: str | Path, count: int, figures: Figures) -> float:
    session = model.session(_TEXTS[:count])
    results: deque[Result] = deque(maxlen=_MASKED)
    with open_for(model, source, max_frames=FRAMES) as opened:
        pace = _Pace()
        for result in run_session(session, opened):
            results.append(result)
            if pace.is_over():
                break
    for graph in ("vision", "audio"):
        figures.stages_ms[graph] += _warm(timed.take(graph))
    figures.stages_ms[f"step, {_sentences(count)}"] = _warm(timed.take("step"))
    masker = Masker(replace(model.run, presence_threshold=0.0))
    masker.add(count)
    for result in results:
        with _kept(figures.stages_ms[f"masks, {_sentences(count)}"]):
            masker.masks(result.mask_logits, result.presence, result.frame)
    return pace.per_second()


def _measure_overlay(model: Model, source: str | Path, count: int, figures: Figures) -> float:
    session = model.session(_TEXTS[:count])
    converting: list[float] = []
    drawing: list[float] = []
    encoding: list[float] = []
    with tempfile.TemporaryDirectory() as folder, open_for(model, source, max_frames=FRAMES) as opened:
        painter = Overlay(opened.height, opened.width, model.run.presence_threshold)
        pace = _Pace()
        with OverlayWriter.beside(Path(folder) / "overlay.mp4", opened) as writer:
            for result in run_session(session, opened):
                with _kept(converting):
                    image = result.image
                with _kept(drawing):
                    painted = painter.paint(image, result.texts, result.masks, result.presence)
                with _kept(encoding):
                    writer.write(painted, result.pts_s)
                if pace.is_over():
                    break
        figures.source["encoder"] = writer.encoder
        fps = pace.per_second()  # after the last picture is encoded
    figures.stages_ms["picture as RGB"] += _warm(converting)
    figures.stages_ms[f"drawing, {_sentences(count)}"] = _warm(drawing)
    figures.stages_ms["encoding"] += _warm(encoding)
    return fps


class _TimedEngine:
    """An engine that keeps how long each run of a graph took."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._times_ms: dict[str, list[float]] = defaultdict(list)

    def take(self, graph: str) -> list[float]:
        """The times of a graph since they were last taken."""
        return self._times_ms.pop(graph, [])

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._engine, name)
        if name not in GRAPHS:
            return value

        def run(*arguments: Any, **named: Any) -> Any:
            with _kept(self._times_ms[name]):
                return value(*arguments, **named)

        return run


class _Pace:
    """Frames a second after the warm-up, and when a pass has taken long enough."""

    def __init__(self) -> None:
        self._began_s = time.perf_counter()
        self._warm_s = self._began_s
        self._frames = 0

    def is_over(self) -> bool:
        """One more frame is done."""
        self._frames += 1
        now_s = time.perf_counter()
        if self._frames == _WARM_UP:
            self._warm_s = now_s
        return now_s - self._began_s > _LIMIT_S and self._frames > _WARM_UP

    def per_second(self) -> float:
        if self._frames <= _WARM_UP:
            raise TooShortError(f"{self._frames} frames are too few; give a source of {2 * _WARM_UP} or more")
        return (self._frames - _WARM_UP) / (time.perf_counter() - self._warm_s)


@contextmanager
def _kept(times_ms: list[float]) -> Iterator[None]:
    began_s = time.perf_counter()
    yield
    times_ms.append((time.perf_counter() - began_s) * 1e3)


def _warm(times_ms: list[float]) -> list[float]:
    return times_ms[_WARM_UP:]


def _share(times: list[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _of_all(stage: str) -> str:
    """The stage's name without the number of sentences."""
    return stage if stage in _STAGES else stage.partition(",")[0]


def _sentences(count: int) -> str:
    return "1 sentence" if count == 1 else f"{count} sentences"


def _describe(opened: Ingest | LiveIngest) -> dict[str, Any]:
    return {
        "width": opened.width,
        "height": opened.height,
        "frame_rate": opened.frame_rate,
        "codec": opened.video_codec,
        "has_audio": opened.has_audio,
    }
