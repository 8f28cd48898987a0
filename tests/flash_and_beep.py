"""How far sound and picture of a file are apart, as the ffmpeg tools read it."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .clips import decode_rgb, probe_pts

RATE_HZ = 16_000


def sound_from_0(path: Path) -> NDArray[np.float32]:
    """[n]: mono at 16 kHz, sample k at k / 16000 s of the container's clock, zeros where it has no sound."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-copyts", "-i", str(path), "-map", "0:a:0"]
    command += [
        "-af",
        f"aresample={RATE_HZ}:ochl=mono:async=1:min_hard_comp=0.01:first_pts=0",
        "-f",
        "f32le",
        "-",
    ]
    return np.frombuffer(
        subprocess.run(command, capture_output=True, check=True, timeout=60).stdout, np.float32
    )


def flashes_s(path: Path, width: int, height: int) -> list[float]:
    """When pictures turn from black to white."""
    times = probe_pts(path, "v:0")
    light = decode_rgb(path, width, height).mean(axis=(1, 2, 3))
    return [
        t
        for (before, after), t in zip(itertools.pairwise(light), times[1:], strict=True)
        if after > 128 > before
    ]


def beeps_s(path: Path) -> list[float]:
    """When a tone begins after a silence of a fifth of a second."""
    loud = np.flatnonzero(np.abs(sound_from_0(path)) > 0.1)
    begins = loud[np.flatnonzero(np.diff(loud, prepend=-RATE_HZ) > RATE_HZ // 5)]
    return [float(begin) / RATE_HZ for begin in begins]


def skews_s(path: Path, width: int, height: int) -> list[float]:
    """(beep - flash) for each flash that has a beep within half a second of it."""
    beeps = beeps_s(path)
    return [
        min((beep - flash for beep in beeps), key=abs)
        for flash in flashes_s(path, width, height)
        if any(abs(beep - flash) < 0.5 for beep in beeps)
    ]
