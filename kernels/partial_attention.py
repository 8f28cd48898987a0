"""What the references of attention share: heads, and attention over one part of the keys, merged exactly with others.

With queries q, keys k and values v per head, each part of the keys gives a partial result

    lse = log sum_j exp(q k_j / sqrt(d)),    o = sum_j exp(q k_j / sqrt(d) - lse) v_j

and parts are merged by their log-sum-exp. So attention over the ring of past ticks, which no sentence changes, is computed once
and merged with each sentence's words.
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
