"""Overlay pictures to H.264 in MP4 with the source's sound, written by the compiled extension `refavs_rt._ingest`."""

from __future__ import annotations

import os
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from .ingest import Ingest, LiveIngest  # first: it says what to do where the extension is missing

from ._ingest import Sink, SinkError  # isort: skip

__all__ = ["OverlayWriter", "SinkError"]


class OverlayWriter:
    """Writes pictures at their own times into an MP4 file, beside the sound of the source they come from.

    H.264 by libx264, else by another encoder that opens, else MPEG-4 part 2 with a note. An odd width or height grows by
    one pixel that repeats the edge. Sound is copied packet by packet where MP4 can hold its codec, else encoded as AAC,
    and ends with the pictures. The file appears under its name when it is complete; after an error nothing is left.

    Use it in a `with` block, or end with `close()` or `abort()`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        *,
        frame_rate: float = 25.0,
        source: str | os.PathLike[str] | None = None,
        pixel_aspect: tuple[int, int] = (1, 1),
    ) -> None:
        """Open the file and start the encoder.

        Args:
            path: ends in .mp4, .m4v or .mov.
            width: of the pictures, in pixels.
            height: of the pictures, in pixels.
            frame_rate: what to expect; it sets the last picture's duration and the distance of key frames.
            source: the file whose sound is taken along.
            pixel_aspect: width : height of one pixel.

        Raises:
            SinkError: the file cannot be written.
            IngestError: `source` cannot be read.
        """
        self._sink = Sink(
            os.fspath(path),
            width,
            height,
            frame_rate=frame_rate,
            source=None if source is None else os.fspath(source),
            pixel_aspect=pixel_aspect,
        )

    @classmethod
    def beside(cls, path: str | os.PathLike[str], source: Ingest | LiveIngest) -> OverlayWriter:
        """A writer for pictures of an open source: its size, frame rate, pixel aspect and, of a file, its sound."""
        return cls(
            path,
            source.width,
            source.height,
            frame_rate=source.frame_rate,
            source=source.path if isinstance(source, Ingest) and source.is_file else None,
            pixel_aspect=source.pixel_aspect,
        )

    def write(self, image: NDArray[np.uint8], pts_s: float) -> None:
        """Add one picture [H, W, 3] uint8 RGB at `pts_s` on the source's clock; waits where the encoder is slow.

        Raises:
            SinkError: times do not rise, the disk is full, or the file is closed.
            ValueError: another shape or dtype.
        """
        self._sink.write(image, pts_s)

    def close(self) -> None:
        """Finish the file and give it its name. Raises SinkError if it cannot be completed."""
        self._sink.close()

    def abort(self) -> None:
        """Give up and leave nothing behind."""
        self._sink.abort()

    @property
    def encoder(self) -> str:
        """The video encoder in use, for example libx264."""
        return self._sink.encoder

    @property
    def sound(self) -> str:
        """What happens to the source's sound: "copied", "encoded", or "none"."""
        return self._sink.sound

    @property
    def notes(self) -> list[str]:
        """What the user should know, one line each."""
        return self._sink.notes

    def __enter__(self) -> OverlayWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
