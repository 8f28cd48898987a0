"""The bundle's ONNX graphs in ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from ..bundle import Bundle, BundleError, graph_file
from ..contract import GRAPHS, GraphSpec, TensorSpec, graph_specs
from .base import Arrays, EngineError

_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "bool": "tensor(bool)"}
"""numpy's names of the contract's types -> ONNX Runtime's."""
_ERRORS_ONLY = 3


class OnnxEngine:
    """ONNX Runtime sessions of the four graphs.

    Args:
        bundle: where the graphs come from; each is read once and loaded from those bytes.
        threads: 0 for one a usable core.

    Raises:
        BundleError: a graph is damaged or does not fit the contract.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, *, threads: int = 0) -> None:
        if threads < 0:
            raise EngineError(f"threads must be 0 or more, not {threads}")
        self.threads = threads or len(os.sched_getaffinity(0))
        self.device = f"CPU, {self.threads} thread{'s' if self.threads > 1 else ''}"
        specs = graph_specs(bundle.config)
        self._sessions = {graph: _open(bundle, specs[graph], self.threads) for graph in GRAPHS}
        self._inputs = {graph: [spec.name for spec in specs[graph].inputs] for graph in GRAPHS}
        self._outputs = {graph: [spec.name for spec in specs[graph].outputs] for graph in GRAPHS}

    def text(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("text", inputs)

    def vision(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("vision", inputs)

    def audio(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("audio", inputs)

    def step(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("step", inputs)

    def _run(self, graph: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        feeds = {name: inputs[name] for name in self._inputs[graph]}
        names = self._outputs[graph]
        return dict(zip(names, self._sessions[graph].run(names, feeds), strict=True))


def _open(bundle: Bundle, spec: GraphSpec, threads: int) -> ort.InferenceSession:
    name = graph_file(spec.name)
    data = bundle.read(name)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    # Four graphs take turns and FFmpeg decodes beside them: a pool that spins while it waits takes cores from the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no class but Exception
        reason = str(error).splitlines()[0]
        raise BundleError(
            f"{bundle.path / name}: not a graph that runs here ({reason}); export the bundle again"
        ) from error
    for side, wanted, found in (
        ("input", spec.inputs, session.get_inputs()),
        ("output", spec.outputs, session.get_outputs()),
    ):
        _check(f"{bundle.path / name}: {side}", wanted, {node.name: node for node in found})
    return session


def _check(where: str, wanted: tuple[TensorSpec, ...], found: dict[str, ort.NodeArg]) -> None:
    """Compare a graph's tensors with the contract: names, types, and each axis (dynamic where the contract has a letter)."""
    mend = "export the bundle again"
    for name in sorted(set(found) - {spec.name for spec in wanted}):
        raise BundleError(f"{where} {name!r} is not in the contract; {mend}")
    for spec in wanted:
        if spec.name not in found:
            raise BundleError(f"{where} {spec.name!r} is missing; {mend}")
        node = found[spec.name]
        if node.type != _TYPES[spec.dtype]:
            raise BundleError(f"{where} {spec.name!r} is {node.type}, not {_TYPES[spec.dtype]}; {mend}")
        fits = len(node.shape) == len(spec.shape) and all(
            not isinstance(axis, int) if isinstance(expected, str) else axis == expected
            for axis, expected in zip(node.shape, spec.shape, strict=True)
        )
        if not fits:
            raise BundleError(
                f"{where} {spec.name!r} has the shape {node.shape}, not {list(spec.shape)}; {mend}"
            )
