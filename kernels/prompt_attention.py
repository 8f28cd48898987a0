"""Prompting of the decoder's queries by the cues (paper section 4.4): gated attention and gated mean of the cues, in one pass.

Per sentence-frame m, with queries x [Q, E] and their projection q, both shared by all m, projected cues k, v [K, E], the cues
themselves c [K, E], and the set of cues that are there,

    A      = concatenation over heads of softmax(q k^T / sqrt(d)) v          (over the cues that are there)
    mean   = sum of c / how many                                             (likewise)
    result = x + s1 (A W^T + b) + s2 mean,          s1 = sigmoid(gate_attention), s2 = sigmoid(gate_mean)

Backward, with G and g the gradients of result and mean, p the softmax and per head delta = sum_d dA A:

    dx = sum_m G          dA = s1 G W            dW = s1 sum_m G^T A           db = s1 sum_m,Q G
    ds = p (dA v^T - delta) / sqrt(d)            dq = sum_m ds k               dk = ds^T q         dv = p^T dA
    r  = s2 sum_Q G + g                          dc = r / how many for each cue that is there, 0 for the others
    dgate_attention = (1 - s1) (sum of delta + b db)            dgate_mean = s2 (1 - s2) sum_m mean sum_Q G

The first gate's gradient is s1 (1 - s1) <G, A W^T + b>, and s1 <G, A W^T> = <dA, A>, which is the sum of all delta.

Forward: one program for a sentence-frame and a block of queries. It sums up the cues for the mean, then walks the heads: an
online softmax over the cues gives the head's output [block, d], whose product with the head's columns of W is added to [block, E]
in registers. So A never exists in memory. E that is no power of two is padded with columns that are never loaded or stored. In
float32, whose products need all their operands in registers, 32 columns of v are taken at a time, and a larger head's scores are
made again for each. Blocks of 16 make 7 programs of 100 queries: few for a large GPU, but they do in one launch what took 19.

Backward: dA, dW and the sums over sentence-frames are left to torch, being plain matrix products and sums. One kernel has a
program for a block of queries, a head and a sentence-frame: its first walk over the cues makes A again from lse (dW and delta
need it), its second dq of this sentence-frame, in float32. lse of 10,000 is known to 0.001 only, so the shares that it gives are
divided by their sum again; else delta would not be the mean of the dA v that it is taken from. The other kernel has a program
for a block of cues: dk, dv, dc. No atomics: the same bits every time.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from . import launch as launches
from .dispatch import check_extents, runs_kernel
from .launch import Compilation, Cost
from .online_softmax import attend
from .partial_attention import join_heads, partial_attention, split_heads
from .triton_or_not import tl, triton

_LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
_LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


def prompt_attention(
    queries: Tensor, q: Tensor, k: Tensor, v: Tensor, source: Tensor, mask: Tensor, out_weight: Tensor,
    out_bias: Tensor, gate_attention: Tensor, gate_mean: Tensor, heads: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The prompted queries and the mean cue of M sentence-frames.

    k, v and `out_weight` are taken in q's type; the others may have float types of their own, as autocast leaves them.

    Args:
        queries: [Q, E], which the prompt is added to.
        q: [Q, E], the queries projected for the attention.
        k: [M, K, E], the cues projected to keys.
        v: [M, K, E], the cues projected to values.
        source: [M, K, E], the cues whose mean is taken.
        mask: [M, K] bool, True where a cue is there. Each sentence-frame must have one.
        out_weight: [E, E] of the output projection, as torch's Linear has it.
        out_bias: [E].
        gate_attention: [], before the sigmoid.
        gate_mean: [], before the sigmoid.
        heads: how many heads E is cut into.

    Returns:
        prompted queries [M, Q, E] of the type of `queries`; mean cue [M, E] of the type of `source`.

    Raises:
        ValueError: the shapes do not fit together.
    """
    (asking, width), (items, cues) = queries.shape, k.shape[:2]
    shapes = {
        "q": (q, (asking, width)),
        "k": (k, (items, cues, width)),
        "v": (v, (items, cues, width)),
        "source": (source, (items, cues, width)),
        "mask": (mask, (items, cues)),
        "out_weight": (out_weight, (width, width)),
        "out_bias": (out_bias, (width,)),
    }
    for name, (tensor, shape) in shapes.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must be {list(shape)} for queries {list(queries.shape)}, not {list(tensor.shape)}"
            )
    if width % heads:
        raise ValueError(f"{width} channels cannot be cut into {heads} heads")
    k, v, out_weight = (x.to(q.dtype) for x in (k, v, out_weight))
    prompted, mean, _ = _op(
        queries,
        q,
        k,
        v,
        source,
        mask,
        out_weight,
        out_bias,
        gate_attention,
        gate_mean,
        heads,
    )
    return prompted, mean


