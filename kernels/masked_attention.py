"""Masked cross-attention of the mask decoder (Mask2Former, arXiv 2112.01527, section 3.2.1): a query sees its own mask's pixels.

With q, k, v of one head and the mask logits a[query, pixel] of the layer before,

    seen[i, s]  = a[i, s] >= 0, or every s where no a[i, s] is          (sigmoid(a) >= 0.5; such a row is open)
    lse[i]      = log sum_{s seen} exp(q_i k_s / sqrt(d))
    o[i]        = sum_{s seen} p[i, s] v_s,      p[i, s] = exp(q_i k_s / sqrt(d) - lse[i])

a is compared and nothing else, so it has no gradient. NaN >= 0 is False, as everywhere in torch: a pixel of NaN is not seen,
and a row of nothing else is open. Backward, with do the gradient of o:

    delta[i] = do_i o_i,     ds[i, s] = p[i, s] (do_i v_s - delta[i]) / sqrt(d)
    dq_i = sum_s ds[i, s] k_s,     dk_s = sum_i ds[i, s] q_i,     dv_s = sum_i p[i, s] do_i

Forward: one program for a head and a block of queries. It walks the pixels with an online softmax and compares the logits tile
by tile, so no mask is ever written. Where a row's sum is zero at the end, the program walks the pixels a second time, for such
rows alone. Heads are the fastest axis of the grid: those that read one tile of logits run side by side and find it in the cache.
With few queries (8, of one frame) the pixels are cut into parts, a program for each; the last to arrive merges them, in the order
of the pixels whatever order they came in, and makes the second pass. The counters of arrivals are zeroed by each call, and so by
each replay of a CUDA graph.

Backward: p is computed again from lse, logits and `open`. One kernel has a program for a block of queries (dq, and delta for the
other), one for a block of pixels (dk, dv). Each adds up its own results in a fixed order: no atomics, the same bits every time.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from . import launch as launches
from .dispatch import check_extents, runs_kernel
from .launch import Compilation, Cost
from .online_softmax import attend, merge, parts_of, splits_of
from .partial_attention import join_heads, partial_attention, split_heads
from .triton_or_not import tl, triton

_LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
_LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, logits: Tensor, heads: int) -> Tensor:
    """Each query's attention over the pixels where its mask logit is 0 or more; over all where it has none.

    Args:
        q: projected queries [B, Q, E] of B frames; several sentences of a frame lie one after the other along Q.
        k: projected keys [B, S, E] of the frame's pixels, which all its queries share; taken in q's type.
        v: projected values, as k.
        logits: mask logits [B, Q, S] at the pixels, of any float type. No gradient reaches them.
        heads: how many heads E is cut into.

    Returns:
        o [B, Q, E] of q's type, before the output projection.

    Raises:
        ValueError: the shapes do not fit together.
    """
    (frames, queries, width), pixels = q.shape, k.shape[1]
    shapes = {"k": (k, (frames, pixels, width)), "v": (v, (frames, pixels, width))}
    shapes["logits"] = logits, (frames, queries, pixels)
    for name, (tensor, shape) in shapes.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must be {list(shape)} for q {list(q.shape)}, not {list(tensor.shape)}")
    if width % heads:
        raise ValueError(f"{width} channels cannot be cut into {heads} heads")
    o, _, _ = _op(q, k.to(q.dtype), v.to(q.dtype), logits.detach(), heads)
    return o


def masked_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, logits: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The op in plain torch.

    Returns:
        o [B, Q, E]; lse [B, heads, Q], float32 at least; open [B, Q] bool, True where a query's mask is empty.
    """
    covered = logits >= 0
    is_open = ~covered.any(dim=-1)
    seen = covered | is_open.unsqueeze(-1)
    o, lse = partial_attention(
        split_heads(q, heads), split_heads(k, heads), split_heads(v, heads), seen.unsqueeze(1)
    )
    return join_heads(o).to(q.dtype), lse, is_open


