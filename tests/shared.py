"""What takes long to make and all processes of a test run need: the first that asks makes it, the others read it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

VARIABLE = "REFAVS_TESTS_SHARED"
"""Environment variable with the folder of the run; conftest.py sets it where there are several processes."""


def shared(name: str, make: Callable[[], Mapping[str, bytes]]) -> dict[str, bytes]:
    """File name -> bytes, as `make` returns them, called in one process of the run alone."""
    if VARIABLE not in os.environ:
        return dict(make())
    folder = Path(os.environ[VARIABLE], name)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _write(folder, make())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """All of them or none: what a process that was killed left behind does not count."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for name, data in files.items():
        (part / name).write_bytes(data)
    part.rename(folder)
