"""What an experiment writes: the table, the page that keeps what a person wrote, the picture."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refavs_rt.dataset import DataError
from refavs_rt.train.ablate.bootstrap import Comparison, Estimate, compare
from refavs_rt.train.ablate.chart import write_chart
from refavs_rt.train.ablate.observation import ALL, NULL, Experiment, Matrix, Observation
from refavs_rt.train.ablate.table import BEGIN, END, UNREAD, read_reading, write_tables

ROWS = [
    Comparison("as it is", ALL, 12, 7, Estimate(0.61234567, 0.5, 0.7), None, "baseline"),
    Comparison("a | b", ALL, 11, 7, Estimate(0.5, 0.4, 0.6), Estimate(-0.1123, -0.2, -0.02), "lower"),
    Comparison("as it is", NULL, 3, 2, Estimate(0.9, None, None), None, "baseline"),
    Comparison("a | b", NULL, 3, 2, Estimate(1.0, None, None), Estimate(0.1, None, None), "too few clips"),
]


def experiment(**more: object) -> Experiment:
    values = {"notes": ["a note", "a fact"], "axis": None, "observations": [], **more}
    return Experiment(name="try", title="A try", measure="J", baseline="as it is", **values)


def test_csv_and_markdown(tmp_path: Path) -> None:
    write_tables(tmp_path, experiment(), ROWS, ["a fact", "another fact"])
    with (tmp_path / "try.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["condition"] for line in lines] == ["as it is", "a | b"] * 2
    assert lines[0]["mean"] == "0.61235" and lines[0]["difference"] == lines[0]["difference_low"] == ""
    numbers = {
        key: float(value) for key, value in lines[1].items() if key not in ("condition", "group", "verdict")
    }
    assert numbers == {
        "expressions": 11,
        "clips": 7,
        "mean": 0.5,
        "low": 0.4,
        "high": 0.6,
        "difference": -0.1123,
        "difference_low": -0.2,
        "difference_high": -0.02,
    }
    assert lines[3]["low"] == "" and lines[3]["verdict"] == "too few clips"

    page = (tmp_path / "try.md").read_text()
    assert page.startswith(f"# A try\n\n{BEGIN}\n{UNREAD}\n{END}\n\n![A try](try.png)\n")
    assert r"| a \| b | 11 | 7 | 0.500 | 0.400 to 0.600 | -0.112 | -0.200 to -0.020 | lower |" in page
    assert r"| a \| b | 3 | 2 | 1.000 |  | +0.100 |  | too few clips |" in page
    assert page.count("- a fact\n") == 1 and page.endswith("- another fact\n- a note\n")
    assert page.index("## All expressions") < page.index("## Expressions that nothing fits")
    assert "of the 2 differences here" in page and "“as it is”" in page
    for line in page.splitlines():
        if line.startswith("| "):
            assert line.replace(r"\|", "").count("|") == 9


def test_the_reading_is_kept(tmp_path: Path) -> None:
    write_tables(tmp_path, experiment(), ROWS, [])
    page = tmp_path / "try.md"
    page.write_text(page.read_text().replace(UNREAD, "Noise costs *much*.\n\nSo it is."))
    write_tables(tmp_path, experiment(), ROWS[:2], [])
    assert read_reading(page) == "Noise costs *much*.\n\nSo it is."
    before = page.read_bytes()
    write_tables(tmp_path, experiment(), ROWS[:2], [])
    assert page.read_bytes() == before


@pytest.mark.parametrize("mark", [BEGIN, END])
def test_a_lost_mark_is_told_before_anything_is_overwritten(tmp_path: Path, mark: str) -> None:
    write_tables(tmp_path, experiment(), ROWS, [])
    page = tmp_path / "try.md"
    page.write_text(page.read_text().replace(mark, ""))
    (tmp_path / "try.csv").write_text("mine")
    with pytest.raises(DataError, match=f"{page} has lost its mark {mark}.*put it back"):
        write_tables(tmp_path, experiment(), ROWS, [])
    assert (tmp_path / "try.csv").read_text() == "mine"


def observations(groups: list[str], conditions: list[str], clips: int = 8) -> list[Observation]:
    rng = np.random.default_rng(0)
    return [
        Observation(c, g, f"{i}", float(rng.random()))
        for g in groups
        for c in conditions
        for i in range(clips)
    ]


def drawn(folder: Path, experiment: Experiment) -> Image.Image:
    write_chart(folder, experiment, compare(experiment, resamples=100))
    with Image.open(folder / "try.png") as image:
        return image.convert("RGB")


MATRIX: Matrix = (["cat", "dog"], ["cat", "dog", "none of the two, or another"], [[0.5, 0.5, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("groups", "matrix"),
    [(["all"], MATRIX), (["all", "name", "null"], None), ([f"kind {i}" for i in range(11)], None)],
)
def test_panels(tmp_path: Path, groups: list[str], matrix: Matrix | None) -> None:
    """A panel for each group, wider with a matrix beside; nothing warns."""
    conditions = ["as it is", "b", "a condition with a rather long name"]
    found = observations(groups, conditions)
    image = drawn(tmp_path, experiment(observations=found, matrix=matrix))
    assert image.width > 250 + 220 * min(len(groups), 5) + (300 if matrix else 0)
    assert image.height > 200 * -(-len(groups) // 5)


def test_panels_grow_with_their_conditions(tmp_path: Path) -> None:
    conditions = ["as it is", *map(str, range(22))]
    heights = [
        drawn(tmp_path, experiment(observations=observations(["all"], c))).height
        for c in (conditions[:3], conditions)
    ]
    assert heights[1] > heights[0] + 400


def test_verdicts_have_their_colours(tmp_path: Path) -> None:
    """Lower is orange, higher blue, the baseline black."""
    shifts = {"as it is": 0.5, "worse": 0.2, "better": 0.8}
    found = [Observation(c, "all", f"{i}", x + i / 100) for c, x in shifts.items() for i in range(8)]
    wanted = {"worse": (0xD5, 0x5E, 0), "better": (0, 0x72, 0xB2)}
    for left_out in (None, "worse", "better"):
        image = drawn(tmp_path, experiment(observations=[o for o in found if o.condition != left_out]))
        colours = {colour for _, colour in image.getcolors(1 << 24) or []}
        for condition, colour in wanted.items():
            assert (colour in colours) is (condition != left_out)


def test_lines_along_an_axis(tmp_path: Path) -> None:
    """With a condition that has no place on the axis, groups more than colours, and one clip alone."""
    conditions = ["as it is", "10 s", "30 s", "90 s"]
    found = observations(["all"], conditions)
    x = {"10 s": 10.0, "30 s": 30.0, "90 s": 90.0}
    line = drawn(tmp_path, experiment(observations=found, axis="seconds", x=x))
    many = observations([f"kind {i}" for i in range(10)], conditions, clips=1)
    with_matrix = drawn(tmp_path, experiment(observations=many, axis="seconds", x=x, matrix=MATRIX))
    assert with_matrix.width > line.width > 500
