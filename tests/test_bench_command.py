"""`refavs-rt bench`: its table, and that the figures are those of what they name."""

from __future__ import annotations

import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from refavs_rt import __version__, bench, bench_clip
from refavs_rt.bundle import Bundle
from refavs_rt.cli import main
from refavs_rt.engines.onnx import OnnxEngine
from refavs_rt.ingest import open_source

from .clips import probe
from .test_stream import make_clip
from .tiny_bundle import write_tiny_bundle

SLOWED_MS = {"vision": 4.0, "audio": 8.0, "step": 12.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return write_tiny_bundle(folder / "tiny")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return make_clip(folder / "clip.mp4")


def words(bundle: Bundle, clip: Path, *more: str) -> list[str]:
    return ["bench", "--bundle", str(bundle.path), "--threads", "1", "--source", str(clip), *more]


def test_a_row_for_each_stage(bundle: Bundle, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(bundle, clip, "--json")) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    rows = {row["stage"]: row for row in told["stages"]}
    by_count = [f"{n} sentence{'s' if n > 1 else ''}" for n in (1, 2, 4, 8)]
    assert set(rows) == {
        "decoding",
        "picture to the network's input",
        "text, once a sentence",
        "vision",
        "audio",
        "picture as RGB",
        "encoding",
        *(f"{stage}, {count}" for stage in ("step", "masks", "drawing") for count in by_count),
    }
    assert all(0 < row["median_ms"] <= row["p95_ms"] for row in rows.values())
    # 22 frames of which 5 warm up; what no sentence changes is seen in every pass.
    assert rows["decoding"]["frames"] == rows["step, 1 sentence"]["frames"] == 17
    assert rows["vision"]["frames"] == rows["audio"]["frames"] == rows["encoding"]["frames"] == 4 * 17
    for fps in told["fps"].values():
        assert list(fps) == ["1", "2", "4", "8"] and min(fps.values()) > 0
    assert told["bundle"]["digest"] == bundle.digest and told["versions"]["refavs-rt"] == __version__
    assert told["engine"] == {"name": "onnx", "device": "CPU, 1 thread"}
    assert (told["source"]["width"], told["source"]["height"], told["source"]["codec"]) == (126, 90, "h264")
    assert "11 of 11: overlays for 8 sentences" in said.err


def test_the_table_has_machine_versions_and_columns(
    bundle: Bundle, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(bundle, clip)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"refavs-rt {__version__}, python 3.") and "cores usable" in lines[1]
    assert str(bundle.path) in lines[2] and str(clip) in lines[3]
    rows = [line for line in lines if re.search(r" +[\d.]+ +[\d.]+ +\d+$", line)]
    assert len(rows) == 7 + 3 * 4
    assert len({len(line) for line in rows}) == 1, "columns stand below each other"
    assert re.fullmatch(r"file to overlay +([\d.]+ +){3}[\d.]+", lines[-1])


def test_a_graph_is_timed_where_the_stream_runs_it(
    bundle: Bundle, clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is slowed by a time of its own, which its row has to show."""
    run = OnnxEngine._run

    def slow(engine: OnnxEngine, graph: str, inputs: Any) -> Any:
        time.sleep(SLOWED_MS.get(graph, 0.0) / 1e3)
        return run(engine, graph, inputs)

    monkeypatch.setattr(OnnxEngine, "_run", slow)
    assert main(words(bundle, clip, "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    medians = {row["stage"]: row["median_ms"] for row in told["stages"]}
    for graph in ("vision", "audio"):
        assert medians[graph] >= SLOWED_MS[graph]
    for stage, median in medians.items():
        if stage.startswith("step"):
            assert median >= SLOWED_MS["step"]
    assert medians["text, once a sentence"] < SLOWED_MS["step"] + medians["vision"]
    assert max(told["fps"]["results"].values()) <= 1e3 / sum(SLOWED_MS.values())


def test_ctrl_c_leaves_what_was_measured(
    bundle: Bundle, clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "_measure_overlay", interrupted)
    assert main(words(bundle, clip)) == 130
    said = capsys.readouterr()
    assert "step, 8 sentences" in said.out and "encoding" not in said.out
    assert said.err.endswith("interrupted\n")


@pytest.mark.parametrize(("seconds", "message"), [(0.3, "3 frames are too few"), (None, "nowhere.mp4")])
def test_a_source_that_does_not_serve_is_one_line(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], seconds: float | None, message: str
) -> None:
    source = tmp_path / "nowhere.mp4"
    if seconds is not None:
        source = make_clip(tmp_path / "short.mp4", seconds=seconds)
    assert main(words(bundle, source)) == 1
    said = capsys.readouterr()
    (line,) = (line for line in said.err.splitlines() if line.startswith("error: "))
    assert message in line and said.out == ""


def test_without_a_source_it_makes_one(
    bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "FRAMES", 8)
    assert main(["bench", "--bundle", str(bundle.path), "--threads", "1", "--json"]) == 0
    source = json.loads(capsys.readouterr().out)["source"]
    assert (source["width"], source["height"], source["name"]) == (1280, 720, "generated")
    assert source["codec"] == "h264" and source["has_audio"]


def test_the_clip_is_a_video_with_sound(tmp_path: Path) -> None:
    path = bench_clip.write_clip(tmp_path, 10)
    picture, sound = probe(path, "-show_streams", "-count_frames")["streams"]
    assert (picture["codec_name"], picture["width"], picture["height"]) == ("h264", 1280, 720)
    assert int(picture["nb_read_frames"]) == 10 and sound["codec_name"] == "aac"
    with open_source(path, 64) as source:
        pictures = [frame.image for frame in source]
    assert min(abs(a.astype(int) - b).mean() for a, b in itertools.pairwise(pictures)) > 1
