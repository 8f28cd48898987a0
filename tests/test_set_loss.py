"""The set loss against transformers' Mask2Former loss, scipy's assignment, and formulas in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerHungarianMatcher,
    Mask2FormerLoss,
)

from refavs_rt.model.decoder import QueryPrediction
from refavs_rt.train.set_loss import (
    Points,
    SetLossConfig,
    SetLossSums,
    draw_points,
    mask_losses,
    match_queries,
    set_loss,
)

FRAMES, SENTENCES, QUERIES, TRUTHS, WIDTH, HEIGHT, ACROSS = 4, 3, 5, 3, 6, 7, 9
MANY_POINTS = SetLossConfig(points=41)
WHOLE = SetLossConfig(points=0)


@dataclasses.dataclass
class Case:
    """Inputs of the set loss, float64, with zero to three true masks a sentence; the valid ones stand in no order."""

    predictions: list[QueryPrediction]
    features: Tensor
    masks: Tensor
    valid: Tensor

    def loss(self, config: SetLossConfig, points: Points | None) -> SetLossSums:
        return set_loss(self.predictions, self.features, self.masks, self.valid, config, points)

    def frames(self, chosen: slice) -> Case:
        predictions = [
            QueryPrediction(p.embeddings[chosen], p.object_logits[chosen]) for p in self.predictions
        ]
        return Case(predictions, self.features[chosen], self.masks[chosen], self.valid[chosen])


@pytest.fixture
def case() -> Case:
    rng = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    predictions = [
        QueryPrediction(normal(FRAMES, SENTENCES, QUERIES, WIDTH), 2 * normal(FRAMES, SENTENCES, QUERIES, 2))
        for _ in range(3)
    ]
    masks = torch.rand(FRAMES, SENTENCES, TRUTHS, HEIGHT, ACROSS, generator=rng, dtype=torch.float64) ** 4
    valid = torch.rand(FRAMES, SENTENCES, TRUTHS, generator=rng) > 0.5
    valid[0, 0], valid[1, 0] = False, True
    assert set(valid.sum(dim=-1).flatten().tolist()) == {0, 1, 2, 3}
    return Case(predictions, normal(FRAMES, WIDTH, HEIGHT, ACROSS), masks, valid)


def _points(config: SetLossConfig, frames: int = FRAMES) -> Points:
    points = draw_points(torch.arange(frames), 1, HEIGHT * ACROSS, config)
    assert points is not None
    return points


def _their_inputs(case: Case, layer: int) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """As transformers takes them: an image a sentence, class 0 the object and 1 none."""
    prediction = case.predictions[layer]
    logits = torch.einsum("fnqd,fdhw->fnqhw", prediction.embeddings, case.features)
    none = case.masks.new_zeros(0, HEIGHT, ACROSS)
    masks = [torch.stack(of_one) if of_one else none for of_one in _valid_masks(case)]
    classes = [torch.zeros(len(of_one), dtype=torch.int64) for of_one in masks]
    return logits.flatten(0, 1), prediction.object_logits.flip(-1).flatten(0, 1), masks, classes


def _valid_masks(case: Case) -> list[list[Tensor]]:
    """For each frame and sentence, its valid masks."""
    return [
        [mask for mask, there in zip(masks, valid, strict=True) if there]
        for masks, valid in zip(case.masks.flatten(0, 1), case.valid.flatten(0, 1), strict=True)
    ]


class Injected:
    """Stands for `torch.rand` inside transformers: hands out our points in the order that its loss asks for them."""

    def __init__(self, case: Case, points: Points, layers: list[int]) -> None:
        owners = torch.arange(FRAMES).repeat_interleave(SENTENCES)
        boxes = owners.repeat_interleave(case.valid.flatten(0, 1).sum(dim=-1))
        of_layer = [
            *(points.matching[f : f + 1] for f in owners),
            points.candidates[boxes],
            points.even[boxes],
        ]
        self.left: Iterator[Tensor] = iter(of_layer * len(layers))

    def __call__(self, *shape: int, device: object) -> Tensor:
        out = next(self.left).double()
        assert out.shape == shape
        return out


def test_it_is_transformers_mask2former_loss(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers for all layers, at the same points; what we leave as sums is divided as theirs is."""
    config = dataclasses.replace(MANY_POINTS, no_object=0.25)
    points = _points(config)
    theirs = Mask2FormerLoss(
        Mask2FormerConfig(num_labels=1, train_num_points=config.points, no_object_weight=0.25), {}
    ).double()
    layers = range(len(case.predictions))
    monkeypatch.setattr(torch, "rand", Injected(case, points, list(layers)))
    objects, total = int(case.valid.sum()), FRAMES * SENTENCES * QUERIES
    expected = np.zeros(3)
    for layer in layers:
        parts = theirs(*_their_inputs(case, layer))
        expected += [
            float(parts["loss_cross_entropy"]) * (objects + config.no_object * (total - objects)),
            float(parts["loss_mask"]) * objects,
            float(parts["loss_dice"]) * objects,
        ]
    monkeypatch.undo()
    ours = case.loss(config, points)
    assert [float(x) for x in (ours.classification, ours.cross_entropy, ours.dice)] == pytest.approx(
        expected.tolist(), rel=1e-12
    )


