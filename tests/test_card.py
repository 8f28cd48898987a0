"""The model card: every figure comes from the tables, pictures are of the best and the worst, what a person wrote stays."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refavs_rt.export.card import _measured
from refavs_rt.train import card
from refavs_rt.train.ablate.bootstrap import Comparison, Estimate
from refavs_rt.train.ablate.observation import Context
from refavs_rt.train.ablate.scorecard import scored
from refavs_rt.train.ablate.table import BEGIN, END
from refavs_rt.train.card import Figure, Tile, card_page
from refavs_rt.train.checkpoint import CheckpointError
from refavs_rt.train.material import Pack
from refavs_rt.train.scenes import SceneGenerator

SIZE = 64


def comparison(condition: str, group: str, mean: float) -> Comparison:
    return Comparison(condition, group, 12, 7, Estimate(mean, mean - 0.1, mean + 0.1), None, "baseline")


def test_figures_are_those_of_the_experiments() -> None:
    found = {
        "scorecard": [
            comparison("seen classes", "all", 0.5),
            comparison("nothing fits", "S, nothing fits", 0.11),
            comparison("seen classes", "of no row", 0.9),
        ],
        "photographs": [comparison("still", "by name", 0.7)],
    }
    rows = [figure.row for figure in card._figures(found)]
    assert rows == [
        "| all kinds of sentence | J | 0.500 | 0.40 to 0.60 | 12 |",
        "| photographs, by name | J | 0.700 | 0.60 to 0.80 | 12 |",
        "| nothing fits | S | 0.110 | 0.01 to 0.21 | 12 |",
    ]


def test_every_row_names_a_cell_of_an_experiment(tiny: Pack) -> None:
    """Groups and conditions as the experiments call them: a slip would drop a figure in silence."""
    from refavs_rt.train.ablate import photographs, scorecard
    from refavs_rt.train.scenes.grammar import KINDS

    conditions = {
        "scorecard": {
            scorecard.SEEN,
            scorecard.MUTED,
            scorecard.SWAPPED,
            scorecard.UNSEEN,
            scorecard.NOTHING,
        },
        "photographs": {photographs.STILL, photographs.PANNED, photographs.MUTED},
    }
    groups = {
        "scorecard": {
            "all",
            *KINDS,
            *(scorecard.OTHER.format(kind=kind) for kind in KINDS),
            *(scorecard.COUNTED.format(count=n) for n in (2, 3, 4)),
            scorecard.ABOUT_SOUND,
            *scorecard.SINCE,
            scorecard.SHOWN,
            scorecard.SHOWN_ALIKE,
        },
        "photographs": {photographs.BY_NAME, photographs.BY_NEW_NAME, photographs.BY_SOUND},
    }
    for _, experiment, condition, group in (*card._ROWS, *card._SHOWN):
        assert condition in conditions[experiment] and group in groups[experiment], (condition, group)


def test_what_a_person_wrote_stays(tmp_path: Path) -> None:
    page = tmp_path / "model-card.md"
    page.write_text(f"# Old\n\n{BEGIN}\nIt knows dogs.\n{END}\n\nold figures\n")
    text = card_page([Figure("by name", "J", 0.5, None, None, 3)], page, "A title", "these weights")
    assert f"{BEGIN}\nIt knows dogs.\n{END}" in text and "old figures" not in text
    assert text.startswith("# A title\n") and "Measured: these weights." in text
    assert "| by name | J | 0.500 |  | 3 |" in text


def tile(value: float, clip: str) -> Tile:
    return Tile(value, np.zeros((4, 4, 3), np.uint8), "", "", clip)


def test_pictures_are_of_many_clips() -> None:
    tiles = [tile(0.9, "a"), tile(0.8, "a"), tile(0.7, "b"), tile(0.6, "c")]
    assert [t.value for t in card._of_many_clips(tiles, 2)] == [0.9, 0.7]


class HalfRight:
    """Marks the left half of every picture."""

    image_size = SIZE

    def predict(self, frames: Any, patches: Any, texts: Any) -> tuple[Any, Any]:
        masks = np.full((len(frames), len(texts), 8, 8), -9.0, np.float32)
        masks[..., :4] = 9.0
        return masks, np.full((len(frames), len(texts)), 0.9, np.float32)


def test_the_best_come_first_and_then_the_worst(tiny: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "_LOOKED_AT", 14)
    monkeypatch.setattr(card, "EXTREMES", 3)
    monkeypatch.setattr(card, "BY_CHANCE", 2)
    context = Context("", lambda _: HalfRight(), None, lambda: tiny, clips=1, seed=0)
    tiles = card._scenes(HalfRight(), context)
    values = [t.value for t in tiles]
    generator = SceneGenerator(tiny, "test_s", seed=0)
    clips = [clip for n in range(14) if (clip := scored(generator.scene(n), SIZE)) is not None]
    everything = [t.value for clip in clips for t in card._tiles(HalfRight(), clip)]
    assert len(tiles) == 8 and values[0] == max(everything) and values[3] == min(everything)
    assert values[0] >= values[1] >= values[2] >= values[5] >= values[4] >= values[3]
    for first, last in ((0, 3), (3, 6), (6, 8)):
        assert len({t.clip for t in tiles[first:last]}) == last - first
    picture = Image.open(io.BytesIO(card._jpeg(tiles, "Scenes", 5)))
    assert picture.format == "JPEG" and picture.width > 1_500


def test_a_bundles_own_card_has_the_figures(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps([Figure("by name", "J", 0.512, 0.4, 0.6, 30).__dict__]))
    assert _measured(path)[-1] == "| by name | J | 0.512 | 0.40 to 0.60 | 30 |"
    path.write_text('[{"what": "x"}]')
    with pytest.raises(CheckpointError, match=r"card\.json is not a report of `python -m train card`"):
        _measured(path)
