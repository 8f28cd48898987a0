"""`sources`: how many objects sound, and which object is taken for which.

In scenes three objects are given sounds; then each is asked for while it sounds alone, with one of the others, and with both. So
pictures, sentences by name and by verb, and the object's own sound are the same whatever sounds beside it. On a data set on disk
the number of marked objects stands in for that of sounding ones, which the table does not tell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import RunConfig
from refavs_rt.dataset import ClipMedia

from ..batches import WINDOW_S
from ..material import Thing
from ..metrics import MASK_THRESHOLD, jaccard, probabilities
from ..predict import Predictor
from ..scenes import Expression, Scene, SceneGenerator, SceneObject
from ..scenes import wording as w
from ..scenes.facts import Facts
from ..scenes.soundtrack import draw_gains, draw_parts, draw_voice, recordings_for
from ..scenes.voice import Voice
from ..scenes.wording import pick
from .chosen import ChosenScenes
from .clips import EvaluationClip, measure, open_clips, scene_clip, told
from .confusion import Taken, alike_notes, confusion, taken_notes
from .ladder import by_verb, says_only_thing
from .observation import Context, Experiment, Observation, Progress
from .rows import Rows, kind_of

SOUNDING = ("1 sounding object", "2 sounding objects", "3 sounding objects")
MARKED = ("1 marked object", "2 marked objects", "3 or more marked objects")
BY_NAME, BY_VERB, BY_SOUND = "by name", "by what it does", "by who sounds"
OTHER = "by anything else"
_AMONG_HEARD = frozenset("side height size beside near".split())
"""Details of the grammar's sentences about the place of a sounding object among others."""


@dataclass(frozen=True)
class Question:
    """A sentence and the object that it means, by its index."""

    group: str
    text: str
    target: int


@dataclass(frozen=True)
class Hearing:
    """What is asked while some of a scene's objects sound."""

    sounding: tuple[int, ...]
    samples: NDArray[np.float32] | None
    """16 kHz mono; None without a sound track."""
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class HeardClip:
    """The same frames with several sounds."""

    name: str
    frames: NDArray[np.uint8]
    """[T, S, S, 3]"""
    truths: tuple[NDArray[np.bool_], ...]
    """[T, 256, 256] of each object."""
    classes: tuple[str, ...]
    families: tuple[str, ...]
    """Wider classes, or the same."""
    verbs: tuple[str | None, ...]
    """Of each object's sound; None where it is not known."""
    hearings: tuple[Hearing, ...]


def run(context: Context, progress: Progress) -> Experiment:
    """Measure J by the number of sounding objects, and count what is taken for what.

    Raises:
        DataError: there is nothing to ask for.
    """
    predictor = context.predictor(RunConfig())
    if context.data is not None:
        return _on_disk(context, context.data, predictor, progress)
    taken: list[Taken] = []

    def of_clip(clip: HeardClip) -> list[Observation]:
        return [
            Observation(SOUNDING[len(hearing.sounding) - 1], question.group, clip.name, value)
            for hearing in clip.hearings
            for question, value in _answers(predictor, clip, hearing, taken)
        ]

    scenes = SceneGenerator(context.pack(), context.split, seed=context.seed)
    clips = ChosenScenes(
        scenes,
        context.clips,
        lambda scene: heard_clip(scene, predictor.image_size),
        "in which three objects of classes with different recordings can sound; they are given sounds anew, together or one "
        "after another, alike in loudness or not",
    )
    observations = _in_order(measure(clips, progress, of_clip))
    notes = [
        *told(clips),
        "each of the three is asked for while it sounds alone, with one of the others, and with both; pictures, its own sound "
        "and the noise stay, but for a gain that keeps the sum from clipping",
        f"{BY_NAME}: “the dog”, whatever sounds; {BY_VERB}: “the object that barks”, where no other of the three may be said "
        "to do so; both are the same sentence at each number",
        f"{BY_SOUND}: alone “the sounding object”, else what tells it from the others that sound: order, duration, loudness, "
        "place; so these sentences differ with the number, and are harder with two and three by themselves",
        *taken_notes(taken),
        *alike_notes(taken, context.seed),
    ]
    return _experiment(SOUNDING[0], observations, notes, taken)


