"""The table that ends an export."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import onnx

from refavs_rt.bundle import Bundle, graph_file
from refavs_rt.contract import GRAPHS, graph_specs
from refavs_rt.engines.onnx import OnnxEngine
from refavs_rt.examples import example_inputs

_ROUNDS = 15
_HEAD = (
    "graph",
    "operators",
    "size",
    "precision",
    "largest error",
    "mean error",
    "mask IoU",
    "latency here",
    "engine",
)


def summary(bundle: Bundle) -> str:
    """A row for each graph, and what the columns say."""
    parity = bundle.manifest["parity"]
    lower = parity.get("lower_precision")
    measured = lower or parity
    latency = _latency_ms(bundle)
    rows = [_HEAD]
    for graph in GRAPHS:
        data = bundle.read(graph_file(graph))
        errors = [measured[what][graph] for what in ("random", "clip") if what in measured]
        engine = bundle.engines.get(graph)
        rows.append(
            (
                graph,
                str(len(onnx.load_from_string(data).graph.node)),
                f"{len(data) / 1e6:.1f} MB",
                _precision(bundle, graph, lower),
                f"{max(x['largest_error'] for x in errors):.1e}" if errors else "-",
                f"{max(x['mean_error'] for x in errors):.1e}"
                if errors and "mean_error" in errors[0]
                else "-",
                _iou(measured, graph),
                f"{latency[graph]:.1f} ms",
                f"{bundle.files[engine.file]['size'] / 1e6:.1f} MB" if engine else "-",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([*lines, "", *_notes(bundle, lower)])


def _precision(bundle: Bundle, graph: str, lower: dict[str, Any] | None) -> str:
    if lower is None or graph not in lower["layers"]:
        return "fp32" if lower is not None else bundle.precision
    kept = len(lower["kept_in_float32"].get(graph, ()))
    return f"{bundle.precision}, {kept} of {lower['layers'][graph]} kept" if kept else bundle.precision


def _iou(measured: dict[str, Any], graph: str) -> str:
    if graph != "step":
        return "-"
    if "mask_agreement" in measured:
        return f"{measured['mask_agreement']:.4f}"
    return f"{measured['clip'][graph]['mask_iou']:.5f}" if "clip" in measured else "-"


def _notes(bundle: Bundle, lower: dict[str, Any] | None) -> list[str]:
    notes = []
    if lower is None:
        notes.append("errors, mask IoU: against torch on random inputs and on the demo clip")
    else:
        notes.append(
            f"errors: against the float32 graphs; mask IoU: with those, each with its own memory, over {lower['frames']} frames"
        )
        for graph, names in lower["kept_in_float32"].items():
            if names:
                notes.append(f"kept in float32, {graph}: {', '.join(names)}")
    notes.append("latency: median in ONNX Runtime on this CPU, one sentence")
    for record in list(bundle.engines.values())[:1]:
        cards = ", ".join(f"sm{c}" for c in record.capabilities)
        low, high = record.sentences
        verified = (
            f"compared with ONNX Runtime on {record.verified['device']}"
            if record.verified
            else "not verified on a device: the first load on one compares them"
        )
        notes.append(
            f"engines: {record.library} {record.version} for {cards}, {low} to {high} sentences; {verified}"
        )
    return notes


def _latency_ms(bundle: Bundle) -> dict[str, float]:
    engine = OnnxEngine(bundle)
    medians = {}
    for graph, spec in graph_specs(bundle.config).items():
        inputs = example_inputs(spec, 1, np.random.default_rng(0), bundle.config.text_vocabulary)
        times = []
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            getattr(engine, graph)(inputs)
            times.append((time.perf_counter() - started) * 1e3)
        medians[graph] = statistics.median(times)
    return medians
