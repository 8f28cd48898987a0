"""Pictures and sound into MP4, read back by ffprobe, the ffmpeg tool and our own ingestion."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt.ingest import IngestError, open_source
from refavs_rt.sink import OverlayWriter, SinkError

from .clips import big_buck_bunny, decode_mono, decode_rgb, ffmpeg, probe, probe_pts, sweep, test_pattern

pytestmark = pytest.mark.media


def gradient(height: int, width: int, step: int = 0) -> NDArray[np.uint8]:
    """A smooth picture that H.264 keeps well; `step` moves it."""
    y, x = np.mgrid[:height, :width]
    planes = (x * 255 / width + step, y * 255 / height, 255 - x * 128 / width)
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)


def streams(path: Path) -> dict[str, dict[str, Any]]:
    return {stream["codec_type"]: stream for stream in probe(path, "-show_streams")["streams"]}


def remux(source_path: Path, out: Path, **limits: float) -> str:
    """Every frame of a source into `out`, its sound beside it."""
    with open_source(source_path, 32, **limits) as source, OverlayWriter.beside(out, source) as writer:
        for frame in source:
            writer.write(frame.image, frame.pts_s)
        return writer.sound


def test_pictures_keep_their_looks_and_times(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    times = [0.0, 0.04, 0.1, 0.5, 0.533, 1.25]  # no fixed rate
    with OverlayWriter(path, 320, 180, frame_rate=25.0) as writer:
        for i, pts_s in enumerate(times):
            writer.write(gradient(180, 320, 5 * i), pts_s)
        assert (writer.encoder, writer.sound, writer.notes) == ("libx264", "none", [])
        assert not path.exists(), "the name is given when the file is whole"
    assert [item.name for item in tmp_path.iterdir()] == ["out.mp4"], "the part is gone"
    video = streams(path)["video"]
    assert (video["codec_name"], video["pix_fmt"], video["color_space"]) == ("h264", "yuv420p", "smpte170m")
    np.testing.assert_allclose(probe_pts(path, "v:0"), times, rtol=0, atol=1e-5)
    for i, picture in enumerate(decode_rgb(path, 320, 180)):
        assert np.abs(picture.astype(int) - gradient(180, 320, 5 * i)).mean() < 3
    assert float(video["duration"]) == pytest.approx(1.29, abs=0.001)


def test_the_index_stands_in_front(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    remux(big_buck_bunny(), path, max_frames=10)
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(("width", "height"), [(321, 179), (1, 1), (16, 15), (1281, 719)])
def test_odd_sides_grow_by_their_edge(width: int, height: int, tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    image = gradient(height, width)
    with OverlayWriter(path, width, height) as writer:
        writer.write(image, 0.0)
    grown = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    (picture,) = decode_rgb(path, grown.shape[1], grown.shape[0])
    steep = width == 16  # 16 levels a pixel, of which 4:2:0 keeps every other colour
    assert np.abs(picture.astype(int) - grown).mean() < (8 if steep else 4)
    assert streams(path)["video"]["color_space"] == ("bt709" if height >= 719 else "smpte170m")


def test_a_clip_that_nobody_here_made_keeps_its_sound(tmp_path: Path) -> None:
    path, out = big_buck_bunny(), tmp_path / "bunny.mp4"
    assert remux(path, out) == "copied"
    times = probe_pts(path, "v:0")
    np.testing.assert_allclose(probe_pts(out, "v:0"), times, rtol=0, atol=1e-5)
    sound = streams(out)["audio"]
    assert (sound["codec_name"], sound["channels"], sound["sample_rate"]) == ("aac", 6, "48000")
    expected, copied = decode_mono(path), decode_mono(out)
    count = min(len(expected), len(copied))
    assert count / 16_000 == pytest.approx(5.28, abs=0.03), "cut to the pictures"
    # All samples but those of the last packet, whose overlap the cut took.
    np.testing.assert_allclose(copied[: count - 400], expected[: count - 400], rtol=0, atol=1e-6)


def test_sound_ends_with_the_pictures(tmp_path: Path) -> None:
    out = tmp_path / "short.mp4"
    remux(big_buck_bunny(), out, duration_s=2.0)
    found = streams(out)
    assert float(found["video"]["duration"]) == pytest.approx(2.0, abs=0.001)
    assert 2.0 <= float(found["audio"]["duration"]) < 2.0 + 1024 / 48_000 + 0.001


SOUNDS = {  # name: (codec options, codec in the MP4, what happens)
    "aac.mp4": (["-c:a", "aac"], "aac", "copied"),
    "aac.mkv": (["-c:a", "aac"], "aac", "copied"),
    "adts.ts": (["-c:a", "aac"], "aac", "copied"),
    "mp3.mkv": (["-c:a", "libmp3lame"], "mp3", "copied"),
    "ac3.mkv": (["-c:a", "ac3"], "ac3", "copied"),
    "opus.mkv": (["-c:a", "libopus"], "opus", "copied"),
    "pcm.mov": (["-c:a", "pcm_s16le"], "aac", "encoded"),
    "vorbis.mkv": (["-c:a", "libvorbis"], "aac", "encoded"),
    "flac.mkv": (["-c:a", "flac"], "aac", "encoded"),
}


@pytest.mark.parametrize("late", ["neither", "sound", "picture"])
@pytest.mark.parametrize("name", SOUNDS)
def test_flash_and_beep_stay_together(name: str, late: str, tmp_path: Path) -> None:
    """Picture and sound keep their distance through ingestion, sink and ingestion again."""
    codec, expected, happens = SOUNDS[name]
    path, out = tmp_path / name, tmp_path / "out.mp4"
    flash = ["-f", "lavfi", "-i", "color=black:s=64x48:r=50:d=2,drawbox=c=white:t=fill:enable='gte(t,1)'"]
    beep = ["-f", "lavfi", "-i", "aevalsrc='0.8*sin(2*PI*1000*t)*gte(t,1)':s=48000:d=2"]
    delay = ["-itsoffset", 0.3]
    inputs: dict[str, list[Any]] = {
        "neither": [*flash, *beep],
        "sound": [*flash, *delay, *beep],
        "picture": [*delay, *flash, *beep],
    }
    ffmpeg(*inputs[late], "-c:v", "libx264", *codec, path)
    assert remux(path, out) == happens
    assert streams(out)["audio"]["codec_name"] == expected
    assert distance_s(out) == pytest.approx(distance_s(path), abs=0.002)
    if late == "neither" and name != "opus.mkv":  # where ffmpeg itself sets them 6.5 ms apart
        assert abs(distance_s(out)) < 0.003


def distance_s(path: Path) -> float:
    """From the flash to the beep."""
    with open_source(path, 8) as source:
        frames = list(source)
    flash_s = next(frame.pts_s for frame in frames if frame.image.mean() > 128)
    begin_s = next(
        frame.audio_end_s - (15_600 - int(np.argmax(np.abs(frame.samples) > 0.2))) / 16_000
        for frame in frames
        if np.abs(frame.samples).max() > 0.2
    )
    return begin_s - flash_s


def test_encoded_sound_is_cut_at_the_sample(tmp_path: Path) -> None:
    path, out = tmp_path / "pcm.mov", tmp_path / "out.mp4"
    ffmpeg(*test_pattern("64x48", "10", 2.0), *sweep(16_000, 2.0, 2), "-c:a", "pcm_s16le", path)
    remux(path, out, max_frames=7)
    assert float(streams(out)["audio"]["duration"]) == pytest.approx(0.7, abs=0.002)
    heard = decode_mono(out)[2_000:10_000].astype(np.float64)
    spoken = decode_mono(path)[2_000:10_000].astype(np.float64)
    assert heard @ spoken / np.sqrt((heard @ heard) * (spoken @ spoken)) > 0.99


def test_sound_longer_and_shorter_than_the_pictures(tmp_path: Path) -> None:
    path, out = tmp_path / "short.mp4", tmp_path / "out.mp4"
    ffmpeg(*test_pattern("64x48", "10", 2.0), *sweep(44_100, 1.0), "-c:a", "aac", path)
    assert remux(path, out) == "copied"
    found = streams(out)
    assert float(found["video"]["duration"]) == pytest.approx(2.0, abs=0.001)
    assert float(found["audio"]["duration"]) == pytest.approx(1.0, abs=0.05)


def test_pixel_aspect_is_kept(tmp_path: Path) -> None:
    path, out = tmp_path / "wide.mp4", tmp_path / "out.mp4"
    ffmpeg(*test_pattern("64x48", "10", 0.5), "-vf", "setsar=4/3", "-c:v", "libx264", path)
    assert remux(path, out) == "none"
    assert streams(out)["video"]["sample_aspect_ratio"] == "4:3"


def test_pictures_that_are_not_contiguous(tmp_path: Path) -> None:
    image = gradient(48, 64)
    for name, view in (("a.mp4", image[:, ::-1]), ("b.mp4", image[:, ::-1].copy())):
        with OverlayWriter(tmp_path / name, 64, 48) as writer:
            writer.write(view, 0.0)
    assert np.array_equal(*(decode_rgb(tmp_path / name, 64, 48) for name in ("a.mp4", "b.mp4")))


def test_after_an_error_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with pytest.raises(RuntimeError, match="of the caller"), OverlayWriter(path, 64, 48) as writer:
        writer.write(gradient(48, 64), 0.0)
        raise RuntimeError("of the caller")
    writer = OverlayWriter(path, 64, 48)
    writer.write(gradient(48, 64), 0.0)
    del writer  # never closed
    with pytest.raises(SinkError, match=r"out\.mp4: no picture was written"), OverlayWriter(path, 64, 48):
        pass
    writer = OverlayWriter(path, 64, 48)
    writer.abort()
    with pytest.raises(SinkError, match="is closed"):
        writer.write(gradient(48, 64), 0.0)
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_text("older")
    writer = OverlayWriter(path, 64, 48)
    writer.write(gradient(48, 64), 0.0)
    assert path.read_text() == "older"
    writer.abort()
    assert path.read_text() == "older"
    with OverlayWriter(path, 64, 48) as writer:
        writer.write(gradient(48, 64), 0.0)
    writer.close()  # once more does no harm
    assert len(decode_rgb(path, 64, 48)) == 1


def test_what_cannot_be_written(tmp_path: Path) -> None:
    source = tmp_path / "source.mp4"
    ffmpeg(*test_pattern("64x48", "10", 0.3), "-c:v", "libx264", source)
    (tmp_path / "dir.mp4").mkdir()
    for path, message in [
        (tmp_path / "absent" / "out.mp4", "the folder .*absent does not exist"),
        (source / "out.mp4", "source.mp4 is not a folder"),
        (tmp_path / "dir.mp4", "is a directory"),
        (tmp_path / "out.avi", "only MP4 is written"),
        (source, "is the source itself"),
        (Path("/proc/out.mp4"), "cannot be written"),
    ]:
        with pytest.raises(SinkError, match=message) as caught:
            OverlayWriter(path, 64, 48, source=source)
        assert str(path) in str(caught.value)
    with pytest.raises(IngestError, match=r"absent\.mp4: no such file"):
        OverlayWriter(tmp_path / "out.mp4", 64, 48, source=tmp_path / "absent.mp4")
    with pytest.raises(SinkError, match="size must be positive, not 0x48"):
        OverlayWriter(tmp_path / "out.mp4", 0, 48)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["dir.mp4", "source.mp4"]


def test_pictures_that_cannot_be_taken(tmp_path: Path) -> None:
    with OverlayWriter(tmp_path / "out.mp4", 64, 48) as writer:
        writer.write(gradient(48, 64), 0.5)
        for pts_s in (0.5, 0.4, -1.0, float("nan"), float("inf")):
            with pytest.raises(SinkError, match="times must rise"):
                writer.write(gradient(48, 64), pts_s)
        with pytest.raises(ValueError, match="48 high and 64 wide, not \\(64, 48, 3\\)"):
            writer.write(gradient(64, 48), 1.0)
        with pytest.raises(ValueError, match=r"an image is uint8 \[H, W, 3\]"):
            writer.write(gradient(48, 64).astype(np.float32), 1.0)
    assert len(decode_rgb(tmp_path / "out.mp4", 64, 48)) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize(
    ("pictures", "limit"), [(60, 200_000), (8, 60_000)], ids=["while writing", "in the last pictures"]
)
def test_a_full_disk_is_told(tmp_path: Path, pictures: int, limit: int) -> None:
    """A file size limit stands for the full disk; eight pictures wait in the encoder until the end."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    random = np.random.default_rng(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with (
            pytest.raises(
                SinkError,
                match=r"out\.mp4 cannot be .*check the disk; what was written is in .*out\.part\.mp4",
            ),
            OverlayWriter(tmp_path / "out.mp4", 320, 240) as writer,
        ):
            for i in range(pictures):
                writer.write(random.integers(0, 256, (240, 320, 3), np.uint8), i / 25)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert [item.name for item in tmp_path.iterdir()] == ["out.part.mp4"]
    assert (tmp_path / "out.part.mp4").stat().st_size == limit, "what was written is not lost"
    if pictures > 8:  # of the others not even the first fragment was whole
        assert len(decode_rgb(tmp_path / "out.part.mp4", 320, 240)) > 0


def test_a_signal_gets_through_while_the_encoder_is_busy(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    noise = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt), OverlayWriter(tmp_path / "out.mp4", 1920, 1080) as writer:
            for i in range(1_000):
                writer.write(noise, i / 25)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert list(tmp_path.iterdir()) == []
