"""The command line as a user meets it: files written, lines printed, mistakes told in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt import __version__, masks
from refavs_rt.bundle import Bundle, write_bundle
from refavs_rt.cli import main
from refavs_rt.config import TEST, RunConfig
from refavs_rt.render import Overlay
from refavs_rt.session import load

from .engine_bundle import write_engine_bundle
from .test_stream import HEIGHT, WIDTH, frame_times_s, make_clip
from .tiny_bundle import tiny_files, write_tiny_bundle

TEXTS = ["a barking dog", "the silent cello"]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return write_tiny_bundle(folder / "tiny")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return make_clip(folder / "clip.mp4")


@pytest.fixture(scope="module")
def long_clip(folder: Path) -> Path:
    return make_clip(folder / "long.mp4", seconds=200)


def arguments(clip: Path, bundle: Bundle, *more: str | Path, texts: list[str] = TEXTS) -> list[str]:
    words = ["stream", "--source", str(clip), "--bundle", str(bundle.path), "--threads", "1"]
    for text in texts:
        words += ["--text", text]
    return words + [str(word) for word in more]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def probe(path: Path) -> dict[str, dict[str, str]]:
    """Kind of stream -> what ffprobe says of it."""
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(path)]
    streams = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["streams"]
    return {stream["codec_type"]: stream for stream in streams}


def decode(path: Path) -> NDArray[np.uint8]:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(data, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)


def sound_packets(path: Path) -> bytes:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a", "-c", "copy", "-f", "adts", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def test_stream_writes_what_the_model_finds(
    bundle: Bundle, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay, lines = tmp_path / "overlay.mp4", tmp_path / "masks.jsonl"
    assert main(arguments(clip, bundle, "--out", overlay, "--jsonl", lines)) == 0
    printed = capsys.readouterr().out
    assert f"bundle {bundle.path} (test), engine onnx (CPU, 1 thread)" in printed
    assert re.search(r"22 frames in [\d.]+ s: [\d.]+ fps, latency \d+ ms \(median\), \d+ ms \(p95\)", printed)
    assert f"wrote {overlay}\nwrote {lines}\n" in printed

    results = list(load(bundle.path, run=RunConfig(threads=1)).stream(clip, TEXTS))
    found = records(lines)
    assert len(found) == len(results) == 22
    for record, result in zip(found, results, strict=True):
        assert list(record) == ["index", "pts_s", "sentences"]
        assert (record["index"], record["pts_s"]) == (result.index, pytest.approx(result.pts_s, abs=1e-6))
        for i, sentence in enumerate(record["sentences"]):
            mask = result.masks[i]
            assert list(sentence) == ["text", "presence", "box", "centroid", "area", "mask"]
            assert sentence["text"] == TEXTS[i]
            assert sentence["presence"] == pytest.approx(float(result.presence[i]), abs=1e-4)
            np.testing.assert_array_equal(masks.rle_decode(sentence["mask"]), mask)
            assert sentence["area"] == mask.sum() and sentence["box"] == masks.box(mask)
            assert sentence["centroid"] == pytest.approx(masks.centroid(mask), abs=0.01)
    assert any(sentence["box"] for record in found for sentence in record["sentences"])

    streams = probe(overlay)
    assert streams["video"]["codec_name"] == "h264" and int(streams["video"]["nb_read_frames"]) == 22
    np.testing.assert_allclose(frame_times_s(overlay), frame_times_s(clip), atol=2e-3)
    assert streams["audio"]["codec_name"] == "aac" and sound_packets(overlay) == sound_packets(clip)
    painter = Overlay(HEIGHT, WIDTH, RunConfig().presence_threshold)
    for picture, result in zip(decode(overlay), results, strict=True):
        expected = painter.paint(result.image, result.texts, result.masks, result.presence)
        assert np.abs(picture.astype(int) - expected).mean() < 12
        assert (
            np.abs(picture.astype(int) - expected).mean() < np.abs(picture.astype(int) - result.image).mean()
        )


def test_a_refused_overlay_leaves_older_records(
    bundle: Bundle, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "masks.jsonl"
    lines.write_text("kept")
    assert main(arguments(clip, bundle, "--out", tmp_path / "overlay.avi", "--jsonl", lines)) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert lines.read_text() == "kept"


def test_a_full_disk_is_one_line(bundle: Bundle, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(clip, bundle, "--jsonl", "/dev/full")) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert line == "error: /dev/full: cannot be written (No space left on device); check the disk"


def test_a_refused_page_makes_no_folder(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    words = arguments(clip, bundle, "--masks", tmp_path / "masks", "--max-frames", "1")
    assert main([*words, "--serve", "0.0.0.0:0"]) == 1
    assert not (tmp_path / "masks").exists()
    assert main([*words, "--serve", "0.0.0.0:0", "--token", "abc"]) == 0


def test_a_file_as_camera_is_not_written_over(
    bundle: Bundle, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = Path(shutil.copy(clip, tmp_path / "clip.mp4"))
    content = copied.read_bytes()
    for source in (["--camera", str(copied)], ["--camera", str(clip), "--mic", str(copied)]):
        words = ["stream", *source, "--bundle", str(bundle.path), "--text", "a dog"]
        for output in ("--jsonl", "--out"):
            assert main([*words, output, str(copied)]) == 1
            assert "is the source itself" in capsys.readouterr().err
    assert copied.read_bytes() == content


def test_nothing_is_found_below_the_threshold(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    lines = tmp_path / "masks.jsonl"
    assert main(arguments(clip, bundle, "--jsonl", lines, "--null-threshold", "1", "--max-frames", "3")) == 0
    found = records(lines)
    assert len(found) == 3
    for sentence in (sentence for record in found for sentence in record["sentences"]):
        assert sentence["presence"] > 0 and sentence["area"] == 0
        assert sentence["box"] is None and sentence["centroid"] is None
        assert not masks.rle_decode(sentence["mask"]).any()
        assert sentence["mask"]["size"] == [HEIGHT, WIDTH]


def test_duration_stops_the_stream(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    assert main(arguments(clip, bundle, "--jsonl", tmp_path / "a.jsonl", "--duration", "0.75")) == 0
    assert records(tmp_path / "a.jsonl")[-1]["pts_s"] == pytest.approx(0.7)


def test_the_newest_export_is_the_default(
    bundle: Bundle,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "latest").symlink_to(bundle.path)
    assert main(["stream", "--source", str(clip), "--text", "a dog", "--max-frames", "1"]) == 0
    assert "bundle bundles/latest (test), engine onnx" in capsys.readouterr().out


def test_a_long_sentence_is_cut_with_a_warning(
    bundle: Bundle, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "the dog that barks after the guitar starts"
    assert main(arguments(clip, bundle, "--max-frames", "1", texts=[text])) == 0
    line = f"warning: the sentence '{text}' has 11 tokens, the model reads 6: kept 'the dog that bark'\n"
    assert capsys.readouterr().err == line


def mistakes(clip: Path, folder: Path) -> dict[str, tuple[list[str], str]]:
    """A name -> what is wrong on the command line, and what must be said of it."""
    (folder / "text.mp4").write_text("no video")
    (folder / "file").write_text("x")
    return {
        "no source": (["--source", str(folder / "none.mp4")], "none.mp4"),
        "no media": (["--source", str(folder / "text.mp4")], "text.mp4"),
        "live options of a file": (["--hwaccel", "cuda"], "--hwaccel is of live sources"),
        "token without a page": (["--token", "x"], "--token is for a page"),
        "too many sentences": (["--text", "a"] * 64, "65 sentences are too many: 64 at most"),
        "no port": (["--serve", "²"], "cannot be served at"),
        "no host": (["--serve", "a..b:8765", "--token", "x"], "'a..b' is no name of a machine"),
        "no page there": (["--serve", "127.0.0.1:99999"], "is no address to serve at"),
        "blank sentence": (["--text", "  "], "must not be empty"),
        "no such bundle": (["--bundle", str(folder / "none")], "none: no such bundle folder"),
        "file as bundle": (["--bundle", str(folder / "file")], "file: no such bundle folder"),
        "no folder": (["--out", str(folder / "none" / "o.mp4")], "there is no folder"),
        "folder as file": (["--jsonl", str(folder)], "is a folder"),
        "over the source": (["--jsonl", str(clip)], "is the source itself"),
        "one file twice": (
            ["--out", str(folder / "a.mp4"), "--jsonl", str(folder / "a.mp4")],
            "give two names",
        ),
        "not MP4": (["--out", str(folder / "o.gif")], "o.gif"),
    }


@pytest.mark.parametrize(
    "mistake",
    [
        "no source",
        "no media",
        "live options of a file",
        "token without a page",
        "too many sentences",
        "no page there",
        "blank sentence",
        "no such bundle",
        "file as bundle",
        "no folder",
        "folder as file",
        "over the source",
        "one file twice",
        "not MP4",
    ],
)
def test_a_mistake_is_one_line(
    bundle: Bundle, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    more, message = mistakes(clip, tmp_path)[mistake]
    before, source = sorted(tmp_path.iterdir()), clip.read_bytes()
    assert main([*arguments(clip, bundle, texts=TEXTS[:1]), *more]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert sorted(tmp_path.iterdir()) == before and clip.read_bytes() == source


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "COMMAND"),
        (["stream", "--source", "a"], "--text"),
        (["stream", "--text", "a"], "--source"),
        (["stream", "--source", "a", "--text", "b", "--engine", "tpu"], "--engine"),
        (
            ["stream", "--source", "a", "--text", "b", "--max-frames", "0"],
            "'0' is not a whole number above 0",
        ),
        (["stream", "--source", "a", "--text", "b", "--duration", "nan"], "'nan' is not a number above 0"),
        (
            ["stream", "--source", "a", "--text", "b", "--threads", "-1"],
            "'-1' is not a whole number, 0 or more",
        ),
        (
            ["stream", "--source", "a", "--text", "b", "--null-threshold", "2"],
            "'2' is not a number from 0 to 1",
        ),
        (["verify", "a", "--digest", "abc"], "'abc' is not a sha256"),
    ],
)
def test_wrong_usage_is_told(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_whole_files(
    bundle: Bundle, long_clip: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    overlay, lines = tmp_path / "overlay.mp4", tmp_path / "masks.jsonl"
    words = arguments(long_clip, bundle, "--out", overlay, "--jsonl", lines)
    run = subprocess.Popen(
        [sys.executable, "-m", "refavs_rt.cli", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (lines.exists() and lines.stat().st_size > 20_000):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(number)
    out, err = run.communicate(timeout=60)
    assert run.returncode == code, err
    assert "Traceback" not in err and f"wrote {overlay}" in out
    frames = len(records(lines))
    assert 0 < frames < 2000 and f"{frames} frames in" in out
    assert int(probe(overlay)["video"]["nb_read_frames"]) == frames
    assert {path.name for path in tmp_path.iterdir()} == {"overlay.mp4", "masks.jsonl"}


def test_a_reader_that_leaves_is_no_error(bundle: Bundle) -> None:
    command = [sys.executable, "-m", "refavs_rt.cli", "info", "--json", "--bundle", str(bundle.path)]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as broken:
        done = subprocess.run(
            command, cwd=ROOT, stdout=broken, stderr=subprocess.PIPE, text=True, check=False
        )
    assert "Traceback" not in done.stderr


def test_info_for_people_and_machines(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--bundle", str(bundle.path)]) == 0
    text = capsys.readouterr().out
    assert main(["info", "--bundle", str(bundle.path), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert list(described) == ["versions", "engines", "devices", "bundle"]
    assert described["versions"]["refavs-rt"] == __version__
    assert {"python", "numpy", "onnxruntime", "tokenizers", "ffmpeg"} <= set(described["versions"])
    assert "onnx" in described["engines"] and described["devices"]["cores"] >= 1
    assert described["bundle"]["digest"] == bundle.digest
    assert described["bundle"]["training"]["licence"] == "Apache-2.0"
    assert described["bundle"]["files"]["step.onnx"] == bundle.files["step.onnx"]["size"]
    for part in (
        bundle.digest,
        "none: random weights",
        "Apache-2.0",
        __version__,
        described["versions"]["ffmpeg"],
    ):
        assert part in text


def test_info_of_a_wrong_bundle_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--bundle", str(tmp_path)]) == 1
    assert "manifest.json: missing" in capsys.readouterr().err


def test_verify(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle.path)]) == 0
    assert bundle.digest in capsys.readouterr().out
    assert main(["verify", str(bundle.path), "--digest", bundle.digest.upper()]) == 0
    assert "the digest is the one given" in capsys.readouterr().out
    assert main(["verify", str(bundle.path), "--digest", "0" * 64]) == 1
    assert f"its digest is {bundle.digest}, not the one given" in capsys.readouterr().err


def test_verify_shows_files_and_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verified = {"device": "NVIDIA Jetson Orin NX", "largest_error": 0.00123}
    write_engine_bundle(tmp_path / "b", of={"step": {"verified": verified, "capabilities": (87, 120)}})
    assert main(["verify", str(tmp_path / "b")]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert re.fullmatch(r"step\.onnx +0\.\d MB +graph, fp32, 1 to 8 sentences", lines["step.onnx"])
    assert re.fullmatch(r"audio\.onnx +0\.\d MB +graph, fp32", lines["audio.onnx"])
    assert re.fullmatch(r"tokenizer\.json +0\.5 MB", lines["tokenizer.json"])
    assert lines["step.engine"].endswith(
        "engine of step, fp32, tensorrt 10.3.0 for sm87 sm120; "
        "verified on NVIDIA Jetson Orin NX (largest error 0.0012)"
    )
    assert lines["text.engine"].endswith("tensorrt 10.3.0 for sm86; not verified on a device")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"contract_hash": "0" * 64},
            "step.engine was built for another contract; build it again: refavs-export",
        ),
        ({"version": "10.4.0"}, "step.engine is of tensorrt 10.4.0 and text.engine of tensorrt 10.3.0"),
    ],
)
def test_verify_finds_engines_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record: dict[str, Any], message: str
) -> None:
    write_engine_bundle(tmp_path / "b", of={"step": record})
    assert main(["verify", str(tmp_path / "b")]) == 1
    assert message in capsys.readouterr().err


def test_verify_opens_what_it_vouches_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hashes that match are no graphs yet, and no tokenizer."""
    for name, message in (
        ("vision.onnx", "not a graph that runs here"),
        ("tokenizer.json", "not a tokenizer"),
    ):
        folder = tmp_path / name
        files = {**tiny_files(), name: b"{}"}
        write_bundle(folder, TEST, files, tools={}, training={}, parity={})
        assert main(["verify", str(folder)]) == 1
        assert f"{folder / name}: {message}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["text.onnx", "tokenizer.json"])
def test_verify_finds_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    data = bytearray(bundle.read(name))
    data[100] ^= 1
    (bundle.path / name).write_bytes(data)
    assert main(["verify", str(bundle.path)]) == 1
    assert f"{name}: damaged" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0 and capsys.readouterr().out == f"refavs-rt {__version__}\n"
