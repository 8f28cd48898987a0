"""The bundle's TensorRT engines, of `tensorrt` or of `tensorrt_rtx`, on the GPU of this machine.

A tensor of the contract has one place on the device, made once, for the largest N. A name that is an output of one graph and an
input of another is one tensor, so what vision and audio compute lies where the step reads it. All work is on one stream, and the
host waits for it once a frame, for the masks. What a graph does for one N is recorded as a CUDA graph at its second run, and
replayed from then on. N below the smallest that an engine was built for is filled up: sentences do not see each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, graph_file
from ..contract import GRAPHS, GraphSpec, TensorSpec, graph_specs
from .base import TO_HOST, Arrays, EngineError, GraphByName
from .cuda import Buffer, Cuda
from .onnx import OnnxEngine
from .tensorrt_checks import (
    PER_SENTENCE,
    check_device,
    check_engine,
    check_records,
    matching_library,
    rebuild_command,
)
from .tensorrt_library import CollectingLogger, Library
from .verification import Verified, compare


class TensorRTEngine(GraphByName):
    """The engines of a bundle. They are compared with ONNX Runtime when a device loads them for the first time.

    Args:
        bundle: where they come from; each file is read once and loaded from those bytes.
        threads: of ONNX Runtime in that comparison; 0 for one a usable core.

    Raises:
        EngineError: the engines are not for this machine or library, do not load, or compute something else than the graphs.
        BundleError: a file is damaged or does not fit the contract.
    """

    name = "tensorrt"

    def __init__(self, bundle: Bundle, *, threads: int = 0) -> None:
        check_records(bundle)
        library = matching_library(bundle)
        self._cuda = Cuda()
        check_device(bundle, self._cuda.name, self._cuda.capability)
        self.device = f"{self._cuda.name}, {library.name} {library.version}"
        self._log = CollectingLogger(library.module)
        loader = _Loader(bundle, library, self._log)
        self._graphs = {graph: loader.load(graph) for graph in GRAPHS}
        self._mend = rebuild_command(bundle)
        self._user_managed = library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        self._eager = getattr(library.module, "DynamicShapesKernelSpecializationStrategy", None)
        self._scratch_size = max(graph.engine.device_memory_size_v2 for graph in self._graphs.values())
        self._scratch = self._cuda.allocate(self._scratch_size)
        self._buffers = self._make_buffers()
        self.largest_error: float | None = None
        """Largest relative error against ONNX Runtime on this device; None where the manifest says that it was compared here."""
        if any(
            record.verified is None or record.verified.get("device") != self._cuda.name
            for record in bundle.engines.values()
        ):
            self.largest_error = self._verify(bundle, threads)

    def _run(self, name: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        graph = self._graphs[name]
        size = _axis_size(graph.spec, inputs)
        plan = self._plan(graph, size)
        for tensor in graph.spec.inputs:
            self._buffers[tensor.name].put(inputs[tensor.name])
        for tensor in graph.spec.outputs:
            self._buffers[tensor.name].vacate()
        self._execute(plan)
        outputs: dict[str, Any] = {}
        for tensor in graph.spec.outputs:
            buffer, shape = self._buffers[tensor.name], _shape(tensor, size)
            wanted = tensor.name in TO_HOST
            outputs[tensor.name] = buffer.start_download(shape) if wanted else buffer.hold(shape)
        pinned = [tensor for tensor in outputs if tensor in TO_HOST]
        if pinned:
            self._cuda.synchronise()
            outputs |= {tensor: outputs[tensor].copy() for tensor in pinned}
        return outputs

    def _plan(self, graph: _Graph, size: int) -> _Plan:
        """How the graph runs for N = `size`, made at its first run."""
        fitting = [
            (high, max(low, size), i) for i, (low, _, high) in enumerate(graph.profiles) if size <= high
        ]
        if not fitting or size < 1:
            raise EngineError(self._too_many(graph, size))
        _, padded, profile = min(fitting)
        if padded not in graph.plans:
            graph.plans[padded] = self._make_plan(graph, padded, profile)
        return graph.plans[padded]

    def _too_many(self, graph: _Graph, size: int) -> str:
        if graph.spec.name not in PER_SENTENCE:
            return f"the {graph.spec.name} engine takes one camera at a time, not {size}"
        return (
            f"the {graph.spec.name} engine takes 1 to {graph.most} sentences at a time, not {size}; "
            f"build it for more: {self._mend} --sentences 1:{max(size, graph.most)}"
        )

    def _make_plan(self, graph: _Graph, size: int, profile: int) -> _Plan:
        context = self._make_context(graph.engine)
        # A plan is kept by its engine: what it needs stands in these names, so that neither keeps the other alive.
        name, log, stream = graph.spec.name, self._log, self._cuda.stream

        def must(done: Any, what: str) -> None:
            if not done:
                raise EngineError(f"the {name} engine, N = {size}: {what} failed ({log.last_error})")

        must(context, "create_execution_context")
        context.set_device_memory(self._scratch, self._scratch_size)
        must(context.set_optimization_profile_async(profile, stream), "set_optimization_profile_async")
        for tensor in graph.spec.inputs:
            must(context.set_input_shape(tensor.name, _shape(tensor, size)), f"set_input_shape {tensor.name}")
        for tensor in (*graph.spec.inputs, *graph.spec.outputs):
            found = tuple(context.get_tensor_shape(tensor.name))
            must(found == _shape(tensor, size), f"shape {list(found)} of {tensor.name}")
            address = self._buffers[tensor.name].address
            must(context.set_tensor_address(tensor.name, address), f"set_tensor_address {tensor.name}")
        self._cuda.synchronise()
        return _Plan(context, lambda: must(context.execute_async_v3(stream), "execute_async_v3"))

    def _make_context(self, engine: Any) -> Any:
        """A context over the shared scratch memory. TensorRT-RTX compiles kernels for the shapes at hand before it goes on:
        recorded work would otherwise hold its general ones for ever."""
        if self._eager is None:
            return engine.create_execution_context(self._user_managed)
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._user_managed)
        config.dynamic_shapes_kernel_specialization_strategy = self._eager.EAGER
        return engine.create_execution_context(config)

    def _execute(self, plan: _Plan) -> None:
        """Put a run on the stream. Recording needs a first run, which allocates and compiles."""
        if plan.recorded is None and plan.has_run and plan.can_record:
            plan.can_record = plan.is_capturable(self._cuda.stream)
            if plan.can_record:
                try:
                    plan.recorded = self._cuda.capture(plan.enqueue)
                except EngineError:
                    plan.can_record = False
        if plan.recorded is not None:
            self._cuda.launch(plan.recorded)
        else:
            plan.enqueue()
            plan.has_run = True

    def _make_buffers(self) -> dict[str, Buffer]:
        """A place for each name of the contract, at its largest size."""
        shapes: dict[str, tuple[int, ...]] = {}
        types: dict[str, np.dtype[Any]] = {}
        for graph in self._graphs.values():
            for tensor in (*graph.spec.inputs, *graph.spec.outputs):
                shape = _shape(tensor, graph.most)
                known = shapes.get(tensor.name, shape)
                shapes[tensor.name] = max(shape, known, key=math.prod)
                types[tensor.name] = np.dtype(tensor.dtype)
        return {name: Buffer(self._cuda, types[name], shape) for name, shape in shapes.items()}

    def _verify(self, bundle: Bundle, threads: int) -> float:
        """The largest error, measured now or noted when this device first loaded the bundle."""
        note = Verified(bundle, self.device)
        if (known := note.recall()) is not None:
            return known
        sizes = {
            name: sorted({size for profile in graph.profiles for size in profile})
            for name, graph in self._graphs.items()
        }
        precisions = {name: record.precision for name, record in bundle.engines.items()}
        error = compare(self, OnnxEngine(bundle, threads=threads), bundle, sizes, precisions)
        note.remember(error)
        return error


@dataclass
class _Plan:
    """How a graph runs for one N."""

    context: Any
    """An execution context of its own: recorded work stays valid only while nothing else is set in its context."""
    enqueue: Callable[[], None]
    has_run: bool = False
    can_record: bool = True
    recorded: Any = None
    """The CUDA graph, from the second run on."""

    def is_capturable(self, stream: int) -> bool:
        """Whether a run can be recorded; a library that cannot be asked finds out by trying."""
        asked = getattr(self.context, "is_stream_capturable", None)
        return asked is None or bool(asked(stream))


@dataclass
class _Graph:
    """A loaded engine."""

    spec: GraphSpec
    engine: Any
    profiles: Sequence[tuple[int, int, int]]
    plans: dict[int, _Plan] = field(default_factory=dict)
    """N -> how it runs."""

    @property
    def most(self) -> int:
        """The largest N."""
        return max(high for _, _, high in self.profiles)


class _Loader:
    """Makes engines of a bundle's files."""

    def __init__(self, bundle: Bundle, library: Library, log: Any) -> None:
        self._bundle = bundle
        self._trt = library.module
        self._library = library
        self._log = log
        self._runtime = library.module.Runtime(log)

    def load(self, graph: str) -> _Graph:
        record = self._bundle.engines[graph]
        file = self._bundle.path / record.file
        spec = graph_specs(self._bundle.config)[graph]
        if record.version_compatible:
            self._runtime.engine_host_code_allowed = True  # such an engine brings a part of the library along
        engine = self._runtime.deserialize_cuda_engine(self._bundle.read(record.file))
        if engine is None:
            raise EngineError(
                f"{file}: {self._library.name} does not load it ({self._said()}); "
                f"build it again here: {rebuild_command(self._bundle)}"
            )
        check_engine(file, engine, self._trt, spec, record)
        if record.weights == "stripped":
            self._refit(graph, engine)
        return _Graph(spec, engine, record.profiles)

    def _refit(self, graph: str, engine: Any) -> None:
        """Fill the weights in from the bundle's graph."""
        name = graph_file(graph)
        refitter = self._trt.Refitter(engine, self._log)
        parser = self._trt.OnnxParserRefitter(refitter, self._log)
        if not parser.refit_from_bytes(self._bundle.read(name)) or not refitter.refit_cuda_engine():
            reasons = [str(parser.get_error(i)) for i in range(parser.num_errors)]
            raise EngineError(
                f"{self._bundle.path / self._bundle.engines[graph].file}: its weights are not those of {name} "
                f"({'; '.join(reasons) or self._said()}); build it again: {rebuild_command(self._bundle)}"
            )

    def _said(self) -> str:
        return (self._log.last_error.splitlines() or ["it does not say why"])[0]


def _shape(tensor: TensorSpec, size: int) -> tuple[int, ...]:
    return tuple(size if isinstance(axis, str) else axis for axis in tensor.shape)


def _axis_size(spec: GraphSpec, inputs: Arrays) -> int:
    """The size of the dynamic axis, the same in all inputs.

    Raises:
        ValueError: an input has another type or shape than the contract says.
    """
    dynamic = next(t for t in spec.inputs if isinstance(t.shape[0], str))
    shape = inputs[dynamic.name].shape
    size = shape[0] if shape else 0
    for tensor in spec.inputs:
        values, expected = inputs[tensor.name], _shape(tensor, size)
        if values.shape != expected or values.dtype != np.dtype(tensor.dtype):
            raise ValueError(
                f"{tensor.name} must be {tensor.dtype} {list(expected)}, not {values.dtype} {list(values.shape)}"
            )
    return size
