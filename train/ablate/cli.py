"""`python -m train ablate NAME`: run an experiment, and write its table and its plot."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from refavs_rt.config import RunConfig
from refavs_rt.dataset import SPLITS

from ..evaluate_cli import check_writable, shown_warnings

if TYPE_CHECKING:
    from ..material import Pack
    from ..predict import Predictor
    from .bootstrap import Comparison
    from .observation import Context, Experiment, T


@dataclass(frozen=True)
class _Entry:
    """An experiment of the command line. Its module, `training` for all that train and else of the experiment's name, has
    `run(context, progress)`, and `add_arguments(parser)` where it takes flags of its own, which `context.options` holds."""

    summary: str
    trains: bool = False
    """Whether it trains its own networks and so takes none."""
    flags: tuple[str, ...] = ("data", "split", "clips", "seed")
    """Those of the choice of clips that it knows."""


EXPERIMENTS = {
    "components": _Entry(
        "without cached memory, modality tokens, prompt attention, and without all three", True
    ),
    "modalities": _Entry("cues from sound, picture and sentence alone, and in pairs", True),
    "supervision": _Entry("the dense loss without each of its parts, and one sentence a clip", True),
    "scorecard": _Entry(
        "what a model card states: every kind of sentence, heard and muted, and what is not there",
        flags=("clips", "seed"),
    ),
    "degraded": _Entry("noise, silence, reversed sound, blur, dropped frames, cut sentences"),
    "length": _Entry("clips of 10 to 90 s, with each mean of the memory"),
    "sources": _Entry("one, two and more sounding objects; which is taken for which"),
    "ambiguity": _Entry("sentences made harder on a scale"),
    "photographs": _Entry("real photographs, outlined by hand, still and panned", flags=()),
    "domain": _Entry("backgrounds and recordings that training never used"),
}
_SPLIT = "test_s"
_DESCRIPTION = """\
Run an experiment and write NAME.csv, NAME.md and NAME.png: means with 95% intervals from resampled clips, and the difference to
a baseline, or that no difference was shown. What a person writes between the marks in NAME.md is kept when it is made again.

by training again, resumable:
{trained}

