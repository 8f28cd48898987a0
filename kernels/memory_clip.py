"""Cached-memory temporal attention over a clip: all ticks at once, forward and backward (paper section 4.2).

Of one head of d channels, with s_ij = q_i k_j / sqrt(d). A modality's query i of tick t sees the keys of every tick that t
sees, and the words of sentence n; a word's query l sees at tick t the same keys:

    o[n, t, i]      = attention of query i of tick t over the seen ticks' keys and the words of n,     lse likewise
    text_o[n, t, l] = attention of word l of n over the seen ticks' keys and the words of n,           text_lse likewise
    m[n, t]         = m[n, t - 1] + w[n, t] (o[n, t] - m[n, t - 1]),   m[n, -1] = 0                    the cached memory
    inner[n, t]     = (1 + beta) o[n, t] - m[n, t]

The output projection W, b commutes with the memory: W inner + beta b = (1 + beta) f - mean(f) with f = W o + b. The weight w
says which mean: `cumulative_weight`, `exponential_weight`. A mean over a window of M ticks cannot forget by a weight: with
`mean_window` = M, m[n, t] is the mean of o over those of the last M ticks whose w is above 0.

The memory is linear: m = A o with A[t, j] = w_j Q[t, j], Q[t, j] = prod_{j < i <= t} (1 - w_i). Backward, with dI the
gradient of inner and dF that of text_o (index n left out):

    g_t = (1 - w_{t+1}) g_{t+1} - dI_t,    do_t = (1 + beta) dI_t + w_t g_t,    dw_t = g_t (o_t - m_{t-1}),    dbeta = sum dI o

and then, for every query and key, with p_ij = exp(s_ij - lse_i) computed again and delta_i = do_i o_i:

    ds_ij = p_ij (do_i v_j - delta_i),    dv_j = sum_i p_ij do_i,
    dq_i = sum_j ds_ij k_j / sqrt(d),     dk_j = sum_i ds_ij q_i / sqrt(d)

What is shared is computed once. A modality's query has the same score with a key in all N sentences; only its lse differs. With
c_i = min_n lse[n, i] and r[n, i] = exp(c_i - lse[n, i]) <= 1, p[n]_ij = r[n, i] exp(s_ij - c_i), and so the sum over n of all
gradients that pass through the ticks' keys is one attention backward with

    lse_i := c_i,    do_i := sum_n r[n, i] do[n, i],    delta_i := sum_n r[n, i] delta[n, i]

In the same way a word's query has the same score with a key at all ticks t that see the key: one backward for all of them,
folded over those t. The code calls this folding. It is exact, and c is a minimum, so nothing overflows.

Kernels, each with one head, and why they are cut so:

    _visual_kernel        a block of token positions, for a group of sentences. Walks t; at each t the seen keys once, with an
                          online softmax, then on a copy of its state each sentence's words. The means stay in registers along t,
                          so nothing of size T x P x C is written but the result. A group is as large as the registers take.
    _window_kernel        mean_window alone, in place: (1 + beta) o - m from the o that the kernel above left in the result.
    _text_kernel          a block of a sentence's words. Walks t; where t sees all that t - 1 saw, its softmax goes on over the
                          new keys.
    _memory_kernel        do, dw and dbeta, element by element, walking t downwards. o is not kept from the forward pass: it would
                          double what that leaves in memory. It is made again once, by _visual_kernel without memory, since
                          delta, dw and dbeta all are inner products with o.
    _dq_kernel            a block of queries of a tick: folds the sentences, writes what it folded, walks words and keys.
    _dtext_q_kernel       a block of a sentence's words as queries: folds the ticks, writes what it folded, walks keys and
                          words.
    _dkv_kernel           a block of keys of a tick: walks the folded queries of both kinds.
    _dtext_kv_kernel      a block of a sentence's words as keys: walks the queries of the modality and the folded ones of the
                          words.

Each program adds up its own results in a fixed order: no atomics, the same bits every time. In loops over ticks the keys of
neighbouring ticks form one row of tokens, from the first seen tick to the last, with a mask: so 1 token a tick (sound) wastes
no tiles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import launch as launches
from .dispatch import check_extents, runs_kernel
from .launch import Compilation, Cost, Launch
from .online_softmax import attend
from .partial_attention import join_heads, merge_partial, partial_attention, split_heads
from .triton_or_not import tl, triton

_LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
_LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)
_ELEMENTWISE = Launch(block_q=1024, block_k=1024, warps=8, stages=1)
"""Of the kernels that go element by element: nothing in them depends on the card."""
_MEAN_REGISTERS = 64
"""Registers of a thread that running means may take."""
_MOST_SENTENCES = 3
"""Of a group: their code is unrolled, and with more of it the compiler spills."""


def memory_clip(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, text_q: Tensor, text_k: Tensor, text_v: Tensor,
    text_mask: Tensor, weight: Tensor, beta: Tensor | float, heads: int, mean_window: int = 0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """All T ticks of B clips with N sentences each, before the output projection.

    Args:
        q, k, v: [B, T, P, C], C = heads * d, of the modality's P tokens a tick; k, v and those of the text are taken in q's type.
        seen: [T, T] bool, True where query tick t sees key tick j. Every tick sees itself at least.
        text_q, text_k, text_v: [B, N, L, C].
        text_mask: [B, N, L] bool, False on padding. Every sentence has a word at least.
        weight: [B, N, T] of any float type, w of the running mean; 0 at ticks before the sentence was added. 0 everywhere:
            no memory.
        beta: weight of what is new against what is remembered, a number or a tensor of one element; gradients reach a tensor.
        heads: how many heads C is cut into.
        mean_window: 0, or M for the mean over those of the last M ticks whose weight is above 0. No gradient reaches the
            weight then.

    Returns:
        inner [B, N, T, P, C] and text_o [B, N, T, L, C] of q's type.

    Raises:
        ValueError: the shapes do not fit together.

    Which form runs: the rule of `dispatch`; in float32 with heads of 128 and more than one token a tick the reference, which an
    H200 ran 3 times faster. There are no second derivatives.
    """
    (clips, ticks, _, width), (sentences, length) = q.shape, text_q.shape[1:3]
    if width % heads:
        raise ValueError(f"{width} channels cannot be cut into {heads} heads")
    if mean_window < 0:
        raise ValueError(f"mean_window must be 0 or more, not {mean_window}")
    text_shape = clips, sentences, length, width
    for name, tensor, shape in (
        ("k", k, tuple(q.shape)),
        ("v", v, tuple(q.shape)),
        ("seen", seen, (ticks, ticks)),
        ("text_q", text_q, text_shape),
        ("text_k", text_k, text_shape),
        ("text_v", text_v, text_shape),
        ("text_mask", text_mask, text_shape[:3]),
        ("weight", weight, (clips, sentences, ticks)),
    ):
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must be {list(shape)} for q {list(q.shape)}, not {list(tensor.shape)}")
    if not isinstance(beta, Tensor):
        beta = torch.full((), beta, dtype=weight.dtype, device=q.device)
    k, v, text_q, text_k, text_v = (x.to(q.dtype) for x in (k, v, text_q, text_k, text_v))
    inner, text_o, _, _ = _op(
        q,
        k,
        v,
        seen,
        text_q,
        text_k,
        text_v,
        text_mask,
        weight,
        beta.reshape(()),
        heads,
        mean_window,
    )
    return inner, text_o


def cumulative_weight(added_at: Tensor, ticks: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """w [B, N, T] of the mean over all ticks since the sentence was added: 1 / (t - added_at + 1), and 0 before.

    Args:
        added_at: [B, N] int, the first tick of each sentence.
    """
    count = torch.arange(1, ticks + 1, device=added_at.device) - added_at[..., None]
    return torch.where(
        count > 0, 1.0 / count.clamp(min=1).to(dtype), torch.zeros((), dtype=dtype, device=count.device)
    )


def exponential_weight(
    added_at: Tensor, ticks: int, decay: float, dtype: torch.dtype = torch.float32
) -> Tensor:
    """w [B, N, T] of the exponential mean, started at the first value: 1 at the first tick, then `decay`, and 0 before.

    Args:
        added_at: [B, N] int, the first tick of each sentence.
    """
    age = torch.arange(ticks, device=added_at.device) - added_at[..., None]
    return (age == 0).to(dtype) + decay * (age > 0).to(dtype)


def memory_clip_reference(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, text_q: Tensor, text_k: Tensor, text_v: Tensor,
    text_mask: Tensor, weight: Tensor, beta: Tensor, heads: int, mean_window: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The op in plain torch.

    Returns:
        inner [B, N, T, P, C] and text_o [B, N, T, L, C]; lse [B, N, heads, T, P] and text_lse [B, N, heads, T, L], float32 at
        least.
    """
    ticks, tokens = q.shape[1:3]
    sentences, length = text_q.shape[1:3]
    q_h, k_h, v_h = (split_heads(x.flatten(1, 2), heads) for x in (q, k, v))  # [B, h, T*P, d]
    t_q, t_k, t_v = (split_heads(x, heads) for x in (text_q, text_k, text_v))  # [B, N, h, L, d]
    words = text_mask[:, :, None, None, :]

    pairs = seen.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
    o_ring, lse_ring = partial_attention(q_h, k_h, v_h, pairs)
    o_text, lse_text = partial_attention(q_h[:, None], t_k, t_v, words)
    o = join_heads(merge_partial(o_ring[:, None], lse_ring[:, None], o_text, lse_text))  # [B, N, T*P, C]
    lse = torch.logaddexp(lse_ring[:, None], lse_text).unflatten(-1, (ticks, tokens))
    mixed = _mix(weight.to(o.dtype), beta.to(o.dtype), mean_window) @ o.unflatten(2, (ticks, tokens)).flatten(
        3
    )
    inner = mixed.unflatten(-1, (tokens, -1))

    # A word's query is the same at every tick: each tick's keys are attended to once, and the partial results merged over
    # those seen.
    folded = t_q.transpose(1, 2).flatten(2, 3)  # [B, h, N*L, d]
    k_ticks, v_ticks = (
        x.unflatten(2, (ticks, tokens)).transpose(1, 2) for x in (k_h, v_h)
    )  # [B, T', h, P, d]
    o_tick, lse_tick = partial_attention(folded[:, None], k_ticks, v_ticks)  # [B, T', h, N*L, d]
    share = lse_tick.unsqueeze(1).masked_fill(
        ~seen[None, :, :, None, None], float("-inf")
    )  # [B, T, T', h, N*L]
    lse_seen = torch.logsumexp(share, dim=2)
    o_seen = torch.einsum("btjhq,bjhqd->bthqd", (share - lse_seen.unsqueeze(2)).exp(), o_tick)
    o_own, lse_own = partial_attention(t_q, t_k, t_v, words)  # [B, N, h, L, d]
    o_seen = o_seen.unflatten(3, (sentences, length)).permute(0, 3, 1, 2, 4, 5)  # [B, N, T, h, L, d]
    lse_seen = lse_seen.unflatten(3, (sentences, length)).permute(0, 3, 1, 2, 4)
    text_o = join_heads(merge_partial(o_seen, lse_seen, o_own[:, :, None], lse_own[:, :, None]))
    text_lse = torch.logaddexp(lse_seen, lse_own[:, :, None]).transpose(2, 3)
    return inner.to(q.dtype), text_o.to(q.dtype), lse, text_lse


