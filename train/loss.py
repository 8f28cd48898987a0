"""The loss of a batch: the paper's parts (mask cross-entropy, dice, matched queries) and dense supervision beside them.

Every part is a sum over items divided by a count that depends on the targets alone. Counts are summed over micro-batches and
processes before any of them computes its loss; then the losses of all add up to the loss of the whole step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from refavs_rt.config import ModelConfig
from refavs_rt.contract import PYRAMID_STRIDES
from refavs_rt.model.eemc import ClipOutput

from .set_loss import SetLossConfig, SetLossSums, draw_points, mask_losses, set_loss

COUNT_NAMES = ("sentences", "objects", "cells", "sounds", "referents")
"""What `loss_counts` counts, over all decoded ticks: sentences, those whose object is there, classified cells of pictures
(weighted), classified sounds (of all ticks), sentences whose referent's class is known."""

_HEADS = ("cue_masks", "pixel_names", "sound_names", "referent_names")
"""Parts with a head of their own, for training only."""
_STRIDE_8 = PYRAMID_STRIDES.index(8)
_DENSE_QUERIES = SetLossConfig(classification=0.2, cross_entropy=0.5, dice=0.5, inner_layers=0.0, points=0)
_NO_QUERIES = SetLossConfig(classification=0.0, cross_entropy=0.0, dice=0.0)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the parts; one of weight 0 is not computed. By default "dense": what teaches a small network soonest."""

    cross_entropy: float = 2.0
    """Of the sentence's mask, which is the sum of all queries' masks, each times its share of the object."""
    dice: float = 1.0
    """Of the sentence's mask."""
    inner_layers: float = 0.3
    """Of the sentence's mask of every prediction but the last, times the two weights above."""
    queries: SetLossConfig = _DENSE_QUERIES
    """Of the single queries, matched with the true masks."""
    presence: float = 0.2
    cue_masks: float = 1.0
    """Of the sentence's mask, read off the cues that began as visual tokens."""
    pixel_names: float = 0.5
    sound_names: float = 0.4
    referent_names: float = 0.3
    background: float = 0.1
    """Of a cell of the background, beside 1 for a cell of an object, in the classification of pixels."""
    temperature: float = 0.07

    def __post_init__(self) -> None:
        parts = ("cross_entropy", "dice", "presence", *_HEADS)
        for name in (*parts, "inner_layers", "background"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"the weight {name} of the loss must be 0 or more, not {getattr(self, name)}"
                )
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if not self.queries.wanted and not any(getattr(self, name) for name in parts):
            raise ValueError("every part of the loss has weight 0")


AUTHORS_LOSS = LossConfig(
    cross_entropy=1.0,
    dice=0.0,
    inner_layers=0.0,
    queries=_NO_QUERIES,
    presence=0.0,
    cue_masks=0.0,
    pixel_names=0.0,
    sound_names=0.0,
    referent_names=0.0,
)
"""What the published code minimises, and all of it: the mean cross-entropy of the sentence's mask after the last layer.

Its Mask2Former is called without class labels, so the set loss within stays unused: no dice, no matching, no inner layers. Its
share of the object is the softmax of the first class of ADE against no object, ours a head of two classes. It reads the loss off
masks resized to 256 x 256 pixels with hard truth; ours is at stride 4 with the shares that cells are covered by. Nothing teaches
presence: evaluate with `presence_threshold` 0.
"""

PAPER_LOSS = LossConfig(
    cross_entropy=1.0,
    dice=0.0,
    inner_layers=0.0,
    queries=SetLossConfig(),
    presence=0.2,
    cue_masks=0.0,
    pixel_names=0.0,
    sound_names=0.0,
    referent_names=0.0,
)
"""Mask2Former's set loss over the queries, and the published code's cross-entropy of the mask that they make together.

The weights 2, 5 and 5 of the queries (class, cross-entropy, dice), 0.1 of no object, 1 of every inner layer and the 12,544
points, three candidates for each and three quarters of them by importance, are the defaults of Mask2Former, which the authors
build on; their code sets no others, and does not use these (see `AUTHORS_LOSS`). The sentence's cross-entropy of weight 1 is
what it does use: matching alone leaves the mask of a sentence that nothing fits at logits near 0, which the threshold of 0.4
calls covered. The presence head is ours and the runtime asks it, so it is trained, with the weight of the dense loss.
"""


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
    point_seeds: Tensor
    """[B] int64: of the points that each clip's set loss samples."""


