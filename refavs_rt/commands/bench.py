"""`refavs-rt bench`: what each stage costs on this machine, as a table."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import logs
from ..config import ENGINES, RunConfig
from ..errors import UserError
from ..exit_codes import DONE
from .options import add_bundle, count

if TYPE_CHECKING:
    from ..bench import Figures
    from ..session import Model

_log = logging.getLogger(__name__)
_DESCRIPTION = """\
Measure each stage of a frame, and the whole, in under a minute: milliseconds (median and p95) and frames a second.

  refavs-rt bench
  refavs-rt bench --source video.mp4 --threads 1
  refavs-rt bench --bundle bundles/latest --engine tensorrt --json > bench.json

Without --source on pictures of 1280 x 720 that it makes of the demo clip. The first frames of each pass are left out.
"""


def add_parser(commands: Any) -> None:
    """Put the command among the others."""
    bench = commands.add_parser(
        "bench",
        help="measure what each stage of a frame costs here",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument("--source", metavar="FILE", help="a video to measure on")
    add_bundle(bench, "--bundle")
    bench.add_argument(
        "--engine", choices=ENGINES, default=ENGINES[0], help="what runs the network (default %(default)s)"
    )
    bench.add_argument(
        "--threads", type=count, default=0, metavar="N", help="threads of the engine; 0: one a core (default)"
    )
    bench.add_argument("--json", action="store_true", help="for machines")
    bench.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Measure, and tell."""
    from ..bench import FRAMES, Figures, TooShortError, measure, passes
    from ..bench_clip import write_clip
    from ..ingest import IngestError
    from ..session import load

    model = load(args.bundle, engine=args.engine, run=RunConfig(threads=args.threads))
    figures, told = Figures(), 0

    def progress(what: str) -> None:
        nonlocal told
        told += 1
        logs.progress(_log, f"{told} of {passes() + 1}: {what}", done=told - 1, of=passes() + 1)

    with tempfile.TemporaryDirectory() as folder:
        progress("opening the source" if args.source else "making a clip")
        source = args.source or write_clip(Path(folder), FRAMES)
        try:
            measure(model, source, figures, progress)
        except (IngestError, TooShortError) as error:
            raise UserError(str(error)) from error
        finally:  # what there is, also after Ctrl-C
            if figures.results_fps:
                _print(model, args.source, figures, as_json=args.json)
    return DONE


def _print(model: Model, source: str | None, figures: Figures, *, as_json: bool) -> None:
    from ..bundle import Bundle
    from ..info import describe

    bundle = model.bundle
    described = describe(bundle if isinstance(bundle, Bundle) else str(bundle.path))
    figures.source["name"] = source or "the demo clip, enlarged"
    what = {
        "versions": described["versions"],
        "devices": described["devices"],
        "bundle": {
            "path": str(bundle.path),
            "preset": model.config.preset,
            "digest": getattr(bundle, "digest", None),
            "precision": getattr(bundle, "precision", None),
        },
        "engine": {"name": model.engine.name, "device": model.engine.device},
        "source": figures.source,
        "stages": [
            {"stage": stage, "median_ms": round(median, 3), "p95_ms": round(p95, 3), "frames": frames}
            for stage, median, p95, frames in figures.rows()
        ],
        "fps": {
            "results": {str(n): round(fps, 2) for n, fps in figures.results_fps.items()},
            "overlay": {str(n): round(fps, 2) for n, fps in figures.overlay_fps.items()},
        },
    }
    print(json.dumps(what, indent=2) if as_json else "\n".join(_table(what)))


def _table(what: dict[str, Any]) -> list[str]:
    versions, devices, bundle, source = (what[name] for name in ("versions", "devices", "bundle", "source"))
    kept = ("refavs-rt", "python", "onnxruntime", "ffmpeg")
    lines = [
        ", ".join(f"{name} {versions[name]}" for name in kept),
        f"{devices['cpu']}, {devices['cores']} cores usable; {devices['gpu']}",
        f"bundle {bundle['path']} ({bundle['preset']}, {bundle['precision']}), "
        f"engine {what['engine']['name']} ({what['engine']['device']})",
        f"{source['name']}: {source['width']} x {source['height']}, {source['codec']}, "
        f"{'sound' if source['has_audio'] else 'no sound'}; overlays by {source.get('encoder', 'nobody')}",
        "",
        f"{'stage':<32}{'median ms':>10}{'p95 ms':>10}{'frames':>8}",
    ]
    lines += [
        f"{row['stage']:<32}{row['median_ms']:>10.2f}{row['p95_ms']:>10.2f}{row['frames']:>8}"
        for row in what["stages"]
    ]
    counts = list(what["fps"]["results"])
    lines += ["", f"{'frames a second, by sentences':<32}" + "".join(f"{count:>8}" for count in counts)]
    for name, text in (("results", "file to masks"), ("overlay", "file to overlay")):
        fps = what["fps"][name]
        lines.append(f"{text:<32}" + "".join(f"{fps[n]:>8.1f}" if n in fps else f"{'':>8}" for n in counts))
    return lines
