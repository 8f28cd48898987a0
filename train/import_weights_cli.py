"""`python -m train import-weights`: published weights into a folder that training starts from."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

_DESCRIPTION = """\
Reads published weights, checks each name and shape, and writes FOLDER/NAME.safetensors with FOLDER/imported.json (sources,
sha256, licences, what did not map). Parts that are in FOLDER already stay. Nothing is written, and the exit code is 1, where
something is missing or of another shape. Then: python -m train --preset full --weights FOLDER
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand `import-weights`."""
    parser = subparsers.add_parser(
        "import-weights",
        help="published weights into a folder that training starts from",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--vggish",
        metavar="FILE",
        help="the state dict of torchvggish (.pth, .safetensors), or the TensorFlow checkpoint's variables by name (.npz)",
    )
    parser.add_argument(
        "--efficientnet", metavar="FILE", help="the state dict of EfficientNet-Lite0 (.pth, .safetensors)"
    )
    parser.add_argument(
        "--mask2former",
        metavar="FOLDER|HUB_NAME",
        help="Mask2Former with Swin-B, such as facebook/mask2former-swin-base-ade-semantic",
    )
    parser.add_argument(
        "--text",
        metavar="FOLDER|HUB_NAME",
        help="the sentence encoder, such as distilbert/distilroberta-base",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import what `args` names; returns the exit code."""
    from refavs_rt.model.hub import WeightsError

    from .import_weights import Part, import_part
    from .imported import write_imported

    sources = {part: getattr(args, part) for part in get_args(Part) if getattr(args, part)}
    if not sources:
        raise WeightsError(
            f"nothing to import: give {', '.join('--' + part for part in get_args(Part))}, or some of them"
        )
    if args.out.exists() and not args.out.is_dir():
        raise WeightsError(f"{args.out}: is a file; name a folder")
    parts = []
    for part, source in sources.items():
        parts.append(import_part(part, source))
        print(parts[-1].to_text(), flush=True)
    broken = [part.part for part in parts if not part.is_whole]
    if broken:
        print(f"error: not whole: {', '.join(broken)}; nothing was written to {args.out}", file=sys.stderr)
        return 1
    for path in write_imported(args.out, parts):
        print(f"wrote {path}")
    return 0