def with_three_sounds(scene: Scene) -> Scene | None:
    """The scene with three of its objects sounding, whichever did; None where no three of them can with recordings of their
    own."""
    rng = np.random.default_rng((*scene.key, 8))
    able: dict[str, int] = {}
    for i in rng.permutation(len(scene.objects)).tolist():
        thing = scene.objects[i].thing
        if recordings_for(thing, scene.split):
            able.setdefault(thing.sound_group, i)
    chosen = list(able.values())[:3]
    if len(chosen) < 3:
        return None
    voices: dict[int, Voice] = {}
    gains = draw_gains(3, rng)
    for i, part, gain in zip(chosen, draw_parts(3, scene.seconds, rng), gains, strict=True):
        recordings = recordings_for(scene.objects[i].thing, scene.split)
        recording = recordings[rng.integers(len(recordings))]
        voices[i] = draw_voice(scene.pack, recording, part, gain, scene.seconds, rng)
    out = dataclasses.replace(
        scene, objects=tuple(_voiced(scene, item, voices.get(i)) for i, item in enumerate(scene.objects))
    )
    return out if len(Facts(out).sounding) == 3 else None


def only_sounding(scene: Scene, sounding: Sequence[int]) -> Scene:
    """The scene with all but some of its objects silent."""
    return dataclasses.replace(
        scene,
        objects=tuple(
            _voiced(scene, item, item.voice if i in sounding else None)
            for i, item in enumerate(scene.objects)
        ),
    )


def heard_clip(scene: Scene, image_size: int) -> HeardClip | None:
    """The scene with three objects sounding, each asked for while one, two and three of them sound; None if it has not three
    that can."""
    whole = with_three_sounds(scene)
    if whole is None:
        return None
    rng = np.random.default_rng((*scene.key, 9))
    facts = Facts(whole)
    always = [
        Question(BY_NAME, pick(w.NAME, rng, word=whole.names[i]), i)
        for i in facts.sounding
        if facts.names(i)[:1] == [whole.names[i]]
    ]
    for i in facts.sounding:
        said = by_verb(facts, i, rng)
        always += [Question(BY_VERB, said.text, i)] if said else []
    hearings = []
    for sounding, targets in _hearings(facts.sounding):
        heard = only_sounding(whole, sounding)
        questions = [q for q in always if q.target in targets]
        questions += [q for i in targets for q in _by_sound(heard, i, rng)]
        hearings.append(Hearing(sounding, heard.waveform(), tuple(questions)))
    everything = [Expression(name, "name", i) for i, name in enumerate(whole.names)]
    clip = scene_clip(whole, everything, image_size)
    return HeardClip(
        clip.name,
        clip.frames,
        tuple(sentence.truth for sentence in clip.sentences),
        whole.names,
        tuple(_family(item.thing) for item in whole.objects),
        tuple(item.thing.verb for item in whole.objects),
        tuple(hearings),
    )


