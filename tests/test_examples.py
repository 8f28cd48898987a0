"""The Python of README.md and docs/python.md runs as it stands there, block by block, on a real clip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from refavs_rt.demo import DEMO, Demo

from .clips import ffmpeg, probe

ROOT = Path(__file__).resolve().parents[1]


class Block(NamedTuple):
    """A fenced block of Python, where it stands, and the heading above it."""

    place: str
    heading: str
    code: str


def blocks(path: Path) -> list[Block]:
    found: list[Block] = []
    heading = ""
    fence: tuple[int, str, list[str]] | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if fence is None and line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("```"):
            if fence is not None:
                first, language, lines = fence
                if language == "python":
                    found.append(Block(f"{path.name}:{first}", heading, "\n".join(lines) + "\n"))
                fence = None
            else:
                fence = number, line.removeprefix("```").strip(), []
        elif fence is not None:
            fence[2].append(line)
    assert fence is None, f"{path}: a block without an end"
    return found


README, PAGE = blocks(ROOT / "README.md"), blocks(ROOT / "docs" / "python.md")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginning of the demo clip."""
    path = tmp_path_factory.mktemp("examples") / "video.mp4"
    ffmpeg("-i", Demo.read(DEMO).clip, "-t", 0.8, "-c:v", "libx264", "-c:a", "aac", path)
    return path


def run(block: Block, clip: Path, folder: Path) -> str:
    """What it prints."""
    (folder / "video.mp4").symlink_to(clip)
    program = folder / "example.py"
    program.write_text(block.code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, f"{block.place}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.parametrize("block", [*README, *PAGE], ids=lambda block: block.place)
def test_an_example_runs(block: Block, clip: Path, tmp_path: Path) -> None:
    said = run(block, clip, tmp_path)
    assert said or "overlay" in block.code, "an example shows something"
    written = {name for name in re.findall(r'"([\w-]+\.(?:png|mp4))"', block.code)} - {
        "video.mp4",
        "nowhere.mp4",
    }
    assert all((tmp_path / name).stat().st_size for name in written)


def of(heading: str) -> list[Block]:
    return [block for block in PAGE if block.heading == heading]


def test_the_pages_have_examples() -> None:
    assert README and len(PAGE) >= 10


def test_every_frame_of_the_file_is_told(clip: Path, tmp_path: Path) -> None:
    (block,) = of("A file")
    frames = probe(clip, "-count_frames", "-show_streams")["streams"][0]["nb_read_frames"]
    assert len(run(block, clip, tmp_path).splitlines()) == int(frames)


def test_sentences_come_change_and_go(clip: Path, tmp_path: Path) -> None:
    first, threaded = of("Sentences that change while it runs")
    lines = run(first, clip, tmp_path).splitlines()
    assert lines[2] == "2 ('the sounding object',)"
    assert lines[3] == "3 ('the sounding object', 'the silent object')"
    assert lines[5] == "5 ('the dog that barks', 'the silent object')"
    assert lines[7] == "7 ('the dog that barks',)"
    (tmp_path / "threaded").mkdir()
    assert "('the sounding object', 'the silent object')\n" in run(threaded, clip, tmp_path / "threaded")
