"""One scene as a video: what ffmpeg makes of it, and every mistake in one line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from refavs_rt.train.cli import main

SHORT = ["--seconds", "2", "--size", "64x36", "--rate", "5"]


def fake_ffmpeg(folder: Path, script: str) -> Path:
    """A folder for PATH with a program `ffmpeg` that does what `script` says."""
    folder.mkdir()
    (folder / "ffmpeg").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "ffmpeg").chmod(0o755)
    return folder


@pytest.mark.media
def test_a_scene_becomes_a_video(tmp_path: Path, tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new folder" / "a:b.mp4"
    assert main(["video", "--out", str(out), "--pack", str(tiny_path), *SHORT]) == 0
    assert "name" in capsys.readouterr().out
    shown = "stream=codec_name,width,height,nb_read_frames"
    probe = [
        "ffprobe",
        "-v",
        "error",
        "-count_frames",
        "-show_entries",
        shown,
        "-of",
        "csv=p=0",
        f"file:{out}",
    ]
    lines = subprocess.run(probe, check=True, capture_output=True, text=True).stdout.split()
    assert lines[0] == "h264,64,36,10" and lines[1].startswith("aac")
    assert [path.name for path in out.parent.iterdir()] == ["a:b.mp4"]


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--size", "foo", "'foo' is not WxH"),
        ("--size", "640", "'640' is not WxH"),
        ("--size", "64x36x2", "is not WxH"),
        ("--size", "65x36", "with even numbers"),
        ("--size", "0x36", "from 16"),
        ("--rate", "0", "'0' is not a whole number above 0"),
        ("--seconds", "-1", "is not a whole number above 0"),
        ("--seed", "x", "'x' is not a whole number"),
        ("--split", "foo", "invalid choice"),
    ],
)
def test_a_wrong_flag_is_named(
    flag: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["video", "--out", "x.mp4", f"{flag}={value}"])
    said = capsys.readouterr().err
    assert f"argument {flag}: " in said and message in said


def test_a_missing_ffmpeg_is_named(
    tmp_path: Path, tiny_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["video", "--out", str(tmp_path / "x.mp4"), "--pack", str(tiny_path), *SHORT]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the program ffmpeg is not installed;") and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'Unknown encoder libx264' >&2; echo 'Conversion failed!' >&2; exit 3",
            "3): Unknown encoder libx264",
        ),
        ("cat > /dev/null; exit 1", "1): it says no reason"),
        ("exit 0", "0): it says no reason"),
    ],
)
def test_a_refusal_has_its_reason(
    tmp_path: Path,
    tiny_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    message: str,
) -> None:
    """At once, with the pipe full and unread, or at the end; what lay there before stays."""
    monkeypatch.setenv("PATH", f"{fake_ffmpeg(tmp_path / 'bin', script)}:/usr/bin:/bin")
    out = tmp_path / "x.mp4"
    out.write_bytes(b"before")
    large = ["--seconds", "2", "--size", "320x180", "--rate", "5"]
    assert main(["video", "--out", str(out), "--pack", str(tiny_path), *large]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ffmpeg could not write") and message in said and said.count("\n") == 1
    assert out.read_bytes() == b"before" and not list(tmp_path.glob("*.partial"))


def test_an_interrupted_video_leaves_no_process_and_no_file(
    tmp_path: Path, tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Watched(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            started.append(self)
            monkeypatch.setattr("refavs_rt.train.scenes.Scene.render", interrupted)

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Watched)
    script = 'for out; do :; done; echo half > "${out#file:}"; cat > /dev/null; sleep 60'
    monkeypatch.setenv("PATH", f"{fake_ffmpeg(tmp_path / 'bin', script)}:/usr/bin:/bin")
    assert main(["video", "--out", str(tmp_path / "x.mp4"), "--pack", str(tiny_path), *SHORT]) == 130
    assert started[0].poll() is not None
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]
