"""Files into frames and sound, against the ffmpeg tool, ffprobe, and samples that are known beforehand."""

from __future__ import annotations

import os
import signal
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt.ingest import Frame, Ingest, IngestError, log_mel, open_source

from .clips import big_buck_bunny, decode_mono, decode_rgb, ffmpeg, probe, probe_pts, sweep, test_pattern

pytestmark = pytest.mark.media
WINDOW = 15_600


def read_all(path: Path, size: int = 32, **options: Any) -> list[Frame]:
    with open_source(path, size, **options) as source:
        return list(source)


def sound_of(frames: list[Frame]) -> NDArray[np.float32]:
    """The whole track from 0 on, put together from the frames' windows."""
    track = np.full(WINDOW + round(frames[-1].audio_end_s * 16_000), np.nan, np.float32)
    for frame in frames:
        end = WINDOW + round(frame.audio_end_s * 16_000)
        track[end - WINDOW : end] = frame.samples
    first = round(frames[0].audio_end_s * 16_000)  # windows tell nothing of what lies before the first
    assert not np.isnan(track[first:]).any(), "the windows leave holes"
    track[:first] = 0.0
    assert not track[:WINDOW].any(), "there is sound before the clock begins"
    return track[WINDOW:]


# Pictures


CODECS = {
    "h264.mp4": ("320x180", ["-c:v", "libx264", "-bf", "2"]),
    "h264.ts": ("320x180", ["-c:v", "libx264"]),
    "odd.mkv": ("321x179", ["-c:v", "ffv1", "-pix_fmt", "yuv444p"]),
    "odd420.mkv": ("321x179", ["-c:v", "ffv1", "-pix_fmt", "yuv420p"]),
    "mpeg4.avi": ("320x180", ["-c:v", "mpeg4"]),
    "vp8.webm": ("176x144", ["-c:v", "libvpx", "-deadline", "realtime"]),
    "prores.mov": ("320x180", ["-c:v", "prores"]),
    "mjpeg.mkv": ("320x180", ["-c:v", "mjpeg", "-pix_fmt", "yuvj422p"]),
    "bt709.mp4": ("320x180", ["-c:v", "libx264", "-colorspace", "bt709", "-color_range", "pc"]),
    "gray.mkv": ("64x48", ["-c:v", "ffv1", "-pix_fmt", "gray"]),
    "tiny.mkv": ("2x2", ["-c:v", "ffv1", "-pix_fmt", "rgb24"]),
    "palette.gif": ("64x48", []),
}


@pytest.mark.parametrize("name", CODECS)
def test_pictures_and_times_equal_ffmpeg(name: str, tmp_path: Path) -> None:
    size, codec = CODECS[name]
    path = tmp_path / name
    ffmpeg(*test_pattern(size, "12.5", 1.0), *codec, path)
    width, height = map(int, size.split("x"))
    frames = read_all(path)
    expected = decode_rgb(path, width, height)
    assert len(frames) == len(expected) > 0
    assert [frame.index for frame in frames] == list(range(len(frames)))
    for frame, picture in zip(frames, expected, strict=True):
        assert frame.image.shape == picture.shape and frame.image.dtype == np.uint8
        assert np.abs(frame.image.astype(int) - picture).max() <= 1
        assert frame.log_mel is None and frame.samples is None and frame.audio_end_s is None
    times = np.array(probe_pts(path, "v:0"))
    np.testing.assert_allclose([frame.pts_s for frame in frames], times - times[0], rtol=0, atol=2e-6)


