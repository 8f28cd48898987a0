"""The loss of a batch against its formula in float64, and its sums over parts of a batch."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import expit, log_softmax, softmax
from torch import Tensor

from refavs_rt.config import TEST
from refavs_rt.model.decoder import QueryPrediction
from refavs_rt.train.loss import (
    AUTHORS_LOSS,
    COUNT_NAMES,
    PAPER_LOSS,
    LossConfig,
    NameSpace,
    Target,
    clip_loss,
    finite_clips,
    loss_counts,
)

CLIPS, TICKS, ALL_TICKS, SENTENCES, QUERIES, CLASSES = 5, 2, 3, 4, 6, 7
WIDTH, CUE_WIDTH, SOUND_WIDTH, SIDE, CUE_SIDE = 8, 5, 6, 12, 3
CONFIG = dataclasses.replace(
    TEST, pixel_width=WIDTH, decoder_width=CUE_WIDTH, prompt_heads=1, decoder_heads=1, width=SOUND_WIDTH
)
DENSE = LossConfig()
SAMPLED = dataclasses.replace(
    DENSE, queries=dataclasses.replace(PAPER_LOSS.queries, points=50, inner_layers=0.5)
)
"""All parts at once, with points."""


@dataclasses.dataclass
class Batch:
    """What the loss reads, float64; all of it by chance, for clips with sentences that fit nothing and cells to ignore."""

    output: Any
    target: Target
    names: NameSpace

    def loss(self, config: LossConfig, counts: Tensor | None = None) -> dict[str, Tensor]:
        return clip_loss(self.output, self.target, self.names, config, counts)

    def leaves(self) -> list[Tensor]:
        """All predictions that a gradient may reach."""
        output = self.output
        of_queries = [x for p in output.predictions for x in (p.embeddings, p.object_logits)]
        memory = [output.memory.mask_features, *output.memory.level_mask_features]
        cues = [output.mean_cues, output.visual_cues]
        return [*of_queries, *memory, output.presence_logits, *cues, output.audio_tokens]

    def clips(self, first: int, last: int) -> Batch:
        """The clips `first` to `last` - 1 as a batch of their own."""
        few, frames = slice(first, last), slice(first * TICKS, last * TICKS)
        output, memory = self.output, self.output.memory
        target = {f.name: getattr(self.target, f.name)[few] for f in dataclasses.fields(Target)}
        return Batch(
            SimpleNamespace(
                mask_logits=output.mask_logits[few],
                presence_logits=output.presence_logits[few],
                predictions=[
                    QueryPrediction(p.embeddings[frames], p.object_logits[frames]) for p in output.predictions
                ],
                memory=SimpleNamespace(
                    mask_features=memory.mask_features[frames],
                    level_mask_features=[x[frames] for x in memory.level_mask_features],
                ),
                mean_cues=output.mean_cues[frames],
                visual_cues=output.visual_cues[frames],
                audio_tokens=output.audio_tokens[few],
            ),
            Target(**target),
            self.names,
        )


@pytest.fixture
def batch() -> Batch:
    rng = torch.Generator().manual_seed(3)
    frames, half = CLIPS * TICKS, SIDE // 2

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    def choice(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=rng)

    presence = (torch.rand(CLIPS, TICKS, SENTENCES, generator=rng) > 0.4).double()
    masks = torch.rand(CLIPS, TICKS, SENTENCES, SIDE, SIDE, generator=rng, dtype=torch.float64)
    sounds = normal(CLIPS, ALL_TICKS, CLASSES + 1).softmax(dim=-1)
    sounds[1, 0] = 0
    names = NameSpace(normal(CLASSES, 9), CONFIG).double()
    return Batch(
        SimpleNamespace(
            mask_logits=normal(CLIPS, TICKS, SENTENCES, SIDE, SIDE),
            presence_logits=normal(CLIPS, TICKS, SENTENCES),
            predictions=[
                QueryPrediction(
                    normal(frames, SENTENCES, QUERIES, WIDTH), normal(frames, SENTENCES, QUERIES, 2)
                )
                for _ in range(3)
            ],
            memory=SimpleNamespace(
                mask_features=normal(frames, WIDTH, SIDE, SIDE),
                level_mask_features=[normal(frames, WIDTH, n) for n in (4, 9, half * half)],
            ),
            mean_cues=normal(frames, SENTENCES, CUE_WIDTH),
            visual_cues=normal(frames, SENTENCES, CUE_SIDE * CUE_SIDE, CUE_WIDTH),
            audio_tokens=normal(CLIPS, ALL_TICKS, SOUND_WIDTH),
        ),
        Target(
            masks=masks * presence[..., None, None],
            presence=presence,
            names=choice(-2, CLASSES, CLIPS, TICKS, half, half),
            referents=choice(-2, CLASSES, CLIPS, TICKS, SENTENCES),
            sounds=sounds,
            point_seeds=torch.arange(CLIPS),
        ),
        names,
    )


def test_the_dense_loss_is_the_mean_over_the_batch(batch: Batch) -> None:
    """All of it written out with numpy and scipy."""
    expected = _dense_formula(batch)
    ours = {name: float(value.detach()) for name, value in batch.loss(DENSE).items()}
    assert ours == pytest.approx(expected | {"total": sum(expected.values())}, rel=1e-11)


def _dense_formula(batch: Batch) -> dict[str, float]:
    output, target = batch.output, batch.target
    masks = target.masks.flatten(0, 1).numpy()
    there = target.presence.flatten(0, 1).numpy()
    features = output.memory.mask_features.numpy()
    parts = dict.fromkeys(("cross_entropy", "dice"), 0.0)
    for layer, prediction in enumerate(output.predictions):
        weight = 1.0 if layer == 2 else 0.3
        share = softmax(prediction.object_logits.numpy(), axis=-1)[..., 1]
        each = np.einsum("fnqd,fdhw->fnqhw", prediction.embeddings.numpy(), features)
        cross_entropy, dice = _mask_formula(np.einsum("fnq,fnqhw->fnhw", share, each), masks)
        parts["cross_entropy"] += weight * 2.0 * cross_entropy.mean()
        parts["dice"] += weight * 1.0 * dice.mean()
    logs = log_softmax(output.predictions[-1].object_logits.numpy(), axis=-1)
    cross_entropy, dice = _mask_formula(each, masks[:, :, None])
    matched = np.zeros(cross_entropy.shape, bool)
    for f, n in np.argwhere(there):
        cost = 5 * cross_entropy[f, n] + 5 * dice[f, n] - 2 * share[f, n]
        matched[f, n, linear_sum_assignment(cost[:, None])[0]] = True
    weights = np.where(matched, 1, 0.1)
    classes = -(weights * np.where(matched, logs[..., 1], logs[..., 0])).sum() / weights.sum()
    parts["query_class"] = 0.2 * classes
    parts["query_cross_entropy"] = 0.5 * cross_entropy[matched].mean()
    parts["query_dice"] = 0.5 * dice[matched].mean()
    p = expit(output.presence_logits.flatten(0, 1).numpy())
    parts["presence"] = 0.2 * -(there * np.log(p) + (1 - there) * np.log(1 - p)).mean()
    names = batch.names
    blocks = masks.reshape(*masks.shape[:-2], CUE_SIDE, SIDE // CUE_SIDE, CUE_SIDE, SIDE // CUE_SIDE)
    row, bias = (x.detach().numpy() for x in (names.cue.weight[0], names.cue.bias))
    coarse = (output.visual_cues.numpy() @ row + bias).reshape(*masks.shape[:-2], CUE_SIDE, CUE_SIDE)
    parts["cue_masks"] = float(sum(x.mean() for x in _mask_formula(coarse, blocks.mean(axis=(-3, -1)))))
    pixels = names.pixel(output.memory.level_mask_features[-1].transpose(1, 2)).flatten(0, 1)
    labels = target.names.flatten().numpy()
    cells = _name_logs(names, pixels, names.background, labels)
    weights = np.where(labels == -1, 0.1, 1.0) * (labels != -2)
    parts["pixel_names"] = 0.5 * (cells * weights).sum() / weights.sum()
    labels = target.referents.flatten().numpy()
    referents = _name_logs(names, names.referent(output.mean_cues).flatten(0, 1), names.nothing, labels)
    parts["referent_names"] = 0.3 * referents[labels != -2].mean()
    sounds = names.sound(output.audio_tokens).flatten(0, 1)
    each = np.stack([_name_logs(names, sounds, names.silence, np.full(len(sounds), k)) for k in range(8)])
    shares = target.sounds.flatten(0, 1).numpy().T
    parts["sound_names"] = 0.4 * (each * shares).sum() / (shares.sum(axis=0) > 0).sum()
    return parts


def _mask_formula(
    logits: NDArray[np.float64], masks: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p = expit(logits)
    cross_entropy = -(masks * np.log(p) + (1 - masks) * np.log(1 - p)).mean(axis=(-2, -1))
    total = p.sum(axis=(-2, -1)) + masks.sum(axis=(-2, -1))
    return cross_entropy, 1 - (2 * (p * masks).sum(axis=(-2, -1)) + 1) / (total + 1)


def _name_logs(names: NameSpace, x: Tensor, extra: Tensor, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Minus the log of the probability of each label, by cosine to all names and `extra`, at temperature 0.07."""
    table = np.concatenate([names.embeddings.numpy(), extra.detach().numpy()])
    x, table = (y / np.linalg.norm(y, axis=1, keepdims=True) for y in (x.detach().numpy(), table))
    logs = log_softmax(x @ table.T / 0.07, axis=1)
    return -logs[np.arange(len(labels)), np.where(labels < 0, len(table) - 1, labels)]


