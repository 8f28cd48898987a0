"""Attention over blocks of keys by an online softmax (arXiv 1805.02867), also with the keys cut into splits.

A block of queries carries the largest score so far (`top`, in base 2), the sum of weights exp2(score - top), and that of
weighted values, all float32. Few queries make few programs; then each takes a share of the keys, a split, and the last to
arrive merges all parts, in the order of the keys whatever order they came in, so the bits are the same every time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import launch as launches
from .launch import Launch
from .triton_or_not import tl, triton


@triton.jit
def attend(q, k, v, seen, top, total, o, scale):
    """One more block of keys k, v [K, d] for queries q [Q, d]; `seen` is [Q, K] or [1, K], `scale` has log2(e) in it."""
    scores = tl.dot(q, tl.trans(k), input_precision="tf32x3") * scale
    scores = tl.where(seen, scores, float("-inf"))
    higher = tl.maximum(top, tl.max(scores, 1))
    base = tl.where(
        higher == float("-inf"), 0.0, higher
    )  # nothing seen yet: -inf minus -inf would be no number
    p = tl.exp2(scores - base[:, None])
    rescale = tl.exp2(top - base)
    total = total * rescale + tl.sum(p, 1)
    o = tl.dot(p.to(v.dtype), v, o * rescale[:, None], input_precision="tf32x3")
    return higher, total, o


@triton.jit
def merge(
    top, total, o, parts_ptr, arrived_ptr, group, split, splits,
    HEAD: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """Leave one split's part of a block of queries among `parts`, [groups, splits, (HEAD + 2) * BLOCK_Q]: o, top, total. The last
    to arrive gets True and all parts merged, in their order."""
    part_size: tl.constexpr = (HEAD + 2) * BLOCK_Q
    row = tl.arange(0, BLOCK_Q)
    of_o = parts_ptr + group * splits * part_size + row[:, None] * HEAD + tl.arange(0, HEAD)[None, :]
    of_top = parts_ptr + group * splits * part_size + HEAD * BLOCK_Q + row
    of_total = of_top + BLOCK_Q
    tl.store(of_o + split * part_size, o)
    tl.store(of_top + split * part_size, top)
    tl.store(of_total + split * part_size, total)
    tl.debug_barrier()  # all threads of the program have stored before one of them says so
    last = tl.atomic_add(arrived_ptr + group, 1, sem="acq_rel", scope="gpu") == splits - 1
    if last:
        top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_Q], tl.float32)
        o = tl.zeros([BLOCK_Q, HEAD], tl.float32)
        for part in range(splits):
            part_o = tl.load(of_o + part * part_size, cache_modifier=".cg")
            part_top = tl.load(of_top + part * part_size, cache_modifier=".cg")
            part_total = tl.load(of_total + part * part_size, cache_modifier=".cg")
            higher = tl.maximum(top, part_top)
            base = tl.where(higher == float("-inf"), 0.0, higher)
            rescale = tl.exp2(top - base)
            part_rescale = tl.exp2(part_top - base)
            total = total * rescale + part_total * part_rescale
            o = o * rescale[:, None] + part_o * part_rescale[:, None]
            top = higher
    return last, top, total, o


def splits_of(row: Launch, waves: int, programs: int, blocks: int, device: torch.device) -> int:
    """Parts to cut `blocks` blocks of keys into: `waves` programs for each multiprocessor, at most the table's, none empty."""
    splits = row.splits
    processors = launches.processors_of(device)
    if processors is not None:
        splits = min(splits, waves * processors // max(1, programs))
    share = triton.cdiv(blocks, max(1, min(splits, blocks)))
    return int(triton.cdiv(blocks, share))


def parts_of(
    row: Launch, splits: int, groups: int, head: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Room for the splits' parts, and a counter of arrivals for each group of splits."""
    if splits == 1:
        return None, None
    parts = torch.empty((groups, splits, (head + 2) * row.block_q), dtype=torch.float32, device=device)
    # Zeroed anew at each call, so in each replay of a CUDA graph too, and for each stream. Counters that outlive a call would
    # save this, but could come to lie in the memory pool of a graph that is being recorded.
    return parts, torch.zeros(groups, dtype=torch.int32, device=device)
