"""What the commands say while they run, through Python's logging: lines for people, or JSON for machines.

Loggers bear the names of their modules, `refavs_rt.*`. As text, results go to stdout (but see `leave_stdout`) and all else
to stderr. As JSON, every line goes to stderr and is one object: `time` (UTC, ISO 8601), `level`, `logger`, `message`, and what
else is known of it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

FORMATS = ("text", "json")
NOTICE = (logging.INFO + logging.WARNING) // 2
"""What is said without -v: results, progress, notes, and what happens to a live source. -v adds INFO, -vv DEBUG."""

_OURS = "refavs_rt"
_LEVELS = (NOTICE, logging.INFO, logging.DEBUG)
_TERMINAL_PERIOD_S, _LOG_PERIOD_S = 0.2, 5.0


@contextlib.contextmanager
def to_stderr(verbosity: int = 0, form: str = "text") -> Iterator[None]:
    """Say what is logged and warned of within.

    Args:
        verbosity: how often -v was given.
        form: one of `FORMATS`.
    """
    handler = _JsonHandler() if form == "json" else _TextHandler()
    root, ours = logging.getLogger(), logging.getLogger(_OURS)
    level_before = ours.level
    ours.setLevel(_LEVELS[min(verbosity, len(_LEVELS) - 1)])
    root.addHandler(handler)  # at the root, for what other packages have to say
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _log_warning
            yield
    finally:
        root.removeHandler(handler)
        ours.setLevel(level_before)
        handler.close()


def leave_stdout() -> None:
    """From here to the end of `to_stderr` results go to stderr too: something else is written to stdout."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _TextHandler):
            handler.results_to_stdout = False


def result(logger: logging.Logger, text: str, **fields: Any) -> None:
    """What was asked for: as text on stdout."""
    _say(logger, "result", text, fields)


def note(logger: logging.Logger, text: str) -> None:
    """What the user should know."""
    _say(logger, "note", text, {})


def event(logger: logging.Logger, at_s: float, text: str) -> None:
    """What happened to a live source, and when on its clock."""
    _say(logger, "event", text, {"at_s": round(at_s, 3)})


def progress(logger: logging.Logger, text: str, **fields: Any) -> None:
    """How far it is. On a terminal each such line takes the place of the last one."""
    _say(logger, "progress", text, fields)


class Pace:
    """How often progress is worth a line: on a terminal several times a second, in a log now and then."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time again; if so, the time until the next begins."""
        now_s = time.monotonic()
        if now_s - self._last_s < (_TERMINAL_PERIOD_S if _is_rewritten() else _LOG_PERIOD_S):
            return False
        self._last_s = now_s
        return True


def _say(logger: logging.Logger, kind: str, text: str, fields: dict[str, Any]) -> None:
    logger.log(NOTICE, text, extra={"kind": kind, "fields": fields})


def _is_rewritten() -> bool:
    is_text = any(isinstance(handler, _TextHandler) for handler in logging.getLogger().handlers)
    return is_text and sys.stderr.isatty()


class _TextHandler(logging.Handler):
    """For people. What stdout or stderr refuses is raised, as `print` does it."""

    def __init__(self) -> None:
        super().__init__()
        self.results_to_stdout = True
        self._is_open = False
        """Whether the cursor stands at the end of a line of progress."""

    def emit(self, record: logging.LogRecord) -> None:
        text, kind = record.getMessage(), getattr(record, "kind", "")
        if kind == "result":
            self._end_line()
            print(text, file=sys.stdout if self.results_to_stdout else sys.stderr, flush=True)
            return
        if kind == "progress" and sys.stderr.isatty():
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
            self._is_open = True
            return
        line = _prefix(record, kind) + text
        print(f"\r{line}\x1b[K" if self._is_open else line, file=sys.stderr, flush=True)
        self._is_open = False

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # stderr has been closed
            self._end_line()
        super().close()

    def _end_line(self) -> None:
        if self._is_open:
            print(file=sys.stderr, flush=True)
        self._is_open = False


class _JsonHandler(logging.Handler):
    """For machines."""

    def emit(self, record: logging.LogRecord) -> None:
        time_utc = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        line = {
            "time": time_utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": _level(record),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = logging.Formatter().formatException(record.exc_info)
        print(json.dumps(line, ensure_ascii=False, default=str), file=sys.stderr, flush=True)


def _prefix(record: logging.LogRecord, kind: str) -> str:
    if kind == "event":
        return f"{record.fields['at_s']:.1f} s: "  # type: ignore[attr-defined] # of `event`
    if kind == "note":
        return "note: "
    return "" if record.levelno == NOTICE else f"{_level(record)}: "


def _level(record: logging.LogRecord) -> str:
    return "notice" if record.levelno == NOTICE else record.levelname.lower()


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """`warnings.showwarning`: what, and not where in the code."""
    logging.getLogger(f"{_OURS}.warnings").warning("%s", message)
