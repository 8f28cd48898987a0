"""Cached-memory temporal attention, one tick of a stream: the present queries over a ring of past ticks (paper section 4.2).

Of one head, with K the keys of the ring's seen slots and of the present tick, and K_n the words of sentence n,

    o[n, p]      = attention of the modality's query p over K and K_n          (P visual tokens, or 1 of sound)
    text_o[n, l] = attention of the sentence's query l over K and K_n
    m'[n, p]     = m[n, p] + w[n] (o[n, p] - m[n, p])                            the new mean
    inner[n, p]  = (1 + beta) o[n, p] - m'[n, p]                                 f' before the output projection

The output projection W, b commutes with the memory: W inner + beta b = (1 + beta) f - mean(f) with f = W o + b. The weight w
alone says which mean it is: 1 / (count + 1) makes it that of all ticks; 1 at the first tick and the decay from then on an
exponential one; 1 / (min(count, R) + 1) that of a window, whose caller makes m anew from the outputs that it kept, since an old
one must leave the mean.

The attention of the modality's queries over K depends on no sentence. `ring_attention` gives it with its log-sum-exp, and
`memory_step` goes on from there, or makes it itself.

The ring is an array of slots that are seen or not. Attention does not care for the order of its keys, so neither the ring's
position nor its count is an argument: both lie in `ring_seen`, a tensor on the device, and a captured CUDA graph stays valid. The
caller writes the present keys and values where they belong, as tensors or in a slot not seen, before the launch; the kernel
writes means, each program the slice that it alone reads; the count goes up afterwards. So no program writes what another reads.

Kernels. A program has one head and a block of queries, of the modality or of one sentence. It walks the ring and the present once
with an online softmax (running maximum, sum, accumulator), then for each of its sentences goes on over the words, on a copy, and
does the epilogue in registers. So modality programs read the ring once however many sentences there are, and the step is one
launch. Blocks of queries are the fastest axis of the grid: programs that read one head's keys run side by side, and find them in
the cache. One camera with one sentence makes few programs; then the keys are cut into `splits` parts, a program each. The last to
arrive merges them, in the order of the keys whatever order they came in, so the bits are the same every time.

Backward, with the gradients d of inner I, attended A, new mean M and text_o:

    do = (1 + beta - w) dI + dA + w dM,     dm = (1 - w) (dM - dI),     dw[n] = sum_p (dM - dI) (o - m)

and then an attention's backward with one query tick over R + 1 key ticks: `attention_gradients` of the clip form.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from . import launch as launches
from .dispatch import check_extents, runs_kernel, spanned
from .launch import Compilation, Cost, Launch
from .online_softmax import attend, merge, parts_of, splits_of
from .partial_attention import join_heads, merge_partial, partial_attention, split_heads
from .triton_or_not import tl, triton

_LOG2_E = tl.constexpr(1.4426950408889634)
_LN_2 = tl.constexpr(0.6931471805599453)


def ring_attention(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """The present queries of B cameras over the seen slots of their rings and the present: what no sentence changes.

    Args:
        q: [B, P, C], C = heads * d. Keys and values are taken in q's type.
        k, v: [B, P, C], of the present tick, which is always seen.
        ring_k, ring_v: [B, R, P, C]; R may be 0. Slots that are not seen must hold finite numbers.
        ring_seen: [B, R] bool, in any pattern.
        heads: how many heads C is cut into.

    Returns:
        o [B, P, C] of q's type, before any projection, and lse [B, heads, P] in float32, or float64 where q is.

    Raises:
        ValueError: the shapes do not fit together.

    Which form runs: the rule of `dispatch`. The backward pass is the reference's in either form: clips train, streams do not.
    """
    (cameras, tokens, width), slots = q.shape, ring_k.shape[1]
    ring = cameras, slots, tokens, width
    _check({
        "k": (k, q.shape), "v": (v, q.shape), "ring_k": (ring_k, ring), "ring_v": (ring_v, ring),
        "ring_seen": (ring_seen, ring[:2]),
    })  # fmt: skip
    _check_heads(width, heads)
    k, v, ring_k, ring_v = (x.to(q.dtype) for x in (k, v, ring_k, ring_v))
    return _ring_op(q, k, v, ring_k, ring_v, ring_seen, heads)


def memory_step(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor,
    text_q: Tensor, text_k: Tensor, text_v: Tensor, text_mask: Tensor, mean: Tensor, weight: Tensor,
    beta: float, heads: int, partial_o: Tensor | None = None, partial_lse: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """One tick of N sentences that share a camera.

    Args:
        q, k, v: [P, C], C = heads * d, of the present tick, which is always seen. The others are taken in q's type, but for
            `mean`, `weight` and the partial results.
        ring_k, ring_v: [R, P, C]; R may be 0. Slots that are not seen must hold finite numbers.
        ring_seen: [R] bool, in any pattern.
        text_q, text_k, text_v: [N, L, C].
        text_mask: [N, L] bool, False on padding; each sentence has a word at least. To the kernel a sentence is one tile of keys,
            so L is meant to be a few dozen.
        mean: [N, P, C], of any float type; the kernel computes it in float32.
        weight: [N], of any float type.
        beta: weight of what is new against what is remembered.
        heads: how many heads C is cut into.
        partial_o, partial_lse: what `ring_attention` gave, [P, C] and [heads, P]; without them they are made here.

    Returns:
        inner [N, P, C] and attended [N, P, C] of q's type, the new mean [N, P, C] of the mean's type, and text_o [N, L, C] of q's
        type, all before the output projection.

    Raises:
        ValueError: the shapes do not fit together, or one partial result comes without the other.

    Which form runs: the rule of `dispatch`. The backward kernels are the clip form's. With partial results given the backward
    pass is the reference's in either form: gradients then flow into these, and into the ring from the sentences' queries alone,
    which only the cut into graphs of an engine needs, and no engine trains.
    """
    _check_step(
        q, k, v, ring_k, ring_v, ring_seen, text_q, text_k, text_v, text_mask, mean, weight, heads, partial_o, partial_lse
    )  # fmt: skip
    k, v, ring_k, ring_v, text_q, text_k, text_v = (
        x.to(q.dtype) for x in (k, v, ring_k, ring_v, text_q, text_k, text_v)
    )
    return _step_op(
        q, k, v, ring_k, ring_v, ring_seen, text_q, text_k, text_v, text_mask, mean, weight, beta, heads,
        partial_o, partial_lse,
    )  # fmt: skip


def memory_step_(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor,
    text_q: Tensor, text_k: Tensor, text_v: Tensor, text_mask: Tensor, mean: Tensor, weight: Tensor,
    beta: float, heads: int, partial_o: Tensor | None = None, partial_lse: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`memory_step` that puts the new mean in the place of `mean`: for inference and CUDA graphs, without gradients.

    The caller writes the present keys and values into their slot of the ring before the launch and marks the slot as seen after
    it, for `k` and `v` are seen anyway; they may be that slot. The tick is counted afterwards too.

    Returns:
        inner [N, P, C] and text_o [N, L, C].
    """
    _check_step(
        q, k, v, ring_k, ring_v, ring_seen, text_q, text_k, text_v, text_mask, mean, weight, heads, partial_o, partial_lse
    )  # fmt: skip
    k, v, ring_k, ring_v, text_q, text_k, text_v = (
        x.to(q.dtype) for x in (k, v, ring_k, ring_v, text_q, text_k, text_v)
    )
    return _step_in_place_op(
        q, k, v, ring_k, ring_v, ring_seen, text_q, text_k, text_v, text_mask, mean, weight, beta, heads,
        partial_o, partial_lse,
    )  # fmt: skip


