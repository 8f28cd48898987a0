"""What each stage of a frame costs on the embedded bundle, and the whole of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refavs_rt
from benchmarks.networks import TEXTS
from refavs_rt.ahead import Ahead
from refavs_rt.config import MEL_BINS, PATCH_FRAMES
from refavs_rt.contract import graph_specs
from refavs_rt.masks import binary_masks
from refavs_rt.render import Overlay
from refavs_rt.session import Model
from refavs_rt.sink import OverlayWriter

SIZE = 720, 1280
"""Height and width of the pictures of a camera."""


@pytest.fixture(scope="module")
def model() -> Model:
    return refavs_rt.load("edge")


@pytest.fixture(scope="module")
def demo() -> tuple[Path, list[str]]:
    folder = Path(refavs_rt.__file__).parent / "assets" / "demo"
    described = json.loads((folder / "demo.json").read_text())
    return folder / described["clip"], described["texts"]


class Recorder:
    """The model's own engine, keeping the last inputs of each graph, so that stages are timed on a real stream's state."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.name, self.device, self.runs_side_by_side = engine.name, engine.device, False
        self.inputs: dict[str, dict[str, Any]] = {}

    def __getattr__(self, graph: str) -> Any:
        def run(inputs: Any) -> Any:
            self.inputs[graph] = {name: np.array(value) for name, value in inputs.items()}
            return getattr(self.engine, graph)(inputs)

        return run


