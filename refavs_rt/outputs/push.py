"""The overlay to a server or a player, as it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from refavs_rt._ingest import Push
from refavs_rt.sink import sound_of

from .base import Facts, Output

if TYPE_CHECKING:
    from refavs_rt.result import Result


class PushOutput(Output):
    """Painted frames and the source's sound to `rtmp://`, `rtsp://`, `srt://`, `udp://` or `tcp://`.

    H.264 without delay, a key frame a second, and AAC. A receiver that is slow or lost never holds up the stream: frames are
    dropped and counted, and it is connected to again, after 0.25 s and then twice as long up to 8 s, for ever.

    Raises:
        SinkError: the URL is none.
        IngestError: the source's sound cannot be read.
    """

    def __init__(self, url: str, facts: Facts) -> None:
        self._painting = facts.painting
        source = facts.source
        file, record = sound_of(source)
        self._push = Push(
            url,
            source.width,
            source.height,
            frame_rate=source.frame_rate,
            source=file,
            record=record,
            pixel_aspect=source.pixel_aspect,
        )

    @property
    def notes(self) -> Sequence[str]:
        return self._push.notes

    @property
    def summary(self) -> str:
        counted = self._push.counters
        return f"pushed {counted['sent']} frames to {self._push.shown}, {counted['dropped']} dropped"

    @property
    def counters(self) -> Mapping[str, int]:
        """sent, dropped, reconnects."""
        return self._push.counters

    def write(self, result: Result) -> None:
        self._push.write(self._painting.of(result), result.pts_s)

    def close(self) -> None:
        self._push.close()

    def take_notices(self) -> list[tuple[float, str]]:
        return self._push.take_notices()
