"""The temporal bi-modal transformer with cached memory (paper section 4.2), as a clip and as a stream.

Two bare multi-head attentions, one over the audio tokens of the ticks and the sentence, one over the visual tokens of the
ticks and the sentence: no positions, residuals, norms or feed-forward. So keys and values of an old tick never change, and a
ring of them is an exact cache that all sentences share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from refavs_rt.kernels.memory_attention import (
    cached_memory,
    join_heads,
    merge_partial,
    partial_attention,
    prefix_mean,
    split_heads,
)


@dataclass
class Projected:
    """Queries, keys and values [..., K, C] of some tokens of one branch."""

    q: Tensor
    k: Tensor
    v: Tensor


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

    def remember(self, o: Tensor, mean: Tensor, weight: Tensor) -> Tensor:
        """f' of the attended output `o` [N, P, C], the previous mean and the weight of the present one [N]."""
        if not self.memory:
            return self.out(o)
        return self._output(cached_memory(o, mean, weight, self.beta))

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
        heads = self.heads
        ticks, tokens = modality.q.shape[1:3]
        sentences, length = text.q.shape[1:3]
        q, k, v = (
            split_heads(x.flatten(1, 2), heads) for x in (modality.q, modality.k, modality.v)
        )  # [B, h, T*P, d]
        t_q, t_k, t_v = (split_heads(x, heads) for x in (text.q, text.k, text.v))  # [B, N, h, L, d]

        seen = band.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
        o_ring, lse_ring = partial_attention(q, k, v, seen)
        o_text, lse_text = partial_attention(q[:, None], t_k, t_v, text_mask[:, :, None, None, :])
        o = join_heads(merge_partial(o_ring[:, None], lse_ring[:, None], o_text, lse_text))
        o = o.unflatten(2, (ticks, tokens))  # [B, N, T, P, C]
        if self.memory:
            remembered = self._output((1.0 + self.beta) * o - prefix_mean(o, added_at))
        else:
            remembered = self.out(o)

        # A sentence's queries are the same at every tick, so each tick's keys are attended to once and the partial results
        # are merged over the band.
        folded = t_q.transpose(1, 2).flatten(2, 3)  # [B, h, N*L, d]
        k_ticks, v_ticks = (
            x.unflatten(2, (ticks, tokens)).transpose(1, 2) for x in (k, v)
        )  # [B, T, h, P, d]
        o_tick, lse_tick = partial_attention(folded[:, None], k_ticks, v_ticks)  # [B, T, h, N*L, d]
        share = lse_tick.unsqueeze(1).masked_fill(
            ~band[None, :, :, None, None], float("-inf")
        )  # [B, T, T', h, N*L]
        lse_band = torch.logsumexp(share, dim=2)
        o_band = torch.einsum("btjhq,bjhqd->bthqd", (share - lse_band.unsqueeze(2)).exp(), o_tick)
        o_own, lse_own = partial_attention(t_q, t_k, t_v, text_mask[:, :, None, None, :])  # [B, N, h, L, d]
        o_band = o_band.unflatten(3, (sentences, length)).permute(0, 3, 1, 2, 4, 5)  # [B, N, T, h, L, d]
        lse_band = lse_band.unflatten(3, (sentences, length)).permute(0, 3, 1, 2, 4)
        merged = merge_partial(o_band, lse_band, o_own[:, :, None], lse_own[:, :, None])
        return ClipAttended(remembered, self.out(join_heads(merged)))

    def ring_partial(self, present: Projected, ring: Projected, ring_seen: Tensor) -> tuple[Tensor, Tensor]:
        """The present queries over the ring and the present: the part that no sentence changes.

        Args:
            present: [B, P, C] each.
            ring: keys and values [B, R, P, C] of the past ticks (`q` unused).
            ring_seen: [B, R] bool.

        Returns:
            o [B, P, C] and lse [B, h, P].
        """
        q = split_heads(present.q, self.heads)
        k, v, mask = self._window(present, ring, ring_seen)
        o, lse = partial_attention(q, k, v, mask)
        return join_heads(o), lse

    def step(
        self,
        present: Projected,
        partial: tuple[Tensor, Tensor],
        ring: Projected,
        ring_seen: Tensor,
        text: Projected,
        text_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """One tick of N sentences that share a camera.

        Args:
            present, ring, ring_seen: as in `ring_partial`, with B = 1.
            partial: what `ring_partial` returned.
            text: [N, L, C] each.
            text_mask: [N, L] bool.

        Returns:
            o [N, P, C], the modality's attended outputs before memory and projection, and the sentence's outputs [N, L, C].
        """
        heads = self.heads
        o_ring, lse_ring = partial
        q = split_heads(present.q, heads)  # [1, h, P, d]
        t_q, t_k, t_v = (split_heads(x, heads) for x in (text.q, text.k, text.v))  # [N, h, L, d]
        o_text, lse_text = partial_attention(q, t_k, t_v, text_mask[:, None, None, :])
        o = join_heads(merge_partial(split_heads(o_ring, heads), lse_ring, o_text, lse_text))

        k, v, mask = self._window(present, ring, ring_seen)
        length = t_q.shape[2]
        folded = t_q.transpose(0, 1).flatten(1, 2)[None]  # [1, h, N*L, d]
        o_band, lse_band = partial_attention(folded, k, v, mask)
        o_band = o_band[0].unflatten(1, (-1, length)).transpose(0, 1)  # [N, h, L, d]
        lse_band = lse_band[0].unflatten(1, (-1, length)).transpose(0, 1)
        o_own, lse_own = partial_attention(t_q, t_k, t_v, text_mask[:, None, None, :])
        return o, self.out(join_heads(merge_partial(o_band, lse_band, o_own, lse_own)))

    def _window(
        self, present: Projected, ring: Projected, ring_seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values [B, h, (R + 1) * P, d] of the ring and the present, and their mask [B, 1, 1, (R + 1) * P]."""
        tokens = present.k.shape[1]
        k = split_heads(torch.cat([ring.k.flatten(1, 2), present.k], dim=1), self.heads)
        v = split_heads(torch.cat([ring.v.flatten(1, 2), present.v], dim=1), self.heads)
        seen = torch.cat([ring_seen, torch.ones_like(ring_seen[:, :1])], dim=1)
        return k, v, seen[:, :, None].expand(-1, -1, tokens).flatten(1)[:, None, None, :]

    def _output(self, inner: Tensor) -> Tensor:
        """W_o inner + beta b_o: the projection of (1 + beta) o - mean(o)."""
        weight, bias = self.out.weight, self.out.bias
        return nn.functional.linear(inner, weight, self.beta * bias)
