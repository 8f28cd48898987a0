"""Starts two processes of a training on this machine, as torchrun would, without what torchrun costs in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .processes import free_port

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
"""Environment of processes that speak to none beyond this machine and share its cores."""


def environment(rank: int, port: int) -> dict[str, str]:
    """What torchrun tells process `rank` of two."""
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        **LOOPBACK,
    }


def run_jobs(path: Path, content: dict[str, Any], timeout_s: float = 500) -> list[int]:
    """Run `rank_job` on `content`, written to `path`, in two processes; their exit codes. Neither may outlive the time."""
    path.write_text(json.dumps(content))
    port = free_port()
    command = [sys.executable, "-W", "error", "-m", "tests.rank_job", str(path)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment(rank, port), stdout=subprocess.DEVNULL)
        for rank in range(2)
    ]
    try:
        return [process.wait(timeout_s) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def errors(path: Path) -> list[str | None]:
    """What ended each job, as the main process says."""
    said: list[str | None] = json.loads(path.with_suffix(".0").read_text())
    return said
