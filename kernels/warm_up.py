"""Compile the kernels of a stream before it begins: no frame, and no sentence that comes later, then waits for the compiler.

How many programs a step has depends on the number of sentences, and with it whether the keys are cut into splits, which is
another form of the kernel. Everything else that a network is asked for in a stream is one form an op, so a call of each op for
every number of sentences meets them all.
"""

from __future__ import annotations

from typing import Protocol

import torch

from .deformable_attention import deformable_attention
from .masked_attention import masked_attention
from .memory_step import memory_step, ring_attention
from .prompt_attention import prompt_attention


class StreamShape(Protocol):
    """What the ops of a stream depend on, by the names that `refavs_rt.config.ModelConfig` has for it."""

    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def visual_tokens(self) -> int: ...
    @property
    def window_ticks(self) -> int: ...
    @property
    def text_tokens(self) -> int: ...
    @property
    def queries(self) -> int: ...
    @property
    def decoder_width(self) -> int: ...
    @property
    def decoder_heads(self) -> int: ...
    @property
    def prompt_heads(self) -> int: ...
    @property
    def image_size(self) -> int: ...
    @property
    def backbone(self) -> str: ...
    @property
    def max_sentences(self) -> int: ...


def warm_up(shape: StreamShape, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
    """Run every op of a stream once for each number of sentences up to `max_sentences`, on zeros.

    Args:
        shape: a preset's configuration.
        device: where the network is. On a CPU the references run, which need no compiler.
        dtype: of the network and of what it is given.

    Takes what Triton takes to compile some ten kernels, tens of seconds, where its cache on disk does not have them yet.
    """
    with torch.inference_mode():
        _camera(shape, device, dtype)
        for sentences in range(1, shape.max_sentences + 1):
            _sentences(shape, sentences, device, dtype)


def _camera(shape: StreamShape, device: torch.device, dtype: torch.dtype) -> None:
    """What no sentence changes: the ring, and the pixel decoder where it is Mask2Former's."""
    slots, tokens = shape.window_ticks - 1, shape.visual_tokens
    present = torch.zeros(1, tokens, shape.width, device=device, dtype=dtype)
    ring = torch.zeros(1, slots, tokens, shape.width, device=device, dtype=dtype)
    seen = torch.zeros(1, slots, device=device, dtype=torch.bool)
    ring_attention(present, present, present, ring, ring, seen, shape.heads)
    if shape.backbone == "swin":
        levels, heads, points = _levels(shape), shape.decoder_heads, 4
        value = torch.zeros(
            1, sum(x * x for x in levels), heads, shape.decoder_width // heads, device=device, dtype=dtype
        )
        samples = torch.zeros(1, value.shape[1], heads, len(levels), points, device=device, dtype=dtype)
        locations = samples[..., None].expand(*samples.shape, 2)
        deformable_attention(value, [side for x in levels for side in (x, x)], locations, samples)


def _sentences(shape: StreamShape, sentences: int, device: torch.device, dtype: torch.dtype) -> None:
    def zeros(*size: int) -> torch.Tensor:
        return torch.zeros(size, device=device, dtype=dtype)

    slots, width, heads = shape.window_ticks - 1, shape.width, shape.heads
    text = zeros(sentences, shape.text_tokens, width)
    text_mask = torch.ones(sentences, shape.text_tokens, device=device, dtype=torch.bool)
    seen = torch.zeros(slots, device=device, dtype=torch.bool)
    for tokens, given in ((shape.visual_tokens, True), (1, False)):
        present, ring = zeros(tokens, width), zeros(slots, tokens, width)
        partial = (zeros(tokens, width), torch.zeros(heads, tokens, device=device)) if given else (None, None)
        memory_step(
            present, present, present, ring, ring, seen, text, text, text, text_mask,
            zeros(sentences, tokens, width), zeros(sentences), 1.0, heads, *partial,
        )  # fmt: skip

    queries, width = zeros(shape.queries, shape.decoder_width), shape.decoder_width
    cues, gate = zeros(sentences, shape.text_tokens, width), zeros()
    prompt_attention(
        queries, queries, cues, cues, cues, text_mask, zeros(width, width), zeros(width), gate, gate, shape.prompt_heads
    )  # fmt: skip

    asking = zeros(1, sentences * shape.queries, width)
    for side in _levels(shape):
        pixels = zeros(1, side * side, width)
        masked_attention(asking, pixels, pixels, zeros(1, asking.shape[1], side * side), shape.decoder_heads)


def _levels(shape: StreamShape) -> list[int]:
    """Sides of the maps that the mask decoder looks at, the coarsest first."""
    return [shape.image_size // stride for stride in (32, 16, 8)]
