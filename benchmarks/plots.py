"""The plots of docs/benchmarks.md."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OURS, _BEST, _LIVE, _GREY = "#0072b2", "#e69f00", "#d55e00", "#7f7f7f"
"""Told apart by colour-blind people too (Okabe and Ito)."""


def plot_sentences(comparisons: Mapping[str, Comparison], out: Path) -> None:
    """Milliseconds a frame against the number of sentences, a panel for each preset."""
    figure = _figure(max(7.0, 5.2 * len(comparisons)), 4.0)  # room for the legend
    panels = figure.subplots(1, len(comparisons), squeeze=False)[0]
    for axes, (preset, figures) in zip(panels, comparisons.items(), strict=True):
        counts = figures.sentences
        lines: dict[str, tuple[list[float], str, str]] = {
            "published flow, live": ([figures.live_ms(n) for n in counts], _LIVE, "s"),
            "published flow, its best case": ([figures.clip_ms(n) for n in counts], _BEST, "^"),
            "ours": ([figures.ours_ms(n) or 0.0 for n in counts], _OURS, "o"),
        }
        for label, (values, colour, marker) in lines.items():
            axes.plot(counts, values, color=colour, marker=marker, label=label)
            for count, value in ((counts[0], values[0]), (counts[-1], values[-1])):
                _say(axes, count, value, colour)
        axes.set_title(preset, loc="left", fontweight="bold")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlim(counts[0] * 0.8, counts[-1] * 1.5)
        axes.set_ylim(top=axes.get_ylim()[1] * 1.8)
        axes.set_xticks(counts, [str(n) for n in counts])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("sentences")
        axes.set_ylabel("milliseconds a frame")
    _legend_below(figure, panels[0])
    _save(figure, out)


def plot_length(lengths: Mapping[int, Mapping[str, Any]], out: Path) -> None:
    """Milliseconds a frame after so much of a stream, a line for each number of sentences."""
    figure = _figure(6.4, 3.8)
    axes = figure.subplots()
    highest = 0.0
    for (sentences, rows), colour in zip(sorted(lengths.items()), (_OURS, _LIVE), strict=False):
        seconds = sorted(map(int, rows))
        medians = [1e3 * rows[str(n)]["median"] for n in seconds]
        label = f"{sentences} sentence" + ("s" if sentences > 1 else "")
        axes.plot(seconds, medians, color=colour, marker="o", label=label)
        for second, value in zip(seconds, medians, strict=True):
            _say(axes, second, value, colour)
        highest = max(highest, *medians)
    axes.set_xscale("log")
    axes.set_xticks(seconds, [f"{n} s" if n < 60 else f"{n // 60} min" for n in seconds])
    axes.minorticks_off()
    axes.set_ylim(0, 1.25 * highest)
    axes.set_xlabel("of the stream have passed")
    axes.set_ylabel("milliseconds a frame")
    _legend_below(figure, axes)
    _save(figure, out)


def plot_engines(rows: Sequence[tuple[str, float, float]], out: Path) -> None:
    """Bars of what was run in both engines: its name, milliseconds in ONNX Runtime and in torch eager; as shares of torch's."""
    figure = _figure(7.2, 0.9 + 0.75 * len(rows))
    axes = figure.subplots()
    for row, (_, onnx, torch) in enumerate(rows):
        for offset, value, colour in ((0.19, torch, _GREY), (-0.19, onnx, _OURS)):
            y = len(rows) - 1 - row + offset
            axes.barh(y, value / torch, height=0.34, color=colour)
            axes.annotate(
                f"{number(value)} ms", (value / torch, y), (4, 0), textcoords="offset points", va="center"
            )
    axes.barh([0], [0], color=_GREY, label="torch eager")
    axes.barh([0], [0], color=_OURS, label="ONNX Runtime")
    axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.2 * max(1.0, *(onnx / torch for _, onnx, torch in rows)))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_xlabel("of what torch eager takes")
    _legend_below(figure, axes)
    _save(figure, out, grid="x")


def number(value: float) -> str:
    """Three digits of it, or four."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _say(axes: Axes, x: float, value: float | None, colour: str) -> None:
    if value is not None:
        axes.annotate(
            number(value),
            (x, value),
            (0, 6),
            textcoords="offset points",
            ha="center",
            color=colour,
            fontsize=9,
        )


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def _save(figure: Figure, out: Path, grid: Literal["both", "x"] = "both") -> None:
    """In one move."""
    for axes in figure.axes:
        axes.grid(alpha=0.25, axis=grid)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    partial = out.with_name(out.name + ".partial")
    figure.savefig(partial, dpi=120, format="png")
    os.replace(partial, out)
