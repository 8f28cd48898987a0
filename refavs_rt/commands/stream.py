"""`refavs-rt stream`: sentences on a file, a stream or a camera."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

from .. import logs
from ..config import ENGINES, RunConfig
from ..errors import UserError
from .options import add_bundle, count, latency, positive_float, positive_int, share, size

_DESCRIPTION = """\
Segment what each sentence means in every frame of a video with sound.

  refavs-rt stream --source video.mp4 --text "the dog that barks" --out overlay.mp4 --jsonl masks.jsonl
  refavs-rt stream --camera 0 --text "the dog that barks"
  refavs-rt stream --camera rtsp://user:password@camera/stream --text "the person who speaks" --out overlay.mp4

A camera without --out, --jsonl, --masks or --push is shown on a page in the browser.
"""
_LATENCY_MS = 200.0
_TOKEN = "REFAVS_TOKEN"
"""Variable of the environment with the token: unlike an argument it is not shown to other users."""


def add_parser(commands: Any) -> None:
    """Put the command among the others."""
    defaults = RunConfig()
    stream = commands.add_parser(
        "stream",
        help="run sentences on a video",
        description=_DESCRIPTION,
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
        type=latency,
        default=_LATENCY_MS,
        metavar="MS",
        help="how long a frame may wait for its sound, and how much of a network stream is held back to put it in order "
        "(default %(default)g)",
    )
    stream.add_argument(
        "--deadline-ms",
        type=positive_float,
        default=math.inf,
        metavar="MS",
        help="give up a frame of --camera that is older than this (default: never)",
    )
    stream.add_argument(
        "--hwaccel", default="", metavar="NAME", help="decode --camera in hardware: cuda, vaapi, ..."
    )
    stream.add_argument(
        "--list-devices", action=_ListDevices, nargs=0, help="list cameras, microphones and screens, and end"
    )
    stream.add_argument(
        "--camera-size",
        type=size,
        default="",
        metavar="WxH",
        help="of a camera (default: what suits it)",
    )
    stream.add_argument(
        "--camera-rate", type=positive_float, default=0.0, metavar="FPS", help="of a camera, likewise"
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
    stream.add_argument(
        "--jsonl",
        type=Path,
        metavar="FILE",
        help="write one JSON line a frame; - is stdout, and all else goes to stderr",
    )
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
        help="what viewers of the page, and readers of the metrics, must know; needed at an address that others reach. "
        f"All users of this machine can see a command line: the variable {_TOKEN} does as well",
    )
    add_bundle(stream, "--bundle")
    stream.add_argument(
        "--engine", choices=ENGINES, default=ENGINES[0], help="what runs the network (default %(default)s)"
    )
    stream.add_argument("--max-frames", type=positive_int, metavar="N", help="stop after N frames")
    stream.add_argument(
        "--duration", type=positive_float, metavar="S", help="stop after S seconds of the source"
    )
    stream.add_argument(
        "--threads",
        type=count,
        default=defaults.threads,
        metavar="N",
        help="threads of the engine; 0: one a core (default)",
    )
    stream.add_argument(
        "--null-threshold",
        type=share,
        default=defaults.presence_threshold,
        metavar="X",
        help="a sentence gets a mask from a presence of X on, from 0 to 1, and loses it a little below (default %(default)s)",
    )
    stream.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Run sentences on a video."""
    from ..ingest import IngestError
    from ..outputs.records import STDOUT
    from ..run_stream import UsageError, Wanted, run_stream
    from ..serve.address import ServeError
    from ..sink import SinkError
    from ..stream import Live

    how = RunConfig(
        presence_threshold=args.null_threshold, threads=args.threads, deadline_s=args.deadline_ms / 1e3
    )
    source = args.source
    if source is not None:
        _refuse_live_options(args)
    wanted = Wanted(
        overlay=args.out,
        records=args.jsonl,
        masks=args.masks,
        push=args.push,
        metrics=args.metrics,
        serve=args.serve,
        token=args.token if args.token is not None else os.environ.get(_TOKEN),
    )
    is_served = args.serve is not None or args.metrics is not None
    if args.token is not None and not is_served and (source is not None or wanted.is_written):
        raise UserError("--token is for a page and for metrics: give --serve or --metrics too")
    if source is None:
        source = Live(
            args.camera,
            mic=args.mic,
            latency_s=args.latency_ms / 1e3,
            hwaccel=args.hwaccel,
            camera_size=args.camera_size,
            camera_rate=args.camera_rate,
        )
    if args.jsonl == STDOUT:
        logs.leave_stdout()
    try:
        return run_stream(
            source,
            args.text,
            wanted,
            bundle=args.bundle,
            engine=args.engine,
            run=how,
            max_frames=args.max_frames,
            duration_s=args.duration,
        )
    except (UsageError, IngestError, SinkError, ServeError) as error:
        raise UserError(str(error)) from error


def _refuse_live_options(args: argparse.Namespace) -> None:
    """What would be left out in silence."""
    plain = {
        "mic": "auto",
        "hwaccel": "",
        "camera_size": "",
        "camera_rate": 0.0,
        "latency_ms": _LATENCY_MS,
        "deadline_ms": math.inf,
    }
    for name, value in plain.items():
        if getattr(args, name) != value:
            raise UserError(f"--{name.replace('_', '-')} is of live sources: name the source with --camera")


class _ListDevices(argparse.Action):
    """`--list-devices`: like --help, it answers and ends, whatever else is given."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(_device_table())
        parser.exit()


def _device_table() -> str:
    from ..ingest import list_devices

    devices = list_devices()
    if not devices:
        return "no camera, microphone or screen is found; --camera takes streams (rtsp://...) and files too"
    width = max(len(address) for _, address, _ in devices)
    return "\n".join(
        f"{medium:<10}  {address:<{width}}  {name}".rstrip() for medium, address, name in devices
    )