def prompt_attention_reference(
    queries: Tensor, q: Tensor, k: Tensor, v: Tensor, source: Tensor, mask: Tensor, out_weight: Tensor,
    out_bias: Tensor, gate_attention: Tensor, gate_mean: Tensor, heads: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The op in plain torch.

    Returns:
        prompted [M, Q, E]; mean [M, E]; lse [M, heads, Q], float32 at least.
    """
    o, lse = partial_attention(
        split_heads(q, heads), split_heads(k, heads), split_heads(v, heads), mask[:, None, None, :]
    )
    wide = lse.dtype
    attended = functional.linear(join_heads(o).to(q.dtype), out_weight).to(wide) + out_bias
    there = mask.unsqueeze(-1)
    mean = source.to(wide).masked_fill(~there, 0.0).sum(dim=1) / there.sum(dim=1)
    s1, s2 = torch.sigmoid(gate_attention.to(wide)), torch.sigmoid(gate_mean.to(wide))
    prompted = queries + s1 * attended + s2 * mean.unsqueeze(1)
    return prompted.to(queries.dtype), mean.to(source.dtype), lse


@triton.jit(do_not_specialize=["queries", "cues"])
def _prompt_kernel(
    queries_ptr, q_ptr, k_ptr, v_ptr, source_ptr, mask_ptr, weight_ptr, bias_ptr, gate_attention_ptr, gate_mean_ptr,
    prompted_ptr, mean_ptr, lse_ptr,
    queries, cues, scale,
    HEADS: tl.constexpr, HEAD: tl.constexpr, VALUE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of queries, sentence-frames). BLOCK_E: E or the next power of two; VALUE: columns of v at a time."""
    parts: tl.constexpr = HEAD // VALUE
    width: tl.constexpr = HEADS * HEAD
    item = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = rows < queries
    channels = tl.arange(0, HEAD)
    wide = tl.arange(0, BLOCK_E)
    within = wide < width
    k_ptr += item * cues * width
    v_ptr += item * cues * width
    source_ptr += item * cues * width
    mask_ptr += item * cues

    mean = tl.zeros([BLOCK_E], tl.float32)
    how_many = 0.0
    for block in range(0, tl.cdiv(cues, BLOCK_K)):
        cue = block * BLOCK_K + tl.arange(0, BLOCK_K)
        there = tl.load(mask_ptr + cue, mask=cue < cues, other=0) != 0
        known = there[:, None] & within[None, :]
        source = tl.load(source_ptr + cue[:, None] * width + wide[None, :], mask=known, other=0.0)
        mean += tl.sum(source.to(tl.float32), 0)
        how_many += tl.sum(there.to(tl.float32), 0)
    mean = mean / how_many

    projected = tl.zeros([BLOCK_Q, BLOCK_E], tl.float32)
    for part in range(0, HEADS * parts):
        head = part // parts
        columns = part * VALUE + tl.arange(0, VALUE)
        of_row = rows[:, None] * width + head * HEAD + channels[None, :]
        q = tl.load(q_ptr + of_row, mask=inside[:, None], other=0.0)
        top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_Q], tl.float32)
        o = tl.zeros([BLOCK_Q, VALUE], tl.float32)
        for block in range(0, tl.cdiv(cues, BLOCK_K)):
            cue = block * BLOCK_K + tl.arange(0, BLOCK_K)
            there = tl.load(mask_ptr + cue, mask=cue < cues, other=0) != 0
            of_cue = cue[:, None] * width + head * HEAD + channels[None, :]
            k = tl.load(k_ptr + of_cue, mask=there[:, None], other=0.0)
            v = tl.load(v_ptr + cue[:, None] * width + columns[None, :], mask=there[:, None], other=0.0)
            top, total, o = attend(q, k, v, there[None, :], top, total, o, scale)
        lse = top * _LN_2 + tl.log(total)
        tl.store(lse_ptr + (item * HEADS + head) * queries + rows, lse, mask=inside)
        o = o / total[:, None]
        turned = weight_ptr + wide[None, :] * width + columns[:, None]  # [VALUE, BLOCK_E] of W^T
        weight = tl.load(turned, mask=within[None, :], other=0.0)
        projected = tl.dot(o.to(weight.dtype), weight, projected, input_precision="tf32x3")

    bias = tl.load(bias_ptr + wide, mask=within, other=0.0).to(tl.float32)
    s1 = tl.sigmoid(tl.load(gate_attention_ptr).to(tl.float32))
    s2 = tl.sigmoid(tl.load(gate_mean_ptr).to(tl.float32))
    stored = inside[:, None] & within[None, :]
    of_row = rows[:, None] * width + wide[None, :]
    x = tl.load(queries_ptr + of_row, mask=stored, other=0.0).to(tl.float32)
    prompted = x + s1 * (projected + bias[None, :]) + (s2 * mean)[None, :]
    prompted_ptr += item * queries * width
    tl.store(prompted_ptr + of_row, prompted.to(prompted_ptr.dtype.element_ty), mask=stored)
    if tl.program_id(0) == 0:
        tl.store(mean_ptr + item * width + wide, mean.to(mean_ptr.dtype.element_ty), mask=within)


