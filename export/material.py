"""Real frames, sounds and sentences: what precision is calibrated with, and what it is checked on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import IMAGENET_MEAN, IMAGENET_STD, PATCH_SAMPLES, SAMPLE_RATE_HZ, ModelConfig

MOST_CLIPS = 40
"""Clips of a data set that are read, spread over it."""
_Item = TypeVar("_Item")
_PAIRING_S = PATCH_SAMPLES / SAMPLE_RATE_HZ
"""In a data set a frame goes with the second of sound that begins at it: its window ends this long after the frame."""


@dataclass(frozen=True)
class Clip:
    """Frames of one recording in order, and the sentences asked about it."""

    name: str
    frames: NDArray[np.uint8]
    """[T, S, S, 3], RGB, stretched to a square."""
    patches: NDArray[np.float32] | None
    """[T, 96, 64], log-mel; None without a sound track."""
    texts: tuple[str, ...]
    times_s: tuple[float, ...]
    """[T]"""

    def pushes(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32] | None, float]]:
        """What a session takes, frame by frame: [3, S, S] normalised, [96, 64], seconds."""
        mean, std = (np.array(x, np.float32) for x in (IMAGENET_MEAN, IMAGENET_STD))
        for i, frame in enumerate(self.frames):
            tensor = np.ascontiguousarray(((frame / np.float32(255) - mean) / std).transpose(2, 0, 1))
            yield tensor, None if self.patches is None else self.patches[i], self.times_s[i]


def demo_clip() -> tuple[Path, list[str]]:
    """The package's demo clip and its sentences.

    Raises:
        FileNotFoundError: the package was installed without its assets.
    """
    import refavs_rt

    folder = Path(refavs_rt.__file__).parent / "assets" / "demo"
    try:
        described = json.loads((folder / "demo.json").read_text())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder / 'demo.json'} is missing: install refavs-rt again") from error
    return folder / described["clip"], list(described["texts"])


def read_demo(config: ModelConfig, most_frames: int, most_sentences: int) -> Clip:
    """The demo clip, as the ingestion reads it.

    Raises:
        IngestError, FileNotFoundError: it cannot be read.
    """
    from refavs_rt.ingest import open_source

    path, texts = demo_clip()
    unit = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    frames, patches, times = [], [], []
    with open_source(path, config.image_size, mean=unit[0], std=unit[1], max_frames=most_frames) as source:
        for frame in source:
            frames.append(np.rint(frame.tensor.transpose(1, 2, 0) * 255).astype(np.uint8))
            patches.append(frame.log_mel)
            times.append(frame.pts_s)
    heard = [patch for patch in patches if patch is not None]
    sound = np.stack(heard) if len(heard) == len(patches) else None
    return Clip(path.name, np.stack(frames), sound, tuple(texts[:most_sentences]), tuple(times))


def read_clips(folder: Path, config: ModelConfig, most_sentences: int) -> list[Clip]:
    """At most `MOST_CLIPS` clips of a data set in the layout of Ref-AVS, spread over it, each with its first sentences.

    Raises:
        DataError: the table or a file of a clip is missing or damaged, or there is no clip.
        ModuleNotFoundError: Pillow is not installed.
    """
    from refavs_rt.dataset import DataError, read_clip, read_table

    groups = spread(list(read_table(folder).by_clip()), MOST_CLIPS)
    if not groups:
        raise DataError(
            f"{folder}: no clip of its table is there; python -m train scenes --out {folder} writes some"
        )
    clips = []
    for name, rows in groups:
        media = read_clip(folder, name, config.image_size)
        patches = None if media.samples is None else media.patches(_PAIRING_S)
        texts = tuple(dict.fromkeys(row.text for row in rows))[:most_sentences]
        times = tuple(float(t) for t in range(len(media.frames)))
        clips.append(Clip(name, media.frames, patches, texts, times))
    return clips


def halves(clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Clips to calibrate with, and others to check on. A single clip is cut in the middle."""
    if len(clips) > 1:
        return list(clips[::2]), list(clips[1::2])
    (clip,) = clips
    half = max(1, len(clip.frames) // 2)
    return [_cut(clip, 0, half)], [_cut(clip, half, len(clip.frames))]


def spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most `most` of them, evenly from first to last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i)] for i in np.linspace(0, len(items) - 1, most)]


def count_frames(clips: Iterable[Clip]) -> int:
    """Frames of all clips."""
    return sum(len(clip.frames) for clip in clips)


def _cut(clip: Clip, start: int, stop: int) -> Clip:
    patches = None if clip.patches is None else clip.patches[start:stop]
    return Clip(clip.name, clip.frames[start:stop], patches, clip.texts, clip.times_s[start:stop])
