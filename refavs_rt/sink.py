"""Overlay pictures to H.264 in MP4 with the source's sound, written by the compiled extension `refavs_rt._ingest`."""

from __future__ import annotations

import os
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from .ingest import Ingest, LiveIngest  # first: it says what to do where the extension is missing

from ._ingest import Sink, SinkError, SoundRecord  # isort: skip

__all__ = ["OverlayWriter", "SinkError", "SoundRecord", "sound_of"]


class OverlayWriter:
    """Writes pictures at their own times into an MP4 file, beside the sound of the source they come from.

    H.264 by libx264, else by another encoder that opens, else MPEG-4 part 2 with a note. An odd width or height grows by
    one pixel that repeats the edge. A file's sound is copied packet by packet where MP4 can hold its codec, else encoded as
    AAC; a live source's is encoded, with silence where there is none. It ends with the pictures.

    The file appears under its name when it is complete. Until then it is `NAME.part.mp4` beside it, a fragmented MP4 that a
    process which is killed leaves playable up to its last second or two.

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
        record: SoundRecord | None = None,
        pixel_aspect: tuple[int, int] = (1, 1),
    ) -> None:
        """Open the file and start the encoder.

        Args:
            path: ends in .mp4, .m4v or .mov.
            width: of the pictures, in pixels.
            height: of the pictures, in pixels.
            frame_rate: what to expect; it sets the last picture's duration and the distance of key frames.
            source: the file whose sound is taken along.
            record: or the sound of a live source (`LiveIngest.record_sound`).
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
            record=record,
            pixel_aspect=pixel_aspect,
        )

    @classmethod
    def beside(cls, path: str | os.PathLike[str], source: Ingest | LiveIngest) -> OverlayWriter:
        """A writer for pictures of an open source: its size, frame rate, pixel aspect and sound."""
        file, record = sound_of(source)
        return cls(
            path,
            source.width,
            source.height,
            frame_rate=source.frame_rate,
            source=file,
            record=record,
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
        """Finish the file and give it its name. Raises SinkError if it cannot be completed; what was written stays as a part."""
        self._sink.close()

    def abort(self, *, keep: bool = False) -> None:
        """Give up. What was written stays as a part if it is to be kept, or if the disk was at fault; else nothing does."""
        self._sink.abort(keep)

    @property
    def part(self) -> str:
        """Where it is written until it is closed."""
        return self._sink.part

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


def sound_of(source: Ingest | LiveIngest) -> tuple[str | None, SoundRecord | None]:
    """Where an open source's sound is found: in a file, or in a record that begins now, or nowhere."""
    if isinstance(source, LiveIngest):
        return None, source.record_sound() if source.has_audio else None
    return source.path if source.is_file else None, None
