"""`python -m train evaluate`: J, F and S of a run or a bundle, as a table and as JSON."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, get_args

from tqdm import tqdm

from refavs_rt.config import MemoryMean, RunConfig
from refavs_rt.dataset import SPLITS, DataError
from refavs_rt.tokenizer import SentenceCutWarning

if TYPE_CHECKING:
    from .predict import Predictor


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
    parser.add_argument(
        "--temporal",
        choices=("band", "full", "both"),
        default=None,
        help="what a tick sees: the last W ticks, as a stream does; the whole clip, as in the paper; or both, side by side. "
        "Default: both of a checkpoint, band of a bundle, which can only stream",
    )
    parser.add_argument(
        "--memory-mean",
        choices=get_args(MemoryMean),
        default=RunConfig().memory_mean,
        help="the running mean of a bundle's memory; a checkpoint has the cumulative one. Default: %(default)s",
    )
    parser.add_argument(
        "--presence-threshold",
        type=_share,
        default=RunConfig().presence_threshold,
        metavar="P",
        help="from here on a sentence has a mask; 0 for a network whose presence head was not trained. Default: %(default)s",
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

    if args.json:
        check_writable(args.json, "--json")
    predictor, others = _predictors(args)
    config = EvaluateConfig(
        args.split, args.limit, args.pairing, args.muted, args.swap, args.presence_threshold
    )
    with shown_warnings():
        report = evaluate(predictor, args.data, config, others)
    report["settings"] |= {"temporal": _temporal(args), "memory_mean": args.memory_mean}
    _print_table(report, list(others))
    if args.json:
        write_json(args.json, report)
    return 0


@contextmanager
def shown_warnings() -> Iterator[None]:
    """What is warned of a sentence is one line for people, above the progress bar, once a sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("once", SentenceCutWarning)
        warnings.showwarning = _show_warning
        yield


def check_writable(path: Path, flag: str) -> None:
    """Make the folder of `path` before hours are spent on what shall be written there.

    Raises:
        DataError: nothing can be written there; the message names `flag`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; choose another {flag}") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise DataError(f"{path} cannot be written; choose another {flag}")


def _temporal(args: argparse.Namespace) -> str:
    temporal: str | None = args.temporal
    return temporal or ("both" if args.checkpoint else "band")


def _predictors(args: argparse.Namespace) -> tuple[Predictor, dict[str, Predictor]]:
    """What is evaluated, and what is evaluated beside it, by name."""
    from .predict import BundlePredictor, TorchPredictor

    temporal, settings = _temporal(args), RunConfig(memory_mean=args.memory_mean)
    if not args.checkpoint:
        if temporal != "band":
            raise DataError(f"--temporal {temporal}: a bundle can only stream; give a run with --checkpoint")
        return BundlePredictor(args.bundle, settings), {}
    run = TorchPredictor(args.checkpoint, settings, temporal="full" if temporal == "full" else "band")
    return run, {"full": run.with_temporal("full")} if temporal == "both" else {}


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _print_table(report: dict[str, Any], others: Sequence[str]) -> None:
    """The figures by kind; those of other predictors stand beside them."""
    reports = [report, *(report[name] for name in others)]
    if others:
        print(f"{'':<34}" + "".join(f"{name:>32}" for name in ("band", *others)))
    print(f"{'':<34}" + f"{'J':>8}{'F':>8}{'S':>8}{'n':>8}" * len(reports))
    rows = [("all", reports)]
    for kind in report["by_type"]:
        rows.append((f"  {kind}", [r["by_type"][kind] for r in reports]))
    for kind in report["other_recording"]:
        rows.append((f"  {kind}, other recordings", [r["other_recording"][kind] for r in reports]))
    for name in report["variants"]:
        rows.append((name, [r["variants"][name] for r in reports]))
    for name, each in rows:
        print(f"{name:<34}" + "".join(_cells(figures) for figures in each))
    if report["skipped"]:
        name, reason = next(iter(report["skipped"].items()))
        print(f"{len(report['skipped'])} clips or rows skipped; the first: {name}: {reason}")


def _cells(figures: dict[str, Any]) -> str:
    values = ["-" if figures[key] is None else f"{figures[key]:.3f}" for key in "JFS"]
    return "".join(f"{value:>8}" for value in (*values, figures["n"]))


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
