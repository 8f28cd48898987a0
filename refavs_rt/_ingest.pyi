"""The compiled extension, built from csrc/."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

class IngestError(RuntimeError):
    """A source cannot be read; the text names it and the mend."""

class SinkError(RuntimeError):
    """An output cannot be written; the text names it and the mend."""

class Frame:
    """One picture of a source with the sound that ends at it."""

    @property
    def index(self) -> int:
        """0, 1, 2, ... as delivered."""
    @property
    def pts_s(self) -> float:
        """Time on the source's clock, which reads 0 where the earlier of picture and sound begins."""
    @property
    def image(self) -> NDArray[np.uint8]:
        """[H, W, 3] RGB, upright, at the source's size in coded pixels (pixels that are not square stay so)."""
    @property
    def tensor(self) -> NDArray[np.float32]:
        """[3, S, S], stretched and normalised."""
    @property
    def samples(self) -> NDArray[np.float32] | None:
        """[15600], the window's sound at 16 kHz, mono; None where the source has no sound."""
    @property
    def log_mel(self) -> NDArray[np.float32] | None:
        """[96, 64] of the window that ends at `audio_end_s`; None where the source has no sound."""
    @property
    def audio_end_s(self) -> float | None:
        """The last multiple of 10 ms at or before `pts_s` (plus the offset asked for); None where there is no sound."""
    @property
    def audio_missing_samples(self) -> int:
        """Of the window's 15,600 samples, those that the source has no sound for; they are zeros."""

class Ingest:
    """An open source: an iterator over its frames. Reads and decodes in its own threads, without the GIL."""

    def __init__(
        self,
        path: str,
        *,
        size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        audio_offset_s: float = 0.0,
        max_frames: int | None = None,
        duration_s: float | None = None,
        decode_threads: int = 0,
    ) -> None: ...
    def __iter__(self) -> Iterator[Frame]: ...
    def __next__(self) -> Frame: ...
    def close(self) -> None:
        """Stop and let go of the file. May be called again; iteration ends."""
    def __enter__(self) -> Ingest: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def width(self) -> int:
        """Of the upright picture, in pixels."""
    @property
    def height(self) -> int:
        """Of the upright picture, in pixels."""
    @property
    def frame_rate(self) -> float:
        """Average frames a second; 0.0 where the file does not tell."""
    @property
    def duration_s(self) -> float | None:
        """What the container says, None where it does not."""
    @property
    def pixel_aspect(self) -> tuple[int, int]:
        """Width : height of one pixel of the upright picture."""
    @property
    def has_video(self) -> bool: ...
    @property
    def has_audio(self) -> bool:
        """Whether frames come with sound. A track that cannot be decoded does not count; `notes` tells."""
    @property
    def video_codec(self) -> str | None: ...
    @property
    def audio_codec(self) -> str | None: ...
    @property
    def notes(self) -> list[str]:
        """What the user should know, one line each."""
    @property
    def counters(self) -> dict[str, int]:
        """decoded, delivered, corrupt (pictures), corrupt_audio, read_errors, missing_pictures (announced by the
        container beyond its end), repaired_pts, audio_gap_samples (16 kHz), audio_overlap_samples (at the source's rate),
        so far."""

class StreamingLogMel:
    """VGGish log-mel frames of samples that come in pieces; the pieces' lengths do not matter."""

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The frames [n, 64] that these samples [m] complete."""

def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """VGGish log-mel frames of 16 kHz mono samples [n]: [1 + (n - 400) // 160, 64], none for fewer than 400."""

def resize_normalize(
    image: NDArray[np.uint8],
    size: int,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> NDArray[np.float32]:
    """See `refavs_rt.ingest.resize_normalize`."""

class Sink:
    """See `refavs_rt.sink.OverlayWriter`."""

    def __init__(
        self,
        path: str,
        width: int,
        height: int,
        *,
        frame_rate: float,
        source: str | None = None,
        pixel_aspect: tuple[int, int] = (1, 1),
    ) -> None: ...
    def write(self, image: NDArray[np.uint8], pts_s: float) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def __enter__(self) -> Sink: ...
    def __exit__(self, *args: Any) -> None: ...
    @property
    def encoder(self) -> str: ...
    @property
    def sound(self) -> str: ...
    @property
    def notes(self) -> list[str]: ...

def ffmpeg_version() -> str:
    """Version of the FFmpeg libraries in use."""
