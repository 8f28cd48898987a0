"""A small convolutional network shaped like VGGish (arXiv 1609.09430): log-mel patch -> one audio token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from refavs_rt.config import ModelConfig


class AudioEncoder(nn.Module):
    """Four blocks of two convolutions and max-pooling over the [96, 64] patch, pooled to one token.

    A frame without a sound track is not a silent one: it gets a learned token of its own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        sizes = (1, *config.audio_channels)
        self.norm_input = nn.BatchNorm2d(1)
        self.blocks = nn.Sequential(*(_block(sizes[i], sizes[i + 1]) for i in range(len(sizes) - 1)))
        self.project = nn.Linear(2 * sizes[-1], config.width)
        self.norm = nn.LayerNorm(config.width)
        self.no_sound = nn.Parameter(torch.zeros(config.width))

    def forward(self, log_mel: Tensor, has_sound: Tensor) -> Tensor:
        """Tokens [B, C] of `log_mel` [B, 96, 64]; `has_sound` [B] bool."""
        x = self.blocks(self.norm_input(log_mel.unsqueeze(1)))
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        token = self.norm(self.project(pooled))
        return torch.where(has_sound[:, None], token, self.no_sound)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