def ring_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """The op `ring_attention` in plain torch; 16-bit types are computed in float32."""
    q_, k_, v_, ring_k, ring_v = (_wide(x) for x in (q, k, v, ring_k, ring_v))
    keys, values, seen = _window(k_, v_, ring_k, ring_v, ring_seen, heads)
    o, lse = partial_attention(split_heads(q_, heads), keys, values, seen)
    return join_heads(o).to(q.dtype), lse


def memory_step_reference(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor,
    text_q: Tensor, text_k: Tensor, text_v: Tensor, text_mask: Tensor, mean: Tensor, weight: Tensor,
    beta: float, heads: int, partial_o: Tensor | None = None, partial_lse: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The op `memory_step` in plain torch; 16-bit types are computed in float32."""
    q_, k_, v_, ring_k, ring_v = (_wide(x)[None] for x in (q, k, v, ring_k, ring_v))
    t_q, t_k, t_v = (split_heads(_wide(x), heads) for x in (text_q, text_k, text_v))  # [N, h, L, d]
    known = text_mask[:, None, None, :]
    keys, values, seen = _window(k_, v_, ring_k, ring_v, ring_seen[None], heads)  # [1, h, (R + 1) * P, d]

    queries = split_heads(q_, heads)  # [1, h, P, d]
    if partial_o is None or partial_lse is None:
        o_ring, lse_ring = partial_attention(queries, keys, values, seen)
    else:
        o_ring, lse_ring = split_heads(_wide(partial_o), heads), partial_lse
    o_own, lse_own = partial_attention(queries, t_k, t_v, known)
    o = join_heads(merge_partial(o_ring, lse_ring, o_own, lse_own))  # [N, P, C]
    old = mean.to(o.dtype)
    new = old + weight.to(o.dtype)[:, None, None] * (o - old)
    inner = (1.0 + beta) * o - new

    folded = t_q.transpose(0, 1).flatten(1, 2)[
        None
    ]  # [1, h, N * L, d]: one walk over the ring for all sentences
    o_ring, lse_ring = partial_attention(folded, keys, values, seen)
    o_ring, lse_ring = (
        x[0].unflatten(1, (-1, t_q.shape[2])).transpose(0, 1) for x in (o_ring, lse_ring)
    )  # [N, h, L, ...]
    o_own, lse_own = partial_attention(t_q, t_k, t_v, known)
    text_o = join_heads(merge_partial(o_ring, lse_ring, o_own, lse_own))
    return inner.to(q.dtype), o.to(q.dtype), new.to(mean.dtype), text_o.to(q.dtype)


def _window(
    k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values [B, h, (R + 1) * P, d] of the ring and the present, and which are seen, [B, 1, 1, (R + 1) * P]."""
    keys = split_heads(torch.cat([ring_k.flatten(1, 2), k], dim=1), heads)
    values = split_heads(torch.cat([ring_v.flatten(1, 2), v], dim=1), heads)
    seen = torch.cat([ring_seen, ring_seen.new_ones((ring_seen.shape[0], 1))], dim=1)
    return keys, values, seen[:, :, None].expand(-1, -1, k.shape[1]).flatten(1)[:, None, None, :]


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


@triton.jit
def _walk(
    q, k_ptr, v_ptr, ring_k_ptr, ring_v_ptr, ring_seen_ptr, tokens, slots, split, splits, scale,
    stride_token, stride_slot, stride_ring_token,
    HEAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A block of queries over one split's share of the keys: blocks of the ring, then blocks of the present."""
    ring_keys = slots * tokens
    ring_blocks = tl.cdiv(ring_keys, BLOCK_K)
    blocks = ring_blocks + tl.cdiv(tokens, BLOCK_K)
    share = tl.cdiv(blocks, splits)
    channel = tl.arange(0, HEAD)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    o = tl.zeros([BLOCK_Q, HEAD], tl.float32)
    for block in range(split * share, tl.minimum(blocks, (split + 1) * share)):
        present = block >= ring_blocks
        key = (block - tl.where(present, ring_blocks, 0)) * BLOCK_K + tl.arange(0, BLOCK_K)
        slot = key // tokens
        in_ring = key < tl.where(present, 0, ring_keys)
        seen = tl.load(ring_seen_ptr + slot, mask=in_ring, other=0) != 0
        seen = tl.where(present, key < tokens, seen)
        at = slot * stride_slot + (key - slot * tokens) * tl.where(present, stride_token, stride_ring_token)
        at = at[:, None] + channel[None, :]
        k = tl.load(tl.where(present, k_ptr, ring_k_ptr) + at, mask=seen[:, None], other=0.0)
        v = tl.load(tl.where(present, v_ptr, ring_v_ptr) + at, mask=seen[:, None], other=0.0)
        top, total, o = attend(q, k, v, seen[None, :], top, total, o, scale)
    return top, total, o


@triton.jit(
    do_not_specialize=["tokens", "slots", "blocks", "splits"],
    do_not_specialize_on_alignment=["ring_seen_ptr"],
)
def _memory_ring_kernel(
    q_ptr, k_ptr, v_ptr, ring_k_ptr, ring_v_ptr, ring_seen_ptr, o_ptr, lse_ptr, parts_ptr, arrived_ptr,
    tokens, slots, blocks, splits, scale,
    stride_camera, stride_token, stride_ring_camera, stride_slot, stride_ring_token,
    HEADS: tl.constexpr, HEAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Grid (cameras * blocks of queries, heads, splits). Where not SPLIT the last two pointers are none."""
    head, split = tl.program_id(1), tl.program_id(2)
    camera = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * BLOCK_Q + tl.arange(0, BLOCK_Q)
    channel = tl.arange(0, HEAD)
    inside = row < tokens
    of_present = camera * stride_camera + head * HEAD
    of_ring = camera * stride_ring_camera + head * HEAD
    at = of_present + row[:, None] * stride_token + channel[None, :]
    q = tl.load(q_ptr + at, mask=inside[:, None], other=0.0)
    top, total, o = _walk(
        q, k_ptr + of_present, v_ptr + of_present, ring_k_ptr + of_ring, ring_v_ptr + of_ring,
        ring_seen_ptr + camera * slots, tokens, slots, split, splits, scale, stride_token, stride_slot, stride_ring_token,
        HEAD, BLOCK_Q, BLOCK_K,
    )  # fmt: skip
    last = True
    if SPLIT:
        group = head * tl.num_programs(0) + tl.program_id(0)
        last, top, total, o = merge(
            top, total, o, parts_ptr, arrived_ptr, group, split, splits, HEAD, BLOCK_Q
        )
    if last:
        at = (camera * tokens + row)[:, None] * (HEADS * HEAD) + head * HEAD + channel[None, :]
        tl.store(o_ptr + at, (o / total[:, None]).to(o_ptr.dtype.element_ty), mask=inside[:, None])
        lse = (top + tl.log2(total)) * _LN_2
        tl.store(lse_ptr + (camera * HEADS + head) * tokens + row, lse, mask=inside)


@triton.jit(
    do_not_specialize=["tokens", "slots", "sentences", "words", "blocks", "text_blocks", "splits"],
    do_not_specialize_on_alignment=["ring_seen_ptr", "text_mask_ptr", "weight_ptr"],
)
def _memory_step_kernel(
    q_ptr, k_ptr, v_ptr, ring_k_ptr, ring_v_ptr, ring_seen_ptr, text_q_ptr, text_k_ptr, text_v_ptr, text_mask_ptr,
    mean_ptr, weight_ptr, partial_o_ptr, partial_lse_ptr,
    inner_ptr, attended_ptr, new_mean_ptr, text_o_ptr, lse_ptr, text_lse_ptr, parts_ptr, arrived_ptr,
    tokens, slots, sentences, words, blocks, text_blocks, splits, scale, beta,
    stride_token, stride_slot, stride_ring_token, stride_sentence, stride_word,
    HEADS: tl.constexpr, HEAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_L: tl.constexpr,
    HAS_PARTIAL: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of the modality's queries + sentences * text_blocks, heads, splits).

    Both kinds of program run the same lines, and masks switch off what belongs to the other: a branch would break the pipeline
    of the loop. Where the ring's part is given, the modality's programs have nothing to walk, and splits share the sentences.
    Log-sum-exps that nobody wants are none, and so are the last two pointers where not SPLIT; a part not given is anything.
    Nothing but SPLIT depends on the number of sentences: `warm_up` has met both forms before a stream begins.
    """
    width: tl.constexpr = HEADS * HEAD
    program, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    is_text = program >= blocks
    given = (program < blocks) & tl.full([], HAS_PARTIAL, tl.int1)
    sentence = (program - blocks) // text_blocks
    block = tl.where(is_text, (program - blocks) % text_blocks, program)
    rows = tl.where(is_text, words, tokens)
    row = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = row < rows
    channel = head * HEAD + tl.arange(0, HEAD)

    source = tl.where(is_text, text_q_ptr + sentence * stride_sentence, q_ptr)
    at = row[:, None] * tl.where(is_text, stride_word, stride_token) + channel[None, :]
    q = tl.load(source + at, mask=inside[:, None], other=0.0)
    last = split < splits  # so it is, until another turns out to arrive later
    if given:
        lse = tl.load(partial_lse_ptr + head * tokens + row, mask=inside, other=0.0)
        top = lse.to(tl.float32) * _LOG2_E
        total = tl.full([BLOCK_Q], 1.0, tl.float32)
        at = row[:, None] * width + channel[None, :]
        o = tl.load(partial_o_ptr + at, mask=inside[:, None], other=0.0).to(tl.float32)
    else:
        of_head = head * HEAD
        top, total, o = _walk(
            q, k_ptr + of_head, v_ptr + of_head, ring_k_ptr + of_head, ring_v_ptr + of_head, ring_seen_ptr,
            tokens, slots, split, splits, scale, stride_token, stride_slot, stride_ring_token, HEAD, BLOCK_Q, BLOCK_K,
        )  # fmt: skip
        if SPLIT:
            group = head * tl.num_programs(0) + program
            last, top, total, o = merge(
                top, total, o, parts_ptr, arrived_ptr, group, split, splits, HEAD, BLOCK_Q
            )
    if last:
        first = tl.where(is_text, sentence, tl.where(given, split, 0))
        end = tl.where(is_text, sentence + 1, sentences)
        word = tl.arange(0, BLOCK_L)
        for n in range(first, end, tl.where(given, splits, 1)):
            known = tl.load(text_mask_ptr + n * words + word, mask=word < words, other=0) != 0
            at = n * stride_sentence + word[:, None] * stride_word + channel[None, :]
            k = tl.load(text_k_ptr + at, mask=known[:, None], other=0.0)
            v = tl.load(text_v_ptr + at, mask=known[:, None], other=0.0)
            own_top, own_total, own_o = attend(q, k, v, known[None, :], top, total, o, scale)
            own_o = own_o / own_total[:, None]

            at = (n * rows + row)[:, None] * width + channel[None, :]
            to_ptr = tl.where(is_text, text_o_ptr, attended_ptr)
            tl.store(to_ptr + at, own_o.to(to_ptr.dtype.element_ty), mask=inside[:, None])
            if lse_ptr is not None:
                to_ptr = tl.where(is_text, text_lse_ptr, lse_ptr) + (n * HEADS + head) * rows
                tl.store(to_ptr + row, (own_top + tl.log2(own_total)) * _LN_2, mask=inside)

            remembers = (row < tl.where(is_text, 0, tokens))[:, None]
            weight = tl.load(weight_ptr + n).to(tl.float32)
            mean = tl.load(mean_ptr + at, mask=remembers, other=0.0).to(tl.float32)
            mean += weight * (own_o - mean)
            tl.store(new_mean_ptr + at, mean.to(new_mean_ptr.dtype.element_ty), mask=remembers)
            inner = (1.0 + beta) * own_o - mean
            tl.store(inner_ptr + at, inner.to(inner_ptr.dtype.element_ty), mask=remembers)


def _launch_ring(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    q, k, v = _alike(q, k, v)
    ring_k, ring_v = _alike(ring_k, ring_v)
    (cameras, tokens, width), slots = q.shape, ring_k.shape[1]
    head = width // heads
    row = launches.launch_of("memory_ring", head, q.dtype, q.device)
    blocks = triton.cdiv(tokens, row.block_q)
    splits = splits_of(row, 2, cameras * blocks * heads, _key_blocks(row, tokens, slots), q.device)
    groups = cameras * blocks * heads
    check_extents(
        "ring_attention",
        q=spanned(q.shape[1:], q.stride()[1:]),
        ring_k=spanned(ring_k.shape[1:], ring_k.stride()[1:]),
        parts=_extent(row, splits, groups, head),
    )
    o = torch.empty((cameras, tokens, width), dtype=q.dtype, device=q.device)
    lse = torch.empty((cameras, heads, tokens), dtype=torch.float32, device=q.device)
    launches.start(
        _memory_ring_kernel, (cameras * blocks, heads, splits), q,
        q, k, v, ring_k, ring_v, ring_seen.contiguous(), o, lse,
        *parts_of(row, splits, groups, head, q.device),
        tokens, slots, blocks, splits, _scale(head), *q.stride()[:2], *ring_k.stride()[:3],
        HEADS=heads, HEAD=head, BLOCK_Q=row.block_q, BLOCK_K=row.block_k, SPLIT=splits > 1,
        **row.options,
    )  # fmt: skip
    return o, lse


def _launch_step(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor,
    text_q: Tensor, text_k: Tensor, text_v: Tensor, text_mask: Tensor, mean: Tensor, weight: Tensor,
    beta: float, heads: int, partial_o: Tensor | None, partial_lse: Tensor | None,
    *, in_place: bool = False, with_lse: bool = False,
) -> tuple[Tensor, ...]:  # fmt: skip
    """inner, attended, new_mean and text_o.

    With `in_place`, `mean`, which must be contiguous, becomes the new one. With `with_lse` only lse [N, heads, P] and text_lse
    [N, heads, L] are returned.
    """
    q, k, v = _alike(q, k, v)
    ring_k, ring_v = _alike(ring_k, ring_v)
    text_q, text_k, text_v = _alike(text_q, text_k, text_v)
    (tokens, width), slots, (sentences, words, _) = q.shape, ring_k.shape[0], text_q.shape
    head = width // heads
    row = launches.launch_of("memory_step", head, q.dtype, q.device)
    blocks, text_blocks = triton.cdiv(tokens, row.block_q), triton.cdiv(words, row.block_q)
    programs = blocks + sentences * text_blocks
    splits = splits_of(row, 2, programs * heads, _key_blocks(row, tokens, slots), q.device)
    check_extents(
        "memory_step",
        q=spanned(q.shape, q.stride()),
        ring_k=spanned(ring_k.shape, ring_k.stride()),
        text_k=spanned(text_k.shape, text_k.stride()),
        mean=sentences * tokens * width,
        text_o=sentences * words * width,
        parts=_extent(row, splits, programs * heads, head),
    )
    inner = torch.empty((sentences, tokens, width), dtype=q.dtype, device=q.device)
    text_o = torch.empty((sentences, words, width), dtype=q.dtype, device=q.device)
    attended = torch.empty_like(inner)
    new_mean = mean if in_place else torch.empty(mean.shape, dtype=mean.dtype, device=q.device)
    sums: list[Tensor] = []
    if with_lse:
        sums = [
            torch.empty((sentences, heads, rows), dtype=torch.float32, device=q.device)
            for rows in (tokens, words)
        ]
    partial = [x.contiguous() for x in (partial_o, partial_lse) if x is not None]
    launches.start(
        _memory_step_kernel, (programs, heads, splits), q,
        q, k, v, ring_k, ring_v, ring_seen.contiguous(), text_q, text_k, text_v, text_mask.contiguous(),
        mean.contiguous(), weight.contiguous(),
        *(partial or (q, q)),
        inner, attended, new_mean, text_o, *(sums or (None, None)),
        *parts_of(row, splits, programs * heads, head, q.device),
        tokens, slots, sentences, words, blocks, text_blocks, splits, _scale(head), beta,
        q.stride(0), *ring_k.stride()[:2], *text_q.stride()[:2],
        HEADS=heads, HEAD=head, BLOCK_Q=row.block_q, BLOCK_K=row.block_k, BLOCK_L=_block_l(words),
        HAS_PARTIAL=bool(partial), SPLIT=splits > 1, **row.options,
    )  # fmt: skip
    if sums:
        return tuple(sums)
    return inner, attended, new_mean, text_o


def _key_blocks(row: Launch, tokens: int, slots: int) -> int:
    """Of the ring and of the present, as `_walk` counts them."""
    return int(triton.cdiv(slots * tokens, row.block_k) + triton.cdiv(tokens, row.block_k))


def _extent(row: Launch, splits: int, groups: int, head: int) -> int:
    """Numbers that splits leave for each other."""
    return groups * splits * (head + 2) * row.block_q if splits > 1 else 0


def _alike(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors of one shape, with strides that they share and channels side by side; copied where they are not so."""
    strides = tensors[0].stride()
    if strides[-1] == 1 and all(x.stride() == strides for x in tensors):
        return tensors
    return tuple(x.contiguous() for x in tensors)


def _block_l(words: int) -> int:
    """The width of a tile that holds a sentence."""
    return max(16, int(triton.next_power_of_2(words)))


def _scale(head: int) -> float:
    """Of the scores, for exponentials to the base of 2."""
    return math.log2(math.e) / math.sqrt(head)


def _check_step(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor,
    text_q: Tensor, text_k: Tensor, text_v: Tensor, text_mask: Tensor, mean: Tensor, weight: Tensor,
    heads: int, partial_o: Tensor | None, partial_lse: Tensor | None,
) -> None:  # fmt: skip
    (tokens, width), slots, (sentences, words) = q.shape, len(ring_k), text_q.shape[:2]
    ring, text = (slots, tokens, width), (sentences, words, width)
    _check({
        "k": (k, q.shape), "v": (v, q.shape), "ring_k": (ring_k, ring), "ring_v": (ring_v, ring),
        "ring_seen": (ring_seen, ring[:1]),
        "text_q": (text_q, text), "text_k": (text_k, text), "text_v": (text_v, text), "text_mask": (text_mask, text[:2]),
        "mean": (mean, (sentences, tokens, width)), "weight": (weight, (sentences,)),
    })  # fmt: skip
    _check_heads(width, heads)
    if (partial_o is None) != (partial_lse is None):
        raise ValueError("partial_o and partial_lse come together")
    if partial_o is not None and partial_lse is not None:
        _check({"partial_o": (partial_o, q.shape), "partial_lse": (partial_lse, (heads, tokens))})


def _check(expected: dict[str, tuple[Tensor, Sequence[int]]]) -> None:
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != tuple(shape):
            raise ValueError(f"{name} must be {list(shape)}, not {list(tensor.shape)}")


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"{width} channels cannot be cut into {heads} heads")


@torch.library.custom_op("refavs::ring_attention", mutates_args=())
def _ring_op(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    if runs_kernel("ring_attention", "memory_ring", q.shape[-1] // heads, q, k, v, ring_k, ring_v, ring_seen):
        return _launch_ring(q, k, v, ring_k, ring_v, ring_seen, heads)
    return ring_attention_reference(q, k, v, ring_k, ring_v, ring_seen, heads)


@torch.library.custom_op("refavs::ring_attention_backward", mutates_args=())
def _ring_backward_op(
    do: Tensor, dlse: Tensor, q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor,
    heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    def forward(q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor) -> tuple[Tensor, Tensor]:
        return ring_attention_reference(q, k, v, ring_k, ring_v, ring_seen, heads)

    dq, dk, dv, dring_k, dring_v = _pulled_back(forward, (q, k, v, ring_k, ring_v), (do, dlse))
    return dq, dk, dv, dring_k, dring_v


@torch.library.custom_op("refavs::memory_step", mutates_args=())
def _step_op(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor,
    text_q: Tensor, text_k: Tensor, text_v: Tensor, text_mask: Tensor, mean: Tensor, weight: Tensor,
    beta: float, heads: int, partial_o: Tensor | None = None, partial_lse: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    inputs = q, k, v, ring_k, ring_v, ring_seen, text_q, text_k, text_v, text_mask, mean, weight
    partial = partial_o, partial_lse
    if _runs_kernel("memory_step", heads, *inputs, *partial):
        inner, attended, new_mean, text_o = _launch_step(*inputs, beta, heads, *partial)
        return inner, attended, new_mean, text_o
    return memory_step_reference(*inputs, beta, heads, *partial)


@torch.library.custom_op("refavs::memory_step_", mutates_args={"mean"})
def _step_in_place_op(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor,
    text_q: Tensor, text_k: Tensor, text_v: Tensor, text_mask: Tensor, mean: Tensor, weight: Tensor,
    beta: float, heads: int, partial_o: Tensor | None = None, partial_lse: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    shared = q, k, v, ring_k, ring_v, ring_seen, text_q, text_k, text_v, text_mask
    partial = partial_o, partial_lse
    if _runs_kernel("memory_step_", heads, *shared, mean, weight, *partial):
        new_mean = mean.contiguous()
        inner, _, _, text_o = _launch_step(*shared, new_mean, weight, beta, heads, *partial, in_place=True)
        if new_mean is not mean:
            mean.copy_(new_mean)
        return inner, text_o
    inner, _, new_mean, text_o = memory_step_reference(*shared, mean, weight, beta, heads, *partial)
    mean.copy_(new_mean)
    return inner, text_o


@torch.library.custom_op("refavs::memory_step_backward", mutates_args=())
def _step_backward_op(
    dinner: Tensor, dattended: Tensor, dnew_mean: Tensor, dtext_o: Tensor, attended: Tensor, text_o: Tensor,
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor,
    text_q: Tensor, text_k: Tensor, text_v: Tensor, text_mask: Tensor, mean: Tensor, weight: Tensor,
    beta: float, heads: int, partial_o: Tensor | None = None, partial_lse: Tensor | None = None,
) -> list[Tensor]:  # fmt: skip
    """Gradients of q, k, v, ring_k, ring_v, text_q, text_k, text_v, mean, weight and, where given, partial_o and partial_lse."""
    inputs = q, k, v, ring_k, ring_v, ring_seen, text_q, text_k, text_v, text_mask, mean, weight
    grads = dinner, dattended, dnew_mean, dtext_o
    if partial_o is None and _runs_kernel("memory_step_backward", heads, *inputs):
        return _fused_backward(*grads, attended, text_o, *inputs, beta, heads)

    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        q, k, v, ring_k, ring_v, text_q, text_k, text_v, mean, weight, *partial = tensors
        return memory_step_reference(
            q, k, v, ring_k, ring_v, ring_seen, text_q, text_k, text_v, text_mask, mean, weight, beta, heads, *partial
        )  # fmt: skip

    floats = [q, k, v, ring_k, ring_v, text_q, text_k, text_v, mean, weight]
    if partial_o is not None and partial_lse is not None:
        floats += [partial_o, partial_lse]
    return _pulled_back(forward, floats, grads)


def _runs_kernel(op: str, heads: int, q: Tensor, *others: Tensor | None) -> bool:
    return runs_kernel(op, "memory_step", q.shape[-1] // heads, q, *(x for x in others if x is not None))


def _pulled_back(
    forward: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor], grads: tuple[Tensor, ...]
) -> list[Tensor]:
    """Gradients of `inputs` through a reference, from those of its outputs."""
    pull = torch.func.vjp(forward, *inputs)[1]
    return [x.clone(memory_format=torch.contiguous_format) for x in pull(grads)]


def _fused_backward(
    dinner: Tensor, dattended: Tensor, dnew_mean: Tensor, dtext_o: Tensor, attended: Tensor, text_o: Tensor,
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor,
    text_q: Tensor, text_k: Tensor, text_v: Tensor, text_mask: Tensor, mean: Tensor, weight: Tensor,
    beta: float, heads: int,
) -> list[Tensor]:  # fmt: skip
    """By the kernels of the clip form, to which a step is a clip with one query tick. The log-sum-exp, for which a stream has no
    use, is made again by the forward kernel."""
    from .memory_clip import attention_gradients

    lse, text_lse = _launch_step(
        q, k, v, ring_k, ring_v, ring_seen, text_q, text_k, text_v, text_mask, mean, weight, beta, heads,
        None, None, with_lse=True,
    )  # fmt: skip
    w = weight.float()[:, None, None]
    dmean = dnew_mean.float() - dinner.float()
    do = (1.0 + beta) * dinner.float() + dattended.float() + w * dmean
    dweight = (dmean * (attended.float() - mean.float())).sum(dim=(1, 2))
    dq, dk, dv, dtext_q, dtext_k, dtext_v = attention_gradients(
        q[None, None],
        torch.cat([ring_k, k[None]])[None],
        torch.cat([ring_v, v[None]])[None],
        torch.cat([ring_seen, ring_seen.new_ones(1)])[None, None],
        text_q[None],
        text_k[None],
        text_v[None],
        text_mask[None],
        attended[None, :, None],
        text_o[None, :, None],
        lse[None, :, :, None],
        text_lse[None, :, :, None],
        do.to(q.dtype)[None, :, None],
        dtext_o[None, :, None],
        heads,
    )
    found = dq[0, 0], dk[0, -1], dv[0, -1], dk[0, :-1], dv[0, :-1], dtext_q[0], dtext_k[0], dtext_v[0]
    grads = *found, ((1.0 - w) * dmean).to(mean.dtype), dweight.to(weight.dtype)
    return [x.clone(memory_format=torch.contiguous_format) for x in grads]


@_ring_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, ring_seen: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    lse = torch.promote_types(q.dtype, torch.float32)
    return q.new_empty(q.shape), q.new_empty((q.shape[0], heads, q.shape[1]), dtype=lse)


@_ring_backward_op.register_fake
def _(do: Tensor, dlse: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv, dring_k, dring_v = (x.new_empty(x.shape) for x in inputs[:5])
    return dq, dk, dv, dring_k, dring_v


@_step_op.register_fake
def _(q: Tensor, *others: Any, **_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    text_q, mean = others[5], others[9]
    inner, attended = q.new_empty(mean.shape), q.new_empty(mean.shape)
    return inner, attended, mean.new_empty(mean.shape), q.new_empty(text_q.shape)


@_step_in_place_op.register_fake
def _(q: Tensor, *others: Any, **_: Any) -> tuple[Tensor, Tensor]:
    text_q, mean = others[5], others[9]
    return q.new_empty(mean.shape), q.new_empty(text_q.shape)


@_step_backward_op.register_fake
def _(*inputs: Any, **_: Any) -> list[Tensor]:
    q, k, v, ring_k, ring_v, _seen, text_q, text_k, text_v, _mask, mean, weight, _beta, _heads, *partial = (
        inputs[6:]
    )
    floats = q, k, v, ring_k, ring_v, text_q, text_k, text_v, mean, weight, *partial
    return [x.new_empty(x.shape) for x in floats if x is not None]


def _setup_ring(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.heads = inputs
    ctx.save_for_backward(*tensors)


def _ring_gradients(ctx: Any, do: Tensor, dlse: Tensor) -> tuple[Tensor | None, ...]:
    return *_ring_backward_op(do, dlse, *ctx.saved_tensors, ctx.heads), None, None


def _setup_step(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.beta, ctx.heads, partial_o, partial_lse = inputs
    _, attended, _, text_o = output
    ctx.save_for_backward(attended, text_o, *tensors, partial_o, partial_lse)


def _step_gradients(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, partial_o, partial_lse = ctx.saved_tensors
    found = _step_backward_op(*grads, *tensors, ctx.beta, ctx.heads, partial_o, partial_lse)
    dpartial = found[10:] or [None, None]
    return *found[:5], None, *found[5:8], None, *found[8:10], None, None, *dpartial


_ring_op.register_autograd(_ring_gradients, setup_context=_setup_ring)
_step_op.register_autograd(_step_gradients, setup_context=_setup_step)

TRANSLATION: dict[Any, Callable[..., Any]] = {
    torch.ops.refavs.ring_attention.default: ring_attention_reference,
    torch.ops.refavs.memory_step.default: memory_step_reference,
}
"""What `translation` puts in the ops' places; `memory_step_` has none, for a graph of standard operators writes nowhere."""


def cost(
    tokens: int, words: int, sentences: int, slots: int, heads: int, head_size: int, itemsize: int,
    partial: bool = False,
) -> Cost:  # fmt: skip
    """What `memory_step` must do with every slot seen, and means in float32.

    Operations: 4 C for each pair of query and key (two products), 5 for each element of the epilogue. Bytes: every input read
    once, also the ring, which the programs of one head share through the cache; inner, attended, new mean and text_o written.
    What splits leave for each other stays in the cache and is not counted. One launch; where keys are split, some counters are
    set to zero before it.
    """
    width, keys = heads * head_size, (slots + 1) * tokens
    pairs = sentences * (words * keys + (tokens + words) * words) + (0 if partial else tokens * keys)
    outputs = sentences * tokens * width
    elements = (3 * tokens + 2 * slots * tokens + 4 * sentences * words) * width + 2 * outputs
    elements += tokens * width if partial else 0
    small = slots + sentences * (words + 4) + (4 * heads * tokens if partial else 0)
    return Cost(4 * width * pairs + 5 * outputs, itemsize * elements + 2 * 4 * outputs + small, 1)


def unfused_cost(
    tokens: int, words: int, sentences: int, slots: int, heads: int, head_size: int, itemsize: int,
    partial: bool = False,
) -> Cost:  # fmt: skip
    """What the operators of `memory_step_reference` do, each a launch that reads its inputs and writes its outputs, as in torch
    without a compiler. Counted on a run of it without data; a number takes `itemsize` bytes in every tensor, in the mean too."""
    width = heads * head_size
    ring, text = (slots, tokens, width), (sentences, words, width)
    shapes = [(tokens, width)] * 3, [ring] * 2, [text] * 3, [(sentences, tokens, width), (sentences,)]
    empty: list[Any] = [[torch.empty(s, device="meta") for s in group] for group in shapes]
    present, past, texts, memory = empty
    masks = [torch.empty(s, dtype=torch.bool, device="meta") for s in ((slots,), (sentences, words))]
    given = [torch.empty(s, device="meta") for s in ((tokens, width), (heads, tokens)) if partial]
    arguments = [*present, *past, masks[0], *texts, masks[1], *memory, 1.0, heads, *given]
    with _Counted(itemsize) as counted:
        memory_step_reference(*arguments)
    return counted.cost()


def ring_cost(cameras: int, tokens: int, slots: int, heads: int, head_size: int, itemsize: int) -> Cost:
    """What `ring_attention` must do, counted as `cost` does."""
    width, keys = heads * head_size, (slots + 1) * tokens
    elements = (4 * tokens + 2 * slots * tokens) * width
    return Cost(
        cameras * 4 * width * tokens * keys, cameras * (itemsize * elements + 4 * heads * tokens + slots), 1
    )


def unfused_ring_cost(
    cameras: int, tokens: int, slots: int, heads: int, head_size: int, itemsize: int
) -> Cost:
    """What the operators of `ring_attention_reference` do, counted as `unfused_cost` does."""
    present, ring = (cameras, tokens, heads * head_size), (cameras, slots, tokens, heads * head_size)
    q, k, v, ring_k, ring_v = (torch.empty(s, device="meta") for s in (present, present, present, ring, ring))
    seen = torch.empty((cameras, slots), dtype=torch.bool, device="meta")
    with _Counted(itemsize) as counted:
        ring_attention_reference(q, k, v, ring_k, ring_v, seen, heads)
    return counted.cost()


class _Counted(TorchDispatchMode):
    """Adds up what operators do. A view is none, and an element that a view repeats is read once."""

    def __init__(self, itemsize: int) -> None:
        super().__init__()
        self.itemsize = itemsize
        self.operations = self.bytes = self.launches = 0

    def cost(self) -> Cost:
        return Cost(self.operations, self.bytes, self.launches)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not isinstance(out, Tensor) or func.is_view or func is torch.ops.aten._unsafe_view.default:
            return out
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        self.launches += 1
        for x in [*read, out]:
            size = self.itemsize if x.is_floating_point() else x.element_size()
            self.bytes += size * min(x.numel(), x.untyped_storage().nbytes() // x.element_size())
        inner = read[0].shape[-1] if func is torch.ops.aten.bmm.default else 0
        self.operations += out.numel() * (2 * inner if inner else out.is_floating_point())
        return out


def compilations(capability: int) -> list[Compilation]:
    """What `edge` and `full` launch on a card of this compute capability: all forms of both kernels in all types.

    The step has as many forms as it is called in: for the picture, whose part of the ring is given; for the sound, whose part is
    made; for a backward pass, which wants the log-sum-exp. Each with splits, where the row has them, and without, since many
    sentences make programs enough. In place it is the same kernel.
    """
    return [*_ring_compilations(capability), *_step_compilations(capability)]


_TYPES = {"fp32": 32, "fp16": 16, "bf16": 16}
_HEADS = {32: 6, 128: 8}
"""Of `edge` and of `full`, by their size."""
_FORMS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "picture": (True, ("lse_ptr", "text_lse_ptr")),
    "sound": (False, ("lse_ptr", "text_lse_ptr")),
    "backward": (False, ()),
}
"""Of the step: whether the ring's part is given, and which outputs nobody wants."""


def _ring_compilations(capability: int) -> Iterator[Compilation]:
    for kind, bits, head, row in _rows("memory_ring", capability):
        signature = {
            **_pointers(kind, "q k v ring_k ring_v o"),
            **_pointers("i1", "ring_seen"),
            **_pointers("fp32", "lse parts"),
            **_pointers("i32", "arrived"),
            **_numbers("tokens slots blocks splits"),
            "scale": "fp32",
            **_numbers("stride_camera stride_token stride_ring_camera stride_slot stride_ring_token"),
        }
        entry = "memory_ring", head, bits
        yield from _compilations("memory_ring", _memory_ring_kernel, kind, entry, signature, {}, row)


def _step_compilations(capability: int) -> Iterator[Compilation]:
    for (kind, bits, head, row), (form, (given, unwanted)) in itertools.product(
        _rows("memory_step", capability), _FORMS.items()
    ):
        signature = {
            **_pointers(kind, "q k v ring_k ring_v text_q text_k text_v partial_o inner attended text_o"),
            **_pointers("i1", "ring_seen text_mask"),
            **_pointers("fp32", "mean weight new_mean partial_lse lse text_lse parts"),
            **_pointers("i32", "arrived"),
            **_numbers("tokens slots sentences words blocks text_blocks splits"),
            "scale": "fp32",
            "beta": "fp32",
            **_numbers("stride_token stride_slot stride_ring_token stride_sentence stride_word"),
        }
        signature = {name: kind for name, kind in signature.items() if name not in unwanted}
        constants = {"BLOCK_L": 32, "HAS_PARTIAL": given, **dict.fromkeys(unwanted)}
        entry, name = ("memory_step", head, bits), f"memory_step {form}"
        yield from _compilations(name, _memory_step_kernel, kind, entry, signature, constants, row)


def _rows(kernel: str, capability: int) -> Iterator[tuple[str, int, int, Launch]]:
    """(type, its bits, head size, launch)"""
    for head, (kind, bits) in itertools.product(_HEADS, _TYPES.items()):
        yield kind, bits, head, launches.row(kernel, head, bits, capability)


def _pointers(kind: str, names: str) -> dict[str, str]:
    return {f"{name}_ptr": f"*{kind}" for name in names.split()}


def _numbers(names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), "i32")


def _compilations(
    name: str, kernel: Any, kind: str, entry: tuple[str, int, int], signature: dict[str, str],
    flags: dict[str, Any], row: Launch,
) -> Iterator[Compilation]:  # fmt: skip
    """One form whole, and in splits where the row has them."""
    head = entry[1]
    constants = {"HEADS": _HEADS[head], "HEAD": head, "BLOCK_Q": row.block_q, "BLOCK_K": row.block_k, **flags}
    blocks = f"{kind} d{head} q{row.block_q} k{row.block_k} w{row.warps} s{row.stages}"
    parts = "parts_ptr", "arrived_ptr"
    whole = {argument: type_ for argument, type_ in signature.items() if argument not in parts}
    without = {**constants, "SPLIT": False, **dict.fromkeys(parts)}
    yield Compilation(f"{name} {blocks}", kernel, whole, without, row, multiplies=True, entry=entry)
    if row.splits > 1:
        split = {**constants, "SPLIT": True}
        yield Compilation(
            f"{name} split {blocks}", kernel, signature, split, row, multiplies=True, entry=entry
        )
