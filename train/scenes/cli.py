"""`python -m train scenes`: write scenes to disk in the form of Ref-AVS."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

DEFAULT_PACK = Path("runs/scenes.pack")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `scenes`; the parsed arguments carry `run`."""
    from .generator import SPLITS

    parser = subparsers.add_parser(
        "scenes", help="write a data set of generated scenes, in the form of Ref-AVS"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--clips", type=_positive, required=True, metavar="N")
    parser.add_argument(
        "--seed", type=_natural, required=True, metavar="S", help="the same seed writes the same clips"
    )
    parser.add_argument(
        "--split", choices=SPLITS, default=None, help="of all clips; default: a mixture as in Ref-AVS"
    )
    parser.add_argument("--seconds", type=_positive, default=10, help="length of a clip, default 10")
    parser.add_argument(
        "--size", type=_size, default=(360, 640), metavar="WxH", help="of the frames, default 640x360"
    )
    parser.add_argument(
        "--pack",
        type=Path,
        default=DEFAULT_PACK,
        metavar="FILE",
        help=f"the pack of pictures and sounds, built there where it does not exist yet; default {DEFAULT_PACK}",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the data set; returns the exit code. A mistake of the user's is one line on stderr."""
    from ..material import MaterialError, Pack, build_pack
    from .writer import DatasetError, require_empty, write_dataset

    try:
        require_empty(args.out)  # before a pack is built, which takes a minute
        if not args.pack.exists():
            print(
                f"building the pack of pictures and sounds: {args.pack} (once)", file=sys.stderr, flush=True
            )
            build_pack(args.pack)
        pack = Pack.load(args.pack)
        write_dataset(
            args.out,
            pack,
            clips=args.clips,
            seed=args.seed,
            split=args.split,
            seconds=args.seconds,
            size=args.size,
        )
    except (MaterialError, DatasetError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.clips} clips in {args.out}")
    return 0


def _positive(text: str) -> int:
    value = _natural(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def _natural(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, not {text!r}")
    return value


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be WIDTHxHEIGHT in pixels, such as 640x360, not {text!r}"
        ) from None
    return height, width
