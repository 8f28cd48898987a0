"""Cached-memory temporal attention: the formulas of EEMC's temporal bi-modal transformer (paper section 4.2).

One branch (audio or visual) attends over the ticks of its modality and over the sentence. With queries q, keys k and values
v per head, each part of the keys gives a partial result

    lse = log sum_j exp(q k_j / sqrt(d)),    o = sum_j exp(q k_j / sqrt(d) - lse) v_j

and parts are merged exactly by their log-sum-exp. So attention over the ring, which no sentence changes, is computed once and
merged with each sentence's text part. The cached memory acts on the attended output o before the output projection W_o, b_o:

    m_t = m_{t-1} + w_t (o_t - m_{t-1}),     f'_t = W_o ((1 + beta) o_t - m_t) + beta b_o

which equals (1 + beta) f_t - mean(f) for f = W_o o + b_o, since the projection is linear.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[..., K, C] -> [..., heads, K, C / heads]."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """[..., heads, K, d] -> [..., K, heads * d]."""
    return x.transpose(-3, -2).flatten(-2)


def partial_attention(
    q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention of `q` [..., Q, d] over one part of the keys [..., K, d], with its log-sum-exp.

    Args:
        key_mask: True where a key may be seen, broadcast over [..., Q, K]. Each query must see at least one key.

    Returns:
        o [..., Q, d] and lse [..., Q]; lse, on which merging hangs, in float32 at least.
    """
    scores = (q * (1.0 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask, float("-inf"))
    top = scores.amax(dim=-1, keepdim=True).detach()
    weights = torch.exp(scores - top)
    total = weights.sum(dim=-1, keepdim=True)
    return (weights.to(v.dtype) @ v) / total, (top + torch.log(total)).squeeze(-1)


def merge_partial(o_a: Tensor, lse_a: Tensor, o_b: Tensor, lse_b: Tensor) -> Tensor:
    """The attention over the union of two disjoint parts of the keys, from their partial results."""
    share = torch.sigmoid(lse_a - lse_b).unsqueeze(-1)
    return o_b + share * (o_a - o_b)


def band_mask(ticks: int, window: int, device: torch.device | None = None) -> Tensor:
    """[T, T] bool, True where query tick t sees key tick j: t - window < j <= t."""
    t = torch.arange(ticks, device=device)
    age = t[:, None] - t[None, :]
    return (age >= 0) & (age < window)


def cached_memory(o: Tensor, mean: Tensor, weight: Tensor, beta: float) -> Tensor:
    """(1 + beta) o_t - m_t with m_t = mean + weight (o_t - mean), before the output projection.

    Args:
        o: attended outputs of the present tick, [N, ..., C].
        mean: the mean m_{t-1} of the earlier ticks, as `o`.
        weight: w_t [N]; 1 / t for the mean over all ticks.
    """
    weight = weight.reshape(-1, *([1] * (o.dim() - 1)))
    return (1.0 + beta) * o - (mean + weight * (o - mean))


def prefix_mean(o: Tensor, added_at: Tensor) -> Tensor:
    """Mean over the ticks from `added_at` to t, at every tick t.

    Args:
        o: [B, N, T, ...].
        added_at: [B, N] int, first tick of each sentence. Ticks before it hold zeros.
    """
    ticks = o.shape[2]
    count = torch.arange(1, ticks + 1, device=o.device) - added_at[..., None]
    shape = (*count.shape, *([1] * (o.dim() - 3)))
    heard = (count > 0).reshape(shape)
    total = torch.where(heard, o, torch.zeros_like(o)).cumsum(dim=2)
    return total / count.clamp(min=1).reshape(shape).to(o.dtype)
