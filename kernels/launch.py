"""What the launch of a kernel takes: block sizes by op, card, head size and type, from one table, chosen without timing.

`configurations.json` is the table. A card without rows of its own takes those of the nearest older one.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

TABLE = Path(__file__).with_name("configurations.json")
_instead: dict[str, Launch] = {}


@dataclass(frozen=True)
class Launch:
    """How one kernel is cut into programs."""

    block_q: int
    """Rows (queries, or token positions) of a program."""
    block_k: int
    """Keys of one pass of its loop."""
    warps: int
    stages: int
    """Depth of the software pipeline of its loop."""
    splits: int = 1
    """Parts into which the keys are cut, each a program of its own; the last to arrive merges them."""

    @property
    def options(self) -> dict[str, Any]:
        """What Triton's compiler is told, ahead of time as at a launch."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


@dataclass(frozen=True)
class Compilation:
    """One kernel with all that fixes its machine code, to be compiled with no GPU."""

    name: str
    """Of the kernel and its variant, unique."""
    kernel: Any
    """The function under `triton.jit`."""
    signature: Mapping[str, str]
    """Parameter -> its Triton type ("*fp16", "i32", "fp32"), "constexpr" for a constant."""
    constants: Mapping[str, Any]
    """Constant parameter -> its value."""
    launch: Launch
    multiplies: bool
    """Whether it has `tl.dot`, whose products must use the matrix units: of 16-bit types, and of float32 as three of TF32."""


@dataclass(frozen=True)
class Cost:
    """What a form of an op must at least do, as functions of the shape have it."""

    operations: int
    """Multiplications and additions."""
    bytes: int
    """Read from and written to device memory, each tensor once where it fits the cache between uses."""
    launches: int


def launch_of(kernel: str, head_size: int, dtype: torch.dtype, device: torch.device) -> Launch:
    """The row of the table for a kernel on a device; on a CPU, in the interpreter, that of the oldest card."""
    if kernel in _instead:
        return _instead[kernel]
    capability = 0
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        capability = 10 * major + minor
    return row(kernel, head_size, dtype.itemsize * 8, capability)


@contextmanager
def launched_as(kernel: str, launch: Launch) -> Iterator[None]:
    """`kernel` is launched as `launch` says inside the block, whatever the table has; for tests and measurements."""
    before = dict(_instead)
    _instead[kernel] = launch
    try:
        yield
    finally:
        _instead.clear()
        _instead.update(before)


def row(kernel: str, head_size: int, bits: int, capability: int) -> Launch:
    """The row for compute capability `capability` (87 for 8.7), or of the nearest older card, or else of the oldest.

    Raises:
        KeyError: the table has no such kernel.
    """
    rows = table()[kernel]
    older = [known for known in rows if known <= capability]
    return rows[max(older) if older else min(rows)][head_size, bits]


@functools.cache
def table() -> dict[str, dict[int, dict[tuple[int, int], Launch]]]:
    """Kernel -> compute capability -> (head size, bits of the type) -> launch."""
    content: dict[str, dict[str, dict[str, dict[str, int]]]] = json.loads(TABLE.read_text())
    return {
        kernel: {
            int(capability): {_key(name): Launch(**values) for name, values in rows.items()}
            for capability, rows in cards.items()
        }
        for kernel, cards in content.items()
    }


def _key(name: str) -> tuple[int, int]:
    """(head size, bits) of "64x16"."""
    head_size, bits = name.split("x")
    return int(head_size), int(bits)
