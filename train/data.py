"""The Ref-AVS tree on disk, as its authors publish it and as `python -m train scenes` writes it.

    DIR/metadata.csv                          vid, uid, split, fid, exp
    DIR/media/CLIP/frames/0.jpg .. 9.jpg      one frame a second
    DIR/media/CLIP/audio.wav                  10 s of sound
    DIR/gt_mask/CLIP/fid_F/00000.png ..       the mask of object F in each frame
    DIR/rows.jsonl                            optional: kind of each row, written with generated scenes

CLIP is the uid without its last two parts. Rows that nothing fits have clips of their own, whose names begin with `null_c-`
(another clip's sentence) or `null_m-` (the sound is muted).
"""

from __future__ import annotations

import csv
import json
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from refavs_rt.config import PATCH_SAMPLES, SAMPLE_RATE_HZ
from refavs_rt.log_mel import log_mel

from .metrics import truth_mask

SPLITS = ("train", "val", "test_s", "test_u", "test_n")
NULL_PREFIXES = ("null_c-", "null_m-")
_COLUMNS = ("vid", "uid", "split", "fid", "exp")


class DataError(Exception):
    """A data set that cannot be read; the message names the file and the mend."""


@dataclass(frozen=True)
class Row:
    """One expression of the table."""

    uid: str
    clip: str
    split: str
    object_id: str
    """`fid`: the folder of its masks."""
    text: str
    is_null: bool
    """Nothing in the clip fits the expression."""
    kind: str | None = None
    other_recording: bool = False
    """The object sounds with a recording that training never plays (generated scenes only)."""
    swap_uid: str | None = None
    """A row of the same clip that means another object (generated scenes only)."""


@dataclass
class Table:
    """The rows of a data set whose clips are on disk."""

    folder: Path
    rows: list[Row]
    missing_clips: list[str] = field(default_factory=list)
    """Clips that the table names and the disk lacks."""

    def by_clip(self) -> Iterator[tuple[str, list[Row]]]:
        """Clips in table order with their rows."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.clip, []).append(row)
        yield from groups.items()


@dataclass(frozen=True)
class ClipMedia:
    """A clip as the network takes it."""

    frames: NDArray[np.uint8]
    """[T, S, S, 3] RGB, stretched to a square."""
    samples: NDArray[np.float32] | None
    """16 kHz mono; None without a sound file."""

    def patches(self, offset_s: float) -> NDArray[np.float32]:
        """Log-mel patches [T, 96, 64] of the windows that end `offset_s` after each frame; silence outside of the track."""
        count = len(self.frames)
        windows = np.zeros((count, PATCH_SAMPLES), np.float32)
        if self.samples is not None:
            for i, window in enumerate(windows):
                stop = round((i + offset_s) * SAMPLE_RATE_HZ)
                start = max(stop - PATCH_SAMPLES, 0)
                part = self.samples[start : max(stop, 0)]
                into = start - (stop - PATCH_SAMPLES)
                window[into : into + len(part)] = part
        return log_mel(windows)


def read_table(folder: Path, split: str | None = None) -> Table:
    """The rows of `metadata.csv`, rows marked with no known split left out.

    Raises:
        DataError: the folder, the table or a column is missing, or no row is left.
    """
    path = folder / "metadata.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            lacking = [name for name in _COLUMNS if name not in columns]
            if lacking:
                raise DataError(f"{path} has no column {lacking[0]!r}; it must have {', '.join(_COLUMNS)}")
            lines = list(reader)
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing; write scenes with: python -m train scenes --out {folder} --clips 10"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a table: {error}") from error
    extra = _side_file(folder / "rows.jsonl")
    rows = [_row(line, extra.get(line["uid"], {})) for line in lines if line["split"] in SPLITS]
    rows = [row for row in rows if split is None or row.split == split]
    media = folder / "media"
    present = {p.name for p in media.iterdir()} if media.is_dir() else set()
    missing = sorted({row.clip for row in rows} - present)
    rows = [row for row in rows if row.clip in present]
    if not rows:
        wanted = f"of split {split!r} " if split else ""
        raise DataError(
            f"{folder} has no rows {wanted}with their clips under {media} ({len(missing)} clips missing)"
        )
    return Table(folder, rows, missing)


def read_clip(folder: Path, clip: str, size: int) -> ClipMedia:
    """Frames and sound of a clip, frames stretched to `size`.

    Raises:
        DataError: it has no frames, or a file is damaged.
    """
    media = folder / "media" / clip
    paths = sorted((media / "frames").glob("*.jpg"), key=lambda p: (len(p.stem), p.stem))
    if not paths:
        raise DataError(f"{media / 'frames'} has no frames")
    frames = np.stack([_picture(path, size) for path in paths])
    sound = media / "audio.wav"
    return ClipMedia(frames, _read_wav(sound) if sound.exists() else None)


def read_masks(folder: Path, row: Row, count: int) -> NDArray[np.bool_]:
    """The truth of an expression [T, 256, 256]; empty for null expressions.

    Raises:
        DataError: a mask is missing or damaged.
    """
    if row.is_null:
        return np.zeros((count, 256, 256), bool)
    masks = folder / "gt_mask" / row.clip / f"fid_{row.object_id}"
    out = []
    for i in range(count):
        path = masks / f"{i:05d}.png"
        try:
            with Image.open(path) as image:
                out.append(truth_mask(np.asarray(image.convert("L"))))
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing") from error
        except OSError as error:
            raise DataError(f"{path} is damaged: {error}") from error
    return np.stack(out)


def _row(line: dict[str, str], extra: dict[str, Any]) -> Row:
    uid = line["uid"]
    return Row(
        uid=uid,
        clip=uid.rsplit("_", 2)[0],
        split=line["split"],
        object_id=line["fid"],
        text=line["exp"],
        is_null=uid.startswith(NULL_PREFIXES),
        kind=extra.get("kind"),
        other_recording=bool(extra.get("other_recording", False)),
        swap_uid=extra.get("swap_uid"),
    )


def _side_file(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}") from error
    return {row["uid"]: row for row in rows}


def _picture(path: Path, size: int) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    except OSError as error:
        raise DataError(f"{path} is damaged: {error}") from error


def _read_wav(path: Path) -> NDArray[np.float32]:
    """16-bit PCM of any rate and channel count as 16 kHz mono."""
    try:
        with wave.open(str(path)) as wav:
            if wav.getsampwidth() != 2:
                raise DataError(f"{path} has {8 * wav.getsampwidth()}-bit samples; convert it to 16-bit PCM")
            rate, channels = wav.getframerate(), wav.getnchannels()
            samples = np.frombuffer(wav.readframes(wav.getnframes()), "<i2")
    except (wave.Error, EOFError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    mono = samples.reshape(-1, channels).mean(axis=1, dtype=np.float32) / 32768
    if rate == SAMPLE_RATE_HZ:
        return mono
    from scipy.signal import resample_poly

    divisor = int(np.gcd(rate, SAMPLE_RATE_HZ))
    resampled: NDArray[np.float32] = resample_poly(mono, SAMPLE_RATE_HZ // divisor, rate // divisor).astype(
        np.float32
    )
    return resampled
