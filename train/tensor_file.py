"""Writing tensors by name in the format of safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` with the permissions that any new file has here: the library's own are the owner's alone.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file({name: _plain(value) for name, value in tensors.items()}, path)
    path.chmod(mode)


def _plain(value: Tensor) -> Tensor:
    """On the CPU, in one order of axes, with memory of its own, as the format asks."""
    return value.detach().cpu().contiguous().clone()
