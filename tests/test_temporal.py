"""The temporal transformer and its cached memory against the paper's formulas, written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from refavs_rt.kernels.memory_attention import (
    band_mask,
    cached_memory,
    merge_partial,
    partial_attention,
    prefix_mean,
)
from refavs_rt.model.temporal import TemporalBranch


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
    """W_o ((1 + beta) o - m) + beta b_o = (1 + beta) f - mean(f) with f = W_o o + b_o."""
    torch.manual_seed(1)
    branch = TemporalBranch(6, 2, beta=1.3).double()
    o = torch.randn(9, 1, 4, 6, dtype=torch.float64)
    f = branch.out(o)
    mean = torch.zeros(1, 4, 6, dtype=torch.float64)
    for t in range(9):
        weight = torch.tensor([1.0 / (t + 1)], dtype=torch.float64)
        expected = 2.3 * f[t] - f[: t + 1].mean(dim=0)
        torch.testing.assert_close(branch.remember(o[t], mean, weight), expected, atol=1e-12, rtol=1e-12)
        mean = mean + weight * (o[t] - mean)


def test_prefix_mean_starts_when_the_sentence_does() -> None:
    o = torch.arange(12, dtype=torch.float64).reshape(1, 2, 6)
    means = prefix_mean(o, torch.tensor([[0, 3]]))
    assert means[0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert means[0, 1].tolist() == [0, 0, 0, 9, 9.5, 10]


def test_cached_memory_of_a_constant_is_beta_times_it() -> None:
    o = torch.full((2, 3, 4), 5.0)
    out = cached_memory(o, o.clone(), torch.tensor([0.5, 0.1]), 0.5)
    torch.testing.assert_close(out, torch.full_like(o, 2.5))


def test_band_is_causal_and_bounded() -> None:
    assert band_mask(4, 2).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
