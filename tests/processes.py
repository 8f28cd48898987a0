"""Programs that tests run beside themselves, and ports for them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def free_port() -> int:
    """One of the loopback device that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], *, stdout: int = subprocess.DEVNULL, **more: Any
) -> Iterator[subprocess.Popen[str]]:
    """A program, killed at the end; `more` is for Popen."""
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL, text=True, **more) as process:
        try:
            yield process
        finally:
            process.kill()
