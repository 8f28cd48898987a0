"""What of a data set in the form of Ref-AVS is there, missing, or unreadable, by split: every file that training and evaluation
read is opened and decoded. It works with the table alone, too."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from refavs_rt.dataset import (
    SPLITS,
    DataError,
    Row,
    UnusableRow,
    count_frames,
    frame_path,
    mask_path,
    parse_table,
    read_picture,
    sound_path,
)
from refavs_rt.wav import decode_wav

USUAL_FRAMES = 10
"""Of a clip of Ref-AVS."""
_TABLE = "metadata.csv"
_SPAWN_FROM = 50
"""Clips from which worker processes are worth their start."""

_J = TypeVar("_J")
_F = TypeVar("_F")
Progress = Callable[[int, int], None]
"""Called with (clips done, clips in all)."""


@dataclass(frozen=True)
class Fault:
    """A file, a folder or a row of the table, and what there is to say of it."""

    split: str
    clip: str
    place: str
    """The file's place in the data set, or `line N`."""
    why: str
    """It reads on after `place`."""


@dataclass
class Counts:
    """Of one split, or of all."""

    rows: int = 0
    unusable: int = 0
    """Rows that mean nothing to us, as those marked TODO."""
    null: int = 0
    """Usable rows that nothing in their clip fits."""
    clips: int = 0
    """Clips that usable rows name."""
    there: int = 0
    """Clips whose folder is on disk, readable or not."""
    missing: int = 0
    unreadable: int = 0
    """Clips of which at least one file is missing or damaged."""
    rows_ready: int = 0
    """Usable rows of clips that are there and readable."""


@dataclass
class Report:
    """What a check found."""

    table: Path
    has_media: bool
    """False where there is only a table: then nothing is said about files."""
    looked_only: bool
    """Files were looked for, not opened."""
    splits: dict[str, Counts] = field(default_factory=dict)
    unusable: list[Fault] = field(default_factory=list)
    missing: list[Fault] = field(default_factory=list)
    unreadable: list[Fault] = field(default_factory=list)
    """The files."""
    odd: list[Fault] = field(default_factory=list)
    """What is used all the same, but should be known."""
    pictures: dict[str, int] = field(default_factory=dict)
    """Clips by the size of their frames."""
    frames: dict[str, int] = field(default_factory=dict)
    """Clips by the number of their frames."""
    sounds: dict[str, int] = field(default_factory=dict)
    """Clips by the form of their sound."""
    strangers: list[str] = field(default_factory=list)
    """Folders under media/ that no row names."""

    @property
    def total(self) -> Counts:
        """Over all splits."""
        names = vars(Counts())
        return Counts(**{n: sum(getattr(counts, n) for counts in self.splits.values()) for n in names})


@dataclass(frozen=True)
class _Job:
    """A clip that is on disk, and the objects whose masks it must have."""

    split: str
    clip: str
    object_ids: tuple[str, ...]


