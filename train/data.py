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
    line: int
    """Of the table: clips may take turns in it."""
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
    """The rows of `metadata.csv` whose clips are on disk, rows marked with no known split left out.

    Raises:
        DataError: the folder, the table or a column is missing, or no row is left.
    """
    rows, left_out = read_rows(folder / "metadata.csv", split)
    media = folder / "media"
    present = {p.name for p in media.iterdir()} if media.is_dir() else set()
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
        DataError: the table, a column or a closing quotation mark is missing, or a file is damaged.
    """
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    extra = _side_file(path.with_name("rows.jsonl"))
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            lacking = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
            if lacking:
                raise DataError(f"{path} has no column {lacking[0]!r}; it must have {', '.join(_COLUMNS)}")
            for cells in reader:
                line = {name: (cells[name] or "").strip() for name in _COLUMNS}
                place = f"{path}, line {reader.line_num}"
                if any("\n" in cell for cell in line.values()):
                    raise DataError(f"{place}: a line break in a cell; close the quotation mark before it")
                if line["split"] not in SPLITS or split not in (None, line["split"]):
                    continue
                if any(cells.get(None) or ()):
                    left_out[line["uid"]] = f"{place}: more cells than columns; quote the expression"
                elif not line["uid"] or not line["exp"]:
                    left_out[line["uid"] or place] = f"{place}: no uid or no expression; write one"
                else:
                    rows.append(_row(line, reader.line_num, extra.get(line["uid"], {})))
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing; write scenes with: python -m train scenes --out {path.parent} --clips 10"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    return rows, left_out


def count_frames(folder: Path, clip: str) -> int:
    """Frames of a clip, up to the last; other files beside them do not count."""
    numbers = (p.stem for p in (folder / "media" / clip / "frames").glob("*.jpg"))
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)


def read_clip(folder: Path, clip: str, size: int) -> ClipMedia:
    """Frames and sound of a clip, frames stretched to `size`.

    Raises:
        DataError: it has no frames, one between others is missing, or a file is damaged.
    """
    media = folder / "media" / clip
    count = count_frames(folder, clip)
    if not count:
        raise DataError(f"{media / 'frames'} has no frames")
    frames = []
    for i in range(count):
        picture = _picture(media / "frames" / f"{i}.jpg", "RGB")
        frames.append(np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)))
    sound = media / "audio.wav"
    return ClipMedia(np.stack(frames), _read_wav(sound) if sound.exists() else None)


def read_masks(folder: Path, row: Row, count: int) -> NDArray[np.bool_]:
    """The truth of an expression [T, 256, 256]; empty for null expressions.

    Raises:
        DataError: a mask is missing or damaged.
    """
    if row.is_null:
        return np.zeros((count, 256, 256), bool)
    masks = folder / "gt_mask" / row.clip / f"fid_{row.object_id}"
    return np.stack([truth_mask(np.asarray(_picture(masks / f"{i:05d}.png", "L"))) for i in range(count)])


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


def _picture(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # PIL says SyntaxError of a broken PNG
        raise DataError(f"{path} is damaged: {error}") from error


def _read_wav(path: Path) -> NDArray[np.float32]:
    """16-bit PCM of any rate and channel count as 16 kHz mono."""
    try:
        with wave.open(str(path)) as wav:
            bits, rate, channels = 8 * wav.getsampwidth(), wav.getframerate(), wav.getnchannels()
            count = wav.getnframes()
            data = wav.readframes(count)
    except (wave.Error, EOFError, OSError) as error:
        reason = str(error) or "it ends too early"
        raise DataError(f"{path} cannot be read: {reason}; it must be 16-bit PCM") from error
    if bits != 16:
        raise DataError(f"{path} has {bits}-bit samples; convert it to 16-bit PCM")
    if len(data) != 2 * channels * count or rate < 1:
        raise DataError(f"{path} is damaged: {len(data)} bytes of sound, not {2 * channels * count}")
    samples = np.frombuffer(data, "<i2").reshape(-1, channels)
    mono = samples.mean(axis=1, dtype=np.float32) / 32768
    if rate == SAMPLE_RATE_HZ or not len(mono):
        return mono
    from scipy.signal import resample_poly

    divisor = int(np.gcd(rate, SAMPLE_RATE_HZ))
    resampled = resample_poly(mono, SAMPLE_RATE_HZ // divisor, rate // divisor)
    return np.asarray(resampled, np.float32)
