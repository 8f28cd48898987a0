"""Results as a file of JSON lines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from refavs_rt.jsonl import write_line
from refavs_rt.sink import SinkError

from .base import Output

if TYPE_CHECKING:
    from refavs_rt.result import Result


STDOUT = Path("-")


class RecordsOutput(Output):
    """A line a frame, see `refavs_rt.jsonl`, given to the system at once: a killed process loses its last line at most.

    Args:
        path: of the file, which is begun anew; `STDOUT` for the next program of a pipe.

    Raises:
        SinkError: a line cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = sys.stdout if path == STDOUT else open(path, "w", encoding="utf-8")

    @property
    def summary(self) -> str:
        return "" if self._path == STDOUT else f"wrote {self._path}"

    @property
    def fields(self) -> Mapping[str, str]:
        return {"path": str(self._path)}

    def write(self, result: Result) -> None:
        with self._named_errors():
            write_line(self._file, result)
            self._file.flush()

    def close(self) -> None:
        if self._path != STDOUT:
            with self._named_errors():
                self._file.close()

    def abort(self) -> None:
        with contextlib.suppress(SinkError):  # what went wrong is known
            self.close()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # who read stdout has gone, which is no mistake
            raise
        except OSError as error:
            raise SinkError(f"{self._path}: cannot be written ({error.strerror}); check the disk") from error
