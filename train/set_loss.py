"""Mask2Former's set loss (arXiv 2112.01527): queries are matched with the true masks, and each learns what its match says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from refavs_rt.model.decoder import QueryPrediction

_WORST = 1e30
"""Cost of a pair whose cost is no finite number: it is matched where nothing else is left."""


@dataclass(frozen=True)
class SetLossConfig:
    """Weights and points of the set loss, by default Mask2Former's own."""

    classification: float = 2.0
    """Of the class of every query. This and the next two are the weights of the costs of matching, too."""
    cross_entropy: float = 5.0
    """Of the masks of matched queries."""
    dice: float = 5.0
    """Of the masks of matched queries."""
    inner_layers: float = 1.0
    """Of every prediction but the last, the one before the first layer included, times the weights above."""
    no_object: float = 0.1
    """Of a query that is not matched, beside 1 for one that is, inside the classification."""
    points: int = 12_544
    """Points of a mask, at most as many as it has pixels; 0: whole masks."""
    oversample: float = 3.0
    """Candidates drawn for each point of the loss."""
    importance: float = 0.75
    """Share of the points of the loss that are the most uncertain candidates; the others are drawn evenly."""

    def __post_init__(self) -> None:
        for name in ("classification", "cross_entropy", "dice", "inner_layers", "no_object", "points"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} of the set loss must be 0 or more, not {getattr(self, name)}")
        if not self.oversample >= 1:
            raise ValueError(f"oversample of the set loss must be 1 or more, not {self.oversample}")
        if not 0 <= self.importance <= 1:
            raise ValueError(f"importance of the set loss must be in [0, 1], not {self.importance}")

    @property
    def wanted(self) -> bool:
        """Whether any part has a weight."""
        return any((self.classification, self.cross_entropy, self.dice))


@dataclass(frozen=True)
class Points:
    """Points (x, y) in [0, 1]^2 of F frames, float32 on the CPU, shared by a frame's sentences and decoder layers."""

    matching: Tensor
    """[F, P, 2], where masks are compared in matching."""
    candidates: Tensor
    """[F, R, 2], of which each mask takes the most uncertain for its loss."""
    even: Tensor
    """[F, U, 2], the other points of the loss."""


@dataclass(frozen=True)
class SetLossSums:
    """Sums over frames, sentences and weighted layers, each a scalar."""

    classification: Tensor
    """Over queries, each with its weight (1 or `no_object`)."""
    cross_entropy: Tensor
    """Over matched masks."""
    dice: Tensor
    """Over matched masks."""


def draw_points(seeds: Tensor, ticks: int, pixels: int, config: SetLossConfig) -> Points | None:
    """Points of clips of `ticks` frames each; a clip's depend on its seed alone, not on the clips beside it.

    Args:
        seeds: [B] int64, one a clip.
        ticks: decoded frames of a clip, so F = B * ticks.
        pixels: of a mask; more points than that would tell nothing more.

    Returns:
        the points, or None where whole masks are asked for.
    """
    count = min(config.points, pixels)
    if count == 0:
        return None
    candidates, even = int(count * config.oversample), count - int(count * config.importance)
    drawn = [
        torch.rand(ticks, count + candidates + even, 2, generator=torch.Generator().manual_seed(seed))
        for seed in seeds.tolist()
    ]
    return Points(*torch.cat(drawn).split([count, candidates, even], dim=1))


