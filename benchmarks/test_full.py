"""The preset `full` in ONNX Runtime with random weights, for one sentence; graph by graph with `make bench-full`.

To export all of it takes minutes. Where build/ has no bundle of it yet, a bare run exports the vision graph alone, which is
nearly all of a frame, and leaves the whole frame out.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.networks import TEXTS, exported_graph, frames_and_sound, in_torch, is_exported, network
from refavs_rt.config import FULL
from refavs_rt.contract import graph_specs
from refavs_rt.examples import example_inputs
from refavs_rt.export.graphs_engine import open_session

ROUNDS = 5
PRODUCT = 2_048
"""Rows of the matrices whose product shows how fast float32 gets here."""


@pytest.mark.timeout(900)
def test_full_vision(benchmark: Any, all_cores: int) -> None:
    """Backbone, pixel decoder, and what else of a frame no sentence changes; in turns with the same weights in torch eager.

    The benchmark's own rounds are ONNX Runtime's; `extra_info` has what both took, and the ratio; and, for the least that
    any flow can take here, the operations of its products and how many a second one large product reaches.
    """
    session = open_session(exported_graph("full", "vision"), all_cores)
    network = in_torch("full")
    inputs = example_inputs(graph_specs(FULL)["vision"], 1, np.random.default_rng(0), FULL.text_vocabulary)
    factor = torch.rand(PRODUCT, PRODUCT)
    calls = {
        "torch": lambda: network.vision(inputs),
        "onnx": lambda: session.run(None, inputs),
        "product": lambda: factor @ factor,
    }
    with FlopCounterMode(display=False) as counted:
        network.vision(inputs)
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + ROUNDS):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            took[name].append(time.perf_counter() - began)
    medians = {name: float(np.median(seconds[1:])) for name, seconds in took.items()}
    benchmark.extra_info.update(
        torch_s=round(medians["torch"], 4),
        onnx_s=round(medians["onnx"], 4),
        torch_to_onnx=round(medians["torch"] / medians["onnx"], 3),
        gflop=round(counted.get_total_flops() / 1e9, 2),
        product_gflop_per_s=round(2 * PRODUCT**3 / medians["product"] / 1e9, 2),
    )
    outputs = benchmark.pedantic(calls["onnx"], rounds=ROUNDS)
    assert all(np.isfinite(output).all() for output in outputs)


@pytest.mark.bench_full
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(
    ("graph", "sentences"), [("text", 1), ("audio", 1), ("step", 1), ("step", 2), ("step", 4), ("step", 8)]
)
def test_full_graph(benchmark: Any, all_cores: int, graph: str, sentences: int) -> None:
    net = network("full", all_cores)
    spec = graph_specs(net.config)[graph]
    inputs = example_inputs(spec, sentences, np.random.default_rng(0), net.config.text_vocabulary)
    outputs = benchmark.pedantic(getattr(net.onnx, graph), (inputs,), rounds=5, warmup_rounds=1)
    assert all(np.isfinite(outputs[output.name]).all() for output in spec.outputs)


def test_full_frame(benchmark: Any, all_cores: int) -> None:
    """All graphs and the state."""
    if not is_exported("full"):
        pytest.skip("build/ has no bundle of full: make bench-full exports it")
    net = network("full", all_cores)
    session = net.session_model().session(TEXTS[:1])
    frames, log_mel = frames_and_sound(net.config, 1)
    seconds = iter(range(10**6))
    prediction = benchmark.pedantic(
        lambda: session.predict(frames[0], log_mel[0], float(next(seconds))), rounds=3, warmup_rounds=1
    )
    assert np.isfinite(prediction.mask_logits).all()
