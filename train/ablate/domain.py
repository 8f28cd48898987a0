"""`domain`: backgrounds and recordings that training never used, against those that it did, in otherwise equal scenes.

A scene of the split `test_s` is kept as it is: objects, places, motions, light, camera, noise. Behind it stands a photograph that
training uses, or one that it never does, cropped and lit alike; its objects sound with a recording of their class that training
plays, or with one that it never does, over the same time, as loud and filtered alike. Asked are the sentences that are true of
all four. On a data set on disk: `test_s` against `test_u`, whose classes training never shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from refavs_rt.config import RunConfig

from ..material import Background, Pack, Recording
from ..predict import Predictor
from ..scenes import Expression, Scene, SceneGenerator, SceneObject
from ..scenes.layout import photos_for
from ..scenes.soundtrack import Part, draw_voice
from ..scenes.voice import Voice
from .clips import SENTENCES, DiskClips, EvaluationClip, choose_sentences, measure, observe, scene_clip, told
from .observation import Context, Experiment, Observation, Progress

BASELINE = "both trained"
CONDITIONS = {
    BASELINE: (False, False),
    "other recording": (False, True),
    "other background": (True, False),
    "both other": (True, True),
}
"""Condition -> whether background and recording are ones that training never used."""
_SPLIT = "test_s"
_UNSEEN = "test_u"
_WORDINGS = 4
"""Times that a scene is put into words, each in other words."""
_SCENES_A_CLIP = 20
"""Scenes that are looked at for each that is wanted."""


def run(context: Context, progress: Progress) -> Experiment:
    """Measure scenes under all four conditions; of a data set on disk, both splits.

    Raises:
        DataError: there are no clips.
    """
    predictor = context.predictor(RunConfig())
    if context.data is not None:
        return _on_disk(context, predictor, progress)
    fours = Fours(context.pack(), context.seed, context.clips)

    def of_clip(four: Four) -> list[Observation]:
        return [o for name, clip in four.clips(predictor.image_size) for o in observe(predictor, clip, name)]

    observations = measure(fours, progress, of_clip)
    notes = [*told(fours), *fours.made]
    return _experiment(BASELINE, observations, notes, "Other backgrounds and recordings than training's")


@dataclass(frozen=True)
class Four:
    """A scene under the four conditions, and what is true under all of them."""

    name: str
    scenes: dict[str, Scene]
    expressions: list[Expression]

    def clips(self, image_size: int) -> Iterator[tuple[str, EvaluationClip]]:
        """Condition and clip. Those with the same background have the same array of frames."""
        seen: dict[bool, EvaluationClip] = {}
        for condition, (other_background, _) in CONDITIONS.items():
            scene = self.scenes[condition]
            if other_background not in seen:
                seen[other_background] = scene_clip(scene, self.expressions, image_size)
            yield condition, dataclasses.replace(seen[other_background], samples=scene.waveform())


class Fours:
    """Scenes whose backgrounds and recordings can be exchanged, with something to say of them."""

    def __init__(self, pack: Pack, seed: int, count: int) -> None:
        self.skipped: dict[str, str] = {}
        self.note = (
            f"{count} generated scenes of the split {_SPLIT}, seed {seed}: the first in which every object that sounds is of a "
            "class with a recording that training plays and one that it never does; up to "
            f"{SENTENCES} sentences a scene, one of each kind before a second of any, that are true with either recording"
        )
        self.made = (
            "each scene stands under all four conditions with the same objects, places, motions, light, camera and noise; "
            "exchanged are the photograph behind, its crop and light kept, and the recordings, over the same time and as loud",
            f"training uses {len(photos_for(pack, 'train'))} photographs, the others are {len(photos_for(pack, _SPLIT))}; of "
            "instruments, most other recordings are played on another bank of samples",
        )
        self._generator = SceneGenerator(pack, _SPLIT, seed=seed)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Four]:
        found = 0
        for number in range(self._count * _SCENES_A_CLIP):
            scenes = exchanged(self._generator.scene(number))
            expressions = _true_of_all(scenes) if scenes else []
            if expressions:
                yield Four(f"scene {number}", scenes, choose_sentences(expressions, scenes[BASELINE].key))
                found += 1
            if found == self._count:
                return


def exchanged(scene: Scene) -> dict[str, Scene]:
    """Condition -> the scene under it; empty where nothing sounds, or a class or the pack lacks one of the two kinds."""
    rng = np.random.default_rng((*scene.key, 5))
    photos = {other: photos_for(scene.pack, _SPLIT if other else "train") for other in (False, True)}
    voices: dict[bool, list[SceneObject]] = {False: [], True: []}
    for number, item in enumerate(scene.objects):
        for other, objects in voices.items():
            recordings = [r for r in item.thing.recordings if r.split == ("test" if other else "train")]
            if item.voice is None:
                objects.append(item)
            elif recordings:
                recording = recordings[rng.integers(len(recordings))]
                objects.append(_sounding_with(scene, number, item.voice, recording, other))
    whole = all(len(objects) == len(scene.objects) for objects in voices.values())
    if not whole or not all(photos.values()) or all(item.voice is None for item in scene.objects):
        return {}
    behind = {other: of_kind[rng.integers(len(of_kind))] for other, of_kind in photos.items()}
    return {
        condition: dataclasses.replace(_before(scene, behind[background]), objects=tuple(voices[recording]))
        for condition, (background, recording) in CONDITIONS.items()
    }


def _before(scene: Scene, photo: Background) -> Scene:
    """The scene before a photograph, cropped and lit as its own background would be."""
    backdrop = dataclasses.replace(scene.backdrop, kind="photo", entry=photo.entry, origin=photo.origin)
    return dataclasses.replace(scene, backdrop=backdrop)


def _sounding_with(scene: Scene, number: int, voice: Voice, recording: Recording, other: bool) -> SceneObject:
    """The object with another recording from its first to its last sound, with pauses as long, as loud and as filtered."""
    first, last = voice.plays[0], voice.plays[-1]
    pauses = [b.start_s - a.start_s - a.length_s for a, b in zip(voice.plays, voice.plays[1:], strict=False)]
    part = Part(first.start_s, last.start_s + last.length_s, float(np.mean(pauses or [0.0])), once=False)
    rng = np.random.default_rng((*scene.key, 6, number))
    drawn = draw_voice(scene.pack, recording, part, voice.gain_db, scene.seconds, rng)
    drawn = dataclasses.replace(
        drawn,
        ramp_db=voice.ramp_db,
        echo_s=voice.echo_s,
        echo_gain=voice.echo_gain,
        low_pass_hz=voice.low_pass_hz,
    )
    return dataclasses.replace(
        scene.objects[number],
        voice=drawn,
        other_recording=other,
        intervals=drawn.intervals(scene.seconds),
    )


def _true_of_all(scenes: dict[str, Scene]) -> list[Expression]:
    """What is said of the scene with either recording; the background changes nothing that is said."""
    said = []
    for condition in (BASELINE, "other recording"):
        scene = scenes[condition]
        worded = [dataclasses.replace(scene, key=(*scene.key, k)) for k in range(_WORDINGS)]
        said.append(dict.fromkeys(e for scene in worded for e in scene.expressions()))
    return [e for e in said[0] if e in said[1]]


def _on_disk(context: Context, predictor: Predictor, progress: Progress) -> Experiment:
    assert context.data is not None
    observations: list[Observation] = []
    notes: list[str] = []
    for split in (_SPLIT, _UNSEEN):
        clips = DiskClips(context.data, split, context.clips, context.seed, predictor.image_size)

        def of_clip(clip: EvaluationClip, split: str = split) -> list[Observation]:
            return observe(predictor, clip, split)

        observations += measure(clips, progress, of_clip)
        notes += [note for note in told(clips) if note not in notes]
    notes.append("the splits share no clips, so each is resampled for itself")
    return _experiment(
        _SPLIT, observations, notes, "Classes that training never shows (test_u) against those that it does"
    )


def _experiment(baseline: str, observations: list[Observation], notes: list[str], title: str) -> Experiment:
    return Experiment("domain", title, "J", None, baseline, observations, notes)
