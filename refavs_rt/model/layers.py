"""Small parts that several modules of the network share."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from refavs_rt.kernels.masked_attention import masked_attention
from refavs_rt.kernels.partial_attention import join_heads, split_heads


class ProjectedAttention(nn.Module):
    """Multi-head attention over keys and values that are projected already: W_o softmax(q k / sqrt(d)) v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def attend(self, queries: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """[..., Q, C] over k and v [..., K, C]; `mask` [..., Q or 1, K] is True where a key may be seen."""
        q = split_heads(self.q(queries), self.heads)
        k, v = split_heads(k, self.heads), split_heads(v, self.heads)
        scores = (q * (1.0 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(-3), float("-inf"))
        return self.out(join_heads(scores.softmax(dim=-1) @ v))

    def attend_where(self, queries: Tensor, k: Tensor, v: Tensor, logits: Tensor) -> Tensor:
        """[B, Q, C] over k and v [B, K, C]: each query over the keys where its `logits` [B, Q, K] are 0 or more, over all where
        none is."""
        return self.out(masked_attention(self.q(queries), k, v, logits, self.heads))


class Attention(ProjectedAttention):
    """Multi-head attention with projections of its own for keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """[..., Q, C] over [..., K, C]; `mask` [..., Q or 1, K] is True where a key may be seen."""
        return self.attend(queries, self.k(keys), self.v(values), mask)


class FeedForward(nn.Sequential):
    """Linear, GELU or ReLU, Linear."""

    def __init__(
        self, width: int, hidden: int, out: int | None = None, activation: Literal["gelu", "relu"] = "gelu"
    ) -> None:
        between = nn.GELU() if activation == "gelu" else nn.ReLU()
        super().__init__(nn.Linear(width, hidden), between, nn.Linear(hidden, out or width))


def sine_position(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Sine encoding of pixel centres, [height * width, channels], in the dtype and on the device of `like`.

    Coordinates are normalised to (0, 1), so one network serves several input sizes. Half of the channels encode y, half x:
    sin and cos of 2^i * pi * coordinate / 2 for i = 0, 1, ...; a remainder stays zero.
    """
    bands = channels // 4
    dtype = torch.promote_types(like.dtype, torch.float32)  # in half precision the angles would be noise
    frequency = (2.0 ** torch.arange(bands, dtype=dtype, device=like.device).clamp(max=8)) * (math.pi / 2)
    y = (torch.arange(height, dtype=dtype, device=like.device) + 0.5) / height
    x = (torch.arange(width, dtype=dtype, device=like.device) + 0.5) / width
    angle_y = (y[:, None] * frequency)[:, None, :].expand(height, width, bands)
    angle_x = (x[:, None] * frequency)[None, :, :].expand(height, width, bands)
    parts = [angle_y.sin(), angle_y.cos(), angle_x.sin(), angle_x.cos()]
    encoding = torch.cat(parts, dim=-1).reshape(height * width, 4 * bands)
    return functional.pad(encoding, (0, channels - 4 * bands)).to(like.dtype)
