"""`refavs-export`: from a run of `python -m train` to a bundle that is checked before it exists."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from refavs_rt.bundle import LATEST, PRECISIONS, BundleError, check_place, embedded_bundle, find_bundle
from refavs_rt.session import LATEST_RUN

if TYPE_CHECKING:
    from .job import Job

_DESCRIPTION = """\
Export a run of `python -m train` as a bundle: four ONNX graphs, a tokenizer and a manifest. The graphs are compared with
torch on random inputs and on a real clip; where they differ by more than float32 explains, nothing is written. The frozen
backbone's weights are rounded to float16 first, in the graphs and in what they are compared with.

  refavs-export                                       runs/latest into bundles/latest
  refavs-export --checkpoint RUN --out BUNDLE
  refavs-export --trt                                 with TensorRT engines, for the GPU that is here, else for RTX 30, 40 and 50
  refavs-export --bundle edge --trt --target sm86     engines for an exported bundle, in a copy: needs no torch and no run
  refavs-export --bundle edge --precision int8 --calibration DATA
"""
_EPILOG = """\
A lower precision is measured: both run the same clips, and layers stay in float32 until the masks agree (--min-agreement).
Clips for it, in the layout of Ref-AVS: python -m train scenes --out DATA
"""


class UsageError(Exception):
    """Flags that do not go together; the message says what would."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    started = time.monotonic()

    def say(stage: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {stage}", flush=True)

    try:
        from .job import make_bundle
        from .table import summary

        bundle = make_bundle(_job(args), say)
        print(f"\n{summary(bundle)}")
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed: pip install 'refavs-rt[export]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what is not said to be written is not there", file=sys.stderr)
        return 130
    except _user_errors() as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="refavs-export",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", type=Path, metavar="RUN", help=f"a run folder; default {LATEST_RUN}")
    source.add_argument(
        "--bundle", metavar="BUNDLE", help='an exported bundle, or "edge" for the embedded one'
    )
    parser.add_argument("--out", type=Path, default=LATEST, metavar="BUNDLE", help="default %(default)s")
    parser.add_argument(
        "--sentences",
        type=_sentences,
        metavar="LOW:HIGH",
        help="how many sentences a step takes; default 1 to the model's limit",
    )
    precision = parser.add_argument_group("precision")
    precision.add_argument(
        "--precision", choices=PRECISIONS, help="of the graphs; default the bundle's own, of a run fp32"
    )
    precision.add_argument(
        "--calibration", type=Path, metavar="DATA", help="clips in the layout of Ref-AVS; int8 needs them"
    )
    precision.add_argument(
        "--min-agreement",
        type=_share,
        metavar="IOU",
        help="mask agreement with float32 that must be kept; default 0.995 for fp16, 0.97 for int8",
    )
    engines = parser.add_argument_group("TensorRT engines")
    engines.add_argument("--trt", action="store_true", help="build an engine of each graph")
    engines.add_argument(
        "--target",
        nargs="+",
        default=[],
        metavar="CARD",
        help="local, rtx (sm86 sm89 sm120), or compute capabilities such as sm86; default the GPU that is here, else rtx",
    )
    engines.add_argument(
        "--workspace",
        type=_positive,
        metavar="MiB",
        help="scratch memory that a layer may take; default no limit",
    )
    engines.add_argument(
        "--hardware-compatible", action="store_true", help="tensorrt only: also for newer GPUs, slower"
    )
    engines.add_argument(
        "--version-compatible", action="store_true", help="tensorrt only: also for later versions of TensorRT"
    )
    engines.add_argument(
        "--strip-weights",
        action="store_true",
        help="small engines, filled from the graphs when they are loaded; not of int8, and only on a machine with a GPU",
    )
    serving = parser.add_argument_group("serving")
    serving.add_argument(
        "--triton-repo",
        type=Path,
        metavar="DIR",
        help="also write a model repository for Triton Inference Server, for HIGH sentences (default one)",
    )
    return parser


def _job(args: argparse.Namespace) -> Job:
    """The job that the flags ask for. What it needs from this machine is looked for here, before any work is done."""
    from .job import Job

    if not args.trt and (
        args.target
        or args.workspace
        or args.hardware_compatible
        or args.version_compatible
        or args.strip_weights
    ):
        raise UsageError("--target and the other flags of engines need --trt")
    if args.precision in (None, "fp32") and (args.calibration or args.min_agreement):
        raise UsageError("--calibration and --min-agreement need --precision fp16 or int8")
    if args.precision == "int8" and args.calibration is None:
        raise UsageError(
            "--precision int8 needs real frames to calibrate with: --calibration DATA;"
            " python -m train scenes --out DATA writes some"
        )
    run, bundle = args.checkpoint, args.bundle
    if bundle is not None and not (args.trt or args.precision or args.triton_repo):
        raise UsageError("--bundle: nothing to add to it; give --trt, --precision or --triton-repo")
    if run is None and bundle is None:
        run = LATEST_RUN
        if not LATEST_RUN.exists() and (args.trt or args.precision or args.triton_repo):
            run, bundle = None, embedded_bundle()
            print(f"no run in {LATEST_RUN}: taking the embedded bundle", flush=True)
    check_place(args.out)
    if args.triton_repo is not None:
        from .triton_repo import check_free

        check_free(args.triton_repo)
    target = options = None
    if args.trt:
        from refavs_rt.engines.base import EngineError
        from refavs_rt.engines.cuda import local_capability

        from .to_tensorrt import BuildOptions, find_target

        target = find_target(args.target, local_capability)
        if target.library.name != "tensorrt" and (args.hardware_compatible or args.version_compatible):
            raise UsageError(
                f"--hardware-compatible and --version-compatible are for tensorrt; {target} compiles for a list of cards:"
                " name them with --target"
            )
        if args.strip_weights:
            try:
                local_capability()
            except EngineError as error:
                raise UsageError(
                    f"--strip-weights: weights are left out only on a machine with a GPU: {error}"
                ) from error
        options = BuildOptions(
            workspace_mib=args.workspace,
            hardware_compatible=args.hardware_compatible,
            version_compatible=args.version_compatible,
            strip_weights=args.strip_weights,
        )
    return Job(
        out=args.out,
        run=run,
        bundle=None if bundle is None else find_bundle(bundle),
        precision=args.precision,
        calibration=args.calibration,
        min_agreement=args.min_agreement,
        sentences=args.sentences,
        target=target,
        build=options,
        triton_repo=args.triton_repo,
    )


def _sentences(text: str) -> tuple[int, int]:
    if (found := re.fullmatch(r"(?:(\d{1,4}):)?(\d{1,4})", text)) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range such as 1:8")
    low, high = int(found[1] or 1), int(found[2])
    if not 1 <= low <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is no range: give the smallest number first, from 1")
    return low, high


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors that are the user's to mend: shown as one line, without a traceback."""
    from refavs_rt.engines import EngineError
    from refavs_rt.ingest import IngestError

    from .agreement import ParityError
    from .search import PrecisionError

    errors: tuple[type[Exception], ...] = (
        UsageError,
        BundleError,
        EngineError,
        IngestError,
        ParityError,
        PrecisionError,
        OSError,
    )
    for module, name in (
        ("refavs_rt.dataset", "DataError"),
        ("refavs_rt.model.run_folder", "CheckpointError"),
        ("refavs_rt.export.to_tensorrt", "TargetError"),
        ("refavs_rt.export.to_tensorrt", "EngineBuildError"),
        ("refavs_rt.export.triton_repo", "RepositoryError"),
    ):
        loaded = sys.modules.get(module)  # what was not imported raised nothing
        errors += (getattr(loaded, name),) if loaded else ()
    return errors
