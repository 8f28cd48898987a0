"""`make bench-full`: every benchmark, those of the preset `full` too, in the background; figures are kept as they come.

    python -m benchmarks.full [pytest's arguments]

It takes the better part of an hour. What is written is shown while it goes on; an interrupt ends the showing alone, and the same
command shows it again. One that was cut off goes on after the last benchmark that the commit has figures of.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.results import ROOT

LOG = ROOT / "build" / "bench-full.log"
PID = ROOT / "build" / "bench-full.pid"
_PERIOD_S = 0.5


def main(arguments: Sequence[str]) -> int:
    """Start it where none runs, and show what it writes; returns its exit code, 130 where the showing was interrupted."""
    LOG.parent.mkdir(exist_ok=True)
    pid = _running()
    process = None
    if pid is None:
        process = start([*_pytest(), *arguments], LOG)
        pid = process.pid
        PID.write_text(str(pid))
    print(
        f"process {pid}, also in {LOG.relative_to(ROOT)}; an interrupt stops showing it, and not the benchmarks"
    )
    try:
        for text in follow(LOG, lambda: process.poll() is None if process else _running() == pid):
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        print(f"\nthey go on; end them with: kill {pid}")
        return 130
    PID.unlink(missing_ok=True)
    return process.returncode if process else 0


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, which no interrupt of this terminal reaches."""
    with log.open("w") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)


def follow(log: Path, goes_on: Callable[[], bool]) -> Iterator[str]:
    """What is in a file, and what comes into it for as long as its writer goes on."""
    with log.open(errors="replace") as file:
        while True:
            last = not goes_on()
            if text := file.read():
                yield text
            if last:
                return
            time.sleep(_PERIOD_S)


def _pytest() -> list[str]:
    return [
        sys.executable,
        *("-u", "-m", "pytest", "benchmarks", "--benchmark-only", "-m", "not kernels_all", "--save-results"),
        "-v",
    ]


def _running() -> int | None:
    """The process of a run that goes on."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(PID.read_text())
        os.kill(pid, 0)
        if b"--save-results" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
