"""The losses against their formulas, written out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from refavs_rt.model.decoder import QueryPrediction
from refavs_rt.train.loss import NameSpace, mask_losses, matched_query_loss, referent_loss


def test_mask_losses_are_the_formulas() -> None:
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(0, 3, (2, 3, 5, 7)), (rng.random((2, 3, 5, 7)) > 0.6).astype(np.float64)
    masks[0, 0] = 0
    p = 1 / (1 + np.exp(-logits))
    cross_entropy = -(masks * np.log(p) + (1 - masks) * np.log(1 - p)).mean(axis=(2, 3))
    dice = 1 - (2 * (p * masks).sum((2, 3)) + 1) / (p.sum((2, 3)) + masks.sum((2, 3)) + 1)
    ours = mask_losses(torch.from_numpy(logits), torch.from_numpy(masks))
    np.testing.assert_allclose(ours[0].numpy(), cross_entropy, rtol=1e-12)
    np.testing.assert_allclose(ours[1].numpy(), dice, rtol=1e-12)


def test_a_perfect_mask_costs_nothing_and_a_wrong_one_does() -> None:
    masks = torch.zeros(1, 4, 4)
    masks[:, :2] = 1
    perfect = mask_losses((masks - 0.5) * 200, masks)
    wrong = mask_losses((0.5 - masks) * 200, masks)
    assert float(perfect[0]) < 1e-6 and float(perfect[1]) < 1e-6
    assert float(wrong[0]) > 50 and float(wrong[1]) > 0.9


@pytest.mark.parametrize("present", [0.0, 1.0])
def test_matching_is_hungarian(present: float) -> None:
    """With scipy's assignment between one truth and the queries."""
    torch.manual_seed(0)
    queries, width, size = 5, 4, 6
    prediction = QueryPrediction(torch.randn(1, 1, queries, width), torch.randn(1, 1, queries, 2))
    features = torch.randn(1, width, size, size)
    truth = (torch.rand(1, 1, size, size) > 0.5).float() * present
    masks = torch.einsum("bnqd,bdhw->bnqhw", prediction.embeddings, features)[0, 0]
    cost = np.array(
        [
            5 * float(mask_losses(m, truth[0, 0])[0])
            + 5 * float(mask_losses(m, truth[0, 0])[1])
            - 2 * float(share)
            for m, share in zip(masks, prediction.object_share()[0, 0], strict=True)
        ]
    )
    chosen = int(linear_sum_assignment(cost[:, None])[0][0])
    logs = torch.log_softmax(prediction.object_logits[0, 0].double(), dim=-1)
    labels = [1 if present and q == chosen else 0 for q in range(queries)]
    weights = [1.0 if label else 0.1 for label in labels]
    expected = (
        2
        * -sum(w * float(logs[q, c]) for q, (w, c) in enumerate(zip(weights, labels, strict=True)))
        / sum(weights)
    )
    if present:
        expected += cost[chosen] + 2 * float(prediction.object_share()[0, 0, chosen])
    ours = matched_query_loss(prediction, features, truth, torch.full((1, 1), present), 0.1)
    assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_names_are_classified_by_cosine() -> None:
    """A feature that is projected onto a name's centred embedding gets that name."""
    torch.manual_seed(0)
    embeddings = torch.randn(6, 8) + 3
    space = NameSpace(embeddings, pixel_width=8, width=8)
    with torch.no_grad():
        space.pixel.weight.copy_(torch.eye(8))
        space.pixel.bias.zero_()
    centred = embeddings - embeddings.mean(dim=0)
    features = (centred[[2, 5]] * 7).T.reshape(1, 8, 2)
    logits = space.pixel_logits(features, 0.07)
    assert logits.argmax(dim=1).tolist() == [2, 5]
    assert logits.shape == (2, 7)
    torch.testing.assert_close(logits.max(), torch.tensor(1 / 0.07))


def test_referents_are_classified_where_they_are_known() -> None:
    """-1 is "nothing", the last class; -2 counts for nothing. Against cross-entropy written out in float64."""
    torch.manual_seed(0)
    space = NameSpace(torch.randn(5, 8) + 3, pixel_width=4, width=6)
    cues = torch.randn(2, 3, 6)
    labels = torch.tensor([[[1, -2, -1]], [[4, 0, -1]]])
    logits = space.referent_logits(cues, 0.07).detach().double().numpy()
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean([logs[0, 1], logs[2, 5], logs[3, 4], logs[4, 0], logs[5, 5]])
    output, target = SimpleNamespace(mean_cues=cues), SimpleNamespace(referents=labels)
    ours = referent_loss(output, target, space, 0.07)
    assert float(ours.detach()) == pytest.approx(expected, rel=1e-5)
