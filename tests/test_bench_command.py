"""`refavs-rt bench`: its table, and that the figures are those of what they name."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from refavs_rt import __version__, bench, bench_clip
from refavs_rt.bundle import Bundle, embedded_bundle
from refavs_rt.cli import main
from refavs_rt.demo import DEMO, Demo
from refavs_rt.engines.onnx import OnnxEngine
from refavs_rt.ingest import open_source

from .clips import probe
from .test_stream import make_clip

SLOWED_MS = {"vision": 4.0, "audio": 8.0, "step": 12.0}
FRAMES, WARM_UP = 7, 5
EDGE = Bundle.open(embedded_bundle())


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("bench") / "clip.mp4", seconds=FRAMES / 10)


def words(clip: Path, *more: str) -> list[str]:
    return ["bench", "--bundle", "edge", "--threads", "1", "--source", str(clip), *more]


def test_a_row_for_each_stage(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(clip, "--json")) == 0
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
    # What no sentence changes is seen in every pass.
    assert rows["decoding"]["frames"] == rows["step, 1 sentence"]["frames"] == FRAMES - WARM_UP
    assert (
        rows["vision"]["frames"]
        == rows["audio"]["frames"]
        == rows["encoding"]["frames"]
        == 4 * (FRAMES - WARM_UP)
    )
    for fps in told["fps"].values():
        assert list(fps) == ["1", "2", "4", "8"] and min(fps.values()) > 0
    assert told["bundle"]["digest"] == EDGE.digest and told["versions"]["refavs-rt"] == __version__
    assert told["engine"] == {"name": "onnx", "device": "CPU, 1 thread"}
    assert (told["source"]["width"], told["source"]["height"], told["source"]["codec"]) == (126, 90, "h264")
    assert "11 of 11: overlays for 8 sentences" in said.err


def test_the_table_has_machine_versions_and_columns(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "SENTENCES", (1, 2))
    assert main(words(clip)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"refavs-rt {__version__}, python 3.") and "cores usable" in lines[1]
    assert str(EDGE.path) in lines[2] and str(clip) in lines[3]
    rows = lines[lines.index("") + 2 : lines.index("", lines.index("") + 1)]
    assert all(re.fullmatch(r"\D.*? +[\d.]+ +[\d.]+ +\d+", row) for row in rows)
    assert len(rows) == 7 + 3 * 2
    assert len({len(line) for line in rows}) == 1, "columns stand below each other"
    assert re.fullmatch(r"file to overlay +[\d.]+ +[\d.]+", lines[-1])


def slowed(run: Callable[..., Any], by_ms: float) -> Callable[..., Any]:
    def slow(*arguments: Any) -> Any:
        time.sleep(by_ms / 1e3)
        return run(*arguments)

    return slow


def test_a_graph_is_timed_where_the_stream_runs_it(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is slowed by a time of its own, which its row has to show."""
    monkeypatch.setattr(bench, "SENTENCES", (1, 2))
    for graph, slower_ms in SLOWED_MS.items():
        monkeypatch.setattr(OnnxEngine, graph, slowed(getattr(OnnxEngine, graph), slower_ms))
    assert main(words(clip, "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    medians = {row["stage"]: row["median_ms"] for row in told["stages"]}
    for graph in ("vision", "audio"):
        assert medians[graph] >= SLOWED_MS[graph]
    for stage, median in medians.items():
        if stage.startswith("step"):
            assert median >= SLOWED_MS["step"]
    assert max(told["fps"]["results"].values()) <= 1e3 / sum(SLOWED_MS.values())


def test_ctrl_c_leaves_what_was_measured(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "SENTENCES", (1, 8))
    monkeypatch.setattr(bench, "_measure_overlay", interrupted)
    assert main(words(clip)) == 130
    said = capsys.readouterr()
    assert "step, 8 sentences" in said.out and "encoding" not in said.out
    assert said.err.endswith("interrupted\n")


@pytest.mark.parametrize(("seconds", "message"), [(0.3, "3 frames are too few"), (None, "nowhere.mp4")])
def test_a_source_that_does_not_serve_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seconds: float | None, message: str
) -> None:
    source = tmp_path / "nowhere.mp4"
    if seconds is not None:
        source = make_clip(tmp_path / "short.mp4", seconds=seconds)
    assert main(words(source)) == 1
    said = capsys.readouterr()
    (line,) = (line for line in said.err.splitlines() if line.startswith("error: "))
    assert message in line and said.out == ""


def test_without_a_source_it_makes_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "FRAMES", 7)
    monkeypatch.setattr(bench, "SENTENCES", (1,))
    assert main(["bench", "--bundle", "edge", "--threads", "1", "--json"]) == 0
    source = json.loads(capsys.readouterr().out)["source"]
    assert (source["width"], source["height"], source["name"]) == (1280, 720, "the demo clip, enlarged")
    assert source["codec"] == "h264" and source["has_audio"]


def test_the_clip_is_a_video_with_sound(tmp_path: Path) -> None:
    path = bench_clip.write_clip(tmp_path, 10)
    picture, sound = probe(path, "-show_streams", "-count_frames")["streams"]
    assert (picture["codec_name"], picture["width"], picture["height"]) == ("h264", 1280, 720)
    assert int(picture["nb_read_frames"]) == 10 and sound["codec_name"] == "aac"
    demo = Image.fromarray(picture_of(Demo.read(DEMO).clip)).resize((1280, 720), Image.Resampling.BILINEAR)
    assert abs(picture_of(path).astype(int) - np.asarray(demo)).mean() < 10


def picture_of(path: Path) -> NDArray[np.uint8]:
    with open_source(path, 64) as source:
        return next(source).image
