"""The names, shapes and types of every graph input and output, once.

Export, every engine and the tests read this file; no tensor name is typed anywhere else. Four graphs make a bundle:

    text    once a sentence   token ids                  -> text features and their projections
    vision  once a frame      frame, visual ring         -> visual token, its attention over the ring, pixel memory
    audio   once a frame      log-mel patch              -> audio token
    step    once a frame      N sentences, rings, state  -> mask logits, presence, what is new in the state

An axis that stays dynamic is written as its letter: `B` (cameras) in vision and audio, `N` (sentences) in text and
step. What all sentences of a frame share enters the step graph with a leading axis of 1.

State is explicit. A step reads the rings and memories and returns what the present frame would add; the runtime commits
that at memory ticks and otherwise drops it, so no graph needs a branch for provisional frames.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from .config import MEL_BINS, PATCH_FRAMES, ModelConfig

FORMAT_VERSION = 1
"""Version of the bundle's form; a bundle of a newer version is refused."""

GRAPHS = ("text", "vision", "audio", "step")

PYRAMID_STRIDES = (32, 16, 8)
"""Strides of the pixel memory's levels; decoder layer i attends to level i mod 3."""


@dataclass(frozen=True)
class TensorSpec:
    """One graph input or output: numpy dtype name and shape, dynamic axes as letters."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    """Inputs and outputs of one graph, in order."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def graph_specs(config: ModelConfig) -> dict[str, GraphSpec]:
    """The contract of a bundle of `config`: graph name -> its inputs and outputs."""
    return {
        "text": GraphSpec("text", _token_inputs(config), _text_outputs(config)),
        "vision": GraphSpec("vision", _vision_inputs(config), _vision_outputs(config, "B")),
        "audio": GraphSpec("audio", _audio_inputs(), _audio_outputs(config, "B")),
        "step": GraphSpec("step", _step_inputs(config), _step_outputs(config)),
    }


def contract_hash(config: ModelConfig) -> str:
    """Hex sha256 over the names, types and shapes of all four graphs: equal hashes fit each other."""
    rows = [
        [graph.name, side, spec.name, spec.dtype, list(spec.shape)]
        for graph in graph_specs(config).values()
        for side, specs in (("in", graph.inputs), ("out", graph.outputs))
        for spec in specs
    ]
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def level_tokens(config: ModelConfig) -> tuple[int, ...]:
    """Positions of each level of the pixel memory, in the order of `PYRAMID_STRIDES`."""
    return tuple((config.image_size // stride) ** 2 for stride in PYRAMID_STRIDES)


def _token_inputs(config: ModelConfig) -> tuple[TensorSpec, ...]:
    return (
        TensorSpec("token_ids", "int64", ("N", config.text_tokens)),
        TensorSpec("token_mask", "bool", ("N", config.text_tokens)),
    )


def _text_outputs(config: ModelConfig) -> tuple[TensorSpec, ...]:
    length, width = config.text_tokens, config.width
    return (
        TensorSpec("text", "float32", ("N", length, width)),
        TensorSpec("text_audio_qkv", "float32", ("N", 3, length, width)),
        TensorSpec("text_visual_qkv", "float32", ("N", 3, length, width)),
    )


def _ring_age(config: ModelConfig, batch: str | int) -> TensorSpec:
    """Age in ticks of each slot of the rings, 1 for the newest; 0 marks an empty slot."""
    return TensorSpec("ring_age", "int64", (batch, config.ring_ticks))


def _visual_ring(config: ModelConfig, batch: str | int) -> tuple[TensorSpec, ...]:
    shape = (batch, config.ring_ticks, config.visual_tokens, config.width)
    return (TensorSpec("ring_visual_k", "float32", shape), TensorSpec("ring_visual_v", "float32", shape))


def _vision_inputs(config: ModelConfig) -> tuple[TensorSpec, ...]:
    frame = TensorSpec("frame", "float32", ("B", 3, config.image_size, config.image_size))
    return (frame, *_visual_ring(config, "B"), _ring_age(config, "B"))


def _vision_outputs(config: ModelConfig, batch: str | int) -> tuple[TensorSpec, ...]:
    tokens = (batch, config.visual_tokens, config.width)
    specs = [TensorSpec(f"visual_{part}", "float32", tokens) for part in "qkv"]
    specs.append(TensorSpec("visual_attended", "float32", tokens))
    specs.append(TensorSpec("visual_lse", "float32", (batch, config.heads, config.visual_tokens)))
    levels = level_tokens(config)
    for layer in range(config.decoder_layers):
        positions = levels[layer % len(levels)]
        for part in "kv":
            specs.append(
                TensorSpec(f"pixel_{part}_{layer}", "float32", (batch, positions, config.decoder_width))
            )
    for level, positions in enumerate(levels):
        specs.append(TensorSpec(f"mask_features_{level}", "float32", (batch, config.pixel_width, positions)))
    size = config.mask_size
    specs.append(TensorSpec("mask_features", "float32", (batch, config.pixel_width, size, size)))
    return tuple(specs)


def _audio_inputs() -> tuple[TensorSpec, ...]:
    return (
        TensorSpec("log_mel", "float32", ("B", PATCH_FRAMES, MEL_BINS)),
        TensorSpec("has_sound", "bool", ("B",)),
    )


def _audio_outputs(config: ModelConfig, batch: str | int) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(f"audio_{part}", "float32", (batch, config.width)) for part in "qkv")


def _step_inputs(config: ModelConfig) -> tuple[TensorSpec, ...]:
    width, ring = config.width, config.ring_ticks
    per_sentence = (
        _token_inputs(config)[1],
        *_text_outputs(config),
        TensorSpec("memory_visual", "float32", ("N", config.visual_tokens, width)),
        TensorSpec("memory_audio", "float32", ("N", width)),
        TensorSpec("memory_weight", "float32", ("N",)),
        TensorSpec("memory_count", "int64", ("N",)),
        TensorSpec("ring_audio_tokens", "float32", ("N", ring, width)),
    )
    shared = (
        _ring_age(config, 1),
        *_visual_ring(config, 1),
        TensorSpec("ring_audio_k", "float32", (1, ring, width)),
        TensorSpec("ring_audio_v", "float32", (1, ring, width)),
        *_vision_outputs(config, 1),
        *_audio_outputs(config, 1),
    )
    return (*per_sentence, *shared)


def _step_outputs(config: ModelConfig) -> tuple[TensorSpec, ...]:
    size = config.mask_size
    return (
        TensorSpec("mask_logits", "float32", ("N", size, size)),
        TensorSpec("presence", "float32", ("N",)),
        TensorSpec("attended_visual", "float32", ("N", config.visual_tokens, config.width)),
        TensorSpec("attended_audio", "float32", ("N", config.width)),
        TensorSpec("audio_token", "float32", ("N", config.width)),
    )
