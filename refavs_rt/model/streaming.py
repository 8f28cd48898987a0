"""EEMC as a stream in torch: explicit state around the four graph functions. The oracle of the numpy runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from refavs_rt.config import ModelConfig
from refavs_rt.contract import graph_specs

from .eemc import EEMC


@dataclass(frozen=True)
class Sentence:
    """A sentence's features and memory; the mean is cumulative."""

    token_mask: Tensor
    """[L] bool"""
    features: tuple[Tensor, ...]
    """The outputs of the text graph, without their leading axis."""
    memory_visual: Tensor
    """[P, C]"""
    memory_audio: Tensor
    """[C]"""
    ring_audio_tokens: Tensor
    """[R, C], slot by slot beside the shared ring."""
    count: int = 0
    """Ticks committed since the sentence was added."""


@dataclass(frozen=True)
class Rings:
    """Keys and values of the past ticks, shared by all sentences of a camera."""

    visual_k: Tensor
    """[1, R, P, C]"""
    visual_v: Tensor
    audio_k: Tensor
    """[1, R, C]"""
    audio_v: Tensor
    age: Tensor
    """[1, R] int64, 0 for an empty slot."""


@dataclass(frozen=True)
class StepResult:
    """One frame's output."""

    mask_logits: Tensor
    """[N, h, w]"""
    presence: Tensor
    """[N]"""
    fresh: dict[str, Tensor]
    """What a commit would write."""


def empty_rings(config: ModelConfig, dtype: torch.dtype = torch.float32) -> Rings:
    """Rings of a stream that has seen nothing."""
    ring, tokens, width = config.ring_ticks, config.visual_tokens, config.width
    visual = torch.zeros(1, ring, tokens, width, dtype=dtype)
    audio = torch.zeros(1, ring, width, dtype=dtype)
    return Rings(visual, visual, audio, audio, torch.zeros(1, ring, dtype=torch.int64))


def new_sentence(model: EEMC, token_ids: Tensor, token_mask: Tensor) -> Sentence:
    """A sentence that has heard nothing yet; `token_ids` and `token_mask` are [L]."""
    features = tuple(x[0] for x in model.text(token_ids[None], token_mask[None]))
    config, dtype = model.config, features[0].dtype
    return Sentence(
        token_mask,
        features,
        torch.zeros(config.visual_tokens, config.width, dtype=dtype),
        torch.zeros(config.width, dtype=dtype),
        torch.zeros(config.ring_ticks, config.width, dtype=dtype),
    )


def step(
    model: EEMC, rings: Rings, sentences: list[Sentence], frame: Tensor, log_mel: Tensor, has_sound: Tensor
) -> StepResult:
    """One frame [1, 3, S, S] with its patch [1, 96, 64] and flag [1], for all sentences; writes nothing."""
    graphs = graph_specs(model.config)
    vision = model.vision(frame, rings.visual_k, rings.visual_v, rings.age)
    audio = model.audio(log_mel, has_sound)
    given = {spec.name: x for spec, x in zip(graphs["vision"].outputs, vision, strict=True)}
    given |= {spec.name: x for spec, x in zip(graphs["audio"].outputs, audio, strict=True)}
    given |= step_state(rings, sentences)
    outputs = model.step(*(given[spec.name] for spec in graphs["step"].inputs))
    named = {spec.name: x for spec, x in zip(graphs["step"].outputs, outputs, strict=True)}
    fresh = {name: given[name] for name in ("visual_k", "visual_v", "audio_k", "audio_v")}
    fresh |= {name: named[name] for name in ("attended_visual", "attended_audio", "audio_token")}
    return StepResult(named["mask_logits"], named["presence"], fresh)


def step_state(rings: Rings, sentences: list[Sentence]) -> dict[str, Tensor]:
    """The step graph's inputs that come from the state, by the contract's names."""
    dtype = rings.visual_k.dtype
    text, text_audio, text_visual = (
        torch.stack(parts) for parts in zip(*(s.features for s in sentences), strict=True)
    )
    counts = torch.tensor([s.count for s in sentences])
    return {
        "token_mask": torch.stack([s.token_mask for s in sentences]),
        "text": text,
        "text_audio_qkv": text_audio,
        "text_visual_qkv": text_visual,
        "memory_visual": torch.stack([s.memory_visual for s in sentences]),
        "memory_audio": torch.stack([s.memory_audio for s in sentences]),
        "memory_weight": 1.0 / (counts + 1).to(dtype),
        "memory_count": counts,
        "ring_audio_tokens": torch.stack([s.ring_audio_tokens for s in sentences]),
        "ring_age": rings.age,
        "ring_visual_k": rings.visual_k,
        "ring_visual_v": rings.visual_v,
        "ring_audio_k": rings.audio_k,
        "ring_audio_v": rings.audio_v,
    }


def commit(rings: Rings, sentences: list[Sentence], fresh: dict[str, Tensor]) -> tuple[Rings, list[Sentence]]:
    """The state after a memory tick: what the step returned takes the oldest slot."""
    age = rings.age[0]
    slot = int(torch.where(age == 0, torch.full_like(age, age.numel() + 1), age).argmax())

    def put(ring: Tensor, value: Tensor) -> Tensor:
        ring = ring.clone()
        ring[:, slot] = value
        return ring

    new_age = torch.where(rings.age > 0, rings.age + 1, rings.age)
    new_age[0, slot] = 1
    rings = Rings(
        put(rings.visual_k, fresh["visual_k"]),
        put(rings.visual_v, fresh["visual_v"]),
        put(rings.audio_k, fresh["audio_k"]),
        put(rings.audio_v, fresh["audio_v"]),
        new_age,
    )
    after = []
    for i, old in enumerate(sentences):
        share = 1.0 / (old.count + 1)
        ring_tokens = old.ring_audio_tokens.clone()
        ring_tokens[slot] = fresh["audio_token"][i]
        after.append(
            replace(
                old,
                memory_visual=old.memory_visual + share * (fresh["attended_visual"][i] - old.memory_visual),
                memory_audio=old.memory_audio + share * (fresh["attended_audio"][i] - old.memory_audio),
                ring_audio_tokens=ring_tokens,
                count=old.count + 1,
            )
        )
    return rings, after
