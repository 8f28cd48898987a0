"""ONNX Runtime beside torch eager, the same weights and threads, interleaved in one run: a ratio, not two figures."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from benchmarks.networks import TEXTS, frames_and_sound, network
from benchmarks.results import summary
from refavs_rt.export.agreement import compare_random

ROUNDS = 30
WARM_UP = 5


@pytest.mark.parametrize("sentences", [1, 8])
def test_onnx_runtime_beside_torch_eager(benchmark: Any, all_cores: int, sentences: int) -> None:
    """A whole frame (vision, audio, step, state) of `edge`, with random trained parts.

    `extra_info` holds what both took and the ratio; the benchmark's own rounds are ONNX Runtime's.
    """
    net = network("edge", all_cores)
    for graph, agreement in compare_random(net.config, net.onnx, net.torch_engine, axes=(1,)).items():
        agreement.check(graph)
    (frame,), (patch,) = frames_and_sound(net.config, 1)
    sessions = {
        engine.name: net.session_model(engine).session(TEXTS[:sentences])
        for engine in (net.onnx, net.torch_engine)
    }
    took: dict[str, list[float]] = defaultdict(list)
    for i in range(WARM_UP + ROUNDS):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.predict(frame, patch, i * 0.25)
            if i >= WARM_UP:
                took[name].append(time.perf_counter() - started)
    engines = {name: summary(seconds) for name, seconds in took.items()}
    ratio = engines["torch"]["median"] / engines["onnx"]["median"]
    benchmark.extra_info.update(
        {"sentences": sentences, "threads": all_cores, "engines": engines, "torch_over_onnx": ratio}
    )
    pts = iter(np.arange(100.0, 1e6, 0.25))
    benchmark.pedantic(lambda: sessions["onnx"].predict(frame, patch, float(next(pts))), rounds=ROUNDS)
