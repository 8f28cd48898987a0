"""Losses: the paper's (mask cross-entropy, dice, classification of matched queries) and dense supervision beside them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from refavs_rt.contract import PYRAMID_STRIDES
from refavs_rt.model.decoder import QueryPrediction
from refavs_rt.model.eemc import ClipOutput

_STRIDE_8 = PYRAMID_STRIDES.index(8)
_BACKGROUND_WEIGHT = 0.1
"""Of a cell of the background, beside 1 for a cell of an object, in the classification of pixels."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the parts."""

    cross_entropy: float = 2.0
    dice: float = 1.0
    inner_layers: float = 0.3
    """Of the mask losses of every decoder layer but the last."""
    query_class: float = 0.1
    no_object: float = 0.1
    """Of the queries that are not matched, inside the query classification."""
    presence: float = 0.2
    pixel_names: float = 0.5
    sound_names: float = 0.4
    referent_names: float = 0.3
    temperature: float = 0.07


@dataclass
class Target:
    """The truth of B clips at their decoded ticks."""

    masks: Tensor
    """[B, T, N, h, w] in [0, 1]: the share of each cell that the referred object covers; zeros where nothing fits."""
    presence: Tensor
    """[B, T, N] 1 where the referred object is there, else 0."""
    names: Tensor
    """[B, T, H, W] int64 at stride 8: index of the class in each cell, -1 for background, -2 to ignore."""
    referents: Tensor
    """[B, T, N] int64: index of the referred object's class, -1 where nothing fits, -2 to ignore."""
    sounds: Tensor
    """[B, T_all, K] float: share of each class in the sound of each tick; a row sums to 1, or to 0 to ignore."""


class NameSpace(nn.Module):
    """Classification of pixels, sounds and mean cues against the sentence encoder's embeddings of all objects' names.

    It is the mask features that are classified, so that they and what the cues ask for come to speak one language.

    An open-vocabulary head for training only: it is not part of the network and is not exported.
    """

    embeddings: Tensor

    def __init__(self, embeddings: Tensor, pixel_width: int, width: int) -> None:
        """`embeddings`: [K, E], one a name; centred and normalised here."""
        super().__init__()
        centred = embeddings - embeddings.mean(dim=0)
        self.register_buffer("embeddings", functional.normalize(centred, dim=1))
        self.background = nn.Parameter(torch.randn(1, embeddings.shape[1]) * 0.05)
        self.silence = nn.Parameter(torch.randn(1, embeddings.shape[1]) * 0.05)
        self.pixel = nn.Linear(pixel_width, embeddings.shape[1])
        self.nothing = nn.Parameter(torch.randn(1, embeddings.shape[1]) * 0.05)
        self.sound = nn.Linear(width, embeddings.shape[1])
        self.referent = nn.Linear(width, embeddings.shape[1])

    def pixel_logits(self, features: Tensor, temperature: float) -> Tensor:
        """[B, D, S] -> cosine logits [B * S, K + 1]; the last class is the background."""
        x = self.pixel(features.transpose(1, 2).flatten(0, 1))
        return self._cosine(x, self.background, temperature)

    def sound_logits(self, tokens: Tensor, temperature: float) -> Tensor:
        """[B, T, C] -> cosine logits [B * T, K + 1]; the last class is silence."""
        return self._cosine(self.sound(tokens.flatten(0, 1)), self.silence, temperature)

    def referent_logits(self, mean_cues: Tensor, temperature: float) -> Tensor:
        """[..., C] -> cosine logits [M, K + 1]; the last class is nothing."""
        return self._cosine(self.referent(mean_cues.flatten(0, -2)), self.nothing, temperature)

    def _cosine(self, x: Tensor, extra: Tensor, temperature: float) -> Tensor:
        table = torch.cat([self.embeddings, functional.normalize(extra, dim=1)])
        return functional.normalize(x, dim=1) @ table.T / temperature