def test_a_clip_that_nobody_here_made() -> None:
    path = big_buck_bunny()
    with open_source(path, 256) as source:
        assert (source.width, source.height, source.frame_rate) == (1280, 720, 25.0)
        assert (source.video_codec, source.audio_codec) == ("h264", "aac")
        assert source.has_video and source.has_audio and source.pixel_aspect == (1, 1)
        assert source.duration_s == pytest.approx(5.312) and source.notes == []
        frames = list(source)
        assert source.counters == {
            "decoded": 132,
            "delivered": 132,
            "corrupt": 0,
            "corrupt_audio": 0,
            "read_errors": 0,
            "missing_pictures": 0,
            "repaired_pts": 0,
            "audio_gap_samples": 0,
            "audio_overlap_samples": 0,
        }
    assert [frame.pts_s for frame in frames] == [i / 25 for i in range(132)]
    np.testing.assert_array_equal(frames[40].image, decode_rgb(path, 1280, 720)[40])
    # 5.1 sound at 48 kHz, decoded and mixed by the tool.
    track, expected = sound_of(frames), decode_mono(path)
    np.testing.assert_allclose(track, expected[: len(track)], rtol=0, atol=1e-5)
    for frame in frames:
        assert frame.audio_missing_samples == max(0, WINDOW - round(frame.audio_end_s * 16_000))


MATRICES = {  # what a phone writes: (a, b, c, d) shows the stored pixel (x, y) at (a x + c y, b x + d y)
    "upright": (1, 0, 0, 1),
    "90": (0, 1, -1, 0),
    "180": (-1, 0, 0, -1),
    "270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transversed": (0, -1, -1, 0),
}


def write_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Puts a display matrix into the track header of an MP4 file."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: nine 16.16 numbers after 40 bytes
    a, b, c, d = (value << 16 for value in matrix)
    for i, value in enumerate((a, b, 0, c, d, 0, 0, 0, 1 << 30)):
        data[at + 4 * i : at + 4 * i + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)


def turned(stored: NDArray[Any], matrix: tuple[int, int, int, int]) -> NDArray[Any]:
    """[H, W, 3] as it is shown."""
    a, b, c, d = matrix
    y, x = np.mgrid[: stored.shape[0], : stored.shape[1]]
    shown_x, shown_y = a * x + c * y, b * x + d * y
    shown_x -= shown_x.min()
    shown_y -= shown_y.min()
    shown = np.empty((shown_y.max() + 1, shown_x.max() + 1, 3), stored.dtype)
    shown[shown_y, shown_x] = stored
    return shown


@pytest.mark.parametrize("name", MATRICES)
def test_pictures_are_turned_upright(name: str, tmp_path: Path) -> None:
    path = tmp_path / "phone.mp4"
    ffmpeg(*test_pattern("98x50", "5", 0.4), "-vf", "setsar=4/3", "-c:v", "libx264", path)
    before = read_all(path)[0]
    stored = before.image
    write_matrix(path, MATRICES[name])
    expected = turned(stored, MATRICES[name])
    with open_source(path, 32) as source:
        frame = next(source)
        assert (source.height, source.width) == expected.shape[:2]
        assert source.pixel_aspect == ((3, 4) if MATRICES[name][1] else (4, 3))
    np.testing.assert_array_equal(frame.image, expected)
    square = turned(before.tensor.transpose(1, 2, 0), MATRICES[name])
    np.testing.assert_array_equal(frame.tensor, square.transpose(2, 0, 1))
    if name in ("90", "180", "270"):  # the tool of FFmpeg 5 does not mirror
        np.testing.assert_array_equal(decode_rgb(path, source.width, source.height)[0], expected)


def test_an_angle_between_is_shown_as_stored_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "skew.mp4"
    ffmpeg(*test_pattern("64x48", "5", 0.4), "-c:v", "libx264", path)
    write_matrix(path, (1, 1, -1, 1))
    with open_source(path, 32) as source:
        assert (source.width, source.height) == (64, 48)
        assert len(source.notes) == 1 and "no multiple of 90 degrees" in source.notes[0]


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    path = tmp_path / "variable.mkv"
    vary = ["-vf", "select='not(mod(n,3)*mod(n,5))',settb=1/1000", "-fps_mode", "vfr"]
    ffmpeg(*test_pattern("64x48", "25", 2.0), *vary, "-c:v", "libx264", path)
    times = probe_pts(path, "v:0")
    assert len(set(np.diff(times).round(3))) > 1
    np.testing.assert_allclose([f.pts_s for f in read_all(path)], np.array(times) - times[0], atol=1e-6)


