"""The command line: `refavs-rt stream`, `refavs-rt info` and `refavs-rt verify`."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from .bundle import Bundle, BundleError, find_bundle, graph_file
from .config import RunConfig
from .contract import GRAPHS
from .engines import ENGINES, EngineError

_DESCRIPTION = "Segment what a sentence means in a video with sound."
_STREAM = """\
Segment what each sentence means in every frame of a video with sound.

  refavs-rt stream --source video.mp4 --text "the dog that barks" --out overlay.mp4 --jsonl masks.jsonl
  refavs-rt stream --camera 0 --text "the dog that barks"
  refavs-rt stream --camera rtsp://user:password@camera/stream --text "the person who speaks" --out overlay.mp4

A camera without --out or --jsonl is shown on a page in the browser.
"""
_INTERRUPTED = 130
_LATENCY_MS = 200.0


class _UserError(Exception):
    """The user's to mend: shown as one line, without a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show_warning
        try:
            return command(args)
        except (_UserError, BundleError, EngineError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return _INTERRUPTED
        except BrokenPipeError:
            # The reader of our output left. Close quietly: Python would complain once more at exit.
            sys.stderr.close()
            return 1
        except (
            OSError,
            ImportError,
        ) as error:  # a full disk, a folder without access, a part that is not built
            print(f"error: {error}", file=sys.stderr)
            return 1


def _stream(args: argparse.Namespace) -> int:
    from .ingest import IngestError
    from .run_stream import UsageError, run_stream
    from .serve.address import ServeError
    from .sink import SinkError
    from .stream import Live

    wanted = RunConfig(presence_threshold=args.null_threshold, threads=args.threads)
    source = args.source
    if source is not None:
        _refuse_live_options(args)
    has_output = args.out or args.jsonl or args.masks or args.push
    if args.token is not None and args.serve is None and args.metrics is None and (source or has_output):
        raise _UserError("--token is for a page and for metrics: give --serve or --metrics too")
    if source is None:
        source = Live(
            args.camera,
            mic=args.mic,
            latency_s=args.latency_ms / 1e3,
            hwaccel=args.hwaccel,
            camera_size=args.camera_size,
            camera_rate=args.camera_rate,
        )
    try:
        return run_stream(
            source,
            args.text,
            bundle=args.bundle,
            engine=args.engine,
            run=wanted,
            overlay=args.out,
            records=args.jsonl,
            masks=args.masks,
            push=args.push,
            metrics=args.metrics,
            serve=args.serve,
            token=args.token,
            max_frames=args.max_frames,
            duration_s=args.duration,
        )
    except (UsageError, IngestError, SinkError, ServeError) as error:
        raise _UserError(str(error)) from error


def _refuse_live_options(args: argparse.Namespace) -> None:
    """What would be left out in silence."""
    plain = {"mic": "auto", "hwaccel": "", "camera_size": "", "camera_rate": 0.0, "latency_ms": _LATENCY_MS}
    for name, value in plain.items():
        if getattr(args, name) != value:
            raise _UserError(f"--{name.replace('_', '-')} is of live sources: name the source with --camera")


class _ListDevices(argparse.Action):
    """`--list-devices`: like --help, it answers and ends, whatever else is given."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(_device_table())
        parser.exit()


def _device_table() -> str:
    from .ingest import list_devices

    devices = list_devices()
    if not devices:
        return "no camera, microphone or screen is found; --camera takes streams (rtsp://...) and files too"
    width = max(len(address) for _, address, _ in devices)
    return "\n".join(
        f"{medium:<10}  {address:<{width}}  {name}".rstrip() for medium, address, name in devices
    )


def _info(args: argparse.Namespace) -> int:
    from .info import describe, to_text

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


def _verify(args: argparse.Namespace) -> int:
    from .engines.onnx import OnnxEngine
    from .engines.tensorrt_checks import check_records
    from .session import Model

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


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = argparse.ArgumentParser(prog="refavs-rt", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"refavs-rt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = RunConfig()

    stream = commands.add_parser(
        "stream",
        help="run sentences on a video",
        description=_STREAM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = stream.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--source",
        metavar="ADDRESS",
        help="every frame of a media file, of a stream (http://..., rtsp://...) or of lavfi:GRAPH, as fast as it is used",
    )
    source.add_argument(
        "--camera",
        metavar="ADDRESS",
        help="a live source, always its newest frame: 0 (a camera), rtsp://... rtmp://... srt://... http://..., "
        "screen::0, gst:PIPELINE (GStreamer), lavfi:GRAPH, or a file at its own pace",
    )
    stream.add_argument(
        "--mic",
        default="auto",
        metavar="ADDRESS",
        help="the sound of --camera: default, pulse:NAME, alsa:NAME, 0 (a sound card), a stream, gst:PIPELINE, a file, none "
        "(default: the camera's own, else the default microphone)",
    )
    stream.add_argument(
        "--latency-ms",
        type=_latency,
        default=_LATENCY_MS,
        metavar="MS",
        help="how long a frame may wait for its sound, and how much of a network stream is held back to put it in order "
        "(default %(default)g)",
    )
    stream.add_argument(
        "--hwaccel", default="", metavar="NAME", help="decode --camera in hardware: cuda, vaapi, ..."
    )
    stream.add_argument(
        "--list-devices", action=_ListDevices, nargs=0, help="list cameras, microphones and screens, and end"
    )
    stream.add_argument(
        "--camera-size",
        type=_size,
        default="",
        metavar="WxH",
        help="of a camera (default: what suits it)",
    )
    stream.add_argument(
        "--camera-rate", type=_positive_float, default=0.0, metavar="FPS", help="of a camera, likewise"
    )
    stream.add_argument(
        "--text",
        action="append",
        required=True,
        metavar="SENTENCE",
        help="what to segment; give it again for more",
    )
    stream.add_argument(
        "--out",
        type=Path,
        metavar="MP4",
        help="write the video with the masks drawn, and its sound",
    )
    stream.add_argument("--jsonl", type=Path, metavar="FILE", help="write one JSON line a frame")
    stream.add_argument(
        "--masks", type=Path, metavar="DIR", help="write the masks as PNG files into a new folder"
    )
    stream.add_argument(
        "--push",
        metavar="URL",
        help="send what --out would write to rtmp://..., rtsp://..., srt://..., udp://... or tcp://...",
    )
    stream.add_argument(
        "--metrics",
        nargs="?",
        const="",
        metavar="HOST:PORT",
        help="answer Prometheus at /metrics (default 127.0.0.1:9464); --serve does so too",
    )
    stream.add_argument(
        "--serve",
        nargs="?",
        const="",
        metavar="HOST:PORT",
        help="a page in the browser to watch, and to change the sentences (default 127.0.0.1:8765; --camera without any other "
        "output has it too)",
    )
    stream.add_argument(
        "--token",
        metavar="TOKEN",
        help="what viewers of the page, and readers of the metrics, must know; needed at an address that others reach",
    )
    _add_bundle(stream, "--bundle")
    stream.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help="default %(default)s")
    stream.add_argument("--max-frames", type=_positive_int, metavar="N", help="stop after N frames")
    stream.add_argument(
        "--duration", type=_positive_float, metavar="S", help="stop after S seconds of the source"
    )
    stream.add_argument(
        "--threads",
        type=_count,
        default=run.threads,
        metavar="N",
        help="threads of the engine; 0: one a core (default)",
    )
    stream.add_argument(
        "--null-threshold",
        type=_share,
        default=run.presence_threshold,
        metavar="X",
        help="no mask is drawn for a sentence whose presence is below X, from 0 to 1 (default %(default)s)",
    )
    stream.set_defaults(command=_stream)

    info = commands.add_parser("info", help="print versions, engines, devices and the bundle")
    _add_bundle(info, "--bundle")
    info.add_argument("--json", action="store_true", help="for machines")
    info.set_defaults(command=_info)

    verify = commands.add_parser("verify", help="check every file of a bundle, its graphs and its engines")
    verify.add_argument("verified", metavar="BUNDLE", help="a bundle folder, or 'edge' for the embedded one")
    verify.add_argument(
        "--digest", type=_sha256, metavar="SHA256", help="the digest that the bundle must have"
    )
    verify.set_defaults(command=_verify)
    return parser


def _add_bundle(parser: argparse.ArgumentParser, flag: str) -> None:
    parser.add_argument(
        flag,
        metavar="DIR",
        help="a bundle folder, or 'edge' for the embedded one (default: bundles/latest, else the embedded one)",
    )


def _positive_int(text: str) -> int:
    return _number(text, int, lambda value: value > 0, "a whole number above 0")


def _count(text: str) -> int:
    return _number(text, int, lambda value: value >= 0, "a whole number, 0 or more")


def _positive_float(text: str) -> float:
    return _number(text, float, lambda value: 0 < value < math.inf, "a number above 0")


def _size(text: str) -> str:
    if text and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text):  # the default is empty, and read too
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give WIDTHxHEIGHT, as in 1280x720")
    return text


def _latency(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value <= 10_000, "a number from 0 to 10000")


def _share(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _sha256(text: str) -> str:
    if len(text) != 64 or not set(text.lower()) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a sha256: 64 hexadecimal digits")
    return text


def _number(text: str, kind: Callable[[str], Any], valid: Callable[[Any], bool], wanted: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not valid(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """`warnings.showwarning`, for people: what, and not where in the code."""
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
