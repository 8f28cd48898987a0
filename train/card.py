"""`python -m train card`: the model card as a page, with every figure measured, and pictures of what goes well and what does not.

OUT/model-card.md                 what the model is, how good, on what; what a person wrote in it stays
OUT/model-card-scenes.jpg         sentences about scenes: the five best, the five worst, ten by chance
OUT/model-card-photographs.jpg    every photograph, asked for what is on it
OUT/experiments/scorecard.*, photographs.*    all figures with their intervals
RUN/evaluation/card.json          of a run: what its bundle's own card will say
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .sheet import LEGEND, overlay, sheet

if TYPE_CHECKING:
    from .ablate.bootstrap import Comparison
    from .ablate.observation import Context
    from .ablate.scorecard import Scored
    from .predict import Predictor

PAGE, SCENES, PHOTOGRAPHS, FIGURES = (
    "model-card.md",
    "model-card-scenes.jpg",
    "model-card-photographs.jpg",
    "card.json",
)
EXTREMES, BY_CHANCE = 5, 10
_LOOKED_AT = 60
"""Scenes from which the pictures come."""
_QUALITY = 82
_ABOUT_SOUND = "about a sound"
_ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("all kinds of sentence", "scorecard", "seen classes", "all"),
    ("by name", "scorecard", "seen classes", "name"),
    ("by who sounds", "scorecard", "seen classes", "sound"),
    ("by who sounds, recordings of another making", "scorecard", "seen classes", "sound, other recordings"),
    ("by who does not sound", "scorecard", "seen classes", "silence"),
    ("by place", "scorecard", "seen classes", "place"),
    ("by order and duration", "scorecard", "seen classes", "order"),
    ("by motion", "scorecard", "seen classes", "motion"),
    ("by loudness", "scorecard", "seen classes", "loudness"),
    ("by two of these together", "scorecard", "seen classes", "combination"),
    ("of 2 objects", "scorecard", "seen classes", "2 objects"),
    ("of 3 objects", "scorecard", "seen classes", "3 objects"),
    ("of 4 objects", "scorecard", "seen classes", "4 objects"),
    ("about a sound", "scorecard", "seen classes", _ABOUT_SOUND),
    ("about a sound, with the sound off (less is better)", "scorecard", "muted", _ABOUT_SOUND),
    ("about a sound, while it sounds", "scorecard", "seen classes", "while it sounds"),
    ("about a sound, 1 or 2 s after it", "scorecard", "seen classes", "1 or 2 s after"),
    ("about a sound, 3 s and more after it", "scorecard", "seen classes", "3 s and more after"),
    ("with another object's sentence (less is better)", "scorecard", "another's sentence", "all"),
    ("classes never trained on, by name", "scorecard", "classes never trained", "name"),
    ("photographs, by name", "photographs", "still", "by name"),
    ("photographs, by name, under a slow pan", "photographs", "panned", "by name"),
    ("photographs, by a name never trained on", "photographs", "still", "by a name never trained"),
    ("photographs, by the animal's own sound", "photographs", "still", "by its sound"),
)  # fmt: skip
"""What it is called, the experiment, its condition and its group: J, of which more is better but where it says so."""
_SHOWN: tuple[tuple[str, str, str, str], ...] = (
    ("nothing fits", "scorecard", "nothing fits", "S, nothing fits"),
    ("nothing fits, but its like is there", "scorecard", "nothing fits", "S, its like is there"),
)
"""The same of S, of which less is better."""


@dataclass(frozen=True)
class Figure:
    """A line of the card."""

    what: str
    measure: str
    mean: float
    low: float | None
    high: float | None
    expressions: int

    @property
    def row(self) -> str:
        """Of a table in Markdown."""
        interval = "" if self.low is None or self.high is None else f"{self.low:.2f} to {self.high:.2f}"
        return f"| {self.what} | {self.measure} | {self.mean:.3f} | {interval} | {self.expressions} |"


@dataclass(frozen=True, eq=False)
class Tile:
    """One sentence, answered."""

    value: float
    picture: NDArray[np.uint8]
    heading: str
    text: str
    clip: str


def add_parser(subparsers: Any) -> None:
    """Add the subcommand `card`."""
    parser = subparsers.add_parser("card", help="the model card: every figure measured, and pictures")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--bundle", metavar="BUNDLE|edge", help="through the shipped runtime; default: edge")
    what.add_argument("--checkpoint", type=Path, metavar="RUN", help="through torch")
    parser.add_argument(
        "--pack", type=Path, metavar="FILE", help="of scenes; default: runs/scenes.pack, built once"
    )
    parser.add_argument("--clips", type=int, default=500, metavar="N", help="scenes; default: %(default)s")
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="default: all cores")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default: docs for the embedded bundle; RUN/evaluation for a run; the bundle's folder with .card for another",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and write; returns the exit code.

    Raises:
        BundleError, CheckpointError, EngineError: the model cannot be run.
        DataError: there are no outlines, or nothing can be written.
        MaterialError: there is no pack of scenes.
    """
    from refavs_rt.config import RunConfig
    from refavs_rt.dataset import DataError

    from .ablate.cli import carry_out, model_line
    from .ablate.table import read_reading
    from .checkpoint import write_json
    from .evaluate_cli import check_writable
    from .photographs import OUTLINES

    out, title = _place(args)
    for name in (PAGE, SCENES, PHOTOGRAPHS):
        check_writable(out / name, "--out")
    read_reading(out / PAGE)  # what cannot be done fails now, not after an hour
    if not OUTLINES.is_file():
        raise DataError(f"{OUTLINES} is missing here: run it in a checkout of the project")
    flags = ["--out", str(out / "experiments")]
    for name in ("bundle", "checkpoint", "pack", "threads"):
        if getattr(args, name) is not None:
            flags += [f"--{name}", str(getattr(args, name))]
    found: dict[str, list[Comparison]] = {}
    context, found["scorecard"] = carry_out("scorecard", [*flags, "--clips", str(args.clips)])
    seen, found["photographs"] = carry_out("photographs", flags)
    figures = list(_figures(found))
    predictor = context.predictor(RunConfig())
    (out / SCENES).write_bytes(_jpeg(_scenes(predictor, context), f"Scenes    {LEGEND}", 5))
    (out / PHOTOGRAPHS).write_bytes(_jpeg(_photographs(predictor, seen), f"Photographs    {LEGEND}", 5))
    (out / PAGE).write_text(card_page(figures, out / PAGE, title, model_line(context)), "utf-8")
    if args.checkpoint:
        folder = args.checkpoint / "evaluation"
        folder.mkdir(exist_ok=True)
        write_json(folder / FIGURES, [figure.__dict__ for figure in figures])
    print("\n".join(figure.row for figure in figures))
    print(f"wrote {out / PAGE} and its pictures")
    return 0


