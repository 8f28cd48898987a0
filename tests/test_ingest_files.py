"""Files as people have them, picture and sound together, against what the ffmpeg tool makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt.ingest import open_source

from .clips import decode_mono, decode_rgb, ffmpeg, probe, sweep, test_pattern

pytestmark = pytest.mark.media
WINDOW = 15_600
X264, AAC = "libx264 -bf 2 -g 12", "aac"


@dataclass(frozen=True)
class Made:
    """How a file is made."""

    name: str
    video: str = X264
    audio: str = AAC
    size: str = "160x90"
    fps: str = "25"
    rate_hz: int = 48_000
    channels: int = 2
    more: str = ""


FILES = [
    Made("h264-aac.mp4"),
    Made("h264-aac-51.mp4", channels=6),
    Made("h264-mp3.mp4", audio="libmp3lame"),
    Made("h264-intra.mp4", video="libx264 -g 1"),
    Made("h264-422-10.mkv", video="libx264 -pix_fmt yuv422p10le"),
    Made("h264-444.mkv", video="libx264 -pix_fmt yuv444p", audio="flac"),
    Made("h264-ntsc.mp4", fps="30000/1001"),
    Made("h264-60.mp4", fps="60"),
    Made("h264-slow.mkv", fps="2"),
    Made("h264-odd.mkv", size="161x91", video="libx264 -pix_fmt yuv444p"),
    Made("h264-faststart.mp4", more="-movflags +faststart"),
    Made("h264-fragments.mp4", video="libx264 -bf 0 -g 12", more="-movflags frag_keyframe+empty_moov"),
    Made("h264.ts", audio="mp2"),
    Made("h264.flv", audio=AAC),
    Made("hevc.mp4", video="libx265 -x265-params log-level=none", audio="ac3"),
    Made("hevc-10.mkv", video="libx265 -x265-params log-level=none -pix_fmt yuv420p10le", audio="libopus"),
    Made("vp8-vorbis.webm", video="libvpx -deadline realtime", audio="libvorbis"),
    Made("vp9-opus.webm", video="libvpx-vp9 -deadline realtime -cpu-used 8", audio="libopus"),
    Made("mpeg2.mpg", video="mpeg2video", audio="mp2"),
    Made("mpeg2-interlaced.ts", video="mpeg2video -flags +ildct+ilme -top 1", audio="ac3"),
    Made("mpeg4-mp3.avi", video="mpeg4", audio="libmp3lame", rate_hz=32_000),
    Made("mjpeg-pcm.avi", video="mjpeg -pix_fmt yuvj420p", audio="pcm_s16le", rate_hz=16_000, channels=1),
    Made("mjpeg-pcm.mov", video="mjpeg -pix_fmt yuvj422p", audio="pcm_s24le"),
    Made("prores.mov", video="prores_ks -pix_fmt yuva444p10le", audio="pcm_f32le"),
    Made("dnxhd.mxf", video="dnxhd -b:v 36M -pix_fmt yuv422p", audio="pcm_s16le", size="1920x1080"),
    Made("ffv1-flac.mkv", video="ffv1", audio="flac", rate_hz=32_000),
    Made("ffv1-bgr0.mkv", video="ffv1 -pix_fmt bgr0", audio="pcm_u8", channels=1),
    Made("huffyuv.avi", video="huffyuv -pix_fmt yuv422p", audio="pcm_alaw", rate_hz=16_000, channels=1),
    Made("raw-nv12.nut", video="rawvideo -pix_fmt nv12", audio="pcm_s16be"),
    Made("h264-gray.mkv", video="libx264 -pix_fmt gray", audio="alac"),
    Made("theora.ogg", video="libtheora -q:v 7", audio="libvorbis"),
    Made("wmv.asf", video="wmv2", audio="wmav2"),
]
SHOWN = {"mpeg2-interlaced.ts"}
"""Whose colour stands in other rows than a progressive picture's; swscale is told so by the tool."""


def times(path: Path, stream: str) -> NDArray[np.float64]:
    """[n] in seconds of the container; NaN where a frame has none of its own."""
    entries = ["-show_entries", "frame=best_effort_timestamp_time", "-select_streams", stream]
    frames = probe(path, *entries)["frames"]
    return np.array([float(frame.get("best_effort_timestamp_time", "nan")) for frame in frames])


@pytest.mark.parametrize("made", FILES, ids=lambda made: made.name)
def test_a_file_is_what_ffmpeg_makes_of_it(made: Made, tmp_path: Path) -> None:
    path = tmp_path / made.name
    seconds = 0.4 if made.size == "1920x1080" else 3.0 if made.fps == "2" else 1.6
    ffmpeg(
        *test_pattern(made.size, made.fps, seconds),
        *sweep(made.rate_hz, seconds, made.channels),
        *("-c:v", *made.video.split(), "-c:a", *made.audio.split(), *made.more.split(), path),
    )
    width, height = map(int, made.size.split("x"))
    with open_source(path, 16) as source:
        frames = list(source)
        counters = source.counters
    pictures = decode_rgb(path, width, height)
    assert len(frames) == len(pictures) > 0
    if made.name not in SHOWN:
        for frame, picture in zip(frames, pictures, strict=True):
            assert np.abs(frame.image.astype(int) - picture).max() <= 1
    shown, heard = times(path, "v:0"), times(path, "a:0")
    # Where the container says that its streams begin, which may be what a decoder leaves out of the first packet.
    origin = min(float(stream["start_time"]) for stream in probe(path, "-show_streams")["streams"])
    known = ~np.isnan(shown)
    assert known[0] and known.mean() > 0.5
    np.testing.assert_allclose(
        np.array([frame.pts_s for frame in frames])[known], (shown - origin)[known], rtol=0, atol=2e-6
    )
    missing = counters.pop("audio_gap_samples")
    assert abs(missing - max(0.0, heard[0] - origin) * 16_000) <= 1
    repaired = {"repaired_pts"} if not known.all() else set()
    assert {name for name, count in counters.items() if count} - repaired == {"decoded", "delivered"}

    # Every sample in its place: windows are cut from the tool's own decoding, put where its first packet is shown.
    whole, begins = decode_mono(path), (heard[0] - origin) * 16_000
    if abs(begins - round(begins)) > 1e-3:
        return  # between two positions of the grid: test_sound_stands_where_ffmpeg_puts_it
    track = np.concatenate([np.zeros(WINDOW + round(begins), np.float32), whole])
    last = len(track) - WINDOW - 8  # the resampler's end is padded differently where sound goes on
    for frame in frames:
        end = round(frame.audio_end_s * 16_000)
        if end <= last:
            assert frame.samples is not None
            found, wanted = frame.samples, track[end : end + WINDOW]
            # The tool's resampler begins with the sound, ours knows that nothing was before it.
            edge = np.abs(np.arange(end - WINDOW, end) - round(begins)) < 32
            np.testing.assert_allclose(found[~edge], wanted[~edge], rtol=0, atol=2e-4)
            assert frame.audio_missing_samples == max(0, WINDOW - max(0, end - round(begins)))
