"""The encoders of a configuration: all that the presets do not share."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from refavs_rt.config import ModelConfig

from .audio import AudioEncoder
from .efficientnet import EfficientNetLite0, TinyBackbone
from .pixel import LastMapTokens, PixelDecoder, VisualTokens
from .text import TextEncoder


class VisualEncoder(NamedTuple):
    """From a frame to what no sentence changes."""

    backbone: nn.Module
    """[B, 3, S, S] -> four maps [B, c_i, S/s_i, S/s_i] of strides 4, 8, 16 and 32."""
    tokens: nn.Module
    """The maps -> visual tokens [B, P, C]."""
    pixels: nn.Module
    """The maps -> PixelMemory."""


def visual_encoder(config: ModelConfig) -> VisualEncoder:
    """Backbone, visual tokens and pixel decoder."""
    if config.backbone == "swin":
        from .swin import pixel_level_modules

        backbone, pixels = pixel_level_modules(config)
        return VisualEncoder(backbone, LastMapTokens(), pixels)
    if config.backbone == "efficientnet_lite0":
        return VisualEncoder(EfficientNetLite0(), VisualTokens(config), PixelDecoder(config))
    return VisualEncoder(TinyBackbone(config.backbone_channels), VisualTokens(config), PixelDecoder(config))


def audio_encoder(config: ModelConfig) -> nn.Module:
    """(log-mel [B, 96, 64], has_sound [B]) -> audio tokens [B, C]."""
    if config.audio_encoder == "vggish":
        from .vggish import VggishEncoder

        return VggishEncoder(config)
    return AudioEncoder(config)


def text_encoder(config: ModelConfig) -> nn.Module:
    """(token ids [N, L], their mask [N, L]) -> features [N, L, text_width]; frozen."""
    if config.text_encoder == "roberta":
        from .roberta import RobertaEncoder

        return RobertaEncoder(config)
    return TextEncoder(config)


def text_projection(config: ModelConfig) -> nn.Module:
    """Features [..., text_width] -> text tokens [..., C]."""
    hidden = config.projection_hidden
    if hidden:
        return nn.Sequential(nn.Linear(config.text_width, hidden), nn.ReLU(), nn.Linear(hidden, config.width))
    return nn.Sequential(nn.Linear(config.text_width, config.width), nn.LayerNorm(config.width))
