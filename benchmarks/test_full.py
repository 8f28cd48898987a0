"""The preset `full` in ONNX Runtime with random weights: a frame for one sentence; graph by graph with `make bench-full`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.networks import TEXTS, frames_and_sound, network
from refavs_rt.contract import GRAPHS, graph_specs
from refavs_rt.examples import example_inputs


@pytest.mark.timeout(1_800)  # the export, where build/ has none yet
def test_full_frame(benchmark: Any, all_cores: int) -> None:
    net = network("full", all_cores)
    session = net.session_model().session(TEXTS[:1])
    frames, log_mel = frames_and_sound(net.config, 1)
    seconds = iter(range(10**6))
    prediction = benchmark.pedantic(
        lambda: session.predict(frames[0], log_mel[0], float(next(seconds))), rounds=3, warmup_rounds=1
    )
    assert np.isfinite(prediction.mask_logits).all()


@pytest.mark.bench_full
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(
    ("graph", "sentences"), [*((graph, 1) for graph in GRAPHS), ("step", 2), ("step", 4), ("step", 8)]
)
def test_full_graph(benchmark: Any, all_cores: int, graph: str, sentences: int) -> None:
    net = network("full", all_cores)
    spec = graph_specs(net.config)[graph]
    inputs = example_inputs(spec, sentences, np.random.default_rng(0), net.config.text_vocabulary)
    outputs = benchmark.pedantic(getattr(net.onnx, graph), (inputs,), rounds=5, warmup_rounds=1)
    assert all(np.isfinite(outputs[output.name]).all() for output in spec.outputs)