def test_a_change_of_size_is_scaled_to_the_first(tmp_path: Path) -> None:
    small, large = tmp_path / "small.ts", tmp_path / "large.ts"
    ffmpeg(*test_pattern("64x48", "10", 0.5), "-c:v", "mpeg2video", small)
    ffmpeg(*test_pattern("128x96", "10", 0.5), "-c:v", "mpeg2video", "-output_ts_offset", 0.5, large)
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    frames = read_all(path)
    assert len(frames) >= 9
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert np.all(np.diff([frame.pts_s for frame in frames]) > 0)


# Sound


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.float32]]:
    """A clip whose 16 kHz mono samples are known bit by bit, at a frame rate whose times are no decimals."""
    folder = tmp_path_factory.mktemp("exact")
    samples = np.random.default_rng(5).integers(-9_000, 9_000, 40_000).astype(np.int16)
    samples.tofile(folder / "sound.raw")
    sound = ["-f", "s16le", "-ar", 16_000, "-ac", 1, "-i", folder / "sound.raw"]
    path = folder / "exact.mov"
    ffmpeg(*test_pattern("64x48", "30000/1001", 2.5), *sound, "-c:v", "mpeg4", "-c:a", "pcm_s16le", path)
    return path, samples.astype(np.float32) / np.float32(32_768)


def test_windows_hold_the_exact_samples(exact: tuple[Path, NDArray[np.float32]]) -> None:
    path, samples = exact
    padded = np.concatenate([np.zeros(WINDOW, np.float32), samples])
    frames = read_all(path)
    assert len(frames) == 75
    for i, frame in enumerate(frames):
        hop = int(Fraction(i * 1001, 30000) * 100)  # rounded down
        assert frame.audio_end_s == hop / 100
        window = padded[160 * hop : 160 * hop + WINDOW]
        np.testing.assert_array_equal(frame.samples, window)
        np.testing.assert_array_equal(frame.log_mel, log_mel(window))
        assert frame.audio_missing_samples == max(0, WINDOW - 160 * hop)


def test_a_window_may_end_after_its_frame(exact: tuple[Path, NDArray[np.float32]]) -> None:
    path, samples = exact
    frames = read_all(path, audio_offset_s=0.975)
    assert frames[0].audio_end_s == 0.97 and frames[30].audio_end_s == 1.97
    np.testing.assert_array_equal(frames[30].samples, samples[160 * 197 - WINDOW : 160 * 197])
    last = frames[-1]  # the track ends at 2.5 s
    assert last.audio_missing_samples == round(last.audio_end_s * 16_000) - len(samples)
    assert last.samples is not None and not last.samples[-last.audio_missing_samples :].any()


SOUNDS = {
    "aac44.mp4": (44_100, 2, ["-c:a", "aac"]),
    "aac48.mkv": (48_000, 1, ["-c:a", "aac"]),
    "opus.webm": (48_000, 2, ["-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus"]),
    "vorbis.mkv": (44_100, 2, ["-c:a", "libvorbis"]),
    "mp3.mp4": (44_100, 1, ["-c:a", "libmp3lame"]),
    "pcm8.avi": (8_000, 1, ["-c:v", "mpeg4", "-c:a", "pcm_u8"]),
    "ac3.ts": (48_000, 6, ["-c:a", "ac3"]),
    "flac.mkv": (96_000, 2, ["-c:a", "flac"]),
}


