"""The curves of a run: every number that is in its files and no other, also from a run that is going on or was killed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from refavs_rt.train.checkpoint import CheckpointError
from refavs_rt.train.cli import main
from refavs_rt.train.plot import plot


def write(path: Path, rows: list[dict[str, Any]], tail: str = "") -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)


def loss_rows(count: int = 40) -> list[dict[str, Any]]:
    """Lines of a loss with parts of names that nobody has thought of; one appears late."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        parts = {"set_mask": float(rng.uniform(1, 2)), "of a new kind": float(rng.uniform(0.1, 0.2))}
        if i > 5:
            parts["late"] = 0.5
        row = {
            "step": 10 * (i + 1),
            "rate": 1e-4 * i,
            **parts,
            "total": sum(parts.values()),
            "grad_norm": 1.0 + i,
        }
        rows.append(row)
    return rows


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    real = Figure.savefig

    def save(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        real(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", save)
    return figures


def panel(figure: Figure, title: str) -> Axes:
    (found,) = (axes for axes in figure.axes if axes.get_title(loc="left").startswith(title))
    return found


def labels(axes: Axes) -> dict[str, str]:
    """Name -> the number before it in the legend."""
    legend = axes.get_legend()
    if legend is None:
        return {}
    texts = (text.get_text().split(maxsplit=1) for text in legend.get_texts())
    return {name: number for number, name in texts}


def test_every_part_of_the_loss_is_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = loss_rows()
    write(tmp_path / "loss.jsonl", rows)
    plot(tmp_path, tmp_path / "curves.png")
    axes = panel(drawn[0], "loss")
    assert list(labels(axes)) == ["total", "set mask", "late", "of a new kind"]
    assert labels(axes)["late"] == "0.500" and axes.get_yscale() == "log"
    raw = {tuple(np.nan_to_num(line.get_ydata(), nan=-1)) for line in axes.get_lines()}
    for name in ("total", "set_mask", "late", "of a new kind"):
        assert tuple(row.get(name, -1) for row in rows) in raw
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG" and image.width == 1_500


def test_a_long_curve_is_smoothed_by_a_running_mean(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = loss_rows(300)
    rows[100]["total"] = math.nan
    write(tmp_path / "loss.jsonl", rows)
    plot(tmp_path, tmp_path / "curves.png")
    (line,) = (x for x in panel(drawn[0], "loss").get_lines() if str(x.get_label()).endswith("total"))
    smooth, values = np.asarray(line.get_ydata()), [row["total"] for row in rows]
    assert smooth[150] == pytest.approx(np.mean(values[148:153]))
    assert smooth[0] == pytest.approx(np.mean(values[:3]))
    assert smooth[100] == pytest.approx(np.mean([*values[98:100], *values[101:103]]))


def test_scores_step_size_and_skipped_steps(tmp_path: Path, drawn: list[Figure]) -> None:
    write(tmp_path / "loss.jsonl", loss_rows())
    metrics = [
        {"step": 200, "seconds": 9.0, "J_name": 0.2, "J_sound_muted": 0.1, "S_null": 0.4},
        {"step": 400, "seconds": 9.0, "J_name": 0.3, "J_expression": 0.7, "presence_accuracy": 0.8},
    ]
    write(tmp_path / "metrics.jsonl", metrics)
    skipped = [{"step": n, "why": why, "samples": []} for n, why in ((7, "clip"), (9, "loss"), (30, "clip"))]
    write(tmp_path / "skipped.jsonl", skipped)
    plot(tmp_path, tmp_path / "curves.png")
    assert labels(panel(drawn[0], "validation")) == {
        "J expression": "0.700",
        "J name": "0.300",
        "J sound muted": "0.100",
        "S null": "0.400",
        "presence accuracy": "0.800",
    }
    assert labels(panel(drawn[0], "steps that were left out")) == {"clip": "2", "loss": "1"}
    clip = panel(drawn[0], "steps that were left out").get_lines()[0]
    assert list(zip(clip.get_xdata(), clip.get_ydata(), strict=True))[:3] == [(0, 0), (7, 1), (30, 2)]
    rate = panel(drawn[0], "step size").get_lines()[0]
    assert np.allclose(rate.get_ydata(), [1e-4 * i for i in range(40)])


def test_a_run_that_is_going_on(tmp_path: Path, drawn: list[Figure]) -> None:
    """No validation yet, one line of the loss, and a second that is being written."""
    write(tmp_path / "loss.jsonl", loss_rows(1), tail='{"step": 20, "total": 1.')
    plot(tmp_path, tmp_path / "curves.png")
    (line,) = (x for x in panel(drawn[0], "loss").get_lines() if str(x.get_label()).endswith("total"))
    assert list(np.asarray(line.get_xdata())) == [10] and line.get_marker() == "."
    said = [text.get_text() for text in panel(drawn[0], "validation").texts]
    assert said == ["no validation yet"]


def test_a_run_with_validations_alone(tmp_path: Path, drawn: list[Figure]) -> None:
    write(tmp_path / "metrics.jsonl", [{"step": 5, "J_name": 0.5}], tail="[1]\n5\n\n")
    plot(tmp_path, tmp_path / "curves.png")
    assert labels(panel(drawn[0], "validation")) == {"J name": "0.500"}


def test_values_without_a_logarithm(tmp_path: Path) -> None:
    row = {
        "step": 10,
        "total": 0.0,
        "bad": math.inf,
        "rate": 0.0,
        "grad_norm": math.nan,
        "text": "x",
        "yes": True,
    }
    write(tmp_path / "loss.jsonl", [row])
    plot(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


def test_the_picture_before_stays_where_drawing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "loss.jsonl", loss_rows(3))
    plot(tmp_path, tmp_path / "curves.png")
    before = (tmp_path / "curves.png").read_bytes()

    def full_disk(figure: Figure, path: Path, **options: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="No space"):
        plot(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == before


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "loss.jsonl", loss_rows(3))
    assert main(["plot", str(tmp_path)]) == 0
    assert (tmp_path / "curves.png").exists()
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "new" / "a.PNG")]) == 0
    assert (tmp_path / "new" / "a.PNG").exists()
    assert main(["plot", str(tmp_path / "nowhere")]) == 1
    assert "nothing to draw yet" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plot", str(tmp_path), "--out", "a.svg"])
    assert "does not end in .png" in capsys.readouterr().err


def test_an_empty_run_has_nothing_to_draw(tmp_path: Path) -> None:
    (tmp_path / "loss.jsonl").write_text("")
    with pytest.raises(CheckpointError, match="nothing to draw yet"):
        plot(tmp_path, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