def set_loss(
    predictions: Sequence[QueryPrediction],
    features: Tensor,
    masks: Tensor,
    valid: Tensor,
    config: SetLossConfig,
    points: Points | None,
) -> SetLossSums:
    """Match, then sum the losses; computed in the dtype of `masks`, whatever autocast says.

    Each matched query is the object (cross-entropy of its class) and has the mask it is matched with (binary cross-entropy,
    and dice, means over the points); all other queries are no object.

    Args:
        predictions: of every decoder layer and before the first, leading axes [F, N, Q]: frames, sentences, queries.
        features: mask features [F, D, h, w]; a query's mask logits are its embedding times these.
        masks: [F, N, K, h, w] in [0, 1], the true masks of each sentence.
        valid: [F, N, K] bool, which of them there are.
        points: where masks are read; None: everywhere.

    Raises:
        ValueError: K is more than Q.
    """
    if masks.shape[2] > predictions[0].embeddings.shape[2]:
        raise ValueError(f"{masks.shape[2]} true masks for {predictions[0].embeddings.shape[2]} queries")
    weights = [config.inner_layers] * (len(predictions) - 1) + [1.0]
    layers = [(p, weight) for p, weight in zip(predictions, weights, strict=True) if weight]
    with torch.autocast(masks.device.type, enabled=False):
        features = features.to(masks.dtype)
        cast = [_to(prediction, masks.dtype) for prediction, _ in layers]
        matched = match_queries(cast, features, masks, valid, config, points)
        losses = _MatchedMasks(features, masks, points)
        sums = torch.zeros(3, dtype=masks.dtype, device=masks.device)
        for prediction, (_, weight), queries in zip(cast, layers, matched, strict=True):
            classes = _class_sum(prediction.object_logits, queries, valid, config.no_object)
            if config.cross_entropy or config.dice:
                cross_entropy, dice = losses(prediction.embeddings, queries)
                own = [(each * valid).sum() for each in (cross_entropy, dice)]
            else:
                own = [torch.zeros_like(classes)] * 2
            sums = sums + weight * torch.stack([classes, *own])
    return SetLossSums(*sums.unbind())


