"""The compiled extension, built from csrc/."""

from collections.abc import Iterator
from types import TracebackType

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
    def width(self) -> int:
        """Of `image`, in pixels."""
    @property
    def height(self) -> int:
        """Of `image`, in pixels."""
    @property
    def image(self) -> NDArray[np.uint8]:
        """[H, W, 3] RGB, upright, at the source's size in coded pixels (pixels that are not square stay so).

        Converted when first asked for, without the GIL; so is `tensor`.
        """
    @property
    def tensor(self) -> NDArray[np.float32]:
        """[3, S, S], stretched and normalised: `ingest.resize_normalize` of the picture, but for its rounding to bytes."""
    def write_tensor(self, out: object) -> None:
        """Write `tensor` straight into the caller's memory, for example what is pinned for a GPU.

        Args:
            out: [3, S, S] float32 without gaps, writable: a numpy array, or what has `__dlpack__` and lies in memory that
                the CPU reaches.

        Raises:
            TypeError: neither of these.
            ValueError: another shape, type or layout, or read-only.
        """
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
        source: str,
        *,
        is_file: bool = False,
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
    def path(self) -> str:
        """The source as it was named, without secrets."""
    @property
    def is_file(self) -> bool: ...
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

class LiveIngest:
    """A camera and a microphone, open: an iterator over frames, of which slow callers get the newest; see
    `refavs_rt.ingest.open_live`."""

    def __init__(
        self,
        camera: str,
        *,
        size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        microphone: str = "auto",
        audio_offset_s: float = 0.0,
        max_frames: int | None = None,
        duration_s: float | None = None,
        latency_s: float = 0.2,
        silence_s: float = 5.0,
        decode_threads: int = 0,
        hwaccel: str = "",
        camera_size: str = "",
        camera_rate: float = 0.0,
    ) -> None: ...
    def __iter__(self) -> Iterator[Frame]: ...
    def __next__(self) -> Frame:
        """The next frame, or the newest; waits while there is none, also while the source is lost. Ends with the camera.

        Raises:
            IngestError: the camera failed in a way that opening it again cannot mend.
        """
    def read(self, timeout_s: float) -> Frame | None:
        """As `next`, but None where no frame comes within `timeout_s`.

        Raises:
            StopIteration: the camera has ended.
            IngestError: as `next`.
        """
    def close(self) -> None:
        """Let go of everything, within a second. May be called again, and from another thread; iteration ends."""
    def __enter__(self) -> LiveIngest: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    @property
    def path(self) -> str:
        """The camera's address, without user and password."""
    @property
    def size(self) -> int: ...
    @property
    def width(self) -> int:
        """Of the upright picture, in pixels; a source that changes its size is scaled to its first."""
    @property
    def height(self) -> int: ...
    @property
    def frame_rate(self) -> float:
        """What the camera says; 0.0 where it does not."""
    @property
    def pixel_aspect(self) -> tuple[int, int]: ...
    @property
    def has_audio(self) -> bool:
        """Whether sound can come."""
    @property
    def video_codec(self) -> str | None: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def now_s(self) -> float:
        """The stream's clock: `now_s - Frame.pts_s` is how long ago a frame was captured."""
    @property
    def origin_s(self) -> float:
        """What `time.monotonic()` was when the stream's clock read 0."""
    @property
    def counters(self) -> dict[str, float]:
        """decoded, delivered, dropped (replaced by a newer picture before they were asked for), late (packets skipped because
        decoding was too slow), corrupt (pictures), corrupt_audio, reconnects, clock_jumps (of a source's timestamps),
        repaired_pts, sound_late (frames whose sound had not come within the latency), queue_depth, audio_gap_samples and
        audio_overlap_samples (16 kHz), camera_drift_ppm and sound_drift_ppm (how much faster than ours a device's clock runs),
        sound_error_s (between where sound belongs and where it is), so far."""
    def take_notices(self) -> list[tuple[float, str]]:
        """What has happened since the last call: (on the stream's clock, one line)."""
    def record_sound(self) -> SoundRecord:
        """The sound from when this is first called on, 48 kHz stereo, for `OverlayWriter` and `Push`."""

class SoundRecord:
    """The last 20 seconds of a live source's sound, on its clock."""

class SoundTrack:
    """Live sound in pieces on one clock, for those who read it themselves: windows as `Frame` has them.

    A sound card's clock runs at its own rate: the distance between where a piece belongs and where it falls is steered to
    zero by resampling, up to 2000 ppm. A distance above 50 ms is a hole, which is missing, or sound that comes twice, which is
    left out; in the first half minute, while the clock is read ever better, so is one above 8 ms. What is older than 10 s
    is forgotten.
    """

    def push(self, samples: NDArray[np.float32], rate_hz: int, at_s: float) -> None:
        """Add mono samples [n], the first of which was heard at `at_s` seconds.

        Raises:
            ValueError: another shape or dtype, or a rate that is none.
        """
    def window(self, at_s: float) -> tuple[NDArray[np.float32], NDArray[np.float32], float, int]:
        """The window that ends at the last 10 ms hop at or before `at_s`.

        Windows before one that was asked for cannot be asked for any more.

        Returns:
            samples [15600] at 16 kHz, log-mel [96, 64], where the window ends in seconds, and how many of its samples are
            missing (those are zeros).

        Raises:
            ValueError: a time before 0.
        """
    @property
    def drift_ppm(self) -> float:
        """How much faster than the clock of `at_s` the samples come, as far as it is made up for."""
    @property
    def error_s(self) -> float:
        """Between where the last piece belongs and where it fell."""

