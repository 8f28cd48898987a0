"""`length`: the same question at the end of ever longer streams, with each mean of the memory.

A clip stands at the end of streams of 10, 30, 60 and 90 s, and is asked for from their beginning. Only the clip itself is scored:
its frames, sounds, sentences and truths are the same at every length; what came before is all that differs. In scenes that is
other scenes before the same camera and background, since a scene stretched to 90 s is another question: its sounds begin and end
long before the last frame. On a data set on disk it is other clips of it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import SAMPLE_RATE_HZ, MemoryMean, RunConfig
from refavs_rt.dataset import ClipMedia, DataError
from refavs_rt.model.run_folder import CheckpointError

from ..batches import WINDOW_S
from ..metrics import mean_jaccard
from ..predict import Predictor
from ..scenes import Scene, SceneGenerator
from ..scenes.motion import Camera
from .bootstrap import difference_estimate
from .chosen import ChosenScenes
from .clips import Clips, EvaluationClip, choose_sentences, measure, open_clips, scene_clip, told
from .observation import ALL, NULL, Context, Experiment, Observation, Progress

LENGTHS_S = (10, 30, 60, 90)
"""Of the streams; frames come once a second."""
KINDS = ("name", "sound", "silence", NULL)
"""Of the sentences about scenes: those that what went before does not change."""
_WHOLE_STREAM = frozenset({"always", "continuous", "intermittent", "order", "loudness", "silent_scene"})
"""Details of sentences that speak of all that went before."""
_PAST_FROM = 2 * 10**6
"""Numbers of the scenes that come before: no clip is one of them."""


def run(context: Context, progress: Progress) -> Experiment:
    """Measure J of each clip at the end of each length, with each mean.

    Raises:
        DataError: there are no clips.
    """
    predictors, missing = _predictors(context)
    size = next(iter(predictors.values())).image_size
    clips: Clips[EvaluationClip]
    if context.data is not None:
        clips = DiskStreams(open_clips(context, size))
    else:
        scenes = SceneGenerator(context.pack(), context.split, seed=context.seed)
        clips = ChosenScenes(
            scenes,
            context.clips,
            lambda scene: scene_stream(scene, scenes, size),
            "of which something can be said that does not turn on all that went before; one sentence of each kind. Other "
            "scenes come before, the camera standing where the scene's begins, before the same background",
        )
    measured = measure(clips, progress, lambda stream: _observe(predictors, stream))
    observations = _in_order(measured, list(predictors))
    notes = [
        *told(clips),
        "only the last clip of a stream is scored, so frames, sounds, sentences and truths are the same at every length; a "
        "sentence is asked from the beginning of the stream. Asked anew when the clip begins, it would be as at 10 s, but for "
        "the ring, which holds the seconds before",
        *missing,
        *_compared(observations, list(predictors), context.seed),
    ]
    return Experiment(
        name="length",
        title="Length: the same clip at the end of longer streams, with each mean of the memory",
        measure="J",
        axis=None,
        baseline=condition("cumulative", LENGTHS_S[0]),
        observations=observations,
        notes=notes,
        baselines={
            condition(mode, length): condition(mode, LENGTHS_S[0])
            for mode in predictors
            for length in LENGTHS_S[1:]
        },
    )


def condition(mode: str, length_s: int) -> str:
    """What a stream of this length is called when it is remembered with this mean."""
    return f"{mode}, {length_s} s"


def scene_stream(scene: Scene, scenes: SceneGenerator, image_size: int) -> EvaluationClip | None:
    """A stream of the longest length that ends in a scene; its sentences have truths for that scene alone. None where there is
    nothing to say."""
    said = [e for e in scene.expressions() if e.kind in KINDS and e.detail not in _WHOLE_STREAM]
    if not said:
        return None
    end = scene_clip(scene, choose_sentences(said, scene.key, len(KINDS)), image_size)
    count = -(-(LENGTHS_S[-1] - LENGTHS_S[0]) // int(scenes.seconds))
    past = (scenes.scene(_PAST_FROM + scene.key[-1] * count + k) for k in range(count))
    return joined([scene_clip(before_camera_of(scene, other), [], image_size) for other in past], end)


def before_camera_of(scene: Scene, other: Scene) -> Scene:
    """The objects of `other` where `scene` will be, before the camera as it stands when that begins."""
    camera = scene.camera
    standing = Camera(
        (camera.x[0], camera.x[0]),
        (camera.y[0], camera.y[0]),
        (camera.zoom[0], camera.zoom[0]),
        other.seconds,
    )
    return dataclasses.replace(
        other, camera=standing, backdrop=scene.backdrop, finish=scene.finish, noise=scene.noise
    )


class DiskStreams:
    """Streams of the longest length, each of which ends in a clip on disk.

    Before a clip come those that stand before it in the choice; before the first ones those that follow.
    """

    def __init__(self, clips: Clips[EvaluationClip]) -> None:
        self.note = f"{clips.note}; others of these come before each, the nearest in the table last"
        self.skipped = clips.skipped
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[EvaluationClip]:
        """The streams.

        Raises:
            DataError: there is one clip alone.
        """
        past: list[EvaluationClip] = []
        for clip in self._clips:
            past += [] if _is_twin(clip) else [clip]
            if sum(len(each.frames) for each in past) >= 2 * LENGTHS_S[-1]:
                break
        for clip in self._clips:
            others = [each for each in past if each.name != clip.name]
            if not others:
                raise DataError(f"{clip.name}: a stream needs other clips before it; give two clips or more")
            yield joined(_latest(others, LENGTHS_S[-1] - len(clip.frames)), clip)
            if not _is_twin(clip):
                past = [*[each for each in past[1:] if each.name != clip.name], clip]


def joined(past: Sequence[EvaluationClip], end: EvaluationClip) -> EvaluationClip:
    """One stream, cut to the longest length; without a sound track where the end has none."""
    frames = np.concatenate([clip.frames for clip in (*past, end)])
    samples = None
    if end.samples is not None:
        samples = np.concatenate([_track(clip) for clip in (*past, end)])
    longest = max(LENGTHS_S[-1], len(end.frames))
    if samples is not None:
        samples = samples[-longest * SAMPLE_RATE_HZ :]
    return EvaluationClip(end.name, frames[-longest:], samples, end.sentences)


def _is_twin(clip: EvaluationClip) -> bool:
    """Whether it is a clip over again, with sentences that nothing fits."""
    return all(sentence.kind == NULL for sentence in clip.sentences)


def _latest(past: Sequence[EvaluationClip], seconds: int) -> list[EvaluationClip]:
    """The last of `past` that fill so many seconds, in order; over again where they are too few."""
    out: list[EvaluationClip] = []
    for clip in itertools.cycle(reversed(past)):
        if sum(len(each.frames) for each in out) >= seconds:
            return out[::-1]
        out.append(clip)
    return out


def _track(clip: EvaluationClip) -> NDArray[np.float32]:
    """The sound under the clip's frames, to the sample; silence where there is none."""
    out = np.zeros(len(clip.frames) * SAMPLE_RATE_HZ, np.float32)
    if clip.samples is not None:
        heard = clip.samples[: len(out)]
        out[: len(heard)] = heard
    return out