@pytest.mark.parametrize("config", [DENSE, SAMPLED, PAPER_LOSS], ids=["dense", "sampled", "paper"])
def test_uneven_parts_of_a_batch_add_up_to_it(batch: Batch, config: LossConfig) -> None:
    """Values and gradients, each part over the counts of all."""
    leaves = [leaf.requires_grad_() for leaf in batch.leaves()]
    whole = batch.loss(config)
    parts = [batch.clips(0, 1), batch.clips(1, 4), batch.clips(4, 5)]
    counts = sum((loss_counts(part.target, config) for part in parts), torch.zeros(len(COUNT_NAMES)))
    torch.testing.assert_close(counts, loss_counts(batch.target, config), rtol=1e-14, atol=0)
    losses = [part.loss(config, counts) for part in parts]
    for name, value in whole.items():
        total = sum(float(loss[name].detach()) for loss in losses)
        assert total == pytest.approx(float(value.detach()), rel=1e-12), name
    ours = torch.autograd.grad(
        [loss["total"] for loss in losses], leaves, allow_unused=True, materialize_grads=True
    )
    expected = torch.autograd.grad(whole["total"], leaves, allow_unused=True, materialize_grads=True)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-15)
    assert sum(bool(x.any()) for x in expected) >= (7 if config is PAPER_LOSS else 11)