class NameSpace(nn.Module):
    """Classification of pixels, sounds and mean cues against the sentence encoder's embeddings of all objects' names, and of
    visual cues as inside or outside what their sentence means.

    It is the mask features that are classified, so that they and what the cues ask for come to speak one language.

    Heads for training only: they are not part of the network and are not exported.
    """

    embeddings: Tensor

    def __init__(self, embeddings: Tensor, config: ModelConfig) -> None:
        """`embeddings`: [K, E], one a name; centred and normalised here. `config`: of the network that is trained."""
        super().__init__()
        centred = embeddings - embeddings.mean(dim=0)
        self.register_buffer("embeddings", functional.normalize(centred, dim=1))
        self.background = nn.Parameter(torch.randn(1, embeddings.shape[1]) * 0.05)
        self.silence = nn.Parameter(torch.randn(1, embeddings.shape[1]) * 0.05)
        self.pixel = nn.Linear(config.pixel_width, embeddings.shape[1])
        self.nothing = nn.Parameter(torch.randn(1, embeddings.shape[1]) * 0.05)
        self.sound = nn.Linear(config.width, embeddings.shape[1])
        self.referent = nn.Linear(config.decoder_width, embeddings.shape[1])
        self.cue = nn.Linear(config.decoder_width, 1)

    def pixel_logits(self, features: Tensor, temperature: float) -> Tensor:
        """[B, D, S] -> cosine logits [B * S, K + 1]; the last class is the background."""
        x = self.pixel(features.transpose(1, 2).flatten(0, 1))
        return self._cosine(x, self.background, temperature)

    def sound_logits(self, tokens: Tensor, temperature: float) -> Tensor:
        """[B, T, C] -> cosine logits [B * T, K + 1]; the last class is silence."""
        return self._cosine(self.sound(tokens.flatten(0, 1)), self.silence, temperature)

    def referent_logits(self, mean_cues: Tensor, temperature: float) -> Tensor:
        """[..., E] of the decoder's width -> cosine logits [M, K + 1]; the last class is nothing."""
        return self._cosine(self.referent(mean_cues.flatten(0, -2)), self.nothing, temperature)

    def cue_logits(self, visual_cues: Tensor) -> Tensor:
        """[..., P, E] of the decoder's width -> logits [..., P] of a mask."""
        return self.cue(visual_cues).squeeze(-1)

    def _cosine(self, x: Tensor, extra: Tensor, temperature: float) -> Tensor:
        table = torch.cat([self.embeddings, functional.normalize(extra, dim=1)])
        return functional.normalize(x, dim=1) @ table.T / temperature


def loss_counts(target: Target, config: LossConfig) -> Tensor:
    """What the sums of the loss are divided by: one count for each of `COUNT_NAMES`, float64, on the target's device.

    The counts of the parts of a batch add up to the counts of the batch.
    """
    counts = (
        torch.ones_like(target.presence),
        target.presence > 0,
        _cell_weights(target.names, config),
        target.sounds,
        target.referents != -2,
    )
    return torch.stack([count.sum(dtype=torch.float64) for count in counts])


def clip_loss(
    output: ClipOutput, target: Target, names: NameSpace, config: LossConfig, counts: Tensor | None = None
) -> dict[str, Tensor]:
    """The weighted parts of the loss by name, those of weight 0 left out, and `total`, their sum.

    Args:
        output: of the network for the clips of `target`, in any precision; the sums are taken in that of the target's masks.
        counts: of the whole step that these clips are a part of, as `loss_counts` gives them; None: of these clips.
    """
    counts = loss_counts(target, config) if counts is None else counts
    sentences, objects, cells, sounds, referents = counts.to(target.masks.device, target.masks.dtype).unbind()
    parts: dict[str, Tensor] = {}

    def add(name: str, weight: float, total: Tensor, count: Tensor) -> None:
        if weight:
            parts[name] = weight * total / count

    if config.cross_entropy or config.dice:
        cross_entropy, dice = _sentence_masks(output, target, config)
        add("cross_entropy", config.cross_entropy, cross_entropy, sentences)
        add("dice", config.dice, dice, sentences)
    if config.queries.wanted:
        weights, sums = config.queries, _query_sums(output, target, config.queries)
        queries = output.predictions[-1].embeddings.shape[2] * sentences
        classified = objects + weights.no_object * (queries - objects)
        smallest = torch.finfo(classified.dtype).tiny
        add("query_class", weights.classification, sums.classification, classified.clamp(min=smallest))
        add("query_cross_entropy", weights.cross_entropy, sums.cross_entropy, objects.clamp(min=1))
        add("query_dice", weights.dice, sums.dice, objects.clamp(min=1))
    if config.presence:
        add("presence", config.presence, _presence(output, target), sentences)
    if config.cue_masks:
        add("cue_masks", config.cue_masks, _cue_masks(output, target, names), sentences)
    if config.pixel_names:
        total = _pixel_names(output, target, names, config)
        add("pixel_names", config.pixel_names, total, cells.clamp(min=1))
    if config.sound_names:
        total = _sound_names(output, target, names, config)
        add("sound_names", config.sound_names, total, sounds.clamp(min=1))
    if config.referent_names:
        total = _referent_names(output, target, names, config)
        add("referent_names", config.referent_names, total, referents.clamp(min=1))
    parts["total"] = torch.stack(list(parts.values())).sum()
    return parts


