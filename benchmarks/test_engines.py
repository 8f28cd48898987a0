"""ONNX Runtime beside torch eager, the same weights and threads, interleaved in one run: a ratio, not two figures."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from refavs_rt.bundle import TOKENIZER, graph_file, write_bundle
from refavs_rt.config import EDGE, MEL_BINS, PATCH_FRAMES, RunConfig
from refavs_rt.engines import open_engine
from refavs_rt.engines.torch import TorchEngine
from refavs_rt.export.agreement import compare_random
from refavs_rt.export.to_onnx import export_graphs
from refavs_rt.model.text import minilm_folder
from refavs_rt.session import Model
from refavs_rt.train.starting_weights import starting_model

_ROUNDS = 30


def test_onnx_runtime_beside_torch_eager(benchmark: Any, tmp_path: Path) -> None:
    """A whole frame (vision, audio, step, state) of `edge` for one sentence, with random trained parts.

    `extra_info` holds the medians and their ratio; the benchmark's own rounds are ONNX Runtime's.
    """
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = starting_model(EDGE)[0].eval()
    files = {graph_file(name): data for name, data in export_graphs(network).items()}
    files[TOKENIZER] = (minilm_folder() / "tokenizer.json").read_bytes()
    bundle = write_bundle(tmp_path / "bundle", EDGE, files, tools={}, training={}, parity={})
    engine = open_engine("onnx", bundle, threads=threads)
    for graph, agreement in compare_random(EDGE, engine, TorchEngine(network), axes=(1,)).items():
        agreement.check(graph)

    rng = np.random.default_rng(0)
    frame = rng.standard_normal((3, EDGE.image_size, EDGE.image_size)).astype(np.float32)
    patch = rng.standard_normal((PATCH_FRAMES, MEL_BINS)).astype(np.float32)
    sessions = {
        e.name: Model(bundle, e, RunConfig()).session(["The sounding object."])
        for e in (engine, TorchEngine(network))
    }
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for i in range(_ROUNDS + 5):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.predict(frame, patch, i * 0.25)
            if i >= 5:
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    benchmark.extra_info.update(
        {
            "threads": threads,
            "torch_ms": median["torch"] * 1e3,
            "onnx_ms": median["onnx"] * 1e3,
            "torch_over_onnx": median["torch"] / median["onnx"],
        }
    )
    pts = iter(np.arange(100.0, 1e6, 0.25))
    benchmark.pedantic(lambda: sessions["onnx"].predict(frame, patch, float(next(pts))), rounds=_ROUNDS)
    print(
        f"\ntorch {median['torch'] * 1e3:.1f} ms, onnx {median['onnx'] * 1e3:.1f} ms: {median['torch'] / median['onnx']:.2f}x"
    )
