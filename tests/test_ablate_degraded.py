"""Degradations against formulas in float64, and the experiment on clips whose scores the test knows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt.train.ablate.clips import EvaluationClip, Sentence
from refavs_rt.train.ablate.degraded import (
    BASELINE,
    VOICES,
    add_noise,
    babble,
    blur,
    degradations,
    drop,
    truncate,
)
from refavs_rt.train.ablate.observation import NULL

TICKS = 7


def clip(samples: NDArray[np.float32] | None, name: str = "a") -> EvaluationClip:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (TICKS, 20, 20, 3)).astype(np.uint8)
    truth = np.zeros((TICKS, 256, 256), bool)
    sentences = (
        Sentence("The dog that barks twice.", "sound", truth),
        Sentence("A cat.", NULL, truth),
        Sentence("Dog.", "name", truth),
    )
    return EvaluationClip(name, frames, samples, sentences)


def sound(seed: int = 0, seconds: float = 1.5) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    samples = (
        0.1 * rng.standard_normal(round(16_000 * seconds)) * (np.arange(round(16_000 * seconds)) % 5000 < 900)
    )
    return samples.astype(np.float32)


class Tracks:
    """The sound of other clips."""

    note, skipped = "", dict[str, str]()

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[EvaluationClip]:
        return iter(())

    def tracks(self, name: str) -> list[NDArray[np.float32]]:
        return [sound(i, 0.4 * i) for i in range(1, 7) if name != f"track {i}"]


def power(samples: NDArray[np.floating]) -> float:
    return math.fsum(float(x) ** 2 for x in samples) / len(samples)


@pytest.mark.parametrize("snr_db", [20.0, 0.0, -10.0, 3.7])
def test_noise_has_its_ratio_and_its_shape(snr_db: float) -> None:
    samples = sound()
    noise = np.random.default_rng(1).uniform(-3, 5, len(samples))
    heard = add_noise(samples, noise, snr_db)
    assert heard.dtype == np.float32
    added = heard.astype(np.float64) - samples
    assert 10 * math.log10(power(samples) / power(added)) == pytest.approx(snr_db, abs=1e-3)
    assert np.corrcoef(added, noise)[0, 1] > 1 - 1e-9


def test_conditions_keep_their_ratio() -> None:
    """The name of the condition says it, for white noise and for babble; another chance, another noise."""
    conditions = degradations(Tracks())
    samples = sound()
    found = {}
    for name, degrade in conditions.items():
        if "dB" in name:
            worse = [degrade(clip(samples), np.random.default_rng(k)) for k in (0, 0, 1)]
            first, again, other = (w.samples for w in worse if w is not None)
            np.testing.assert_array_equal(first, again)
            assert np.abs(first - other).max() > 0.01
            snr = 10 * math.log10(power(samples) / power(first.astype(np.float64) - samples))
            found[name] = round(snr, 2)
    assert found == {
        **{f"white noise, {snr} dB": snr for snr in (20, 10, 5, 0, -5, -10)},
        **{f"babble, {snr} dB": snr for snr in (10, 0, -10)},
    }


def test_babble_is_other_tracks_at_one_level() -> None:
    """Two tracks of very different levels are both heard; long ones are cut, short ones repeated."""
    tones = [
        (gain * np.sin(2 * np.pi * hz * np.arange(count) / 16_000)).astype(np.float32)
        for gain, hz, count in ((1e-3, 100, 16_000), (1.0, 1000, 3200))
    ]
    heard = babble(tones, 8000, np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(heard)) / len(heard) * 2
    assert spectrum[50] == pytest.approx(math.sqrt(2), rel=0.01)  # bins of 2 Hz
    assert spectrum[500] == pytest.approx(math.sqrt(2), rel=0.01)
    many = [tones[1]] * (VOICES + 3)
    assert power(babble(many, 8000, np.random.default_rng(0))) <= VOICES**2 + 1e-6
    for tracks in ([], [np.zeros(50, np.float32)]):
        assert power(babble(tracks, 8000, np.random.default_rng(0))) == pytest.approx(1, abs=0.1)


def test_silence_and_no_track_are_left_out_of_noise() -> None:
    conditions = degradations(Tracks())
    rng = np.random.default_rng(0)
    silent, trackless = clip(np.zeros(16_000, np.float32)), clip(None)
    for name, degrade in conditions.items():
        if "dB" in name or name == "sound reversed":
            assert degrade(silent, rng) is None and degrade(trackless, rng) is None, name
    assert conditions["muted"](trackless, rng) is None
    assert conditions["no sound track"](trackless, rng) is None


def test_muted_reversed_and_trackless() -> None:
    conditions, rng = degradations(Tracks()), np.random.default_rng(0)
    whole = clip(sound())
    assert whole.samples is not None
    muted = conditions["muted"](whole, rng)
    assert muted is not None and muted.samples is not None
    assert muted.samples.shape == whole.samples.shape and not muted.samples.any()
    trackless = conditions["no sound track"](whole, rng)
    assert trackless is not None and trackless.samples is None
    once = conditions["sound reversed"](whole, rng)
    assert once is not None and once.samples is not None
    assert [once.samples[i] for i in (0, 5, -1)] == [whole.samples[i] for i in (-1, -6, 0)]
    twice = conditions["sound reversed"](once, rng)
    assert twice is not None
    np.testing.assert_array_equal(twice.samples, whole.samples)
    for worse in (muted, trackless, once):
        assert worse.frames is whole.frames, "the frames are looked at again"


@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_blur_is_a_gaussian(sigma: float) -> None:
    """A sum over both axes with the edge repeated, each channel and frame for itself."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 9, 11, 3)).astype(np.uint8)
    reach = 12
    kernel = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    total = math.fsum(kernel)
    wanted = np.zeros(frames.shape)
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            rows, columns = np.clip(np.arange(9) + i, 0, 8), np.clip(np.arange(11) + j, 0, 10)
            wanted += kernel[i + reach] * kernel[j + reach] / total**2 * frames[:, rows][:, :, columns]
    found = blur(frames, sigma)
    assert found.dtype == np.uint8
    assert np.abs(found - wanted).max() < 0.6


