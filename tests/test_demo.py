"""refavs_rt.demo: the command it runs, and what it says afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import refavs_rt.cli
from refavs_rt import demo


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A described clip."""
    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / "demo.json").write_text(
        json.dumps({"clip": "clip.mp4", "texts": ["the dog", "the cat's bowl"]})
    )
    monkeypatch.setattr(demo, "DEMO", tmp_path)
    return tmp_path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines given to `refavs-rt`, which here writes two records and is content."""
    given: list[list[str]] = []
    monkeypatch.setattr(refavs_rt.cli, "main", _stand_in(given))
    return given


def _stand_in(given: list[list[str]]) -> Callable[[Sequence[str]], int]:
    def main(argv: Sequence[str]) -> int:
        given.append(list(argv))
        Path(argv[argv.index("--jsonl") + 1]).write_text("{}\n{}\n")
        return 0

    return main


def test_it_streams_the_clip_with_every_sentence(
    folder: Path, commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    assert demo.main(["--out", str(out)]) == 0
    expected = [
        "stream",
        "--source",
        str(folder / "clip.mp4"),
        "--text",
        "the dog",
        "--text",
        "the cat's bowl",
    ]
    assert commands == [[*expected, "--out", str(out / "overlay.mp4"), "--jsonl", str(out / "masks.jsonl")]]
    said = capsys.readouterr().out
    assert "2 frames, 2 sentences" in said
    assert str(out / "overlay.mp4") in said.splitlines()[-2]


def test_a_missing_clip_is_named(
    folder: Path, commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "clip.mp4").unlink()
    assert demo.main(["--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"error: {folder / 'clip.mp4'}: no such clip\n"
    assert commands == []
