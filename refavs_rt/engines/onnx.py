"""The bundle's ONNX graphs in ONNX Runtime: on the CPU, or through its CUDA or TensorRT provider."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..bundle import Bundle, BundleError, graph_file
from ..contract import GRAPHS, GraphSpec, TensorSpec, graph_specs
from ..graph_check import GraphError, check_graph
from .base import Arrays, EngineError

PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
"""Provider -> ONNX Runtime's names: the one asked for, and those that take operators which it has not."""

_INSTALL = {
    "cpu": "pip install onnxruntime",
    "cuda": "pip install onnxruntime-gpu in the place of onnxruntime, with the CUDA and cuDNN that it names "
    "(on a Jetson NVIDIA's build for its JetPack)",
    "tensorrt": "pip install onnxruntime-gpu in the place of onnxruntime, with the CUDA and TensorRT that it names "
    "(on a Jetson NVIDIA's build for its JetPack)",
}
_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "bool": "tensor(bool)"}
"""numpy's names of the contract's types -> ONNX Runtime's."""
_FATAL_ONLY = 4
"""How severe what ONNX Runtime prints must be: its errors come as exceptions too."""
_LONGEST_REASON = 500


class OnnxEngine:
    """ONNX Runtime sessions of the four graphs.

    Args:
        bundle: where the graphs come from; each is read once, checked, and loaded from those bytes.
        threads: 0 for one a usable core.
        provider: a name in `PROVIDERS`. What it does not run, the CPU does; it is never left out altogether.

    Raises:
        BundleError: a graph is damaged or does not fit the contract.
        EngineError: the provider is not here, or does not start.
    """

    runs_side_by_side = True  # each graph is a session of its own

    def __init__(self, bundle: Bundle, *, threads: int = 0, provider: str = "cpu") -> None:
        if threads < 0:
            raise EngineError(f"threads must be 0 or more, not {threads}")
        if provider not in PROVIDERS:
            raise EngineError(f"no provider {provider!r}; there are: {', '.join(PROVIDERS)}")
        self.name = "onnx" if provider == "cpu" else f"onnx-{provider}"
        """As `--engine` takes it."""
        if PROVIDERS[provider][0] not in ort.get_available_providers():
            raise EngineError(
                f"this ONNX Runtime ({ort.__version__}) has no {PROVIDERS[provider][0]}, which the engine {self.name} needs; "
                f"{_INSTALL[provider]}"
            )
        self.threads = threads or len(os.sched_getaffinity(0))
        cores = f"CPU, {self.threads} thread{'s' if self.threads > 1 else ''}"
        self.device = cores if provider == "cpu" else f"{PROVIDERS[provider][0]}; {cores}"
        specs = graph_specs(bundle.config)
        self._graphs = {graph: _Graph(bundle, specs[graph], self.threads, provider) for graph in GRAPHS}

    def text(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._graphs["text"].run(inputs)

    def vision(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._graphs["vision"].run(inputs)

    def audio(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._graphs["audio"].run(inputs)

    def step(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._graphs["step"].run(inputs)


class _Graph:
    """One graph in a session, whose outputs are believed only where they are what the contract says."""

    def __init__(self, bundle: Bundle, spec: GraphSpec, threads: int, provider: str) -> None:
        self._file = bundle.path / graph_file(spec.name)
        self._spec = spec
        self._session = _open(bundle, spec, threads, provider)
        self._inputs = [tensor.name for tensor in spec.inputs]
        self._outputs = [tensor.name for tensor in spec.outputs]
        self._sized_by = next(t.name for t in spec.inputs if isinstance(t.shape[0], str))
        """An input whose first axis is the dynamic one."""
        self._expected: dict[int, list[tuple[np.dtype[Any], tuple[int, ...]]]] = {}
        """Size of the dynamic axis -> type and shape of each output."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The graph's outputs by name.

        Raises:
            KeyError: an input is missing.
            ValueError: an input has another type or shape than the contract says.
            BundleError: the graph fails on sound inputs, or returns something else than the contract says.
        """
        feeds = {name: inputs[name] for name in self._inputs}
        try:
            values = self._session.run(self._outputs, feeds)
        except Exception as error:  # ONNX Runtime's errors share no class but Exception
            self._check_inputs(feeds)
            raise BundleError(
                f"{self._file}: the graph failed ({_reason(error)}); export the bundle again"
            ) from error
        found = [(value.dtype, value.shape) for value in values]
        expected = self._shapes(len(feeds[self._sized_by]))
        if found != expected:
            self._check_inputs(feeds)
            name, (dtype, shape), (wanted, axes) = next(
                row for row in zip(self._outputs, found, expected, strict=True) if row[1] != row[2]
            )
            raise BundleError(
                f"{self._file}: output {name!r} came as {dtype} {list(shape)}, not {wanted} {list(axes)}; "
                f"export the bundle again"
            )
        return dict(zip(self._outputs, values, strict=True))

    def _shapes(self, size: int) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
        if size not in self._expected:
            self._expected[size] = [(np.dtype(x.dtype), _bound(x, size)) for x in self._spec.outputs]
        return self._expected[size]

    def _check_inputs(self, feeds: Arrays) -> None:
        """Whether a failure is the caller's."""
        size = len(feeds[self._sized_by])
        for tensor in self._spec.inputs:
            values = feeds[tensor.name]
            if values.dtype != np.dtype(tensor.dtype) or values.shape != _bound(tensor, size):
                raise ValueError(
                    f"{tensor.name} must be {tensor.dtype} {list(_bound(tensor, size))}, "
                    f"not {values.dtype} {list(values.shape)}"
                )


def _open(bundle: Bundle, spec: GraphSpec, threads: int, provider: str) -> ort.InferenceSession:
    file = bundle.path / graph_file(spec.name)
    data = bundle.read(file.name)
    try:
        check_graph(data)
    except GraphError as error:
        raise BundleError(f"{file}: not a graph that runs here ({error}); export the bundle again") from error
    try:
        session = _session(data, threads, provider)
    except Exception as error:  # as above
        if provider != "cpu" and _runs_on_cpu(data, threads):
            raise EngineError(
                f"{PROVIDERS[provider][0]} does not run {file.name} ({_reason(error)}); {_INSTALL[provider]}"
            ) from error
        raise BundleError(
            f"{file}: not a graph that runs here ({_reason(error)}); export the bundle again"
        ) from error
    if PROVIDERS[provider][0] not in session.get_providers():
        raise EngineError(
            f"ONNX Runtime left out {PROVIDERS[provider][0]}, which does not start here; {_INSTALL[provider]}"
        )
    for side, wanted, found in (
        ("input", spec.inputs, session.get_inputs()),
        ("output", spec.outputs, session.get_outputs()),
    ):
        _check(f"{file}: {side}", wanted, {node.name: node for node in found})
    return session


def _session(data: bytes, threads: int, provider: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    # Four graphs take turns and FFmpeg decodes beside them: a pool that spins while it waits takes cores from the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Else bytes that look like ONNX Runtime's own format are read as such, which `check_graph` does not know.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    available = ort.get_available_providers()
    session = ort.InferenceSession(
        data,
        options,
        providers=[name for name in PROVIDERS[provider] if name in available],
        enable_fallback=0,
        read_config_from_model=0,
    )
    session.disable_fallback()
    return session


def _runs_on_cpu(data: bytes, threads: int) -> bool:
    with contextlib.suppress(Exception):
        return bool(_session(data, threads, "cpu"))
    return False


def _reason(error: Exception) -> str:
    """The first line of what a library says. It repeats names of the graph, which may hold what a terminal obeys."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return "".join(each if each.isprintable() else "?" for each in line[:_LONGEST_REASON])


def _bound(tensor: TensorSpec, size: int) -> tuple[int, ...]:
    """A tensor's shape with its dynamic axis of length `size`."""
    return tuple(size if isinstance(axis, str) else axis for axis in tensor.shape)


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