@pytest.mark.parametrize("count", [1, 2, 7, 10])
def test_dropped_frames_show_the_last_that_came(count: int) -> None:
    """The share rounds half up; the first always comes; a larger share drops the same ones and more."""
    frames = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    before: set[int] = set()
    for share in (0.0, 0.25, 0.5, 0.75):
        shown = drop(frames, share, np.random.default_rng(3))[:, 0, 0, 0].tolist()
        lost = {i for i in range(count) if shown[i] != i}
        assert len(lost) == min(math.floor(share * count + 0.5), count - 1)
        assert shown[0] == 0 and before <= lost
        for i in lost:
            assert shown[i] == max(k for k in range(i) if k not in lost)
        before = lost


def test_dropped_frames_are_not_always_the_same() -> None:
    frames = np.arange(10, dtype=np.uint8)
    assert len({tuple(drop(frames, 0.5, np.random.default_rng(k)).tolist()) for k in range(20)}) > 10


@pytest.mark.parametrize(
    ("text", "share", "kept"),
    [
        ("The dog that barks twice.", 0.75, "The dog that barks"),
        ("The dog that barks twice.", 0.5, "The dog that"),
        ("The dog that barks twice.", 0.25, "The"),
        ("  Dog. ", 0.25, "Dog."),
        ("A  small\tdog", 0.5, "A small"),
    ],
)
def test_truncated_text(text: str, share: float, kept: str) -> None:
    assert truncate(text, share) == kept


def test_cut_sentences_leave_out_those_that_nothing_fits() -> None:
    conditions, rng = degradations(Tracks()), np.random.default_rng(0)
    worse = conditions["first 50% of the words"](clip(None), rng)
    assert worse is not None
    assert [(s.text, s.kind) for s in worse.sentences] == [("The dog that", "sound"), ("Dog.", "name")]


def test_names_of_the_conditions() -> None:
    names = list(degradations(Tracks()))
    assert len(set(names)) == len(names) == 21 and BASELINE not in names
    assert names[-6:] == [
        "blurred, 1 px",
        "blurred, 2 px",
        "blurred, 4 px",
        "25% of the frames dropped",
        "50% of the frames dropped",
        "75% of the frames dropped",
    ]