def test_counts_are_of_the_targets(batch: Batch) -> None:
    labels, counts = batch.target.names, loss_counts(batch.target, DENSE)
    assert dict(zip(COUNT_NAMES, counts.tolist(), strict=True)) == pytest.approx(
        {
            "sentences": CLIPS * TICKS * SENTENCES,
            "objects": float(batch.target.presence.sum()),
            "cells": float((labels >= 0).sum()) + 0.1 * float((labels == -1).sum()),
            "sounds": CLIPS * ALL_TICKS - 1,
            "referents": int((batch.target.referents != -2).sum()),
        }
    )


def test_parts_of_weight_0_are_not_computed(batch: Batch) -> None:
    paper = {"cross_entropy", "query_class", "query_cross_entropy", "query_dice", "presence", "total"}
    assert set(batch.loss(PAPER_LOSS)) == paper
    batch.output.predictions[:2] = batch.output.presence_logits = batch.output.audio_tokens = [None] * 2
    batch.output.memory.level_mask_features = batch.output.visual_cues = None
    authors = batch.loss(AUTHORS_LOSS)
    assert set(authors) == {"cross_entropy", "total"}
    logits = batch.output.predictions[-1].mask_logits(batch.output.memory.mask_features)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.target.masks.flatten(0, 1))
    torch.testing.assert_close(authors["total"], expected)


