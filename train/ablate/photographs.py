"""`photographs`: real pictures, outlined by hand and never trained on, standing still and under a slow pan.

An animal is asked for by its name, and where it has a recording of its own, by its sound. What is asked for and not there is of
another kind, or the like: a horse where there is a cow.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import SAMPLE_RATE_HZ, RunConfig
from refavs_rt.dataset import ClipMedia

from ..batches import WINDOW_S
from ..material import Pack
from ..metrics import MASK_THRESHOLD, SIZE, jaccard, probabilities
from ..photographs import OUTLINES, Photograph, View, read_photographs
from ..predict import Predictor
from .clips import SCORING, measure
from .observation import Context, Experiment, Observation, Progress

STILL, PANNED, MUTED = "still", "panned", "panned, muted"
BY_NAME, BY_NEW_NAME, BY_SOUND = "by name", "by a name never trained", "by its sound"
ABSENT, ALIKE = "what is not there", "its like is there"
SECONDS = 10
_PAN = 0.2
"""Of the picture's width and height, from the first frame to the last."""
_PAUSE_S = 0.8


@dataclass(frozen=True)
class Question:
    """A sentence about a photograph."""

    group: str
    text: str
    target: int | None
    """Number of the object, None where nothing fits."""


@dataclass(frozen=True)
class Answer:
    """What was shown for a question under one condition."""

    photograph: Photograph
    question: Question
    condition: str
    value: float
    """J with the presence gate; of what is not there, the share of the pixels that were left alone."""
    frames: NDArray[np.uint8]
    """[T, S, S, 3]"""
    shown: NDArray[np.bool_]
    """[T, 256, 256]"""
    truth: NDArray[np.bool_]
    """[T, 256, 256]"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flag of this experiment."""
    parser.add_argument(
        "--outlines",
        type=Path,
        default=OUTLINES,
        metavar="FILE",
        help="of the photographs; default: %(default)s",
    )


def run(context: Context, progress: Progress) -> Experiment:
    """Ask for what is on each photograph, and for what is not.

    Raises:
        DataError: there are no outlines.
        MaterialError: the pack of scenes cannot be had.
    """
    pack = context.pack()
    photographs, left_out = read_photographs(context.options.outlines, pack)
    clips = _Photographs(photographs, left_out)
    predictor = context.predictor(RunConfig())
    observations = measure(
        clips,
        progress,
        lambda photograph: [
            Observation(a.condition, a.question.group, photograph.name, a.value)
            for a in answers(predictor, pack, photograph)
        ],
    )
    asked = "; ".join(f"{g}: {n}" for g, n in _counted(observations).items())
    return Experiment(
        "photographs",
        "Real photographs, outlined by hand",
        "J",
        None,
        STILL,
        observations,
        [
            clips.note,
            *SCORING,
            *(f"left out: {name}: {why}" for name, why in left_out.items()),
            f"{STILL}: the whole picture for {SECONDS} s; {PANNED}: {1 - _PAN:.0%} of its width and height, moving; "
            f"{MUTED}: the same with silence for sound. Without a recording of its own a picture is silent in every case",
            f"{BY_NAME}: of a class that training shows on other pictures; {BY_NEW_NAME}: of one that it never shows; "
            f"{BY_SOUND}: “the sounding object”, with the animal's own recording, also never trained on",
            f"{ALIKE}: a word for another thing of the same kind; {ABSENT}: a thing of another kind",
            "of several of a name the one in front is asked for, and the pixels of the others do not count",
            f"sentences: {asked}",
        ],
    )


def answers(predictor: Predictor, pack: Pack, photograph: Photograph) -> Iterator[Answer]:
    """Every question about a photograph, under every condition."""
    asked = questions(pack, photograph)
    picture = pack.picture(photograph.photo.entry)
    sound = track(pack, photograph)
    conditions = {STILL: ([View()] * SECONDS, sound), PANNED: (pan(photograph), sound)}
    if sound.any():
        conditions[MUTED] = (conditions[PANNED][0], np.zeros_like(sound))
    for condition, (views, samples) in conditions.items():
        frames = np.stack([view.of(picture, predictor.image_size) for view in views])
        patches = ClipMedia(frames, samples).patches(WINDOW_S)
        masks, presence = predictor.predict(frames, patches, [q.text for q in asked])
        present = presence >= RunConfig().presence_threshold
        for n, question in enumerate(asked):
            truth, counts = _truth(photograph, question, views)
            share = probabilities(masks[:, n]) * present[:, n, None, None]
            shown = (share > MASK_THRESHOLD) & counts
            value = float(np.mean([jaccard(s, t) for s, t in zip(shown, truth, strict=True)]))
            yield Answer(photograph, question, condition, value, frames, shown, truth)


def questions(pack: Pack, photograph: Photograph) -> list[Question]:
    """What is asked about a photograph; always the same."""
    trained = {word for thing in pack.things if not thing.unseen for word in (thing.name, *thing.aliases)}
    out = []
    for number in photograph.named():
        name = photograph.outlines[number].name
        out.append(Question(BY_NAME if name in trained else BY_NEW_NAME, f"The {name}.", number))
    if photograph.photo.recording is not None and len(out) == 1:
        out.append(Question(BY_SOUND, "The sounding object.", photograph.named()[0]))
    out.append(Question(ALIKE, f"The {photograph.alike}.", None))
    out.append(Question(ABSENT, f"The {photograph.absent}.", None))
    return out


def pan(photograph: Photograph) -> list[View]:
    """Views from one edge of the picture to the other; which way depends on its name."""
    way = sum(photograph.name.encode()) % 4
    out = []
    for share in np.linspace(0, _PAN, SECONDS).tolist():
        x, y = (share, _PAN - share)[way % 2], (share, _PAN - share)[way // 2]
        out.append(View(x, y, 1 - _PAN, 1 - _PAN))
    return out


def track(pack: Pack, photograph: Photograph) -> NDArray[np.float32]:
    """The animal's own recording from the first second on, again and again; silence where there is none."""
    samples = np.zeros(SECONDS * SAMPLE_RATE_HZ, np.float32)
    recording = photograph.photo.recording
    if recording is None:
        return samples
    sound = pack.sound(recording.entry)
    at = SAMPLE_RATE_HZ
    while at < len(samples):
        part = sound[: len(samples) - at]
        samples[at : at + len(part)] = part
        at += len(sound) + round(_PAUSE_S * SAMPLE_RATE_HZ)
    return samples


def _truth(
    photograph: Photograph, question: Question, views: Sequence[View]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What is meant, and which pixels count; both [T, 256, 256]."""
    if question.target is None:
        nothing = np.zeros((len(views), SIZE, SIZE), bool)
        return nothing, ~nothing
    counts = ~photograph.beside(question.target, views, SIZE)
    return photograph.truth(question.target, views, SIZE) & counts, counts


def _counted(observations: Sequence[Observation]) -> dict[str, int]:
    groups = [o.group for o in observations if o.condition == STILL]
    return {group: groups.count(group) for group in dict.fromkeys(groups)}


class _Photographs:
    """The photographs as a choice of clips."""

    def __init__(self, photographs: Sequence[Photograph], left_out: dict[str, str]) -> None:
        self.note = (
            f"{len(photographs)} photographs of gcompris-qt-data, outlined by hand and never trained on"
        )
        self.skipped = dict(left_out)
        self._photographs = photographs

    def __len__(self) -> int:
        return len(self._photographs)

    def __iter__(self) -> Iterator[Photograph]:
        yield from self._photographs
