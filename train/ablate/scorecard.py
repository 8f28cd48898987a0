"""`scorecard`: what a model card states, on scenes of two and more objects: every kind of sentence, heard and muted, the sentence
of another object, classes never trained on, and what is not there.

J of a sentence is the mean over the frames where its object is to be seen and, if the sentence turns on a sound that it makes,
has been heard: before that nobody can know. With the presence gate, as everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import RunConfig
from refavs_rt.dataset import ClipMedia

from ..batches import SOUND_KINDS, WINDOW_S
from ..metrics import MASK_THRESHOLD, NULL_THRESHOLD, jaccard, probabilities
from ..predict import Predictor
from ..scenes import Expression, Scene, SceneGenerator
from .chosen import ChosenScenes
from .clips import EvaluationClip, choose_sentences, measure, scene_clip
from .observation import ALL, NULL, Context, Experiment, Observation, Progress

SEEN, MUTED, SWAPPED = "seen classes", "muted", "another's sentence"
UNSEEN, NOTHING = "classes never trained", "nothing fits"
ABOUT_SOUND = "about a sound"
"""Group of the sentences that turn on a sound that their object makes."""
OTHER = "{kind}, other recordings"
COUNTED = "{count} objects"
SINCE = ("while it sounds", "1 or 2 s after", "3 s and more after")
"""Groups of the frames of a sentence about sound, by how long ago its object was last heard."""
SHOWN = "S, nothing fits"
SHOWN_ALIKE = "S, its like is there"
_ALIKE = frozenset({"alike"})
"""Details of sentences about what is not there, where something like it is."""
SAID = tuple(f"there, when presence says {a / 5:.1f} to {(a + 1) / 5:.1f}" for a in range(5))
"""Groups of frames by the presence that the network gives; their value is whether the object was there."""
_FEWEST = 2


@dataclass(frozen=True)
class Scored:
    """A scene with its clip and what is asked of it."""

    scene: Scene
    clip: EvaluationClip
    expressions: tuple[Expression, ...]

    @property
    def name(self) -> str:
        return self.clip.name


def run(context: Context, progress: Progress) -> Experiment:
    """Measure all that a model card states.

    Raises:
        DataError: there is nothing to measure.
        MaterialError: the pack of scenes cannot be had.
    """
    predictor = context.predictor(RunConfig())
    observations: list[Observation] = []
    notes: list[str] = []
    for split, condition in (("test_s", SEEN), ("test_u", UNSEEN), ("test_n", NOTHING)):
        scenes = SceneGenerator(context.pack(), split, seed=context.seed)
        count = context.clips if condition == SEEN else max(1, context.clips // 2)
        clips = ChosenScenes(
            scenes,
            count,
            lambda scene: scored(scene, predictor.image_size),
            f"with {_FEWEST} objects or more",
        )

        def of_clip(clip: Scored, condition: str = condition) -> list[Observation]:
            return list(observe(predictor, clip, condition))

        observations += measure(clips, progress, of_clip)
        notes.append(f"{condition}: {clips.note}")
    notes += [
        "J counts the frames where the object is to be seen and, where the sentence turns on a sound that it makes, has been "
        "heard in the clip; with the presence gate",
        f"{MUTED}: sentences about sound alone, against the same truths, with silence for sound; {SWAPPED}: each object's mask "
        "against that of another object of the scene, whose sentence was given, in the frames in which both can be known",
        "classes and cut-outs are those of training; recordings (where a class has others), backgrounds and scenes are not",
        f"{', '.join(SINCE)}: the frames of sentences about a sound that its object makes, by the time since it was last heard",
        f"{SHOWN}, {SHOWN_ALIKE}: not J, but the root of the share of the pixels that are marked; less is better. Of {NULL} J is "
        "the share that was left alone",
        f"{SAID[0]} and so on: not J of expressions, but the share of the frames with such a presence in which the object was "
        "to be seen, and known to be meant: a presence that is a probability says what this says",
        "frames are paired with sound as the data set does: frame i with the window that begins at second i",
    ]
    return Experiment("scorecard", "Scorecard: every kind of sentence", "J", None, SEEN, observations, notes)


def scored(scene: Scene, image_size: int) -> Scored | None:
    """A scene to be scored; None with fewer than two objects or nothing to say."""
    expressions = tuple(choose_sentences(scene.expressions(), scene.key))
    if len(scene.objects) < _FEWEST or not expressions:
        return None
    clip = scene_clip(scene, expressions, image_size)
    return Scored(scene, dataclasses.replace(clip, name=f"{scene.split} {clip.name}"), expressions)


def observe(predictor: Predictor, clip: Scored, condition: str) -> Iterator[Observation]:
    """All observations of a scene; only under `SEEN` also muted and with another's sentence."""

    def observation(group: str, value: float, under: str = condition) -> Observation:
        return Observation(under, group, clip.name, value)

    shown, presence = _shown(predictor, clip, muted=False)
    known = [_known(clip, n) for n in range(len(clip.expressions))]
    truths = [s.truth for s in clip.clip.sentences]
    for n, expression in enumerate(clip.expressions):
        for said, there in zip(presence[:, n].tolist(), known[n].tolist(), strict=True):
            yield observation(SAID[min(int(said * len(SAID)), len(SAID) - 1)], float(there))
        if expression.target is None:
            root = float(np.sqrt((shown[n] > NULL_THRESHOLD).mean()))
            yield observation(NULL, float((shown[n] <= MASK_THRESHOLD).mean()))
            yield observation(SHOWN_ALIKE if expression.detail in _ALIKE else SHOWN, root)
            continue
        each = _iou(shown[n], truths[n])
        if not known[n].any():
            continue
        value = float(each[known[n]].mean())
        groups = [ALL, expression.kind, COUNTED.format(count=len(clip.scene.objects))]
        if clip.scene.objects[expression.target].other_recording:
            groups.append(OTHER.format(kind=expression.kind))
        if _turns_on_its_sound(clip, expression):
            groups.append(ABOUT_SOUND)
        yield from (observation(group, value) for group in groups)
        for group, frames in _since(clip, expression, known[n]).items():
            if frames.any():
                yield observation(group, float(each[frames].mean()))
    if condition != SEEN:
        return
    for n, expression in enumerate(clip.expressions):
        other = _another(clip, n)
        if expression.target is None or other is None:
            continue
        both = known[n] & known[other]
        if both.any():
            value = float(_iou(shown[other], truths[n])[both].mean())
            yield from (observation(group, value, SWAPPED) for group in (ALL, expression.kind))
    heard = [n for n, e in enumerate(clip.expressions) if _turns_on_its_sound(clip, e) and known[n].any()]
    if heard:
        quiet, _ = _shown(predictor, _only(clip, heard), muted=True)
        for share, n in zip(quiet, heard, strict=True):
            value = float(_iou(share, truths[n])[known[n]].mean())
            yield from (observation(group, value, MUTED) for group in (ABOUT_SOUND, clip.expressions[n].kind))


