"""A minute of what `make soak` does for half an hour: every fault once, and nothing grows."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.results import ROOT
from benchmarks.soak import Sample, complaints, rss_slope
from benchmarks.viewers import Visits

from .live_sources import needs

CALM = Sample(
    at_s=1.0,
    rss_mib=100.0,
    descriptors=20,
    threads=8,
    frames=25,
    with_sound=25,
    viewers=0,
    latency_ms=20.0,
    sound_error_ms=0.1,
    sound_drift_ppm=3.0,
    reconnects=2,
    after_fault_s=30.0,
)
WELL = Visits(viewers=40, pictures=900)


@pytest.mark.media
@needs("pulseaudio")
def test_a_minute_with_every_fault(tmp_path: Path) -> None:
    """In a process of its own, as people run it: this one holds what other tests left, and gives it back when it likes."""
    command = [sys.executable, "-m", "benchmarks.soak", "--between", "16", "--minutes", str(79 / 60)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "soak.json").read_text())
    names = [name for _, name in told["faults"]]
    assert names == ["camera killed", "camera silent", "sound killed", "another size"]
    # A minute shows what is lost with each frame: 25 KiB of it would be these 32 MiB. What is lost slower the half hour shows;
    # here the allocator still grows, by 6 MiB on a free machine and by 12 beside another test.
    settled = [x["rss_mib"] for x in told["samples"] if x["at_s"] > 28 and x["after_fault_s"] > 12]
    assert settled[-1] - settled[0] < 32.0, settled
    assert (tmp_path / "soak.png").stat().st_size > 10_000


def run_of(minutes: int, **of: object) -> list[Sample]:
    """Calm samples, with what changes as functions of the second."""
    names = {name: value for name, value in of.items() if callable(value)}
    return [
        replace(CALM, at_s=float(second), **{name: value(second) for name, value in names.items()})
        for second in range(60 * minutes)
    ]


@pytest.mark.parametrize(
    ("of", "complaint"),
    [
        ({"rss_mib": lambda s: 100 + s / 60}, "resident memory grows by 1.000"),
        ({"threads": lambda s: 8 + s // 300}, "threads between faults: 8 to 9"),
        ({"descriptors": lambda s: 20 + (s > 500)}, "descriptors between faults: 20 to 21"),
        ({"frames": lambda s: 25 * (s < 300)}, "fewer than 4 frames, as at 300 s"),
        ({"with_sound": lambda s: 25 * (s < 300)}, "with sound missing, as at 300 s"),
        ({"sound_error_ms": lambda s: 20.0 * (s == 200)}, "sound was 20.0 ms from its place"),
        ({"reconnects": lambda s: 1}, "1 reconnects after 2 faults"),
    ],
)
def test_what_grows_is_complained_of(of: dict[str, object], complaint: str) -> None:
    (found,) = complaints(run_of(10, **of), 2, WELL)
    assert complaint in found


def test_viewers_who_saw_nothing_are_complained_of() -> None:
    visits = Visits(viewers=40, pictures=900, empty_handed=2, errors=["OSError: refused"])
    (found,) = complaints(run_of(10), 2, visits)
    assert found == "2 of 40 viewers saw no picture OSError: refused"


def test_noise_is_no_growth() -> None:
    noisy = run_of(30, rss_mib=lambda s: 100 + (s * 7919 % 100) / 50)
    assert complaints(noisy, 2, WELL) == []
    slope, error = rss_slope(noisy)
    assert abs(slope) < 0.01 and 0 < error < 0.05
