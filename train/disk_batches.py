"""Clips for training from a data set in the form of Ref-AVS on disk: the sentences of a clip share one pass of the backbone."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from refavs_rt.dataset import (
    DataError,
    Row,
    count_frames,
    mask_path,
    read_frames,
    read_mask,
    read_table,
    sound_path,
)

from .batches import WINDOW_S, BatchConfig, BatchPlan, Clip, named_referents, normalise
from .log_mel_cache import LogMelCache

_TRIES = 20
"""Clips drawn in place of one that cannot be read, before the step is given up."""
_LIVE_S = 0.0
_IGNORED = -2
"""The class of what the table does not tell."""


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)


class DiskSource:
    """A data set's splits `train` and `val`."""

    def __init__(self, folder: Path, cache: Path | None = None, tell: Callable[[str], None] = _note) -> None:
        """Read the table, and look which clips of the split `train` are there.

        Args:
            cache: a folder for log-mel patches, shared by all processes; None: they are kept in memory alone.
            tell: is told, once, how many clips and rows cannot be used.

        Raises:
            DataError: the table is missing, or no clip of the split `train` is on disk.
        """
        self.folder = folder
        self.address: str | None = str(folder.resolve())
        self._log_mels = LogMelCache(cache)
        self._train, left_out = _clips(folder, "train")
        self.names = tuple(
            sorted({row.class_name for clip in self._train for row in clip.rows if not row.is_null})
        )
        if not self.names:
            raise DataError(f"{folder}: the split 'train' has no expression with an object")
        self.material = {
            "data": f"{len(self._train)} clips of the data set {folder.resolve().name}",
            "licence": "that of the data set",
        }
        if left_out:
            tell(
                f"{len(left_out)} clips or rows of the split 'train' of {folder} cannot be used, the first: "
                f"{next(iter(left_out.values()))}. All are listed by: python -m train data --check {folder}"
            )

    def digest(self) -> str:
        """Of the clips, their lengths and their rows."""
        return hashlib.sha256(repr((self.names, self._train)).encode()).hexdigest()

    def clips(self, config: BatchConfig) -> DiskClips:
        """Clips of the split `train`."""
        return DiskClips(self.folder, self._train, self._log_mels, self.names, config)

    def validation(self, count: int, image_size: int) -> list[Clip]:
        """The first clips of the split `val`, see `validation_clips`; none where it has none."""
        try:
            return validation_clips(self.folder, count, image_size, self._log_mels)
        except DataError:
            return []


def validation_clips(
    folder: Path, count: int, image_size: int, log_mels: LogMelCache | None = None
) -> list[Clip]:
    """The first `count` clips of the split `val`, whole, paired as the data set pairs, 8 of their rows each.

    Raises:
        DataError: it has none.
    """
    log_mels = log_mels or LogMelCache(None)
    clips, _ = _clips(folder, "val")
    rng = np.random.default_rng(0)
    out: list[Clip] = []
    for clip in clips:
        if len(out) == count:
            break
        everything = tuple(range(clip.frames))
        choice = _Choice(_pick_rows(clip.rows, 8, rng), everything, everything, WINDOW_S)
        try:
            out.append(_read(folder, clip, choice, image_size, log_mels, {}))
        except DataError as error:
            _note(f"left out of the validation: {error}")
    return out


class DiskClips:
    """Clips drawn by chance, read from disk."""

    def __init__(
        self,
        folder: Path,
        clips: Sequence[DiskClip],
        log_mels: LogMelCache,
        names: tuple[str, ...],
        config: BatchConfig,
    ) -> None:
        self.folder = folder
        self.names = {name: i for i, name in enumerate(names)}
        self.config = config
        self._clips = clips
        self._log_mels = log_mels
        # Shared with the worker processes that get a copy of this object: each bad clip is told of once.
        self._told = torch.zeros(len(clips), dtype=torch.bool).share_memory_()
        self._telling = multiprocessing.Lock()  # two workers may meet the same clip at once

    def draw(self, plan: BatchPlan, rng: np.random.Generator) -> Clip:
        """A clip by chance. One that cannot be read is told of on stderr, once, and another one drawn in its place, the same
        one wherever the same clips cannot be read.

        Raises:
            DataError: many in a row cannot be read.
        """
        fault: DataError | None = None
        for _ in range(_TRIES):
            index = int(rng.integers(len(self._clips)))
            clip = self._clips[index]
            choice = self._choose(clip, plan, rng)
            try:
                return _read(self.folder, clip, choice, plan.size, self._log_mels, self.names, draft=True)
            except DataError as error:
                fault = error
                with self._telling:
                    is_new = not self._told[index]
                    self._told[index] = True
                if is_new:
                    _note(f"the clip {clip.name} is skipped wherever it is drawn: {error}")
        raise DataError(f"{_TRIES} clips in a row cannot be read; the last fault: {fault}")

    def _choose(self, clip: DiskClip, plan: BatchPlan, rng: np.random.Generator) -> _Choice:
        """All that chance decides of a clip, before any of it is read."""
        config = self.config
        rows = _pick_rows(clip.rows, config.sentences, rng)
        latest = max(0, clip.frames - plan.ticks)
        start = 0 if rng.random() < 0.5 else int(rng.integers(latest + 1))
        frames = tuple(np.minimum(start + np.arange(plan.ticks), clip.frames - 1).tolist())
        offset_s = WINDOW_S if rng.random() < config.dataset_pairing else _LIVE_S
        return _Choice(rows, frames, plan.decode, offset_s)


