"""Engines by name. Each is imported only when it is asked for."""

from __future__ import annotations

from ..bundle import Bundle
from ..config import ENGINES
from .base import Arrays, Engine, EngineError, Held

__all__ = ["ENGINES", "Arrays", "Engine", "EngineError", "Held", "open_engine"]

_PROVIDERS = {"onnx": "cpu", "onnx-cuda": "cuda", "onnx-tensorrt": "tensorrt"}


def open_engine(name: str, bundle: Bundle, *, threads: int = 0) -> Engine:
    """Load a bundle's graphs.

    Args:
        name: one of `ENGINES`; "auto" takes the bundle's TensorRT engines where they match this machine, else ONNX Runtime on
            the CPU, and its `device` says why.
        bundle: the graphs.
        threads: 0 for one a usable core.

    Raises:
        EngineError: there is no such engine, or it cannot run here. Nothing else is taken in its place.
        BundleError: a file of the bundle is damaged or does not fit the contract.
    """
    if name not in ENGINES:
        raise EngineError(f"no engine {name!r}; there are: {', '.join(ENGINES)}")
    if name == "torch":
        raise EngineError(f"{bundle.path}: a bundle; the torch engine runs a run folder, such as runs/latest")
    if name == "tensorrt":
        from .tensorrt import TensorRTEngine

        return TensorRTEngine(bundle, threads=threads)
    if name == "auto":
        return _open_best(bundle, threads)
    from .onnx import OnnxEngine

    return OnnxEngine(bundle, threads=threads, provider=_PROVIDERS[name])


def _open_best(bundle: Bundle, threads: int) -> Engine:
    from .onnx import OnnxEngine

    if not bundle.engines:
        return OnnxEngine(bundle, threads=threads)
    from .tensorrt import TensorRTEngine

    try:
        return TensorRTEngine(bundle, threads=threads)
    except EngineError as error:
        engine = OnnxEngine(bundle, threads=threads)
        engine.device += f"; not TensorRT: {error}"
        return engine
