"""Scenes on disk in the exact form of Ref-AVS, so that whatever reads the one reads the other.

    metadata.csv                          vid, uid, split, fid, exp
    media/<clip>/frames/<i>.jpg           one frame a second, i = 0, 1, ...; frame i at i seconds
    media/<clip>/audio.wav                16 kHz mono PCM16
    gt_mask/<clip>/fid_<f>/0000<i>.png    white on black
    rows.jsonl                            one line a row of the table: what kind it is of (not part of Ref-AVS)

The clip of a row is its uid less the last two parts between underscores. Rows that nothing fits have clips of their own:
`null_c-<vid>` is the clip as it is, `null_m-<vid>` the clip with a silent track.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import wave
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from refavs_rt.config import SAMPLE_RATE_HZ

from ..material import Pack
from .facts import Facts
from .generator import SceneGenerator
from .grammar import Expression, Kind
from .nothing import say_muted
from .scene import Scene

COLUMNS = ("vid", "uid", "split", "fid", "exp")
ROWS_FILE = "rows.jsonl"
SPLIT_SHARES = {"train": 0.69, "val": 0.07, "test_s": 0.11, "test_u": 0.08, "test_n": 0.05}
"""Share of the clips of each split where none is asked for: about the share of its rows in Ref-AVS."""

_NULL_SHARE = 0.09
_ROWS_A_TARGET = 4
_NULL_ROWS = 4
"""Rows of a test_n clip: half of them of the muted clip."""
_JPEG_QUALITY = 92
_MAIN_KINDS: tuple[Kind, ...] = ("name", "sound", "silence")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Row:
    """A row of metadata.csv and what else is known of it."""

    vid: str
    uid: str
    split: str
    fid: int
    expression: Expression
    class_name: str | None
    other_recording: bool
    swap_uid: str | None = None


class DatasetError(Exception):
    """The data set cannot be written where it should be."""


def write_dataset(
    out: Path,
    pack: Pack,
    *,
    clips: int,
    seed: int,
    split: str | None = None,
    seconds: float = 10,
    size: tuple[int, int] = (360, 640),
    progress: Progress | None = None,
) -> Path:
    """Write `clips` clips into the new or empty folder `out`.

    Args:
        split: the split of all clips; None mixes them in the shares of `SPLIT_SHARES`.
        seconds: length of a clip; it has one frame a second.
        size: (height, width) of the frames.
        progress: called with (done, total); by default a line on stderr.

    Each clip appears whole: its folders are renamed into place, then its rows are added to the table.

    Raises:
        DatasetError: the folder is not empty, or cannot be made.
        ValueError: the split is unknown or a number is out of range.
    """
    if clips < 1:
        raise ValueError(f"a data set has at least 1 clip, not {clips}")
    if min(size) < 32:
        raise ValueError(f"frames have at least 32 pixels a side, not {size[1]}x{size[0]}")
    out = Path(out)
    splits = [split] * clips if split else _mixed(clips, seed)
    generators = {
        name: SceneGenerator(pack, name, seed=seed, seconds=seconds) for name in dict.fromkeys(splits)
    }
    _make_folder(out)
    (out / "LICENCES.txt").write_text(_LICENCES, "utf-8")
    with (
        (out / "metadata.csv").open("w", newline="", encoding="utf-8") as table,
        (out / ROWS_FILE).open("w", encoding="utf-8") as side,
    ):
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        count: Counter[str] = Counter()
        for done, name in enumerate(splits):
            scene = generators[name].scene(count[name])
            vid = f"scene-{seed}-{name.replace('_', '-')}-{count[name]:05d}_0_{round(seconds * 1000)}"
            count[name] += 1
            rows = _write_clip(out, vid, scene, size)
            for row in rows:
                writer.writerow([row.vid, row.uid, row.split, row.fid, row.expression.text])
                side.write(json.dumps(_side_line(row)) + "\n")
            table.flush()
            side.flush()
            (progress or _print_progress)(done + 1, clips)
    return out


def require_empty(out: Path) -> None:
    """Refuse a folder that has something in it, or a file.

    Raises:
        DatasetError: it says so.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DatasetError(f"{out} is not an empty folder: choose another --out, or empty it")
    except OSError as error:
        raise DatasetError(f"cannot read {out}: {error.strerror}") from error


def rows_of(vid: str, scene: Scene) -> list[Row]:
    """The rows that are written of a scene: up to four of each object that can be told, and some that fit nothing."""
    rng = np.random.default_rng((*scene.key, 2))
    expressions = scene.expressions()
    numbers: Counter[str] = Counter()
    rows: list[Row] = []
    for target, item in enumerate(scene.objects):
        name = item.class_name.replace(" ", "-").replace("_", "-")
        for expression in _choose([e for e in expressions if e.target == target], rng):
            numbers[name] += 1
            uid = f"{vid}_{name}_{numbers[name]}"
            rows.append(Row(vid, uid, scene.split, target, expression, item.class_name, item.other_recording))
    rows = [_with_swap(row, rows, rng) for row in rows]
    return rows + _null_rows(vid, scene, len(rows), rng)


def _choose(expressions: list[Expression], rng: np.random.Generator) -> list[Expression]:
    """One of each main kind that there is, the rest of other kinds, each kind as likely as another."""
    by_kind: dict[str, list[Expression]] = {}
    for i in rng.permutation(len(expressions)).tolist():
        by_kind.setdefault(expressions[i].kind, []).append(expressions[i])
    chosen = [by_kind.pop(kind)[0] for kind in _MAIN_KINDS if kind in by_kind]
    kinds = list(by_kind)
    for i in rng.permutation(len(kinds)).tolist():
        if len(chosen) < _ROWS_A_TARGET:
            chosen.append(by_kind[kinds[i]][0])
    return chosen


