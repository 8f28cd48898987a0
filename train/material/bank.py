"""New recordings of real instruments: seeded melodies, written as MIDI, rendered by fluidsynth from a bank of samples."""

from __future__ import annotations

import struct
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import SAMPLE_RATE_HZ

from .errors import MaterialError

_TICKS = 480
"""MIDI ticks of a quarter note."""
_DRUM_CHANNEL = 9
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))


@dataclass(frozen=True)
class Instrument:
    """How an instrument is played."""

    program: int
    """General MIDI program, from 0; on the drum channel it is not used."""
    low: int
    high: int
    """Range of its notes as MIDI numbers."""
    style: str = "melody"
    """'melody', 'chords', or on the drum channel 'kit', 'toms', 'cymbals'."""
    programs: tuple[int, ...] = ()
    """Other programs that sound like it, drawn as well."""


INSTRUMENTS: dict[str, Instrument] = {
    "violin": Instrument(40, 60, 88),
    "cello": Instrument(42, 38, 64),
    "bassoon": Instrument(70, 36, 64),
    "trumpet": Instrument(56, 56, 82),
    "classical guitar": Instrument(24, 43, 76, "chords"),
    "electric guitar": Instrument(29, 43, 76, "chords", (27, 30)),
    "bass guitar": Instrument(33, 29, 52, programs=(34,)),
    "drum kit": Instrument(0, 0, 0, "kit"),
    "floor tom": Instrument(0, 0, 0, "toms"),
    "cymbal": Instrument(0, 0, 0, "cymbals"),
}
"""Class of the catalogue -> how it is played."""


def render_instrument(bank: Path, name: str, seed: int, seconds: float) -> NDArray[np.int16]:
    """16 kHz mono sound of the melody number `seed` of instrument `name`, from the sample bank `bank`.

    Raises:
        MaterialError: fluidsynth is missing or fails.
    """
    rng = np.random.default_rng((sum(name.encode()), seed))
    instrument = INSTRUMENTS[name]
    with tempfile.TemporaryDirectory() as folder:
        midi, out = Path(folder, "melody.mid"), Path(folder, "melody.wav")
        midi.write_bytes(_midi_file(instrument, _notes(instrument, seconds, rng), rng))
        command = [
            "fluidsynth",
            "-ni",
            "-q",
            "-C",
            "0",
            "-g",
            "0.8",
            "-r",
            str(SAMPLE_RATE_HZ),
            "-F",
            str(out),
        ]
        try:
            subprocess.run([*command, str(bank), str(midi)], check=True, capture_output=True, timeout=120)
        except FileNotFoundError as error:
            raise MaterialError(
                "fluidsynth is missing; install it with: apt-get install fluidsynth"
            ) from error
        except subprocess.CalledProcessError as error:
            raise MaterialError(
                f"fluidsynth failed on {bank}: {error.stderr.decode(errors='replace')[-200:]}"
            ) from error
        with wave.open(str(out)) as sound:
            frames = np.frombuffer(sound.readframes(sound.getnframes()), np.int16).reshape(
                -1, sound.getnchannels()
            )
    mono = frames.mean(axis=1)[: round(seconds * SAMPLE_RATE_HZ)]
    return np.round(mono).astype(np.int16)


def _notes(
    instrument: Instrument, seconds: float, rng: np.random.Generator
) -> list[tuple[float, float, int, int]]:
    """(start in s, length in s, note, velocity)."""
    beat = 60 / rng.uniform(70, 150)
    notes: list[tuple[float, float, int, int]] = []
    if instrument.style in ("kit", "toms", "cymbals"):
        step = beat / 2
        pattern = _drum_pattern(instrument.style, rng)
        for i in range(int(seconds / step)):
            hits = pattern[i % len(pattern)]
            notes += [(i * step, step, note, int(rng.integers(70, 125))) for note in hits]
        return notes
    scale = _SCALES[rng.integers(len(_SCALES))]
    root = int(rng.integers(12))
    pitches = [p for p in range(instrument.low, instrument.high + 1) if (p - root) % 12 in scale]
    at, position = 0.0, int(rng.integers(len(pitches) // 4, 3 * len(pitches) // 4))
    while at < seconds:
        length = beat * float(rng.choice([0.5, 0.5, 1.0, 1.0, 2.0]))
        chord = [0, 2, 4] if instrument.style == "chords" and rng.random() < 0.35 else [0]
        for k, offset in enumerate(chord):
            pitch = pitches[min(position + offset, len(pitches) - 1)]
            notes.append((at + 0.02 * k, length * 0.95, pitch, int(rng.integers(75, 120))))
        at += length
        position = int(np.clip(position + rng.integers(-3, 4), 0, len(pitches) - 1))
    return notes


def _drum_pattern(style: str, rng: np.random.Generator) -> list[list[int]]:
    """Eight half beats of General MIDI drum notes."""
    if style == "toms":
        toms = rng.choice([41, 43, 45], 2, replace=False)
        return [[int(rng.choice(toms))] if rng.random() < 0.75 else [] for _ in range(8)]
    if style == "cymbals":
        cymbal = int(rng.choice([49, 51, 57, 59]))
        return [[cymbal] if i % 4 == 0 or rng.random() < 0.3 else [] for i in range(8)]
    rows: list[list[int]] = []
    for i in range(8):
        hits = [42] if rng.random() < 0.8 else [46]
        if i % 4 == 0 or rng.random() < 0.2:
            hits.append(36)
        if i % 4 == 2:
            hits.append(38)
        if rng.random() < 0.1:
            hits.append(int(rng.choice([45, 48, 49])))
        rows.append(hits)
    return rows


def _midi_file(
    instrument: Instrument, notes: list[tuple[float, float, int, int]], rng: np.random.Generator
) -> bytes:
    """A MIDI file of one track at 120 beats a minute, so that a second is 960 ticks."""
    channel = _DRUM_CHANNEL if instrument.style in ("kit", "toms", "cymbals") else 0
    program = int(rng.choice([instrument.program, *instrument.programs]))
    events: list[tuple[int, int, bytes]] = []
    for start, length, note, velocity in notes:
        events.append((_tick(start), 1, bytes([0x90 | channel, note, velocity])))
        events.append((_tick(start + length), 0, bytes([0x80 | channel, note, 0])))
    track = b"\x00" + bytes([0xC0 | channel, program])
    now = 0
    for tick, _, message in sorted(events):
        track += _variable_length(tick - now) + message
        now = tick
    track += _variable_length(_TICKS) + b"\xff\x2f\x00"
    return struct.pack(">4sIHHH", b"MThd", 6, 0, 1, _TICKS) + struct.pack(">4sI", b"MTrk", len(track)) + track


def _tick(seconds: float) -> int:
    return round(seconds * 2 * _TICKS)


def _variable_length(value: int) -> bytes:
    """MIDI's numbers of 7 bits a byte, the highest first."""
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))
