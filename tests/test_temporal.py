"""The temporal transformer and its cached memory against the paper's formulas, written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from refavs_rt.kernels.partial_attention import (
    band_mask,
    merge_partial,
    partial_attention,
)
from refavs_rt.model.temporal import Projected, TemporalBranch


def plain_attention(branch: TemporalBranch, queries: Tensor, keys: Tensor) -> Tensor:
    """One query row [C] over keys [K, C], head by head, projected: what nn.MultiheadAttention computes."""
    width = queries.shape[-1]
    size = width // branch.heads
    weight_q, weight_k, weight_v = branch.qkv.weight.chunk(3)
    bias_q, bias_k, bias_v = branch.qkv.bias.chunk(3)
    q, k, v = queries @ weight_q.T + bias_q, keys @ weight_k.T + bias_k, keys @ weight_v.T + bias_v
    out = torch.empty_like(q)
    for head in range(branch.heads):
        part = slice(head * size, (head + 1) * size)
        scores = torch.tensor(
            [float(q[part] @ k[j, part]) / math.sqrt(size) for j in range(len(keys))], dtype=torch.float64
        )
        shares = torch.softmax(scores, dim=0)
        out[part] = sum(share * v[j, part] for j, share in enumerate(shares))
    return out @ branch.out.weight.T + branch.out.bias


@pytest.mark.parametrize("window", [1, 3, 7])
def test_clip_is_the_papers_formula(window: int) -> None:
    """f_t by plain attention over the window and the sentence; then (1 + beta) f_t - mean(f)."""
    torch.manual_seed(5)
    ticks, tokens, sentences, length, width = 7, 3, 2, 4, 8
    branch = TemporalBranch(width, 2, beta=0.7).double()
    modality = torch.randn(1, ticks, tokens, width, dtype=torch.float64)
    text = torch.randn(1, sentences, length, width, dtype=torch.float64)
    mask = torch.tensor([[[True, True, True, False], [True, False, False, False]]])
    added_at = torch.tensor([[0, 2]])
    with torch.no_grad():
        out = branch.clip(
            branch.project(modality), branch.project(text), mask, band_mask(ticks, window), added_at
        )
        for n in range(sentences):
            plain = torch.zeros(ticks, tokens, width, dtype=torch.float64)
            for t in range(ticks):
                seen = modality[0, max(0, t - window + 1) : t + 1].reshape(-1, width)
                keys = torch.cat([seen, text[0, n][mask[0, n]]])
                plain[t] = torch.stack(
                    [plain_attention(branch, modality[0, t, p], keys) for p in range(tokens)]
                )
                words = torch.stack([plain_attention(branch, text[0, n, i], keys) for i in range(length)])
                torch.testing.assert_close(out.text[0, n, t], words, atol=1e-10, rtol=1e-10)
            start = int(added_at[0, n])
            for t in range(start, ticks):
                expected = 1.7 * plain[t] - plain[start : t + 1].mean(dim=0)
                torch.testing.assert_close(out.remembered[0, n, t], expected, atol=1e-10, rtol=1e-10)


def test_merged_parts_are_the_whole() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 5, n, 8, dtype=torch.float64) for n in (3, 11, 11))
    whole, lse = partial_attention(q, k, v)
    a, lse_a = partial_attention(q, k[:, :, :4], v[:, :, :4])
    b, lse_b = partial_attention(q, k[:, :, 4:], v[:, :, 4:])
    torch.testing.assert_close(merge_partial(a, lse_a, b, lse_b), whole, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(lse, torch.logaddexp(lse_a, lse_b), atol=1e-12, rtol=1e-12)
    reference = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(whole, reference, atol=1e-12, rtol=1e-12)


def test_large_scores_do_not_overflow() -> None:
    q = torch.full((1, 1, 4), 300.0)
    k = torch.tensor([[[300.0] * 4, [-300.0] * 4]])
    out, lse = partial_attention(q, k, torch.tensor([[[1.0] * 4, [5.0] * 4]]))
    torch.testing.assert_close(out, torch.ones(1, 1, 4))
    assert torch.isfinite(lse).all()


def test_memory_commutes_with_the_projection() -> None:
    """W_o ((1 + beta) o - m) + beta b_o = (1 + beta) f - mean(f) with f = W_o o + b_o, tick by tick."""
    torch.manual_seed(1)
    branch = TemporalBranch(6, 2, beta=1.3).double()
    ring = Projected(*(torch.randn(1, 3, 4, 6, dtype=torch.float64) for _ in range(3)))
    seen, words = torch.ones(1, 3, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)
    mean = torch.zeros(2, 4, 6, dtype=torch.float64)
    projected: list[Tensor] = []
    for t in range(9):
        present, text = (
            branch.project(torch.randn(n, k, 6, dtype=torch.float64)) for n, k in ((1, 4), (2, 5))
        )
        weight = torch.full((2,), 1.0 / (t + 1), dtype=torch.float64)
        partial = branch.ring_partial(present, ring, seen)
        out = branch.step(present, partial, ring, seen, text, words, mean, weight)
        projected.append(branch.out(out.attended))
        expected = 2.3 * projected[t] - torch.stack(projected).mean(dim=0)
        torch.testing.assert_close(out.remembered, expected, atol=1e-12, rtol=1e-12)
        mean = mean + weight[:, None, None] * (out.attended - mean)


def test_band_is_causal_and_bounded() -> None:
    assert band_mask(4, 2).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
