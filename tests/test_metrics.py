"""J, F and S against the benchmark's formulas, written out pixel by pixel in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt.train import metrics
from refavs_rt.train.metrics import (
    FrameScores,
    authors,
    f_curve,
    jaccard,
    per_expression,
    probabilities,
    score_frames,
)


def plain_f(share: NDArray[np.float64], truth: NDArray[np.bool_], threshold: float) -> float:
    predicted = share >= threshold
    hits = float((predicted & truth).sum())
    precision = hits / predicted.sum() if predicted.any() else 0.0
    recall = hits / truth.sum()
    if precision + recall == 0:
        return 0.0
    return 1.3 * precision * recall / (0.3 * precision + recall)


@pytest.mark.parametrize("seed", range(3))
def test_f_curve_is_the_formula_at_every_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    share = rng.random((13, 17)).astype(np.float32)
    share[0, :3] = (0.0, 1.0, 0.5)
    truth = rng.random((13, 17)) > 0.7
    expected = [plain_f(share.astype(np.float64), truth, th) for th in np.linspace(0, 1 - 1e-10, 255)]
    np.testing.assert_allclose(f_curve(share, truth), expected, rtol=1e-12, atol=1e-12)


def test_jaccard() -> None:
    mask, truth = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    mask[:2], truth[1:3] = True, True
    assert jaccard(mask, truth) == pytest.approx(4 / 12)
    assert jaccard(mask, np.zeros((4, 4), bool)) == pytest.approx(
        0.5
    )  # half of the background is wrongly covered
    assert jaccard(np.zeros((4, 4), bool), truth) == 0.0
    assert jaccard(np.zeros((4, 4), bool), np.zeros((4, 4), bool)) == 1.0


def test_probabilities_are_resized_as_logits() -> None:
    logits = np.array([[[-4.0, 4.0], [2.0, 0.0]]], np.float32)
    share = probabilities(logits)[0]
    assert share.shape == (256, 256)
    # Half-pixel centres: output column i reads input x = (i + 0.5) / 128 - 0.5.
    for row, column in ((0, 0), (10, 100), (128, 128), (255, 255), (200, 70)):
        y, x = (min(max((i + 0.5) / 128 - 0.5, 0.0), 1.0) for i in (row, column))
        value = (1 - y) * ((1 - x) * -4 + x * 4) + y * ((1 - x) * 2 + x * 0)
        assert share[row, column] == pytest.approx(1 / (1 + math.exp(-value)), abs=1e-5)


def test_thresholds_and_the_presence_gate() -> None:
    truth = np.zeros((2, 256, 256), bool)
    truth[:, :128] = True
    just_above = np.full((2, 8, 8), math.log(0.41 / 0.59), np.float32)
    scores = score_frames(just_above, truth)
    assert scores.iou.tolist() == [0.5, 0.5]
    assert scores.shown.tolist() == [0.0, 0.0]  # S counts from 0.5 on
    gated = score_frames(just_above, truth, np.array([True, False]))
    assert gated.iou.tolist() == [0.5, 0.0]


def test_empty_truths_do_not_count_for_f() -> None:
    truth = np.zeros((2, 256, 256), bool)
    truth[1, :, :64] = True
    assert score_frames(np.zeros((2, 4, 4), np.float32), truth).f_curves.shape == (1, 255)


def frame_scores(iou: list[float], curve: list[float], shown: list[float]) -> FrameScores:
    curves = np.zeros((1, 255))
    curves[0, : len(curve)] = curve
    return FrameScores(np.array(iou), curves, np.array(shown))


def test_means_per_expression_and_over_the_authors_batches() -> None:
    """Six expressions with an object and two null ones; the authors pool the first four, then the last two."""
    curves = ([0.9, 0.0], [0.0, 0.5], [0.1, 0.2], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0])
    objects = [frame_scores([0.1 * i, 0.3], list(curve), [0.0, 0.0]) for i, curve in enumerate(curves)]
    nulls = [frame_scores([1.0], [0.0], [0.04, 0.0]), frame_scores([1.0], [0.0], [0.64, 0.36])]
    scores, null = (
        [*objects[:3], nulls[0], *objects[3:], nulls[1]],
        [False] * 3 + [True] + [False] * 3 + [True],
    )

    mine = per_expression(scores, null)
    assert mine.J == pytest.approx(np.mean([(0.1 * i + 0.3) / 2 for i in range(6)]))
    assert mine.F == pytest.approx(np.mean([0.9, 0.5, 0.2, 0.0, 1.0, 1.0]))
    assert mine.S == pytest.approx((math.sqrt(0.02) + math.sqrt(0.5)) / 2)

    theirs = authors(scores, null)
    first = np.mean([(0.1 * i + 0.3) / 2 for i in range(4)])
    assert theirs.J == pytest.approx((first + np.mean([(0.4 + 0.3) / 2, (0.5 + 0.3) / 2])) / 2)
    assert theirs.F == pytest.approx((max(1.0 / 4, 0.7 / 4) + 0.5) / 2)
    assert theirs.S == pytest.approx(math.sqrt((0.04 + 0.0 + 0.64 + 0.36) / 4))


def test_f_without_any_truth() -> None:
    """The authors' code counts such a batch as 0; alone, such an expression has no F."""
    empty = FrameScores(np.array([1.0]), np.zeros((0, 255)), np.array([0.0]))
    seen = frame_scores([0.5], [0.8], [0.1])
    scores = [seen, seen, empty, seen, empty]
    assert per_expression(scores, [False] * 5).F == pytest.approx(0.8)
    assert authors(scores, [False] * 5).F == pytest.approx((0.8 + 0.0) / 2)
    assert per_expression([empty], [False]) == metrics.Summary(1.0, None, None)


def test_nothing_to_score_is_none() -> None:
    assert per_expression([], []) == metrics.Summary(None, None, None)


def test_truth_is_resized_bilinearly_and_above_zero() -> None:
    picture = np.zeros((512, 512), np.uint8)
    picture[100:103, 100:103] = 255
    mask = metrics.truth_mask(picture)
    assert mask.sum() == 4  # 2 x 2 cells of two pixels touch the three white ones
    assert metrics.truth_mask(np.zeros((7, 5), np.uint8)).sum() == 0
    assert metrics.truth_mask(np.full((7, 5), 255, np.uint8)).all()