def test_sound_that_cannot_be_mixed_ends_in_an_error(tmp_path: Path) -> None:
    """72 channels are more than libswresample takes; the reader must not wait for them."""
    path = tmp_path / "many.mov"
    samples = np.zeros((24_000, 72), np.int16)
    samples.tofile(tmp_path / "sound.raw")
    sound = ["-f", "s16le", "-ar", 16_000, "-ac", 72, "-i", tmp_path / "sound.raw"]
    ffmpeg(*test_pattern("64x48", "10", 1.5), *sound, "-c:v", "mpeg4", "-c:a", "pcm_s16le", path)
    with pytest.raises(IngestError, match="72 channels"):
        read_all(path)


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_stands_where_ffmpeg_puts_it(name: str, tmp_path: Path) -> None:
    """A rising tone gives away its place: after any codec it must correlate best with what the ffmpeg tool decodes, put where
    ffprobe says that the sound begins beside the picture (containers tell an encoder's delay, or do not)."""
    rate, channels, codec = SOUNDS[name]
    path = tmp_path / name
    ffmpeg(*test_pattern("64x48", "10", 3.0), *sweep(rate, 3.0, channels), *codec, path)
    frames = read_all(path)
    begin_s = frames[0].pts_s + probe_pts(path, "a:0")[0] - probe_pts(path, "v:0")[0]
    begin = round(begin_s * 16_000) + 8_000
    track = sound_of(frames)[begin : begin + 32_000].astype(np.float64)
    whole = decode_mono(path).astype(np.float64)

    def likeness(shift: float) -> float:
        low = int(np.floor(shift))
        share = shift - low
        clean = (1 - share) * whole[8_000 + low : 40_000 + low] + share * whole[8_001 + low : 40_001 + low]
        return float(track @ clean / np.sqrt((track @ track) * (clean @ clean)))

    coarse = max(range(-40, 41), key=likeness)
    shift = max(coarse + np.arange(-8, 9) / 8, key=likeness)
    assert abs(shift) <= 16, "off by more than a millisecond"
    assert likeness(shift) > 0.98


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.mov"])
def test_flash_and_beep_fall_together(name: str, tmp_path: Path) -> None:
    """At 1 s the picture turns white and a tone begins: less than 2 ms apart on the frames' clock."""
    path = tmp_path / name
    flash = ["-f", "lavfi", "-i", "color=black:s=64x48:r=50:d=2,drawbox=c=white:t=fill:enable='gte(t,1)'"]
    beep = ["-f", "lavfi", "-i", "aevalsrc='0.8*sin(2*PI*1000*t)*gte(t,1)':s=48000:d=2"]
    sound = ["-c:a", "pcm_s16le"] if name.endswith("mov") else ["-c:a", "aac", "-b:a", "192k"]
    ffmpeg(*flash, *beep, "-c:v", "libx264", "-bf", 2, *sound, path)
    frames = read_all(path)
    flash_s = next(frame.pts_s for frame in frames if frame.image.mean() > 128)
    beep_s = np.argmax(np.abs(sound_of(frames)) > 0.2) / 16_000
    assert abs(flash_s - beep_s) < 0.002


