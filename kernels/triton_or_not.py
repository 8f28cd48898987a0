"""Triton, or where it is not installed stand-ins with which kernels can be defined but not launched: references serve there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

__all__ = ["tl", "triton"]


def _undecorated(function: Any = None, **_: Any) -> Any:
    return function if function is not None else _undecorated


triton: Any
tl: Any
try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:
    triton, tl = SimpleNamespace(jit=_undecorated), SimpleNamespace(constexpr=int)