def _kept(weight: Tensor) -> Tensor:
    """Q [..., T, T] of w [..., T]: which part of the mean at tick j is left in that at tick t >= j; 0 for t < j."""
    tick = torch.arange(weight.shape[-1], device=weight.device)
    t, j, i = tick[:, None, None], tick[:, None], tick
    factors = torch.where((i > j) & (i <= t), 1.0 - weight[..., None, None, :], 1.0)
    return factors.prod(dim=-1) * (t >= j).squeeze(-1)


def _averages(weight: Tensor, mean_window: int) -> Tensor:
    """A [..., T, T] with m = A o."""
    if not mean_window:
        return weight[..., None, :] * _kept(weight)
    heard, share = _heard_and_share(weight, mean_window)
    tick = torch.arange(weight.shape[-1], device=weight.device)
    age = tick[:, None] - tick
    return share[..., :, None] * (heard[..., None, :] * ((age >= 0) & (age < mean_window)))


def _heard_and_share(weight: Tensor, mean_window: int) -> tuple[Tensor, Tensor]:
    """Of ticks [..., T]: 1 where w is above 0, and 1 over how many such are among the last `mean_window` ticks, 0 where none
    is."""
    heard = (weight > 0).to(weight.dtype)
    total = heard.cumsum(dim=-1)
    count = total - torch.nn.functional.pad(total, (mean_window, 0))[..., : total.shape[-1]]
    return heard, (count > 0) / count.clamp(min=1)


def _mix(weight: Tensor, beta: Tensor, mean_window: int) -> Tensor:
    """[B, N, T, T] with inner = mix o."""
    ticks = weight.shape[-1]
    return (1.0 + beta) * torch.eye(ticks, dtype=weight.dtype, device=weight.device) - _averages(
        weight, mean_window
    )


