"""The Ref-AVS tree on disk, as its authors publish it and as `python -m train scenes` writes it.

    DIR/metadata.csv                          vid, uid, split, fid, exp
    DIR/media/CLIP/frames/0.jpg .. 9.jpg      one frame a second
    DIR/media/CLIP/audio.wav                  10 s of sound
    DIR/gt_mask/CLIP/fid_F/00000.png ..       the mask of object F in each frame
    DIR/rows.jsonl                            optional: kind of each row, written with generated scenes

A uid is CLIP_CLASS_NUMBER. Rows that nothing fits have clips of their own, whose names begin with `null_c-` (another clip's
sentence) or `null_m-` (the sound is muted); their vid lacks that. A few uids stand twice in the table, 25 rows have `TODO` for
a split, and clips take turns.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .config import PATCH_SAMPLES, SAMPLE_RATE_HZ
from .log_mel import log_mel
from .wav import decode_wav

SPLITS = ("train", "val", "test_s", "test_u", "test_n")
NULL_PREFIXES = ("null_c-", "null_m-")
_COLUMNS = ("vid", "uid", "split", "fid", "exp")
_FRAME_NAME = re.compile(r"(0|[1-9][0-9]{0,5})\.jpg")
_DRAFT_MARGIN = 1.4
"""A JPEG may be decoded at a fraction of its size while that is this many times the wanted one on each side. Of frames of a film
of 1280 x 720 at 256 px, the stretched picture then differs by 0.4 of 255 levels in the mean and by at most 4 in 99.9% of it."""


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
    line: int
    """Of the table, from 1: clips take turns in it."""
    kind: str | None = None
    other_recording: bool = False
    """The object sounds with a recording that training never plays (generated scenes only)."""
    swap_uid: str | None = None
    """A row of the same clip that means another object (generated scenes only)."""

    @property
    def class_name(self) -> str:
        """Of the object, as the uid says it."""
        return self.uid.rsplit("_", 2)[1].replace("-", " ")


@dataclass(frozen=True)
class UnusableRow:
    """A row of the table that means nothing to us."""

    uid: str
    split: str
    line: int
    why: str
    """With the mend."""


@dataclass
class Table:
    """The rows of a data set whose clips are on disk."""

    folder: Path
    rows: list[Row]
    left_out: dict[str, str] = field(default_factory=dict)
    """Clip or uid -> why it is not among the rows: the disk lacks the clip, or the row cannot be read."""

    def by_clip(self) -> Iterator[tuple[str, list[Row]]]:
        """Clips in the order of their first rows, each with all its rows."""
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
        return log_mel_patches(self.samples, len(self.frames), offset_s)


def read_table(folder: Path, split: str | None = None) -> Table:
    """The rows of `metadata.csv` whose clips are on disk, rows marked with no known split left out.

    Raises:
        DataError: the folder, the table or a column is missing, or no row is left.
    """
    rows, left_out = read_rows(folder / "metadata.csv", split)
    media = folder / "media"
    present = {entry.name for entry in os.scandir(media)} if media.is_dir() else set()
    missing = {row.clip: f"{media / row.clip} is missing" for row in rows if row.clip not in present}
    rows = [row for row in rows if row.clip in present]
    if not rows:
        wanted = f"of split {split!r} " if split else ""
        raise DataError(
            f"{folder} has no rows {wanted}with their clips under {media} ({len(missing)} clips missing); "
            "put the clips there or choose another split"
        )
    return Table(folder, rows, missing | left_out)


def read_rows(path: Path, split: str | None = None) -> tuple[list[Row], dict[str, str]]:
    """The usable rows of a table and, by uid, why others of the split are not; what `rows.jsonl` beside it says is taken in.

    Raises:
        DataError: as `parse_table`.
    """
    rows, unusable = parse_table(path)
    wanted = SPLITS if split is None else (split,)
    left_out = {row.uid or f"{path}, line {row.line}": row for row in unusable if row.split in wanted}
    return (
        [row for row in rows if row.split in wanted],
        {name: f"{path}, line {row.line}: {row.why}" for name, row in left_out.items()},
    )


def parse_table(path: Path) -> tuple[list[Row], list[UnusableRow]]:
    """Every row of a table, in order: usable ones, with what `rows.jsonl` says of them, and others, with the reason.

    Expressions keep their case and lose the space around them.

    Raises:
        DataError: the folder, the table, a column or a closing quotation mark is missing, or a file is damaged.
    """
    rows: list[Row] = []
    unusable: list[UnusableRow] = []
    extra = _side_file(path.with_name("rows.jsonl"))
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            lacking = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
            if lacking:
                raise DataError(f"{path} has no column {lacking[0]!r}; it must have {', '.join(_COLUMNS)}")
            for cells in reader:
                line = {name: (cells[name] or "").strip() for name in _COLUMNS}
                if any("\n" in cell for cell in line.values()):
                    raise DataError(
                        f"{path}, line {reader.line_num}: a line break in a cell; close the quotation mark before it"
                    )
                fault = _fault(line, any(cells.get(None) or ()))
                if fault:
                    unusable.append(UnusableRow(line["uid"], line["split"], reader.line_num, fault))
                else:
                    rows.append(_row(line, reader.line_num, extra.get(line["uid"], {})))
    except FileNotFoundError as error:
        if not path.parent.is_dir():
            raise DataError(f"there is no folder {path.parent}") from error
        raise DataError(
            f"{path} is missing; write scenes with: python -m train scenes --out {path.parent} --clips 10"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    return rows, unusable


def frame_path(folder: Path, clip: str, frame: int) -> Path:
    """Where frame number `frame` of a clip is, from 0."""
    return folder / "media" / clip / "frames" / f"{frame}.jpg"


def sound_path(folder: Path, clip: str) -> Path:
    """Where the sound of a clip is."""
    return folder / "media" / clip / "audio.wav"


def mask_path(folder: Path, clip: str, object_id: str, frame: int) -> Path:
    """Where the mask of an object is."""
    return folder / "gt_mask" / clip / f"fid_{object_id}" / f"{frame:05d}.png"


def count_frames(folder: Path, clip: str) -> int:
    """Frames of a clip, up to the last; other files beside them do not count.

    Raises:
        DataError: the folder cannot be listed.
    """
    frames = folder / "media" / clip / "frames"
    try:
        with os.scandir(frames) as entries:
            names = (_FRAME_NAME.fullmatch(entry.name) for entry in entries)
            return max((int(name[1]) + 1 for name in names if name), default=0)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise DataError(f"{frames} cannot be read: {error.strerror}") from error


def read_clip(folder: Path, clip: str, size: int) -> ClipMedia:
    """Frames and sound of a clip, frames stretched to `size`.

    Raises:
        DataError: it has no frames, one between others is missing, or a file is damaged.
    """
    count = count_frames(folder, clip)
    if not count:
        raise DataError(f"{frame_path(folder, clip, 0).parent} has no frames")
    frames = read_frames(folder, clip, range(count), size)
    return ClipMedia(frames, read_sound(sound_path(folder, clip)))


def read_frames(
    folder: Path, clip: str, frames: Sequence[int], size: int, draft: bool = False
) -> NDArray[np.uint8]:
    """Some frames of a clip [T, S, S, 3], stretched to a square of `size`.

    `draft` decodes a large JPEG at half its size or less where the result is about the same (`_DRAFT_MARGIN`).

    Raises:
        DataError: one is missing or damaged.
    """
    out = np.empty((len(frames), size, size, 3), np.uint8)
    at_least = math.ceil(_DRAFT_MARGIN * size)
    for stretched, frame in zip(out, frames, strict=True):
        path = frame_path(folder, clip, frame)
        with _named_faults(path), Image.open(path) as image:
            drafted = image.draft("RGB", (at_least, at_least)) if draft else None
            # The last row and column of a draft may reach over the edge of the picture.
            box = drafted[1] if drafted else None
            picture = image if image.mode == "RGB" else image.convert("RGB")
            stretched[:] = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box))
    return out


def read_mask(path: Path) -> NDArray[np.bool_]:
    """A mask [h, w] at its own size: every pixel that is not black.

    Raises:
        DataError: it is missing or damaged.
    """
    mask: NDArray[np.bool_] = np.asarray(read_picture(path, "L")) > 0
    return mask


def read_picture(path: Path, mode: str) -> Image.Image:
    """A picture, decoded.

    Raises:
        DataError: it is missing or damaged. What is damaged in the middle of a JPEG may be decoded without a complaint.
    """
    with _named_faults(path), Image.open(path) as image:
        image.load()
        return image if image.mode == mode else image.convert(mode)


def read_sound(path: Path) -> NDArray[np.float32] | None:
    """A WAV file of any rate and number of channels as 16 kHz mono; None where there is none.

    Raises:
        DataError: it is damaged, or of a kind that is not read.
    """
    try:
        samples, rate = decode_wav(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    mono = np.ascontiguousarray(samples.mean(axis=1, dtype=np.float32))
    if rate == SAMPLE_RATE_HZ or not len(mono):
        return mono
    from scipy.signal import resample_poly

    divisor = math.gcd(rate, SAMPLE_RATE_HZ)
    resampled = resample_poly(mono, SAMPLE_RATE_HZ // divisor, rate // divisor)
    return np.asarray(resampled, np.float32)


def log_mel_patches(samples: NDArray[np.float32] | None, count: int, offset_s: float) -> NDArray[np.float32]:
    """Log-mel patches [count, 96, 64] of the windows that end `offset_s` after each second 0, 1, .. of `samples` at 16 kHz;
    silence outside of the track and without one."""
    windows = np.zeros((count, PATCH_SAMPLES), np.float32)
    if samples is not None:
        for i, window in enumerate(windows):
            stop = round((i + offset_s) * SAMPLE_RATE_HZ)
            start = max(stop - PATCH_SAMPLES, 0)
            part = samples[start : max(stop, 0)]
            into = start - (stop - PATCH_SAMPLES)
            window[into : into + len(part)] = part
    return log_mel(windows)


@contextlib.contextmanager
def _named_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is damaged: it is no picture") from error
    except Exception as error:  # Pillow raises nearly anything of damaged bytes
        raise DataError(f"{path} is damaged: {str(error) or type(error).__name__}") from error


def _fault(line: dict[str, str], too_many: bool) -> str | None:
    """Why a row cannot be used, with the mend."""
    parts = line["uid"].rsplit("_", 2)
    if line["split"] not in SPLITS:
        return f"its split is {line['split']!r}; write one of {', '.join(SPLITS)}"
    if too_many:
        return "more cells than columns; quote the expression"
    if not line["uid"] or not line["exp"]:
        return "no uid or no expression; write one"
    if len(parts) < 3 or not all(map(_is_name, parts)):
        return f"its uid {line['uid']!r} is not CLIP_CLASS_NUMBER; write it so"
    if not line["uid"].startswith(NULL_PREFIXES) and not _is_name(line["fid"]):
        return f"its fid is {line['fid']!r}; write the number of the object"
    return None


def _is_name(part: str) -> bool:
    """Whether it can be the name of a folder."""
    return part not in ("", ".", "..") and not re.search(r"[/\0]", part)


def _row(line: dict[str, str], number: int, extra: dict[str, Any]) -> Row:
    uid = line["uid"]
    return Row(
        uid=uid,
        clip=uid.rsplit("_", 2)[0],
        split=line["split"],
        object_id=line["fid"],
        text=line["exp"],
        is_null=uid.startswith(NULL_PREFIXES),
        line=number,
        kind=extra.get("kind"),
        other_recording=bool(extra.get("other_recording", False)),
        swap_uid=extra.get("swap_uid"),
    )


def _side_file(path: Path) -> dict[str, dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return {row["uid"]: row for row in rows}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}); without the file all is read but the kinds of rows"
        ) from error
