"""`degraded`: what is left when sound, picture or sentence is made worse, and the truths stay.

noise      y = x + g n,  g = sqrt(P(x) / P(n) / 10^(SNR / 10)),  P the mean square over the clip; y is not clipped
muted      silence on the track; no track: none
reversed   the clip's samples, last first
truncated  the first words of the sentence
blurred    a Gaussian of sigma pixels of the network's picture
dropped    frames, never the first, replaced by the last one that came; sound and truths go on
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import RunConfig

from .clips import EvaluationClip, SoundingClips, measure, observe, open_clips, told
from .observation import NULL, Context, Experiment, Observation, Progress

BASELINE = "as it is"
WHITE_SNRS_DB = (20, 10, 5, 0, -5, -10)
BABBLE_SNRS_DB = (10, 0, -10)
WORDS_KEPT = (0.75, 0.5, 0.25)
BLURS_PX = (1, 2, 4)
DROPPED = (0.25, 0.5, 0.75)
VOICES = 4
"""Other clips whose sound is in the babble."""

Degradation = Callable[[EvaluationClip, np.random.Generator], EvaluationClip | None]
"""A clip made worse, by chance where there is chance in it; None where there is nothing that could be."""
NoiseSource = Callable[[EvaluationClip, int, np.random.Generator], NDArray[np.float64]]
"""So many samples of noise for a clip."""


def run(context: Context, progress: Progress) -> Experiment:
    """Measure each clip as it is and under every degradation.

    Raises:
        DataError: there are no clips.
    """
    predictor = context.predictor(RunConfig())
    clips = open_clips(context, predictor.image_size)
    conditions = degradations(clips)

    def of_clip(clip: EvaluationClip) -> list[Observation]:
        out = observe(predictor, clip, BASELINE)
        for condition, degrade in conditions.items():
            worse = degrade(clip, np.random.default_rng((context.seed, *clip.name.encode())))
            if worse is not None and worse.sentences:
                out += observe(predictor, worse, condition)
        return out

    observations = measure(clips, progress, of_clip)
    return Experiment(
        "degraded",
        "Degraded modalities: noise, silence, reversed sound, cut sentences, blur, dropped frames",
        "J",
        None,
        BASELINE,
        observations,
        [
            *told(clips),
            "SNR is of mean squares over the whole clip, pauses included; the sum is not clipped; clips without sound are left "
            "out of noise and reversal",
            f"babble is the sum of {VOICES} other clips' sound, each at the same level",
            "reversed sound is scored against what was true of the clip before, so sentences about order are then wrong",
            "cut sentences are to mean what the whole ones mean; those that nothing fits are left out there, since their "
            "beginnings may fit something",
            f"blur is a Gaussian with sigma in pixels of the network's {predictor.image_size}x{predictor.image_size} picture",
            "dropped frames, never the first, are replaced by the last one that came; sound and truths go on",
        ],
    )


def degradations(clips: SoundingClips) -> dict[str, Degradation]:
    """Condition -> what it does. First what leaves the frames as they are, so that they need be looked at once."""

    def others(clip: EvaluationClip, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        return babble(clips.tracks(clip.name), count, rng)

    out: dict[str, Degradation] = {}
    for snr in WHITE_SNRS_DB:
        out[f"white noise, {snr} dB"] = partial(_noisy, snr_db=snr, source=white)
    for snr in BABBLE_SNRS_DB:
        out[f"babble, {snr} dB"] = partial(_noisy, snr_db=snr, source=others)
    out |= {"muted": _muted, "no sound track": _trackless, "sound reversed": _reversed}
    for share in WORDS_KEPT:
        out[f"first {share:.0%} of the words"] = partial(_cut, share=share)
    for sigma in BLURS_PX:
        out[f"blurred, {sigma} px"] = partial(_blurred, sigma=sigma)
    for share in DROPPED:
        out[f"{share:.0%} of the frames dropped"] = partial(_dropped, share=share)
    return out


def add_noise(samples: NDArray[np.float32], noise: NDArray[np.float64], snr_db: float) -> NDArray[np.float32]:
    """`samples` with `noise` of the same length at a signal-to-noise ratio over the whole; neither may be silent."""
    signal, power = (float(np.mean(np.asarray(x, np.float64) ** 2)) for x in (samples, noise))
    gain = math.sqrt(signal / power / 10 ** (snr_db / 10))
    return (samples + gain * noise).astype(np.float32)


def white(clip: EvaluationClip, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gaussian noise, whatever the clip."""
    return rng.standard_normal(count)


def babble(
    tracks: Sequence[NDArray[np.float32]], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The sum of some of the tracks, each at the same level, repeated to the length and begun at a time by chance; white noise
    where that would be silence."""
    total = np.zeros(count)
    for i in rng.permutation(len(tracks))[:VOICES]:
        track = np.roll(np.resize(tracks[i], count).astype(np.float64), int(rng.integers(count)))
        total += track / max(float(np.sqrt(np.mean(track**2))), 1e-12)
    return total if total.any() else rng.standard_normal(count)


def blur(frames: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Each frame [T, S, S, 3] under a Gaussian of `sigma` pixels, its edge pixels repeated outside."""
    from scipy.ndimage import gaussian_filter

    out = gaussian_filter(frames.astype(np.float32), (0, sigma, sigma, 0), mode="nearest")
    return np.rint(out).astype(np.uint8)


def drop(frames: NDArray[np.uint8], share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Frames [T, ...] of which `share`, never the first, is replaced by the last one that came. With the same chance, those
    that are dropped for a small share are dropped for a large one too."""
    count = len(frames)
    lost = 1 + rng.permutation(count - 1)[: math.floor(share * count + 0.5)]
    came = np.arange(count)
    came[lost] = 0
    return frames[np.maximum.accumulate(came)]


def truncate(text: str, share: float) -> str:
    """The first words of a sentence, `share` of them and one at least."""
    words = text.split()
    return " ".join(words[: max(1, math.floor(share * len(words) + 0.5))])


def _noisy(
    clip: EvaluationClip, rng: np.random.Generator, *, snr_db: float, source: NoiseSource
) -> EvaluationClip | None:
    if clip.samples is None or not clip.samples.any():
        return None
    noise = source(clip, len(clip.samples), rng)
    return dataclasses.replace(clip, samples=add_noise(clip.samples, noise, snr_db))


def _muted(clip: EvaluationClip, rng: np.random.Generator) -> EvaluationClip | None:
    return None if clip.samples is None else dataclasses.replace(clip, samples=np.zeros_like(clip.samples))


def _trackless(clip: EvaluationClip, rng: np.random.Generator) -> EvaluationClip | None:
    return None if clip.samples is None else dataclasses.replace(clip, samples=None)


def _reversed(clip: EvaluationClip, rng: np.random.Generator) -> EvaluationClip | None:
    if clip.samples is None or not clip.samples.any():
        return None
    return dataclasses.replace(clip, samples=clip.samples[::-1].copy())


def _cut(clip: EvaluationClip, rng: np.random.Generator, *, share: float) -> EvaluationClip:
    kept = [s for s in clip.sentences if s.kind != NULL]
    return dataclasses.replace(
        clip, sentences=tuple(dataclasses.replace(s, text=truncate(s.text, share)) for s in kept)
    )


def _blurred(clip: EvaluationClip, rng: np.random.Generator, *, sigma: float) -> EvaluationClip:
    return dataclasses.replace(clip, frames=blur(clip.frames, sigma))


def _dropped(clip: EvaluationClip, rng: np.random.Generator, *, share: float) -> EvaluationClip:
    return dataclasses.replace(clip, frames=drop(clip.frames, share, rng))
