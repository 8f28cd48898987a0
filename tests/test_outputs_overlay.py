"""The overlay of live sources with its sound, and what is left of outputs whose process is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refavs_rt.ingest import LiveIngest, open_live, open_source
from refavs_rt.jsonl import read_records
from refavs_rt.masks import rle_decode
from refavs_rt.sink import OverlayWriter, SinkError

from .clips import decode_rgb, ffmpeg, probe, probe_pts, sweep, test_pattern
from .flash_and_beep import RATE_HZ, skews_s, sound_from_0
from .live_servers import pattern, sent
from .live_sources import BEEP, FLASH
from .processes import running
from .tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.media
ROOT = Path(__file__).resolve().parents[1]


def record(source: LiveIngest, out: Path, seconds: float) -> OverlayWriter:
    with OverlayWriter.beside(out, source) as writer:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            frame = source.read(timeout_s=0.5)
            if frame is not None:
                writer.write(frame.image, frame.pts_s)
    return writer


def streams(path: Path) -> dict[str, dict[str, Any]]:
    found = probe(path, "-count_frames", "-show_streams")["streams"]
    return {stream["codec_type"]: stream for stream in found}


# The sound of live sources


@pytest.mark.parametrize("rate_hz", [48_000, 44_100, 8_000])
def test_the_overlay_of_a_live_source_has_its_sound(rate_hz: int, tmp_path: Path) -> None:
    out = tmp_path / "live.mp4"
    with open_live(f"lavfi:{FLASH}[out0];{BEEP.replace('48000', str(rate_hz))}[out1]", 32) as source:
        assert record(source, out, 6.0).sound == "encoded"
    found = streams(out)
    assert (found["audio"]["codec_name"], found["audio"]["channels"]) == ("aac", 2)
    skews = skews_s(out, 64, 64)
    assert len(skews) >= 3
    assert abs(np.mean(skews)) < 0.02 and max(map(abs, skews)) < 0.045  # a frame more where one was dropped
    ends = [float(found[kind]["start_time"]) + float(found[kind]["duration"]) for kind in ("video", "audio")]
    assert ends[0] == pytest.approx(ends[1], abs=0.05)


def test_a_hole_in_the_sound_is_silence_and_pictures_go_on(tmp_path: Path) -> None:
    out = tmp_path / "hole.mp4"
    part = pattern(tmp_path / "a.ts", 6.0, sound=(1.0, 3.0))
    with sent(part) as address, open_live(address, 32, latency_s=0.3) as source:
        record(source, out, 5.5)
    found = streams(out)
    sound = np.abs(sound_from_0(out))
    loud = np.flatnonzero(sound > 0.05) / RATE_HZ
    assert loud[-1] - loud[0] == pytest.approx(2.0, abs=0.1)
    assert np.diff(loud).max() < 0.05, "one piece"
    assert len(sound) / RATE_HZ > loud[-1] + 1.5, "silence goes on with the pictures"
    end_s = float(found["video"]["start_time"]) + float(found["video"]["duration"])
    assert len(sound) / RATE_HZ == pytest.approx(end_s, abs=0.1)


def test_a_live_source_without_sound_has_an_overlay_without(tmp_path: Path) -> None:
    with open_live(f"lavfi:{FLASH}", 32, mic="none") as source:
        assert record(source, tmp_path / "silent.mp4", 1.0).sound == "none"
    assert list(streams(tmp_path / "silent.mp4")) == ["video"]


# What is being written


def test_the_part_can_be_played_at_any_moment(tmp_path: Path) -> None:
    clip, out = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    ffmpeg(*test_pattern("64x48", "25", 8.0), *sweep(44_100, 8.0), "-c:v", "libx264", "-c:a", "aac", clip)
    with open_source(clip, 8) as source, OverlayWriter.beside(out, source) as writer:
        part = Path(writer.part)
        assert part == tmp_path / "out.part.mp4"
        times = []
        for frame in source:
            writer.write(frame.image, frame.pts_s)
            times.append(frame.pts_s)
            if len(times) in (100, 150):
                wait_for(lambda: len(probe_pts(part, "v:0")) > len(times) - 60)
                written = probe_pts(part, "v:0")
                # The part may begin later by the priming of the sound.
                np.testing.assert_allclose(np.diff(written), np.diff(times[: len(written)]), atol=1e-4)
                assert written[0] - times[0] == pytest.approx(0, abs=0.03)
                assert len(sound_from_0(part)) / RATE_HZ > written[-1] - 1.2
    assert [item.name for item in tmp_path.iterdir() if item != clip] == ["out.mp4"]
    data = out.read_bytes()
    assert b"moof" not in data and 0 < data.index(b"moov") < data.index(b"mdat")
    np.testing.assert_allclose(probe_pts(out, "v:0"), times, rtol=0, atol=1e-5)


@pytest.mark.parametrize("codec", ["ac3", "aac"])
def test_sound_whose_codec_tells_late_is_in_the_part_too(codec: str, tmp_path: Path) -> None:
    clip, out = tmp_path / "clip.ts", tmp_path / "out.mp4"
    ffmpeg(*test_pattern("64x48", "25", 6.0), *sweep(48_000, 6.0), "-c:v", "libx264", "-c:a", codec, clip)
    with open_source(clip, 8) as source, OverlayWriter.beside(out, source) as writer:
        for frame in source:
            writer.write(frame.image, frame.pts_s)
        assert writer.sound == "copied"
        wait_for(lambda: len(probe_pts(Path(writer.part), "v:0")) > 90)
        assert streams(Path(writer.part))["audio"]["codec_name"] == codec
    assert streams(out)["audio"]["codec_name"] == codec


def test_an_older_part_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.part.mp4").write_text("of a run that was killed")
    with OverlayWriter(tmp_path / "out.mp4", 64, 48) as writer:
        assert Path(writer.part).name == "out.part2.mp4"
        writer.write(np.zeros((48, 64, 3), np.uint8), 0.0)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["out.mp4", "out.part.mp4"]
    assert (tmp_path / "out.part.mp4").read_text() == "of a run that was killed"


def test_a_part_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    writer = OverlayWriter(tmp_path / "out.mp4", 64, 48)
    for i in range(10):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8), i / 25)
    writer.abort(keep=True)
    assert [item.name for item in tmp_path.iterdir()] == ["out.part.mp4"]
    assert len(decode_rgb(tmp_path / "out.part.mp4", 64, 48)) == 10
    OverlayWriter(tmp_path / "empty.mp4", 64, 48).abort(keep=True)
    assert [item.name for item in tmp_path.iterdir()] == ["out.part.mp4"], "nothing was in it"


def test_what_cannot_be_named_stays_as_a_part(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    writer = OverlayWriter(out, 64, 48)
    writer.write(np.zeros((48, 64, 3), np.uint8), 0.0)
    out.mkdir()
    with pytest.raises(SinkError, match=r"out\.mp4 cannot be named.*what was written is in .*out\.part\.mp4"):
        writer.close()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["out.mp4", "out.part.mp4"]
    assert len(decode_rgb(tmp_path / "out.part.mp4", 64, 48)) == 1


# Killed


def wait_for(done: Callable[[], bool], limit_s: float = 90.0) -> None:
    until = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize("kind", ["file", "live"])
def test_what_a_killed_run_has_written_can_be_read(kind: str, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    source: list[str]
    if kind == "file":
        clip = tmp_path / "clip.mkv"
        ffmpeg(
            *test_pattern("160x90", "25", 300.0),
            *sweep(16_000, 300.0),
            "-c:v",
            "libx264",
            "-c:a",
            "aac",
            clip,
        )
        source = ["--source", str(clip)]
    else:
        source = ["--camera", "lavfi:testsrc2=size=160x90:rate=25[out0];sine=440[out1]"]
    lines, masks, part = tmp_path / "out.jsonl", tmp_path / "masks", tmp_path / "out.part.mp4"
    words = ["--out", tmp_path / "out.mp4", "--jsonl", lines, "--masks", masks, "--bundle", bundle.path]
    command = [
        sys.executable,
        "-m",
        "refavs_rt.cli",
        "stream",
        *source,
        "--text",
        "a dog",
        "--text",
        "ein Bär",
    ]
    with running([*command, "--threads", "1", *map(str, words)], cwd=ROOT) as run:
        wait_for(lambda: lines.exists() and len(lines.read_bytes().splitlines()) > 100)
        wait_for(lambda: part.stat().st_size > 20_000 and run.poll() is None)
        os.kill(run.pid, signal.SIGKILL)
        run.wait(20)
    assert not (tmp_path / "out.mp4").exists()

    read = list(read_records(lines))
    assert [one["index"] for one in read] == list(range(len(read))) and len(read) > 90
    assert rle_decode(read[-1]["sentences"][1]["mask"]).shape == (90, 160)
    assert lines.read_bytes().count(b"\n") == len(read)

    times = probe_pts(part, "v:0")
    assert times[-1] > read[-1]["pts_s"] - 3.0, "all but the last moments"
    expected = [one["pts_s"] for one in read][: len(times)]
    np.testing.assert_allclose(np.diff(times[: len(expected)]), np.diff(expected), atol=1e-4)
    assert float(np.abs(sound_from_0(part)[-8_000:]).max()) > 0.05

    rows = list(read_records(masks / "index.jsonl"))
    assert len(rows) > 80
    for row, found in zip(rows, read, strict=False):
        assert row["index"] == found["index"]
        for named, sentence in zip(row["masks"], found["sentences"], strict=True):
            assert named["text"] == sentence["text"]
            pixels = np.asarray(Image.open(masks / named["file"]))
            np.testing.assert_array_equal(pixels, 255 * rle_decode(sentence["mask"]).astype(np.uint8))


def test_a_last_line_that_is_cut_off_is_all_that_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    whole = [{"index": i, "text": "Bär"} for i in range(3)]
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in whole).encode()
    last = len(data) - len(data.splitlines()[-1]) - 1
    for end in range(last, len(data)):
        path.write_bytes(data[:end])
        assert list(read_records(path)) == whole[:2]
    path.write_bytes(data)
    assert list(read_records(path)) == whole


def test_each_line_is_given_to_the_system_at_once(tmp_path: Path) -> None:
    """Nothing is left in a buffer that a kill would take along."""
    program = (
        "import os, sys; from types import SimpleNamespace as S; import numpy as np;"
        "from pathlib import Path; from refavs_rt.outputs.records import RecordsOutput;"
        "out = RecordsOutput(Path(sys.argv[1]));"
        "out.write(S(index=0, pts_s=0.0, texts=(), presence=np.zeros(0), masks=np.zeros((0, 2, 2), bool)));"
        "os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "a.jsonl"
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(read_records(path)) == [{"index": 0, "pts_s": 0.0, "sentences": []}]
