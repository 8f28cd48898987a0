"""Checks of the processor, the GPU and the room there is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .check import BROKEN, MISSING, OK, Finding

_VECTORS = {"avx2": "AVX2", "asimd": "NEON"}
_DOT_PRODUCTS = {
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX VNNI",
    "asimddp": "dot products",
    "i8mm": "int8 products",
}
"""The kernel's names of what the engine uses, x86 and ARM -> people's."""
_LEAST_DISK_GB, _LEAST_SHM_GB = 2.0, 0.25


def cpu() -> Finding:
    flags = _cpu_flags()
    vectors = [name for flag, name in _VECTORS.items() if flag in flags]
    dots = [name for flag, name in _DOT_PRODUCTS.items() if flag in flags]
    found = f"{len(os.sched_getaffinity(0))} cores, {', '.join([*vectors, *dots]) or 'plain'}"
    if not vectors:
        return Finding(MISSING, found, "nothing to install: this processor has no AVX2, and is slow")
    if not dots:
        return Finding(MISSING, found, "nothing to install: without VNNI int8 bundles are no faster")
    return Finding(OK, found)


def gpu() -> Finding:
    from ..engines.base import EngineError
    from ..engines.cuda import Cuda

    try:
        cuda = Cuda()
    except EngineError as error:
        driver = Path("/dev/nvidiactl").exists() or Path("/dev/nvhost-gpu").exists()
        return Finding(BROKEN if driver else MISSING, str(error).partition(";")[0])
    return Finding(OK, f"{cuda.name} (sm{cuda.capability})")


def disk() -> Finding:
    """Of the working folder, where results go."""
    return _room(Path.cwd(), _LEAST_DISK_GB)


def shared_memory() -> Finding:
    return _room(Path("/dev/shm"), _LEAST_SHM_GB)


def _room(folder: Path, least_gb: float) -> Finding:
    try:
        free_gb = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        return Finding(MISSING, f"{folder}: {error.strerror}")
    status = OK if free_gb >= least_gb else MISSING
    return Finding(status, f"{free_gb:.1f} GB free in {folder}")


def _cpu_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()
