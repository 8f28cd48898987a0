"""`python -m train data --check DIR`: what of a data set is there, missing, or unreadable."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .data_check import Counts, Fault, Report, check

_SHOWN, _SHOWN_ODD = 20, 5
"""Lines of a list on the screen."""
_OF_THE_TABLE = ("rows", "unusable", "null", "clips")
_OF_THE_DISK = ("there", "missing", "unreadable", "rows_ready")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand `data`."""
    parser = subparsers.add_parser(
        "data",
        help="what of a data set is there, missing, unreadable",
        description="Check a data set in the form of Ref-AVS: every frame, mask and sound that the rows of its table need is "
        "opened and decoded. With the table alone, what the table says.",
        epilog="The exit code is 1 where a clip that is there cannot be read, else 0. Training and evaluation leave out clips "
        "that are missing or unreadable.",
    )
    parser.add_argument(
        "--check", type=Path, required=True, metavar="DIR", help="a data set, or its table metadata.csv"
    )
    parser.add_argument("--fast", action="store_true", help="only look for the files, open none")
    parser.add_argument(
        "--workers", type=_positive, default=None, metavar="N", help="processes; default: one a core"
    )
    parser.add_argument(
        "--json", type=Path, default=None, metavar="OUT", help="write all that was found there as well"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check what `args` names; returns the exit code."""
    with tqdm(unit="clip", desc="check", dynamic_ncols=True, delay=0.5) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = check(args.check, fast=args.fast, workers=args.workers, progress=progress)
    if args.json:
        write_json(report, args.json)
    lines = [*describe(report), *([f"wrote {args.json}"] if args.json else [])]
    encoding = sys.stdout.encoding or "utf-8"
    for line in lines:  # names of files are any bytes, expressions any characters
        print(line.encode(encoding, "backslashreplace").decode(encoding))
    return 1 if report.unreadable else 0


def describe(report: Report) -> Iterator[str]:
    """The lines for the screen."""
    columns = _OF_THE_TABLE + (_OF_THE_DISK if report.has_media else ())
    yield f"{report.table}: {report.total.rows:,} rows"
    yield ""
    yield from _table([*report.splits.items(), ("total", report.total)], columns)
    yield ""
    for title, counts in (
        ("frames", report.pictures),
        ("clips", report.frames),
        ("sound", report.sounds),
    ):
        if counts:
            common = sorted(counts.items(), key=lambda item: -item[1])[:_SHOWN_ODD]
            kinds = (f"{key} ({count:,})" for key, count in common)
            yield f"{title}: {'; '.join(kinds)}"
    if not report.has_media:
        yield f"only the table was checked: there is no {report.table.parent / 'media'}"
    elif report.looked_only:
        yield "files were looked for, not opened"
    if report.strangers:
        yield f"{len(report.strangers):,} folders under media/ are named by no row, the first: {report.strangers[0]}"
    yield from _list("rows that cannot be used", report.unusable, merge=True)
    yield from _list("clips that are missing", report.missing)
    yield from _list("files that cannot be read", report.unreadable)
    yield from _list("odd, but used", report.odd, _SHOWN_ODD)


def write_json(report: Report, out: Path) -> None:
    """Write all that was found, in one move.

    Raises:
        OSError: `out` cannot be written.
    """
    content = dataclasses.asdict(report) | {
        "table": str(report.table),
        "total": dataclasses.asdict(report.total),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    os.replace(partial, out)


def _table(counts: Sequence[tuple[str, Counts]], columns: Sequence[str]) -> Iterator[str]:
    rows = [("split", *(column.replace("_", " ") for column in columns))]
    rows += [(name, *(f"{getattr(c, column):,}" for column in columns)) for name, c in counts]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        numbers = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        yield "  ".join((f"{name:<{widths[0]}}", *numbers))


def _list(title: str, faults: Sequence[Fault], shown: int = _SHOWN, merge: bool = False) -> Iterator[str]:
    if faults:
        lines = _merged(faults) if merge else faults
        yield ""
        yield f"{title}: {len(faults):,}"
        yield from (f"  {fault.split}  {fault.place} {fault.why}" for fault in lines[:shown])
        if len(lines) > shown:
            yield f"  and {len(lines) - shown:,} more; --json OUT writes all"


def _merged(faults: Sequence[Fault]) -> list[Fault]:
    """One for all that have the same reason."""
    first: dict[tuple[str, str], Fault] = {}
    counts = Counter((fault.split, fault.why) for fault in faults)
    for fault in faults:
        first.setdefault((fault.split, fault.why), fault)
    return [
        replace(fault, place=f"{fault.place} and {counts[key] - 1:,} more") if counts[key] > 1 else fault
        for key, fault in first.items()
    ]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number
