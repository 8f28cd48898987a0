"""Runs checks, each in a process of its own with a time limit: none can hang, and none that crashes takes the others along."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from .check import BROKEN, MISSING, OK, Check, Finding

_AT_ONCE = 2
_CHILD = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from refavs_rt.doctor.examine import answer
answer(sys.argv[2], sys.argv[3])
"""
"""Where modules are found is as here; so -I, which leaves out the working folder, changes nothing else."""


def examine(checks: Sequence[Check]) -> Iterator[tuple[Check, Finding]]:
    """Each check with its finding, in order, as soon as it is known."""
    children = _Children()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting = [pool.submit(_ask, check, children) for check in checks]
        try:
            for check, future in zip(checks, waiting, strict=True):
                yield check, future.result()
        finally:
            children.end()


def answer(module: str, function: str) -> None:
    """In the process of a check: look, and write the finding to stdout."""
    reply = os.dup(1)
    os.dup2(2, 1)  # what native libraries print is no part of the finding
    try:
        finding = getattr(importlib.import_module(module), function)()
    except ImportError as error:
        finding = Finding(MISSING, _first_line(error))
    except Exception as error:
        finding = Finding(BROKEN, _first_line(error))
    with os.fdopen(reply, "w") as stream:
        json.dump(vars(finding), stream)
    os._exit(0)  # a library that crashes when it is let go has no part in it either


class _Children:
    """The processes that run, so that they can be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._is_over = False

    def run(self, command: Sequence[str], limit_s: float) -> tuple[int, str, str] | None:
        """Exit code, stdout and stderr; None: it was too slow, or all is over."""
        with self._lock:
            if self._is_over:
                return None
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            self._running.add(child)
        try:
            out, err = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with self._lock:
                self._running.discard(child)
            with child:  # it is waited for, and its pipes are closed
                child.kill()
        return child.returncode, out, err

    def end(self) -> None:
        with self._lock:
            self._is_over = True
            for child in self._running:
                child.kill()


def _ask(check: Check, children: _Children) -> Finding:
    words = [json.dumps(sys.path), check.look.__module__, check.look.__qualname__]
    done = children.run([sys.executable, "-I", "-c", _CHILD, *words], check.limit_s)
    if done is None:
        finding = Finding(BROKEN, f"no answer within {check.limit_s:g} s")
    elif done[0] != 0:
        finding = Finding(BROKEN, _end_of(*done))
    else:
        finding = Finding(**json.loads(done[1]))
    return (
        finding
        if finding.mend or finding.status == OK
        else Finding(finding.status, finding.found, check.mend)
    )


def _end_of(code: int, out: str, err: str) -> str:
    said = err.strip().splitlines()[-1:] or ["it says nothing"]
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"it crashes with {how}: {said[0]}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