def test_matching_is_transformers_matching(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.masks *= 0.05  # so faint that the ones in the dice decide, too
    config = SetLossConfig(classification=1.5, cross_entropy=0.7, dice=6.0, points=29)
    points = _points(config)
    ours = match_queries(case.predictions, case.features, case.masks, case.valid, config, points)
    matcher = Mask2FormerHungarianMatcher(
        config.classification, config.cross_entropy, config.dice, config.points
    )
    for layer in range(len(case.predictions)):
        monkeypatch.setattr(torch, "rand", Injected(case, points, [layer]))
        pairs = matcher(*_their_inputs(case, layer))
        monkeypatch.undo()
        for sentence, (queries, truths) in enumerate(pairs):
            valid = case.valid.flatten(0, 1)[sentence]
            chosen = ours[layer].flatten(0, 1)[sentence]
            assert chosen[valid][truths].tolist() == queries.tolist()
            assert not chosen[~valid].any()


def test_whole_masks_against_the_formula(case: Case) -> None:
    """points=0: costs and losses over all pixels, written out with numpy and scipy."""
    inner = 0.25
    ours = case.loss(dataclasses.replace(WHOLE, inner_layers=inner), None)
    expected = np.zeros(3)
    for layer, prediction in enumerate(case.predictions):
        weight = 1 if layer == len(case.predictions) - 1 else inner
        logits = np.einsum("fnqd,fdhw->fnqhw", prediction.embeddings.numpy(), case.features.numpy())
        p, raw = 1 / (1 + np.exp(-logits)), prediction.object_logits.numpy()
        classes = np.log(np.exp(raw) / np.exp(raw).sum(-1, keepdims=True))
        for f, n in np.ndindex(FRAMES, SENTENCES):
            truths = [mask.numpy() for mask in _valid_masks(case)[f * SENTENCES + n]]
            entropy = np.array(
                [[-(m * np.log(q) + (1 - m) * np.log(1 - q)).mean() for m in truths] for q in p[f, n]]
            )
            dice = np.array(
                [[1 - (2 * (q * m).sum() + 1) / (q.sum() + m.sum() + 1) for m in truths] for q in p[f, n]]
            )
            labels = np.zeros(QUERIES, int)
            if truths:
                pairs = linear_sum_assignment(5 * entropy + 5 * dice - 2 * np.exp(classes[f, n, :, 1:]))
                labels[pairs[0]] = 1
                expected[1:] += weight * np.array([entropy[pairs].sum(), dice[pairs].sum()])
            weights = np.where(labels, 1, 0.1)
            expected[0] -= weight * (weights * classes[f, n, np.arange(QUERIES), labels]).sum()
    assert [float(x) for x in (ours.classification, ours.cross_entropy, ours.dice)] == pytest.approx(
        expected.tolist(), rel=1e-12
    )


@pytest.mark.parametrize("config", [MANY_POINTS, WHOLE], ids=["points", "whole"])
def test_frames_add_up(case: Case, config: SetLossConfig) -> None:
    points = _points(config) if config.points else None
    whole = case.loss(config, points)
    parts = []
    for chosen in (slice(0, 1), slice(1, 4)):
        few = points and Points(points.matching[chosen], points.candidates[chosen], points.even[chosen])
        parts.append(case.frames(chosen).loss(config, few))
    for field in dataclasses.fields(SetLossSums):
        total = sum(float(getattr(part, field.name)) for part in parts)
        assert total == pytest.approx(float(getattr(whole, field.name)), rel=1e-13)


@pytest.mark.parametrize("config", [SetLossConfig(points=17), WHOLE], ids=["points", "whole"])
def test_gradients(case: Case, config: SetLossConfig) -> None:
    small = case.frames(slice(1, 3))
    points = _points(config, 2) if config.points else None
    leaves = [small.features, *(x for p in small.predictions[:2] for x in (p.embeddings, p.object_logits))]

    def loss(features: Tensor, *flat: Tensor) -> Tensor:
        predictions = [QueryPrediction(*flat[i : i + 2]) for i in (0, 2)]
        sums = set_loss(predictions, features, small.masks, small.valid, config, points)
        return sums.classification + 5 * sums.cross_entropy + 5 * sums.dice

    inputs = [leaf.clone().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(loss, inputs, atol=1e-7, fast_mode=True)


@pytest.mark.parametrize("config", [MANY_POINTS, WHOLE], ids=["points", "whole"])
def test_without_any_truth_every_query_is_no_object(case: Case, config: SetLossConfig) -> None:
    for prediction in case.predictions:
        prediction.embeddings.requires_grad_()
    case.valid[:] = False
    sums = case.loss(config, _points(config) if config.points else None)
    logs = torch.stack([p.object_logits.log_softmax(-1)[..., 0] for p in case.predictions])
    assert float(sums.classification.detach()) == pytest.approx(-0.1 * float(logs.detach().sum()))
    own = sums.cross_entropy + sums.dice
    assert float(own.detach()) == 0
    own.backward()
    for prediction in case.predictions:
        assert prediction.embeddings.grad is not None and not prediction.embeddings.grad.any()


def test_importance_takes_the_points_nearest_to_the_edge() -> None:
    """A mask that is certain on the left and doubtful on the right costs what its right half costs."""
    features = torch.zeros(1, 1, 8, 8)
    features[..., :4], features[..., 4:] = 50, 1
    prediction = QueryPrediction(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 2))
    masks = torch.ones(1, 1, 1, 8, 8)
    config = SetLossConfig(points=64, importance=1.0, oversample=8.0)
    points = draw_points(torch.tensor([0]), 1, 64, config)
    assert points is not None and points.even.shape[1] == 0
    inside = Points(*(0.1 + 0.8 * x for x in (points.matching, points.candidates, points.even)))
    sums = set_loss([prediction], features, masks, torch.ones(1, 1, 1, dtype=torch.bool), config, inside)
    expected = torch.nn.functional.softplus(torch.tensor(-1.0))
    torch.testing.assert_close(sums.cross_entropy, expected)


def test_points_depend_on_the_seed_of_their_clip_alone() -> None:
    before = torch.get_rng_state()
    many = draw_points(torch.tensor([5, 2**62, 7]), 2, 30, MANY_POINTS)
    alone = draw_points(torch.tensor([7]), 2, 30, MANY_POINTS)
    assert torch.equal(before, torch.get_rng_state())
    assert many is not None and alone is not None
    for field in dataclasses.fields(Points):
        ours, theirs = getattr(many, field.name), getattr(alone, field.name)
        assert torch.equal(ours[4:], theirs)
        assert len({float(x) for x in ours.flatten()}) > 0.99 * ours.numel()  # no two frames have the same
        assert 0 <= ours.min() and ours.max() < 1


@pytest.mark.parametrize(
    ("points", "pixels", "sizes"), [(12_544, 96 * 96, (9_216, 27_648, 2_304)), (41, 63, (41, 123, 11))]
)
def test_there_are_no_more_points_than_pixels(points: int, pixels: int, sizes: tuple[int, ...]) -> None:
    drawn = draw_points(torch.tensor([0]), 1, pixels, SetLossConfig(points=points))
    assert drawn is not None
    assert (drawn.matching.shape[1], drawn.candidates.shape[1], drawn.even.shape[1]) == sizes
    assert draw_points(torch.tensor([0]), 1, pixels, WHOLE) is None


def test_a_prediction_that_is_no_number_ends_in_a_loss_that_is_none(case: Case) -> None:
    """Not in an error of the assignment: the loss says so, and whoever trains leaves the batch out."""
    case.predictions[-1].embeddings[1] = torch.nan
    case.predictions[-1].object_logits[2] = torch.inf
    sums = case.loss(MANY_POINTS, _points(MANY_POINTS))
    assert not torch.isfinite(sums.dice) and not torch.isfinite(sums.classification)


def test_half_precision_predictions_are_summed_in_the_masks_precision(case: Case) -> None:
    """Under autocast too: as of the same predictions in float32."""
    case.masks = case.masks.float()

    def at(dtype: torch.dtype) -> SetLossSums:
        case.features = case.features.bfloat16().to(dtype)
        for prediction in case.predictions:
            prediction.embeddings = prediction.embeddings.bfloat16().to(dtype)
            prediction.object_logits = prediction.object_logits.bfloat16().to(dtype)
        return case.loss(MANY_POINTS, _points(MANY_POINTS))

    expected = at(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = at(torch.bfloat16)
    for field in dataclasses.fields(SetLossSums):
        assert torch.equal(getattr(ours, field.name), getattr(expected, field.name))


def test_more_truths_than_queries_are_refused(case: Case) -> None:
    case.predictions = [QueryPrediction(p.embeddings[:, :, :2], p.object_logits) for p in case.predictions]
    with pytest.raises(ValueError, match="3 true masks for 2 queries"):
        case.loss(WHOLE, None)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"dice": -1.0}, "dice"),
        ({"points": -1}, "points"),
        ({"oversample": 0.5}, "oversample"),
        ({"importance": 1.5}, "importance"),
        ({"no_object": float("nan")}, "no_object"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SetLossConfig(**settings)


def test_mask_losses_are_the_formulas() -> None:
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(0, 3, (2, 3, 35)), (rng.random((2, 3, 35)) > 0.6).astype(np.float64)
    masks[0, 0] = 0
    p = 1 / (1 + np.exp(-logits))
    cross_entropy = -(masks * np.log(p) + (1 - masks) * np.log(1 - p)).mean(axis=2)
    dice = 1 - (2 * (p * masks).sum(2) + 1) / (p.sum(2) + masks.sum(2) + 1)
    ours = mask_losses(torch.from_numpy(logits), torch.from_numpy(masks))
    np.testing.assert_allclose(ours[0].numpy(), cross_entropy, rtol=1e-12)
    np.testing.assert_allclose(ours[1].numpy(), dice, rtol=1e-12)


def test_a_perfect_mask_costs_nothing_and_a_wrong_one_does() -> None:
    masks = torch.zeros(1, 16)
    masks[:, :8] = 1
    perfect = mask_losses((masks - 0.5) * 200, masks)
    wrong = mask_losses((0.5 - masks) * 200, masks)
    assert float(perfect[0]) < 1e-6 and float(perfect[1]) < 1e-6
    assert float(wrong[0]) > 50 and float(wrong[1]) > 0.9
