"""Training batches from a data set in the form of Ref-AVS on disk: the sentences of a clip share one pass of the backbone."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from .batches import WINDOW_S, Batch, BatchConfig, Clip, collate, named_referents, normalise
from .data import DataError, Row, count_frames, read_clip, read_table

_TRIES = 20
"""Clips drawn in place of one that cannot be read, before the data set is given up."""
_LIVE_S = 0.0


class DiskSource:
    """A data set's splits `train` and `val`."""

    def __init__(self, folder: Path) -> None:
        """Read the table.

        Raises:
            DataError: it is missing, or no clip of the split `train` is on disk.
        """
        self.folder = folder
        self.clips = _clips(folder, "train")
        self.names = tuple(
            sorted({_class_name(row) for clip in self.clips for row in clip.rows if not row.is_null})
        )
        if not self.names:
            raise DataError(f"{folder}: the split 'train' has no expression with an object")
        self.material = {
            "data": f"{len(self.clips)} clips of the data set {folder.resolve().name}",
            "licence": "that of the data set",
        }

    def batches(self, config: BatchConfig, seed: int) -> DiskBatches:
        """Batches of the split `train`."""
        return DiskBatches(self.folder, self.clips, self.names, config, seed)

    def validation(self, count: int, image_size: int) -> list[Clip]:
        """The first clips of the split `val`, whole, paired as the data set pairs; none where it has none."""
        try:
            clips = _clips(self.folder, "val")
        except DataError:
            return []
        rng = np.random.default_rng(0)
        out: list[Clip] = []
        for clip in clips:
            if len(out) == count:
                break
            try:
                media = read_clip(self.folder, clip.name, image_size)
                everything = list(range(len(media.frames)))
                rows = _pick_rows(clip.rows, 8, rng)
                out.append(_load(self.folder, clip, rows, image_size, everything, everything, WINDOW_S, {}))
            except DataError as error:
                print(f"note: left out of the validation: {error}", file=sys.stderr)
        return out


class DiskBatches(Dataset[Batch]):
    """Batch number `step`, the same for the same seed whoever asks for it, so that a resumed run sees the same batches."""

    def __init__(
        self, folder: Path, clips: list[_DiskClip], names: tuple[str, ...], config: BatchConfig, seed: int
    ) -> None:
        self.folder = folder
        self.clips = clips
        self.names = {name: i for i, name in enumerate(names)}
        self.config = config
        self.seed = seed

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        config = self.config
        size, shapes = config.image_size, config.shapes
        if step >= config.late_from_step:
            size, shapes = config.late_image_size, config.late_shapes
        ticks, count = shapes[rng.integers(len(shapes))]
        decode = sorted(rng.permutation(ticks)[: config.decoded_ticks].tolist())
        return collate([self._draw(ticks, decode, size, rng) for _ in range(count)], decode)

    def _draw(self, ticks: int, decode: list[int], size: int, rng: np.random.Generator) -> Clip:
        """A clip by chance; one that cannot be read is told of and replaced."""
        fault = DataError("no clip")
        for _ in range(_TRIES):
            clip = self.clips[rng.integers(len(self.clips))]
            try:
                return self._clip(clip, ticks, decode, size, rng)
            except DataError as error:
                fault = error
                print(f"note: skipped: {error}", file=sys.stderr)
        raise DataError(f"{_TRIES} clips in a row cannot be read; the last fault: {fault}")

    def _clip(
        self, clip: _DiskClip, ticks: int, decode: list[int], size: int, rng: np.random.Generator
    ) -> Clip:
        config = self.config
        rows = _pick_rows(clip.rows, config.sentences, rng)
        latest = max(0, clip.frames - ticks)
        start = 0 if rng.random() < 0.5 else int(rng.integers(latest + 1))
        frames = np.minimum(start + np.arange(ticks), clip.frames - 1).tolist()
        offset_s = WINDOW_S if rng.random() < config.dataset_pairing else _LIVE_S
        return _load(self.folder, clip, rows, size, frames, decode, offset_s, self.names)