def _place(args: argparse.Namespace) -> tuple[Path, str]:
    """Where the card goes, and its title."""
    if args.checkpoint:
        return args.out or args.checkpoint / "evaluation", f"Model card: the run `{args.checkpoint.name}`"
    if args.bundle not in (None, "edge"):
        bundle = Path(args.bundle)
        return args.out or bundle.with_name(bundle.name + ".card"), f"Model card: the bundle `{bundle.name}`"
    return args.out or Path("docs"), "Model card: the default model `edge`"


def card_page(figures: Sequence[Figure], page: Path, title: str, model: str) -> str:
    """The card in Markdown; what a person wrote on the earlier `page`, between its marks, is kept.

    Args:
        figures: its lines.
        page: the earlier one, which need not be there.
        title: its heading.
        model: which weights were measured.

    Raises:
        DataError: the earlier page has lost one of the marks.
    """
    from .ablate.table import BEGIN, END, read_reading

    return "\n".join(
        [
            f"# {title}",
            "",
            BEGIN,
            read_reading(page),
            END,
            "",
            "## How good it is",
            "",
            "J is the mean intersection over union with the truth, over the frames in which the object is to be seen and can be "
            "known to be meant; S is the root of the share of the pixels that are marked where nothing fits. Both at 256 x 256 "
            f"pixels with the presence gate. Measured: {model}. Intervals of 95% are over clips. All figures: "
            "[scorecard](experiments/scorecard.md), [photographs](experiments/photographs.md).",
            "",
            "| sentences | measure | mean | 95% interval | expressions |",
            "| --- | --- | ---: | --- | ---: |",
            *(figure.row for figure in figures),
            "",
            "## What it looks like",
            "",
            f"Sentences about scenes that training never draws, of classes and cut-outs that it does: first the {EXTREMES} best "
            f"of the first {_LOOKED_AT} scenes, then the {EXTREMES} worst, then {BY_CHANCE} drawn by chance.",
            "",
            f"![Sentences about scenes]({SCENES})",
            "",
            "Photographs, never trained on, each asked for what is on it (of gcompris-qt-data, GPL-3+, outlined by hand).",
            "",
            f"![Photographs]({PHOTOGRAPHS})",
            "",
        ]
    )


