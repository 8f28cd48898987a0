"""An experiment as a picture, NAME.png: means with their 95% intervals."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bootstrap import Comparison, Verdict
from .observation import Experiment, Matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
"""Told apart by colour-blind people too (Okabe and Ito)."""
_MARKERS = "os^Dv<>P"
_VERDICTS: dict[Verdict, tuple[str, str, str]] = {
    "baseline": ("#000000", "D", "baseline"),
    "lower": ("#d55e00", "v", "lower than the baseline"),
    "higher": ("#0072b2", "^", "higher than the baseline"),
    "no difference shown": ("#7f7f7f", "o", "no difference shown"),
    "too few clips": ("#7f7f7f", "x", "too few clips"),
    "not compared": ("#7f7f7f", "x", "not compared"),
}
"""Colour, marker and words: the marker says the same as the colour."""
_PANELS_ACROSS = 5
_DPI = 110
_WRITTEN_CELLS = 15
"""A matrix with at most so many rows and columns has its numbers written in it."""


def write_chart(out: Path, experiment: Experiment, comparisons: Sequence[Comparison]) -> None:
    """Draw NAME.png into the folder `out`: lines along the axis where there is one, else a panel for each group.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(c.group for c in comparisons))
    conditions = list(dict.fromkeys(c.condition for c in comparisons))
    across = 1 if experiment.axis else min(len(groups), _PANELS_ACROSS)
    down = 1 if experiment.axis else -(-len(groups) // across)
    width, height = (8.5, 5.0) if experiment.axis else (2.6 + 2.3 * across, 1.5 + down * _panel(conditions))
    beside = 0.0
    if experiment.matrix:
        beside = 2.5 + 0.45 * max(3, len(experiment.matrix[1]))
        height = max(height, 2.0 + 0.4 * len(experiment.matrix[0]))
    figure = Figure(figsize=(width + beside, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(experiment.title, max(24, int((width + beside) * 9))), fontsize=13)
    plots: Any = figure
    if experiment.matrix:
        halves: Any = figure.subfigures(1, 2, width_ratios=[width, beside])
        plots = halves[0]
        _matrix(halves[1].subplots(), experiment.matrix)
    if experiment.axis:
        _lines(plots.subplots(), experiment, comparisons, groups)
    else:
        axes = plots.subplots(down, across, sharey=True, squeeze=False).ravel()
        for ax, group in zip(axes, groups, strict=False):
            _panel_of(ax, experiment, [c for c in comparisons if c.group == group], conditions)
            ax.set_title(group, fontsize=10)
            ax.locator_params(axis="x", nbins=5)
        for ax in axes[len(groups) :]:
            ax.set_visible(False)
        for ax in axes[max(0, len(groups) - across) : len(groups)]:
            ax.set_xlabel(experiment.measure, fontsize=9)
        _legend(plots, comparisons)
    figure.savefig(out / f"{experiment.name}.png")


def _panel(conditions: Sequence[str]) -> float:
    """Height of a panel in inches."""
    return 0.9 + 0.24 * len(conditions)


def _panel_of(
    ax: Axes, experiment: Experiment, comparisons: Sequence[Comparison], conditions: Sequence[str]
) -> None:
    """One group: a condition a row, a level line where the baseline is."""
    for c in comparisons:
        colour, marker, _ = _VERDICTS[c.verdict]
        y = conditions.index(c.condition)
        ax.errorbar(
            c.estimate.mean,
            y,
            xerr=_bars(c),
            fmt=marker,
            color=colour,
            markersize=5,
            elinewidth=1.4,
            capsize=2,
        )
        if c.condition == experiment.baseline:
            ax.axvline(c.estimate.mean, color="#000000", linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(conditions)), conditions, fontsize=8)
    ax.set_ylim(len(conditions) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=4)
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(axis="x", color="#e0e0e0", linewidth=0.6)
    ax.set_axisbelow(True)


def _legend(figure: Any, comparisons: Sequence[Comparison]) -> None:
    from matplotlib.lines import Line2D

    present = {c.verdict for c in comparisons}
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=label)
        for verdict, (colour, marker, label) in _VERDICTS.items()
        if verdict in present
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)


def _lines(
    ax: Axes, experiment: Experiment, comparisons: Sequence[Comparison], groups: Sequence[str]
) -> None:
    """A line a group along the numeric axis, its points moved apart a little so that their intervals are seen."""
    places = sorted({experiment.x[c.condition] for c in comparisons if c.condition in experiment.x})
    step = min((b - a for a, b in itertools.pairwise(places)), default=1.0)
    for number, group in enumerate(groups):
        colour = _COLOURS[number % len(_COLOURS)]
        shift = (number - (len(groups) - 1) / 2) * 0.3 * step / max(len(groups), 3)
        of_group = [c for c in comparisons if c.group == group]
        placed = sorted(
            (c for c in of_group if c.condition in experiment.x), key=lambda c: experiment.x[c.condition]
        )
        for c in of_group:
            if c.condition not in experiment.x:
                ax.axhline(c.estimate.mean, color=colour, linewidth=0.9, linestyle=":")
                ax.annotate(
                    c.condition, (0.01, c.estimate.mean), xycoords=("axes fraction", "data"), fontsize=7
                )
        ax.plot(
            [experiment.x[c.condition] + shift for c in placed],
            [c.estimate.mean for c in placed],
            color=colour,
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=5,
            linewidth=1.4,
            linestyle="-" if number < len(_COLOURS) else "--",
            label=group,
        )
        for c in placed:
            ax.errorbar(
                experiment.x[c.condition] + shift, c.estimate.mean, yerr=_bars(c), color=colour, capsize=2
            )
    ax.set_xticks(places, [f"{place:g}" for place in places])
    ax.set_xlabel(str(experiment.axis))
    ax.set_ylabel(experiment.measure)
    ax.grid(color="#e0e0e0", linewidth=0.6)
    ax.set_axisbelow(True)
    if len(groups) > 1:
        ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _bars(c: Comparison) -> list[list[float]] | None:
    """Lengths of the interval's two arms; None where there is no interval."""
    estimate = c.estimate
    if estimate.low is None or estimate.high is None:
        return None
    return [[max(0.0, estimate.mean - estimate.low)], [max(0.0, estimate.high - estimate.mean)]]


def _matrix(ax: Axes, matrix: Matrix) -> None:
    rows, columns, shares = matrix
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(columns)), [textwrap.fill(c, 18) for c in columns], rotation=90, fontsize=8)
    ax.set_yticks(range(len(rows)), [textwrap.fill(r, 24) for r in rows], fontsize=8)
    ax.set_ylabel("meant", fontsize=9)
    ax.set_xlabel("taken for it", fontsize=9)
    if max(len(rows), len(columns)) <= _WRITTEN_CELLS:
        for i, row in enumerate(shares):
            for j, share in enumerate(row):
                colour = "white" if share > 0.6 else "black"
                ax.text(
                    j,
                    i,
                    "" if math.isnan(share) else f"{share:.2f}",
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=7,
                )
