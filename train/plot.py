"""`python -m train plot RUN`: the curves of a run as one picture, also while it is going on."""

from __future__ import annotations

import argparse
import json
import math
import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refavs_rt.model.run_folder import CheckpointError

from .checkpoint import CURVES, LOSSES, METRICS, SKIPPED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NO_PART = frozenset({"step", "rate", "grad_norm"})
"""What a line of the loss curve holds beside the parts of the loss."""
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b")
"""Told apart by colour-blind people too (Okabe and Ito); further lines are dashed."""
_SMOOTH = 60
"""Points of a smoothed curve that do not overlap."""
_PNG = ".png"


def add_parser(subparsers: Any) -> None:
    """Add the subcommand `plot`."""
    parser = subparsers.add_parser(
        "plot",
        help="the curves of a run as a picture",
        description="Draw loss, validation, step size and skipped steps of a run, also while it is going on.",
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("--out", type=_png, default=None, metavar="PNG", help=f"default: RUN/{CURVES}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw what `args` asks for; returns the exit code."""
    out = args.out or args.run_folder / CURVES
    plot(args.run_folder, out)
    print(f"wrote {out}")
    return 0


def plot(run_folder: Path, out: Path) -> None:
    """Draw the parts of the loss, the scores, the step size and the skipped steps of a run into the PNG `out`.

    The file is replaced in one move. Lines that a killed run has not finished are left out.

    Raises:
        CheckpointError: the run has no curves yet.
        ModuleNotFoundError: matplotlib is not installed.
        OSError: `out` cannot be written.
    """
    from matplotlib.figure import Figure

    losses, metrics, skipped = (_rows(run_folder / name) for name in (LOSSES, METRICS, SKIPPED))
    if not (losses or metrics or skipped):
        raise CheckpointError(f"{run_folder / LOSSES} is missing or empty: nothing to draw yet")
    figure = Figure(figsize=(15, 8.5), layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=(3, 1.3), sharex=True)
    last = max(int(row["step"]) for row in (*losses, *metrics, *skipped))
    axes[0, 0].set_xlim(0, 1.01 * last)
    for panel, draw, rows in (
        (axes[0, 0], _draw_losses, losses),
        (axes[0, 1], _draw_scores, metrics),
        (axes[1, 0], _draw_rate, losses),
        (axes[1, 1], _draw_skipped, skipped),
    ):
        draw(panel, rows)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.set_major_formatter("{x:,.0f}")
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("step")
    figure.suptitle(f"{run_folder.resolve().name}, up to step {last:,}", fontweight="bold", x=0.01, ha="left")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    figure.savefig(partial, dpi=100, format="png")
    os.replace(partial, out)


def _draw_losses(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """The total in black, every part that any row has in colours, the largest at last first."""
    axes.set_title("loss: smoothed, each part as weighted", loc="left")
    steps, curves = _curves(rows, lambda name: name not in _NO_PART)
    _log_scale(axes, curves.values())
    smooth = {name: _smooth(curve, max(1, len(steps) // _SMOOTH)) for name, curve in curves.items()}
    colours = iter(range(len(curves)))
    for name in sorted(curves, key=lambda name: (name != "total", -_last(smooth[name]))):
        style = {"color": "black"} if name == "total" else _style(next(colours))
        axes.plot(steps, curves[name], **style, linewidth=0.6, alpha=0.25)
        label = f"{_last(smooth[name]):.3f}  {name.replace('_', ' ')}"
        axes.plot(steps, smooth[name], **style, linewidth=1.6, marker=_marker(steps), label=label)
    _legend(axes, "no loss yet")


def _draw_scores(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """J by kind in colours, the highest at last first; the others in black."""
    axes.set_title("validation: J by kind; S null and J sound muted are better low", loc="left")
    axes.set_ylim(0, 1)
    steps, curves = _curves(rows, lambda name: name.startswith(("J", "S_")) or name.endswith("_accuracy"))
    plain = [name for name in curves if name.startswith("J") and not name.endswith("_muted")]
    names = sorted(plain, key=lambda name: -_last(curves[name]))
    names += [name for name in curves if name not in plain]
    for i, name in enumerate(names):
        style = _style(i)
        if i >= len(plain):
            style = {"color": "black", "linestyle": ("--", ":", "-.")[(i - len(plain)) % 3]}
        label = f"{_last(curves[name]):.3f}  {name.replace('_', ' ')}"
        axes.plot(steps, curves[name], **style, marker="o", markersize=3.5, linewidth=1.5, label=label)
    _legend(axes, "no validation yet")


def _draw_rate(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    axes.set_title("step size, and norm of the gradient before it is cut", loc="left", pad=16)
    steps, curves = _curves(rows, lambda name: name in ("rate", "grad_norm"))
    if "rate" in curves:
        axes.plot(steps, curves["rate"], color=_COLOURS[0], marker=_marker(steps), label="step size (left)")
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        axes.set_ylim(bottom=0)
    if "grad_norm" in curves:
        right = axes.twinx()
        right.plot(steps, curves["grad_norm"], color=_COLOURS[1], marker=_marker(steps), linewidth=0.7)
        _log_scale(right, [curves["grad_norm"]])
        right.spines[["top"]].set_visible(False)
        axes.plot([], [], color=_COLOURS[1], label="norm (right)")
    _legend(axes, "no step yet", left=1.09)


def _draw_skipped(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title("steps that were left out, in all", loc="left", pad=16)
    axes.set_ylim(0, 1)
    reasons: dict[str, list[int]] = {}
    for row in rows:
        reasons.setdefault(str(row.get("why", "no reason given")), []).append(int(row["step"]))
    last = axes.get_xlim()[1]
    for i, (why, steps) in enumerate(reasons.items()):
        label = textwrap.fill(f"{len(steps)}  {why}", 24)
        counts = [0, *range(1, len(steps) + 1), len(steps)]
        axes.step([0, *sorted(steps), last], counts, where="post", **_style(i), label=label)
    axes.set_ylim(0, 1.1 * max(map(len, reasons.values()), default=1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes, "none")


def _marker(steps: NDArray[np.float64]) -> str:
    """A dot on each point where there are few: one alone makes no line."""
    return "." if len(steps) < _SMOOTH // 2 else ""


def _log_scale(axes: Axes, curves: Iterable[NDArray[np.float64]]) -> None:
    """Where there is anything that has a logarithm."""
    if any(((curve > 0) & np.isfinite(curve)).any() for curve in curves):
        axes.set_yscale("log")


def _legend(axes: Axes, otherwise: str, left: float = 1.0) -> None:
    """The legend at the right of the panel, or what there is to say without any line."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(left, 1.02))
    else:
        axes.text(0.5, 0.5, otherwise, transform=axes.transAxes, ha="center", va="center", color="0.4")


def _style(index: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "linestyle": ("-", "--", ":")[index // len(_COLOURS) % 3],
    }


def _curves(
    rows: Sequence[dict[str, Any]], wanted: Callable[[str], bool]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Steps [R], and [R] of each name that is wanted and has a number in some row; NaN where a row has none."""
    names = dict.fromkeys(
        name for row in rows for name, value in row.items() if wanted(name) and _is_number(value)
    )
    steps = np.array([row["step"] for row in rows], np.float64)
    return steps, {
        name: np.array([row[name] if _is_number(row.get(name)) else math.nan for row in rows])
        for name in names
    }


def _smooth(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The mean over `window` neighbours, fewer at the ends; what is no finite number is left out."""
    good = np.isfinite(values)
    kernel = np.ones(window)
    sums = np.convolve(np.where(good, values, 0), kernel, "same")
    counts = np.convolve(good.astype(np.float64), kernel, "same")
    return np.where(counts > 0, sums / np.maximum(counts, 1), math.nan)


def _last(values: NDArray[np.float64]) -> float:
    """The last finite value, NaN without one."""
    good = values[np.isfinite(values)]
    return float(good[-1]) if len(good) else math.nan


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a curve; none where there is no file."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and _is_number(row.get("step")):
            rows.append(row)
    return rows


def _png(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != _PNG:
        raise argparse.ArgumentTypeError(f"{text!r} does not end in {_PNG}")
    return path
