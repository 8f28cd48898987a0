"""A stream of steps equals the clip computed at once, over more ticks than the ring, with late sentences and frames between
the ticks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from refavs_rt.config import EDGE, TEST, ModelConfig
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.streaming import Sentence, commit, empty_rings, new_sentence, step

TICKS = 25
ADDED_AT = (0, 0, 7)
PROVISIONAL = (0, 1, 5, 12, 23)
"""Ticks before which a frame in between is asked for."""


@dataclasses.dataclass
class Clip:
    """Random inputs of one camera."""

    frames: torch.Tensor
    log_mel: torch.Tensor
    has_sound: torch.Tensor
    token_ids: torch.Tensor
    token_mask: torch.Tensor

    def until(self, tick: int) -> Clip:
        return Clip(
            self.frames[:, :tick].clone(),
            self.log_mel[:, :tick].clone(),
            self.has_sound[:, :tick].clone(),
            self.token_ids,
            self.token_mask,
        )


def make_model(config: ModelConfig, dtype: torch.dtype) -> EEMC:
    torch.manual_seed(3)
    model = EEMC(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # gates and tokens that start at zero would hide faults
            if parameter.dim() < 2:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def make_clip(config: ModelConfig, dtype: torch.dtype, sentences: int, ticks: int) -> Clip:
    generator = torch.Generator().manual_seed(11)
    size, length = config.image_size, config.text_tokens
    lengths = torch.tensor([length, 3, 5])[:sentences]
    has_sound = torch.rand(1, ticks, generator=generator) > 0.2
    return Clip(
        torch.randn(1, ticks, 3, size, size, generator=generator).to(dtype),
        torch.randn(1, ticks, 96, 64, generator=generator).to(dtype),
        has_sound,
        torch.randint(0, config.text_vocabulary, (1, sentences, length), generator=generator),
        (torch.arange(length) < lengths[:, None])[None],
    )


def run_clip(model: EEMC, clip: Clip, added_at: tuple[int, ...]):
    return model.forward_clip(
        clip.frames,
        clip.log_mel,
        clip.has_sound,
        clip.token_ids,
        clip.token_mask,
        added_at=torch.tensor([added_at]),
    )


def stream(model: EEMC, clip: Clip, added_at: tuple[int, ...], between: Clip | None):
    """Masks and presence of every tick by step; {tick: result} of provisional frames taken from `between`."""
    rings = empty_rings(model.config, clip.frames.dtype)
    sentences: list[Sentence] = []
    results, provisional = [], {}
    for tick in range(clip.frames.shape[1]):
        for i, start in enumerate(added_at):
            if start == tick:
                sentences.append(new_sentence(model, clip.token_ids[0, i], clip.token_mask[0, i]))
        if between is not None and tick in PROVISIONAL:
            provisional[tick] = step(
                model,
                rings,
                sentences,
                between.frames[:, tick],
                between.log_mel[:, tick],
                between.has_sound[:, tick],
            )
        result = step(
            model, rings, sentences, clip.frames[:, tick], clip.log_mel[:, tick], clip.has_sound[:, tick]
        )
        rings, sentences = commit(rings, sentences, result.fresh)
        results.append(result)
    return results, provisional


@pytest.mark.parametrize("sentences", [1, 3])
def test_stream_equals_clip_in_float64(sentences: int) -> None:
    model = make_model(TEST, torch.float64)
    clip = make_clip(TEST, torch.float64, sentences, TICKS)
    other = make_clip(TEST, torch.float64, sentences, TICKS + 1)
    other.frames = other.frames[:, 1:]
    other.log_mel = other.log_mel[:, 1:]
    other.has_sound = other.has_sound[:, 1:]
    added_at = ADDED_AT[:sentences]
    with torch.no_grad():
        whole = run_clip(model, clip, added_at)
        results, provisional = stream(model, clip, added_at, other)
        for tick, result in enumerate(results):
            alive = [i for i, start in enumerate(added_at) if start <= tick]
            torch.testing.assert_close(
                result.mask_logits, whole.mask_logits[0, tick, alive], atol=1e-9, rtol=1e-9
            )
            torch.testing.assert_close(result.presence, whole.presence[0, tick, alive], atol=1e-9, rtol=1e-9)
        for tick, result in provisional.items():
            ended = clip.until(tick + 1)
            for mine, theirs in ((ended.frames, other.frames), (ended.log_mel, other.log_mel)):
                mine[:, tick] = theirs[:, tick]
            ended.has_sound[:, tick] = other.has_sound[:, tick]
            last = run_clip(model, ended, added_at)
            alive = [i for i, start in enumerate(added_at) if start <= tick]
            torch.testing.assert_close(
                result.mask_logits, last.mask_logits[0, tick, alive], atol=1e-9, rtol=1e-9
            )


def test_stream_equals_clip_in_float32_at_full_size() -> None:
    """`edge`: cues, state and presence to 1e-5, mask logits to 1e-4 on 99.9% of the pixels, masks to an IoU of 0.999."""
    model = make_model(EDGE, torch.float32)
    clip = make_clip(EDGE, torch.float32, len(ADDED_AT), TICKS)
    close = pixels = both = either = 0
    with torch.no_grad():
        whole = run_clip(model, clip, ADDED_AT)
        results, _ = stream(model, clip, ADDED_AT, None)
    for tick, result in enumerate(results):
        alive = [i for i, start in enumerate(ADDED_AT) if start <= tick]
        torch.testing.assert_close(result.presence, whole.presence[0, tick, alive], atol=1e-5, rtol=0)
        mine, reference = result.mask_logits.numpy(), whole.mask_logits[0, tick, alive].numpy()
        scale = np.maximum(1, np.abs(reference).max(axis=(1, 2), keepdims=True))
        close += int((np.abs(mine - reference) <= 1e-4 * scale).sum())
        pixels += mine.size
        level = np.median(
            reference
        )  # random weights put a mask's whole map on one side of any fixed threshold
        both += int(((mine > level) & (reference > level)).sum())
        either += int(((mine > level) | (reference > level)).sum())
    print(f"{pixels - close} of {pixels} pixels beyond 1e-4; IoU {both / either:.6f}")
    assert close >= 0.999 * pixels
    assert both >= 0.999 * either
