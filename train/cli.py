"""`python -m train`: train, and the commands beside it."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from refavs_rt.config import EDGE, PRESETS

if TYPE_CHECKING:
    from .distributed import World
    from .train_config import TrainConfig

_COMMANDS = {
    "scenes": ".scenes.cli",
    "data": ".data_check_cli",
    "evaluate": ".evaluate_cli",
    "ablate": ".ablate.cli",
    "import-weights": ".import_weights_cli",
    "card": ".card",
    "plot": ".plot",
    "report": ".report",
    "leg": ".leg_cli",
    "video": ".video",
}
"""Command -> the module whose `add_parser` says what it takes."""
_DESCRIPTION = """\
Train EEMC. Typed bare, it trains the preset `edge` on generated scenes into runs/TIME, with the link runs/latest,
and builds the pack of pictures and sounds first where the media packages are installed.

  python -m train                          train `edge`
  python -m train --out runs/mine          train there; or where a run stands there, go on with it and its flags
  torchrun --nproc-per-node 8 -m train     the same on eight GPUs; a run can go on with another number of them

  python -m train scenes --help            write scenes to disk in the form of Ref-AVS
  python -m train data --check DIR         what of a data set is there, missing, unreadable
  python -m train evaluate --help          J, F and S of a run or a bundle
  python -m train ablate NAME --help       an experiment, with a table and a plot
  python -m train import-weights --help    published weights into a folder for --weights
  python -m train card                     the model card: every figure measured, and pictures
  python -m train leg --help               train on a machine that has neither network nor packages
  python -m train video --out scene.mp4    one generated scene as a video
  python -m train plot RUN                 the curves of a run as a picture
  python -m train report RUN               what a run understands best and worst, as pictures
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in _COMMANDS:
            return _subcommand(arguments)
        if arguments and not arguments[0].startswith("-"):
            print(
                f"error: there is no command {arguments[0]!r}, only {', '.join(_COMMANDS)}", file=sys.stderr
            )
            return 2
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
    parser = argparse.ArgumentParser(prog="python -m train")
    subparsers = parser.add_subparsers(required=True)
    importlib.import_module(_COMMANDS[arguments[0]], __package__).add_parser(subparsers)
    args = parser.parse_args(arguments)
    code: int = args.run(args)
    return code


def _train_parser() -> argparse.ArgumentParser:
    from .batches import BatchConfig
    from .flags import add_flags
    from .train_config import BATCH_FLAGS, DEFAULTS, GROUPS, TrainConfig

    parser = argparse.ArgumentParser(
        prog="python -m train",
        usage="python -m train [--preset P] [--data scenes:PACK|DIR] [--out RUN] [flags below]",
        description=_DESCRIPTION,
        formatter_class=_HelpFormatter,
    )
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    run = groups["run"]
    run.add_argument(
        "--preset", choices=sorted(PRESETS), default=None, help=f"The network. Default: {EDGE.preset}."
    )
    run.add_argument(
        "--data",
        default=None,
        metavar="scenes:PACK|DIR",
        help="A pack of scenes, or a data set in the form of Ref-AVS. Default: the pack runs/scenes.pack.",
    )
    run.add_argument(
        "--out",
        type=Path,
        default=None,
        metavar="RUN",
        help="The folder of the run; a run that stands there goes on, and flags that are not given are those it was started "
        "with. runs/latest leads to it, wherever it is. Default: runs/TIME.",
    )
    run.add_argument(
        "--start",
        type=Path,
        default=None,
        metavar="RUN",
        help="Another run whose averaged weights a new one begins with.",
    )
    batches = {name: config.batch for name, config in DEFAULTS.items()}
    for name, fields in GROUPS.items():
        add_flags(groups[name], TrainConfig, (f for f in fields if f != "batch"), DEFAULTS)
        if "batch" in fields:
            add_flags(groups[name], BatchConfig, BATCH_FLAGS, batches)
    return parser


@dataclass(frozen=True)
class _Job:
    """What the command line asks for, with what a run that goes on was started with in place of what it does not say."""

    preset: str
    data: str | None
    start: Path | None
    config: TrainConfig


