"""`refavs-rt verify`: every file of a bundle, its graphs and its engines."""

from __future__ import annotations

import argparse
from typing import Any

from ..bundle import Bundle, BundleError, find_bundle, graph_file
from ..config import RunConfig
from ..contract import GRAPHS
from .options import sha256

_DESCRIPTION = """\
Check every file of a bundle against its manifest, whether its graphs run here, and whether its engines fit them.

  refavs-rt verify edge
  refavs-rt verify bundles/latest

A digest that was kept elsewhere is compared with --digest: that finds an attack, not damage alone.
"""


def add_parser(commands: Any) -> None:
    """Put the command among the others."""
    verify = commands.add_parser(
        "verify",
        help="check every file of a bundle, its graphs and its engines",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("verified", metavar="BUNDLE", help="a bundle folder, or 'edge' for the embedded one")
    verify.add_argument(
        "--digest", type=sha256, metavar="SHA256", help="the digest that the bundle must have"
    )
    verify.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Check a bundle."""
    from ..engines.onnx import OnnxEngine
    from ..engines.tensorrt_checks import check_records
    from ..session import Model

    bundle = Bundle.open(find_bundle(args.verified))
    if args.digest is not None and args.digest.lower() != bundle.digest:
        raise BundleError(f"{bundle.path}: its digest is {bundle.digest}, not the one given; do not use it")
    for name in bundle.files:
        bundle.read(name)
    Model(bundle, OnnxEngine(bundle), RunConfig())
    if bundle.engines:
        check_records(bundle)
    print("\n".join(_file_table(bundle)))
    print(
        f"{bundle.path}: {len(bundle.files)} files are as the manifest says, and the graphs fit this refavs_rt"
    )
    if args.digest is None:
        print(f"digest {bundle.digest}")
        print("This finds damage, not an attack: compare the digest with one kept elsewhere (--digest).")
    else:
        print("the digest is the one given")
    return 0


def _file_table(bundle: Bundle) -> list[str]:
    """A line a file: its size, and what it is."""
    low, high = bundle.sentences
    what = {graph_file(graph): f"graph, {bundle.precision}" for graph in GRAPHS}
    for graph in ("text", "step"):
        what[graph_file(graph)] += f", {low} to {high} sentences"
    for graph, engine in bundle.engines.items():
        cards = " ".join(f"sm{capability}" for capability in engine.capabilities)
        checked = "not verified on a device"
        if engine.verified is not None:
            error = engine.verified["largest_error"]
            checked = f"verified on {engine.verified['device']} (largest error {error:.2g})"
        stripped = ", without weights" if engine.weights == "stripped" else ""
        what[engine.file] = (
            f"engine of {graph}, {engine.precision}, {engine.library} {engine.version} for {cards}{stripped}; {checked}"
        )
    width = max(len(name) for name in bundle.files)
    return [
        f"{name:<{width}}  {entry['size'] / 1e6:7.1f} MB  {what.get(name, '')}".rstrip()
        for name, entry in bundle.files.items()
    ]
