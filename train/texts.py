"""Sentences for training: token ids, and the frozen encoder's features, computed once a sentence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from refavs_rt.model.text import TextEncoder
from refavs_rt.tokenizer import Tokenizer


class TextCache:
    """Features of the frozen sentence encoder by sentence, in half precision on the CPU."""

    def __init__(self, encoder: TextEncoder, tokenizer: Tokenizer, limit: int = 40_000) -> None:
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.limit = limit
        self._known: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, texts: list[list[str]]) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids [B, N, L], mask [B, N, L] and features [B, N, L, E] of B x N sentences."""
        flat = [text for row in texts for text in row]
        new = sorted({text for text in flat if text not in self._known})
        if len(self._known) + len(new) > self.limit:
            self._known.clear()
            new = sorted(set(flat))
        if new:
            ids, mask = (torch.from_numpy(x) for x in self.tokenizer.encode(new))
            device = next(self.encoder.parameters()).device
            longest = int(mask.sum(dim=1).max())  # padding is masked everywhere, so it need not be computed
            features = self.encoder(ids[:, :longest].to(device), mask[:, :longest].to(device)).half().cpu()
            features = functional.pad(features, (0, 0, 0, mask.shape[1] - longest))
            for i, text in enumerate(new):
                self._known[text] = ids[i], mask[i], features[i]
        rows = [self._known[text] for text in flat]
        shape = (len(texts), len(texts[0]))
        ids, mask, features = (torch.stack(part).unflatten(0, shape) for part in zip(*rows, strict=True))
        return ids, mask, features.float()

    def sentence_embeddings(self, texts: list[str]) -> Tensor:
        """[K, E]: the mean over each sentence's tokens, as all-MiniLM-L6 pools them."""
        _, mask, features = (x[0] for x in self([texts]))
        weight = mask.float().unsqueeze(-1)
        return (features * weight).sum(dim=1) / weight.sum(dim=1)