def _job(args: argparse.Namespace) -> _Job:
    from .batches import BatchConfig
    from .checkpoint import has_resume
    from .flags import given
    from .run_settings import started_with
    from .train_config import DEFAULTS, TrainConfig, TrainingError

    before = started_with(args.out) if args.out and has_resume(args.out) else None
    preset = args.preset or (before.preset if before else EDGE.preset)
    config = before.train if before and before.preset == preset else DEFAULTS[preset]
    batch = replace(config.batch, **given(args, BatchConfig))
    values = {name: value for name, value in given(args, TrainConfig).items() if name != "batch"}
    side = PRESETS[preset].image_size
    if values.get("image_size", 0) > side:
        raise TrainingError(
            f"image_size must be at most {side}, which {preset} is made for, not {values['image_size']}"
        )
    return _Job(
        preset,
        args.data or (before.data if before else None),
        args.start or (before.start if before else None),
        replace(config, batch=batch, **values),
    )


def _train(args: argparse.Namespace) -> int:
    import torch

    from .distributed import DistributedError, SharedError, open_world
    from .train_config import TrainingError

    try:
        job = _job(args)
    except TrainingError:
        if os.environ.get("RANK", "0") == "0":  # all processes have the same command line
            raise
        return 1
    config = job.config
    if config.threads:
        torch.set_num_threads(config.threads)
    with open_world(config.device, config.timeout_minutes) as world:
        try:
            return _train_in(world, args.out, job)
        except (TrainingError, SharedError) as error:
            # all processes have it: the main one says it, the others wait until it has
            world.say(f"error: {error}")
            world.barrier()
            return 1
        except torch.OutOfMemoryError as error:
            raise DistributedError(
                f"process {world.rank} of {world.size} has too little memory on {world.device} ({error}): give a smaller "
                "--micro-batch"
            ) from error


def _train_in(world: World, place: Path | None, job: _Job) -> int:
    from .data_source import open_source
    from .evaluate_cli import shown_warnings
    from .loop import Trainer

    runs = Path("runs")
    out = Path(world.agree(str(place or runs / time.strftime("%Y-%m-%d_%H-%M-%S"))))
    # the main process builds the pack where there is none yet
    with world.all_or_none(_user_errors()), world.main_first():
        source = open_source(job.data, runs, lambda text: world.say(f"note: {text}"))
    with shown_warnings():
        trainer = Trainer(out, PRESETS[job.preset], job.config, source, world, job.start)
        if world.is_main:
            _link_latest(runs, out)
            where = f"{world.size} processes on {world.device.type}" if world.size > 1 else str(world.device)
            print(f"training {job.preset} on {where} into {out} from step {trainer.step}", flush=True)
        try:
            finished = trainer.run()
        except KeyboardInterrupt:
            world.say(f"\ninterrupted; from the last checkpoint it goes on with: python -m train --out {out}")
            return 130
    if world.is_main and not finished:
        print(
            f"stopped at step {trainer.step} of {job.config.steps}; it goes on with: python -m train --out {out}"
        )
    elif world.is_main:
        print(f"done: {out}; next: refavs-export --checkpoint {out}")
    return 0


def _link_latest(runs: Path, out: Path) -> None:
    runs.mkdir(exist_ok=True)
    link, fresh = runs / "latest", runs / ".latest"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(out.resolve())
    fresh.replace(link)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help beside short flags and below long ones, on lines of a readable length."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=110)


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors that are the user's to mend: shown as one line, without a traceback."""
    from refavs_rt.bundle import BundleError
    from refavs_rt.dataset import DataError
    from refavs_rt.engines import EngineError
    from refavs_rt.model.hub import WeightsError

    from .checkpoint import CheckpointError
    from .distributed import DistributedError
    from .material import MaterialError
    from .train_config import TrainingError

    return (
        BundleError,
        CheckpointError,
        DataError,
        DistributedError,
        EngineError,
        MaterialError,
        TrainingError,
        WeightsError,
        OSError,
    )
