"""`python -m train leg`: pack what a machine without network needs for training, train there, and take home what comes back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .train_config import TrainConfig

_DESCRIPTION = """\
Training in legs, on machines that have a GPU but neither network nor the packages of published weights.

  python -m train leg pack --out gpu-train [--start RUN]     here: write the folder that travels, below 56 MiB
  make gpu-train                                             there: train for eight minutes, results into gpu-train-results/
  python -m train leg join gpu-train-results --out RUN       here: make a run of the results, to evaluate, export, go on from

The next leg starts from the averaged weights of the last: python -m train leg pack --out gpu-train --start RUN
"""
_BATCH_SCALE = 4


def add_parser(subparsers: Any) -> None:
    """Add the subcommand `leg` with its three verbs."""
    from .flags import add_flags
    from .train_config import TrainConfig

    parser = subparsers.add_parser(
        "leg",
        help="train on a machine that has neither network nor packages",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    pack = verbs.add_parser("pack", help="write the folder that travels")
    pack.add_argument(
        "--out", type=Path, default=Path("gpu-train"), metavar="FOLDER", help="default: %(default)s"
    )
    pack.add_argument("--start", type=Path, metavar="RUN", help="to go on from; default: random weights")
    pack.add_argument(
        "--pack", type=Path, metavar="FILE", help="of scenes; default: runs/scenes.pack, built once"
    )
    pack.set_defaults(run=_pack)

    train = verbs.add_parser("run", help="train from the folder, for some minutes")
    train.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("gpu-train"),
        metavar="FOLDER",
        help="default: %(default)s",
    )
    train.add_argument(
        "--minutes", type=_minutes, default=8.0, metavar="M", help="all included; default: %(default)s"
    )
    train.add_argument(
        "--run",
        type=Path,
        dest="run_folder",
        default=Path("runs/leg"),
        metavar="RUN",
        help="the run; one that stands there goes on; default: %(default)s",
    )
    train.add_argument(
        "--out", type=Path, default=Path("gpu-train-results"), metavar="DIR", help="default: %(default)s"
    )
    train.add_argument(
        "--scale",
        type=int,
        default=_BATCH_SCALE,
        metavar="N",
        help="times the clips of a step of `python -m train`; default: %(default)s",
    )
    fields = ("learning_rate", "seed", "image_size", "full_size_share", "micro_batch", "workers")
    add_flags(train.add_argument_group("training"), TrainConfig, fields, {"edge": _usual(_BATCH_SCALE)})
    train.set_defaults(run=_run)

    join = verbs.add_parser("join", help="make a run of what came back")
    join.add_argument("results", type=Path, metavar="DIR")
    join.add_argument("--out", type=Path, required=True, metavar="RUN")
    join.set_defaults(run=_join)


def _usual(scale: int) -> TrainConfig:
    """As `python -m train`, with larger steps."""
    import dataclasses
    import os

    from .train_config import DEFAULTS

    usual = DEFAULTS["edge"]
    return dataclasses.replace(
        usual,
        learning_rate=1e-3,
        workers=min(16, max(0, len(os.sched_getaffinity(0)) - 2)),
        validate_every=10**6,
        validation_clips=24,
        save_every=10**6,
        save_every_minutes=2.0,
        batch=dataclasses.replace(usual.batch, scale=scale),
    )


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 10**5:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return value


def _pack(args: argparse.Namespace) -> int:
    from .data_source import default_pack
    from .leg import write_leg
    from .material import Pack

    scenes = Pack.load(args.pack) if args.pack else default_pack(Path("runs"))
    size = write_leg(args.out, scenes, args.start)
    print(f"wrote {args.out}: {size / 2**20:.1f} MiB; there: make gpu-train")
    return 0


def _run(args: argparse.Namespace) -> int:
    import dataclasses
    import os

    import torch

    from .flags import given
    from .leg import run_leg
    from .train_config import TrainConfig, TrainingError

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError("a leg is trained by one process: start it without torchrun")

    config = dataclasses.replace(
        _usual(args.scale), **{k: v for k, v in given(args, TrainConfig).items() if k != "minutes"}
    )
    try:
        steps = run_leg(args.folder, args.run_folder, args.out, config, args.minutes)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"there is too little memory ({error}): give a smaller --micro-batch; what was saved is in {args.out}"
        ) from error
    print(f"{steps} steps; results in {args.out}; at home: python -m train leg join {args.out} --out RUN")
    return 0


def _join(args: argparse.Namespace) -> int:
    from .leg import join_leg

    join_leg(args.results, args.out)
    print(f"made {args.out}; next: python -m train evaluate, refavs-export --checkpoint {args.out}")
    return 0
