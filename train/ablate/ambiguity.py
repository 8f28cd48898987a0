"""`ambiguity`: sentences about the same object that say ever less of what it is.

In scenes each object is asked for at every level (`ladder.LEVELS`), and each sentence is true of it alone; so the levels are
compared on the same objects in the same clips. On a data set on disk, levels are read from the words (`level_of`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from refavs_rt.config import RunConfig
from refavs_rt.dataset import Row

from ..predict import Predictor
from ..scenes import Scene, SceneGenerator
from .chosen import ChosenScenes
from .clips import EvaluationClip, measure, open_clips, scene_clip, score, told
from .ladder import LEVELS, ladders
from .observation import ALL, Context, Experiment, Observation, Progress
from .rows import Rows, says_name, says_name_alone, says_relation, says_sound

SOUNDING, SILENT = "objects that sound", "silent objects"
LEVELS_ON_DISK = (
    "0 name and more",
    "1 name alone",
    "2 no name",
    "3 no name, but sound",
    "4 no name, but relation",
)


def run(context: Context, progress: Progress) -> Experiment:
    """Measure J at every level.

    Raises:
        DataError: there is nothing to ask for.
    """
    predictor = context.predictor(RunConfig())
    if context.data is not None:
        return _on_disk(context, context.data, predictor, progress)

    def of_clip(asked: AskedClip) -> list[Observation]:
        values = score(predictor, asked.clip).tolist()
        return [
            Observation(LEVELS[n % len(LEVELS)], group, asked.name, value)
            for n, value in enumerate(values)
            for group in (ALL, SOUNDING if asked.sounds[n // len(LEVELS)] else SILENT)
        ]

    scenes = SceneGenerator(context.pack(), context.split, seed=context.seed)
    clips = ChosenScenes(
        scenes,
        context.clips,
        lambda scene: asked_clip(scene, predictor.image_size),
        "in which an object can be asked for at every level",
    )
    observations = measure(clips, progress, of_clip)
    notes = [
        *told(clips),
        "all levels are about the same objects, and each sentence is true of its object alone, by the grammar of the scenes",
        "level 0: “the dog on the left”; 1: “the dog”; 2: “the animal”; 3: “the sounding object”, “the object that barks”, of a "
        "silent one “the silent object”; 4: “the object to the left of the cat”, “the first object to make a sound”",
        "level 3 speaks of the sound of the whole clip; all frames count, also those before the first sound",
    ]
    return _experiment(LEVELS[1], observations, notes)


@dataclass(frozen=True)
class AskedClip:
    """A clip whose sentences are whole ladders, one after another."""

    clip: EvaluationClip
    sounds: tuple[bool, ...]
    """Of each ladder's object."""

    @property
    def name(self) -> str:
        return self.clip.name


def asked_clip(scene: Scene, image_size: int) -> AskedClip | None:
    """The scene, asked for each object that has a ladder; None if there is none."""
    climbed = ladders(scene)
    said = [e for ladder in climbed for e in ladder.sentences]
    if not said:
        return None
    return AskedClip(scene_clip(scene, said, image_size), tuple(ladder.sounds for ladder in climbed))


def level_of(row: Row) -> str:
    """One of `LEVELS_ON_DISK`, as the words of the sentence tell."""
    if says_name(row):
        return LEVELS_ON_DISK[1 if says_name_alone(row) else 0]
    if says_relation(row.text):
        return LEVELS_ON_DISK[4]
    return LEVELS_ON_DISK[3 if says_sound(row.text) else 2]


def _on_disk(context: Context, folder: Path, predictor: Predictor, progress: Progress) -> Experiment:
    clips, rows = open_clips(context, predictor.image_size), Rows(folder, context.split)

    def of_clip(clip: EvaluationClip) -> list[Observation]:
        meant = rows.of(clip)
        values = score(predictor, clip).tolist() if meant else []
        return [Observation(level_of(row), ALL, clip.name, v) for row, v in zip(meant, values, strict=True)]

    observations = measure(clips, progress, of_clip)
    notes = [
        *told(clips),
        "levels as the words tell: with the name of the class and more, or nothing more; without it, with a word of place, "
        "order, comparison or denial (4), else of sound (3), else neither (2); so the levels are about different objects",
    ]
    in_order = sorted(observations, key=lambda o: LEVELS_ON_DISK.index(o.condition))
    return _experiment(LEVELS_ON_DISK[0], in_order, notes)


def _experiment(baseline: str, observations: list[Observation], notes: list[str]) -> Experiment:
    return Experiment(
        name="ambiguity",
        title="Ambiguity: objects asked for in ever less telling words",
        measure="J",
        axis=None,
        baseline=baseline,
        observations=observations,
        notes=notes,
    )
