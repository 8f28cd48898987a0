"""Triton, or where it is not installed stand-ins with which kernels can be defined but not launched: references serve there."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from types import SimpleNamespace
from typing import Any

__all__ = ["tl", "triton"]


def _undecorated(function: Any = None, **_: Any) -> Any:
    return function if function is not None else _undecorated


triton: Any = SimpleNamespace(jit=_undecorated)
tl: Any = SimpleNamespace(constexpr=int)
with suppress(ModuleNotFoundError):
    triton, tl = import_module("triton"), import_module("triton.language")