def mask_losses(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice loss of each mask.

    dice = 1 - (2 sum p m + 1) / (sum p + sum m + 1), with p = sigmoid(logits).

    Args:
        logits, masks: [..., P], at P pixels or points.

    Returns:
        two tensors [...].
    """
    logits = logits.to(masks.dtype)  # sums over thousands of pixels: not in half precision
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(dim=-1)
    share = torch.sigmoid(logits)
    overlap = (share * masks).sum(dim=-1)
    dice = 1 - (2 * overlap + 1) / (share.sum(dim=-1) + masks.sum(dim=-1) + 1)
    return cross_entropy, dice


@torch.no_grad()
def match_queries(
    predictions: Sequence[QueryPrediction],
    features: Tensor,
    masks: Tensor,
    valid: Tensor,
    config: SetLossConfig,
    points: Points | None,
) -> Tensor:
    """The query of each true mask, by the assignment of the least cost within each sentence.

    Sampling commutes with the product, so a frame's features are read at the points once, for all queries of all layers. Frame
    by frame, since the logits of all queries at once would fill the memory.

    Args:
        predictions, features, masks, valid, points: as in `set_loss`, of one dtype.

    Returns:
        [layers, F, N, K] int64; 0 where a mask is not valid.
    """
    sentences, truths = masks.shape[1:3]
    shares = [prediction.object_share() for prediction in predictions]
    rows = []
    for frame in range(len(masks)):
        one = slice(frame, frame + 1)
        where = None if points is None else points.matching[one]
        pixels = _read(features[one], where)[0]
        truth = _read(masks[one].flatten(1, 2), where)[0].unflatten(0, (sentences, truths))
        rows.append(
            torch.stack(
                [
                    _costs(prediction.embeddings[frame] @ pixels, truth, share[frame], config)
                    for prediction, share in zip(predictions, shares, strict=True)
                ]
            )
        )
    return _assign(torch.stack(rows, dim=1), valid)


def _costs(logits: Tensor, truth: Tensor, share: Tensor, config: SetLossConfig) -> Tensor:
    """[N, Q, K]: the losses of `mask_losses` between all pairs of [N, Q, P] and [N, K, P], less the share [N, Q] of the object.

    cross-entropy(x, m) = mean(softplus(x)) - mean(x m): a product, not Q x K masks.
    """
    count = logits.shape[-1]
    columns = truth.transpose(1, 2)
    cross_entropy = (functional.softplus(logits).sum(dim=-1, keepdim=True) - logits @ columns) / count
    inside = torch.sigmoid(logits)
    total = inside.sum(dim=-1, keepdim=True) + columns.sum(dim=1, keepdim=True)
    dice = 1 - (2 * inside @ columns + 1) / (total + 1)
    return (
        config.cross_entropy * cross_entropy
        + config.dice * dice
        - config.classification * share.unsqueeze(-1)
    )


def _assign(costs: Tensor, valid: Tensor) -> Tensor:
    """[layers, F, N, Q, K] and [F, N, K] -> [layers, F, N, K], the query of each valid mask."""
    table = torch.nan_to_num(costs, nan=_WORST, posinf=_WORST, neginf=_WORST).cpu().numpy()
    known = valid.cpu().numpy()
    matched = np.zeros((len(table), *known.shape), np.int64)
    for frame, sentence in np.argwhere(known.any(axis=-1)):
        columns = np.flatnonzero(known[frame, sentence])
        for layer in range(len(table)):
            queries, chosen = linear_sum_assignment(table[layer, frame, sentence][:, columns])
            matched[layer, frame, sentence, columns[chosen]] = queries
    return torch.from_numpy(matched).to(costs.device)


def _class_sum(object_logits: Tensor, queries: Tensor, valid: Tensor, no_object: float) -> Tensor:
    """Weighted cross-entropy, summed over all queries: object for the valid ones of `queries` [F, N, K], no object for others."""
    logs = object_logits.log_softmax(dim=-1)
    is_object = torch.zeros_like(logs[..., 0]).scatter_add(-1, queries, valid.to(logs.dtype)) > 0
    return -torch.where(is_object, logs[..., 1], no_object * logs[..., 0]).sum()


class _MatchedMasks:
    """Losses of the masks of matched queries.

    Their logits are made whole and then read at the points: one mask for each sentence is less than D features for each point.
    """

    def __init__(self, features: Tensor, masks: Tensor, points: Points | None) -> None:
        self.shape = masks.shape[1:3]
        self.features = features
        self.points = None if points is None else torch.cat([points.candidates, points.even], dim=1)
        self.candidates = 0 if points is None else points.candidates.shape[1]
        self.uncertain = 0 if points is None else points.matching.shape[1] - points.even.shape[1]
        self.truth = _read(masks.flatten(1, 2), self.points)

    def __call__(self, embeddings: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and dice [F, N, K] of the masks of `queries` [F, N, K] among `embeddings` [F, N, Q, D]."""
        index = queries.unsqueeze(-1).expand(*queries.shape, embeddings.shape[-1])
        own = embeddings.gather(2, index).flatten(1, 2)
        whole = (own @ self.features.flatten(2)).unflatten(-1, self.features.shape[-2:])
        logits, truth = _read(whole, self.points), self.truth
        if self.points is not None:
            picked = self._pick(logits.detach())
            logits, truth = logits.gather(-1, picked), truth.gather(-1, picked)
        cross_entropy, dice = mask_losses(logits, truth)
        return cross_entropy.unflatten(1, self.shape), dice.unflatten(1, self.shape)

    def _pick(self, logits: Tensor) -> Tensor:
        """Indices of each mask's points: the candidates nearest to the mask's edge, and all that were drawn evenly."""
        uncertain = (-logits[..., : self.candidates].abs()).topk(self.uncertain, dim=-1).indices
        even = torch.arange(self.candidates, logits.shape[-1], device=logits.device)
        return torch.cat([uncertain, even.expand(*logits.shape[:-1], -1)], dim=-1)


def _read(maps: Tensor, points: Tensor | None) -> Tensor:
    """[F, M, h, w] -> [F, M, P]: bilinear values at `points` [F, P, 2], zero beyond the edge; all pixels where None."""
    if points is None:
        return maps.flatten(2)
    grid = 2 * points.to(maps.device, maps.dtype).unsqueeze(1) - 1
    return functional.grid_sample(maps, grid, align_corners=False).squeeze(2)


def _to(prediction: QueryPrediction, dtype: torch.dtype) -> QueryPrediction:
    return QueryPrediction(prediction.embeddings.to(dtype), prediction.object_logits.to(dtype))