def test_the_paper_weighs_queries_as_mask2former_does(batch: Batch) -> None:
    """Layer by layer, its inner losses are those that each layer has alone as the last."""
    at_last = dataclasses.replace(
        PAPER_LOSS, queries=dataclasses.replace(PAPER_LOSS.queries, inner_layers=0.0)
    )
    names = ("query_class", "query_cross_entropy", "query_dice")
    whole = batch.loss(PAPER_LOSS)
    expected = dict.fromkeys(names, 0.0)
    layers = batch.output.predictions
    for layer in layers:
        batch.output.predictions = [layer]
        for name in names:
            expected[name] += float(batch.loss(at_last)[name])
    assert {name: float(whole[name]) for name in names} == pytest.approx(expected)


@pytest.mark.parametrize("config", [DENSE, PAPER_LOSS], ids=["dense", "paper"])
def test_a_batch_in_which_nothing_fits_has_a_finite_loss(batch: Batch, config: LossConfig) -> None:
    target = batch.target
    target.masks.zero_()
    target.presence.zero_()
    target.sounds.zero_()
    target.names.fill_(-2)
    target.referents.fill_(-2)
    leaves = [leaf.requires_grad_() for leaf in batch.leaves()]
    loss = batch.loss(config)
    for name in ("query_cross_entropy", "query_dice", "pixel_names", "sound_names", "referent_names"):
        assert float(loss.get(name, torch.zeros(())).detach()) == 0, name
    for gradient in torch.autograd.grad(loss["total"], leaves, allow_unused=True, materialize_grads=True):
        assert torch.isfinite(gradient).all()


def test_a_clip_costs_the_same_beside_any_others(batch: Batch) -> None:
    """Its points too: they come from its own seed."""
    alone = batch.clips(3, 4)
    beside = batch.clips(2, 4)
    counts = loss_counts(batch.target, SAMPLED)
    other = batch.clips(2, 3).loss(SAMPLED, counts)["total"]
    torch.testing.assert_close(
        beside.loss(SAMPLED, counts)["total"], other + alone.loss(SAMPLED, counts)["total"]
    )
    before = alone.loss(SAMPLED)["query_dice"]
    alone.target.point_seeds = alone.target.point_seeds + 1
    assert not torch.isclose(before, alone.loss(SAMPLED)["query_dice"], rtol=1e-6)


@pytest.mark.parametrize(
    "bad", ["mask_logits", "presence_logits", "mean_cues", "visual_cues", "audio_tokens", "masks", "sounds"]
)
def test_clips_that_are_not_finite_are_found(batch: Batch, bad: str) -> None:
    assert finite_clips(batch.output, batch.target).all()
    tensor = getattr(batch.output if hasattr(batch.output, bad) else batch.target, bad)
    of_clips = tensor.reshape(CLIPS, -1)
    of_clips[1, -1], of_clips[4, 0] = torch.nan, torch.inf
    assert finite_clips(batch.output, batch.target).tolist() == [True, False, True, True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"presence": -0.1}, "presence of the loss must be 0 or more"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({name: 0.0 for name in ("cross_entropy", "presence")}, "every part of the loss has weight 0"),
    ],
)
def test_senseless_weights_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(AUTHORS_LOSS, **settings)


def test_names_are_classified_by_cosine() -> None:
    """A feature that is projected onto a name's centred embedding gets that name."""
    torch.manual_seed(0)
    embeddings = torch.randn(6, 8) + 3
    space = NameSpace(embeddings, dataclasses.replace(TEST, pixel_width=8))
    with torch.no_grad():
        space.pixel.weight.copy_(torch.eye(8))
        space.pixel.bias.zero_()
    centred = embeddings - embeddings.mean(dim=0)
    features = (centred[[2, 5]] * 7).T.reshape(1, 8, 2)
    logits = space.pixel_logits(features, 0.07)
    assert logits.argmax(dim=1).tolist() == [2, 5]
    assert logits.shape == (2, 7)
    torch.testing.assert_close(logits.max(), torch.tensor(1 / 0.07))
