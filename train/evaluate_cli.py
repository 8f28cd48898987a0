"""`python -m train evaluate`: J, F and S of a run or a bundle, as a table and as JSON."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .data import SPLITS


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
    parser.add_argument("--split", choices=SPLITS, default=None)
    parser.add_argument("--limit", type=int, default=None, metavar="CLIPS")
    parser.add_argument(
        "--pairing", choices=("dataset", "live"), default="dataset", help="which sound goes with a frame"
    )
    parser.add_argument("--muted", action="store_true", help="replace the sound by silence")
    parser.add_argument(
        "--swap", action="store_true", help="give each row the sentence of another object of its clip"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate what `args` asks for; returns the exit code."""
    from .checkpoint import write_json
    from .evaluate import EvaluateConfig, evaluate
    from .predict import BundlePredictor, TorchPredictor

    predictor = TorchPredictor(args.checkpoint) if args.checkpoint else BundlePredictor(args.bundle)
    config = EvaluateConfig(args.split, args.limit, args.pairing, args.muted, args.swap)
    report = evaluate(predictor, args.data, config)
    if args.json:
        write_json(args.json, report)
    _print_table(report)
    return 0


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
        print(f"{len(report['skipped'])} clips skipped; the first: {next(iter(report['skipped'].items()))}")
