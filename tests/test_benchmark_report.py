"""The report from figures made up here: its ratios are those that a reader would take from the same seconds by hand."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.report import ENGINES_PLOT, LENGTH_PLOT, PAGE, SENTENCES_PLOT, ReportError, main, write_report
from benchmarks.results import Results

MACHINE = {
    "name": "Made-up CPU 3000",
    "cores": 2,
    "memory_gib": 16.0,
    "platform": "Linux",
    "python": "3.11",
    "torch_threads": 2,
}


def row(median: float) -> dict[str, Any]:
    return {"median": median, "p95": 1.5 * median, "min": 0.9 * median, "rounds": 9}


def clip(scale: float) -> dict[str, float]:
    """100 seconds of a clip of 10 frames at scale 1, of which 20 are for nothing."""
    parts = {"backbone": 30.0, "unused decoders": 20.0, "sentence": 1.0, "sound": 2.0, "cues": 3.0}
    parts |= {"backbone again": 29.0, "pixel decoder": 10.0, "mask decoder": 5.0}
    return {part: scale * seconds for part, seconds in parts.items()}


def published(preset: str) -> dict[str, Any]:
    return {
        "preset": preset,
        "threads": 2,
        "frames_at_once": 10,
        "clip_frames": 10,
        "clips": [clip(1.0), clip(1.1), clip(0.9)],  # the median is 1
        "windows": [clip(1.0), clip(1.2)],  # the median is 1.1
        "ours": {
            "onnx": {"1": row(2.0), "2": row(2.5), "4": row(3.2), "8": row(4.0)},
            "torch": {"1": row(5.0), "8": row(12.0)},
        },
        "vision": {"onnx": row(1.5), "torch": row(3.0)},
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path / "results")


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the figures as they are."""
    folder = tmp_path_factory.mktemp("report")
    return write_report(write_results(folder / "results"), folder / "docs").parent


@pytest.fixture
def page(docs: Path) -> str:
    return (docs / PAGE).read_text()


def write_results(folder: Path) -> Path:
    kept = Results(folder, MACHINE)
    for preset in ("full", "edge"):
        name = f"test_published.py::test_beside_the_published_flow[{preset}]"
        kept.add(name, [2.0, 2.0], published(preset))
    for sentences, last in ((1, 0.0205), (8, 0.061)):
        by_length = {"10": row(0.02), "60": row(0.021), "600": row(last)}
        if sentences == 8:
            by_length |= {"10": row(0.06), "60": row(0.06)}
        info = {"sentences": sentences, "seconds_by_length": by_length}
        kept.add(f"test_length.py::test_length_of_stream[{sentences}]", [0.02], info)
        engines = {"onnx": row(0.02 * sentences), "torch": row(0.05 * sentences)}
        kept.add(
            f"test_engines.py::test_onnx_runtime_beside_torch_eager[{sentences}]",
            [0.02],
            {"sentences": sentences, "engines": engines},
        )
    kept.add("test_stages.py::test_graph[vision]", [0.007, 0.008, 0.012], {})
    kept.add("test_stages.py::test_end_to_end[8]", [5.0], {"frames": 100})
    kept.add("test_full.py::test_full_frame", [1.25], {})
    kept.add(
        "test_full.py::test_full_vision",
        [1.2],
        {"torch_s": 2.4, "onnx_s": 1.2, "torch_to_onnx": 2.0, "gflop": 90.0, "product_gflop_per_s": 100.0},
    )
    kept.add("test_stages.py::test_around_the_graphs", [3.0], {"frame_ms": 30.0, "around_ms": 0.58})
    kept.add("test_stages.py::test_queue", [0.02], {"items": 2_000})
    kept.add("test_stages.py::test_masks[1]", [0.001], {})
    kept.add("test_stages.py::test_overlay[1]", [0.002], {})
    kept.add("test_stages.py::test_encode", [0.4], {"frames": 50})
    kept.add("test_stages.py::test_start_up", [1.5], {})
    for size, scale in (("1920x1080", 2.0), ("1280x720", 1.0)):
        for threads in (1, 2):
            ms = {"ours": 4.0 * scale / threads, "PyAV": 8.0 * scale}
            kept.add(f"test_ingest.py::test_frames[{size}-{threads}]", [1.0], {"ms": ms})
    hop = {"stream_us": 20.0, "torch_us": 300.0, "ratio": 15.0}
    kept.add("test_ingest.py::test_a_hop_of_log_mel", [0.00002], hop)
    kept.add("test_ingest.py::test_packet_to_tensor", [4.0], {"p50_ms": 1.5, "p95_ms": 2.5})
    return folder