def masked_attention_backward_reference(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, logits: Tensor, o: Tensor, lse: Tensor, is_open: Tensor,
    heads: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv in plain torch, by the formulas above."""
    wide = lse.dtype
    scale = 1.0 / math.sqrt(q.shape[-1] // heads)
    q_, k_, v_, o_, do_ = (split_heads(x.to(wide), heads) for x in (q, k, v, o, do))
    seen = (logits >= 0) | is_open.unsqueeze(-1)
    scores = (scale * (q_ @ k_.transpose(-2, -1))).masked_fill(~seen.unsqueeze(1), float("-inf"))
    p = torch.exp(scores - lse.unsqueeze(-1))
    delta = (do_ * o_).sum(dim=-1, keepdim=True)
    ds = scale * p * (do_ @ v_.transpose(-2, -1) - delta)
    parts = ds @ k_, ds.transpose(-2, -1) @ q_, p.transpose(-2, -1) @ do_
    dq, dk, dv = (join_heads(x).to(q.dtype) for x in parts)
    return dq, dk, dv


@triton.jit
def _walk(
    q, k_ptr, v_ptr, logits_ptr, rows, is_open, first, last, queries, pixels, scale, top, total, o,
    width: tl.constexpr, HEAD: tl.constexpr, BLOCK_K: tl.constexpr, SECOND: tl.constexpr,
):  # fmt: skip
    """Online softmax of a block of queries over blocks `first` to `last` of the pixels: those that the logits let a row see, or
    in the second pass all, for open rows. `top` is the running maximum of the scores in base 2; `total` and `o` are sums."""
    channels = tl.arange(0, HEAD)
    for block in range(first, last):
        pixel = block * BLOCK_K + tl.arange(0, BLOCK_K)
        inside = pixel < pixels
        if SECOND:
            seen = is_open[:, None] & inside[None, :]
        else:
            tile = logits_ptr + rows[:, None].to(tl.int64) * pixels + pixel[None, :]
            known = (rows < queries)[:, None] & inside[None, :]
            seen = tl.load(tile, mask=known, other=-1.0) >= 0
        at = pixel[:, None] * width + channels[None, :]
        k = tl.load(k_ptr + at, mask=inside[:, None], other=0.0)
        v = tl.load(v_ptr + at, mask=inside[:, None], other=0.0)
        top, total, o = attend(q, k, v, seen, top, total, o, scale)
    return top, total, o


@triton.jit(do_not_specialize=["queries", "pixels", "splits"])
def _masked_attention_kernel(
    q_ptr, k_ptr, v_ptr, logits_ptr, o_ptr, lse_ptr, open_ptr,
    parts_ptr, arrived_ptr,
    queries, pixels, splits, scale,
    HEADS: tl.constexpr, HEAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    SPLIT: tl.constexpr,
):  # fmt: skip
    """Grid (heads, blocks of queries, frames * splits)."""
    width: tl.constexpr = HEADS * HEAD
    head = tl.program_id(0)
    frame = (tl.program_id(2) // splits).to(tl.int64)
    split = tl.program_id(2) % splits
    local = tl.arange(0, BLOCK_Q)
    channels = tl.arange(0, HEAD)
    rows = tl.program_id(1) * BLOCK_Q + local
    inside = rows < queries
    at = (frame * queries + rows[:, None]) * width + head * HEAD + channels[None, :]
    q = tl.load(q_ptr + at, mask=inside[:, None], other=0.0)
    k_ptr += frame * pixels * width + head * HEAD
    v_ptr += frame * pixels * width + head * HEAD
    logits_ptr += frame * queries * pixels

    blocks = tl.cdiv(pixels, BLOCK_K)
    share = tl.cdiv(blocks, splits)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    o = tl.zeros([BLOCK_Q, HEAD], tl.float32)
    top, total, o = _walk(
        q, k_ptr, v_ptr, logits_ptr, rows, inside, split * share, tl.minimum(blocks, (split + 1) * share), queries,
        pixels, scale, top, total, o, width, HEAD, BLOCK_K, False,
    )  # fmt: skip
    last = True
    if SPLIT:
        group = (frame * HEADS + head) * tl.num_programs(1) + tl.program_id(1)
        last, top, total, o = merge(
            top, total, o, parts_ptr, arrived_ptr, group, split, splits, HEAD, BLOCK_Q
        )
    if last:
        is_open = inside & (total == 0.0)
        if tl.max(is_open.to(tl.int32), 0) > 0:
            top, total, o = _walk(
                q, k_ptr, v_ptr, logits_ptr, rows, is_open, 0, blocks, queries, pixels, scale, top, total, o,
                width, HEAD, BLOCK_K, True,
            )  # fmt: skip
        total = tl.where(inside, total, 1.0)
        tl.store(o_ptr + at, (o / total[:, None]).to(o_ptr.dtype.element_ty), mask=inside[:, None])
        natural = tl.where(inside, top, 0.0) * _LN_2 + tl.log(total)
        tl.store(lse_ptr + (frame * HEADS + head) * queries + rows, natural, mask=inside)
        if head == 0:
            tl.store(open_ptr + frame * queries + rows, is_open, mask=inside)


@triton.jit(do_not_specialize=["queries", "pixels"])
def _masked_attention_dq_kernel(
    do_ptr, q_ptr, k_ptr, v_ptr, logits_ptr, o_ptr, lse_ptr, open_ptr, dq_ptr, delta_ptr,
    queries, pixels, scale,
    HEADS: tl.constexpr, HEAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dq of a block of queries, and delta. Grid (heads, blocks of queries, frames)."""
    width: tl.constexpr = HEADS * HEAD
    head = tl.program_id(0)
    frame = tl.program_id(2).to(tl.int64)
    channels = tl.arange(0, HEAD)
    rows = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = rows < queries
    at = (frame * queries + rows[:, None]) * width + head * HEAD + channels[None, :]
    q = tl.load(q_ptr + at, mask=inside[:, None], other=0.0)
    do = tl.load(do_ptr + at, mask=inside[:, None], other=0.0)
    o = tl.load(o_ptr + at, mask=inside[:, None], other=0.0)
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    of_row = (frame * HEADS + head) * queries + rows
    tl.store(delta_ptr + of_row, delta, mask=inside)
    lse = tl.load(lse_ptr + of_row, mask=inside, other=0.0) * _LOG2_E
    is_open = tl.load(open_ptr + frame * queries + rows, mask=inside, other=0) != 0
    k_ptr += frame * pixels * width + head * HEAD
    v_ptr += frame * pixels * width + head * HEAD
    logits_ptr += frame * queries * pixels

    dq = tl.zeros([BLOCK_Q, HEAD], tl.float32)
    for block in range(0, tl.cdiv(pixels, BLOCK_K)):
        pixel = block * BLOCK_K + tl.arange(0, BLOCK_K)
        known = inside[:, None] & (pixel < pixels)[None, :]
        tile = logits_ptr + rows[:, None].to(tl.int64) * pixels + pixel[None, :]
        seen = ((tl.load(tile, mask=known, other=-1.0) >= 0) | is_open[:, None]) & known
        of_pixel = pixel[:, None] * width + channels[None, :]
        k = tl.load(k_ptr + of_pixel, mask=(pixel < pixels)[:, None], other=0.0)
        v = tl.load(v_ptr + of_pixel, mask=(pixel < pixels)[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="tf32x3") * (scale * _LOG2_E)
        p = tl.exp2(tl.where(seen, scores - lse[:, None], float("-inf")))
        dp = tl.dot(do, tl.trans(v), input_precision="tf32x3")
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="tf32x3")
    tl.store(dq_ptr + at, (dq * scale).to(dq_ptr.dtype.element_ty), mask=inside[:, None])


@triton.jit(do_not_specialize=["queries", "pixels"])
def _masked_attention_dkv_kernel(
    do_ptr, q_ptr, k_ptr, v_ptr, logits_ptr, lse_ptr, open_ptr, delta_ptr, dk_ptr, dv_ptr,
    queries, pixels, scale,
    HEADS: tl.constexpr, HEAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dk and dv of a block of pixels; tiles are [pixels, queries]. Grid (heads, blocks of pixels, frames)."""
    width: tl.constexpr = HEADS * HEAD
    head = tl.program_id(0)
    frame = tl.program_id(2).to(tl.int64)
    channels = tl.arange(0, HEAD)
    pixel = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = pixel < pixels
    at = (frame * pixels + pixel[:, None]) * width + head * HEAD + channels[None, :]
    k = tl.load(k_ptr + at, mask=inside[:, None], other=0.0)
    v = tl.load(v_ptr + at, mask=inside[:, None], other=0.0)
    q_ptr += frame * queries * width + head * HEAD
    do_ptr += frame * queries * width + head * HEAD
    logits_ptr += frame * queries * pixels
    lse_ptr += (frame * HEADS + head) * queries
    delta_ptr += (frame * HEADS + head) * queries
    open_ptr += frame * queries

    dk = tl.zeros([BLOCK_K, HEAD], tl.float32)
    dv = tl.zeros([BLOCK_K, HEAD], tl.float32)
    for block in range(0, tl.cdiv(queries, BLOCK_Q)):
        rows = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
        asked = rows < queries
        known = inside[:, None] & asked[None, :]
        tile = logits_ptr + rows[None, :].to(tl.int64) * pixels + pixel[:, None]
        is_open = tl.load(open_ptr + rows, mask=asked, other=0) != 0
        seen = ((tl.load(tile, mask=known, other=-1.0) >= 0) | is_open[None, :]) & known
        of_row = rows[:, None] * width + channels[None, :]
        q = tl.load(q_ptr + of_row, mask=asked[:, None], other=0.0)
        do = tl.load(do_ptr + of_row, mask=asked[:, None], other=0.0)
        lse = tl.load(lse_ptr + rows, mask=asked, other=0.0) * _LOG2_E
        delta = tl.load(delta_ptr + rows, mask=asked, other=0.0)
        scores = tl.dot(k, tl.trans(q), input_precision="tf32x3") * (scale * _LOG2_E)
        p = tl.exp2(tl.where(seen, scores - lse[None, :], float("-inf")))
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision="tf32x3")
        dp = tl.dot(v, tl.trans(do), input_precision="tf32x3")
        ds = p * (dp - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="tf32x3")
    tl.store(dk_ptr + at, (dk * scale).to(dk_ptr.dtype.element_ty), mask=inside[:, None])
    tl.store(dv_ptr + at, dv.to(dv_ptr.dtype.element_ty), mask=inside[:, None])


def _forward(q: Tensor, k: Tensor, v: Tensor, logits: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, logits = (x.contiguous() for x in (q, k, v, logits))
    (frames, queries, width), pixels = q.shape, k.shape[1]
    head = width // heads
    row = launches.launch_of("masked_attention", head, q.dtype, q.device)
    grid_q = triton.cdiv(queries, row.block_q)
    splits = splits_of(row, 1, frames * heads * grid_q, triton.cdiv(pixels, row.block_k), q.device)
    _check_extents(queries, pixels, width)
    o = torch.empty_like(q)
    lse = torch.empty((frames, heads, queries), dtype=torch.float32, device=q.device)
    is_open = torch.empty((frames, queries), dtype=torch.bool, device=q.device)
    parts = parts_of(row, splits, frames * heads * grid_q, head, q.device)
    launches.start(
        _masked_attention_kernel, (heads, grid_q, frames * splits), q,
        q, k, v, logits, o, lse, is_open, *parts, queries, pixels, splits, _scale(head) * math.log2(math.e),
        HEADS=heads, HEAD=head, BLOCK_Q=row.block_q, BLOCK_K=row.block_k, SPLIT=splits > 1,
        **row.options,
    )  # fmt: skip
    return o, lse, is_open


def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, logits: Tensor, o: Tensor, lse: Tensor, is_open: Tensor,
    heads: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    do, q, k, v, logits, o, lse, is_open = (x.contiguous() for x in (do, q, k, v, logits, o, lse, is_open))
    (frames, queries, width), pixels = q.shape, k.shape[1]
    head = width // heads
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    delta = torch.empty_like(lse)
    row = launches.launch_of("masked_attention_dq", head, q.dtype, q.device)
    launches.start(
        _masked_attention_dq_kernel, (heads, triton.cdiv(queries, row.block_q), frames), q,
        do, q, k, v, logits, o, lse, is_open, dq, delta, queries, pixels, _scale(head),
        HEADS=heads, HEAD=head, BLOCK_Q=row.block_q, BLOCK_K=row.block_k, **row.options,
    )  # fmt: skip
    row = launches.launch_of("masked_attention_dkv", head, q.dtype, q.device)
    launches.start(
        _masked_attention_dkv_kernel, (heads, triton.cdiv(pixels, row.block_k), frames), q,
        do, q, k, v, logits, lse, is_open, delta, dk, dv, queries, pixels, _scale(head),
        HEADS=heads, HEAD=head, BLOCK_Q=row.block_q, BLOCK_K=row.block_k, **row.options,
    )  # fmt: skip
    return dq, dk, dv


def _check_extents(queries: int, pixels: int, width: int) -> None:
    """Of one frame; rows of logits are counted in 64 bits."""
    check_extents("masked_attention", q=queries * width, k=pixels * width)


def _scale(head: int) -> float:
    return 1.0 / math.sqrt(head)


@torch.library.custom_op("refavs::masked_attention", mutates_args=())
def _op(q: Tensor, k: Tensor, v: Tensor, logits: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    if runs_kernel("masked_attention", "masked_attention", q.shape[-1] // heads, q, k, v, logits):
        return _forward(q, k, v, logits, heads)
    return masked_attention_reference(q, k, v, logits, heads)


@torch.library.custom_op("refavs::masked_attention_backward", mutates_args=())
def _backward_op(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, logits: Tensor, o: Tensor, lse: Tensor, is_open: Tensor,
    heads: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    if runs_kernel(
        "masked_attention_backward", "masked_attention_dq", q.shape[-1] // heads, do, q, k, v, logits
    ):
        return _backward(do, q, k, v, logits, o, lse, is_open, heads)
    return masked_attention_backward_reference(do, q, k, v, logits, o, lse, is_open, heads)


@_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, logits: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    frames, queries, _ = q.shape
    lse = q.new_empty((frames, heads, queries), dtype=torch.promote_types(q.dtype, torch.float32))
    return q.new_empty(q.shape), lse, q.new_empty((frames, queries), dtype=torch.bool)


@_backward_op.register_fake
def _(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, logits: Tensor, o: Tensor, lse: Tensor, is_open: Tensor,
    heads: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.heads = inputs
    o, lse, is_open = output
    ctx.mark_non_differentiable(lse, is_open)
    ctx.save_for_backward(*tensors, o, lse, is_open)


def _gradients(ctx: Any, do: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward_op(do, *ctx.saved_tensors, ctx.heads), None, None


_op.register_autograd(_gradients, setup_context=_setup_context)

TRANSLATION = {torch.ops.refavs.masked_attention.default: masked_attention_reference}
"""What `translation` puts in the op's place."""


def cost(
    frames: int, queries: int, pixels: int, width: int, heads: int, itemsize: int = 2, backward: bool = False
) -> Cost:
    """Of the kernels, from the shape alone.

    Operations: the products of q and k and of p and v, two operations a multiplication; backward five products, of which both
    kernels make q k and do v. Bytes: each tensor once, logits as wide as q; backward each kernel reads its inputs from memory
    once, with lse, delta and `open`. A second pass over the pixels for open rows is not counted, nor are the sums of parts.
    """
    product = 2 * frames * queries * pixels * width
    asking, seen = frames * queries * width * itemsize, frames * pixels * width * itemsize
    mask = frames * queries * pixels * itemsize
    rows = 4 * frames * heads * queries
    if not backward:
        return Cost(2 * product, 2 * asking + 2 * seen + mask + rows + frames * queries, 1)
    dq = 4 * asking + 2 * seen + mask + 2 * rows + frames * queries
    dkv = 2 * asking + 4 * seen + mask + 2 * rows + frames * queries
    return Cost(7 * product, dq + dkv, 2)


def unfused_cost(
    frames: int, queries: int, pixels: int, width: int, heads: int, itemsize: int = 2, backward: bool = False
) -> Cost:
    """Of the chain of torch operators that the op replaces, each reading its inputs from memory and writing its result.

    Counted, of the chain that the model had: >=, any, not, or; q scaled; q k; not, masked_fill; softmax; p v; heads joined.
    Backward: two products for each of p v and q k, the gradients of softmax, masked_fill and the scale, heads parted again.
    Operations: the products. Copies that matrix products make of strided heads are not counted.
    """
    product = 2 * frames * queries * pixels * width
    asking, seen = frames * queries * width * itemsize, frames * pixels * width * itemsize
    tile = frames * queries * pixels
    scores = tile * heads * itemsize
    if not backward:
        mask = tile * itemsize + tile + tile + 3 * frames * queries + 2 * tile + 2 * tile
        attention = 2 * asking + (asking + seen + scores) + (2 * scores + tile) + 2 * scores
        return Cost(2 * product, mask + attention + (scores + seen + asking) + 2 * asking, 11)
    values = 2 * asking + (asking + seen + scores) + (scores + asking + seen)
    softmax = 3 * scores + (2 * scores + tile)
    return Cost(4 * product, values + softmax + 2 * (scores + seen + asking) + 2 * asking, 8)


def compilations(capability: int) -> list[Compilation]:
    """What the mask decoder of `full` launches on a card of this compute capability, in all types.

    That has 8 heads of 32; the 6 of `edge` only change by how much addresses grow.
    """
    parts = {"parts_ptr": "*fp32", "arrived_ptr": "*i32"}
    variants: list[tuple[str, Any, str, dict[str, Any]]] = [
        ("masked_attention", _masked_attention_kernel, "", {"SPLIT": False, **dict.fromkeys(parts)}),
        ("masked_attention", _masked_attention_kernel, " split", {"SPLIT": True}),
        ("masked_attention_dq", _masked_attention_dq_kernel, "", {}),
        ("masked_attention_dkv", _masked_attention_dkv_kernel, "", {}),
    ]
    found = []
    for (name, kernel, variant, flags), (dtype, bits) in itertools.product(
        variants, (("fp32", 32), ("fp16", 16), ("bf16", 16))
    ):
        row = launches.row(name, 32, bits, capability)
        typed = "q_ptr", "k_ptr", "v_ptr", "logits_ptr", "o_ptr", "do_ptr", "dq_ptr", "dk_ptr", "dv_ptr"
        signature = {
            **dict.fromkeys(typed, f"*{dtype}"),
            **dict.fromkeys(("lse_ptr", "delta_ptr"), "*fp32"),
            **dict.fromkeys(("queries", "pixels", "splits"), "i32"),
            "open_ptr": "*i1",
            "scale": "fp32",
            **({} if "parts_ptr" in flags else parts),
        }
        constants = {"HEADS": 8, "HEAD": 32, "BLOCK_Q": row.block_q, "BLOCK_K": row.block_k, **flags}
        title = f"{name}{variant} {dtype}"
        entry = name, 32, bits
        found.append(Compilation(title, kernel, signature, constants, row, multiplies=True, entry=entry))
    return found
