"""The masked-attention mask decoder in Mask2Former's form (arXiv 2112.01527), over a pixel memory that sentences share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from refavs_rt.config import ModelConfig
from refavs_rt.contract import PYRAMID_STRIDES

from .layers import Attention, FeedForward, ProjectedAttention
from .pixel import PixelMemory


@dataclass
class QueryPrediction:
    """What one decoder layer predicts."""

    embeddings: Tensor
    """[B, N, Q, D]: mask embeddings; a query's mask logits are embeddings x mask features."""
    object_logits: Tensor
    """[B, N, Q, 2]: class logits, (no object, object)."""

    def object_share(self) -> Tensor:
        """Probability [B, N, Q] that a query holds the referred object."""
        return self.object_logits.softmax(dim=-1)[..., 1]

    def mask_logits(self, mask_features: Tensor) -> Tensor:
        """sum_q softmax(class)_q (embedding_q . F): [B, N, h, w]; one vector a sentence, not Q masks."""
        vector = (self.object_share().unsqueeze(-1) * self.embeddings).sum(dim=2)
        flat = vector @ mask_features.flatten(2)
        return flat.unflatten(-1, mask_features.shape[-2:])


class MaskDecoder(nn.Module):
    """Queries of N sentences attend to the pixels that their own masks cover, then to each other."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.levels = len(PYRAMID_STRIDES)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(width)
        self.object = nn.Linear(width, 2)
        last = nn.Linear(width, config.pixel_width)
        with torch.no_grad():  # small first mask logits: a sum over queries of products of pixel_width terms
            last.weight.mul_(0.01)
        self.embedding = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last
        )

    def forward(
        self, queries: Tensor, query_place: Tensor, memory: PixelMemory
    ) -> tuple[Tensor, list[QueryPrediction]]:
        """Decode.

        Args:
            queries: prompted queries [B, N, Q, E], E = `decoder_width`.
            query_place: learned query positions [Q, E].
            memory: the frame's pixel memory, leading axis B.

        Returns:
            the last queries [B, N, Q, E] and a prediction before the first and after each layer.
        """
        predictions = [self._predict(queries)]
        for index, layer in enumerate(self.layers):
            features = memory.level_mask_features[index % self.levels]
            logits = predictions[-1].embeddings.detach() @ features.detach()[:, None]  # [B, N, Q, S]
            queries = layer(queries, query_place, memory.keys[index], memory.values[index], logits)
            predictions.append(self._predict(queries))
        return queries, predictions

    def _predict(self, queries: Tensor) -> QueryPrediction:
        x = self.norm(queries)
        return QueryPrediction(self.embedding(x), self.object(x))


class _Layer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward, each with residual and norm after it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, heads = config.decoder_width, config.decoder_heads
        self.cross = ProjectedAttention(width, heads)
        self.norm_cross = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads)
        self.norm_self = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, config.decoder_hidden, activation=config.decoder_activation)
        self.norm_feed_forward = nn.LayerNorm(width)

    def forward(self, x: Tensor, place: Tensor, keys: Tensor, values: Tensor, logits: Tensor) -> Tensor:
        sentences, queries = x.shape[1:3]
        folded = (x + place).flatten(1, 2)
        attended = self.cross.attend_where(folded, keys, values, logits.flatten(1, 2))
        attended = attended.unflatten(1, (sentences, queries))
        x = self.norm_cross(x + attended)
        y = x + place
        x = self.norm_self(x + self.self_attention(y, y, x))
        return self.norm_feed_forward(x + self.feed_forward(x))


class PresenceHead(nn.Module):
    """Whether anything in the frame fits the sentence, from the mean cue and the queries that claim the object."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = FeedForward(2 * config.decoder_width, config.decoder_width, 1)

    def forward(self, mean_cue: Tensor, queries: Tensor, object_share: Tensor) -> Tensor:
        """Logits [B, N] of `mean_cue` [B, N, E], `queries` [B, N, Q, E] and `object_share` [B, N, Q]."""
        claimed = (queries * object_share.unsqueeze(-1)).sum(dim=2)
        return self.layers(torch.cat([mean_cue, claimed], dim=-1)).squeeze(-1)
