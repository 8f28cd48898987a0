"""From a frame to what no sentence changes: visual tokens, and the pixel memory that the mask decoder reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from refavs_rt.config import ModelConfig
from refavs_rt.contract import PYRAMID_STRIDES

from .layers import sine_position


@dataclass
class PixelMemory:
    """What the mask decoder reads of a frame. Computed once a frame, shared by all sentences and decoder layers.

    Mask2Former projects pixel features in each decoder layer and resizes whole masks to each level; both commute with
    what depends on the sentence, so the projections and the resized mask features stand here.
    """

    keys: list[Tensor]
    """For each decoder layer [B, S_l, E]: its cross-attention's projected keys; E = `decoder_width`."""
    values: list[Tensor]
    """For each decoder layer [B, S_l, E]."""
    level_mask_features: list[Tensor]
    """For each level of the pyramid [B, D, S_l]: the mask features resized bilinearly to it."""
    mask_features: Tensor
    """[B, D, h, w] at stride 4."""


class VisualTokens(nn.Module):
    """P tokens of a frame from the backbone's maps at strides 16 and 32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.coarse = nn.Linear(config.backbone_channels[3], config.width)
        self.fine = nn.Linear(config.backbone_channels[2], config.width)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Tokens [B, P, C] of the four backbone maps."""
        fine = functional.avg_pool2d(maps[2], 2).flatten(2).transpose(1, 2)
        coarse = maps[3].flatten(2).transpose(1, 2)
        return self.norm(self.fine(fine) + self.coarse(coarse))


class LastMapTokens(nn.Module):
    """The paper's tokens: the backbone's last map as it is, which must have C channels."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Tokens [B, P, C] of the four backbone maps."""
        return maps[3].flatten(2).transpose(1, 2)


class PixelDecoder(nn.Module):
    """A top-down pyramid of depthwise convolutions, and the decoder's sentence-independent projections of it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inner = config.pixel_width
        self.lateral = nn.ModuleList(nn.Conv2d(c, inner, 1) for c in config.backbone_channels)
        self.place = nn.ModuleList(nn.Linear(_POSITION_CHANNELS, inner, bias=False) for _ in range(4))
        self.smooth = nn.ModuleList(_Smooth(inner) for _ in range(4))
        self.mask_project = nn.Conv2d(inner, inner, 1)
        levels = len(PYRAMID_STRIDES)
        self.level = nn.Parameter(torch.randn(levels, inner) * 0.02)
        width, layers = config.decoder_width, config.decoder_layers
        self.key_place = nn.Linear(_POSITION_CHANNELS, width, bias=False)
        self.key = nn.ModuleList(nn.Linear(inner, width) for _ in range(layers))
        self.value = nn.ModuleList(nn.Linear(inner, width) for _ in range(layers))

    def forward(self, maps: list[Tensor]) -> PixelMemory:
        """The pixel memory of the four backbone maps."""
        pyramid = self.pyramid(maps)
        mask_features = self.mask_project(pyramid[0])
        keys, values = [], []
        tokens = [pyramid[i].flatten(2).transpose(1, 2) for i in (3, 2, 1)]
        sizes = [(pyramid[i].shape[-2], pyramid[i].shape[-1]) for i in (3, 2, 1)]
        for layer in range(len(self.key)):
            level = layer % len(tokens)
            height, width = sizes[level]
            features = tokens[level] + self.level[level]
            place = self.key_place(sine_position(height, width, _POSITION_CHANNELS, features))
            keys.append(self.key[layer](features) + place)
            values.append(self.value[layer](features))
        return PixelMemory(keys, values, resized_mask_features(mask_features, sizes), mask_features)

    def pyramid(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps [B, D, ., .] at strides 4, 8, 16 and 32 of the backbone's maps."""
        out: list[Tensor] = [maps[0]] * 4
        above: Tensor | None = None
        for i in (3, 2, 1, 0):
            x = self.lateral[i](maps[i])
            height, width = x.shape[-2:]
            position = sine_position(height, width, _POSITION_CHANNELS, x)
            x = x + self.place[i](position).T.reshape(1, -1, height, width)
            if above is not None:
                x = x + functional.interpolate(above, scale_factor=2.0, mode="nearest")
            above = out[i] = self.smooth[i](x)
        return out


def resized_mask_features(mask_features: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """`mask_features` [B, D, h, w] resized bilinearly to each (height, width): [B, D, height * width]."""
    return [
        functional.interpolate(mask_features, size=size, mode="bilinear", align_corners=False).flatten(2)
        for size in sizes
    ]


_POSITION_CHANNELS = 32


class _Smooth(nn.Module):
    """Residual depthwise-separable convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.norm_out = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm(self.depthwise(x)))
        return functional.relu(x + self.norm_out(self.pointwise(y)))