@pytest.mark.parametrize(("late", "offset_s"), [("sound", 0.5), ("picture", 0.7)])
def test_streams_that_begin_apart_share_one_clock(late: str, offset_s: float, tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    shift = ["-itsoffset", offset_s]
    picture, sound = test_pattern("64x48", "20", 2.0), sweep(48_000, 2.0)
    inputs = [*picture, *shift, *sound] if late == "sound" else [*shift, *picture, *sound]
    ffmpeg(*inputs, "-c:v", "libx264", "-c:a", "pcm_s16le", path)
    frames = read_all(path)
    track = sound_of(frames)
    if late == "sound":
        assert frames[0].pts_s == 0.0
        assert not track[: round(offset_s * 16_000) - 40].any() and track[round(offset_s * 16_000) + 40]
        at = next(frame for frame in frames if frame.pts_s >= 1.0)
        assert at.audio_missing_samples == WINDOW - 8_000
    else:
        assert frames[0].pts_s == pytest.approx(offset_s) and track[40]
        assert frames[0].audio_missing_samples == WINDOW - 16_000 * offset_s


def test_time_without_sound_is_filled_with_zeros_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "hole.mkv"
    hole = ["-af", "asetnsamples=480,aselect='not(between(t,0.995,1.505))'"]  # 1.0 to 1.51 s
    ffmpeg(*test_pattern("64x48", "10", 3.0), *sweep(48_000, 3.0), *hole, "-c:a", "pcm_s16le", path)
    with open_source(path, 32) as source:
        frames = list(source)
        gap = source.counters["audio_gap_samples"]
    assert abs(gap - 0.51 * 16_000) <= 16
    at = next(frame for frame in frames if frame.pts_s >= 1.5)
    assert abs(at.audio_missing_samples - 8_000) <= 16
    track = sound_of(frames)
    assert not track[16_060:24_100].any() and track[15_000:15_990].any()
    # After the hole the tone goes on where it belongs.
    t = np.arange(30_000, 40_000) / 16_000
    clean = 0.5 * np.sin(2 * np.pi * (100 * t + 500 * t * t))
    np.testing.assert_allclose(track[30_000:40_000], clean, rtol=0, atol=0.02)


def test_sound_that_comes_twice_is_trimmed(tmp_path: Path) -> None:
    path = tmp_path / "twice.mkv"
    # From 1 s on, all is stamped 0.3 s too early.
    twice = ["-af", "asetnsamples=480,asetpts='PTS-gte(T,1)*0.3/TB'"]
    ffmpeg(*test_pattern("64x48", "10", 2.0), *sweep(48_000, 2.5), *twice, "-c:a", "pcm_s16le", path)
    with open_source(path, 32) as source:
        frames = list(source)
        assert abs(source.counters["audio_overlap_samples"] - 0.3 * 48_000) <= 48
        assert source.counters["audio_gap_samples"] == 0
    track = sound_of(frames)
    t = np.arange(24_000, 28_000) / 16_000 + 0.3
    clean = 0.5 * np.sin(2 * np.pi * (100 * t + 500 * t * t))
    np.testing.assert_allclose(track[24_000:28_000], clean, rtol=0, atol=0.02)


def test_jitter_of_timestamps_is_no_hole(tmp_path: Path) -> None:
    path = tmp_path / "jitter.mkv"
    jitter = ["-af", "asetnsamples=441,asetpts='PTS+(random(0)-0.5)*0.004/TB'"]
    ffmpeg(*test_pattern("64x48", "10", 2.0), *sweep(44_100, 2.0), *jitter, "-c:a", "pcm_s16le", path)
    with open_source(path, 32) as source:
        track = sound_of(list(source))
        counters = source.counters
    assert counters["audio_gap_samples"] <= 64 and counters["audio_overlap_samples"] <= 128
    assert np.abs(np.diff(track)).max() < 0.5


def test_sound_shorter_than_the_picture_is_missing_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "short.mov"
    ffmpeg(*test_pattern("64x48", "10", 3.0), *sweep(16_000, 1.0), "-c:a", "pcm_s16le", path)
    frames = read_all(path)
    assert [frame.audio_missing_samples for frame in frames[10:]] == [
        max(0, WINDOW - 16_000) + min(WINDOW, 1_600 * i) for i in range(20)
    ]
    silent = frames[-1]
    np.testing.assert_allclose(silent.log_mel, np.log(0.01), rtol=1e-6)


def test_streams_that_lie_apart_in_the_file_do_not_lock_up(tmp_path: Path) -> None:
    """All pictures first, then all sound: two plain bounded queues would wait for each other for ever."""
    together, apart = tmp_path / "together.ts", tmp_path / "apart.ts"
    ffmpeg(
        *test_pattern("160x120", "25", 8.0),
        *sweep(48_000, 8.0),
        "-c:v",
        "mpeg2video",
        "-c:a",
        "mp2",
        together,
    )
    packets = np.frombuffer(together.read_bytes(), np.uint8).reshape(-1, 188)
    pid = (packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]
    sound = pid == 0x101
    assert 0 < sound.sum() < len(packets)
    for order in ((~sound, sound), (sound, ~sound)):
        apart.write_bytes(b"".join(packets[part].tobytes() for part in order))
        frames = read_all(apart)
        expected = read_all(together)
        assert len(frames) == len(expected)
        if order[0] is not sound:  # with the tables first, both files are the same to a reader
            assert all(f.audio_missing_samples < WINDOW for f in frames[10:])


# Limits and ends


def test_limits(exact: tuple[Path, NDArray[np.float32]]) -> None:
    path, _ = exact
    frames = read_all(path, max_frames=40)
    assert len(frames) == 40
    assert frames[-1].audio_missing_samples == 0, "sound after the last picture read is still read"
    assert len(read_all(path, duration_s=1.0)) == 30  # 30 x 1001 / 30000 = 1.001 s is out
    assert len(read_all(path, duration_s=1.0, max_frames=100)) == 30
    assert len(read_all(path, max_frames=1)) == 1


def test_impossible_arguments(exact: tuple[Path, NDArray[np.float32]]) -> None:
    path, _ = exact
    for options, message in [
        ({"max_frames": 0}, "max_frames must be at least 1"),
        ({"duration_s": 0.0}, "duration_s must be positive"),
        ({"duration_s": float("nan")}, "duration_s must be positive"),
        ({"decode_threads": -1}, "decode_threads must not be negative"),
        ({"std": (1.0, -1.0, 1.0)}, "std must be positive"),
        ({"audio_offset_s": float("nan")}, "audio_offset_s must be -3600 to 3600"),
        ({"audio_offset_s": 1e300}, "audio_offset_s must be -3600 to 3600"),
    ]:
        with pytest.raises(ValueError, match=message):
            open_source(path, 32, **options)
    with pytest.raises(ValueError, match="size must be 1 to 4096"):
        open_source(path, 0)


def test_reading_waits_for_the_caller(exact: tuple[Path, NDArray[np.float32]]) -> None:
    path, _ = exact
    with open_source(path, 32) as source:
        next(source)
        time.sleep(0.3)
        assert source.counters["decoded"] < 15
        assert len(list(source)) == 74


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_leaving_early_leaves_nothing_behind(exact: tuple[Path, NDArray[np.float32]]) -> None:
    path, _ = exact
    before, files = threads(), len(os.listdir("/proc/self/fd"))
    for taken in (0, 1, 7):
        source = open_source(path, 32)
        for _, _ in zip(range(taken), source, strict=False):
            pass
        assert threads() > before
        if taken == 7:
            del source
        else:
            source.close()
            source.close()
            assert list(source) == []
        # The kernel lists a thread for a moment after it has been joined.
        deadline = time.monotonic() + 10
        while threads() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threads() <= before, "a thread stays"
        assert len(os.listdir("/proc/self/fd")) <= files, "a file stays open"


def test_frames_outlive_their_source(exact: tuple[Path, NDArray[np.float32]]) -> None:
    path, _ = exact
    source = open_source(path, 32)
    frame = next(source)
    copy = frame.image.copy()
    image = frame.image
    source.close()
    del source, frame
    np.testing.assert_array_equal(image, copy)
    image[:] = 0  # it is the caller's


def test_closing_from_another_thread_ends_the_iteration(exact: tuple[Path, NDArray[np.float32]]) -> None:
    path, _ = exact
    source = open_source(path, 32)
    next(source)
    closer = threading.Timer(0.05, source.close)
    closer.start()
    for _ in source:
        time.sleep(0.01)
    closer.join()
    assert source.counters["delivered"] < 75


def test_a_signal_gets_through(tmp_path: Path) -> None:
    """A picture of 16 million pixels takes a while to decode; an interrupt during it must not wait for it to be used."""
    path = tmp_path / "huge.mkv"
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=4096x4096:r=1:d=12", "-c:v", "mjpeg", "-q:v", 31, path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            for _ in open_source(path, 32):
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# Damage


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("front.mp4", ["-movflags", "+faststart"]),
        ("cut.mkv", []),
        ("cut.ts", []),
        ("cut.avi", ["-c:v", "mpeg4", "-c:a", "mp2"]),
    ],
)
def test_what_is_left_of_a_cut_file_is_delivered(name: str, options: list[str], tmp_path: Path) -> None:
    path = tmp_path / name
    ffmpeg(*test_pattern("160x120", "25", 4.0), *sweep(48_000, 4.0), "-g", 10, *options, path)
    whole = len(read_all(path))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    with open_source(path, 32) as source:
        frames = list(source)
        counters = source.counters
    expected = decode_rgb(path, 160, 120)
    assert 20 < len(frames) < whole and abs(len(frames) - len(expected)) <= 1
    np.testing.assert_array_equal(frames[10].image, expected[10])
    assert counters["delivered"] == len(frames)
    if name == "front.mp4":  # its index tells of more than there is
        assert abs(counters["missing_pictures"] - (whole - len(frames))) <= 2
        assert counters["corrupt"] + counters["corrupt_audio"] > 0