def _figures(found: dict[str, list[Comparison]]) -> Iterator[Figure]:
    cells = {(name, c.condition, c.group): c for name, each in found.items() for c in each}
    for measure, rows in (("J", _ROWS), ("S", _SHOWN)):
        for what, *cell in rows:
            c = cells.get((cell[0], cell[1], cell[2]))
            if c is not None:
                e = c.estimate
                yield Figure(what, measure, e.mean, e.low, e.high, c.expressions)


def _scenes(predictor: Predictor, context: Context) -> list[Tile]:
    """The best, the worst, and some by chance, each of another scene."""
    from .ablate.scorecard import scored
    from .scenes import SceneGenerator

    generator = SceneGenerator(context.pack(), "test_s", seed=context.seed)
    clips = (scored(generator.scene(number), predictor.image_size) for number in range(_LOOKED_AT))
    tiles = [tile for clip in clips if clip is not None for tile in _tiles(predictor, clip)]
    ranked = sorted(tiles, key=lambda tile: -tile.value)
    best = _of_many_clips(ranked, EXTREMES)
    worst = _of_many_clips(ranked[::-1], EXTREMES)
    others = [tile for tile in tiles if tile not in best and tile not in worst]
    order = np.random.default_rng(0).permutation(len(others))
    return [*best, *worst, *_of_many_clips([others[i] for i in order], BY_CHANCE)]


def _tiles(predictor: Predictor, clip: Scored) -> Iterator[Tile]:
    from .ablate.scorecard import answered

    for expression, frames, shown, truth, values in answered(predictor, clip):
        tick = int(np.argsort(values)[(len(values) - 1) // 2])
        value = float(values.mean())
        yield Tile(
            value,
            overlay(frames[tick], shown[tick], truth[tick]),
            f"J {value:.2f} · {expression.kind}",
            expression.text,
            clip.name,
        )


def _of_many_clips(tiles: Sequence[Tile], count: int) -> list[Tile]:
    """The first `count`, one of a clip."""
    first: dict[str, Tile] = {}
    for tile in tiles:
        first.setdefault(tile.clip, tile)
    return list(first.values())[:count]


def _photographs(predictor: Predictor, context: Context) -> list[Tile]:
    from .ablate.photographs import BY_NAME, BY_NEW_NAME, STILL, answers
    from .photographs import read_photographs

    pack = context.pack()
    found, _ = read_photographs(context.options.outlines, pack)
    tiles = []
    for photograph in found:
        for answer in answers(predictor, pack, photograph):
            if answer.condition != STILL or answer.question.group not in (BY_NAME, BY_NEW_NAME):
                continue
            tick = len(answer.shown) // 2
            new = " · never trained on" if answer.question.group == BY_NEW_NAME else ""
            picture = overlay(answer.frames[tick], answer.shown[tick], answer.truth[tick])
            tiles.append(
                Tile(
                    answer.value, picture, f"J {answer.value:.2f}{new}", answer.question.text, photograph.name
                )
            )
    return sorted(tiles, key=lambda tile: -tile.value)


def _jpeg(tiles: Sequence[Tile], title: str, columns: int) -> bytes:
    page = sheet([(tile.picture, tile.heading, tile.text) for tile in tiles], title, columns)
    out = io.BytesIO()
    Image.fromarray(page).save(out, "JPEG", quality=_QUALITY, optimize=True)
    return out.getvalue()
