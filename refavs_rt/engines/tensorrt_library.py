"""The two TensorRT libraries, found at run time: `tensorrt` (Jetson, data centre) and `tensorrt_rtx` (PCs).

Both have one Python interface as far as this project uses it. Neither is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from .base import EngineError

LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""Module names, in the order in which they are taken."""


class LibraryMissing(EngineError):  # noqa: N818 # a state of the machine, as its users read it
    """A TensorRT library that is not here, or does not load; the message says what to install."""


@dataclass(frozen=True)
class Library:
    """A TensorRT library that was imported."""

    name: str
    """"tensorrt" or "tensorrt_rtx"."""
    module: Any
    version: str


def installed() -> list[str]:
    """Names of the libraries that are installed, without importing them."""
    return [name for name in LIBRARIES if importlib.util.find_spec(name) is not None]


def find_library(name: str | None = None) -> Library:
    """Import a library.

    Args:
        name: one of `LIBRARIES`; None takes the first that is installed.

    Raises:
        LibraryMissing: it is not installed, or does not load.
    """
    if name is not None and name not in LIBRARIES:
        raise LibraryMissing(f"no TensorRT library {name!r}; there are: {', '.join(LIBRARIES)}")
    available = installed()
    chosen = name if name is not None else next(iter(available), None)
    if chosen is None or chosen not in available:
        raise LibraryMissing(_missing(name))
    try:
        module = importlib.import_module(chosen)
        version = str(module.__version__)
    except (
        Exception
    ) as error:  # whatever a half installed library raises, a missing libnvinfer as ImportError or OSError
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LibraryMissing(
            f"{chosen} is installed and does not load ({reason}); install it again, or for PCs: pip install 'refavs-rt[trt]'"
        ) from error
    return Library(chosen, module, version)


def CollectingLogger(trt: Any) -> Any:  # noqa: N802 # makes an object of a class that only the library can derive
    """A logger for TensorRT that prints nothing.

    Args:
        trt: the library's module.

    Returns:
        An object of a class derived from `trt.ILogger` with `warnings`, a list of messages, each once, in order, and
        `last_error`, the newest error or an empty string.
    """

    class Collecting(trt.ILogger):  # type: ignore[misc] # the library's own class
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.warnings: list[str] = []
            self.last_error = ""

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last_error = msg
            elif severity == trt.ILogger.WARNING and msg not in self.warnings:
                self.warnings.append(msg)

    return Collecting()


def _missing(name: str | None) -> str:
    if name == "tensorrt":
        return "tensorrt is not installed: on a Jetson it comes with JetPack, elsewhere: pip install tensorrt"
    what = "tensorrt_rtx is not installed" if name else "no TensorRT library is installed"
    return f"{what}; for PCs: pip install 'refavs-rt[trt]' (on a Jetson tensorrt comes with JetPack)"
