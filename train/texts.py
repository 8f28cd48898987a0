"""Sentences for training: token ids, and the frozen encoder's features, computed once a sentence."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from refavs_rt.model.text import Int8Linear
from refavs_rt.tokenizer import Tokenizer


class TextCache:
    """Features of the frozen sentence encoder by sentence, in half precision on the CPU.

    Each sentence is encoded alone and without its padding: sums of a product depend on the shapes of its factors, so in
    company its features would depend on the company, and a resumed run would differ from one that was never killed.
    """

    def __init__(self, encoder: nn.Module, tokenizer: Tokenizer, limit: int = 40_000) -> None:
        """`encoder`: token ids [N, L] int64 and mask [N, L] bool -> features [N, L, E], computed where its tensors are."""
        self.tokenizer = tokenizer
        self.limit = limit
        self._encoder = _dequantised(encoder).eval()
        self._device = next(iter(encoder.state_dict().values())).device
        self._known: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, texts: list[list[str]]) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids [B, N, L], mask [B, N, L] and features [B, N, L, E] of B x N sentences; features of padding are 0."""
        flat = [text for row in texts for text in row]
        new = sorted({text for text in flat if text not in self._known})
        if len(self._known) + len(new) > self.limit:
            self._known.clear()
            new = sorted(set(flat))
        if new:
            for text, ids, mask in zip(new, *map(torch.from_numpy, self.tokenizer.encode(new)), strict=True):
                self._known[text] = ids, mask, self._encode(ids[mask])
        rows = [self._known[text] for text in flat]
        shape = (len(texts), len(texts[0]))
        ids, mask = (torch.stack([row[i] for row in rows]).unflatten(0, shape) for i in (0, 1))
        padded = [functional.pad(row[2], (0, 0, 0, len(row[0]) - len(row[2]))) for row in rows]
        return ids, mask, torch.stack(padded).unflatten(0, shape).float()

    def sentence_embeddings(self, texts: list[str]) -> Tensor:
        """[K, E]: the mean over each sentence's tokens, as all-MiniLM-L6 pools them."""
        _, mask, features = (x[0] for x in self([texts]))
        weight = mask.float().unsqueeze(-1)
        return (features * weight).sum(dim=1) / weight.sum(dim=1)

    @torch.no_grad()
    def _encode(self, ids: Tensor) -> Tensor:
        """[l, E] half of the tokens [l] of one sentence."""
        batch = ids[None].to(self._device)
        features: Tensor = self._encoder(batch, torch.ones_like(batch, dtype=torch.bool))
        return features[0].half().cpu()


def _dequantised(encoder: nn.Module) -> nn.Module:
    """The same function with plain matrices, not made anew from int8 for each sentence."""
    if isinstance(encoder, Int8Linear):
        outputs, inputs = encoder.weight.shape
        linear = nn.Linear(inputs, outputs, device="meta")
        weight = encoder.weight.to(encoder.scale.dtype) * encoder.scale
        linear.weight = nn.Parameter(weight, requires_grad=False)
        linear.bias = nn.Parameter(encoder.bias, requires_grad=False)
        return linear
    out = copy.copy(encoder)
    out._modules = {
        name: None if child is None else _dequantised(child) for name, child in encoder._modules.items()
    }
    return out