def clip_loss(output: ClipOutput, target: Target, names: NameSpace, config: LossConfig) -> dict[str, Tensor]:
    """All parts of the loss, weighted, by name; `total` is their sum."""
    masks = target.masks.flatten(0, 1)
    presence = target.presence.flatten(0, 1)
    parts: dict[str, Tensor] = {}
    last = len(output.predictions) - 1
    features = output.memory.mask_features
    for index, prediction in enumerate(output.predictions):
        weight = 1.0 if index == last else config.inner_layers
        cross_entropy, dice = mask_losses(prediction.mask_logits(features), masks)
        _add(parts, "cross_entropy", weight * config.cross_entropy * cross_entropy.mean())
        _add(parts, "dice", weight * config.dice * dice.mean())
    query_class = matched_query_loss(output.predictions[last], features, masks, presence, config.no_object)
    parts["query_class"] = config.query_class * query_class
    logits = output.presence_logits.flatten(0, 1)
    parts["presence"] = config.presence * functional.binary_cross_entropy_with_logits(logits, presence)
    parts["pixel_names"] = config.pixel_names * _pixel_names(output, target, names, config)
    parts["sound_names"] = config.sound_names * _sound_names(output, target, names, config)
    parts["referent_names"] = config.referent_names * referent_loss(output, target, names, config.temperature)
    parts["total"] = torch.stack(list(parts.values())).sum()
    return parts


def mask_losses(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice loss of each mask.

    dice = 1 - (2 sum p m + 1) / (sum p + sum m + 1), with p = sigmoid(logits).

    Args:
        logits, masks: [..., h, w].

    Returns:
        two tensors [...].
    """
    logits = logits.to(masks.dtype)  # sums over thousands of pixels: not in half precision
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(
        dim=(-2, -1)
    )
    share = torch.sigmoid(logits)
    overlap = (share * masks).sum(dim=(-2, -1))
    dice = 1 - (2 * overlap + 1) / (share.sum(dim=(-2, -1)) + masks.sum(dim=(-2, -1)) + 1)
    return cross_entropy, dice


def matched_query_loss(
    prediction: QueryPrediction, features: Tensor, masks: Tensor, presence: Tensor, no_object: float
) -> Tensor:
    """Classification of the queries: the one that fits the truth best is the object, the others are not.

    A sentence has at most one object, so Hungarian matching is the smallest cost over the queries; the cost is Mask2Former's
    (class probability, cross-entropy, dice). The matched query's own mask is trained as well.
    """
    per_query = (prediction.embeddings @ features.flatten(2)[:, None]).unflatten(-1, features.shape[-2:])
    cross_entropy, dice = mask_losses(per_query, masks[:, :, None].expand_as(per_query))
    cost = (5 * cross_entropy + 5 * dice - 2 * prediction.object_share()).detach()
    matched = functional.one_hot(cost.argmin(dim=-1), cost.shape[-1]) * (presence > 0)[..., None]
    logs = prediction.object_logits.log_softmax(dim=-1)
    weight = torch.where(matched > 0, 1.0, no_object)
    classes = -(torch.where(matched > 0, logs[..., 1], logs[..., 0]) * weight).sum() / weight.sum()
    count = matched.sum().clamp(min=1)
    own = ((5 * cross_entropy + 5 * dice) * matched).sum() / count
    return 2 * classes + own


def referent_loss(output: ClipOutput, target: Target, names: NameSpace, temperature: float) -> Tensor:
    """Classification of the mean cues on what each sentence means, or on nothing; unknown classes do not count."""
    logits = names.referent_logits(output.mean_cues, temperature)
    labels = target.referents.flatten()
    labels = torch.where(labels == -1, logits.shape[1] - 1, labels)
    each = functional.cross_entropy(logits, labels, reduction="none", ignore_index=-2)
    return each.sum() / (labels != -2).sum().clamp(min=1)


def _pixel_names(output: ClipOutput, target: Target, names: NameSpace, config: LossConfig) -> Tensor:
    logits = names.pixel_logits(output.memory.level_mask_features[_STRIDE_8], config.temperature)
    background = logits.shape[1] - 1
    labels = target.names.flatten()
    labels = torch.where(labels == -1, background, labels)
    balance = torch.where(labels == background, _BACKGROUND_WEIGHT, 1.0)
    each = functional.cross_entropy(logits, labels, reduction="none", ignore_index=-2)
    return (each * balance).sum() / (balance * (labels != -2)).sum().clamp(min=1)


def _sound_names(output: ClipOutput, target: Target, names: NameSpace, config: LossConfig) -> Tensor:
    logits = names.sound_logits(output.audio_tokens, config.temperature)
    shares = target.sounds.flatten(0, 1)
    counted = shares.sum(dim=1)
    return -(shares * logits.log_softmax(dim=1)).sum() / counted.sum().clamp(min=1)


def _add(parts: dict[str, Tensor], name: str, value: Tensor) -> None:
    parts[name] = parts[name] + value if name in parts else value