@dataclass(frozen=True)
class _DiskClip:
    """The rows of one clip."""

    name: str
    rows: tuple[Row, ...]
    frames: int


def _clips(folder: Path, split: str) -> list[_DiskClip]:
    table = read_table(folder, split)
    out = []
    for name, rows in table.by_clip():
        frames = count_frames(folder, name)
        if frames:
            out.append(_DiskClip(name, tuple(rows), frames))
    if not out:
        raise DataError(f"{folder}: no clip of the split {split!r} has frames")
    return out


def _pick_rows(rows: tuple[Row, ...], count: int, rng: np.random.Generator) -> list[Row]:
    """`count` rows, each at most once where there are enough."""
    return [rows[i] for i in rng.choice(len(rows), count, replace=len(rows) < count)]


def _load(
    folder: Path,
    clip: _DiskClip,
    rows: list[Row],
    size: int,
    ticks: list[int],
    decode: list[int],
    offset_s: float,
    names: dict[str, int],
) -> Clip:
    """The frames `ticks` of a clip, with truths at the positions `decode` of `ticks`."""
    media = read_clip(folder, clip.name, size)
    objects = {row.object_id: _class_name(row) for row in clip.rows if not row.is_null}
    masks = {
        fid: np.stack([_read_mask(folder, clip.name, fid, ticks[i]) for i in decode])
        for fid in objects
        if names or any(row.object_id == fid for row in rows)
    }
    empty = np.zeros((len(decode), size // 4, size // 4), np.float32)
    shares = [empty if row.is_null else _shrink(masks[row.object_id], size // 4) for row in rows]
    stacked = np.stack(shares, axis=1)
    presence = (stacked.max(axis=(-2, -1)) >= 0.5).astype(np.float32)
    classes = [None if row.is_null else names.get(_class_name(row), -2) for row in rows]
    return Clip(
        frames=normalise(media.frames[ticks]),
        log_mel=media.patches(offset_s)[ticks],
        has_sound=np.full(len(ticks), media.samples is not None),
        texts=[row.text for row in rows],
        kinds=["null" if row.is_null else row.kind or "expression" for row in rows],
        masks=stacked,
        presence=presence,
        names=_name_cells(masks, objects, names, len(decode), size // 8),
        referents=named_referents(classes, presence),
        sounds=np.zeros((len(ticks), len(names) + 1), np.float32),  # who sounds is not in the table: ignored
    )


def _read_mask(folder: Path, clip: str, fid: str, frame: int) -> NDArray[np.bool_]:
    path = folder / "gt_mask" / clip / f"fid_{fid}" / f"{frame:05d}.png"
    try:
        with Image.open(path) as image:
            mask: NDArray[np.bool_] = np.asarray(image.convert("L")) > 0
            return mask
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except (OSError, SyntaxError) as error:  # PIL says SyntaxError of a broken PNG
        raise DataError(f"{path} is damaged: {error}") from error


def _shrink(masks: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Share [T, side, side] of each cell that is covered by `masks` [T, h, w]."""
    rows, columns = (_overlaps(size, side) for size in masks.shape[1:])
    return rows @ masks.astype(np.float32) @ columns.T


def _overlaps(size: int, cells: int) -> NDArray[np.float32]:
    """[cells, size]: the share of each cell that each of `size` pixels along an axis takes up."""
    edges = np.arange(cells + 1) * size / cells
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(covered, 0) * cells / size).astype(np.float32)


def _name_cells(
    masks: dict[str, NDArray[np.bool_]], objects: dict[str, str], names: dict[str, int], ticks: int, side: int
) -> NDArray[np.int64]:
    """Class index [T, side, side] where a cell is mostly one object; -2, to be ignored, elsewhere: what no mask covers may be
    an object that nobody marked."""
    labels = np.full((ticks, side, side), -2, np.int64)
    for fid, mask in masks.items():
        if objects[fid] in names:
            labels[_shrink(mask, side) >= 0.6] = names[objects[fid]]
    return labels


def _class_name(row: Row) -> str:
    """The object's class in the uid CLIP_CLASS_NUMBER."""
    return row.uid.rsplit("_", 2)[1].replace("-", " ")
