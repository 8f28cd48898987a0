"""`python -m train plot RUN`: the loss and the validation curves of a run as one picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from refavs_rt.model.run_folder import CheckpointError

from .checkpoint import LOSSES, METRICS


def add_parser(subparsers: Any) -> None:
    """Add the subcommand `plot`."""
    parser = subparsers.add_parser("plot", help="draw the curves of a run")
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=None, metavar="PNG", help="default: RUN/curves.png")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw what `args` asks for; returns the exit code."""
    out = args.out or args.run_folder / "curves.png"
    plot(args.run_folder, out)
    print(f"wrote {out}")
    return 0


def plot(run_folder: Path, out: Path) -> None:
    """Draw `loss.jsonl` and `metrics.jsonl` of a run into `out`.

    Raises:
        CheckpointError: the run has no curves yet.
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    losses, metrics = _rows(run_folder / LOSSES), _rows(run_folder / METRICS)
    if not losses:
        raise CheckpointError(f"{run_folder / LOSSES} is missing or empty: nothing to draw yet")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 4.5))
    for name in ("total", "cross_entropy", "dice", "query_class", "pixel_names", "sound_names", "presence"):
        left.plot([row["step"] for row in losses], [row[name] for row in losses], label=name)
    left.set(xlabel="step", ylabel="loss (mean of ten steps)", yscale="log")
    names = sorted({name for row in metrics for name in row if name.startswith(("J_", "S_"))})
    for name in names:
        rows = [row for row in metrics if name in row]
        style = "--" if "muted" in name or name.startswith("S_") else "-"
        right.plot([row["step"] for row in rows], [row[name] for row in rows], style, marker=".", label=name)
    right.set(xlabel="step", ylabel="J, S on validation scenes", ylim=(0, 1))
    for axes in (left, right):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
