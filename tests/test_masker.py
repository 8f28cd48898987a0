"""Masks from frame to frame: hysteresis of the presence, smoothing, and sentences that come and go."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt.config import RunConfig
from refavs_rt.masker import Masker
from refavs_rt.masks import binary_masks

HEIGHT, WIDTH = 24, 40


def frame(pts_s: float = 0.0, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    return SimpleNamespace(
        pts_s=pts_s,
        height=HEIGHT,
        width=WIDTH,
        image=rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8),
        tensor=rng.normal(size=(3, 64, 64)).astype(np.float32),
    )


def logits(*levels: float) -> NDArray[np.float32]:
    """Planes that are the same everywhere."""
    return np.stack([np.full((16, 16), level, np.float32) for level in levels])


def shown(masker: Masker, *presence: float) -> list[bool]:
    masks = masker.masks(logits(*[9.0] * len(presence)), np.array(presence, np.float32), frame())
    assert masks.shape == (len(presence), HEIGHT, WIDTH) and masks.dtype == np.bool_
    assert all(mask.all() or not mask.any() for mask in masks)
    return [bool(mask.any()) for mask in masks]


@pytest.mark.parametrize("align_edges", [True, False])
def test_a_presence_near_the_threshold_does_not_flicker(align_edges: bool) -> None:
    masker = Masker(RunConfig(presence_threshold=0.5, presence_hysteresis=0.1, align_edges=align_edges))
    masker.add(1)
    presence = [0.45, 0.49, 0.5, 0.45, 0.41, 0.39, 0.45, 0.49, 0.9, 0.41]
    expected = [False, False, True, True, True, False, False, False, True, True]
    assert [shown(masker, p)[0] for p in presence] == expected


def test_each_sentence_has_its_own() -> None:
    masker = Masker(RunConfig(presence_threshold=0.5, presence_hysteresis=0.1))
    masker.add(3)
    assert shown(masker, 0.9, 0.1, 0.6) == [True, False, True]
    assert shown(masker, 0.45, 0.45, 0.45) == [True, False, True]
    masker.remove(0)
    assert shown(masker, 0.45, 0.45) == [False, True]
    masker.add(1)
    assert shown(masker, 0.45, 0.45, 0.45) == [False, True, False]
    masker.forget(1)
    assert shown(masker, 0.45, 0.45, 0.45) == [False, False, False]
    assert shown(masker, 0.5, 0.5, 0.5) == [True, True, True]
    masker.forget()
    assert shown(masker, 0.45, 0.45, 0.45) == [False, False, False]


def test_a_low_threshold_still_has_something_below_it() -> None:
    masker = Masker(RunConfig(presence_threshold=0.08, presence_hysteresis=0.1))
    masker.add(1)
    presence = [0.07, 0.08, 0.05, 0.03, 0.07]
    assert [shown(masker, p)[0] for p in presence] == [False, True, True, False, False]


def test_without_hysteresis_the_threshold_alone_counts() -> None:
    masker = Masker(RunConfig(presence_threshold=0.5, presence_hysteresis=0.0))
    masker.add(1)
    assert [shown(masker, p)[0] for p in (0.6, 0.499, 0.5)] == [True, False, True]


def test_smoothing_is_the_exponential_mean_of_the_logits() -> None:
    run = RunConfig(mask_smoothing_s=0.5, align_edges=False, mask_threshold=0.4)
    masker = Masker(run)
    masker.add(1)
    rng = np.random.default_rng(2)
    mean: NDArray[np.float64] | None = None
    last_s = 0.0
    for pts_s in (0.0, 0.1, 0.15, 0.9, 1.0):
        plane = rng.normal(size=(1, 16, 16)).astype(np.float32) * 4
        share = 1 - math.exp(-(pts_s - last_s) / 0.5)
        mean = plane.astype(np.float64) if mean is None else mean + share * (plane - mean)
        last_s = pts_s
        found = masker.masks(plane, np.ones(1, np.float32), frame(pts_s))
        expected = binary_masks(mean.astype(np.float32), (HEIGHT, WIDTH), 0.4)
        assert (found != expected).mean() < 0.005
    assert (found != binary_masks(plane, (HEIGHT, WIDTH), 0.4)).mean() > 0.05


def test_no_sentence() -> None:
    masker = Masker(RunConfig())
    assert masker.masks(np.zeros((0, 16, 16), np.float32), np.zeros(0, np.float32), frame()).shape == (
        0,
        HEIGHT,
        WIDTH,
    )


def test_pictures_may_change_their_size() -> None:
    masker = Masker(RunConfig())
    masker.add(1)
    for height, width in ((24, 40), (50, 30), (24, 40)):
        other = frame()
        other.height, other.width = height, width
        other.image = np.zeros((height, width, 3), np.uint8)
        assert masker.masks(logits(9.0), np.ones(1, np.float32), other).shape == (1, height, width)