@dataclass
class _Findings:
    """What was found in a clip."""

    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(place, why)"""
    odd: list[tuple[str, str]] = field(default_factory=list)
    frames: int = 0
    picture: str = ""
    sound: str = ""


def check(
    path: Path, *, fast: bool = False, workers: int | None = None, progress: Progress | None = None
) -> Report:
    """Check the data set in the folder `path`, or a table alone.

    Args:
        path: a data set, a folder with nothing but `metadata.csv`, or a table itself.
        fast: look for files only, open none.
        workers: processes that open files; None: as many as there are cores.

    Raises:
        DataError: the table cannot be read, or a worker process has died.
    """
    table = path if path.is_file() else path / _TABLE
    folder = table.parent
    rows, unusable = parse_table(table)
    has_media = not path.is_file() and (folder / "media").is_dir()
    report = Report(table, has_media, fast)
    _count_rows(report, rows, unusable)
    report.odd += _odd_rows(rows)
    if has_media:
        _check_clips(report, folder, rows, workers or len(os.sched_getaffinity(0)), progress)
    return report


def _count_rows(report: Report, rows: Sequence[Row], unusable: Sequence[UnusableRow]) -> None:
    marks = [row.split for row in rows] + [row.split for row in unusable]
    for split in (*SPLITS, *sorted(set(marks).difference(SPLITS))):
        report.splits[split] = Counts(rows=marks.count(split))
    for row in rows:
        report.splits[row.split].null += row.is_null
    for split, count in Counter(split for split, _ in {(row.split, row.clip) for row in rows}).items():
        report.splits[split].clips = count
    for bad in unusable:
        report.splits[bad.split].unusable += 1
        report.unusable.append(Fault(bad.split, bad.uid, f"line {bad.line}", f"cannot be used: {bad.why}"))


def _odd_rows(rows: Sequence[Row]) -> Iterator[Fault]:
    """Uids that stand twice, objects of two classes, clips in two splits, expressions that are an error message."""
    uids = Counter(row.uid for row in rows)
    classes: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.clip].add(row.split)
        if not row.is_null:
            classes[row.clip, row.object_id].add(row.class_name)
    seen: set[object] = set()

    def once(key: object) -> bool:
        is_new = key not in seen
        seen.add(key)
        return is_new

    for row in rows:
        say = partial(Fault, row.split, row.clip, f"line {row.line}")
        if uids[row.uid] > 1 and once(row.uid):
            yield say(f"has the uid {row.uid}, as {uids[row.uid] - 1} more")
        named = classes[row.clip, row.object_id]
        if not row.is_null and len(named) > 1 and once((row.clip, row.object_id)):
            yield say(
                f"has an object, {row.object_id}, that is {' and '.join(sorted(named))}: its class is ignored"
            )
        if len(splits[row.clip]) > 1 and once(row.clip):
            yield say(f"has a clip that is in the splits {' and '.join(sorted(splits[row.clip]))}")
        if row.text.lower().startswith("[error]"):
            yield say(f"has an error message for an expression: {row.text}")


def _check_clips(
    report: Report, folder: Path, rows: Sequence[Row], workers: int, progress: Progress | None
) -> None:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.split, row.clip), []).append(row)
    present = {entry.name for entry in os.scandir(folder / "media") if entry.is_dir()}
    report.strangers = sorted(present - {clip for _, clip in groups})
    jobs = []
    for (split, clip), of_clip in groups.items():
        if clip in present:
            ids = dict.fromkeys(row.object_id for row in of_clip if not row.is_null)
            jobs.append(_Job(split, clip, tuple(ids)))
            report.splits[split].there += 1
        else:
            report.splits[split].missing += 1
            report.missing.append(Fault(split, clip, f"media/{clip}", "is missing"))
    look = partial(_look, folder, report.looked_only)
    for done, (job, findings) in enumerate(zip(jobs, _run(look, jobs, workers), strict=True), start=1):
        report.unreadable += [Fault(job.split, job.clip, *found) for found in findings.unreadable]
        report.odd += [Fault(job.split, job.clip, *found) for found in findings.odd]
        counts = report.splits[job.split]
        if findings.unreadable:
            counts.unreadable += 1
        else:
            counts.rows_ready += len(groups[job.split, job.clip])
        for counter, key in (
            (report.pictures, findings.picture),
            (report.frames, f"{findings.frames} frames"),
            (report.sounds, findings.sound),
        ):
            if key:
                counter[key] = counter.get(key, 0) + 1
        if progress:
            progress(done, len(jobs))


def _run(look: Callable[[_J], _F], jobs: Sequence[_J], workers: int) -> Iterator[_F]:
    """`look` at all jobs, in order, in processes of their own where there are many."""
    if workers < 2 or len(jobs) < _SPAWN_FROM:
        yield from map(look, jobs)
        return
    # Spawned, not forked: whoever calls may have threads.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _leave_interrupts)
    try:
        yield from pool.map(look, jobs, chunksize=4)
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that opens files has died ({error}); is there too little memory? Give fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """Ctrl-C is the main process's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _look(folder: Path, looked_only: bool, job: _Job) -> _Findings:
    """Look at, or into, all files of a clip."""
    findings = _Findings()
    place = f"media/{job.clip}/frames"
    try:
        findings.frames = count_frames(folder, job.clip)
    except DataError as error:
        findings.unreadable.append((place, _reason(error, folder / place)))
        return findings
    if not findings.frames:
        findings.unreadable.append((place, "has no frames"))
        return findings
    if findings.frames != USUAL_FRAMES:
        findings.odd.append((place, f"has {findings.frames} frames, not {USUAL_FRAMES}"))
    frames = [frame_path(folder, job.clip, i) for i in range(findings.frames)]
    sizes = _sizes(folder, frames, "RGB", looked_only, findings)
    findings.picture = " and ".join(sizes)
    if len(sizes) > 1:
        findings.odd.append((place, f"has frames of {findings.picture}"))
    for fid in job.object_ids:
        masks = [mask_path(folder, job.clip, fid, i) for i in range(findings.frames)]
        place = _place(masks[0].parent, folder)
        if not masks[0].parent.is_dir():
            findings.unreadable.append((place, "is missing"))
            continue
        of_masks = _sizes(folder, masks, "L", looked_only, findings)
        if not looked_only and not of_masks.keys() <= sizes.keys():
            findings.odd.append(
                (place, f"has masks of {' and '.join(of_masks)}, frames are {findings.picture}")
            )
        if of_masks and not any(of_masks.values()):
            findings.odd.append((place, "has no mask that is not empty"))
    _listen(folder, sound_path(folder, job.clip), looked_only, findings)
    return findings


def _sizes(
    folder: Path, paths: Sequence[Path], mode: str, looked_only: bool, findings: _Findings
) -> dict[str, bool]:
    """Open pictures; by size, in order, whether any of them is not black. None where they are only looked for."""
    sizes: dict[str, bool] = {}
    for path in paths:
        if looked_only:
            if not path.is_file():
                findings.unreadable.append((_place(path, folder), "is missing"))
            continue
        try:
            picture = read_picture(path, mode)
        except DataError as error:
            findings.unreadable.append((_place(path, folder), _reason(error, path)))
            continue
        size = f"{picture.width}x{picture.height}"
        sizes[size] = sizes.get(size, False) or picture.getbbox() is not None
    return dict(sorted(sizes.items()))


def _listen(folder: Path, path: Path, looked_only: bool, findings: _Findings) -> None:
    place = _place(path, folder)
    if not path.is_file():
        findings.sound = "no file"
        findings.odd.append((place, "is missing: the clip has no track"))
        return
    if looked_only:
        return
    try:
        samples, rate = decode_wav(path.read_bytes())
    except (OSError, ValueError) as error:
        findings.unreadable.append((place, f"cannot be read: {error}"))
        return
    seconds = len(samples) / rate
    findings.sound = f"{rate} Hz, {samples.shape[1]} channels"
    if abs(seconds - findings.frames) > 1:
        findings.odd.append((place, f"has {seconds:.1f} s of sound for {findings.frames} frames"))


def _place(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _reason(error: DataError, path: Path) -> str:
    """What is said of a file, without its name."""
    return str(error).removeprefix(f"{path} ")
