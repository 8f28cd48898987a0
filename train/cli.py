"""`python -m train`: train, and beside it `scenes` (write a data set) and `evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from refavs_rt.config import PRESETS

_COMMANDS = ("scenes", "evaluate", "plot", "video")
_DESCRIPTION = """\
Train EEMC. Typed bare, it trains the preset `edge` on generated scenes into runs/TIME, with the link runs/latest,
and builds the pack of pictures and sounds first where the media packages are installed.

  python -m train                          train `edge`
  python -m train --out runs/mine          train there, or go on where that run stands
  python -m train scenes --help            write scenes to disk in the form of Ref-AVS
  python -m train evaluate --help          J, F and S of a run or a bundle
  python -m train video --out scene.mp4    one generated scene as a video
  python -m train plot RUN                 the curves of a run as a picture
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in _COMMANDS:
            return _subcommand(arguments)
        return _train(_train_parser().parse_args(arguments))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        print(
            f"error: {error}; `make dev` installs what training takes, or pip install 'refavs-rt[train]'",
            file=sys.stderr,
        )
        return 1
    except _user_errors() as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _subcommand(arguments: list[str]) -> int:
    from .evaluate_cli import add_parser as add_evaluate
    from .plot import add_parser as add_plot
    from .scenes.cli import add_parser as add_scenes
    from .video import add_parser as add_video

    parser = argparse.ArgumentParser(prog="python -m train")
    subparsers = parser.add_subparsers(required=True)
    add_scenes(subparsers)
    add_evaluate(subparsers)
    add_plot(subparsers)
    add_video(subparsers)
    args = parser.parse_args(arguments)
    code: int = args.run(args)
    return code


def _train_parser() -> argparse.ArgumentParser:
    from .loop import Precision, TrainConfig

    parser = argparse.ArgumentParser(
        prog="python -m train", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default="edge")
    parser.add_argument(
        "--data", default=None, metavar="scenes:PACK|DIR", help="default: scenes, packed under runs/"
    )
    parser.add_argument("--out", type=Path, default=None, metavar="RUN", help="default: runs/TIME")
    for field in dataclasses.fields(TrainConfig):
        flag, default = "--" + field.name.replace("_", "-"), field.default
        if isinstance(default, str):
            parser.add_argument(flag, choices=get_args(Precision), default=default, help=f"default {default}")
        elif isinstance(default, (int, float)):
            parser.add_argument(flag, type=type(default), default=default, help=f"default {default}")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch on a CPU; 0: its own choice")
    return parser


def _train(args: argparse.Namespace) -> int:
    import torch

    from .data_source import open_source
    from .loop import TrainConfig, Trainer

    if args.threads > 0:
        torch.set_num_threads(args.threads)
    values = {f.name: getattr(args, f.name) for f in dataclasses.fields(TrainConfig) if hasattr(args, f.name)}
    runs = Path("runs")
    out = args.out or runs / time.strftime("%Y-%m-%d_%H-%M-%S")
    config = TrainConfig(**values)
    source = open_source(args.data, runs)
    trainer = Trainer(out, PRESETS[args.preset], config, source)
    _link_latest(runs, out)
    print(f"training {args.preset} on {trainer.device} into {out} from step {trainer.step}", flush=True)
    try:
        trainer.run()
    except KeyboardInterrupt:
        print(f"\ninterrupted; it goes on from the last checkpoint with: --out {out}", file=sys.stderr)
        return 130
    print(f"done: {out}; next: refavs-export --checkpoint {out}")
    return 0


def _link_latest(runs: Path, out: Path) -> None:
    runs.mkdir(exist_ok=True)
    link, fresh = runs / "latest", runs / ".latest"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(out.resolve())
    fresh.replace(link)


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors that are the user's to mend: shown as one line, without a traceback."""
    from refavs_rt.bundle import BundleError
    from refavs_rt.engines import EngineError

    from .checkpoint import CheckpointError
    from .data import DataError
    from .loop import TrainingError
    from .material import MaterialError

    return (
        BundleError,
        CheckpointError,
        DataError,
        EngineError,
        MaterialError,
        TrainingError,
        OSError,
    )