def test_damage_in_the_middle_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    ffmpeg(*test_pattern("160x120", "25", 2.0), "-c:v", "libx264", "-movflags", "+faststart", path)
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(1)
    begin = len(data) // 2
    data[begin : begin + 8_000] = random.integers(0, 256, 8_000, np.uint8).tobytes()
    path.write_bytes(data)
    with open_source(path, 32) as source:
        assert len(list(source)) > 10
        assert source.counters["corrupt"] > 0


def test_nothing_that_decodes_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "hollow.mp4"
    ffmpeg(*test_pattern("64x48", "10", 1.0), "-c:v", "libx264", "-movflags", "+faststart", path)
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    data[begin:] = bytes(len(data) - begin)
    path.write_bytes(data)
    with pytest.raises(
        IngestError, match=r"hollow\.mp4: no picture in it could be decoded; the file is damaged"
    ):
        open_source(path, 32)


def test_an_mp4_without_its_index_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    ffmpeg(*test_pattern("64x48", "10", 1.0), "-c:v", "libx264", path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(IngestError, match=r"cut\.mp4 cannot be read as video: .*damaged"):
        open_source(path, 32)


def test_files_without_pictures(tmp_path: Path) -> None:
    sound = tmp_path / "sound.wav"
    ffmpeg(*sweep(16_000, 0.5), sound)
    with pytest.raises(IngestError, match=r"sound\.wav has no video stream"):
        open_source(sound, 32)
    cover, album = tmp_path / "cover.png", tmp_path / "album.mp3"
    ffmpeg(*test_pattern("64x48", "1", 1.0), "-frames:v", 1, cover)
    ffmpeg("-i", sound, "-i", cover, "-map", 0, "-map", 1, "-disposition:v", "attached_pic", album)
    assert any(stream["codec_type"] == "video" for stream in probe(album, "-show_streams")["streams"])
    with pytest.raises(IngestError, match=r"album\.mp3 has no video stream"):
        open_source(album, 32)


def test_what_is_no_media_file(tmp_path: Path) -> None:
    empty, text, junk, pipe = (tmp_path / name for name in ("empty.mp4", "notes.txt", "junk.mp4", "pipe"))
    empty.touch()
    text.write_text("Dear diary, today I wrote software.\n" * 200)
    junk.write_bytes(np.random.default_rng(0).integers(0, 256, 50_000, np.uint8).tobytes())
    os.mkfifo(pipe)
    for path, message in [
        (empty, r"empty\.mp4 is empty \(0 bytes\)"),
        (text, r"notes\.txt cannot be read as video"),
        (junk, r"junk\.mp4 cannot be read as video"),
        (tmp_path, "is a directory; name one file in it"),
        (tmp_path / "absent.mp4", r"absent\.mp4: no such file"),
        (pipe, "is not a regular file"),
    ]:
        with pytest.raises(IngestError, match=message) as caught:
            open_source(path, 32)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_that_looks_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ffmpeg(*test_pattern("64x48", "10", 0.3), "-f", "matroska", "file:http:clip.mkv")
    assert len(read_all(Path("http:clip.mkv"))) == 3


def test_a_source_is_made_by_its_class_too(exact: tuple[Path, NDArray[np.float32]]) -> None:
    path, _ = exact
    with Ingest(str(path), size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)) as source:
        frame = next(iter(source))
    assert source.size == 8 and source.path == str(path)
    assert 0.0 <= frame.tensor.min() and frame.tensor.max() <= 1.0
