"""One NVIDIA GPU through CUDA's runtime: its memory, one stream of work in order, and graphs of recorded work.

The calls are those of `cuda-python`. Everything that is allocated here is freed when the `Cuda` that made it goes.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import EngineError, Held, is_constant


class Cuda:
    """The current device, and one stream on it.

    Args:
        runtime: the module of CUDA's runtime calls; None imports that of cuda-python.

    Raises:
        EngineError: cuda-python is missing, or there is no GPU that it can use.
    """

    def __init__(self, runtime: Any = None) -> None:
        self._runtime = runtime if runtime is not None else _import_runtime()
        device = self._current_device()
        attribute = self._runtime.cudaDeviceAttr
        major = self._call("cudaDeviceGetAttribute", attribute.cudaDevAttrComputeCapabilityMajor, device)
        minor = self._call("cudaDeviceGetAttribute", attribute.cudaDevAttrComputeCapabilityMinor, device)
        self.capability: int = 10 * major + minor
        """Compute capability, such as 86 for 8.6."""
        name = self._call("cudaGetDeviceProperties", device).name
        self.name: str = (name.decode() if isinstance(name, bytes) else str(name)).rstrip("\0")
        """As NVIDIA calls it."""
        self._owned: list[tuple[str, Any]] = []
        """What has to be given back: the call that does it, and its argument."""
        self.stream = int(self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking))
        """Handle of the stream."""
        self._owned.append(("cudaStreamDestroy", self.stream))
        self.synchronised = 0
        """How often the host has waited for the stream."""
        weakref.finalize(self, _give_back, self._runtime, self._owned)

    def allocate(self, size: int) -> int:
        """Address of `size` bytes on the device, all zero."""
        address = int(self._call("cudaMalloc", max(1, size)))
        self._owned.append(("cudaFree", address))
        self._call("cudaMemsetAsync", address, 0, max(1, size), self.stream)
        return address

    def allocate_pinned(self, size: int) -> NDArray[np.uint8]:
        """`size` bytes of the host that the device copies from and to without help. They live as long as this object."""
        address = int(self._call("cudaMallocHost", max(1, size)))
        self._owned.append(("cudaFreeHost", address))
        return np.asarray(_HostMemory(address, size))

    def upload(self, address: int, pinned: NDArray[np.uint8]) -> None:
        """Copy pinned memory to the device, in the order of the stream; leave it alone until `synchronise`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, pinned.ctypes.data, pinned.nbytes, kind, self.stream)

    def download(self, pinned: NDArray[np.uint8], address: int) -> None:
        """Copy from the device into pinned memory, in the order of the stream; it is there after `synchronise`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", pinned.ctypes.data, address, pinned.nbytes, kind, self.stream)

    def synchronise(self) -> None:
        """Wait until the stream has nothing left to do."""
        self._call("cudaStreamSynchronize", self.stream)
        self.synchronised += 1

    def capture(self, work: Callable[[], None]) -> Any:
        """Record what `work` puts on the stream, without running it; `launch` runs it.

        Raises:
            EngineError: something in it cannot be recorded.
        """
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)
        try:
            work()
        except BaseException:
            # The stream has to leave the recording in any case; what that says is the same failure once more.
            with contextlib.suppress(EngineError):
                self._call("cudaGraphDestroy", self._call("cudaStreamEndCapture", self.stream))
            raise
        graph = self._call("cudaStreamEndCapture", self.stream)
        try:
            ready = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)
        self._owned.append(("cudaGraphExecDestroy", ready))
        return ready

    def launch(self, graph: Any) -> None:
        """Put recorded work on the stream."""
        self._call("cudaGraphLaunch", graph, self.stream)

    def _current_device(self) -> int:
        try:
            count = self._call("cudaGetDeviceCount")
            if count:
                return int(self._call("cudaGetDevice"))
            reason = "CUDA sees no device"
        except EngineError as error:
            reason = str(error)
        raise EngineError(f"no NVIDIA GPU that CUDA can use ({reason})")

    def _call(self, name: str, *arguments: Any) -> Any:
        """The result of a runtime call, None where it has none."""
        error, *results = getattr(self._runtime, name)(*arguments)
        if int(error):
            _, text = self._runtime.cudaGetErrorString(error)
            said = text.decode() if isinstance(text, bytes) else str(text)
            raise EngineError(f"{name}: {said}")
        return results[0] if results else None


def local_capability() -> int:
    """Compute capability of this machine's GPU, such as 86.

    Raises:
        EngineError: there is none, or no cuda-python to ask with.
    """
    return Cuda().capability


class Buffer:
    """A tensor's fixed place on the device, and pinned memory beside it for its way there and back.

    Args:
        cuda: whose memory it is.
        dtype: of the tensor.
        shape: the largest that it can have.
    """

    def __init__(self, cuda: Cuda, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._cuda = cuda
        self._dtype = dtype
        self._size = dtype.itemsize * math.prod(shape)
        self.address = cuda.allocate(self._size)
        self._pinned: NDArray[np.uint8] | None = None
        self._used_at = -1
        """`Cuda.synchronised` when the pinned memory was last given to a copy."""
        self._content: Callable[[], object] = lambda: None
        """A weak reference to the array or handle whose values are here, if there is one."""

    def put(self, values: NDArray[Any]) -> None:
        """Copy an array or a handle of another place here, unless it is what is here already."""
        if values is self._content():
            return
        self.vacate()
        pinned = self._borrow_pinned(values.dtype.itemsize * math.prod(values.shape))
        np.copyto(pinned.view(self._dtype).reshape(values.shape), np.asarray(values), casting="no")
        self._cuda.upload(self.address, pinned)
        self._content = weakref.ref(values) if is_constant(values) else lambda: None

    def vacate(self) -> None:
        """Before other values come here: copy what is here to the host, if somebody holds a handle of it."""
        if isinstance(held := self._content(), Held):
            held.fetch()
        self._content = lambda: None

    def hold(self, shape: tuple[int, ...]) -> Held:
        """A handle of the values that a graph has put here."""

        def fetch() -> NDArray[Any]:
            waiting = self.start_download(shape)
            self._cuda.synchronise()
            return waiting.copy()

        held = Held(shape, self._dtype, fetch)
        self._content = weakref.ref(held)
        return held

    def start_download(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """A view of pinned memory that holds the values after the next `Cuda.synchronise`, and until the next copy."""
        pinned = self._borrow_pinned(self._dtype.itemsize * math.prod(shape))
        self._cuda.download(pinned, self.address)
        return pinned.view(self._dtype).reshape(shape)

    def _borrow_pinned(self, size: int) -> NDArray[np.uint8]:
        """The first `size` bytes of the pinned memory, when no earlier copy needs it any more."""
        if self._pinned is None:
            self._pinned = self._cuda.allocate_pinned(self._size)
        if self._used_at == self._cuda.synchronised:
            self._cuda.synchronise()
        self._used_at = self._cuda.synchronised
        return self._pinned[:size]


class _HostMemory:
    """Bytes at an address, as numpy takes them."""

    def __init__(self, address: int, size: int) -> None:
        self.__array_interface__ = {
            "data": (address, False),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }


def _import_runtime() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise EngineError(
            f"CUDA's runtime calls are missing ({error}); install them: pip install 'refavs-rt[trt]'"
        ) from error


def _give_back(runtime: Any, owned: list[tuple[str, Any]]) -> None:
    """Free in the reverse order of making, when nothing runs any more. Nobody is left to whom a failure could be told."""
    stream = owned[0][1]
    runtime.cudaStreamSynchronize(stream)
    for call, argument in reversed(owned):
        getattr(runtime, call)(argument)
