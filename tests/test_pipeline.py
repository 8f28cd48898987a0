"""The stages of a stream: they overlap, keep their order, give up what is too old, and leave no thread."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refavs_rt.bundle import Bundle, BundleError
from refavs_rt.config import RunConfig
from refavs_rt.controls import Controls
from refavs_rt.ingest import open_source
from refavs_rt.result import Result
from refavs_rt.session import Model, load
from refavs_rt.stream import Live, open_for, run_session

from .test_stream import TEXTS, make_clip
from .tiny_bundle import write_tiny_bundle

PATIENCE_S = 20.0
CAMERA = "lavfi:testsrc2=size=160x90:rate=25"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("pipeline") / "tiny")


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return load(bundle.path, run=RunConfig(threads=1))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("pipeline-clip") / "clip.mp4")


class Watched:
    """The model's engine; each run of a graph calls `before` with the graph's name."""

    name, device = "watched", "none"

    def __init__(self, model: Model, *, runs_side_by_side: bool) -> None:
        self.engine = model.engine
        self.runs_side_by_side = runs_side_by_side
        self.before: Any = lambda graph: None
        self.running: set[str] = set()
        self.together: set[frozenset[str]] = set()

    def __getattr__(self, graph: str) -> Any:
        def run(inputs: Any) -> Any:
            self.running.add(graph)
            self.together.add(frozenset(self.running))
            try:
                self.before(graph)
                return getattr(self.engine, graph)(inputs)
            finally:
                self.running.discard(graph)

        return run


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [t.name for t in threading.enumerate() if t.name in ("refavs-see", "refavs-answer")] == []


def test_the_next_frame_is_seen_while_sentences_run_on_this_one(model: Model, clip: Path) -> None:
    """Each of the two waits for the other to have begun, so one after the other would not end."""
    engine = Watched(model, runs_side_by_side=True)
    seen, answered = threading.Semaphore(0), threading.Semaphore(0)

    def before(graph: str) -> None:
        if graph == "vision":
            seen.release()
        if graph == "step" and len(passed) < 5:
            passed.append(seen.acquire(timeout=PATIENCE_S))  # this frame's own
            passed.append(seen.acquire(timeout=PATIENCE_S))  # the next one's
            seen.release()
            answered.release()

    passed: list[bool] = []
    engine.before = before
    results = list(Model(model.bundle, engine, model.run).stream(clip, TEXTS))
    assert len(passed) >= 5 and all(passed)
    assert [result.index for result in results] == list(range(22))
    plain = list(model.stream(clip, TEXTS))
    for found, expected in zip(results, plain, strict=True):
        np.testing.assert_array_equal(found.mask_logits, expected.mask_logits)


def test_an_engine_that_does_one_thing_at_a_time_is_left_alone(model: Model, clip: Path) -> None:
    engine = Watched(model, runs_side_by_side=False)
    engine.before = lambda graph: time.sleep(0.002)
    list(Model(model.bundle, engine, model.run).stream(clip, TEXTS))
    assert engine.together == {frozenset({graph}) for graph in ("text", "vision", "audio", "step")}


def test_a_sentence_that_comes_while_it_runs_waits_for_its_turn(model: Model, clip: Path) -> None:
    engine = Watched(model, runs_side_by_side=False)
    engine.before = lambda graph: time.sleep(0.002)
    session = Model(model.bundle, engine, model.run).session(TEXTS)
    controls = Controls(session)
    source = open_source(clip, model.config.image_size)
    added = []
    for result in run_session(session, source, controls=controls):
        if result.index < 15:
            added.append(controls.add(f"sentence {result.index}"))
    assert sum(future.exception(0) is None for future in added) >= 10
    assert engine.together == {frozenset({graph}) for graph in ("text", "vision", "audio", "step")}


@pytest.mark.parametrize("graph", ["vision", "step"])
def test_what_goes_wrong_in_a_stage_reaches_the_caller(model: Model, clip: Path, graph: str) -> None:
    engine = Watched(model, runs_side_by_side=True)
    runs = []

    def before(name: str) -> None:
        runs.append(name)
        if name == graph and runs.count(graph) == 4:
            raise BundleError("the fourth is broken")

    engine.before = before
    got: list[Result] = []
    with pytest.raises(BundleError, match="the fourth is broken"):
        got.extend(Model(model.bundle, engine, model.run).stream(clip, TEXTS))
    assert len(got) <= 3
    for result in Model(model.bundle, engine, model.run).stream(clip, TEXTS, max_frames=3):
        got.append(result)
    assert got[-1].index == 2


def test_who_stops_early_leaves_nothing_open(model: Model, clip: Path) -> None:
    for count in (0, 1, 5):
        results = model.stream(clip, TEXTS)
        for _ in range(count):
            next(results)
        results.close()  # type: ignore[attr-defined]
        assert list(results) == []


def test_ctrl_c_leaves_a_paused_file(model: Model, clip: Path) -> None:
    session = model.session(TEXTS)
    controls = Controls(session)
    paused = controls.pause(True)
    paused.add_done_callback(lambda _: threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start())
    results = run_session(session, open_source(clip, model.config.image_size), controls=controls)
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert paused.done() and list(results) == []


def live(model: Model, deadline_s: float, duration_s: float = 1.5) -> Any:
    wanted = Model(model.bundle, model.engine, replace(model.run, deadline_s=deadline_s))
    session = wanted.session(TEXTS)
    return session, open_for(wanted, Live(CAMERA, mic="none"), duration_s=duration_s)


def test_frames_that_are_too_old_are_given_up(model: Model) -> None:
    session, source = live(model, 1e-6)
    assert list(run_session(session, source)) == []
    assert session.overdue > 3
    session, source = live(model, 60.0)
    assert len(list(run_session(session, source))) > 3
    assert session.overdue == 0


def test_who_is_slow_gets_new_pictures_and_their_true_age(model: Model) -> None:
    period_s = 0.4
    session, source = live(model, 60.0, duration_s=5.0)
    ages_s = []
    for result in run_session(session, source):
        age_s = source.now_s - result.pts_s
        assert 0.0 <= age_s - result.latency_ms / 1e3 < 0.1
        ages_s.append(age_s)
        time.sleep(period_s)
    assert len(ages_s) >= 6
    assert max(ages_s) < 3 * period_s  # one with the caller, one answered, one seen while that was


def test_what_became_too_old_on_its_way_is_given_up_but_for_ticks(model: Model, bundle: Bundle) -> None:
    engine = Watched(model, runs_side_by_side=True)
    engine.before = lambda graph: time.sleep(0.5 if graph == "vision" else 0.0)
    slow = Model(bundle, engine, replace(model.run, deadline_s=0.4))
    session = slow.session(TEXTS)
    source = open_for(slow, Live(CAMERA, mic="none"), duration_s=4.0)
    results = list(run_session(session, source))
    assert session.overdue >= 2
    assert session.sentences.memory_count[0] == len(results)  # each one a tick
    assert len(results) >= 2
