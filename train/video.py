"""`python -m train video`: one generated scene as an MP4 with sound, to look at or to stream."""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np

from refavs_rt.config import SAMPLE_RATE_HZ

from .data_source import default_pack
from .material import Pack
from .scenes import SPLITS, Scene, SceneGenerator


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
    parser.add_argument("--split", choices=SPLITS, default="test_s", help="whose objects; default test_s")
    parser.add_argument("--seed", type=_natural, default=0, help="default 0")
    parser.add_argument("--index", type=_natural, default=0, help="which scene of that seed; default 0")
    parser.add_argument("--seconds", type=_positive, default=10, metavar="S", help="length; default 10")
    parser.add_argument(
        "--size", type=_size, default=(640, 360), metavar="WxH", help="in pixels; default 640x360"
    )
    parser.add_argument("--rate", type=_positive, default=25, help="frames a second; default 25")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the scene that `args` names and print its sentences; returns the exit code.

    Raises:
        MaterialError: the pack is damaged or cannot be built.
        OSError: as `write_video`, or the pack is missing.
    """
    pack = Pack.load(args.pack) if args.pack else default_pack(Path("runs"))
    scene = SceneGenerator(pack, args.split, seed=args.seed, seconds=args.seconds).scene(args.index)
    width, height = args.size
    write_video(scene, args.out, width, height, args.rate)
    for expression in scene.expressions():
        target = "nothing" if expression.target is None else scene.objects[expression.target].class_name
        print(f"{expression.kind:<12} {target:<20} {expression.text}")
    return 0


def write_video(scene: Scene, out: Path, width: int, height: int, rate: int) -> None:
    """Write `scene` as H.264 and AAC through the ffmpeg program, in one move.

    Raises:
        FileNotFoundError: ffmpeg is not installed.
        ChildProcessError: ffmpeg refused; the message ends with its reason.
        OSError: `out` cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    try:
        with tempfile.TemporaryDirectory() as folder:
            _encode(scene, partial, Path(folder), width, height, rate)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def _encode(scene: Scene, out: Path, folder: Path, width: int, height: int, rate: int) -> None:
    """Into `out`, by way of files in `folder`."""
    sound, said = folder / "sound.wav", folder / "stderr.txt"
    with wave.open(str(sound), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE_HZ)
        wav.writeframes((np.clip(scene.waveform(), -1, 1) * 32767).astype("<i2").tobytes())
    command = (
        f"ffmpeg -loglevel error -y -f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {rate} -i - -i".split()
    )
    command += [str(sound), *"-c:v libx264 -crf 25 -preset slow -pix_fmt yuv420p".split()]
    command += [*"-c:a aac -b:a 64k -movflags +faststart -f mp4".split(), f"file:{out}"]
    with said.open("wb") as stderr:
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=stderr)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                "the program ffmpeg is not installed; on Debian or Ubuntu: sudo apt-get install ffmpeg"
            ) from error
    broken = False
    try:
        with process:
            _feed(scene, process, width, height, rate)
    except BrokenPipeError:
        broken = True  # it has ended before its time; why, it says itself
    if process.returncode or broken:
        reason = said.read_text(errors="replace").strip().splitlines() or ["it says no reason"]
        raise ChildProcessError(
            f"ffmpeg could not write the video (exit code {process.returncode}): {reason[0]}"
        )


def _feed(scene: Scene, process: subprocess.Popen[bytes], width: int, height: int, rate: int) -> None:
    """Give all frames as raw RGB, a second at a time, then the end; where that is interrupted, end the process."""
    assert process.stdin is not None
    try:
        for start in range(int(scene.seconds)):
            times = start + np.arange(rate) / rate
            process.stdin.write(scene.render(times, size=(height, width))[0].tobytes())
        process.stdin.close()
    except BrokenPipeError:
        raise
    except BaseException:
        process.kill()
        raise


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    """(width, height) of WxH; H.264 in 4:2:0 has none but even ones."""
    width, _, height = text.partition("x")
    sides = [int(side) for side in (width, height) if side.isdecimal()]
    if len(sides) != 2 or any(side < 16 or side % 2 for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not WxH with even numbers from 16, such as 640x360")
    return sides[0], sides[1]
