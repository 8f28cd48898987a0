"""What the tests of live sources share: waiting for frames, and measuring what is in them."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt.ingest import Frame, LiveIngest

FLASH = "color=black:size=64x64:rate=25,geq=lum='255*lt(mod(T,1),0.039)':cb=128:cr=128"
"""White for the first frame of each second."""
BEEP = "aevalsrc='0.5*sin(2*PI*1000*t)*lt(mod(t,1),0.1)':sample_rate=48000"
WINDOW = 15_600


def needs(program: str) -> pytest.MarkDecorator:
    """Skip where a program of the tests is not installed, unless all must be."""
    absent = shutil.which(program) is None and not os.environ.get("REFAVS_REQUIRE_MEDIA")
    return pytest.mark.skipif(absent, reason=f"{program} is not installed")


def frames_until(source: LiveIngest, done: Callable[[Frame | None], bool], limit_s: float) -> list[Frame]:
    until, frames = time.monotonic() + limit_s, []
    while time.monotonic() < until:
        frame = source.read(timeout_s=0.1)
        if frame is not None:
            frames.append(frame)
        if done(frame):
            return frames
    raise AssertionError(f"not within {limit_s} s; {source.counters}, {source.take_notices()}")


def threads() -> int:
    """Of this process; the kernel lists one for a moment after it has been joined."""
    return len(os.listdir("/proc/self/task"))


def comes_true(condition: Callable[[], bool], limit_s: float) -> bool:
    until = time.monotonic() + limit_s
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def sound_of(frame: Frame) -> NDArray[np.float32]:
    assert frame.samples is not None
    return frame.samples


def loudest_hz(frame: Frame) -> float:
    return float(np.abs(np.fft.rfft(sound_of(frame) * np.hanning(WINDOW))).argmax() * 16_000 / WINDOW)


def sounds_throughout(frame: Frame) -> bool:
    return bool(np.abs(sound_of(frame)).reshape(-1, 1_560).max(axis=1).min() > 0.01)


def skew_s(frames: list[Frame]) -> float:
    """The mean of (beep begins - flash begins), over the flashes with a whole beep in a later window."""
    flashes = [
        frame.pts_s
        for before, frame in itertools.pairwise(frames)
        if frame.image.mean() > 128 > before.image.mean()
    ]
    skews = []
    for flash in flashes:
        later = next((f for f in frames if f.audio_end_s and flash + 0.3 < f.audio_end_s < flash + 0.7), None)
        if later is None or later.audio_missing_samples:
            continue
        begins = later.audio_end_s - WINDOW / 16_000
        loud = np.abs(later.samples) > 0.1
        loud[: max(0, int((flash - 0.25 - begins) * 16_000))] = False
        skews.append(begins + loud.argmax() / 16_000 - flash)
    assert len(skews) >= 2
    return float(np.mean(skews))