@dataclass(frozen=True)
class DiskClip:
    """A clip on disk and what the table says of it."""

    name: str
    rows: tuple[Row, ...]
    frames: int

    @functools.cached_property
    def objects(self) -> dict[str, str | None]:
        """The class of each object with a mask; None where the rows do not agree on it."""
        classes: dict[str, set[str]] = {}
        for row in self.rows:
            if not row.is_null:
                classes.setdefault(row.object_id, set()).add(row.class_name)
        return {fid: min(found) if len(found) == 1 else None for fid, found in classes.items()}


@dataclass(frozen=True)
class _Choice:
    """What is wanted of a clip."""

    rows: list[Row]
    frames: tuple[int, ...]
    """[T], of the ticks; short clips repeat their last."""
    decode: tuple[int, ...]
    """[T'], places in `frames`."""
    offset_s: float
    """From a frame to the end of its window of sound."""


def _clips(folder: Path, split: str) -> tuple[list[DiskClip], dict[str, str]]:
    """The clips of a split that have frames; and, by clip or uid, why others cannot be used."""
    table = read_table(folder, split)
    clips, left_out = [], dict(table.left_out)
    for name, rows in table.by_clip():
        try:
            frames = count_frames(folder, name)
        except DataError as error:
            left_out[name] = str(error)
            continue
        if frames:
            clips.append(DiskClip(name, tuple(rows), frames))
        else:
            left_out[name] = f"{folder / 'media' / name / 'frames'} has no frames"
    if not clips:
        raise DataError(f"{folder}: no clip of the split {split!r} has frames")
    return clips, left_out


def _pick_rows(rows: tuple[Row, ...], count: int, rng: np.random.Generator) -> list[Row]:
    """`count` rows, each at most once where there are enough."""
    return [rows[i] for i in rng.choice(len(rows), count, replace=len(rows) < count)]


def _read(
    folder: Path,
    clip: DiskClip,
    choice: _Choice,
    size: int,
    log_mels: LogMelCache,
    names: dict[str, int],
    draft: bool = False,
) -> Clip:
    """The chosen part of a clip, of which each file is read once and no other; `size` is a multiple of 8."""
    frames, at = np.unique(choice.frames, return_inverse=True)
    pictures = read_frames(folder, clip.name, frames.tolist(), size, draft)
    patches, has_sound = log_mels.patches(sound_path(folder, clip.name), clip.frames, choice.offset_s)
    wanted = {row.object_id for row in choice.rows if not row.is_null}
    decoded = [choice.frames[i] for i in choice.decode]
    masks = {
        fid: _shares(folder, clip.name, fid, decoded, size // 4)
        for fid, class_name in clip.objects.items()
        if fid in wanted or class_name in names
    }
    empty = np.zeros((len(decoded), size // 4, size // 4), np.float32)
    stacked = np.stack([empty if row.is_null else masks[row.object_id] for row in choice.rows], axis=1)
    presence = (stacked.max(axis=(-2, -1)) > 0).astype(
        np.float32
    )  # as small as it may be: evaluation counts it, too
    classes = {fid: names.get(class_name or "", _IGNORED) for fid, class_name in clip.objects.items()}
    return Clip(
        name=clip.name,
        frames=normalise(pictures[at]),
        log_mel=patches[list(choice.frames)],
        has_sound=np.full(len(choice.frames), has_sound),
        texts=[row.text for row in choice.rows],
        kinds=["null" if row.is_null else row.kind or "expression" for row in choice.rows],
        masks=stacked,
        presence=presence,
        names=_name_cells(masks, classes, len(decoded), size // 8),
        referents=named_referents(
            [None if row.is_null else classes[row.object_id] for row in choice.rows], presence
        ),
        # who sounds is not in the table: ignored
        sounds=np.zeros((len(choice.frames), len(names) + 1), np.float32),
    )


def _shares(folder: Path, clip: str, object_id: str, frames: Sequence[int], side: int) -> NDArray[np.float32]:
    """Share [T, side, side] of each cell that an object covers in `frames`."""
    shares = {
        frame: _shrink(read_mask(mask_path(folder, clip, object_id, frame)), side) for frame in set(frames)
    }
    return np.stack([shares[frame] for frame in frames])


def _shrink(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Share [side, side] of each cell that is covered by `mask` [h, w]."""
    rows, columns = (_overlaps(size, side) for size in mask.shape)
    shares: NDArray[np.float32] = (columns @ (rows @ mask.astype(np.float32)).T).T
    return shares


@functools.lru_cache(maxsize=64)
def _overlaps(size: int, cells: int) -> csr_matrix:
    """[cells, size]: the share of each cell that each of `size` pixels along an axis takes up."""
    edges = np.arange(cells + 1) * size / cells
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return csr_matrix((np.maximum(covered, 0) * cells / size).astype(np.float32))


def _name_cells(
    masks: dict[str, NDArray[np.float32]], classes: dict[str, int], ticks: int, side: int
) -> NDArray[np.int64]:
    """Class index [T, side, side] where a cell is mostly one object, whose masks are [T, 2 side, 2 side]; to be ignored
    elsewhere: what no mask covers may be an object that nobody marked."""
    labels = np.full((ticks, side, side), _IGNORED, np.int64)
    for fid, mask in masks.items():
        if classes[fid] != _IGNORED:
            cells = mask.reshape(ticks, side, 2, side, 2).mean(axis=(2, 4))
            labels[cells >= 0.6] = classes[fid]
    return labels