def _predictors(context: Context) -> tuple[dict[str, Predictor], list[str]]:
    """One for each mean that the model can be run with, and what must be said of the others."""
    found: dict[str, Predictor] = {}
    for mode in get_args(MemoryMean):
        try:
            found[mode] = context.predictor(RunConfig(memory_mean=mode))
        except CheckpointError:
            if not found:  # the cumulative mean comes first: the run itself cannot be opened
                raise
    missing = " and ".join(mode for mode in get_args(MemoryMean) if mode not in found)
    note = f"not measured: the means {missing}; through torch the memory is the cumulative mean, a bundle has all"
    return found, [note] if missing else []


def _observe(predictors: dict[str, Predictor], stream: EvaluationClip) -> list[Observation]:
    patches = None
    if stream.samples is not None:
        patches = ClipMedia(stream.frames, stream.samples).patches(WINDOW_S)
    scored = len(stream.sentences[0].truth)
    out = []
    for length in LENGTHS_S:
        if length < scored:
            continue
        frames, heard = stream.frames[-length:], None if patches is None else patches[-length:]
        for mode, predictor in predictors.items():  # of the same frames, so that they are looked at once
            masks, presence = predictor.predict(frames, heard, [s.text for s in stream.sentences])
            present = presence[-scored:] >= RunConfig().presence_threshold
            for n, sentence in enumerate(stream.sentences):
                value = mean_jaccard(masks[-scored:, n], sentence.truth, present[:, n])
                groups = [sentence.kind] if sentence.kind else []
                if sentence.kind != NULL:
                    groups.insert(0, ALL)
                out += [Observation(condition(mode, length), group, stream.name, value) for group in groups]
    return out


def _in_order(observations: list[Observation], modes: Sequence[str]) -> list[Observation]:
    """Conditions by their mean, then by length; all expressions first, then `KINDS`, then other kinds."""
    conditions = [condition(mode, length) for mode in modes for length in LENGTHS_S]
    groups = list(dict.fromkeys([ALL, *KINDS, *(o.group for o in observations)]))
    return sorted(observations, key=lambda o: (groups.index(o.group), conditions.index(o.condition)))


def _compared(observations: list[Observation], modes: Sequence[str], seed: int) -> list[str]:
    """What the other means do at the longest length."""
    cells: dict[str, list[Observation]] = {}
    for observation in observations:
        if observation.group == ALL:
            cells.setdefault(observation.condition, []).append(observation)
    longest = LENGTHS_S[-1]
    base = cells.get(condition("cumulative", longest), [])
    out = []
    for mode in modes[1:]:
        there = cells.get(condition(mode, longest), [])
        if base and there:
            d = difference_estimate(there, base, seed)
            interval = "too few clips" if d.low is None else f"{d.low:+.3f} to {d.high:+.3f}"
            out.append(
                f"at {longest} s, J with the {mode} mean less J with the cumulative one: {d.mean:+.3f} ({interval})"
            )
    return out
