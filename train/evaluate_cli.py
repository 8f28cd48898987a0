"""`python -m train evaluate`: J, F and S of a run or a bundle, as a table and as JSON."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from refavs_rt.tokenizer import SentenceCutWarning

from .data import SPLITS, DataError


def add_parser(subparsers: Any) -> None:
    """Add the subcommand `evaluate`."""
    parser = subparsers.add_parser("evaluate", help="J, F and S of a run or a bundle on a data set")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", type=Path, metavar="RUN", help="through torch")
    what.add_argument("--bundle", metavar="BUNDLE|edge", help="through the shipped runtime")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="a data set in the form of Ref-AVS"
    )
    parser.add_argument("--json", type=Path, default=None, metavar="OUT", help="write all figures there")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default=None,
        help="default: all rows; the paper's figures are of one split",
    )
    parser.add_argument(
        "--limit", type=_positive, default=None, metavar="CLIPS", help="only the first clips of the table"
    )
    parser.add_argument(
        "--pairing", choices=("dataset", "live"), default="dataset", help="which sound goes with a frame"
    )
    parser.add_argument("--muted", action="store_true", help="replace the sound by silence")
    parser.add_argument(
        "--swap", action="store_true", help="give each row the sentence of another object of its clip"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate what `args` asks for; returns the exit code.

    Raises:
        DataError: there is nothing to evaluate, or no figures can be written where they should be.
        CheckpointError, BundleError, EngineError: the model cannot be run.
    """
    from .checkpoint import write_json
    from .evaluate import EvaluateConfig, evaluate
    from .predict import BundlePredictor, TorchPredictor

    if args.json:
        _check_writable(args.json)
    predictor = TorchPredictor(args.checkpoint) if args.checkpoint else BundlePredictor(args.bundle)
    config = EvaluateConfig(args.split, args.limit, args.pairing, args.muted, args.swap)
    with warnings.catch_warnings():
        warnings.simplefilter("always", SentenceCutWarning)
        warnings.showwarning = _show_warning
        report = evaluate(predictor, args.data, config)
    _print_table(report)
    if args.json:
        write_json(args.json, report)
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _check_writable(path: Path) -> None:
    """Make the folder of `path` before hours are spent on what shall be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; choose another --json") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise DataError(f"{path} cannot be written; choose another --json")


def _print_table(report: dict[str, Any]) -> None:
    print(f"{'':<34}{'J':>8}{'F':>8}{'S':>8}{'n':>8}")
    rows = [("all", report)]
    rows += [(f"  {kind}", figures) for kind, figures in report["by_type"].items()]
    rows += [(f"  {kind}, other recordings", figures) for kind, figures in report["other_recording"].items()]
    rows += list(report["variants"].items())
    for name, figures in rows:
        cells = ["-" if figures[key] is None else f"{figures[key]:.3f}" for key in "JFS"]
        print(f"{name:<34}" + "".join(f"{cell:>8}" for cell in cells) + f"{figures['n']:>8}")
    if report["skipped"]:
        name, reason = next(iter(report["skipped"].items()))
        print(f"{len(report['skipped'])} clips or rows skipped; the first: {name}: {reason}")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """`warnings.showwarning`, for people and above the progress bar."""
    tqdm.write(f"warning: {message}", file=sys.stderr)