def _memory_gradients_reference(
    grad_inner: Tensor, o: Tensor, weight: Tensor, beta: Tensor, mean_window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """do [B, N, T, P, C], dw [B, N, T] and dbeta, by the matrix form: w changes row t of A by Q[., t] (e_t - A_{t-1})."""
    grad_rows, o_rows = grad_inner.flatten(3), o.flatten(3)
    grad_o = (_mix(weight, beta, mean_window).transpose(-2, -1) @ grad_rows).view_as(grad_inner)
    grad_mix = grad_rows @ o_rows.transpose(-2, -1)
    grad_beta = grad_mix.diagonal(dim1=-2, dim2=-1).sum()
    if mean_window:
        return grad_o, torch.zeros_like(weight), grad_beta
    through = -_kept(weight).transpose(-2, -1) @ grad_mix
    before = torch.nn.functional.pad(_averages(weight, 0), (0, 0, 1, 0))[..., :-1, :]
    grad_weight = through.diagonal(dim1=-2, dim2=-1) - (through * before).sum(dim=-1)
    return grad_o, grad_weight, grad_beta


def attention_gradients(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, text_q: Tensor, text_k: Tensor, text_v: Tensor,
    text_mask: Tensor, o: Tensor, text_o: Tensor, lse: Tensor, text_lse: Tensor, grad_o: Tensor,
    grad_text_o: Tensor, heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of the attention alone, without memory, of Tq query ticks over Tk key ticks; a clip has Tq = Tk, a stream's
    step Tq = 1.

    Args:
        q: [B, Tq, P, C].
        k, v: [B, Tk, P, C].
        seen: [B, Tq, Tk] bool, in any pattern.
        text_q, text_k, text_v: [B, N, L, C].
        text_mask: [B, N, L] bool.
        o, grad_o: [B, N, Tq, P, C], the attended output of the modality and its gradient.
        text_o, grad_text_o: [B, N, Tq, L, C], likewise of the words.
        lse: [B, N, heads, Tq, P], natural logarithm.
        text_lse: [B, N, heads, Tq, L].
        heads: how many heads C is cut into.

    Returns:
        Gradients of q, k, v, text_q, text_k, text_v. Keys that nobody sees get zeros.

    Which form runs: the rule of `dispatch`. To be called where no gradient is recorded: in the backward pass of an op.
    """
    arguments = (
        q,
        k,
        v,
        seen,
        text_q,
        text_k,
        text_v,
        text_mask,
        o,
        text_o,
        lse,
        text_lse,
        grad_o,
        grad_text_o,
    )
    head_size = q.shape[-1] // heads
    if runs_kernel("attention_gradients", "memory_clip_dq", head_size, *arguments, slow=_is_slow(q, heads)):
        return _attention_gradients_kernels(*arguments, heads)
    return _attention_gradients_reference(*arguments, heads)


def _is_slow(q: Tensor, heads: int) -> bool:
    """Whether the reference is faster: float32 rows of 128 channels leave registers for the smallest blocks alone."""
    return q.dtype == torch.float32 and q.shape[-1] // heads == 128 and q.shape[-2] > 1


def _attention_gradients_reference(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, text_q: Tensor, text_k: Tensor, text_v: Tensor,
    text_mask: Tensor, o: Tensor, text_o: Tensor, lse: Tensor, text_lse: Tensor, grad_o: Tensor,
    grad_text_o: Tensor, heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`attention_gradients` in plain torch, by the formulas at the top."""
    work, tokens = lse.dtype, q.shape[2]
    types = q, k, v, text_q, text_k, text_v
    q, k, v, text_q, text_k, text_v = (x.to(work) for x in types)
    q_h, k_h, v_h = (split_heads(x.flatten(1, 2), heads) for x in (q, k, v))  # [B, h, T*P, d]
    t_q, t_k, t_v = (split_heads(x, heads) for x in (text_q, text_k, text_v))  # [B, N, h, L, d]
    words = text_mask[:, :, None, None, :]

    # Sentence by sentence: the modality's queries over the words.
    do = split_heads(grad_o.to(work).flatten(2, 3), heads)  # [B, N, h, Tq*P, d]
    delta = (do * split_heads(o.to(work).flatten(2, 3), heads)).sum(-1)
    lse = lse.flatten(3)
    dq, dt_k, dt_v = _partial_gradients(q_h[:, None], t_k, t_v, words, lse, do, delta)
    dq = dq.sum(1)

    # Folded over the sentences: the modality's queries over the ticks' keys.
    lowest = lse.amin(1)
    share = torch.exp(lowest[:, None] - lse)
    pairs = seen.repeat_interleave(tokens, 1).repeat_interleave(tokens, 2)[:, None]
    folded = _partial_gradients(
        q_h, k_h, v_h, pairs, lowest, (share[..., None] * do).sum(1), (share * delta).sum(1)
    )
    dq, dk, dv = dq + folded[0], folded[1], folded[2]

    # Folded over the query ticks that see a key tick: the words' queries over the ticks' keys; over all: over the words.
    do = grad_text_o.to(work).unflatten(-1, (heads, -1)).permute(0, 2, 1, 4, 3, 5)  # [B, Tq, N, h, L, d]
    delta = (do * text_o.to(work).unflatten(-1, (heads, -1)).permute(0, 2, 1, 4, 3, 5)).sum(-1)
    sees = torch.cat([seen, torch.ones_like(seen[:, :, :1])], dim=2)[
        ..., None, None, None
    ]  # [B, Tq, Tk + 1, 1, 1, 1]
    spread = text_lse.permute(0, 3, 1, 2, 4)[:, :, None].masked_fill(
        ~sees, math.inf
    )  # [B, Tq, Tk + 1, N, h, L]
    lowest = spread.amin(1)
    share = torch.exp(lowest.masked_fill(lowest == math.inf, 0.0)[:, None] - spread)
    do = torch.einsum("btjnhl,btnhld->bjnhld", share, do)
    delta = torch.einsum("btjnhl,btnhl->bjnhl", share, delta)
    dt_q, own_k, own_v = _partial_gradients(t_q, t_k, t_v, words, lowest[:, -1], do[:, -1], delta[:, -1])
    k_ticks, v_ticks = (x.unflatten(2, (-1, tokens)).transpose(1, 2) for x in (k_h, v_h))  # [B, Tk, h, P, d]
    by_tick = _partial_gradients(
        t_q[:, None],
        k_ticks[:, :, None],
        v_ticks[:, :, None],
        None,
        lowest[:, :-1],
        do[:, :-1],
        delta[:, :-1],
    )
    dt_q = dt_q + by_tick[0].sum(1)
    dk, dv = (x + y.sum(2).transpose(1, 2).flatten(2, 3) for x, y in zip((dk, dv), by_tick[1:], strict=True))

    ring = (join_heads(x).view(like.shape) for x, like in zip((dq, dk, dv), types[:3], strict=True))
    text = (join_heads(x) for x in (dt_q, dt_k + own_k, dt_v + own_v))
    dq, dk, dv, dt_q, dt_k, dt_v = (x.to(like.dtype) for x, like in zip((*ring, *text), types, strict=True))
    return dq, dk, dv, dt_q, dt_k, dt_v


def _partial_gradients(
    q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, lse: Tensor, do: Tensor, delta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv of queries [..., Q, d] over a part of their keys [..., K, d], with lse, do and delta over all keys."""
    scale = 1.0 / math.sqrt(q.shape[-1])
    scores = (q * scale) @ k.transpose(-2, -1)
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask, -math.inf)
    p = torch.exp(scores - lse[..., None])
    ds = p * (do @ v.transpose(-2, -1) - delta[..., None]) * scale
    return ds @ k, ds.transpose(-2, -1) @ q, p.transpose(-2, -1) @ do


@triton.jit
def _tile(ptr, first, rows, stride, channel, keep):
    """Rows `first` + `rows` of a tensor whose rows are `stride` apart, zeros where not kept. `first` is one number: 64 bits
    cost it little."""
    offset = rows[:, None] * stride + channel[None, :]
    return tl.load(ptr + first * stride + offset, mask=keep[:, None], other=0.0)


@triton.jit
def _store(ptr, first, rows, stride, channel, keep, value):
    offset = rows[:, None] * stride + channel[None, :]
    tl.store(ptr + first * stride + offset, value, mask=keep[:, None])


@triton.jit
def _bounds(flags, index, size):
    """The first index with a flag and the last one + 1; nothing lies between them where there is no flag."""
    return tl.min(tl.where(flags != 0, index, size), 0), tl.max(tl.where(flags != 0, index + 1, 0), 0)


@triton.jit(do_not_specialize=["ticks", "sentences", "tokens", "length"])
def _visual_kernel(
    q_ptr, k_ptr, v_ptr, seen_ptr, text_k_ptr, text_v_ptr, text_mask_ptr, weight_ptr, beta_ptr, inner_ptr, lse_ptr,
    sentences, ticks, tokens, length, scale, STRIDE_Q: tl.constexpr, STRIDE_K: tl.constexpr, STRIDE_V: tl.constexpr,
    STRIDE_TEXT_K: tl.constexpr, STRIDE_TEXT_V: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr,
    GROUP: tl.constexpr, MEMORY: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_L: tl.constexpr,
    BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of positions, heads, clips * groups of sentences). Without MEMORY it writes o."""
    head = tl.program_id(1)
    groups = tl.cdiv(sentences, GROUP)
    b = (tl.program_id(2) // groups).to(tl.int64)
    first = tl.program_id(2) % groups * GROUP
    position = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    within = position < tokens
    channel = head * D + tl.arange(0, D)
    tick = tl.arange(0, BLOCK_T)
    q_ptr += b * ticks * tokens * STRIDE_Q
    k_ptr += b * ticks * tokens * STRIDE_K
    v_ptr += b * ticks * tokens * STRIDE_V
    beta = tl.load(beta_ptr)
    means = ()
    if MEMORY:
        for _ in tl.static_range(GROUP):
            means = means + (tl.zeros([BLOCK_P, D], tl.float32),)  # type: ignore[assignment]  # noqa: RUF005 - Triton has no starred tuple

    for t in range(ticks):
        q = _tile(q_ptr, t * tokens, position, STRIDE_Q, channel, within)
        row = tl.load(seen_ptr + t * ticks + tick, mask=tick < ticks, other=0)
        begin, end = _bounds(row, tick, ticks)
        top = tl.full([BLOCK_P], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_P], tl.float32)
        acc = tl.zeros([BLOCK_P, D], tl.float32)
        for start in range(begin * tokens, end * tokens, BLOCK_K):
            key = start + tl.arange(0, BLOCK_K)
            keep = key < end * tokens
            keep = tl.load(seen_ptr + t * ticks + key // tokens, mask=keep, other=0) != 0
            k = _tile(k_ptr, 0, key, STRIDE_K, channel, keep)
            v = _tile(v_ptr, 0, key, STRIDE_V, channel, keep)
            top, total, acc = attend(q, k, v, keep[None, :], top, total, acc, scale)

        new_means = ()
        for g in tl.static_range(GROUP):
            bn = b * sentences + tl.minimum(first + g, sentences - 1)
            n_top, n_total, n_acc = top, total, acc
            for start in range(0, length, BLOCK_L):
                word = start + tl.arange(0, BLOCK_L)
                keep = tl.load(text_mask_ptr + bn * length + word, mask=word < length, other=0) != 0
                k = _tile(text_k_ptr, bn * length, word, STRIDE_TEXT_K, channel, keep)
                v = _tile(text_v_ptr, bn * length, word, STRIDE_TEXT_V, channel, keep)
                n_top, n_total, n_acc = attend(q, k, v, keep[None, :], n_top, n_total, n_acc, scale)
            result = n_acc / n_total[:, None]
            valid = position < tl.where(first + g < sentences, tokens, 0)
            lse = (n_top + tl.log2(n_total)) * _LN_2
            tl.store(lse_ptr + ((bn * HEADS + head) * ticks + t) * tokens + position, lse, mask=valid)
            if MEMORY:
                mean = means[g] + tl.load(weight_ptr + bn * ticks + t) * (result - means[g])
                new_means = new_means + (mean,)  # type: ignore[assignment]  # noqa: RUF005
                result = (1.0 + beta) * result - mean
            _store(inner_ptr, (bn * ticks + t) * tokens, position, HEADS * D, channel, valid, result)
        means = new_means


@triton.jit(do_not_specialize=["ticks", "mean_window"])
def _window_kernel(
    inner_ptr, heard_ptr, share_ptr, beta_ptr, ticks, mean_window, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of a tick's P * C elements, clips * sentences). Walks t downwards: what lies below is still o."""
    bn = tl.program_id(1)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    within = element < SIZE
    inner_ptr += bn.to(tl.int64) * ticks * SIZE
    heard_ptr += bn * ticks
    beta = tl.load(beta_ptr)
    total = tl.zeros([BLOCK], tl.float32)
    for t in range(tl.maximum(ticks - mean_window, 0), ticks):
        total += tl.load(heard_ptr + t) * tl.load(inner_ptr + t * SIZE + element, mask=within, other=0.0).to(
            tl.float32
        )
    for back in range(ticks):
        t = ticks - 1 - back
        o = tl.load(inner_ptr + t * SIZE + element, mask=within, other=0.0).to(tl.float32)
        mean = tl.load(share_ptr + bn * ticks + t) * total
        tl.store(inner_ptr + t * SIZE + element, (1.0 + beta) * o - mean, mask=within)
        old = t - mean_window
        heard = tl.load(heard_ptr + old, mask=old >= 0, other=0.0)
        remains = element < tl.where(old >= 0, SIZE, 0)
        before = tl.load(inner_ptr + old * SIZE + element, mask=remains, other=0.0).to(tl.float32)
        total += heard * before - tl.load(heard_ptr + t) * o


@triton.jit(do_not_specialize=["ticks", "sentences", "tokens", "length"])
def _text_kernel(
    text_q_ptr, text_k_ptr, text_v_ptr, text_mask_ptr, k_ptr, v_ptr, seen_ptr, text_o_ptr, text_lse_ptr, sentences,
    ticks, tokens, length, scale, STRIDE_TEXT_Q: tl.constexpr, STRIDE_TEXT_K: tl.constexpr,
    STRIDE_TEXT_V: tl.constexpr, STRIDE_K: tl.constexpr, STRIDE_V: tl.constexpr, HEADS: tl.constexpr,
    D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of words, heads, clips * sentences)."""
    head = tl.program_id(1)
    bn = tl.program_id(2).to(tl.int64)
    b = bn // sentences
    query = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    within = query < length
    channel = head * D + tl.arange(0, D)
    tick = tl.arange(0, BLOCK_T)
    k_ptr += b * ticks * tokens * STRIDE_K
    v_ptr += b * ticks * tokens * STRIDE_V
    q = _tile(text_q_ptr, bn * length, query, STRIDE_TEXT_Q, channel, within)

    own_top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    own_total = tl.zeros([BLOCK_Q], tl.float32)
    own_acc = tl.zeros([BLOCK_Q, D], tl.float32)
    for start in range(0, length, BLOCK_L):
        word = start + tl.arange(0, BLOCK_L)
        keep = tl.load(text_mask_ptr + bn * length + word, mask=word < length, other=0) != 0
        k = _tile(text_k_ptr, bn * length, word, STRIDE_TEXT_K, channel, keep)
        v = _tile(text_v_ptr, bn * length, word, STRIDE_TEXT_V, channel, keep)
        own_top, own_total, own_acc = attend(q, k, v, keep[None, :], own_top, own_total, own_acc, scale)

    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, D], tl.float32)
    for t in range(ticks):
        now_ptr = seen_ptr + t * ticks
        now = tl.load(now_ptr + tick, mask=tick < ticks, other=0).to(tl.int32)
        before = tl.load(now_ptr - ticks + tick, mask=tick < tl.where(t > 0, ticks, 0), other=0).to(tl.int32)
        goes_on = 1 - tl.max(before * (1 - now), 0)
        begin, end = _bounds(now * (1 - before * goes_on), tick, ticks)
        top = tl.where(goes_on != 0, top, float("-inf"))
        total = tl.where(goes_on != 0, total, 0.0)
        acc = tl.where(goes_on != 0, acc, 0.0)
        for start in range(begin * tokens, end * tokens, BLOCK_K):
            key = start + tl.arange(0, BLOCK_K)
            tick_of_key = key // tokens
            fresh = tl.load(now_ptr + tick_of_key, mask=key < end * tokens, other=0).to(tl.int32)
            old = key < tl.where(t * goes_on > 0, end * tokens, 0)
            keep = fresh * (1 - tl.load(now_ptr - ticks + tick_of_key, mask=old, other=0).to(tl.int32)) != 0
            k = _tile(k_ptr, 0, key, STRIDE_K, channel, keep)
            v = _tile(v_ptr, 0, key, STRIDE_V, channel, keep)
            top, total, acc = attend(q, k, v, keep[None, :], top, total, acc, scale)
        high = tl.maximum(top, own_top)
        ring, own = tl.exp2(top - high), tl.exp2(own_top - high)
        whole = total * ring + own_total * own
        o = (acc * ring[:, None] + own_acc * own[:, None]) / whole[:, None]
        lse = (high + tl.log2(whole)) * _LN_2
        tl.store(text_lse_ptr + ((bn * HEADS + head) * ticks + t) * length + query, lse, mask=within)
        _store(text_o_ptr, (bn * ticks + t) * length, query, HEADS * D, channel, within, o)


@triton.jit(do_not_specialize=["ticks", "mean_window"])
def _memory_kernel(
    grad_inner_ptr, inner_ptr, o_ptr, weight_ptr, share_ptr, beta_ptr, grad_o_ptr, grad_weight_ptr, grad_beta_ptr,
    ticks, mean_window, WINDOW: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of a tick's P * C elements, clips * sentences). Writes this block's part of dw and dbeta.

    m comes from what the forward pass gave: m = (1 + beta) o - inner. With WINDOW, `weight_ptr` holds 1 where w is above 0.
    """
    bn = tl.program_id(1)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    within = element < SIZE
    grad_inner_ptr += bn.to(tl.int64) * ticks * SIZE
    inner_ptr += bn.to(tl.int64) * ticks * SIZE
    o_ptr += bn.to(tl.int64) * ticks * SIZE
    grad_o_ptr += bn.to(tl.int64) * ticks * SIZE
    beta = tl.load(beta_ptr)
    grad_beta = tl.zeros([BLOCK], tl.float32)
    later = tl.zeros([BLOCK], tl.float32)
    o = tl.load(o_ptr + (ticks - 1) * SIZE + element, mask=within, other=0.0).to(tl.float32)
    for back in range(ticks):
        t = ticks - 1 - back
        grad = tl.load(grad_inner_ptr + t * SIZE + element, mask=within, other=0.0).to(tl.float32)
        grad_beta += grad * o
        weight = tl.load(weight_ptr + bn * ticks + t)
        earlier = element < tl.where(t > 0, SIZE, 0)
        o_before = tl.load(o_ptr + (t - 1) * SIZE + element, mask=earlier, other=0.0).to(tl.float32)
        if WINDOW:
            left = t + mean_window
            remains = element < tl.where(left < ticks, SIZE, 0)
            gone = tl.load(grad_inner_ptr + left * SIZE + element, mask=remains, other=0.0).to(tl.float32)
            later += tl.load(share_ptr + bn * ticks + t) * grad
            later -= tl.load(share_ptr + bn * ticks + left, mask=left < ticks, other=0.0) * gone
            grad_o = (1.0 + beta) * grad - weight * later
        else:
            inner_before = tl.load(inner_ptr + (t - 1) * SIZE + element, mask=earlier, other=0.0).to(
                tl.float32
            )
            mean_before = (1.0 + beta) * o_before - inner_before
            grad_mean = later - grad
            grad_o = (1.0 + beta) * grad + weight * grad_mean
            part = tl.sum(grad_mean * (o - mean_before), 0)
            tl.store(grad_weight_ptr + (bn * ticks + t) * tl.num_programs(0) + tl.program_id(0), part)
            later = (1.0 - weight) * grad_mean
        tl.store(grad_o_ptr + t * SIZE + element, grad_o, mask=within)
        o = o_before
    tl.store(grad_beta_ptr + bn * tl.num_programs(0) + tl.program_id(0), tl.sum(grad_beta, 0))


@triton.jit
def _query_gradients(q, do, lse, delta, k, v, keep, dq, scale):
    """dq of a block of queries, but for 1 / sqrt(d), with one more block of keys; lse to the base 2."""
    precision: tl.constexpr = "tf32x3" if q.shape[1] < 128 else "ieee"  # registers
    scores = tl.dot(q, tl.trans(k), input_precision=precision) * scale - lse[:, None]
    p = tl.exp2(tl.where(keep[None, :], scores, float("-inf")))
    ds = p * (tl.dot(do, tl.trans(v), input_precision=precision) - delta[:, None])
    return dq + tl.dot(ds.to(k.dtype), k, input_precision=precision)


@triton.jit
def _key_gradients(k, v, key_keep, q, do, lse, delta, query_keep, dk, dv, scale):
    """dk, but for 1 / sqrt(d), and dv of a block of keys with one more block of queries; lse to the base 2."""
    precision: tl.constexpr = "tf32x3" if q.shape[1] < 128 else "ieee"
    scores = tl.dot(k, tl.trans(q), input_precision=precision) * scale - lse[None, :]
    p = tl.exp2(tl.where(key_keep[:, None] & query_keep[None, :], scores, float("-inf")))
    ds = p * (tl.dot(v, tl.trans(do), input_precision=precision) - delta[None, :])
    dk += tl.dot(ds.to(q.dtype), q, input_precision=precision)
    dv += tl.dot(p.to(do.dtype), do, input_precision=precision)
    return dk, dv


@triton.jit(do_not_specialize=["sentences", "query_ticks", "key_ticks", "tokens", "length", "stride_seen"])
def _dq_kernel(
    q_ptr, k_ptr, v_ptr, seen_ptr, text_k_ptr, text_v_ptr, text_mask_ptr, o_ptr, grad_o_ptr, lse_ptr, dq_ptr,
    delta_ptr, folded_do_ptr, folded_lse_ptr, folded_delta_ptr, stride_seen, sentences, query_ticks, key_ticks,
    tokens, length, scale, STRIDE_Q: tl.constexpr, STRIDE_K: tl.constexpr, STRIDE_V: tl.constexpr,
    STRIDE_TEXT_K: tl.constexpr, STRIDE_TEXT_V: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Grid (query ticks * blocks of positions, heads, clips)."""
    head = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    blocks = tl.cdiv(tokens, BLOCK_P)
    t = tl.program_id(0) // blocks
    position = tl.program_id(0) % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    within = position < tokens
    channel = head * D + tl.arange(0, D)
    width: tl.constexpr = HEADS * D
    first = (b * query_ticks + t) * tokens
    q = _tile(q_ptr, first, position, STRIDE_Q, channel, within)

    lowest = tl.full([BLOCK_P], float("inf"), tl.float32)
    for n in range(sentences):
        at = (((b * sentences + n) * HEADS + head) * query_ticks + t) * tokens + position
        lowest = tl.minimum(lowest, tl.load(lse_ptr + at, mask=within, other=0.0) * _LOG2_E)
    folded_do = tl.zeros([BLOCK_P, D], tl.float32)
    folded_delta = tl.zeros([BLOCK_P], tl.float32)
    dq = tl.zeros([BLOCK_P, D], tl.float32)
    for n in range(sentences):
        bn = b * sentences + n
        row = (bn * query_ticks + t) * tokens
        do = _tile(grad_o_ptr, row, position, width, channel, within)
        o = _tile(o_ptr, row, position, width, channel, within)
        delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
        at = ((bn * HEADS + head) * query_ticks + t) * tokens + position
        lse = tl.load(lse_ptr + at, mask=within, other=0.0) * _LOG2_E
        tl.store(delta_ptr + at, delta, mask=within)
        share = tl.exp2(lowest - lse)
        folded_do += share[:, None] * do
        folded_delta += share * delta
        for start in range(0, length, BLOCK_L):
            word = start + tl.arange(0, BLOCK_L)
            keep = tl.load(text_mask_ptr + bn * length + word, mask=word < length, other=0) != 0
            k = _tile(text_k_ptr, bn * length, word, STRIDE_TEXT_K, channel, keep)
            v = _tile(text_v_ptr, bn * length, word, STRIDE_TEXT_V, channel, keep)
            dq = _query_gradients(q, do, lse, delta, k, v, keep, dq, scale)
    at = ((b * HEADS + head) * query_ticks + t) * tokens + position
    tl.store(folded_lse_ptr + at, lowest, mask=within)
    tl.store(folded_delta_ptr + at, folded_delta, mask=within)
    do = folded_do.to(q.dtype)
    _store(folded_do_ptr, first, position, width, channel, within, do)

    tick = tl.arange(0, BLOCK_T)
    seen_ptr += b * stride_seen + t * key_ticks
    k_ptr += b * key_ticks * tokens * STRIDE_K
    v_ptr += b * key_ticks * tokens * STRIDE_V
    begin, end = _bounds(tl.load(seen_ptr + tick, mask=tick < key_ticks, other=0), tick, key_ticks)
    for start in range(begin * tokens, end * tokens, BLOCK_K):
        key = start + tl.arange(0, BLOCK_K)
        keep = tl.load(seen_ptr + key // tokens, mask=key < end * tokens, other=0) != 0
        k = _tile(k_ptr, 0, key, STRIDE_K, channel, keep)
        v = _tile(v_ptr, 0, key, STRIDE_V, channel, keep)
        dq = _query_gradients(q, do, lowest, folded_delta, k, v, keep, dq, scale)
    _store(dq_ptr, first, position, width, channel, within, dq * (scale * _LN_2))


@triton.jit(do_not_specialize=["sentences", "query_ticks", "key_ticks", "tokens", "length", "stride_seen"])
def _dtext_q_kernel(
    text_q_ptr, text_k_ptr, text_v_ptr, text_mask_ptr, k_ptr, v_ptr, seen_ptr, text_o_ptr, grad_text_o_ptr,
    text_lse_ptr, dtext_q_ptr, folded_do_ptr, folded_lse_ptr, folded_delta_ptr, stride_seen, sentences, query_ticks,
    key_ticks, tokens, length, scale, STRIDE_TEXT_Q: tl.constexpr, STRIDE_TEXT_K: tl.constexpr,
    STRIDE_TEXT_V: tl.constexpr, STRIDE_K: tl.constexpr, STRIDE_V: tl.constexpr, HEADS: tl.constexpr,
    D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of words, heads, clips * sentences).

    Walks key ticks downwards, and after them the words, tick -1, which every query tick sees. Where all that see tick j + 1
    see j too, the fold goes on. What it folded for key tick j lies at index j + 1 of [B, Tk + 1, N * L].
    """
    head = tl.program_id(1)
    bn = tl.program_id(2).to(tl.int64)
    b = bn // sentences
    query = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    within = query < length
    channel = head * D + tl.arange(0, D)
    width: tl.constexpr = HEADS * D
    tick = tl.arange(0, BLOCK_T)
    words = sentences * length
    place = (bn % sentences).to(tl.int32) * length + query
    seen_ptr += b * stride_seen
    k_ptr += b * key_ticks * tokens * STRIDE_K
    v_ptr += b * key_ticks * tokens * STRIDE_V
    q = _tile(text_q_ptr, bn * length, query, STRIDE_TEXT_Q, channel, within)

    lowest = tl.full([BLOCK_Q], float("inf"), tl.float32)
    do = tl.zeros([BLOCK_Q, D], tl.float32)
    delta = tl.zeros([BLOCK_Q], tl.float32)
    dq = tl.zeros([BLOCK_Q, D], tl.float32)
    for back in range(key_ticks + 1):
        j = key_ticks - 1 - back
        now = _sees(seen_ptr, tick, j, query_ticks, key_ticks)
        before = _sees(seen_ptr, tick, j + 1, query_ticks, key_ticks)
        goes_on = 1 - tl.max(before * (1 - now), 0)
        begin, end = _bounds(now * (1 - before * goes_on), tick, query_ticks)
        lowest = tl.where(goes_on != 0, lowest, float("inf"))
        do = tl.where(goes_on != 0, do, 0.0)
        delta = tl.where(goes_on != 0, delta, 0.0)
        for t in range(begin, end):
            known = _sees(seen_ptr, t, j + 1, query_ticks, key_ticks) * goes_on
            fresh = _sees(seen_ptr, t, j, query_ticks, key_ticks) * (1 - known) != 0
            at = ((bn * HEADS + head) * query_ticks + t) * length + query
            lse = tl.load(text_lse_ptr + at, mask=within, other=0.0) * _LOG2_E
            row = (bn * query_ticks + t) * length
            t_do = _tile(grad_text_o_ptr, row, query, width, channel, within).to(tl.float32)
            t_o = _tile(text_o_ptr, row, query, width, channel, within).to(tl.float32)
            new_lowest = tl.where(fresh, tl.minimum(lowest, lse), lowest)
            base = tl.where(new_lowest == float("inf"), 0.0, new_lowest)
            rescale = tl.exp2(base - lowest)
            share = tl.exp2(tl.where(fresh, base - lse, float("-inf")))
            do = do * rescale[:, None] + share[:, None] * t_do
            delta = delta * rescale + share * tl.sum(t_do * t_o, 1)
            lowest = new_lowest
        at = ((b * HEADS + head) * (key_ticks + 1) + j + 1) * words + place
        tl.store(folded_lse_ptr + at, lowest, mask=within)
        tl.store(folded_delta_ptr + at, delta, mask=within)
        _store(folded_do_ptr, (b * (key_ticks + 1) + j + 1) * words, place, width, channel, within, do)
        for start in range(0, tl.where(j < 0, 0, tokens), BLOCK_K):
            key = start + tl.arange(0, BLOCK_K)
            keep = key < tokens
            k = _tile(k_ptr, j * tokens, key, STRIDE_K, channel, keep)
            v = _tile(v_ptr, j * tokens, key, STRIDE_V, channel, keep)
            dq = _query_gradients(q, do.to(q.dtype), lowest, delta, k, v, keep, dq, scale)
    for start in range(0, length, BLOCK_L):
        word = start + tl.arange(0, BLOCK_L)
        keep = tl.load(text_mask_ptr + bn * length + word, mask=word < length, other=0) != 0
        k = _tile(text_k_ptr, bn * length, word, STRIDE_TEXT_K, channel, keep)
        v = _tile(text_v_ptr, bn * length, word, STRIDE_TEXT_V, channel, keep)
        dq = _query_gradients(q, do.to(q.dtype), lowest, delta, k, v, keep, dq, scale)
    _store(dtext_q_ptr, bn * length, query, width, channel, within, dq * (scale * _LN_2))


@triton.jit
def _sees(seen_ptr, t, j, query_ticks, key_ticks):
    """1 where query tick t sees key tick j, else 0; all see tick -1, none a tick beyond the last."""
    rows = tl.where((j >= 0) & (j < key_ticks), query_ticks, 0)
    seen = tl.load(seen_ptr + t * key_ticks + j, mask=t < rows, other=0).to(tl.int32)
    return tl.where(t < tl.where(j < 0, query_ticks, 0), 1, seen)


@triton.jit(do_not_specialize=["query_ticks", "key_ticks", "tokens", "words", "stride_seen"])
def _dkv_kernel(
    q_ptr, k_ptr, v_ptr, seen_ptr, text_q_ptr, visual_do_ptr, visual_lse_ptr, visual_delta_ptr, text_do_ptr,
    text_lse_ptr, text_delta_ptr, dk_ptr, dv_ptr, stride_seen, words, query_ticks, key_ticks, tokens, scale,
    STRIDE_Q: tl.constexpr, STRIDE_K: tl.constexpr, STRIDE_V: tl.constexpr, STRIDE_TEXT_Q: tl.constexpr,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Grid (key ticks * blocks of positions, heads, clips). `words` is N * L."""
    head = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    blocks = tl.cdiv(tokens, BLOCK_P)
    j = tl.program_id(0) // blocks
    position = tl.program_id(0) % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    within = position < tokens
    channel = head * D + tl.arange(0, D)
    width: tl.constexpr = HEADS * D
    first = (b * key_ticks + j) * tokens
    k = _tile(k_ptr, first, position, STRIDE_K, channel, within)
    v = _tile(v_ptr, first, position, STRIDE_V, channel, within)
    dk = tl.zeros([BLOCK_P, D], tl.float32)
    dv = tl.zeros([BLOCK_P, D], tl.float32)

    tick = tl.arange(0, BLOCK_T)
    seen_ptr += b * stride_seen
    begin, end = _bounds(_sees(seen_ptr, tick, j, query_ticks, key_ticks), tick, query_ticks)
    visual_lse_ptr += (b * HEADS + head) * query_ticks * tokens
    visual_delta_ptr += (b * HEADS + head) * query_ticks * tokens
    for start in range(begin * tokens, end * tokens, BLOCK_Q):
        query = start + tl.arange(0, BLOCK_Q)
        seen = _sees(seen_ptr, query // tokens, j, query_ticks, key_ticks)
        keep = (query < end * tokens) & (seen != 0)
        q = _tile(q_ptr, b * query_ticks * tokens, query, STRIDE_Q, channel, keep)
        do = _tile(visual_do_ptr, b * query_ticks * tokens, query, width, channel, keep)
        lse = tl.load(visual_lse_ptr + query, mask=keep, other=0.0)
        delta = tl.load(visual_delta_ptr + query, mask=keep, other=0.0)
        dk, dv = _key_gradients(k, v, within, q, do, lse, delta, keep, dk, dv, scale)

    text_lse_ptr += ((b * HEADS + head) * (key_ticks + 1) + j + 1) * words
    text_delta_ptr += ((b * HEADS + head) * (key_ticks + 1) + j + 1) * words
    for start in range(0, words, BLOCK_Q):
        query = start + tl.arange(0, BLOCK_Q)
        keep = query < words
        q = _tile(text_q_ptr, b * words, query, STRIDE_TEXT_Q, channel, keep)
        do = _tile(text_do_ptr, (b * (key_ticks + 1) + j + 1) * words, query, width, channel, keep)
        lse = tl.load(text_lse_ptr + query, mask=keep, other=0.0)
        delta = tl.load(text_delta_ptr + query, mask=keep, other=0.0)
        dk, dv = _key_gradients(k, v, within, q, do, lse, delta, keep, dk, dv, scale)
    _store(dk_ptr, first, position, width, channel, within, dk * (scale * _LN_2))
    _store(dv_ptr, first, position, width, channel, within, dv)


@triton.jit(do_not_specialize=["sentences", "key_ticks", "length", "queries"])
def _dtext_kv_kernel(
    q_ptr, text_q_ptr, text_k_ptr, text_v_ptr, text_mask_ptr, grad_o_ptr, lse_ptr, delta_ptr, text_do_ptr,
    text_lse_ptr, text_delta_ptr, dtext_k_ptr, dtext_v_ptr, sentences, queries, key_ticks, length, scale,
    STRIDE_Q: tl.constexpr, STRIDE_TEXT_Q: tl.constexpr, STRIDE_TEXT_K: tl.constexpr, STRIDE_TEXT_V: tl.constexpr,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of words, heads, clips * sentences). `queries` is Tq * P; of the folded words, index 0: see
    `_dtext_q_kernel`."""
    head = tl.program_id(1)
    bn = tl.program_id(2).to(tl.int64)
    b = bn // sentences
    word = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    within = tl.load(text_mask_ptr + bn * length + word, mask=word < length, other=0) != 0
    channel = head * D + tl.arange(0, D)
    width: tl.constexpr = HEADS * D
    k = _tile(text_k_ptr, bn * length, word, STRIDE_TEXT_K, channel, within)
    v = _tile(text_v_ptr, bn * length, word, STRIDE_TEXT_V, channel, within)
    dk = tl.zeros([BLOCK_K, D], tl.float32)
    dv = tl.zeros([BLOCK_K, D], tl.float32)

    for start in range(0, queries, BLOCK_Q):
        query = start + tl.arange(0, BLOCK_Q)
        keep = query < queries
        q = _tile(q_ptr, b * queries, query, STRIDE_Q, channel, keep)
        do = _tile(grad_o_ptr, bn * queries, query, width, channel, keep)
        lse = tl.load(lse_ptr + (bn * HEADS + head) * queries + query, mask=keep, other=0.0) * _LOG2_E
        delta = tl.load(delta_ptr + (bn * HEADS + head) * queries + query, mask=keep, other=0.0)
        dk, dv = _key_gradients(k, v, within, q, do, lse, delta, keep, dk, dv, scale)

    words = sentences * length
    text_lse_ptr += (b * HEADS + head) * (key_ticks + 1) * words
    text_delta_ptr += (b * HEADS + head) * (key_ticks + 1) * words
    for start in range(0, length, BLOCK_Q):
        query = start + tl.arange(0, BLOCK_Q)
        keep = query < length
        place = (bn % sentences).to(tl.int32) * length + query
        q = _tile(text_q_ptr, bn * length, query, STRIDE_TEXT_Q, channel, keep)
        do = _tile(text_do_ptr, b * (key_ticks + 1) * words, place, width, channel, keep)
        lse = tl.load(text_lse_ptr + place, mask=keep, other=0.0)
        delta = tl.load(text_delta_ptr + place, mask=keep, other=0.0)
        dk, dv = _key_gradients(k, v, within, q, do, lse, delta, keep, dk, dv, scale)
    _store(dtext_k_ptr, bn * length, word, width, channel, word < length, dk * (scale * _LN_2))
    _store(dtext_v_ptr, bn * length, word, width, channel, word < length, dv)


def _rows(**tensors: Tensor) -> tuple[list[Tensor], dict[str, int]]:
    """Tensors [..., C] as rows, and STRIDE_NAME: how far the rows of each are apart.

    A copy where rows are not evenly spaced, or their channels not side by side; thirds of a projection are none.
    """
    rows = [x.flatten(0, -2) for x in tensors.values()]
    rows = [x if x.stride(1) == 1 else x.contiguous() for x in rows]
    return rows, {f"STRIDE_{name}": x.stride(0) for name, x in zip(tensors, rows, strict=True)}


def _check_extents(rows: int, words: int, width: int, strides: dict[str, int]) -> None:
    """Of one clip: `rows` of a modality and `words` of all its sentences; clips and sentences are counted in 64 bits."""
    names = {name.removeprefix("STRIDE_").lower(): stride for name, stride in strides.items()}
    numbers = {name: (words if name.startswith("text") else rows) * stride for name, stride in names.items()}
    check_extents("memory_clip", **numbers, inner=rows * width, text_o=words * width)


def _block(limit: int, size: int) -> int:
    """Rows of a tile over `size` things: no more than the table's, no fewer than `tl.dot` takes."""
    return min(limit, max(16, 1 << (size - 1).bit_length()))


def _ticks_block(ticks: int) -> int:
    return 1 << (ticks - 1).bit_length()


def _walk(launch: Launch, length: int, ticks: int) -> dict[str, int]:
    """Tiles of what a program walks."""
    block_l = _block(launch.block_k, length)
    return {"BLOCK_K": launch.block_k, "BLOCK_L": block_l, "BLOCK_T": _ticks_block(ticks)}


def _scale(head_size: int) -> float:
    """Of scores to the base 2."""
    return math.log2(math.e) / math.sqrt(head_size)


def _group(sentences: int, block_p: int, head_size: int, warps: int) -> int:
    """How many sentences a program of `_visual_kernel` takes: groups as even as can be, whose means fit into the registers."""
    fitting = _MEAN_REGISTERS * 32 * warps // (block_p * head_size)
    most = min(_MOST_SENTENCES, max(1, fitting))
    groups = max(1, -(-sentences // most))
    return max(1, -(-sentences // groups))


def _visual(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, text_k: Tensor, text_v: Tensor, text_mask: Tensor,
    weight: Tensor, beta: Tensor, heads: int, memory: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """inner, or without `memory` o, and lse."""
    (clips, ticks, tokens, width), (sentences, length) = q.shape, text_k.shape[1:3]
    head_size = width // heads
    launch = launches.launch_of("memory_clip_visual", head_size, q.dtype, q.device)
    block_p = _block(launch.block_q, tokens)
    group = _group(sentences, block_p, head_size, launch.warps)
    inner = torch.empty((clips, sentences, *q.shape[1:]), dtype=q.dtype, device=q.device)
    lse = torch.empty((clips, sentences, heads, ticks, tokens), dtype=torch.float32, device=q.device)
    rows, strides = _rows(Q=q, K=k, V=v, TEXT_K=text_k, TEXT_V=text_v)
    _check_extents(ticks * tokens, sentences * length, width, strides)
    launches.start(
        _visual_kernel, (-(-tokens // block_p), heads, clips * -(-sentences // group)), q,
        *rows[:3], seen.contiguous(), *rows[3:], text_mask.contiguous(), weight.float().contiguous(), beta.float(),
        inner, lse, sentences, ticks, tokens, length, _scale(head_size),
        **strides, HEADS=heads, D=head_size, GROUP=group, MEMORY=memory,
        BLOCK_P=block_p, **_walk(launch, length, ticks), **launch.options,
    )  # fmt: skip
    return inner, lse


def _forward_kernels(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, text_q: Tensor, text_k: Tensor, text_v: Tensor,
    text_mask: Tensor, weight: Tensor, beta: Tensor, heads: int, mean_window: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    (clips, ticks, tokens, width), (sentences, length) = q.shape, text_q.shape[1:3]
    inner, lse = _visual(
        q, k, v, seen, text_k, text_v, text_mask, weight, beta, heads, memory=not mean_window
    )
    if mean_window:
        heard, share = _heard_and_share(weight.float(), mean_window)
        size, block = tokens * width, _ELEMENTWISE.block_q
        launches.start(
            _window_kernel, (-(-size // block), clips * sentences), inner,
            inner, heard.contiguous(), share.contiguous(), beta.float(), ticks, mean_window,
            SIZE=size, BLOCK=block, **_ELEMENTWISE.options,
        )  # fmt: skip

    head_size = width // heads
    launch = launches.launch_of("memory_clip_text", head_size, q.dtype, q.device)
    block_q = _block(launch.block_q, length)
    text_o = torch.empty((clips, sentences, ticks, length, width), dtype=q.dtype, device=q.device)
    text_lse = torch.empty((clips, sentences, heads, ticks, length), dtype=torch.float32, device=q.device)
    rows, strides = _rows(TEXT_Q=text_q, TEXT_K=text_k, TEXT_V=text_v, K=k, V=v)
    _check_extents(ticks * tokens, sentences * length, width, strides)
    launches.start(
        _text_kernel, (-(-length // block_q), heads, clips * sentences), q,
        *rows[:3], text_mask.contiguous(), *rows[3:], seen.contiguous(), text_o, text_lse,
        sentences, ticks, tokens, length, _scale(head_size),
        **strides, HEADS=heads, D=head_size,
        BLOCK_Q=block_q, **_walk(launch, length, ticks), **launch.options,
    )  # fmt: skip
    return inner, text_o, lse, text_lse


def _memory_gradients_kernels(
    grad_inner: Tensor, inner: Tensor, o: Tensor, weight: Tensor, beta: Tensor, mean_window: int
) -> tuple[Tensor, Tensor, Tensor]:
    clips, sentences, ticks, tokens, width = o.shape
    size, block = tokens * width, _ELEMENTWISE.block_q
    blocks = -(-size // block)
    grad_o = torch.empty_like(o)
    grad_beta = torch.empty((clips, sentences, blocks), dtype=torch.float32, device=o.device)
    if mean_window:
        weight, share = _heard_and_share(weight.float(), mean_window)
        grad_weight = torch.zeros((clips, sentences, ticks, 1), dtype=torch.float32, device=o.device)
    else:
        weight = share = weight.float()
        grad_weight = torch.empty((clips, sentences, ticks, blocks), dtype=torch.float32, device=o.device)
    launches.start(
        _memory_kernel, (blocks, clips * sentences), o,
        grad_inner.contiguous(), inner, o, weight.contiguous(), share.contiguous(), beta.float(),
        grad_o, grad_weight, grad_beta, ticks, mean_window,
        SIZE=size, WINDOW=mean_window > 0, BLOCK=block,
        **_ELEMENTWISE.options,
    )  # fmt: skip
    return grad_o, grad_weight.sum(-1), grad_beta.sum()


def _attention_gradients_kernels(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, text_q: Tensor, text_k: Tensor, text_v: Tensor,
    text_mask: Tensor, o: Tensor, text_o: Tensor, lse: Tensor, text_lse: Tensor, grad_o: Tensor,
    grad_text_o: Tensor, heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    (clips, query_ticks, tokens, width), key_ticks = q.shape, k.shape[1]
    sentences, length = text_q.shape[1:3]
    head_size, words = width // heads, sentences * length

    def empty(*shape: int, dtype: torch.dtype = q.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=q.device)

    def row(part: str) -> Launch:
        return launches.launch_of(f"memory_clip_{part}", head_size, q.dtype, q.device)

    (q_, k_, v_, tq_, tk_, tv_), strides = _rows(Q=q, K=k, V=v, TEXT_Q=text_q, TEXT_K=text_k, TEXT_V=text_v)
    _check_extents(max(query_ticks, key_ticks) * tokens, words, width, strides)

    def common(launch: Launch, kernel: Any) -> dict[str, Any]:
        used = {name: stride for name, stride in strides.items() if name in kernel.arg_names}
        return {
            "HEADS": heads,
            "D": head_size,
            **launch.options,
            **used,
        }

    if seen.stride()[1:] != (key_ticks, 1):
        seen = seen.contiguous()
    text_mask, o, text_o, lse, text_lse, grad_o, grad_text_o = (
        x.contiguous() for x in (text_mask, o, text_o, lse, text_lse, grad_o, grad_text_o)
    )
    delta = empty(*lse.shape, dtype=torch.float32)
    folded_do = empty(clips, query_ticks, tokens, width)
    folded_lse, folded_delta = (
        empty(clips, heads, query_ticks, tokens, dtype=torch.float32) for _ in range(2)
    )
    text_do = empty(clips, key_ticks + 1, words, width)
    folded_text_lse, text_delta = (
        empty(clips, heads, key_ticks + 1, words, dtype=torch.float32) for _ in range(2)
    )
    dq, dk, dv, dtext_q, dtext_k, dtext_v = (empty(*x.shape) for x in (q, k, v, text_q, text_k, text_v))
    scale = _scale(head_size)

    launch = row("dq")
    block_p = _block(launch.block_q, tokens)
    launches.start(
        _dq_kernel, (query_ticks * -(-tokens // block_p), heads, clips), q,
        q_, k_, v_, seen, tk_, tv_, text_mask, o, grad_o, lse,
        dq, delta, folded_do, folded_lse, folded_delta,
        seen.stride(0), sentences, query_ticks, key_ticks, tokens, length, scale,
        BLOCK_P=block_p, **_walk(launch, length, key_ticks), **common(launch, _dq_kernel),
    )  # fmt: skip

    launch = row("dtext")
    block_l = _block(launch.block_q, length)
    launches.start(
        _dtext_q_kernel, (-(-length // block_l), heads, clips * sentences), q,
        tq_, tk_, tv_, text_mask, k_, v_, seen, text_o, grad_text_o, text_lse,
        dtext_q, text_do, folded_text_lse, text_delta,
        seen.stride(0), sentences, query_ticks, key_ticks, tokens, length, scale,
        BLOCK_Q=block_l, **_walk(launch, length, query_ticks), **common(launch, _dtext_q_kernel),
    )  # fmt: skip
    launches.start(
        _dtext_kv_kernel, (-(-length // block_l), heads, clips * sentences), q,
        q_, tq_, tk_, tv_, text_mask, grad_o, lse, delta, text_do, folded_text_lse, text_delta,
        dtext_k, dtext_v, sentences, query_ticks * tokens, key_ticks, length, scale,
        BLOCK_Q=launch.block_k, BLOCK_K=block_l, **common(launch, _dtext_kv_kernel),
    )  # fmt: skip

    launch = row("dkv")
    block_p = _block(launch.block_q, tokens)
    launches.start(
        _dkv_kernel, (key_ticks * -(-tokens // block_p), heads, clips), q,
        q_, k_, v_, seen, tq_, folded_do, folded_lse, folded_delta, text_do, folded_text_lse, text_delta,
        dk, dv, seen.stride(0), words, query_ticks, key_ticks, tokens, scale,
        BLOCK_Q=launch.block_k, BLOCK_P=block_p, BLOCK_T=_ticks_block(query_ticks),
        **common(launch, _dkv_kernel),
    )  # fmt: skip
    return dq, dk, dv, dtext_q, dtext_k, dtext_v


@torch.library.custom_op("refavs::memory_clip", mutates_args=())
def _op(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, text_q: Tensor, text_k: Tensor, text_v: Tensor,
    text_mask: Tensor, weight: Tensor, beta: Tensor, heads: int, mean_window: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    tensors = q, k, v, seen, text_q, text_k, text_v, text_mask, weight, beta
    head_size = q.shape[-1] // heads
    if runs_kernel("memory_clip", "memory_clip_visual", head_size, *tensors, slow=_is_slow(q, heads)):
        return _forward_kernels(*tensors, heads, mean_window)
    inner, text_o, lse, text_lse = memory_clip_reference(*tensors, heads, mean_window)
    return inner.contiguous(), text_o.contiguous(), lse.contiguous(), text_lse.contiguous()


@_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, text_q: Tensor, text_k: Tensor, text_v: Tensor,
    text_mask: Tensor, weight: Tensor, beta: Tensor, heads: int, mean_window: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    (clips, ticks, tokens, width), (sentences, length) = q.shape, text_q.shape[1:3]
    sums = torch.promote_types(q.dtype, torch.float32)
    return (
        q.new_empty((clips, sentences, ticks, tokens, width)),
        q.new_empty((clips, sentences, ticks, length, width)),
        q.new_empty((clips, sentences, heads, ticks, tokens), dtype=sums),
        q.new_empty((clips, sentences, heads, ticks, length), dtype=sums),
    )


@torch.library.custom_op("refavs::memory_clip_backward", mutates_args=())
def _backward_op(
    grad_inner: Tensor, grad_text_o: Tensor, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, text_q: Tensor,
    text_k: Tensor, text_v: Tensor, text_mask: Tensor, weight: Tensor, beta: Tensor, inner: Tensor, text_o: Tensor,
    lse: Tensor, text_lse: Tensor, heads: int, mean_window: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    if not text_q.shape[1]:  # no sentence, nothing that a gradient could come from
        dq, dk, dv, dtext_q, dtext_k, dtext_v, dweight, dbeta = (
            x.new_zeros(x.shape) for x in (q, k, v, text_q, text_k, text_v, weight, beta)
        )
        return dq, dk, dv, dtext_q, dtext_k, dtext_v, dweight, dbeta
    visual = q, k, v, seen, text_k, text_v, text_mask
    attention = q, k, v, seen.expand(q.shape[0], -1, -1), text_q, text_k, text_v, text_mask
    inputs = grad_inner, *visual, weight, beta
    head_size = q.shape[-1] // heads
    if runs_kernel("memory_clip", "memory_clip_dq", head_size, *inputs, slow=_is_slow(q, heads)):
        o, _ = _visual(*visual, weight, beta, heads, memory=False)
        grad_o, grad_weight, grad_beta = _memory_gradients_kernels(
            grad_inner, inner, o, weight, beta, mean_window
        )
        grads = _attention_gradients_kernels(*attention, o, text_o, lse, text_lse, grad_o, grad_text_o, heads)
    else:
        nothing = torch.zeros_like(weight), torch.zeros_like(beta)
        o = memory_clip_reference(q, k, v, seen, text_q, *visual[4:], *nothing, heads)[0].to(lse.dtype)
        grad_o, grad_weight, grad_beta = _memory_gradients_reference(
            grad_inner.to(lse.dtype), o, weight.to(lse.dtype), beta.to(lse.dtype), mean_window
        )
        grads = _attention_gradients_reference(
            *attention, o, text_o, lse, text_lse, grad_o, grad_text_o, heads
        )
    dq, dk, dv, dtext_q, dtext_k, dtext_v = (x.contiguous() for x in grads)
    return (
        dq, dk, dv, dtext_q, dtext_k, dtext_v,
        grad_weight.to(weight.dtype).contiguous(), grad_beta.to(beta.dtype),
    )  # fmt: skip


@_backward_op.register_fake
def _(
    grad_inner: Tensor, grad_text_o: Tensor, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, text_q: Tensor,
    text_k: Tensor, text_v: Tensor, text_mask: Tensor, weight: Tensor, beta: Tensor, inner: Tensor, text_o: Tensor,
    lse: Tensor, text_lse: Tensor, heads: int, mean_window: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dq, dk, dv, dtext_q, dtext_k, dtext_v, grad_weight, grad_beta = (
        x.new_empty(x.shape) for x in (q, k, v, text_q, text_k, text_v, weight, beta)
    )
    return dq, dk, dv, dtext_q, dtext_k, dtext_v, grad_weight, grad_beta


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.heads, ctx.mean_window = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(*output[2:])


def _backward(ctx: Any, grad_inner: Tensor, grad_text_o: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    dq, dk, dv, dtext_q, dtext_k, dtext_v, grad_weight, grad_beta = _backward_op(
        grad_inner, grad_text_o, *ctx.saved_tensors, ctx.heads, ctx.mean_window
    )
    return dq, dk, dv, None, dtext_q, dtext_k, dtext_v, None, grad_weight, grad_beta, None, None


_op.register_autograd(_backward, setup_context=_setup_context)

TRANSLATION = {torch.ops.refavs.memory_clip.default: memory_clip_reference}
"""What `translation` puts in the op's place."""


@dataclass(frozen=True)
class ClipShape:
    """What the costs depend on."""

    clips: int
    sentences: int
    ticks: int
    window: int
    """Ticks that a tick sees, itself and the ones before."""
    tokens: int
    length: int
    """Words of a sentence."""
    heads: int
    head_size: int

    @property
    def width(self) -> int:
        """Channels of all heads."""
        return self.heads * self.head_size

    @property
    def queries(self) -> int:
        """Of the modality, in all clips."""
        return self.clips * self.ticks * self.tokens

    @property
    def words(self) -> int:
        """In all clips, padding counted."""
        return self.clips * self.sentences * self.length

    @property
    def ring_pairs(self) -> int:
        """Of a modality's query and a key that it sees, in one head."""
        seen = sum(min(t + 1, self.window) for t in range(self.ticks))
        return self.clips * self.tokens**2 * seen

    @property
    def visual_word_pairs(self) -> int:
        """Of a modality's query and a word of each sentence, in one head."""
        return self.sentences * self.queries * self.length

    @property
    def word_pairs(self) -> int:
        """Of a word and a key, or a word of its own sentence, in one head; a pair that several ticks have counts once."""
        return self.words * (self.ticks * self.tokens + self.length)


def cost(shape: ClipShape, bits: int, backward: bool = False, groups: int = 1) -> Cost:
    """Of the kernels, for a band with words all seen; forward, or `backward` alone.

    Counted: two operations for each channel of each product of a pair (2 products forward; 3 for dq, 4 for dk and dv, 2 to make o
    again), 12 for an element of inner in the memory's backward. Every input and output once, and what one kernel hands to another
    once each way. `groups` of sentences, at most N, go over the ticks' keys each on its own in `_visual_kernel`.
    """
    s, size = shape, bits // 8
    modality, text = s.queries * s.width, s.words * s.width
    inner, text_o = s.sentences * modality, s.ticks * text
    lse, text_lse = 4 * s.sentences * s.queries * s.heads, 4 * s.ticks * s.words * s.heads
    visual = 4 * s.width * (groups * s.ring_pairs + s.visual_word_pairs)
    read_by_visual = 3 * modality + 2 * text
    if not backward:
        moved = size * (read_by_visual + inner + text + text_o) + lse + text_lse
        return Cost(visual + 4 * s.width * s.word_pairs, moved, 2)
    pairs = s.ring_pairs + s.visual_word_pairs + s.word_pairs
    folded_text = text * (s.ticks + 1)
    operations = visual + 12 * inner + 14 * s.width * pairs
    elements = (
        read_by_visual + inner  # o again
        + 4 * inner  # the memory: dI, inner, o; do
        + 3 * modality + 2 * text + 2 * inner + 2 * modality  # dq, and the folded do
        + 3 * text + 2 * modality + 2 * text_o + text + folded_text  # dtext_q, and the folded do
        + modality + 3 * text + inner + text + 2 * text  # dtext_k, dtext_v
        + 4 * modality + text + folded_text + 2 * modality  # dk, dv
    )  # fmt: skip
    sums = (
        lse + 3 * lse + 2 * 2 * lse // s.sentences + text_lse + 2 * 2 * 4 * s.heads * s.words * (s.ticks + 1)
    )
    return Cost(operations, size * elements + sums, 6)


def unfused_cost(shape: ClipShape, bits: int, backward: bool = False) -> Cost:
    """Of the chain of torch operators that `memory_clip_reference` is, or its `backward` by autograd; band as a mask, which
    skips nothing.

    Counted: each operator reads its inputs from memory and writes its output. Backward, an operator on elements reads the
    gradient and what it saved and writes a gradient; a product becomes two.
    """
    s, size = shape, bits // 8
    per_clip, heads = s.ticks * s.tokens, s.clips * s.heads
    inner = s.sentences * s.queries * s.width
    text_o = s.ticks * s.words * s.width
    parts = [
        _partial_cost(heads, per_clip, per_clip, s.head_size, size, True, backward),
        _partial_cost(heads * s.sentences, per_clip, s.length, s.head_size, size, True, backward),
        _partial_cost(heads * s.ticks, s.sentences * s.length, s.tokens, s.head_size, size, False, backward),
        _partial_cost(heads * s.sentences, s.length, s.length, s.head_size, size, True, backward),
        # sub, mul and add of a merge, the change of layout; twice the elements backward, and twice the operators
        _elementwise(inner, 4, 3, backward),
        _elementwise(text_o, 4, 3, backward),
        # the memory: a product with a T x T matrix for each sentence; the change to the type
        Cost((2 if backward else 1) * 2 * s.ticks * inner, (2 if backward else 1) * 2 * 4 * inner, 2 if backward else 1),
        _elementwise(inner, 1, 1, backward),
        # the words over the seen ticks: shares [B, T, T, h, N * L], five operators, and a product with o of each tick
        _elementwise(s.ticks**2 * s.words * s.heads, 5, 5, backward),
        Cost((2 if backward else 1) * 2 * s.ticks * text_o, (2 if backward else 1) * 2 * 4 * text_o, 2 if backward else 1),
    ]  # fmt: skip
    return Cost(
        sum(part.operations for part in parts),
        sum(part.bytes for part in parts),
        sum(part.launches for part in parts),
    )


def _elementwise(elements: int, operators: int, operations: int, backward: bool) -> Cost:
    """Operators on float32 elements, each of which reads and writes them once."""
    twice = 2 if backward else 1
    return Cost(twice * operations * elements, twice * operators * 8 * elements, twice * operators)


def _partial_cost(
    batch: int, queries: int, keys: int, head_size: int, size: int, masked: bool, backward: bool
) -> Cost:
    """Of `partial_attention` in torch operators."""
    scores, rows, columns = batch * queries * keys, batch * queries * head_size, batch * keys * head_size
    changes = 2 if size < 4 else 0  # of type, of the scores
    if not backward:
        passes = [8] * masked + [4, 8, 8, 4]  # mask, max, subtraction, exp, sum: bytes of a score
        moved = sum(passes) * scores + changes * (4 + size) * scores
        moved += size * (2 * rows + rows + columns + 2 * scores + columns + 2 * rows)
        operations = 4 * scores * head_size + (len(passes)) * scores + 2 * rows
        return Cost(operations, moved, len(passes) + changes + 4 + 2)
    passes = [8] * masked + [12, 12]  # mask, exp, sum
    moved = sum(passes) * scores + changes * (4 + size) * scores
    moved += size * (4 * scores + 3 * (rows + columns) + 4 * rows)
    return Cost(
        8 * scores * head_size + len(passes) * scores + 2 * rows, moved, len(passes) + changes + 4 + 4
    )


def compilations(capability: int) -> list[Compilation]:
    """What `edge` and `full` launch on a card of this compute capability: 6 sentences over 10 ticks, picture and sound.

    Where the picture's tokens make blocks as small as the sound's one token does, they are the same kernel. What goes element by
    element is compiled for `full` alone.
    """
    found: dict[tuple[Any, ...], Compilation] = {}
    for bits, kind in ((32, "fp32"), (16, "fp16"), (16, "bf16")):
        for (heads, head_size, picture), sound in itertools.product(
            ((6, 32, 64), (8, 128, 144)), (False, True)
        ):
            tokens = 1 if sound else picture
            for name, kernel, launch, constants in _variants(heads, head_size, tokens, bits, capability):
                key = name, kind, launch, tuple(constants.items())
                if key in found:
                    continue
                part = _PART_OF.get(name)
                entry = (f"memory_clip_{part}", head_size, bits) if part else None
                signature = {
                    argument: _type_of(argument, kind)
                    for argument in kernel.arg_names
                    if argument not in constants
                }
                full_name = f"{name}_{head_size}_{kind}" + ("_sound" if sound else "")
                multiplies = "D" in constants and (bits == 16 or head_size < 128)
                found[key] = Compilation(full_name, kernel, signature, constants, launch, multiplies, entry)
    return list(found.values())


def _variants(
    heads: int, head_size: int, tokens: int, bits: int, capability: int
) -> Iterator[tuple[str, Any, Launch, dict[str, Any]]]:
    """(name, kernel, launch, constants) of every kernel at one shape; q, k and v as thirds of one projection."""
    length, sentences, ticks, width = 25, 6, 10, heads * head_size

    def row(part: str) -> Launch:
        return launches.row(f"memory_clip_{part}", head_size, bits, capability)

    def attention(kernel: Any, **blocks: int) -> dict[str, Any]:
        constants = {name: 3 * width for name in kernel.arg_names if name.startswith("STRIDE")}
        return constants | {"HEADS": heads, "D": head_size} | blocks

    launch = row("visual")
    block_p = _block(launch.block_q, tokens)
    group = _group(sentences, block_p, head_size, launch.warps)
    walk = {"GROUP": group, "BLOCK_P": block_p} | _walk(launch, length, ticks)
    yield "memory_clip_visual", _visual_kernel, launch, attention(_visual_kernel, MEMORY=True, **walk)
    yield "memory_clip_visual_o", _visual_kernel, launch, attention(_visual_kernel, MEMORY=False, **walk)
    launch = row("text")
    walk = {"BLOCK_Q": _block(launch.block_q, length)} | _walk(launch, length, ticks)
    yield "memory_clip_text", _text_kernel, launch, attention(_text_kernel, **walk)
    launch = row("dq")
    walk = {"BLOCK_P": _block(launch.block_q, tokens)} | _walk(launch, length, ticks)
    yield "memory_clip_dq", _dq_kernel, launch, attention(_dq_kernel, **walk)
    launch = row("dtext")
    block_l = _block(launch.block_q, length)
    walk = {"BLOCK_Q": block_l} | _walk(launch, length, ticks)
    yield "memory_clip_dtext_q", _dtext_q_kernel, launch, attention(_dtext_q_kernel, **walk)
    walk = {"BLOCK_Q": launch.block_k, "BLOCK_K": block_l}
    yield "memory_clip_dtext_kv", _dtext_kv_kernel, launch, attention(_dtext_kv_kernel, **walk)
    launch = row("dkv")
    walk = {
        "BLOCK_Q": launch.block_k,
        "BLOCK_P": _block(launch.block_q, tokens),
        "BLOCK_T": _ticks_block(ticks),
    }
    yield "memory_clip_dkv", _dkv_kernel, launch, attention(_dkv_kernel, **walk)
    if tokens > 1 and head_size == 128:  # any other size gives the same code
        block = {"SIZE": tokens * width, "BLOCK": _ELEMENTWISE.block_q}
        yield "memory_clip_window", _window_kernel, _ELEMENTWISE, block
        yield "memory_clip_memory", _memory_kernel, _ELEMENTWISE, block | {"WINDOW": False}
        yield "memory_clip_memory_window", _memory_kernel, _ELEMENTWISE, block | {"WINDOW": True}


_PART_OF = {
    "memory_clip_visual": "visual", "memory_clip_visual_o": "visual", "memory_clip_text": "text", "memory_clip_dq": "dq",
    "memory_clip_dtext_q": "dtext", "memory_clip_dtext_kv": "dtext", "memory_clip_dkv": "dkv",
}  # fmt: skip
"""Kernel -> what of the table it is launched by."""
_SUMS = ("beta", "weight", "share", "heard", "lse", "delta")


def _type_of(argument: str, kind: str) -> str:
    """Triton's type of a kernel's argument, by its name; `kind` is that of q."""
    if not argument.endswith("_ptr"):
        return "fp32" if argument == "scale" else "i32"
    if argument in ("seen_ptr", "text_mask_ptr"):
        return "*i1"
    return "*fp32" if argument.removesuffix("_ptr").endswith(_SUMS) else f"*{kind}"
