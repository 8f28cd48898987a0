"""The sound of a scene: what each object plays when, and what lies under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import SAMPLE_RATE_HZ

from ..material import Pack, Recording

Interval = tuple[float, float]
_FADE_S = 0.01
_NOISE_PERIOD = 1 << 16
"""Samples after which noise repeats: 4 s, too long to be noticed."""
_SHORTEST_GAP_S = 0.15
"""Pauses shorter than this are not heard as pauses."""


@dataclass(frozen=True)
class Play:
    """A stretch of the recording, begun at a time of the scene."""

    start_s: float
    offset_s: float
    """Where in the recording it begins, in the recording's own seconds."""
    length_s: float
    """How long it lasts in the scene."""


@dataclass(frozen=True)
class Voice:
    """All that one object makes to be heard."""

    recording: Recording
    plays: tuple[Play, ...]
    gain_db: float = 0.0
    speed: float = 1.0
    """Rate of playing: 1.1 is a tenth shorter and higher."""
    ramp_db: float = 0.0
    """How much louder (or softer, below 0) it gets from the beginning of the scene to its end."""
    echo_s: float = 0.0
    echo_gain: float = 0.0
    low_pass_hz: float = 0.0

    def intervals(self, seconds: float) -> tuple[Interval, ...]:
        """When it is heard, in seconds of the scene, in order, at least 0.15 s apart."""
        heard: list[Interval] = []
        for play in self.plays:
            for start, end in self.recording.active:
                a = max(play.start_s + (start - play.offset_s) / self.speed, play.start_s)
                b = min(
                    play.start_s + (end - play.offset_s) / self.speed, play.start_s + play.length_s, seconds
                )
                if b - a > 0.02:
                    heard.append((a, b))
        return merge(heard)

    def stem(self, pack: Pack, seconds: float) -> NDArray[np.float32]:
        """Its sound alone, [seconds * 16000]."""
        out = np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)
        source = pack.sound(self.recording.entry)
        if self.low_pass_hz:
            source = _low_pass(source, self.low_pass_hz)
        for play in self.plays:
            first = round(play.start_s * SAMPLE_RATE_HZ)
            count = min(round(play.length_s * SAMPLE_RATE_HZ), len(out) - first)
            if count > 0:
                out[first : first + count] += _stretch(
                    source, play.offset_s * SAMPLE_RATE_HZ, count, self.speed
                )
        if self.echo_gain:
            delay = round(self.echo_s * SAMPLE_RATE_HZ)
            dry = out.copy()
            for k in (1, 2, 3):
                if k * delay < len(out):
                    out[k * delay :] += self.echo_gain**k * dry[: len(out) - k * delay]
        decibels: float | NDArray[np.float64] = self.gain_db
        if self.ramp_db:
            decibels = self.gain_db + self.ramp_db * (np.arange(len(out)) / len(out) - 0.5)
        return (out * 10 ** (np.asarray(decibels) / 20)).astype(np.float32)


@dataclass(frozen=True)
class Noise:
    """Sound that belongs to no object."""

    kind: Literal["none", "white", "pink", "brown", "place"] = "none"
    level_db: float = -50.0
    """Root mean square below full scale; loud parts of objects are at -20 dB plus their gain."""
    entry: str | None = None
    """'place': the recording in the pack."""
    seed: int = 0

    def wave(self, pack: Pack, seconds: float) -> NDArray[np.float32]:
        """[seconds * 16000]"""
        count = round(seconds * SAMPLE_RATE_HZ)
        if self.kind == "none":
            return np.zeros(count, np.float32)
        rng = np.random.default_rng(self.seed)
        if self.kind == "place" and self.entry is not None:
            source = pack.sound(self.entry)
            samples = np.roll(np.resize(source, count), int(rng.integers(count)))
        else:
            samples = rng.standard_normal(_NOISE_PERIOD, np.float32)
            if self.kind != "white":
                spectrum = np.fft.rfft(samples)
                tilt = 0.5 if self.kind == "pink" else 1.0
                spectrum /= np.maximum(np.arange(len(spectrum)), 80) ** tilt  # flat below 20 Hz
                samples = np.fft.irfft(spectrum, _NOISE_PERIOD).astype(np.float32)
            samples = np.resize(samples, count)
        scale = 10 ** (self.level_db / 20) / max(float(np.sqrt(np.mean(samples**2))), 1e-9)
        return (samples * scale).astype(np.float32)


def merge(intervals: list[Interval]) -> tuple[Interval, ...]:
    """Sorted, and joined where the pause between them is too short to be heard."""
    out: list[Interval] = []
    for start, end in sorted(intervals):
        if out and start - out[-1][1] < _SHORTEST_GAP_S:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return tuple(out)


def _stretch(source: NDArray[np.float32], offset: float, count: int, speed: float) -> NDArray[np.float32]:
    """`count` samples from `offset` on at `speed`, silence after the end, faded in and out where it is cut."""
    if speed == 1.0:
        first = round(offset)
        piece = np.zeros(count, np.float32)
        inside = source[first : first + count]
        piece[: len(inside)] = inside
    else:
        at = offset + np.arange(count) * speed
        piece = np.interp(at, np.arange(len(source)), source, right=0.0).astype(np.float32)
    fade = min(round(_FADE_S * SAMPLE_RATE_HZ), count // 2)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    if fade:
        piece[:fade] *= ramp
        piece[count - fade :] *= ramp[::-1]
    return piece


def _low_pass(source: NDArray[np.float32], cutoff_hz: float) -> NDArray[np.float32]:
    """A windowed-sinc filter of 31 taps."""
    n = np.arange(-15, 16)
    taps = np.sinc(2 * cutoff_hz / SAMPLE_RATE_HZ * n) * np.hamming(31)
    return np.convolve(source, (taps / taps.sum()).astype(np.float32), "same").astype(np.float32)
