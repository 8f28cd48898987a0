"""`refavs-export`: from a run of `python -m train` to a bundle that is checked against torch before it exists."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refavs_rt.bundle import LATEST, TOKENIZER, Bundle, BundleError, graph_file, write_bundle
from refavs_rt.contract import GRAPHS

_DESCRIPTION = """\
Export a run of `python -m train` as a bundle: four ONNX graphs, a tokenizer and a manifest. The graphs are compared with
torch on random inputs and on a real clip; where they differ by more than float32 explains, nothing is written. The frozen
backbone's weights are rounded to float16 first, in the graphs and in what they are compared with.

  refavs-export                                   runs/latest into bundles/latest
  refavs-export --checkpoint RUN --out BUNDLE
"""
_STREAM_FRAMES = 40


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="refavs-export", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=Path("runs", "latest"), metavar="RUN", help="default %(default)s"
    )
    parser.add_argument("--out", type=Path, default=LATEST, metavar="BUNDLE", help="default %(default)s")
    args = parser.parse_args(argv)
    try:
        export(args.checkpoint, args.out)
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed: pip install 'refavs-rt[export]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        return 130
    except _user_errors() as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def export(run: Path, out: Path) -> Bundle:
    """Export the run folder `run` into the bundle folder `out`, which is replaced only by a whole bundle.

    Raises:
        CheckpointError: the run cannot be read.
        ParityError: the graphs do not compute what torch computes.
        BundleError: `out` cannot be written.
    """
    from refavs_rt.engines import open_engine
    from refavs_rt.model.run_folder import load_run

    from .card import CARD, model_card
    from .parity import compare_random, compare_stream
    from .to_onnx import export_graphs

    started = time.monotonic()

    def say(stage: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {stage}", flush=True)

    say(f"reading {run}")
    loaded = load_run(run)
    graphs = export_graphs(loaded.model, lambda name: say(f"exporting the {name} graph"))
    files = {graph_file(name): data for name, data in graphs.items()} | {TOKENIZER: loaded.tokenizer}
    files[CARD] = model_card(loaded).encode()
    fields: dict[str, Any] = {"tools": _tool_versions(), "training": loaded.training}
    with tempfile.TemporaryDirectory(prefix="refavs-export-") as scratch:
        draft = write_bundle(Path(scratch, "draft"), loaded.model.config, files, parity={}, **fields)
        engine = open_engine("onnx", draft)
        say("comparing with torch on random inputs")
        random = compare_random(loaded.model, engine)
        clip, texts = demo_clip()
        say(f"comparing with torch on {clip.name}")
        stream = compare_stream(loaded.model, draft, engine, clip, texts, _STREAM_FRAMES)
    for what, agreements in (("random inputs", random), (clip.name, stream)):
        for graph in GRAPHS:
            agreements[graph].check(f"{graph} graph on {what}")
    parity = {
        what: {graph: agreements[graph].to_json() for graph in GRAPHS}
        for what, agreements in (("random", random), ("clip", stream))
    }
    bundle = write_bundle(out, loaded.model.config, files, parity=parity, replace=True, **fields)
    say(f"wrote {out}")
    _print_table(files, parity)
    return bundle


def demo_clip() -> tuple[Path, list[str]]:
    """The package's demo clip and its sentences.

    Raises:
        FileNotFoundError: the package was installed without its assets.
    """
    import refavs_rt

    folder = Path(refavs_rt.__file__).parent / "assets" / "demo"
    try:
        described = json.loads((folder / "demo.json").read_text())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder / 'demo.json'} is missing: install refavs-rt again") from error
    return folder / described["clip"], list(described["texts"])


def _print_table(files: dict[str, bytes], parity: dict[str, Any]) -> None:
    print(
        f"\n{'graph':<8}{'size':>10}{'error, random':>16}{'error, clip':>16}{'mask IoU':>12}{'flipped':>10}"
    )
    for graph in GRAPHS:
        random, clip = parity["random"][graph], parity["clip"][graph]
        size = len(files[graph_file(graph)]) / 1e6
        iou = f"{clip['mask_iou']:.5f}" if "mask_iou" in clip else "-"
        flipped = str(clip.get("mask_pixels_flipped", "-"))
        print(
            f"{graph:<8}{size:>7.1f} MB{random['largest_error']:>16.1e}{clip['largest_error']:>16.1e}{iou:>12}{flipped:>10}"
        )


def _tool_versions() -> dict[str, str]:
    return {
        name: importlib.metadata.version(name)
        for name in ("refavs-rt", "torch", "onnx", "onnxscript", "onnxruntime")
    }


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors that are the user's to mend: shown as one line, without a traceback."""
    from refavs_rt.ingest import IngestError
    from refavs_rt.model.run_folder import CheckpointError

    from .parity import ParityError

    return (BundleError, CheckpointError, ParityError, IngestError, OSError)
