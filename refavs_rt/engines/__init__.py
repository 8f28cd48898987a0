"""Engines by name. Each is imported only when it is asked for."""

from __future__ import annotations

from ..bundle import Bundle
from .base import Arrays, Engine, EngineError

__all__ = ["ENGINES", "Arrays", "Engine", "EngineError", "open_engine"]

ENGINES = ("auto", "onnx")
"""What `--engine` takes."""


def open_engine(name: str, bundle: Bundle, *, threads: int = 0) -> Engine:
    """Load a bundle's graphs.

    Args:
        name: one of `ENGINES`; "auto" takes the fastest that fits bundle and machine.
        bundle: the graphs.
        threads: 0 for one a usable core.

    Raises:
        EngineError: there is no such engine, or it cannot run here.
        BundleError: a file of the bundle is damaged or does not fit the contract.
    """
    if name not in ENGINES:
        raise EngineError(f"no engine {name!r}; there are: {', '.join(ENGINES)}")
    from .onnx import OnnxEngine

    return OnnxEngine(bundle, threads=threads)
