"""`refavs-rt info`: versions, engines, devices and the bundle."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..bundle import Bundle, BundleError, find_bundle
from .options import add_bundle

_DESCRIPTION = """\
Print the versions of what is installed, the engines, the devices and the bundle, as a bug report wants them.

  refavs-rt info
  refavs-rt info --bundle bundles/latest --json
"""


def add_parser(commands: Any) -> None:
    """Put the command among the others."""
    info = commands.add_parser(
        "info",
        help="print versions, engines, devices and the bundle",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_bundle(info, "--bundle")
    info.add_argument("--json", action="store_true", help="for machines")
    info.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print what is here."""
    from ..info import describe, to_text

    bundle: Bundle | str
    try:
        bundle = Bundle.open(find_bundle(args.bundle))
    except BundleError as error:
        if args.bundle is not None:
            raise
        bundle = str(error)
    described = describe(bundle)
    print(json.dumps(described, indent=2) if args.json else to_text(described))
    return 0
