"""Stand-ins for a GPU: CUDA's runtime calls, and the half of TensorRT that runs engines, over the real ONNX graphs.

`FakeCuda` keeps device memory apart from the host's, at addresses that nothing else can read, and fills it with NaN. What is put
on the stream happens only when somebody waits for it, as late as a GPU may do it; so a result that is read too early, or a copy
whose source is written again too early, is seen. What a program must not do raises `Misuse`: reading or writing outside an
allocation, using or freeing freed memory, copying from memory that is not pinned, waiting while work is being recorded.

`fake_tensorrt` runs an "engine" (`engine_bytes`) with ONNX Runtime on addresses of that memory, and insists on what TensorRT asks
for: profiles and shapes before a run, every address set, a run before it is recorded, nothing changed in a context after that.
"""

from __future__ import annotations

import enum
import importlib.machinery
import json
import sys
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

_POISON = 0xFF
"""Of floats it makes NaN."""
_GAP = 4096
"""Bytes between two allocations, which belong to nobody."""


class Misuse(AssertionError):  # noqa: N818 # a test fails of it
    """What a GPU would answer with a wrong result or a crash."""


class CudaError(enum.IntEnum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorInsufficientDriver = 35  # noqa: N815
    cudaErrorStreamCaptureUnsupported = 900  # noqa: N815


_TEXTS = {
    CudaError.cudaErrorMemoryAllocation: b"out of memory",
    CudaError.cudaErrorInsufficientDriver: b"CUDA driver version is insufficient for CUDA runtime version",
    CudaError.cudaErrorStreamCaptureUnsupported: b"operation not permitted when stream is capturing",
}


class FakeCuda:
    """CUDA's runtime calls, each as cuda-python gives it: (error, result...).

    Args:
        capability: compute capability of the one device, such as 86.
        memory: bytes that can be allocated on it.
        failing: names of calls that fail, and how.
    """

    cudaStreamNonBlocking = 1  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815
    cudaDeviceAttr = SimpleNamespace(  # noqa: N815
        cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76
    )

    def __init__(
        self,
        capability: int = 86,
        *,
        name: str = "Double of an RTX",
        memory: int = 1 << 40,
        failing: dict[str, CudaError] | None = None,
    ) -> None:
        self.capability = capability
        self.name = name
        self.memory = memory
        self.failing = failing or {}
        self.device: dict[int, NDArray[np.uint8]] = {}
        """Address -> what is allocated there."""
        self.pinned: dict[int, NDArray[np.uint8]] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        """Stream -> what it has still to do."""
        self.recording: list[Callable[[], None]] | None = None
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.misuses: list[str] = []
        self.uploaded = self.downloaded = self.launched = self.captured = 0
        """Bytes that crossed the bus either way; replays of recorded work; recordings."""
        self._next = 0x7000_0000_0000

    # What the program calls.

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:  # noqa: N802
        return self._answer("cudaGetDeviceCount", 1)

    def cudaGetDevice(self) -> tuple[Any, ...]:  # noqa: N802
        return self._answer("cudaGetDevice", 0)

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> tuple[Any, ...]:  # noqa: N802
        return self._answer(
            "cudaDeviceGetAttribute", self.capability // 10 if attribute == 75 else self.capability % 10
        )

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        return self._answer("cudaGetDeviceProperties", SimpleNamespace(name=self.name.encode()))

    def cudaGetErrorString(self, error: CudaError) -> tuple[Any, ...]:  # noqa: N802
        return CudaError.cudaSuccess, _TEXTS[error]

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        stream = self._address(1)
        self.streams[stream] = []
        return self._answer("cudaStreamCreateWithFlags", stream)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        self._require(not self.streams[stream], "a stream is destroyed that has still to do")
        del self.streams[stream]
        return self._answer("cudaStreamDestroy")

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        self._require(self.recording is None, "memory is allocated while work is recorded")
        if sum(map(len, self.device.values())) + size > self.memory:
            return CudaError.cudaErrorMemoryAllocation, 0
        address = self._address(size)
        self.device[address] = np.full(size, _POISON, np.uint8)
        return self._answer("cudaMalloc", address)

    def cudaFree(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        self._require(
            address in self.device, f"{address:#x} is freed and is no allocation, or was freed before"
        )
        for stream in self.streams:  # freeing waits for the device
            self.cudaStreamSynchronize(stream)
        del self.device[address]
        return self._answer("cudaFree")

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        self._require(self.recording is None, "memory is allocated while work is recorded")
        memory = np.full(size, _POISON, np.uint8)
        self.pinned[memory.ctypes.data] = memory
        return self._answer("cudaMallocHost", memory.ctypes.data)

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        self._require(address in self.pinned, "host memory is freed that is not pinned, or was freed before")
        del self.pinned[address]
        return self._answer("cudaFreeHost")

    def cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        self.view(address, size)
        self.enqueue(stream, lambda: self.view(address, size).fill(value))
        return self._answer("cudaMemsetAsync")

    def cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, size: int, kind: int, stream: int
    ) -> tuple[Any, ...]:
        upload = kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice
        host, device = (source, target) if upload else (target, source)
        self.view(device, size)
        self._pinned(host, size)

        def copy() -> None:
            inside, outside = self.view(device, size), self._pinned(host, size)
            if upload:
                inside[:] = outside
            else:
                outside[:] = inside

        self.enqueue(stream, copy)
        if upload:
            self.uploaded += size
        else:
            self.downloaded += size
        return self._answer("cudaMemcpyAsync")

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        self._require(self.recording is None, "the host waits while work is recorded")
        self._require(stream in self.streams, "a stream is waited for that is gone")
        waiting, self.streams[stream] = self.streams[stream], []
        for work in waiting:
            work()
        return self._answer("cudaStreamSynchronize")

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:  # noqa: N802
        self._require(self.recording is None, "a recording begins inside another")
        error, *_ = self._answer("cudaStreamBeginCapture")
        if not error:
            self.recording = []
        return (error,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        self._require(self.recording is not None, "a recording ends that did not begin")
        graph = self._address(1)
        self.graphs[graph], self.recording = self.recording or [], None
        return self._answer("cudaStreamEndCapture", graph)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:  # noqa: N802
        self._require(bool(self.graphs[graph]), "an empty recording")
        ready = self._address(1)
        self.graphs[ready] = list(self.graphs[graph])
        self.captured += 1
        return self._answer("cudaGraphInstantiate", ready)

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:  # noqa: N802
        del self.graphs[graph]
        return self._answer("cudaGraphDestroy")

    cudaGraphExecDestroy = cudaGraphDestroy  # noqa: N815

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        for work in self.graphs[graph]:
            self.enqueue(stream, work)
        self.launched += 1
        return self._answer("cudaGraphLaunch")

    # What the double of TensorRT uses.

    def view(self, address: int, size: int) -> NDArray[np.uint8]:
        """The bytes at an address of the device."""
        for start, memory in self.device.items():
            if start <= address < start + len(memory):
                self._require(
                    address + size <= start + len(memory), f"{size} bytes reach beyond an allocation"
                )
                return memory[address - start : address - start + size]
        raise self._misuse(f"{address:#x} is not memory of the device, or was freed")

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """Put work on the stream, or into the recording."""
        self._require(stream in self.streams, "work for a stream that is not there")
        (self.streams[stream] if self.recording is None else self.recording).append(work)

    def _pinned(self, address: int, size: int) -> NDArray[np.uint8]:
        for start, memory in self.pinned.items():
            if start <= address < start + max(1, len(memory)):
                self._require(address + size <= start + len(memory), "a copy reaches beyond pinned memory")
                return memory[address - start : address - start + size]
        raise self._misuse("a copy of host memory that is not pinned, or was freed")

    def _address(self, size: int) -> int:
        address = self._next
        self._next += -(-size // _GAP) * _GAP + _GAP
        return address

    def _answer(self, name: str, *results: Any) -> tuple[Any, ...]:
        return (self.failing.get(name, CudaError.cudaSuccess), *results)

    def _require(self, condition: bool, what: str) -> None:
        if not condition:
            raise self._misuse(what)

    def _misuse(self, what: str) -> Misuse:
        self.misuses.append(what)  # a finalizer's exception would go unseen
        return Misuse(what)


class DataType(enum.Enum):
    FLOAT, HALF, INT64, BOOL = range(4)


class TensorIOMode(enum.Enum):
    INPUT, OUTPUT = range(2)


class TensorLocation(enum.Enum):
    DEVICE, HOST = range(2)


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC, USER_MANAGED = range(2)


class KernelSpecialization(enum.Enum):
    LAZY, EAGER, NONE = range(3)


_TYPES = {
    "tensor(float)": (DataType.FLOAT, np.float32),
    "tensor(int64)": (DataType.INT64, np.int64),
    "tensor(bool)": (DataType.BOOL, np.bool_),
}
_MAGIC = b"DOUBLE\n"


def engine_bytes(
    graph: bytes, profiles: Sequence[Sequence[int]], *, stripped: bool = False, **wrong: Any
) -> bytes:
    """A serialised "engine": a line of what it is, and the ONNX graph, which a stripped one leaves out.

    Args:
        wrong: what the engine says of itself instead of the truth: name -> {tensor name: value}, see `_Engine`.
    """
    session = _open(graph)
    head = {
        "profiles": [list(profile) for profile in profiles],
        "stripped": stripped,
        "tensors": [
            [node.name, side, node.type, list(node.shape)]
            for side, nodes in ((0, session.get_inputs()), (1, session.get_outputs()))
            for node in nodes
        ],
        "wrong": wrong,
    }
    return _MAGIC + json.dumps(head).encode() + b"\n" + (b"" if stripped else graph)


def fake_tensorrt(cuda: FakeCuda, name: str = "tensorrt", version: str = "10.3.0") -> ModuleType:
    """A module that stands in for `tensorrt` or `tensorrt_rtx`, with engines on the memory of `cuda`."""
    module: Any = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__version__ = version
    module.ILogger = _Logger
    for kind in (DataType, TensorIOMode, TensorLocation, ExecutionContextAllocationStrategy):
        setattr(module, kind.__name__, kind)
    module.Runtime = lambda log: _Runtime(log, cuda, has_runtime_config=name == "tensorrt_rtx")
    module.Refitter = lambda engine, log: _Refitter(engine)
    module.OnnxParserRefitter = lambda refitter, log: _ParserRefitter(refitter)
    if name == "tensorrt_rtx":
        module.DynamicShapesKernelSpecializationStrategy = KernelSpecialization
    return module


def install(
    monkeypatch: pytest.MonkeyPatch,
    cuda: FakeCuda | None = None,
    name: str = "tensorrt",
    version: str = "10.3.0",
) -> FakeCuda:
    """Put the stand-ins where the engine finds CUDA and TensorRT."""
    cuda = cuda or FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, name, fake_tensorrt(cuda, name, version))
    return cuda


class _Logger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class _Runtime:
    def __init__(self, log: Any, cuda: FakeCuda, *, has_runtime_config: bool) -> None:
        self._log = log
        self._cuda = cuda
        self._kind = _RtxEngine if has_runtime_config else _Engine
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, data: bytes) -> _Engine | None:
        if not data.startswith(_MAGIC):
            self._log.log(_Logger.WARNING, "the magic tag differs")
            self._log.log(_Logger.ERROR, "Serialization assertion magicTagRead == kMAGIC_TAG failed\nmore")
            return None
        _, head, graph = data.split(b"\n", 2)
        return self._kind(json.loads(head), graph, self._cuda)


class _Engine:
    """ICudaEngine."""

    def __init__(self, head: dict[str, Any], graph: bytes, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.session = _open(graph) if graph else None
        self.profiles = head["profiles"]
        self.tensors = {name: (side, kind, shape) for name, side, kind, shape in head["tensors"]}
        self._wrong = head["wrong"]
        self.num_io_tensors = len(self.tensors)
        self.num_optimization_profiles = len(self.profiles)
        self.device_memory_size_v2 = 1000

    def get_tensor_name(self, index: int) -> str:
        return self._said("name", list(self.tensors)[index], list(self.tensors)[index])

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode(self._said("mode", name, self.tensors[name][0]))

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation(self._said("location", name, 0))

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self._said("dtype", name, _TYPES[self.tensors[name][1]][0].name)]

    def get_tensor_shape(self, name: str) -> list[int]:
        shape = [size if isinstance(size, int) else -1 for size in self.tensors[name][2]]
        return self._said("shape", name, shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        return [self.shape(name, size) for size in self.profiles[profile]]

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> _Context:
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return _Context(self)

    def shape(self, name: str, size: int) -> list[int]:
        """With `size` for the dynamic axis."""
        return [axis if isinstance(axis, int) else size for axis in self.tensors[name][2]]

    def _said(self, what: str, name: str, truth: Any) -> Any:
        return self._wrong.get(what, {}).get(name, truth)


class _RtxEngine(_Engine):
    """TensorRT-RTX's takes what a context is made with from a configuration."""

    def create_runtime_config(self) -> _RuntimeConfig:
        return _RuntimeConfig()

    def create_execution_context(self, strategy: Any) -> _Context:
        assert isinstance(strategy, _RuntimeConfig)
        assert strategy.dynamic_shapes_kernel_specialization_strategy is KernelSpecialization.EAGER
        return super().create_execution_context(strategy.allocation)


class _RuntimeConfig:
    allocation: Any = None
    dynamic_shapes_kernel_specialization_strategy: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.allocation = strategy


class _Context:
    """IExecutionContext."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._cuda = engine.cuda
        self._scratch: tuple[int, int] | None = None
        self._profile: int | None = None
        self._size: int | None = None
        self._shapes: dict[str, list[int]] = {}
        self._addresses: dict[str, int] = {}
        self._runs = 0
        self._changes = 0

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self._engine.device_memory_size_v2 and address % 256 == 0
        self._cuda.view(address, size)
        self._scratch = address, size
        self._changes += 1

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile = profile
        self._changes += 1
        return 0 <= profile < self._engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        if self._profile is None:
            return False
        low, _, high = self._engine.profiles[self._profile]
        for size in range(low, high + 1):
            if self._engine.shape(name, size) == list(shape):
                self._shapes[name] = list(shape)
                if self._engine.shape(name, low) != self._engine.shape(name, high + 1):
                    self._size = size
                self._changes += 1
                return True
        return False

    def get_tensor_shape(self, name: str) -> list[int]:
        return self._engine.shape(name, -1 if self._size is None else self._size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        self._changes += 1
        return name in self._engine.tensors

    def execute_async_v3(self, stream: int) -> bool:
        if set(self._addresses) != set(self._engine.tensors) or self._scratch is None:
            return False
        if self._cuda.recording is not None and not self._runs:
            return False
        self._runs += 1
        changes, size = self._changes, self._size
        assert size is not None

        def run() -> None:
            if self._changes != changes:
                raise Misuse("a context was changed after its run was put on the stream or recorded")
            self._run(size)

        self._cuda.enqueue(stream, run)
        return True

    def _run(self, size: int) -> None:
        engine = self._engine
        assert self._scratch is not None
        if engine.session is None:
            raise Misuse("an engine without weights runs")
        self._cuda.view(*self._scratch).fill(_POISON)
        feeds = {node.name: self._tensor(node.name, size).copy() for node in engine.session.get_inputs()}
        outputs = [node.name for node in engine.session.get_outputs()]
        for name, values in zip(outputs, engine.session.run(outputs, feeds), strict=True):
            self._tensor(name, size)[...] = values

    def _tensor(self, name: str, size: int) -> NDArray[Any]:
        shape = self._engine.shape(name, size)
        dtype = np.dtype(_TYPES[self._engine.tensors[name][1]][1])
        memory = self._cuda.view(self._addresses[name], dtype.itemsize * int(np.prod(shape)))
        return memory.view(dtype).reshape(shape)


class _Refitter:
    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        self.graph = b""

    def refit_cuda_engine(self) -> bool:
        self.engine.session = _open(self.graph)
        return True


class _ParserRefitter:
    def __init__(self, refitter: _Refitter) -> None:
        self._refitter = refitter
        self.num_errors = 0

    def refit_from_bytes(self, graph: bytes) -> bool:
        session = _open(graph)
        names = {node.name for node in (*session.get_inputs(), *session.get_outputs())}
        self.num_errors = int(names != set(self._refitter.engine.tensors))
        self._refitter.graph = graph
        return not self.num_errors

    def get_error(self, index: int) -> str:
        return "a refittable weight has another count"


def _open(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
