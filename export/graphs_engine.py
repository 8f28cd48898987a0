"""Serialised ONNX graphs as an engine, without a bundle: what candidates of a lower precision are run in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from refavs_rt.config import ModelConfig
from refavs_rt.contract import GRAPHS, graph_specs
from refavs_rt.engines.base import Arrays, Engine, GraphByName

_ERRORS_ONLY = 3


class GraphsEngine(GraphByName):
    """ONNX Runtime on the CPU over `{graph name: bytes}`.

    Args:
        base: sessions of graphs that are the same bytes are taken from here.
    """

    name = "graphs"
    device = "CPU"

    def __init__(
        self,
        config: ModelConfig,
        graphs: Mapping[str, bytes],
        *,
        base: GraphsEngine | None = None,
    ) -> None:
        self._specs = graph_specs(config)
        self._graphs = dict(graphs)
        self._sessions: dict[str, ort.InferenceSession] = {}
        for name in GRAPHS:
            known = base is not None and base._graphs[name] is graphs[name]
            self._sessions[name] = base._sessions[name] if base and known else open_session(graphs[name])

    def _run(self, graph: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        spec = self._specs[graph]
        feeds = {x.name: inputs[x.name] for x in spec.inputs}
        names = [x.name for x in spec.outputs]
        return dict(zip(names, self._sessions[graph].run(names, feeds), strict=True))


def open_session(graph: bytes, threads: int = 0) -> ort.InferenceSession:
    """One graph, ready to run in as many threads; 0 leaves that to ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@dataclass
class RecordingEngine(GraphByName):
    """Runs an engine and keeps what every n-th run of each graph was given."""

    engine: Engine
    config: ModelConfig
    every: int
    inputs: dict[str, list[dict[str, NDArray[Any]]]] = field(default_factory=lambda: defaultdict(list))
    """Graph -> inputs by name, as they were then."""
    name: str = "recording"
    device: str = "CPU"
    _runs: Counter[str] = field(default_factory=Counter)

    def _run(self, graph: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        if self._runs[graph] % self.every == 0:
            spec = graph_specs(self.config)[graph]
            self.inputs[graph].append({x.name: np.array(inputs[x.name]) for x in spec.inputs})
        self._runs[graph] += 1
        outputs: dict[str, NDArray[Any]] = getattr(self.engine, graph)(inputs)
        return outputs