def _null_rows(vid: str, scene: Scene, others: int, rng: np.random.Generator) -> list[Row]:
    if scene.split == "test_n":
        count, muted_count = _NULL_ROWS - _NULL_ROWS // 2, _NULL_ROWS // 2
    else:
        wanted = others * _NULL_SHARE / (1 - _NULL_SHARE)
        count, muted_count = int(wanted + rng.random()), 0
        if count and rng.random() < 0.4:
            count, muted_count = count - 1, 1
    null = [e for e in scene.expressions() if e.kind == "null"]
    kept = [null[i] for i in rng.permutation(len(null))[:count]]
    rows = []
    for prefix, expressions in (("null_c-", kept), ("null_m-", say_muted(Facts(scene), rng, muted_count))):
        for n, expression in enumerate(expressions):
            rows.append(Row(vid, f"{prefix}{vid}_null_{n + 1}", scene.split, 0, expression, None, False))
    return rows


def _with_swap(row: Row, rows: list[Row], rng: np.random.Generator) -> Row:
    """With the uid of a row that means another object, by its name if there is one: to see that the sentence decides."""
    others = [r for r in rows if r.fid != row.fid]
    others = [r for r in others if r.expression.kind == "name"] or others
    if not others:
        return row
    swap = others[rng.integers(len(others))].uid
    return Row(
        row.vid, row.uid, row.split, row.fid, row.expression, row.class_name, row.other_recording, swap
    )


def _write_clip(out: Path, vid: str, scene: Scene, size: tuple[int, int]) -> list[Row]:
    rows = rows_of(vid, scene)
    times = np.arange(int(scene.seconds), dtype=np.float64)
    frames, masks = scene.render(times, size)
    track = np.round(scene.waveform() * 32767).astype(np.int16)
    partial = out / f".{vid}.partial"
    clips: dict[str, set[int]] = {}
    for row in rows:
        clips.setdefault(row.uid.rsplit("_", 2)[0], set()).add(row.fid)
    source: Path | None = None
    for clip, fids in clips.items():
        null = clip != vid
        folder = partial / "media" / clip
        _write_frames(folder / "frames", frames, source)
        source = source or folder / "frames"
        _write_wave(folder / "audio.wav", np.zeros_like(track) if clip.startswith("null_m-") else track)
        for fid in sorted(fids):
            shown = np.zeros_like(masks[:, 0]) if null else masks[:, fid]
            _write_masks(partial / "gt_mask" / clip / f"fid_{fid}", shown)
    for clip in clips:
        for part in ("gt_mask", "media"):
            (partial / part / clip).rename(out / part / clip)
    shutil.rmtree(partial, ignore_errors=True)
    return rows


def _write_frames(folder: Path, frames: NDArray[np.uint8], source: Path | None) -> None:
    """The frames as JPEG; linked where another clip has the same ones."""
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        path = folder / f"{i}.jpg"
        if source is not None:
            try:
                os.link(source / path.name, path)
                continue
            except OSError:  # a file system without hard links
                pass
        Image.fromarray(frame).save(path, quality=_JPEG_QUALITY)


def _write_wave(path: Path, track: NDArray[np.int16]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(track.astype("<i2").tobytes())


def _write_masks(folder: Path, masks: NDArray[np.bool_]) -> None:
    folder.mkdir(parents=True)
    for i, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{i:05d}.png", optimize=False)


def _side_line(row: Row) -> dict[str, object]:
    return {
        "uid": row.uid,
        "split": row.split,
        "kind": row.expression.kind,
        "detail": row.expression.detail,
        "class": row.class_name,
        "other_recording": row.other_recording,
        "swap_uid": row.swap_uid,
    }


def _mixed(clips: int, seed: int) -> list[str]:
    """A split for each clip, in the given shares, in a seeded order; from 5 clips on each split has one."""
    names = list(SPLIT_SHARES)
    shares = np.array([SPLIT_SHARES[name] for name in names])
    counts = np.floor(shares * clips).astype(int)
    if clips >= len(names):
        counts = np.maximum(counts, 1)
    while counts.sum() < clips:
        counts[np.argmax(shares * clips - counts)] += 1
    while counts.sum() > clips:
        counts[np.argmax(counts)] -= 1
    row = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
    return [row[i] for i in np.random.default_rng((seed, 3)).permutation(clips)]


def _make_folder(out: Path) -> None:
    require_empty(out)
    try:
        for part in ("media", "gt_mask"):
            (out / part).mkdir(parents=True)
    except OSError as error:
        raise DatasetError(f"cannot write to {out}: {error.strerror}") from error


def _print_progress(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\rscenes: {done}/{total} clips", end=end, file=sys.stderr, flush=True)


_LICENCES = """\
These clips are composed of free pictures and sounds. They are not Ref-AVS, and results on them are not Ref-AVS results.
Pictures and sounds of things: tuxpaint-stamps-default, GPL-2 or later.
Backgrounds and further recordings: gcompris-qt-data, GPL-3 or later.
Instruments: TimGM6mb.sf2 (GPL-2 or later) and FluidR3_GM.sf2 (MIT).
So the clips as a whole may be passed on under the GPL, version 3 or later.
"""