class DeviceClock:
    """The clock of a live source on the monotonic one, read off by when its packets come.

    A packet never comes before its time, so the least of (arrival - time) in each second is the offset between the clocks,
    and its slope their drift, fitted once there are ten seconds of it.
    """

    def observe(self, pts_s: float, now_s: float) -> bool:
        """A packet with this time came at `now_s`. True: the source's clock has jumped, and is read anew."""
    def map(self, pts_s: float) -> float:
        """The source's time on the monotonic clock."""
    @property
    def drift_ppm(self) -> float:
        """How much faster than ours the source's clock runs."""

def list_devices() -> list[tuple[str, str, str]]:
    """Cameras, microphones and screens: (medium, address, name)."""

class StreamingLogMel:
    """VGGish log-mel frames of samples that come in pieces; the pieces' lengths do not matter."""

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The frames [n, 64] that these samples [m] complete."""

def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """VGGish log-mel frames of 16 kHz mono samples [n]: [1 + (n - 400) // 160, 64], none for fewer than 400."""

class JpegEncoder:
    """Pictures as JPEG, by libavcodec. For one thread at a time."""

    def __init__(self, quality: int = 85) -> None:
        """Raises ValueError for a quality that is not 1 to 100."""
    def encode(self, image: NDArray[np.uint8]) -> bytes:
        """[H, W, 3] uint8 RGB as a JPEG file, 4:2:0, without the GIL.

        Raises:
            ValueError: another shape or dtype.
            IngestError: it is larger than 16,383 pixels on a side, or FFmpeg has no encoder.
        """

class GuidedUpsampler:
    """Masks of pictures of one size, with their edges where the picture has them. For one thread at a time."""

    def __init__(self, width: int, height: int, low: int, radius: int, epsilon: float) -> None:
        """Args: the pictures' size, the side of the small picture, the radius of a window in it, and how much the squares of the
        fit's slopes, per unit of colour, weigh against the fit."""
    def run(
        self,
        masks: NDArray[np.float32],
        tensor: NDArray[np.float32],
        image: NDArray[np.uint8],
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        threshold: float,
    ) -> NDArray[np.bool_]:
        """[n, H, W]: where masks [n, low, low] in [0, 1], fitted to a small picture and applied to the picture [H, W, 3] uint8
        RGB, are above the threshold; without the GIL. The small picture is made of [3, S, S], normalised by mean and std, with
        S a multiple of low.

        Raises:
            ValueError: another shape or dtype.
        """

def paint_mask(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    colour: tuple[int, int, int],
    *,
    opacity: int,
    outline: int,
) -> None:
    """Paint a mask [H, W] into an image [H, W, 3] itself: a fill of `opacity` 256ths, and `outline` pixels inwards from the
    mask's edge in full colour; without the GIL.

    Raises:
        ValueError: another shape, type or layout, or an image that cannot be written to.
    """

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
        record: SoundRecord | None = None,
        pixel_aspect: tuple[int, int] = (1, 1),
    ) -> None: ...
    def write(self, image: NDArray[np.uint8], pts_s: float) -> None: ...
    def close(self) -> None: ...
    def abort(self, keep: bool = False) -> None: ...
    @property
    def encoder(self) -> str: ...
    @property
    def sound(self) -> str: ...
    @property
    def part(self) -> str: ...
    @property
    def notes(self) -> list[str]: ...

class Push:
    """Pictures and a source's sound to a server or a player. See `refavs_rt.outputs.push.PushOutput`."""

    def __init__(
        self,
        url: str,
        width: int,
        height: int,
        *,
        frame_rate: float,
        source: str | None = None,
        record: SoundRecord | None = None,
        pixel_aspect: tuple[int, int] = (1, 1),
    ) -> None:
        """
        Raises:
            SinkError: the URL is none, or nothing can be encoded.
            IngestError: `source` cannot be read.
        """
    def write(self, image: NDArray[np.uint8], pts_s: float) -> bool:
        """Add one picture [H, W, 3] uint8 RGB; never waits. False: it was dropped.

        Raises:
            SinkError: times do not rise.
            ValueError: another shape or dtype.
        """
    def close(self) -> None:
        """Send what waits, as far as the receiver takes it; ends within a second."""
    def take_notices(self) -> list[tuple[float, str]]:
        """What has happened since the last call: (the last picture's time, one line)."""
    @property
    def counters(self) -> dict[str, int]:
        """Pictures sent, dropped (without room or a receiver), and reconnects, so far."""
    @property
    def shown(self) -> str:
        """The URL without user, password, query and the key of an RTMP path."""
    @property
    def notes(self) -> list[str]: ...

def ffmpeg_version() -> str:
    """Version of the FFmpeg libraries in use."""