def cells(page: str, section: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`, in the part of the page below the heading or table head `section`."""
    below = page[page.index(section) :]
    line = next(line for line in below.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_ratios(page: str) -> None:
    """By hand, one sentence: 80 s of 10 frames with two backbone passes are 8 s a frame; ours 2 s: 4 times. Eight: 64 over 4."""
    for preset in ("full", "edge"):
        section = f"### `{preset}`"
        assert cells(page, section, "published flow, best case") == ["8,000", "16,000", "32,000", "64,000"]
        assert cells(page, section, "the same, as published") == ["10,000", "20,000", "40,000", "80,000"]
        assert cells(page, section, "**faster than the best case**") == ["4.00x", "6.40x", "10.0x", "16.0x"]
        # 1.1 x 80 s for each new frame: 88 over 2, and 704 over 4
        assert cells(page, section, "published flow, live") == ["88,000", "176,000", "352,000", "704,000"]
        assert cells(page, section, "**faster than live**") == ["44.0x", "70.4x", "110.0x", "176.0x"]
        # 30 + 1 + 2 + 3 for the window, and a tenth of 29 + 10 + 5: 40.4, times 1.1
        newest = cells(page, section, "live, if the second pass were for the new frame alone")
        assert newest[0] == "44,440"
    # in torch eager 8 over 5, and 64 over 12
    assert cells(page, "### What the compiler", "`full`, 1 sentence") == ["4.00x", "2.00x", "2.00x", "1.60x"]
    assert cells(page, "### What the compiler", "`full`, 8 sentences") == ["16.0x", "2.00x", "8.00x", "5.33x"]
    assert cells(page, "### Where the", "`full`") == [
        "3,000",
        "2,000",
        "100",
        "200",
        "300",
        "2,900",
        "1,000",
        "500",
    ]


def test_goals(page: str, results: Path, tmp_path: Path) -> None:
    assert cells(page, "goal for", "best case, 1 sentence") == ["3.50x", "4.00x", "met"]
    assert cells(page, "goal for", "best case, 8 sentences") == ["15.0x", "16.0x", "met"]
    assert cells(page, "goal for", "live, 1 sentence") == ["30.0x", "44.0x", "met"]

    slower = published("full")
    slower["ours"]["onnx"]["1"] = row(2.5)
    kept = Results(results, MACHINE)
    kept.add("test_published.py::test_beside_the_published_flow[full]", [2.0], slower)
    missed = write_report(results, tmp_path / "docs").read_text()
    assert cells(missed, "goal for", "best case, 1 sentence") == ["3.50x", "3.20x", "missed"]
    assert cells(missed, "goal for", "live, 1 sentence") == ["30.0x", "35.2x", "met"]


def test_lengths_and_engines(page: str) -> None:
    assert cells(page, "## Against the length", "1 sentence") == ["20.0", "21.0", "20.5", "+2.5%"]
    assert cells(page, "## Against the length", "8 sentences") == ["60.0", "60.0", "61.0", "+1.7%"]
    assert "Cost per frame is constant: +2.5% at most from 10 s to 10 min." in page
    assert cells(page, "## By engine", "edge, a frame, 8 sentences") == ["160", "400", "2.50x"]
    assert cells(page, "## By engine", "full, vision graph alone") == ["1,500", "3,000", "2.00x"]


def test_a_growing_cost_is_said(results: Path, tmp_path: Path) -> None:
    kept = Results(results, MACHINE)
    rows = {"10": row(0.02), "60": row(0.03), "600": row(0.2)}
    kept.add("test_length.py::test_length_of_stream[1]", [0.02], {"sentences": 1, "seconds_by_length": rows})
    page = write_report(results, tmp_path / "docs").read_text()
    assert "Cost per frame is not constant: +900.0% at most" in page


def test_stages_and_the_machine(page: str) -> None:
    assert cells(page, "## `edge`, stage", "vision graph") == ["8.00", "11.6", "3"]
    assert cells(page, "from end to end", "the demo clip's file to masks, 8 sentences") == [
        "100",
        "50.0",
        "20.0",
    ]
    assert cells(page, "## `full`, stage", "a frame, 1 sentence") == ["1,250", "1,250", "1"]
    assert "Made-up CPU 3000, 2 cores usable, 16 GiB" in page
    assert re.search(r"torch \d+\.\d+", page) and re.search(r"Commit `\w+`", page)


def test_what_comes_beside_the_graphs(page: str) -> None:
    """By hand: 0.58 + 2 x 0.01 of 30.02 are 2.0%; 4 + 1 + 2 + 8 are 15 of 45."""
    text = " ".join(page.split())
    assert "30.0 ms that a frame with one sentence takes in a session, 0.58 are not" in text
    assert "The 2 queues of a stream add 0.02: together 2.0%." in text
    assert (
        "decoding and scaling 4.00, masks 1.00, drawing 2.00, encoding 8.00; together 33% of the work" in text
    )
    assert "to its first mask, written to a pipe: 1.50 s." in text


def test_ingestion(page: str) -> None:
    assert cells(page, "## Ingestion", "1920x1080, 2 threads") == ["4.00 (1.00x)", "16.0 (4.00x)"]
    assert cells(page, "## Ingestion", "1280x720, 1 thread") == ["4.00 (1.00x)", "8.00 (2.00x)"]
    text = " ".join(page.split())
    assert "takes 20.0 microseconds; the whole window anew in torch 300: 15.0x." in text
    assert "1.50 ms in the median, 2.50 at the 95th percentile" in text


def test_what_arithmetic_allows(page: str) -> None:
    text = " ".join(page.split())
    assert "2,400 ms in torch eager and 1,200 in ONNX Runtime, in turns in one run: a ratio of 2.00." in text
    assert "are 90.0 GFLOP, and one large product in torch reached 100 GFLOP a second" in text
    assert "at that rate they alone take 900 ms" in text


def test_plots(docs: Path, page: str) -> None:
    for name in (SENTENCES_PLOT, LENGTH_PLOT, ENGINES_PLOT):
        assert f"]({name})" in page
        with Image.open(docs / name) as picture:
            colours = picture.convert("RGB").getcolors(1 << 20)
            assert picture.width > 500 and colours is not None and len(colours) > 50


def test_what_was_not_measured_is_left_out(results: Path, tmp_path: Path) -> None:
    path = Results(results, MACHINE).path
    kept = json.loads(path.read_text())
    kept["benchmarks"] = {name: x for name, x in kept["benchmarks"].items() if name.startswith("test_stages")}
    path.write_text(json.dumps(kept))
    page = write_report(results, tmp_path / "docs")
    assert "published" not in page.read_text() and not list(page.parent.glob("*.png"))


def test_which_machine(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Results(results, MACHINE).path.parent
    assert folder.name == "made-up-cpu-3000-2-cores"
    with pytest.raises(ReportError, match="no figures"):
        write_report(tmp_path / "nowhere", tmp_path)
    shutil.copytree(folder, results / "another")
    (results / "card").mkdir()
    (results / "card" / "results.json").write_text('{"ops": []}')  # of `make gpu`: another form
    arguments = ["--results", str(results), "--out", str(tmp_path / "docs")]
    assert main(arguments) == 2
    assert "another, made-up-cpu-3000-2-cores" in capsys.readouterr().err
    assert main([*arguments, "--machine", folder.name]) == 0
