"""The preset `full` with every part of it, small enough for a test."""

from __future__ import annotations

import dataclasses

from refavs_rt.config import FULL

FULL_SMALL = dataclasses.replace(
    FULL,
    image_size=64,
    width=64,
    heads=4,
    window_ticks=4,
    text_tokens=6,
    integration_hidden=32,
    projection_hidden=24,
    pixel_width=32,
    pixel_layers=2,
    pixel_hidden=16,
    queries=7,
    decoder_width=32,
    prompt_heads=2,
    decoder_heads=4,
    decoder_layers=4,
    decoder_hidden=24,
    backbone_channels=(8, 16, 32, 64),
    swin_depths=(1, 1, 2, 1),
    swin_heads=(1, 2, 2, 4),
    swin_window=4,
    audio_channels=(4, 4, 8, 8),
    vggish_hidden=16,
    text_vocabulary=30_522,
    text_width=16,
    text_layers=1,
    text_heads=2,
    text_hidden=16,
    text_positions=32,
)
