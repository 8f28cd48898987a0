"""Which form of an op runs: its reference in plain torch, or its Triton kernel.

The rule, the same for every op: the kernel runs where all tensors are on a CUDA device, are float32, float16 or bfloat16, and
the head size is one of `HEAD_SIZES`; the reference runs everywhere else, and where an op says of a shape that the reference was
measured to be faster. `forced` overrides it, for tests and measurements.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

Form = Literal["reference", "kernel"]

HEAD_SIZES = (16, 32, 64, 128)
"""Sizes of a head for which there are kernels: a tile has as many columns."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""What kernels take; sums, softmax and means are float32 in all of them. Products of float32 are made of three of TF32 on the
matrix units (`tf32x3`), which lose about as little as float32 itself: on an H200 results lay as near to float64 as torch's."""

_forced: Form | None = None


class KernelError(Exception):
    """A kernel that cannot be launched; the message says why."""


@contextmanager
def forced(form: Form) -> Iterator[None]:
    """Every op takes this form inside the block, backward passes included.

    With "kernel", shapes and types that no kernel takes raise a `KernelError`, and so do tensors on a CPU outside Triton's
    interpreter (TRITON_INTERPRET=1 in the environment from the start of the process).
    """
    global _forced
    before, _forced = _forced, form
    try:
        yield
    finally:
        _forced = before


def runs_kernel(op: str, head_size: int, *tensors: Tensor, slow: bool = False) -> bool:
    """Whether the op named `op` takes its kernel for `tensors`, which are on one device and, if floats, of one type.

    Args:
        slow: whether the reference was measured to be faster at this shape.

    Raises:
        KernelError: the kernel is forced and cannot be launched.
    """
    if _forced == "reference":
        return False
    why = _refusal(head_size, tensors)
    if why and _forced == "kernel":
        raise KernelError(f"the kernel of {op} cannot run: {why}")
    return not why and (not slow or _forced == "kernel")


def _refusal(head_size: int, tensors: tuple[Tensor, ...]) -> str:
    """Why no kernel takes these; empty where one does."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    if head_size not in HEAD_SIZES:
        return f"heads of {head_size} channels; there are kernels for {', '.join(map(str, HEAD_SIZES))}"
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.dtype not in DTYPES:
            return f"tensors of {tensor.dtype}"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not interpreted and not all(tensor.is_cuda for tensor in tensors):
        return "tensors on a CPU, and TRITON_INTERPRET=1 is not set"
    if interpreted and _forced != "kernel":
        return "Triton's interpreter serves tests alone"
    return ""