def _hearings(three: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Which objects sound, and which of them are asked for: each one with one, two and three sounding."""
    for i, one in enumerate(three):
        yield (one,), (one,)
        yield (one, three[(i + 1) % 3]), (one,)
    yield tuple(three), tuple(three)


def _family(thing: Thing) -> str:
    """What it belongs to, in few and wide families."""
    kinds = ("bird", "instrument", "animal")
    return next((kind for kind in kinds if kind in thing.kinds), "other thing").replace(
        "animal", "other animal"
    )


def _voiced(scene: Scene, item: SceneObject, voice: Voice | None) -> SceneObject:
    return dataclasses.replace(
        item,
        voice=voice,
        other_recording=voice is not None and (item.thing.unseen or voice.recording.split != "train"),
        intervals=voice.intervals(scene.seconds) if voice else (),
    )


def _by_sound(heard: Scene, target: int, rng: np.random.Generator) -> list[Question]:
    """One sentence that tells the target by its sound among those that sound, without a word of what it is; none where there
    is no true one."""
    if Facts(heard).sounding == (target,):
        return [Question(BY_SOUND, pick(w.SOUND, rng, word="object"), target)]
    said = [
        e.text
        for e in heard.expressions()
        if e.target == target
        and says_only_thing(e.text)
        and (
            e.kind in ("order", "loudness")
            or (e.kind == "combination" and e.detail in _AMONG_HEARD and "sounding" in e.text.lower())
        )
    ]
    return [Question(BY_SOUND, said[rng.integers(len(said))], target)] if said else []


def _answers(
    predictor: Predictor, clip: HeardClip, hearing: Hearing, taken: list[Taken]
) -> list[tuple[Question, float]]:
    """Each question with its J; what the masks of those by sound lie on is added to `taken`."""
    if not hearing.questions:
        return []
    patches = None
    if hearing.samples is not None:
        patches = ClipMedia(clip.frames, hearing.samples).patches(WINDOW_S)
    logits, presence = predictor.predict(clip.frames, patches, [q.text for q in hearing.questions])
    present = presence >= RunConfig().presence_threshold
    out = []
    for n, question in enumerate(hearing.questions):
        shown = (probabilities(logits[:, n]) > MASK_THRESHOLD) & present[:, n, None, None]
        truth = clip.truths[question.target]
        out.append((question, float(np.mean([jaccard(p, t) for p, t in zip(shown, truth, strict=True)]))))
        if question.group in (BY_VERB, BY_SOUND):
            lying = lies_on(shown, clip.truths)
            taken.append(
                Taken(
                    clip.name,
                    question.target,
                    lying,
                    clip.classes,
                    clip.families,
                    clip.verbs,
                    hearing.sounding,
                )
            )
    return out


def lies_on(shown: NDArray[np.bool_], truths: Sequence[NDArray[np.bool_]]) -> int | None:
    """The object that most of a mask's pixels [T, h, w] lie on; None where there are none, or more lie on no object."""
    pixels = [int((shown & truth).sum()) for truth in truths]
    elsewhere = int((shown & ~np.any(truths, axis=0)).sum())
    best = int(np.argmax(pixels))
    return best if pixels[best] > 0 and pixels[best] >= elsewhere else None


def _on_disk(context: Context, folder: Path, predictor: Predictor, progress: Progress) -> Experiment:
    clips, rows = open_clips(context, predictor.image_size), Rows(folder, context.split)
    taken: list[Taken] = []

    def of_clip(clip: EvaluationClip) -> list[Observation]:
        heard = _marked(clip, rows)
        if heard is None:
            return []
        answers = _answers(predictor, heard, heard.hearings[0], taken)
        number = MARKED[min(len(heard.truths), len(MARKED)) - 1]
        return [Observation(number, question.group, clip.name, value) for question, value in answers]

    observations = _in_order(measure(clips, progress, of_clip))
    notes = [
        *told(clips),
        "the table does not say how many objects sound: the number of objects of a clip that have a mask stands in for it, and "
        "some of those are silent",
        "kinds are as the data set names them; where it names none, sentences with a word of sound are by sound, others with the "
        "name of the class by name",
        "clips with more objects are other clips: nothing is paired",
        *taken_notes(taken),
    ]
    fewest = min((o.condition for o in observations), key=MARKED.index)
    return _experiment(fewest, observations, notes, taken)


def _marked(clip: EvaluationClip, rows: Rows) -> HeardClip | None:
    """A clip on disk with the objects that it has masks of; None for the twin of a clip, which means none."""
    of_clip = rows.of(clip)
    if not of_clip:
        return None
    groups = {"name": BY_NAME, "sound": BY_SOUND}
    truths = {row.object_id: s.truth for row, s in zip(of_clip, clip.sentences, strict=True)}
    classes = {row.object_id: row.class_name for row in of_clip}
    place = {object_id: i for i, object_id in enumerate(truths)}
    questions = tuple(
        Question(groups.get(kind_of(row), OTHER), row.text, place[row.object_id]) for row in of_clip
    )
    names = tuple(classes[object_id] for object_id in truths)
    return HeardClip(
        clip.name,
        clip.frames,
        tuple(truths.values()),
        names,
        names,
        (None,) * len(truths),
        (Hearing((), clip.samples, questions),),
    )


def _in_order(observations: list[Observation]) -> list[Observation]:
    groups = (BY_NAME, BY_VERB, BY_SOUND, OTHER)
    return sorted(observations, key=lambda o: (groups.index(o.group), o.condition))


def _experiment(
    baseline: str, observations: list[Observation], notes: list[str], taken: Sequence[Taken]
) -> Experiment:
    return Experiment(
        name="sources",
        title="Sounding objects: how many there are, and which is taken for which",
        measure="J",
        axis=None,
        baseline=baseline,
        observations=observations,
        notes=notes,
        matrix=confusion(taken),
    )