def recorded(model: Model, texts: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The inputs of each graph after twelve ticks of random frames with `texts`."""
    recorder = Recorder(model.engine)
    session = Model(model.bundle, recorder, model.run).session(texts)
    rng = np.random.default_rng(0)
    size = model.config.image_size
    for tick in range(12):
        frame = rng.standard_normal((3, size, size)).astype(np.float32)
        session.predict(frame, rng.standard_normal((PATCH_FRAMES, MEL_BINS)).astype(np.float32), float(tick))
    return recorder.inputs


def ellipses(model: Model, sentences: int) -> np.ndarray:
    """Logits [N, h, w] that are above 0 inside of an ellipse, one further right than the other."""
    side = model.config.mask_size
    y, x = np.mgrid[0:side, 0:side] / side
    centres = np.linspace(0.3, 0.7, sentences)[:, None, None]
    inside = 1 - ((y - 0.5) / 0.2) ** 2 - ((x - centres) / 0.16) ** 2
    return (4 * inside).astype(np.float32)


@pytest.mark.parametrize("graph", ["text", "vision", "audio"])
def test_graph(benchmark: Any, model: Model, graph: str) -> None:
    inputs = recorded(model, TEXTS[:1])[graph]
    outputs = benchmark(getattr(model.engine, graph), inputs)
    assert all(np.isfinite(outputs[spec.name]).all() for spec in graph_specs(model.config)[graph].outputs)


@pytest.mark.parametrize("sentences", [1, 2, 4, 8])
def test_step(benchmark: Any, model: Model, sentences: int) -> None:
    inputs = recorded(model, TEXTS[:sentences])["step"]
    outputs = benchmark(model.engine.step, inputs)
    assert outputs["mask_logits"].shape[0] == sentences


@pytest.mark.parametrize("sentences", [1, 2, 4, 8])
def test_session_frame(benchmark: Any, model: Model, sentences: int) -> None:
    """All graphs and the state, without decoding and drawing."""
    session = model.session(TEXTS[:sentences])
    size = model.config.image_size
    rng = np.random.default_rng(0)
    frame = rng.standard_normal((3, size, size)).astype(np.float32)
    patch = rng.standard_normal((PATCH_FRAMES, MEL_BINS)).astype(np.float32)
    pts = iter(np.arange(0, 1e6, 0.04))
    benchmark(lambda: session.predict(frame, patch, float(next(pts))))


class Timed:
    """A graph's session, and the seconds that have been spent in it."""

    def __init__(self, session: Any) -> None:
        self._session, self.seconds = session, 0.0

    def run(self, *arguments: Any) -> Any:
        began = time.perf_counter()
        outputs = self._session.run(*arguments)
        self.seconds += time.perf_counter() - began
        return outputs


def test_around_the_graphs(benchmark: Any) -> None:
    """A hundred ticks; `extra_info` has the milliseconds of one that are not ONNX Runtime's: binding and state."""
    frames = 100
    model = refavs_rt.load("edge")
    engine: Any = model.engine
    timed = [Timed(graph._session) for graph in engine._graphs.values()]
    for graph, runtime in zip(engine._graphs.values(), timed, strict=True):
        graph._session = runtime
    session = model.session(TEXTS[:1])
    rng = np.random.default_rng(0)
    size = model.config.image_size
    frame = rng.standard_normal((3, size, size)).astype(np.float32)
    patch = rng.standard_normal((PATCH_FRAMES, MEL_BINS)).astype(np.float32)
    ticks = iter(range(10**6))
    session.predict(frame, patch, float(next(ticks)))

    def predict() -> None:
        before, began = sum(graph.seconds for graph in timed), time.perf_counter()
        for _ in range(frames):
            session.predict(frame, patch, float(next(ticks)))
        whole = time.perf_counter() - began
        within = sum(graph.seconds for graph in timed) - before
        benchmark.extra_info.update(frame_ms=1e3 * whole / frames, around_ms=1e3 * (whole - within) / frames)

    benchmark.pedantic(predict, rounds=1)
    assert 0.0 < benchmark.extra_info["around_ms"] < benchmark.extra_info["frame_ms"]


def test_queue(benchmark: Any) -> None:
    """Items that cost nothing, through one stage of the pipeline: see `items` for how many."""
    items = 2_000

    def make() -> Generator[int]:
        yield from range(items)

    def pass_on() -> int:
        with Ahead(make, "items") as passed:
            return sum(1 for _ in passed)

    assert benchmark.pedantic(pass_on, rounds=5) == items
    benchmark.extra_info["items"] = items


def test_start_up(benchmark: Any, demo: tuple[Path, list[str]]) -> None:
    """A process from its start to the first mask, which it writes to a pipe."""
    command = [sys.executable, "-m", "refavs_rt.cli", "stream", "--source", str(demo[0])]
    command += ["--text", demo[1][0], "--jsonl", "-"]

    def start() -> bytes:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None
            line = child.stdout.readline()
            child.kill()
        return line

    line = benchmark.pedantic(start, rounds=5, warmup_rounds=1)
    assert json.loads(line)["index"] == 0


def test_ingest(benchmark: Any, model: Model, demo: tuple[Path, list[str]]) -> None:
    """Decoding, scaling, log-mel: all frames of the demo clip; see `frames` for how many."""
    from refavs_rt.ingest import open_source

    def decode() -> int:
        with open_source(demo[0], model.config.image_size) as source:
            return sum(1 for _ in source)

    frames = benchmark(decode)
    assert frames > 0
    benchmark.extra_info["frames"] = frames


@pytest.mark.parametrize("sentences", [1, 8])
def test_masks(benchmark: Any, model: Model, sentences: int) -> None:
    """Logits to masks of 1280 x 720, each an ellipse of a tenth of the picture."""
    masks = benchmark(binary_masks, ellipses(model, sentences), SIZE, model.run.mask_threshold)
    assert 0.05 < masks.mean() < 0.2


@pytest.mark.parametrize("sentences", [1, 8])
def test_overlay(benchmark: Any, model: Model, sentences: int) -> None:
    """Masks, outlines and legend over 1280 x 720."""
    masks = binary_masks(ellipses(model, sentences), SIZE, model.run.mask_threshold)
    overlay = Overlay(*SIZE, model.run.presence_threshold)
    picture = np.zeros((*SIZE, 3), np.uint8)
    painted = benchmark(overlay.paint, picture, TEXTS[:sentences], masks, np.ones(sentences, np.float32))
    assert painted[masks.any(axis=0)].any(axis=-1).all()


def test_encode(benchmark: Any, tmp_path: Path) -> None:
    """H.264 into MP4, 1280 x 720: see `frames` for how many."""
    frames = 50
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[:] = np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1]))[:, :, None] % 251

    def encode() -> None:
        with OverlayWriter(tmp_path / "out.mp4", SIZE[1], SIZE[0]) as writer:
            for i in range(frames):
                writer.write(np.roll(picture, i, axis=1), i / 25)

    benchmark.pedantic(encode, rounds=3)
    assert (tmp_path / "out.mp4").stat().st_size > 1_000
    benchmark.extra_info["frames"] = frames


@pytest.mark.parametrize("sentences", [1, 2, 4, 8])
def test_end_to_end(benchmark: Any, model: Model, demo: tuple[Path, list[str]], sentences: int) -> None:
    """From the file to masks at the source's size: the first seconds of the demo clip."""

    def stream() -> int:
        return sum(1 for _ in model.stream(demo[0], TEXTS[:sentences], max_frames=50))

    frames = benchmark.pedantic(stream, rounds=3, warmup_rounds=1)
    benchmark.extra_info["frames"] = frames
    benchmark.extra_info["frames_per_second"] = frames / benchmark.stats.stats.median
