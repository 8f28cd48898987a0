"""`python -m train video`: one generated scene as an MP4 with sound, to look at or to stream."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np

from refavs_rt.config import SAMPLE_RATE_HZ

from .data_source import default_pack
from .material import Pack
from .scenes import Scene, SceneGenerator


def add_parser(subparsers: Any) -> None:
    """Add the subcommand `video`."""
    parser = subparsers.add_parser("video", help="write one generated scene as an MP4 with sound")
    parser.add_argument("--out", type=Path, required=True, metavar="MP4")
    parser.add_argument(
        "--pack",
        type=Path,
        default=None,
        metavar="FILE",
        help="default: runs/scenes.pack, built where it is missing",
    )
    parser.add_argument("--split", default="test_s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", type=int, default=0, help="which scene of that seed")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--size", default="640x360", metavar="WxH")
    parser.add_argument("--rate", type=int, default=25, help="frames a second")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the scene that `args` names and print its sentences; returns the exit code."""
    width, height = (int(n) for n in args.size.split("x"))
    pack = Pack.load(args.pack) if args.pack else default_pack(Path("runs"))
    scene = SceneGenerator(pack, args.split, seed=args.seed, seconds=args.seconds).scene(args.index)
    write_video(scene, args.out, width, height, args.rate)
    for expression in scene.expressions():
        target = "nothing" if expression.target is None else scene.objects[expression.target].class_name
        print(f"{expression.kind:<12} {target:<20} {expression.text}")
    return 0


def write_video(scene: Scene, out: Path, width: int, height: int, rate: int) -> None:
    """Write `scene` as H.264 and AAC through the ffmpeg program.

    Raises:
        FileNotFoundError: ffmpeg is not installed.
        subprocess.CalledProcessError: ffmpeg refused; it has said why on stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder, "sound.wav")
        with wave.open(str(sound), "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(SAMPLE_RATE_HZ)
            wav.writeframes((np.clip(scene.waveform(), -1, 1) * 32767).astype("<i2").tobytes())
        command = ["ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += [
            "-s",
            f"{width}x{height}",
            "-r",
            str(rate),
            "-i",
            "-",
            "-i",
            str(sound),
            "-c:v",
            "libx264",
        ]
        command += ["-crf", "25", "-preset", "slow", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "64k"]
        command += ["-movflags", "+faststart", str(out)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            for start in range(int(scene.seconds)):
                times = start + np.arange(rate) / rate
                process.stdin.write(scene.render(times, size=(height, width))[0].tobytes())
            process.stdin.close()
            if process.wait():
                raise subprocess.CalledProcessError(process.returncode, "ffmpeg")
