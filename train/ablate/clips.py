"""Clips to evaluate on, of generated scenes or of a data set on disk, in one form; and the score of each expression."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from refavs_rt.config import RunConfig
from refavs_rt.dataset import NULL_PREFIXES, ClipMedia, DataError, Row, read_clip, read_table

from ..batches import WINDOW_S
from ..metrics import mean_jaccard, truth_mask
from ..predict import Predictor
from ..scenes import Expression, Scene, SceneGenerator
from ..truth import read_masks
from .observation import ALL, NULL, Context, Observation, Progress

SENTENCES = 6
"""Of a scene, at most: one of each kind before a second of any."""
FRAME_SIZE = (360, 640)
"""(height, width) of a scene's frames, before they are stretched to the network's square."""
SCORING = (
    "J has the presence gate; of expressions that nothing fits it is the share of the clip's pixels left alone",
    "frames are paired with sound as the data set does: frame i with the window that begins at second i",
)
"""Notes on `score`."""
_TRACKS = 8
"""Clips whose sound makes the babble."""
_TRACK_SCENES_FROM = 10**6
"""Numbers of the scenes whose sound makes the babble: no clip is one of them."""


@dataclass(frozen=True)
class Sentence:
    """An expression with what it means."""

    text: str
    kind: str | None
    """`NULL` where nothing fits; None where the data set names no kinds."""
    truth: NDArray[np.bool_]
    """[T, 256, 256]"""


@dataclass(frozen=True)
class EvaluationClip:
    """A clip with its expressions."""

    name: str
    """What its observations are resampled by; a clip on disk and its null twins have one name."""
    frames: NDArray[np.uint8]
    """[T, S, S, 3] RGB, stretched to a square."""
    samples: NDArray[np.float32] | None
    """16 kHz mono; None without a sound track."""
    sentences: tuple[Sentence, ...]


class Named(Protocol):
    """What has the name of a clip."""

    @property
    def name(self) -> str:
        """What its observations are resampled by."""


NamedClip = TypeVar("NamedClip", bound=Named)
NamedClipOut = TypeVar("NamedClipOut", bound=Named, covariant=True)


class Clips(Protocol[NamedClipOut]):
    """A choice of clips. Iterated over, it gives them one after another, the same each time."""

    note: str
    """What they are, for the Markdown."""
    skipped: dict[str, str]
    """Clip -> why it could not be read; filled in while they are read."""

    def __len__(self) -> int:
        """How many to expect."""

    def __iter__(self) -> Iterator[NamedClipOut]:
        """The clips."""


class SoundingClips(Clips[EvaluationClip], Protocol):
    """Clips whose sound can be had apart from them."""

    def tracks(self, name: str) -> list[NDArray[np.float32]]:
        """The sound of some clips, none of them called `name`, none silent."""


def open_clips(context: Context, image_size: int) -> SoundingClips:
    """The clips that `context` asks for.

    Raises:
        DataError: the data set has none.
        MaterialError: the pack of scenes cannot be had.
        ValueError: the pack has no class for the split.
    """
    if context.data is not None:
        return DiskClips(context.data, context.split, context.clips, context.seed, image_size)
    scenes = SceneGenerator(context.pack(), context.split, seed=context.seed)
    return GeneratedClips(scenes, context.clips, image_size)


def measure(
    clips: Clips[NamedClip], progress: Progress, of_clip: Callable[[NamedClip], list[Observation]]
) -> list[Observation]:
    """The observations of all clips; one with a sentence that cannot be read is skipped, and told in `clips.skipped`.

    Raises:
        DataError: there are no observations.
    """
    out: list[Observation] = []
    for clip in progress(clips, len(clips)):
        try:
            out += of_clip(clip)
        except DataError as error:
            clips.skipped[clip.name] = str(error)
    if not out:
        fault = next(reversed(clips.skipped.values()), "no clip has expressions")
        raise DataError(f"no clip could be evaluated; the last fault: {fault}")
    return out


def told(clips: Clips[NamedClip]) -> list[str]:
    """Notes: which clips they are, how they are scored, and which of them were skipped."""
    notes = [clips.note, *SCORING]
    if clips.skipped:
        name, reason = next(iter(clips.skipped.items()))
        notes.append(f"{len(clips.skipped)} clips could not be read; the first: {name}: {reason}")
    return notes


def score(predictor: Predictor, clip: EvaluationClip) -> NDArray[np.float64]:
    """J of each sentence with the presence gate, frames paired with sound as the data set does; for a sentence that nothing
    fits, the share of the clip's pixels that were left alone.

    Raises:
        DataError: a sentence cannot be read.
        BundleError, CheckpointError: the model returned NaN or infinity.
    """
    patches = None if clip.samples is None else ClipMedia(clip.frames, clip.samples).patches(WINDOW_S)
    masks, presence = predictor.predict(clip.frames, patches, [s.text for s in clip.sentences])
    present = presence >= RunConfig().presence_threshold
    return np.array([mean_jaccard(masks[:, n], s.truth, present[:, n]) for n, s in enumerate(clip.sentences)])


def observe(predictor: Predictor, clip: EvaluationClip, condition: str) -> list[Observation]:
    """The score of each sentence in the group of its kind, and in `ALL` if it means an object."""
    out = []
    for sentence, value in zip(clip.sentences, score(predictor, clip).tolist(), strict=True):
        groups = [sentence.kind] if sentence.kind else []
        if sentence.kind != NULL:
            groups.insert(0, ALL)
        out += [Observation(condition, group, clip.name, value) for group in groups]
    return out


class GeneratedClips:
    """Scenes made in memory."""

    def __init__(self, scenes: SceneGenerator, count: int, image_size: int) -> None:
        self.skipped: dict[str, str] = {}
        self.note = (
            f"generated scenes of the split {scenes.split}, seed {scenes.seed}, numbers 0 to {count - 1}, "
            f"{scenes.seconds:g} s each, {FRAME_SIZE[1]}x{FRAME_SIZE[0]}, up to {SENTENCES} sentences a scene, one of each kind "
            "before a second of any"
        )
        self._scenes, self._count, self._size = scenes, count, image_size

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[EvaluationClip]:
        for number in range(self._count):
            scene = self._scenes.scene(number)
            yield scene_clip(scene, choose_sentences(scene.expressions(), scene.key), self._size)

    def tracks(self, name: str) -> list[NDArray[np.float32]]:
        return self._tracks

    @cached_property
    def _tracks(self) -> list[NDArray[np.float32]]:
        waves = (self._scenes.scene(_TRACK_SCENES_FROM + i).waveform() for i in range(_TRACKS))
        return [wave for wave in waves if wave.any()]


class DiskClips:
    """Clips of a data set in the form of Ref-AVS."""

    def __init__(self, folder: Path, split: str, count: int, seed: int, image_size: int) -> None:
        """Choose `count` clips of a split by chance, each with its null twins.

        Raises:
            DataError: there are none.
        """
        self.skipped: dict[str, str] = {}
        self._folder, self._size = folder, image_size
        self._table = read_table(folder, split)
        every = list(dict.fromkeys(plain_name(row.clip) for row in self._table.rows))
        chosen = np.random.default_rng(seed).permutation(len(every))[:count]
        self._names = {every[i] for i in chosen.tolist()}
        self._clips = [(c, rows) for c, rows in self._table.by_clip() if plain_name(c) in self._names]
        self.note = f"{len(self._names)} of {len(every)} clips of the split {split} of the data set {folder.name}, seed {seed}"

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[EvaluationClip]:
        for clip, rows in self._clips:
            try:
                yield self._read(clip, rows)
            except DataError as error:
                self.skipped[clip] = str(error)

    def tracks(self, name: str) -> list[NDArray[np.float32]]:
        return [samples for clip, samples in self._tracks if clip != name]

    def _read(self, clip: str, rows: Sequence[Row]) -> EvaluationClip:
        media = read_clip(self._folder, clip, self._size)
        truths: dict[tuple[str, bool], NDArray[np.bool_]] = {}
        for row in rows:
            if (row.object_id, row.is_null) not in truths:
                truths[row.object_id, row.is_null] = read_masks(self._folder, row, len(media.frames))
        sentences = tuple(
            Sentence(row.text, NULL if row.is_null else row.kind, truths[row.object_id, row.is_null])
            for row in rows
        )
        return EvaluationClip(plain_name(clip), media.frames, media.samples, sentences)

    @cached_property
    def _tracks(self) -> list[tuple[str, NDArray[np.float32]]]:
        out: list[tuple[str, NDArray[np.float32]]] = []
        for clip, _ in self._clips:
            if len(out) > _TRACKS or clip.startswith(NULL_PREFIXES):
                continue
            try:
                samples = read_clip(self._folder, clip, self._size).samples
            except DataError:
                continue  # it is told when the clip's turn comes
            if samples is not None and samples.any():
                out.append((clip, samples))
        return out


def scene_clip(scene: Scene, expressions: Sequence[Expression], image_size: int) -> EvaluationClip:
    """A scene at each whole second, with some of its expressions."""
    frames, visible = scene.render(np.arange(int(scene.seconds), dtype=np.float64), FRAME_SIZE)
    stretch = (image_size, image_size)
    pictures = np.stack(
        [np.asarray(Image.fromarray(frame).resize(stretch, Image.Resampling.BILINEAR)) for frame in frames]
    )
    truths = {
        k: np.stack([truth_mask(mask.astype(np.uint8) * np.uint8(255)) for mask in visible[:, k]])
        for k in dict.fromkeys(e.target for e in expressions if e.target is not None)
    }
    nothing = np.zeros((len(frames), 256, 256), bool)
    sentences = tuple(
        Sentence(e.text, e.kind, nothing if e.target is None else truths[e.target]) for e in expressions
    )
    return EvaluationClip(f"scene {scene.key[-1]}", pictures, scene.waveform(), sentences)


def choose_sentences(
    expressions: Sequence[Expression], key: Sequence[int], count: int = SENTENCES
) -> list[Expression]:
    """`count` expressions at most by chance, one of each kind before a second of any."""
    rng = np.random.default_rng((*key, 4))
    turns: dict[str, int] = {}
    order: list[tuple[int, int, int]] = []
    for i in rng.permutation(len(expressions)).tolist():
        kind = expressions[i].kind
        order.append((turns.setdefault(kind, 0), len(order), i))
        turns[kind] += 1
    return [expressions[i] for *_, i in sorted(order)[:count]]


def plain_name(clip: str) -> str:
    """The clip that a null clip was made of; any other clip's own name."""
    for prefix in NULL_PREFIXES:
        clip = clip.removeprefix(prefix)
    return clip