by evaluating a trained model:
{evaluated}

  python -m train ablate degraded                       the embedded bundle, on generated scenes
  python -m train ablate degraded --checkpoint RUN --data DIR
  python -m train ablate NAME --help                    all flags of an experiment
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand `ablate`."""
    lists = {
        trains: "\n".join(f"  {n:<12}{e.summary}" for n, e in EXPERIMENTS.items() if e.trains is trains)
        for trains in (True, False)
    }
    parser = subparsers.add_parser(
        "ablate",
        help="an experiment, with a table and a plot",
        usage="python -m train ablate NAME [flags]",
        description=_DESCRIPTION.format(trained=lists[True], evaluated=lists[False]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name",
        choices=EXPERIMENTS,
        nargs="?",
        metavar="NAME",
        help="of the experiment; without one, this help",
    )
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="of the experiment")
    parser.set_defaults(run=run, show_help=parser.print_help)


def run(args: argparse.Namespace) -> int:
    """Run the experiment that `args` names, or show the help where it names none; returns the exit code.

    Raises:
        DataError: there is nothing to measure, or nothing can be written where it should be.
        BundleError, CheckpointError, EngineError: the model cannot be run.
        MaterialError: there is no pack of scenes.
    """
    if args.name is None:
        args.show_help(sys.stderr)
        return 2
    module = _module(args.name)
    options = _parser(args.name, module).parse_args(args.flags)
    return _run(args.name, module, options)


def _module(name: str) -> Any:
    """The module of an experiment; those that train share one."""
    return importlib.import_module(f".{'training' if EXPERIMENTS[name].trains else name}", __package__)


def _parser(name: str, module: Any) -> argparse.ArgumentParser:
    """The flags of one experiment: only its own module is imported for them."""
    entry = EXPERIMENTS[name]
    parser = argparse.ArgumentParser(
        prog=f"python -m train ablate {name}", description=f"{name}: {entry.summary}."
    )
    if not entry.trains:
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--bundle", metavar="BUNDLE|edge", help="through the shipped runtime; default: edge"
        )
        what.add_argument("--checkpoint", type=Path, metavar="RUN", help="through torch")
    known: dict[str, dict[str, Any]] = {
        "data": {
            "type": Path,
            "metavar": "DIR",
            "help": "a data set in the form of Ref-AVS; default: generated scenes",
        },
        "split": {
            "choices": SPLITS,
            "default": _SPLIT,
            "help": "of the scenes or the data set; default: %(default)s. `domain` has its own",
        },
        "clips": {"type": _positive, "default": 100, "metavar": "N", "help": "default: %(default)s"},
        "seed": {"type": _natural, "default": 0, "metavar": "S", "help": "default: %(default)s"},
    }
    for flag, values in known.items():
        if flag in entry.flags:
            parser.add_argument(f"--{flag}", **values)
        else:
            parser.set_defaults(**{flag: values.get("default")})
    parser.add_argument(
        "--pack", type=Path, metavar="FILE", help="of scenes; default: runs/scenes.pack, built once"
    )
    parser.add_argument(
        "--threads", type=_positive, default=None, metavar="N", help="of the model; default: all cores"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs/experiments"),
        metavar="DIR",
        help="where the table and the plot go; default: %(default)s",
    )
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)
    return parser


def carry_out(name: str, flags: Sequence[str]) -> tuple[Context, list[Comparison]]:
    """Run an experiment as the command line would, write its table and its plot, and return what it was run with and what it has
    shown.

    Raises:
        As `run`.
    """
    module = _module(name)
    options = _parser(name, module).parse_args(flags)
    return _measure_and_write(name, module, options)


def _run(name: str, module: Any, options: argparse.Namespace) -> int:
    _, comparisons = _measure_and_write(name, module, options)
    wide = 2 + max(len(c.group) for c in comparisons)
    for c in comparisons:
        print(f"{c.group:<{wide}}{c.condition:<32}{c.estimate.mean:>7.3f}  {c.verdict}")
    print(f"wrote {options.out / name}.csv, .md and .png")
    return 0


def _measure_and_write(
    name: str, module: Any, options: argparse.Namespace
) -> tuple[Context, list[Comparison]]:
    import torch

    from .bootstrap import compare
    from .chart import write_chart
    from .table import read_reading, write_tables

    for ending in ("csv", "md", "png"):
        check_writable(options.out / f"{name}.{ending}", "--out")
    read_reading(options.out / f"{name}.md")  # fails now rather than after hours
    if options.threads:
        torch.set_num_threads(options.threads)
    context = _context(name, options)
    facts = _facts(context)

    def progress(items: Iterable[T], total: int, unit: str = "clip") -> Iterator[T]:
        return iter(tqdm(items, total=total, unit=unit, desc=name, dynamic_ncols=True))

    with shown_warnings():
        experiment: Experiment = module.run(context, progress)
    comparisons = compare(experiment, options.seed)
    write_tables(options.out, experiment, comparisons, facts)
    write_chart(options.out, experiment, comparisons)
    return context, comparisons


def _context(name: str, options: argparse.Namespace) -> Context:
    from .observation import Context

    bundle = getattr(options, "bundle", None)
    checkpoint: Path | None = getattr(options, "checkpoint", None)
    model = "" if EXPERIMENTS[name].trains else str(checkpoint or bundle or "edge")

    def predictor(settings: RunConfig) -> Predictor:
        from dataclasses import replace

        from ..predict import BundlePredictor, TorchPredictor

        if not model:
            raise RuntimeError(f"{name} trains its own networks; there is no model to open")
        if checkpoint:
            return TorchPredictor(checkpoint, settings)
        return BundlePredictor(model, replace(settings, threads=options.threads or settings.threads))

    def pack() -> Pack:
        from ..data_source import default_pack
        from ..material import Pack

        return Pack.load(options.pack) if options.pack else default_pack(Path("runs"))

    return Context(
        model=model,
        predictor=predictor,
        data=options.data,
        pack=pack,
        clips=options.clips,
        seed=options.seed,
        split=options.split,
        name=name,
        options=options,
    )


def _facts(context: Context) -> list[str]:
    """How it was made, in words that name no folder of this machine."""
    from ..environment import environment

    found = environment()
    commit = found["git"]
    source = " --data DIR" if context.data else ""
    split = f" --split {context.split}" if context.split != _SPLIT else ""
    given = " --checkpoint RUN" if getattr(context.options, "checkpoint", None) else ""
    given = " --bundle BUNDLE" if getattr(context.options, "bundle", None) not in (None, "edge") else given
    steps = getattr(context.options, "steps", None)
    trained = f" --steps {steps} --image-size {context.options.image_size}" if steps else ""
    known = EXPERIMENTS[context.name].flags
    clips = f" --clips {context.clips}" if "clips" in known else ""
    seed = f" --seed {context.seed}" if "seed" in known else ""
    facts = [f"command: python -m train ablate {context.name}{given}{source}{split}{trained}{clips}{seed}"]
    if context.model:
        facts.append(f"model: {model_line(context)}")
    if commit:
        facts.append(f"commit {commit['commit']}{', with changes not committed' if commit['dirty'] else ''}")
    packages = {name: found["packages"][name] for name in ("torch", "numpy") if name in found["packages"]}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    facts.append(f"Python {found['python']}, {versions}; {found['cpu']['name']}")
    return facts


def model_line(context: Context) -> str:
    """Which weights these are: a name alone can come to mean others."""
    import hashlib

    from refavs_rt.bundle import Bundle, find_bundle
    from refavs_rt.model.run_folder import WEIGHTS, CheckpointError, load_config

    checkpoint: Path | None = getattr(context.options, "checkpoint", None)
    if checkpoint:
        preset = load_config(checkpoint).preset
        try:
            with (checkpoint / WEIGHTS).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{checkpoint / WEIGHTS} cannot be read: {error.strerror}") from error
        return (
            f"run {checkpoint.name} of the preset {preset} through torch, sha256 of {WEIGHTS} {digest[:16]}"
        )
    bundle = Bundle.open(find_bundle(context.model))
    preset = bundle.config.preset
    return f"bundle of the preset {preset} through the runtime, sha256 of the manifest {bundle.digest[:16]}"


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)
