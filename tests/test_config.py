"""Configurations go through JSON and back; wrong ones are named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from refavs_rt.config import PRESETS, TEST, ModelConfig


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_json_round_trip(preset: str) -> None:
    config = PRESETS[preset]
    assert config.preset == preset
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"widht": 3}, "widht"),
        ({"width": "192"}, "width"),
        ({"width": 2.5}, "width"),
        ({"width": True}, "width"),
        ({"backbone_channels": [1, 2, 3]}, "backbone_channels"),
        ({"backbone_channels": 7}, "backbone_channels"),
        ({"image_size": 100}, "image_size"),
        ({"heads": 5}, "heads"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ModelConfig.from_json({**TEST.to_json(), **change})


def test_a_whole_number_may_stand_for_a_fraction() -> None:
    assert ModelConfig.from_json({**TEST.to_json(), "memory_hz": 2}).memory_hz == 2.0