def finite_clips(output: ClipOutput, target: Target) -> Tensor:
    """[B] bool: whether all that a clip's loss is computed from is finite; the others are the bad samples of a step."""
    batch = len(target.masks)
    read = (
        output.mask_logits,
        output.presence_logits,
        output.mean_cues.unflatten(0, (batch, -1)),
        output.visual_cues.unflatten(0, (batch, -1)),
        output.audio_tokens,
        target.masks,
        target.sounds,
    )
    return torch.stack([torch.isfinite(x).flatten(1).all(dim=1) for x in read]).all(dim=0)


def _sentence_masks(output: ClipOutput, target: Target, config: LossConfig) -> tuple[Tensor, Tensor]:
    """Sums of cross-entropy and dice of the sentences' masks over weighted layers."""
    masks = target.masks.flatten(0, 1).flatten(2)
    features = output.memory.mask_features
    weights = [config.inner_layers] * (len(output.predictions) - 1) + [1.0]
    sums = [
        weight
        * torch.stack(mask_losses(prediction.mask_logits(features).flatten(2), masks)).flatten(1).sum(1)
        for prediction, weight in zip(output.predictions, weights, strict=True)
        if weight
    ]
    cross_entropy, dice = torch.stack(sums).sum(dim=0)
    return cross_entropy, dice


def _query_sums(output: ClipOutput, target: Target, config: SetLossConfig) -> SetLossSums:
    """The set loss, where each sentence has one true mask or none."""
    ticks, _, height, width = target.masks.shape[1:]
    masks = target.masks.flatten(0, 1).unsqueeze(2)
    valid = target.presence.flatten(0, 1).unsqueeze(2) > 0
    points = draw_points(target.point_seeds, ticks, height * width, config)
    return set_loss(output.predictions, output.memory.mask_features, masks, valid, config, points)


def _presence(output: ClipOutput, target: Target) -> Tensor:
    logits = output.presence_logits.to(target.presence.dtype)
    return functional.binary_cross_entropy_with_logits(logits, target.presence, reduction="sum")


def _cue_masks(output: ClipOutput, target: Target, names: NameSpace) -> Tensor:
    """Sum of cross-entropy and dice of the coarse masks of the visual cues."""
    logits = names.cue_logits(output.visual_cues)
    side = math.isqrt(logits.shape[-1])
    masks = functional.adaptive_avg_pool2d(target.masks.flatten(0, 1), side).flatten(2)
    return torch.stack(mask_losses(logits, masks)).sum()


def _pixel_names(output: ClipOutput, target: Target, names: NameSpace, config: LossConfig) -> Tensor:
    logits = names.pixel_logits(output.memory.level_mask_features[_STRIDE_8], config.temperature)
    losses = _class_losses(logits, target.names.flatten())
    return (losses * _cell_weights(target.names, config).flatten().to(losses.dtype)).sum()


def _cell_weights(labels: Tensor, config: LossConfig) -> Tensor:
    """Weight of each cell of `names` in the classification of pixels."""
    weights = torch.ones_like(labels, dtype=torch.float64)
    return weights.masked_fill(labels == -1, config.background).masked_fill(labels == -2, 0)


def _sound_names(output: ClipOutput, target: Target, names: NameSpace, config: LossConfig) -> Tensor:
    logits = names.sound_logits(output.audio_tokens, config.temperature)
    return -(target.sounds.flatten(0, 1) * logits.log_softmax(dim=1)).sum()


def _referent_names(output: ClipOutput, target: Target, names: NameSpace, config: LossConfig) -> Tensor:
    logits = names.referent_logits(output.mean_cues, config.temperature)
    return _class_losses(logits, target.referents.flatten()).sum()


def _class_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy [M] of logits [M, K + 1]; the label -1 is the last class, and -2 costs nothing."""
    labels = torch.where(labels == -1, logits.shape[1] - 1, labels)
    return functional.cross_entropy(logits, labels, reduction="none", ignore_index=-2)
