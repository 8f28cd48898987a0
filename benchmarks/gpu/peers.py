"""What a good engineer would write without our kernels: torch's fused attention, and a separate epilogue.

Each peer gets what suits it laid out beforehand, outside the clock: keys side by side, masks as it takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from refavs_rt.kernels.partial_attention import join_heads, split_heads

Prepared = tuple[Callable[..., Any], dict[str, Any]]
"""A function and its arguments."""


def peer(op: str, arguments: dict[str, Any]) -> Prepared | None:
    """The peer of an op, with arguments made of the op's; None where torch has nothing but the reference's operators."""
    prepare = {
        "memory_step": _memory_step,
        "ring_attention": _ring_attention,
        "prompt_attention": _prompt_attention,
        "masked_attention": _masked_attention,
        "memory_clip": _memory_clip,
    }.get(op)
    return prepare(**arguments) if prepare else None


def _memory_step(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor, text_q: Tensor, text_k: Tensor,
    text_v: Tensor, text_mask: Tensor, mean: Tensor, weight: Tensor, beta: float, heads: int,
) -> Prepared:  # fmt: skip
    """One attention a sentence: its queries are those of the modality and its words, its keys ring, present and words."""
    sentences, tokens = len(text_q), len(q)

    def beside(ring: Tensor, present: Tensor, text: Tensor) -> Tensor:
        past = torch.cat([ring.flatten(0, 1), present]).expand(sentences, -1, -1)
        return split_heads(torch.cat([past, text], dim=1), heads).contiguous()

    seen = torch.cat([ring_seen, ring_seen.new_ones(1)]).repeat_interleave(tokens).expand(sentences, -1)
    given = {
        "q": beside(q[None, :0], q, text_q),
        "k": beside(ring_k, k, text_k),
        "v": beside(ring_v, v, text_v),
        "mask": torch.cat([seen, text_mask], dim=1)[:, None, None].contiguous(),
        "mean": mean,
        "weight": weight[:, None, None],
    }

    def run(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor, mean: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        attended = join_heads(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        o, text_o = attended[:, :tokens], attended[:, tokens:]
        new = mean + weight * (o - mean)
        return ((1.0 + beta) * o - new).to(o.dtype), o, new, text_o

    return run, given


def _ring_attention(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor, heads: int
) -> Prepared:
    """Torch's fused attention, which keeps its log-sum-exp to itself: this peer does less than the op."""
    keys, values = (
        split_heads(torch.cat([ring.flatten(1, 2), present], 1), heads).contiguous()
        for ring, present in ((ring_k, k), (ring_v, v))
    )
    seen = torch.cat([ring_seen, ring_seen.new_ones(len(q), 1)], 1).repeat_interleave(q.shape[1], 1)
    given = {
        "q": split_heads(q, heads).contiguous(),
        "k": keys,
        "v": values,
        "mask": seen[:, None, None].contiguous(),
    }

    def run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return join_heads(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))

    return run, given


def _prompt_attention(mask: Tensor, heads: int, **tensors: Tensor) -> Prepared:
    """Fused attention, the projection, and the gates and the mean in operators."""

    def run(
        queries: Tensor, q: Tensor, k: Tensor, v: Tensor, source: Tensor, out_weight: Tensor, out_bias: Tensor,
        gate_attention: Tensor, gate_mean: Tensor, mask: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        asked = split_heads(q, heads).expand(len(k), -1, -1, -1)
        o = functional.scaled_dot_product_attention(
            asked, split_heads(k, heads), split_heads(v, heads), attn_mask=mask[:, None, None]
        )
        attended = functional.linear(join_heads(o), out_weight, out_bias)
        share = mask.to(source.dtype).unsqueeze(-1)
        mean = (source * share).sum(1) / share.sum(1)
        return queries + gate_attention.sigmoid() * attended + gate_mean.sigmoid() * mean[:, None], mean

    return run, {**tensors, "mask": mask}


def _masked_attention(q: Tensor, k: Tensor, v: Tensor, logits: Tensor, heads: int) -> Prepared:
    """The boolean mask, then fused attention under it."""

    def run(q: Tensor, k: Tensor, v: Tensor, logits: Tensor) -> Tensor:
        seen = logits >= 0
        seen = seen | ~seen.any(-1, keepdim=True)
        return join_heads(
            functional.scaled_dot_product_attention(
                split_heads(q, heads), split_heads(k, heads), split_heads(v, heads), attn_mask=seen[:, None]
            )
        )

    return run, {"q": q, "k": k, "v": v, "logits": logits}


def _memory_clip(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, text_q: Tensor, text_k: Tensor, text_v: Tensor, text_mask: Tensor,
    weight: Tensor, beta: Tensor, heads: int,
) -> Prepared:  # fmt: skip
    """One attention over all queries and keys of a clip and a sentence under one mask, words once a tick; then the memory by
    matrices, which are made beforehand."""
    clips, ticks, tokens, _ = q.shape
    sentences, words = text_q.shape[1:3]
    tick = torch.arange(ticks, device=q.device)
    of_query = torch.cat([tick.repeat_interleave(tokens), tick.repeat_interleave(words)])
    pairs = seen[of_query][:, tick.repeat_interleave(tokens)]
    mask = torch.cat(
        [
            pairs.expand(clips, sentences, -1, -1),
            text_mask[:, :, None].expand(-1, -1, len(of_query), -1),
        ],
        dim=-1,
    ).flatten(0, 1)[:, None]
    mask = functional.pad(mask, (0, -mask.shape[-1] % 8))[
        ..., : mask.shape[-1]
    ]  # rows aligned, as fused attention wants
    w = weight.float()
    age = tick[:, None] - tick
    between = (tick > tick[None, :, None]) & (tick <= tick[:, None, None])  # [t, j, i]: j < i <= t
    kept = torch.where(between, 1.0 - w[..., None, None, :], 1.0).prod(-1)
    average = (w[..., None, :] * kept * (age >= 0)).to(q.dtype)

    def run(
        q: Tensor, k: Tensor, v: Tensor, text_q: Tensor, text_k: Tensor, text_v: Tensor
    ) -> tuple[Tensor, Tensor]:
        def beside(ring: Tensor, text: Tensor) -> Tensor:
            every = ring.flatten(1, 2)[:, None].expand(-1, sentences, -1, -1)
            return split_heads(torch.cat([every, text], dim=2).flatten(0, 1), heads)

        asked = beside(q, text_q[:, :, None].expand(-1, -1, ticks, -1, -1).flatten(2, 3))
        out = functional.scaled_dot_product_attention(
            asked, beside(k, text_k), beside(v, text_v), attn_mask=mask
        )
        out = join_heads(out).unflatten(0, (clips, sentences))
        o = out[:, :, : ticks * tokens].unflatten(2, (ticks, tokens))
        mean = (average @ o.flatten(3)).view_as(o)
        return (1.0 + beta.to(o.dtype)) * o - mean, out[:, :, ticks * tokens :].unflatten(2, (ticks, words))

    return run, {"q": q, "k": k, "v": v, "text_q": text_q, "text_k": text_k, "text_v": text_v}