def answered(
    predictor: Predictor, clip: Scored
) -> Iterator[
    tuple[Expression, NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]
]:
    """Of each sentence that means an object: the frames that count [T, S, S, 3], what is shown and what is true there
    [T, 256, 256], and J of each [T]."""
    shown, _ = _shown(predictor, clip, muted=False)
    for n, expression in enumerate(clip.expressions):
        counted = _known(clip, n)
        if expression.target is not None and counted.any():
            truth = clip.clip.sentences[n].truth[counted]
            share = shown[n][counted]
            yield expression, clip.clip.frames[counted], share > MASK_THRESHOLD, truth, _iou(share, truth)


def _shown(
    predictor: Predictor, clip: Scored, muted: bool
) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """Of each sentence the gated probabilities [T, 256, 256]; and the presence [T, N]."""
    samples = clip.clip.samples
    assert samples is not None, "scenes have a sound track"
    media = ClipMedia(clip.clip.frames, np.zeros_like(samples) if muted else samples)
    texts = [s.text for s in clip.clip.sentences]
    masks, presence = predictor.predict(media.frames, media.patches(WINDOW_S), texts)
    present = presence >= RunConfig().presence_threshold
    gated = [probabilities(masks[:, n]) * present[:, n, None, None] for n in range(len(texts))]
    return gated, presence


def _iou(shown: NDArray[np.float32], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[T]"""
    return np.array([jaccard(p > MASK_THRESHOLD, t) for p, t in zip(shown, truth, strict=True)])


def _turns_on_its_sound(clip: Scored, expression: Expression) -> bool:
    target = expression.target
    return target is not None and expression.kind in SOUND_KINDS and clip.scene.objects[target].sounds


def _known(clip: Scored, number: int) -> NDArray[np.bool_]:
    """[T]: the frames in which what a sentence means is to be seen, and it can be known what that is."""
    expression = clip.expressions[number]
    seen = np.asarray(clip.clip.sentences[number].truth.any(axis=(1, 2)))
    if expression.target is None or not _turns_on_its_sound(clip, expression):
        return seen
    so_far: NDArray[np.bool_] = np.logical_or.accumulate(_heard(clip, expression.target))
    return seen & so_far


def _heard(clip: Scored, target: int) -> NDArray[np.bool_]:
    """[T]: whether the object is heard in the window of each frame."""
    ticks = len(clip.clip.frames)
    return np.array([clip.scene.sounding(float(i), i + WINDOW_S)[target] for i in range(ticks)])


def _since(clip: Scored, expression: Expression, known: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """`SINCE` -> the frames [T] of a sentence that turns on its object's sound."""
    if expression.target is None or not _turns_on_its_sound(clip, expression):
        return {}
    heard = _heard(clip, expression.target)
    last = np.maximum.accumulate(np.where(heard, np.arange(len(heard)), -len(heard)))
    ago = np.arange(len(heard)) - last
    spans = (ago == 0, (ago >= 1) & (ago <= 2), ago >= 3)
    return {group: known & span for group, span in zip(SINCE, spans, strict=True)}


def _another(clip: Scored, number: int) -> int | None:
    """The first sentence after this one, from the beginning again after the last, that means another object."""
    count = len(clip.expressions)
    for step in range(1, count):
        other = (number + step) % count
        target = clip.expressions[other].target
        if target is not None and target != clip.expressions[number].target:
            return other
    return None


def _only(clip: Scored, sentences: Sequence[int]) -> Scored:
    some = tuple(clip.clip.sentences[n] for n in sentences)
    asked = tuple(clip.expressions[n] for n in sentences)
    return Scored(clip.scene, dataclasses.replace(clip.clip, sentences=some), asked)
