"""What the launch of a kernel takes: block sizes by op, card, head size and type, from one table, chosen without timing.

`configurations.json` is the table. It has the head sizes that a preset has, and a card without rows of its own takes those of the
nearest older one.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

TABLE = Path(__file__).with_name("configurations.json")
MOST_FLOAT32_ROWS = 32
"""Of a product in float32. With 64 one configuration of a backward pass read outside memory on an H200 (Triton 3.6)."""
_KEYS_ARE_ROWS = ("prompt_dkv", "masked_attention_dkv")
"""Kernels whose products have a row for each key, where those of all others have one for each query or position."""
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


OTHER_SIZES = Launch(block_q=32, block_k=32, warps=4, stages=1)
"""For heads of a size that the table does not have. Only a kernel that is forced meets it: nobody has timed it."""


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
    entry: tuple[str, int, int] | None = None
    """Kernel, head size and bits of the row that it is launched by; None where it takes no row."""


@dataclass(frozen=True)
class Cost:
    """What a form of an op must at least do, as functions of the shape have it."""

    operations: int
    """Multiplications and additions."""
    bytes: int
    """Read from and written to device memory, each tensor once where it fits the cache between uses."""
    launches: int


def start(kernel: Any, grid: Sequence[int], on: torch.Tensor, *arguments: Any, **constants: Any) -> None:
    """Launch a kernel on the device of the tensor `on`, which need not be the current one."""
    with torch.cuda.device_of(on):
        kernel[tuple(grid)](*arguments, **constants)


def launch_of(kernel: str, head_size: int, dtype: torch.dtype, device: torch.device) -> Launch:
    """The row of the table for a kernel on a device."""
    if kernel in _instead:
        return _instead[kernel]
    return row(kernel, head_size, dtype.itemsize * 8, capability_of(device))


def capability_of(device: torch.device) -> int:
    """87 for compute capability 8.7; 0, older than any card, for a CPU, where the interpreter runs."""
    if device.type != "cuda":
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def processors_of(device: torch.device) -> int | None:
    """How many multiprocessors a device has; None for a CPU."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


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
    """The row for compute capability `capability`, or of the nearest older card, or else of the oldest; `OTHER_SIZES` for heads
    of a size that the table does not have.

    Raises:
        KeyError: the table has no such kernel.
    """
    rows = table()[kernel]
    older = [known for known in rows if known <= capability]
    return rows[max(older) if older else min(rows)].get((head_size, bits), OTHER_SIZES)


def head_sizes(kernel: str) -> tuple[int, ...]:
    """Those that the table has rows of a kernel for."""
    return tuple(dict.fromkeys(head_size for head_size, _ in next(iter(table()[kernel].values()))))


def product_rows(kernel: str, launch: Launch) -> int:
    """Rows of the tiles that a kernel multiplies, which is M of its `tl.dot`; see `MOST_FLOAT32_ROWS`."""
    return launch.block_k if kernel in _KEYS_ARE_ROWS else launch.block_q


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
