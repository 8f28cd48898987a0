"""The temporal bi-modal transformer with cached memory (paper section 4.2), as a clip and as a stream.

Two bare multi-head attentions, one over the audio tokens of the ticks and the sentence, one over the visual tokens of the
ticks and the sentence: no positions, residuals, norms or feed-forward. So keys and values of an old tick never change, and a
ring of them is an exact cache that all sentences share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from refavs_rt.kernels.memory_clip import cumulative_weight, memory_clip
from refavs_rt.kernels.memory_step import memory_step, ring_attention


@dataclass
class Projected:
    """Queries, keys and values [..., K, C] of some tokens of one branch."""

    q: Tensor
    k: Tensor
    v: Tensor


@dataclass
class StepAttended:
    """One branch's outputs at one tick."""

    remembered: Tensor
    """[N, P, C]: the modality's outputs after the cached memory and the projection."""
    attended: Tensor
    """[N, P, C]: o, before both: what a commit takes into the mean."""
    text: Tensor
    """[N, L, C]: the sentence's outputs (no memory)."""


@dataclass
class ClipAttended:
    """One branch's outputs at every tick of a clip."""

    remembered: Tensor
    """[B, N, T, P, C]: the modality's outputs after the cached memory and the projection."""
    text: Tensor
    """[B, N, T, L, C]: the sentence's outputs (no memory)."""


class TemporalBranch(nn.Module):
    """One modality and the sentence, attending to each other over a window of ticks."""

    def __init__(self, width: int, heads: int, beta: float, memory: bool = True) -> None:
        """`memory`: whether outputs pass the cached memory."""
        super().__init__()
        self.heads = heads
        self.beta = beta
        self.memory = memory
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def project(self, tokens: Tensor) -> Projected:
        """Queries, keys and values of `tokens` [..., C]."""
        return Projected(*self.qkv(tokens).chunk(3, dim=-1))

    def clip(
        self, modality: Projected, text: Projected, text_mask: Tensor, band: Tensor, added_at: Tensor
    ) -> ClipAttended:
        """All ticks at once.

        Args:
            modality: [B, T, P, C] each.
            text: [B, N, L, C] each.
            text_mask: [B, N, L] bool, False on padding.
            band: [T, T] bool, True where query tick t sees key tick j.
            added_at: [B, N] int, the first tick of each sentence.
        """
        weight = cumulative_weight(
            added_at, modality.q.shape[1], torch.promote_types(text.q.dtype, torch.float32)
        )
        inner, text_o = memory_clip(
            modality.q,
            modality.k,
            modality.v,
            band,
            text.q,
            text.k,
            text.v,
            text_mask,
            weight if self.memory else torch.zeros_like(weight),
            self._beta,
            self.heads,
        )
        return ClipAttended(self._output(inner), self.out(text_o))

    def ring_partial(self, present: Projected, ring: Projected, ring_seen: Tensor) -> tuple[Tensor, Tensor]:
        """The present queries over the ring and the present: the part that no sentence changes.

        Args:
            present: [B, P, C] each.
            ring: keys and values [B, R, P, C] of the past ticks (`q` unused).
            ring_seen: [B, R] bool.

        Returns:
            o [B, P, C] and lse [B, h, P].
        """
        return ring_attention(present.q, present.k, present.v, ring.k, ring.v, ring_seen, self.heads)

    def step(
        self,
        present: Projected,
        partial: tuple[Tensor, Tensor] | None,
        ring: Projected,
        ring_seen: Tensor,
        text: Projected,
        text_mask: Tensor,
        mean: Tensor,
        weight: Tensor,
    ) -> StepAttended:
        """One tick of N sentences that share a camera.

        Args:
            present, ring, ring_seen: as in `ring_partial`, with B = 1.
            partial: what `ring_partial` returned, or None to have it made here, in the same launch.
            text: [N, L, C] each.
            text_mask: [N, L] bool.
            mean: [N, P, C], of the ticks before.
            weight: [N], of this tick in the mean.
        """
        if not self.memory:
            mean, weight = torch.zeros_like(mean), torch.zeros_like(weight)
        partial_o, partial_lse = (None, None) if partial is None else (partial[0][0], partial[1][0])
        inner, attended, _, text_o = memory_step(
            present.q[0],
            present.k[0],
            present.v[0],
            ring.k[0],
            ring.v[0],
            ring_seen[0],
            text.q,
            text.k,
            text.v,
            text_mask,
            mean,
            weight,
            self._beta,
            self.heads,
            partial_o,
            partial_lse,
        )
        return StepAttended(self._output(inner), attended, self.out(text_o))

    @property
    def _beta(self) -> float:
        return self.beta if self.memory else 0.0

    def _output(self, inner: Tensor) -> Tensor:
        """W_o inner + beta b_o: the projection of (1 + beta) o - mean(o); without memory W_o o + b_o."""
        share = self.beta if self.memory else 1.0
        return nn.functional.linear(inner, self.out.weight, share * self.out.bias)
