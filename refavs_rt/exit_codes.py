"""Exit codes of the command line."""

from __future__ import annotations

import signal

DONE = 0
ERROR = 1
USAGE = 2
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM

MEANINGS = {
    DONE: "done",
    ERROR: "an input, an output or this machine does not allow it; stderr says what, and the mend",
    USAGE: "the command line is not understood",
    INTERRUPTED: "stopped by Ctrl-C (SIGINT); what `stream` writes is finished",
    TERMINATED: "stopped by SIGTERM, likewise",
}


def table() -> str:
    """The codes and their meanings, a line each."""
    return "\n".join(f"  {code:<5}{meaning}" for code, meaning in MEANINGS.items())
