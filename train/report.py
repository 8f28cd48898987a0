"""Samples for people: `RUN/samples/` with the sentences that a model understood best and worst; `python -m train report RUN`."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .sheet import LEGEND, sheet
from .validate import NULL, ScoredSample, spread

SAMPLES = "samples"
BEST, WORST, NULLS, TABLE = "best.png", "worst.png", "null.png", "samples.csv"
COUNT = 20
"""Pictures on a sheet, at most."""
_COLUMNS = ("rank", "J", "kind", "clip", "text")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand `report`."""
    parser = subparsers.add_parser(
        "report",
        help="the best and worst samples of a run as pictures",
        description="Validate a run's last checkpoint; write the sentences that it understood best and worst as sheets of "
        "pictures, and all of them as a table.",
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument(
        "--data",
        default=None,
        metavar="scenes:PACK|DIR",
        help="clips of its split val; default: scenes, packed under runs/",
    )
    parser.add_argument("--clips", type=_positive, default=40, metavar="N", help="at most; default 40")
    parser.add_argument(
        "--out", type=Path, default=None, metavar="DIR", help=f"for the sheets; default: RUN/{SAMPLES}"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the sheets that `args` asks for; returns the exit code.

    Raises:
        CheckpointError: the run cannot be read.
        DataError: the data set has no clips to validate on.
        MaterialError, OSError: the scenes cannot be made, or nothing can be written.
    """
    import torch
    from tqdm import tqdm

    from refavs_rt.dataset import DataError
    from refavs_rt.model.run_folder import TOKENIZER, CheckpointError, load_run
    from refavs_rt.tokenizer import Tokenizer

    from .data_source import open_validation
    from .evaluate_cli import shown_warnings
    from .texts import TextCache
    from .validate import validate

    loaded = load_run(args.run_folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = loaded.model.to(device)
    try:
        texts = TextCache(model.text_encoder, Tokenizer(loaded.tokenizer, model.config.text_tokens))
    except ValueError as error:
        raise CheckpointError(f"{args.run_folder / TOKENIZER} is damaged: {error}") from error
    clips = open_validation(args.data, Path("runs"), args.clips, model.config.image_size)
    if not clips:
        raise DataError(f"no clip of the split 'val' of {args.data} can be read")
    out = args.out or args.run_folder / SAMPLES
    out.mkdir(parents=True, exist_ok=True)
    temporal = loaded.training.get("train", {}).get("temporal", "band")
    bar = tqdm(clips, unit="clip", desc="report", dynamic_ncols=True)
    with shown_warnings():
        result = validate(model, texts, bar, device, temporal=temporal)
    written = _write(out, result.samples, args.run_folder.resolve().name)
    for name, value in result.scores.items():
        print(f"{name:<20}{value:.4f}")
    print(f"wrote {', '.join(path.name for path in written)} in {out}")
    return 0


def write_samples(run: Path, samples: list[ScoredSample], step: int) -> None:
    """Write `RUN/samples/`: the sheets `best.png` and `worst.png` of the sentences with the highest and the lowest J, `null.png`
    of those sentences that nothing fits for which the most was shown, and `samples.csv` with all, the best first.

    Each file is replaced in one move; a sheet that would have no picture is removed.

    Args:
        run: the run folder.
        samples: of one validation.
        step: of the run, for the titles.

    Raises:
        OSError: the folder cannot be written.
    """
    _write(run / SAMPLES, samples, f"step {step:,}")


def _write(folder: Path, samples: list[ScoredSample], when: str) -> list[Path]:
    """Returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    mixed = spread(samples)  # of equals, those of many clips come first
    objects, nulls = [s for s in mixed if s.kind != NULL], [s for s in mixed if s.kind == NULL]
    best, worst = sorted(objects, key=lambda s: -s.J), sorted(objects, key=lambda s: s.J)
    most = sorted(nulls, key=lambda s: s.J)
    count, shown = min(COUNT, len(objects)), min(COUNT, len(nulls))
    sheets = (
        (BEST, best[:count], f"The {count} best of {len(objects)} sentences, {when}"),
        (WORST, worst[:count], f"The {count} worst of {len(objects)} sentences, {when}"),
        (
            NULLS,
            most[:shown],
            f"{shown} of {len(nulls)} sentences that nothing fits, most shown first, {when}",
        ),
    )
    for name, chosen, title in sheets:
        if chosen:
            _replace(folder / name, _png(chosen, title))
        else:
            (folder / name).unlink(missing_ok=True)
    _replace(folder / TABLE, _table([*best, *most[::-1]]))
    return [folder / name for name, chosen, _ in sheets if chosen] + [folder / TABLE]


def _png(samples: Sequence[ScoredSample], title: str) -> bytes:
    out = io.BytesIO()
    tiles = [(s.picture, s.heading, s.text) for s in samples]
    Image.fromarray(sheet(tiles, f"{title}    {LEGEND}")).save(out, "PNG")
    return out.getvalue()


def _table(samples: Sequence[ScoredSample]) -> bytes:
    """Ranks count the sentences that mean an object and, by themselves, the others; 1 is the best."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    ranks = {True: 0, False: 0}
    for sample in samples:
        ranks[sample.kind == NULL] += 1
        rank = ranks[sample.kind == NULL]
        writer.writerow([rank, f"{sample.J:.4f}", sample.kind, sample.name, sample.text])
    return out.getvalue().encode()


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
