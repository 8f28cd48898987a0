"""The overlay as an MP4 file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from refavs_rt.sink import OverlayWriter

from .base import Facts, Output

if TYPE_CHECKING:
    from refavs_rt.result import Result


class OverlayOutput(Output):
    """Painted frames beside the source's sound, see `OverlayWriter`; an aborted run leaves `NAME.part.mp4`.

    Raises:
        SinkError: the file cannot be written.
        IngestError: the source's sound cannot be read.
    """

    def __init__(self, path: Path, facts: Facts) -> None:
        self._path = path
        self._painting = facts.painting
        self._writer = OverlayWriter.beside(path, facts.source)

    @property
    def notes(self) -> Sequence[str]:
        return self._writer.notes

    @property
    def details(self) -> str:
        return f"overlay encoded by {self._writer.encoder}, sound {self._writer.sound}"

    @property
    def summary(self) -> str:
        return f"wrote {self._path}"

    @property
    def fields(self) -> Mapping[str, str]:
        return {"path": str(self._path)}

    def write(self, result: Result) -> None:
        self._writer.write(self._painting.of(result), result.pts_s)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.abort(keep=True)