@triton.jit(do_not_specialize=["queries", "cues"])
def _prompt_dq_kernel(
    d_attended_ptr, q_ptr, k_ptr, v_ptr, mask_ptr, lse_ptr, attended_ptr, delta_ptr, dq_ptr,
    queries, cues, scale,
    HEADS: tl.constexpr, HEAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A, delta and the sentence-frame's part of dq for a block of queries. Grid (blocks of queries, heads, sentence-frames)."""
    width: tl.constexpr = HEADS * HEAD
    head = tl.program_id(1)
    item = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = rows < queries
    channels = tl.arange(0, HEAD)
    of_row = rows[:, None] * width + head * HEAD + channels[None, :]
    at = item * queries * width + of_row
    of_sum = (item * HEADS + head) * queries + rows
    q = tl.load(q_ptr + of_row, mask=inside[:, None], other=0.0)
    lse = tl.load(lse_ptr + of_sum, mask=inside, other=float("inf")) * _LOG2_E
    k_ptr += item * cues * width + head * HEAD
    v_ptr += item * cues * width + head * HEAD
    mask_ptr += item * cues

    attended = tl.zeros([BLOCK_Q, HEAD], tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    for block in range(0, tl.cdiv(cues, BLOCK_K)):
        cue = block * BLOCK_K + tl.arange(0, BLOCK_K)
        there = tl.load(mask_ptr + cue, mask=cue < cues, other=0) != 0
        of_cue = cue[:, None] * width + channels[None, :]
        k = tl.load(k_ptr + of_cue, mask=there[:, None], other=0.0)
        v = tl.load(v_ptr + of_cue, mask=there[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="tf32x3") * (scale * _LOG2_E)
        p = tl.exp2(tl.where(there[None, :], scores - lse[:, None], float("-inf")))
        share = p.to(v.dtype)
        total += tl.sum(share.to(tl.float32), 1)
        attended = tl.dot(share, v, attended, input_precision="tf32x3")
    total = tl.where(inside, total, 1.0)
    attended = attended / total[:, None]
    lse += tl.log2(total)
    tl.store(attended_ptr + at, attended.to(attended_ptr.dtype.element_ty), mask=inside[:, None])
    d_attended = tl.load(d_attended_ptr + at, mask=inside[:, None], other=0.0)
    delta = tl.sum(d_attended.to(tl.float32) * attended, 1)
    tl.store(delta_ptr + of_sum, delta, mask=inside)

    dq = tl.zeros([BLOCK_Q, HEAD], tl.float32)
    for block in range(0, tl.cdiv(cues, BLOCK_K)):
        cue = block * BLOCK_K + tl.arange(0, BLOCK_K)
        there = tl.load(mask_ptr + cue, mask=cue < cues, other=0) != 0
        of_cue = cue[:, None] * width + channels[None, :]
        k = tl.load(k_ptr + of_cue, mask=there[:, None], other=0.0)
        v = tl.load(v_ptr + of_cue, mask=there[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="tf32x3") * (scale * _LOG2_E)
        p = tl.exp2(tl.where(there[None, :], scores - lse[:, None], float("-inf")))
        dp = tl.dot(d_attended, tl.trans(v), input_precision="tf32x3")
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="tf32x3")
    tl.store(dq_ptr + at, dq * scale, mask=inside[:, None])


@triton.jit(do_not_specialize=["queries", "cues"])
def _prompt_dkv_kernel(
    d_attended_ptr, q_ptr, k_ptr, v_ptr, mask_ptr, lse_ptr, delta_ptr, of_each_cue_ptr, dk_ptr, dv_ptr, d_source_ptr,
    queries, cues, scale,
    HEADS: tl.constexpr, HEAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dk, dv and dc of a block of cues; tiles are [cues, queries]. Grid (blocks of cues, heads, sentence-frames)."""
    width: tl.constexpr = HEADS * HEAD
    head = tl.program_id(1)
    item = tl.program_id(2).to(tl.int64)
    cue = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = cue < cues
    channels = head * HEAD + tl.arange(0, HEAD)
    there = tl.load(mask_ptr + item * cues + cue, mask=inside, other=0) != 0
    at = (item * cues + cue[:, None]) * width + channels[None, :]
    k = tl.load(k_ptr + at, mask=there[:, None], other=0.0)
    v = tl.load(v_ptr + at, mask=there[:, None], other=0.0)
    d_attended_ptr += item * queries * width
    lse_ptr += (item * HEADS + head) * queries
    delta_ptr += (item * HEADS + head) * queries

    dk = tl.zeros([BLOCK_K, HEAD], tl.float32)
    dv = tl.zeros([BLOCK_K, HEAD], tl.float32)
    for block in range(0, tl.cdiv(queries, BLOCK_Q)):
        rows = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
        asked = rows < queries
        of_row = rows[:, None] * width + channels[None, :]
        q = tl.load(q_ptr + of_row, mask=asked[:, None], other=0.0)
        d_attended = tl.load(d_attended_ptr + of_row, mask=asked[:, None], other=0.0)
        lse = tl.load(lse_ptr + rows, mask=asked, other=float("inf")) * _LOG2_E
        delta = tl.load(delta_ptr + rows, mask=asked, other=0.0)
        scores = tl.dot(k, tl.trans(q), input_precision="tf32x3") * (scale * _LOG2_E)
        p = tl.exp2(tl.where(there[:, None], scores - lse[None, :], float("-inf")))
        dv = tl.dot(p.to(q.dtype), d_attended, dv, input_precision="tf32x3")
        dp = tl.dot(v, tl.trans(d_attended), input_precision="tf32x3")
        ds = p * (dp - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="tf32x3")
    tl.store(dk_ptr + at, (dk * scale).to(dk_ptr.dtype.element_ty), mask=inside[:, None])
    tl.store(dv_ptr + at, dv.to(dv_ptr.dtype.element_ty), mask=inside[:, None])
    of_each_cue = tl.load(of_each_cue_ptr + item * width + channels)
    d_source = tl.where(there[:, None], of_each_cue[None, :], 0.0)
    tl.store(d_source_ptr + at, d_source.to(d_source_ptr.dtype.element_ty), mask=inside[:, None])


def _forward(
    queries: Tensor, q: Tensor, k: Tensor, v: Tensor, source: Tensor, mask: Tensor, out_weight: Tensor,
    out_bias: Tensor, gate_attention: Tensor, gate_mean: Tensor, heads: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    queries, q, k, v, source, mask, out_weight, out_bias = (
        x.contiguous() for x in (queries, q, k, v, source, mask, out_weight, out_bias)
    )
    (asking, width), (items, cues) = queries.shape, k.shape[:2]
    head = width // heads
    row = launches.launch_of("prompt", head, q.dtype, q.device)
    check_extents("prompt_attention", q=asking * width, k=cues * width, out_weight=width * width)
    prompted = torch.empty((items, asking, width), dtype=queries.dtype, device=q.device)
    mean = torch.empty((items, width), dtype=source.dtype, device=q.device)
    lse = torch.empty((items, heads, asking), dtype=torch.float32, device=q.device)
    launches.start(
        _prompt_kernel, (triton.cdiv(asking, row.block_q), items), q,
        queries, q, k, v, source, mask, out_weight, out_bias, gate_attention, gate_mean, prompted, mean, lse,
        asking, cues, math.log2(math.e) / math.sqrt(head),
        HEADS=heads, HEAD=head, VALUE=_value_columns(head, q.dtype.itemsize),
        BLOCK_Q=row.block_q, BLOCK_K=row.block_k, BLOCK_E=triton.next_power_of_2(width),
        **row.options,
    )  # fmt: skip
    return prompted, mean, lse


def _value_columns(head: int, itemsize: int) -> int:
    """Columns of v at a time: a head's in 16 bits; in float32 at most 32, for a wider tile of W does not fit the registers."""
    return head if itemsize == 2 else min(head, 32)


def _attention_gradients(
    d_attended: Tensor, of_each_cue: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, lse: Tensor,
    source_type: torch.dtype, heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_attended, of_each_cue, q, k, v, mask, lse = (
        x.contiguous() for x in (d_attended, of_each_cue, q, k, v, mask, lse)
    )
    (items, cues, width), asking = k.shape, q.shape[0]
    head = width // heads
    scale = 1.0 / math.sqrt(head)
    attended, delta = torch.empty_like(d_attended), torch.empty_like(lse)
    dq = torch.empty_like(d_attended, dtype=torch.float32)
    dk, dv, d_source = torch.empty_like(k), torch.empty_like(v), torch.empty_like(k, dtype=source_type)
    row = launches.launch_of("prompt_dq", head, q.dtype, q.device)
    launches.start(
        _prompt_dq_kernel, (triton.cdiv(asking, row.block_q), heads, items), q,
        d_attended, q, k, v, mask, lse, attended, delta, dq, asking, cues, scale,
        HEADS=heads, HEAD=head, BLOCK_Q=row.block_q, BLOCK_K=row.block_k, **row.options,
    )  # fmt: skip
    row = launches.launch_of("prompt_dkv", head, q.dtype, q.device)
    launches.start(
        _prompt_dkv_kernel, (triton.cdiv(cues, row.block_k), heads, items), q,
        d_attended, q, k, v, mask, lse, delta, of_each_cue, dk, dv, d_source, asking, cues, scale,
        HEADS=heads, HEAD=head, BLOCK_Q=row.block_q, BLOCK_K=row.block_k, **row.options,
    )  # fmt: skip
    return attended, delta, dq.sum(dim=0), dk, dv, d_source


def _attention_gradients_reference(
    d_attended: Tensor, of_each_cue: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, lse: Tensor,
    source_type: torch.dtype, heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """A [M, Q, E], delta [M, heads, Q] and the gradients of q, k, v and source, given those of A and of a cue that is there."""
    scale = 1.0 / math.sqrt(q.shape[-1] // heads)
    d_heads, q_, k_, v_ = (split_heads(x.to(lse.dtype), heads) for x in (d_attended, q, k, v))
    scores = (scale * (q_ @ k_.transpose(-2, -1))).masked_fill(~mask[:, None, None, :], float("-inf"))
    p = torch.exp(scores - lse.unsqueeze(-1))
    attended = p @ v_
    delta = (d_heads * attended).sum(dim=-1)
    ds = scale * p * (d_heads @ v_.transpose(-2, -1) - delta.unsqueeze(-1))
    dk, dv = join_heads(ds.transpose(-2, -1) @ q_), join_heads(p.transpose(-2, -1) @ d_heads)
    d_source = (of_each_cue.unsqueeze(1) * mask.unsqueeze(-1)).to(source_type)
    dq = join_heads((ds @ k_).sum(dim=0))
    return join_heads(attended).to(q.dtype), delta, dq, dk.to(k.dtype), dv.to(v.dtype), d_source


@torch.library.custom_op("refavs::prompt_attention", mutates_args=())
def _op(
    queries: Tensor, q: Tensor, k: Tensor, v: Tensor, source: Tensor, mask: Tensor, out_weight: Tensor,
    out_bias: Tensor, gate_attention: Tensor, gate_mean: Tensor, heads: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    tensors = queries, q, k, v, source, mask, out_weight, out_bias, gate_attention, gate_mean
    if runs_kernel("prompt_attention", "prompt", q.shape[-1] // heads, *tensors):
        return _forward(*tensors, heads)
    return prompt_attention_reference(*tensors, heads)


@torch.library.custom_op("refavs::prompt_attention_backward", mutates_args=())
def _backward_op(
    grad_prompted: Tensor, grad_mean: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, out_weight: Tensor,
    out_bias: Tensor, gate_attention: Tensor, gate_mean: Tensor, mean: Tensor, lse: Tensor, heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of queries, q, k, v, source, out_weight, out_bias and the two gates."""
    wide = lse.dtype
    s1, s2 = torch.sigmoid(gate_attention.to(wide)), torch.sigmoid(gate_mean.to(wide))
    given = grad_prompted.to(q.dtype)
    d_attended = ((given @ out_weight) * s1).to(q.dtype)
    over_queries = grad_prompted.sum(dim=1, dtype=wide)
    of_each_cue = (s2 * over_queries + grad_mean) / mask.sum(dim=1, keepdim=True)
    head = q.shape[-1] // heads
    kernel = runs_kernel("prompt_attention_backward", "prompt_dq", head, grad_prompted, q, k, v, mask)
    attention_gradients = _attention_gradients if kernel else _attention_gradients_reference
    attended, delta, dq, dk, dv, d_source = attention_gradients(
        d_attended, of_each_cue, q, k, v, mask, lse, mean.dtype, heads
    )
    d_weight = s1 * (given.flatten(0, 1).T @ attended.flatten(0, 1))
    d_bias = s1 * over_queries.sum(dim=0)
    d_gate_attention = (1 - s1) * (delta.sum() + (out_bias * d_bias).sum())
    d_gate_mean = s2 * (1 - s2) * (mean * over_queries).sum()
    return (
        grad_prompted.sum(dim=0),
        dq.to(q.dtype),
        dk,
        dv,
        d_source,
        d_weight.to(out_weight.dtype),
        d_bias.to(out_bias.dtype),
        d_gate_attention.to(gate_attention.dtype),
        d_gate_mean.to(gate_mean.dtype),
    )


@_op.register_fake
def _(
    queries: Tensor, q: Tensor, k: Tensor, v: Tensor, source: Tensor, mask: Tensor, out_weight: Tensor,
    out_bias: Tensor, gate_attention: Tensor, gate_mean: Tensor, heads: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    (items, _, width), asking = k.shape, q.shape[0]
    lse = q.new_empty((items, heads, asking), dtype=torch.promote_types(q.dtype, torch.float32))
    return queries.new_empty((items, asking, width)), source.new_empty((items, width)), lse


@_backward_op.register_fake
def _(
    grad_prompted: Tensor, grad_mean: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, out_weight: Tensor,
    out_bias: Tensor, gate_attention: Tensor, gate_mean: Tensor, mean: Tensor, lse: Tensor, heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_queries, d_source = grad_prompted.new_empty(q.shape), mean.new_empty(k.shape)
    others = (x.new_empty(x.shape) for x in (out_weight, out_bias, gate_attention, gate_mean))
    d_weight, d_bias, d_gate_attention, d_gate_mean = others
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    return d_queries, dq, dk, dv, d_source, d_weight, d_bias, d_gate_attention, d_gate_mean


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, q, k, v, _, mask, out_weight, out_bias, gate_attention, gate_mean, ctx.heads = inputs
    _, mean, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(q, k, v, mask, out_weight, out_bias, gate_attention, gate_mean, mean, lse)


def _gradients(ctx: Any, grad_prompted: Tensor, grad_mean: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    d_queries, dq, dk, dv, d_source, *others = _backward_op(
        grad_prompted, grad_mean, *ctx.saved_tensors, ctx.heads
    )
    return d_queries, dq, dk, dv, d_source, None, *others, None


_op.register_autograd(_gradients, setup_context=_setup_context)

TRANSLATION = {torch.ops.refavs.prompt_attention.default: prompt_attention_reference}
"""What `translation` puts in the op's place."""


def cost(
    items: int, queries: int, cues: int, width: int, heads: int, itemsize: int = 2, backward: bool = False
) -> Cost:
    """Of the op, from the shape alone, with M = `items`.

    Operations: matrix products, two a multiplication: q and k, p and v, the output projection; backward, five of the first kind
    in the one kernel, four in the other, and torch's two with W. The cues are added up once for each sentence-frame.
    Bytes: each tensor once for each kernel that takes it (programs of one sentence-frame share its cues in the cache); backward
    also what torch's products and sums read and write. Launches: backward, torch's 26 small ones besides the two kernels.
    """
    product, projection = 2 * items * queries * cues * width, 2 * items * queries * width * width
    asking, shown, result = queries * width, items * cues * width, items * queries * width
    sums = 4 * items * heads * queries
    if not backward:
        numbers = 2 * asking + 3 * shown + width * width + width + result + items * width
        return Cost(2 * product + projection + shown, numbers * itemsize + items * cues + sums, 1)
    dq = (asking + 2 * shown + 2 * result) * itemsize + 4 * result + items * cues + 2 * sums
    dkv = (asking + 5 * shown + result) * itemsize + items * cues + 2 * sums
    torchs = (4 * result + 2 * asking + result + result + 2 * width * width) * itemsize + 4 * result
    return Cost(9 * product + 2 * projection, dq + dkv + torchs, 28)


def unfused_cost(
    items: int, queries: int, cues: int, width: int, heads: int, itemsize: int = 2, backward: bool = False
) -> Cost:
    """Of the chain of torch operators that the op replaces, each reading its inputs from memory and writing its result.

    Counted, of the chain that the model had: q scaled; q k; not, masked_fill; softmax; p v; heads joined; output projection; the
    mask as numbers, times the cues, two sums and their quotient; two sigmoids, two products, two sums. Backward: two products
    for each of the three of the forward pass, the gradients of softmax, masked_fill, scale, mean and gates, and sums over what
    was shared. Operations: the products. Copies that matrix products make of strided heads are not counted.
    """
    product, projection = 2 * items * queries * cues * width, 2 * items * queries * width * width
    asking, shown, result = queries * width, items * cues * width, items * queries * width
    tile = items * queries * cues * heads
    square = width * width
    if not backward:
        scores = 2 * asking + (asking + shown + tile) + 2 * tile + 2 * tile
        values = (tile + shown + result) + 2 * result + (2 * result + square)
        mean = 3 * shown + items * width
        gates = (asking + result) + 2 * result + 3 * result
        numbers = scores + values + mean + gates
        return Cost(2 * product + projection + 2 * shown, numbers * itemsize + 3 * items * cues, 19)
    gates = 2 * result + 2 * result + 2 * result + result + asking
    values = (2 * result + square) + (2 * result + square) + 2 * result + 2 * (tile + shown + result)
    scores = 3 * tile + 2 * tile + (tile + shown + result) + (tile + asking + shown) + result + asking
    mean = result + items * width + shown
    return Cost(4 * product + 2 * projection, (gates + values + scores + mean) * itemsize, 30)


def compilations(capability: int) -> list[Compilation]:
    """What `edge` (6 heads of 32) and `full` (4 heads of 64) launch on a card of this compute capability, in all types.

    Under autocast q, k, v and W are bfloat16, what is added up float32.
    """
    found = []
    for (preset, heads, head), (dtype, outer), (name, kernel) in itertools.product(
        (("edge", 6, 32), ("full", 4, 64)),
        (("fp32", "fp32"), ("fp16", "fp16"), ("bf16", "bf16"), ("bf16", "fp32")),
        (
            ("prompt", _prompt_kernel),
            ("prompt_dq", _prompt_dq_kernel),
            ("prompt_dkv", _prompt_dkv_kernel),
        ),
    ):
        if dtype != outer and name == "prompt_dq":
            continue  # it takes nothing of the outer type
        row = launches.row(name, head, 32 if dtype == "fp32" else 16, capability)
        inner = "q_ptr", "k_ptr", "v_ptr", "weight_ptr", "d_attended_ptr", "attended_ptr", "dk_ptr", "dv_ptr"
        outside = "queries_ptr", "source_ptr", "bias_ptr", "gate_attention_ptr", "gate_mean_ptr"
        results = "prompted_ptr", "mean_ptr", "d_source_ptr"
        signature = {
            **dict.fromkeys(inner, f"*{dtype}"),
            **dict.fromkeys((*outside, *results), f"*{outer}"),
            **dict.fromkeys(("lse_ptr", "delta_ptr", "dq_ptr", "of_each_cue_ptr"), "*fp32"),
            **dict.fromkeys(("queries", "cues"), "i32"),
            "mask_ptr": "*i1",
            "scale": "fp32",
        }
        constants = {"HEADS": heads, "HEAD": head, "BLOCK_Q": row.block_q, "BLOCK_K": row.block_k}
        if kernel is _prompt_kernel:
            constants["BLOCK_E"] = 1 << (heads * head - 1).bit_length()
            constants["VALUE"] = _value_columns(head, 4 if dtype == "fp32" else 2)
        title = f"{name} {preset} {dtype}" + (" autocast" if dtype != outer else "")
        entry = name, head, 32 if dtype == "fp32" else 16
        found.append(Compilation(title, kernel, signature, constants, row, multiplies=True, entry=entry))
    return found
