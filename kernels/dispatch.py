"""Which form of an op runs: its reference in plain torch, or its Triton kernel.

The rule, the same for every op: the kernel runs where all tensors are on a CUDA device, are float32, float16 or bfloat16, and
the head size is one that the table of `launch` has rows for, which are those of the presets; the reference runs everywhere else,
and where an op says of a shape that the reference was measured to be faster. `forced` overrides it, for tests and measurements. A
kernel that runs and would have to count beyond 32 bits in one of its tensors raises a `KernelError` (`check_extents`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from . import launch as launches

Form = Literal["reference", "kernel"]

HEAD_SIZES = (16, 32, 64, 128)
"""Sizes of a head that kernels can be made for, a tile having as many columns: by force, or where the table has rows for them."""
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


def runs_kernel(op: str, kernel: str, head_size: int, *tensors: Tensor, slow: bool = False) -> bool:
    """Whether the op named `op` takes its kernel for `tensors`, which are on one device and, if floats, of one type.

    Args:
        kernel: what the table calls the op's kernel, or one of them.
        slow: whether the reference was measured to be faster at this shape.

    Raises:
        KernelError: the kernel is forced and cannot be launched.
    """
    if _forced == "reference":
        return False
    why = _refusal(head_size, tensors)
    if _forced == "kernel":
        if why:
            raise KernelError(f"the kernel of {op} cannot run: {why}")
        return True
    return not why and not slow and head_size in launches.head_sizes(kernel)


def check_extents(op: str, **numbers: int) -> None:
    """Offsets within a tensor are 32 bits wide in the kernels.

    Args:
        numbers: by the name of a tensor, how many numbers lie between the first and the last that one program counts over.

    Raises:
        KernelError: one of them is 2^31 or more.
    """
    for name, number in numbers.items():
        if number >= 2**31:
            raise KernelError(
                f"the kernel of {op} takes fewer than 2^31 numbers of {name}, not {number:,}: make the call smaller"
            )


def spanned(shape: Sequence[int], stride: Sequence[int]) -> int:
    """How many numbers lie between the first and the last of a tensor of this shape and these strides, both counted."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


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
