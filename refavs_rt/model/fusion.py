"""Modality encoding, the multimodal integration transformer, and cross-attention prompting (paper sections 4.3 and 4.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from refavs_rt.config import ModelConfig
from refavs_rt.kernels.prompt_attention import prompt_attention

from .layers import Attention, FeedForward, sine_position


class Integration(nn.Module):
    """[A ; aud ; V ; vis ; X'] -> the cues that prompt the mask decoder.

    A: the attended audio of the window's ticks. `aud` and `vis` are the paper's modality tokens. With `cue_positions`, which the
    paper has not, audio carries a learned code of its age and visual tokens one of their place.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        positions = config.cue_positions
        self.age = nn.Parameter(torch.randn(config.window_ticks, width) * 0.02) if positions else None
        markers = int(config.modality_tokens)
        self.audio_token = nn.Parameter(torch.randn(markers, width) * 0.02)
        self.visual_token = nn.Parameter(torch.randn(markers, width) * 0.02)
        self.place = nn.Linear(_POSITION_CHANNELS, width, bias=False) if positions else None
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.integration_layers))
        self.norm = nn.LayerNorm(width)
        self.to_decoder = FeedForward(width, config.projection_hidden or width, config.decoder_width)

    def visual_part(self, cues: Tensor, window: int, visual_tokens: int) -> Tensor:
        """Those [M, P, E] of the cues [M, K, E] that began as visual tokens, after an audio window of `window` ticks."""
        first = window + self.audio_token.shape[0]
        return cues[:, first : first + visual_tokens]

    def forward(
        self, audio: Tensor, age: Tensor, audio_seen: Tensor, visual: Tensor, text: Tensor, text_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cues of M sentence-frames.

        Args:
            audio: [M, W, C], attended audio of the window's ticks in any order.
            age: [M or 1, W] int, ticks since each of them, 0 for the present.
            audio_seen: [M, W] bool.
            visual: [M, P, C].
            text: [M, L, C]; text_mask: [M, L] bool.

        Returns:
            cues [M, W + 1 + P + 1 + L, E] of the decoder's width (two fewer without modality tokens) and their mask
            [M, ...], False on empty slots.
        """
        items, tokens, _ = visual.shape
        side = int(tokens**0.5)
        if self.age is not None and self.place is not None:
            audio = audio + self.age[age]
            visual = visual + self.place(sine_position(side, side, _POSITION_CHANNELS, visual))
        parts = [
            audio,
            self.audio_token.expand(items, -1, -1),
            visual,
            self.visual_token.expand(items, -1, -1),
            text,
        ]
        sure = torch.ones_like(audio_seen[:, :1])
        markers = sure.expand(-1, self.audio_token.shape[0])
        mask = torch.cat([audio_seen, markers, sure.expand(-1, tokens), markers, text_mask], dim=1)
        x = torch.cat(parts, dim=1)
        for layer in self.layers:
            x = layer(x, mask)
        return self.to_decoder(self.norm(x)), mask


class Prompting(nn.Module):
    """queries + sigmoid(g1) Attn(queries, cues) + sigmoid(g2) mean(cues)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.attention = Attention(width, config.prompt_heads) if config.prompt_attention else None
        self.norm = nn.LayerNorm(width)
        self.gate_attention = nn.Parameter(torch.zeros(())) if config.prompt_attention else None
        self.gate_mean = nn.Parameter(torch.zeros(()))

    def forward(self, queries: Tensor, cues: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Prompted queries [M, Q, E] and the mean cue [M, E] of `queries` [Q, E], `cues` [M, K, E], `mask` [M, K]."""
        cues = self.norm(cues)
        attention = self.attention
        if attention is None or self.gate_attention is None:
            share = mask.to(cues.dtype).unsqueeze(-1)
            mean = (cues * share).sum(dim=1) / share.sum(dim=1)
            return queries + torch.sigmoid(self.gate_mean) * mean[:, None], mean
        return prompt_attention(
            queries,
            attention.q(queries),
            attention.k(cues),
            attention.v(cues),
            cues,
            mask,
            attention.out.weight,
            attention.out.bias,
            self.gate_attention,
            self.gate_mean,
            attention.heads,
        )


_POSITION_CHANNELS = 32


class _Layer(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.norm_feed_forward = nn.LayerNorm(config.width)
        self.feed_forward = FeedForward(config.width, config.integration_hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.norm_attention(x)
        x = x + self.attention(y, y, y, mask[:, None, :])
        return x + self.feed_forward(self.norm_feed_forward(x))
