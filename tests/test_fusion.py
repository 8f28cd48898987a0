"""Integration and prompting against torch's own modules in float64, and the switches that ablations turn."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from refavs_rt.config import TEST, ModelConfig
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.fusion import Integration, Prompting
from refavs_rt.model.layers import sine_position
from refavs_rt.model.temporal import Projected

from .full_small import FULL_SMALL
from .test_decoder import as_multihead
from .test_streaming import make_clip, make_model, run_clip, stream

SWITCHES = ("cached_memory", "modality_tokens", "prompt_attention", "audio_cues", "visual_cues", "text_cues")


def torch_layer(ours: Any, config: ModelConfig) -> nn.TransformerEncoderLayer:
    """torch's own pre-norm encoder layer with the same weights."""
    theirs = nn.TransformerEncoderLayer(
        config.width,
        config.heads,
        config.integration_hidden,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
        dtype=torch.float64,
    )
    own = ours.attention
    theirs.self_attn = as_multihead(own.q, own.k, own.v, own.out, config.heads)
    theirs.norm1, theirs.norm2 = ours.norm_attention, ours.norm_feed_forward
    theirs.linear1, theirs.linear2 = ours.feed_forward[0], ours.feed_forward[2]
    return theirs.train()  # not the fused path


@pytest.mark.parametrize("config", [TEST, FULL_SMALL], ids=["edge", "full"])
@pytest.mark.parametrize("tokens", [True, False])
def test_integration_is_torchs_encoder_over_the_papers_sequence(config: ModelConfig, tokens: bool) -> None:
    torch.manual_seed(6)
    config = dataclasses.replace(config, integration_layers=2, modality_tokens=tokens)
    integration: Any = Integration(config).double()
    items, window, places, length, width = 3, config.window_ticks, 4, 5, config.width
    audio, visual, text = (
        torch.randn(items, n, width, dtype=torch.float64) for n in (window, places, length)
    )
    age = torch.stack([torch.randperm(window) for _ in range(items)])
    audio_seen = torch.rand(items, window) > 0.4
    text_mask = torch.arange(length) < torch.tensor([[5], [3], [1]])

    heard, seen = audio.clone(), visual.clone()
    if config.cue_positions:
        heard += torch.stack([integration.age[a] for a in age])
        seen += sine_position(2, 2, integration.place.in_features, visual) @ integration.place.weight.T
    parts, known = [heard, seen, text], [audio_seen, torch.ones(items, places, dtype=torch.bool), text_mask]
    if tokens:
        for at, token in ((1, integration.audio_token), (3, integration.visual_token)):
            parts.insert(at, token.expand(items, 1, width))
            known.insert(at, torch.ones(items, 1, dtype=torch.bool))
    x, mask = torch.cat(parts, dim=1), torch.cat(known, dim=1)
    for layer in integration.layers:
        x = torch_layer(layer, config)(x, src_key_padding_mask=~mask)
    first, _, last = integration.to_decoder
    expected = last(nn.functional.gelu(first(integration.norm(x))))

    cues, cue_mask = integration(audio, age, audio_seen, visual, text, text_mask)
    assert torch.equal(cue_mask, mask)
    assert cues.shape == (items, window + places + length + 2 * tokens, config.decoder_width)
    torch.testing.assert_close(cues[mask], expected[mask], atol=1e-11, rtol=1e-11)
    began_as_visual = cues.split([window, *[1] * tokens, places, *[1] * tokens, length], dim=1)[1 + tokens]
    assert torch.equal(integration.visual_part(cues, window, places), began_as_visual)


@pytest.mark.parametrize("attention", [True, False])
def test_prompting_is_the_papers_formula(attention: bool) -> None:
    torch.manual_seed(7)
    config = dataclasses.replace(FULL_SMALL, prompt_attention=attention)
    prompting = Prompting(config).double()
    width = config.decoder_width
    queries, cues = torch.randn(7, width, dtype=torch.float64), torch.randn(2, 9, width, dtype=torch.float64)
    mask = torch.rand(2, 9) > 0.4
    with torch.no_grad():
        prompting.gate_mean.fill_(-0.7)
        if attention:
            prompting.gate_attention.fill_(0.4)
    prompted, mean = prompting(queries, cues, mask)
    source = prompting.norm(cues)
    for item in range(2):
        known = source[item][mask[item]]
        expected = queries + known.mean(dim=0) / (1 + math.exp(0.7))
        if attention:
            own = prompting.attention
            theirs = as_multihead(own.q, own.k, own.v, own.out, config.prompt_heads)
            attended, _ = theirs(queries[None], known[None], known[None])
            expected = expected + attended[0] / (1 + math.exp(-0.4))
        torch.testing.assert_close(prompted[item], expected, atol=1e-11, rtol=1e-11)
        torch.testing.assert_close(mean[item], known.mean(dim=0), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("switch", SWITCHES)
def test_without_a_part_stream_still_equals_clip(switch: str) -> None:
    config = dataclasses.replace(TEST, **{switch: False})
    model = make_model(config, torch.float64)
    clip = make_clip(config, torch.float64, 2, 7)
    with torch.no_grad():
        whole = run_clip(model, clip, (0, 2))
        results, _ = stream(model, clip, (0, 2), None)
    for tick, result in enumerate(results):
        alive = 1 if tick < 2 else 2
        torch.testing.assert_close(
            result.mask_logits, whole.mask_logits[0, tick, :alive], atol=1e-9, rtol=1e-9
        )


def masks_of(config: ModelConfig, change: str | None) -> Tensor:
    """Cues of a clip whose sound, picture or sentence is exchanged for another, or none."""
    model = make_model(config, torch.float64)
    clip, other = (
        make_clip(config, torch.float64, 1, 5),
        make_clip(dataclasses.replace(config, text_vocabulary=999), torch.float64, 1, 5),
    )
    if change == "audio":
        clip.log_mel = clip.log_mel + 1
        clip.has_sound = ~clip.has_sound
    elif change == "visual":
        clip.frames = clip.frames.flip(-1)
    elif change == "text":
        clip.token_ids = other.token_ids
        clip.token_mask = clip.token_mask.clone()
        clip.token_mask[..., 3:] = False
    with torch.no_grad():
        return run_clip(model, clip, (0,)).mean_cues


@pytest.mark.parametrize("modality", ["audio", "visual", "text"])
def test_a_withheld_modality_does_not_reach_the_cues(modality: str) -> None:
    withheld = dataclasses.replace(TEST, **{f"{modality}_cues": False})
    assert torch.equal(masks_of(withheld, None), masks_of(withheld, modality))
    assert not torch.equal(masks_of(TEST, None), masks_of(TEST, modality))


def test_without_memory_the_attended_outputs_pass_as_they_are() -> None:
    torch.manual_seed(8)
    model = EEMC(dataclasses.replace(TEST, cached_memory=False)).double()
    branch = model.audio_branch
    present, text = (branch.project(torch.randn(2, 3, TEST.width, dtype=torch.float64)) for _ in range(2))
    present, ring = (Projected(*(part[:1] for part in (x.q, x.k, x.v))) for x in (present, present))
    ring = Projected(*(part[:, None] for part in (ring.q, ring.k, ring.v)))
    seen, words = torch.ones(1, 1, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    mean, weight = torch.randn(2, 3, TEST.width, dtype=torch.float64), torch.tensor([1.0, 0.5])
    partial = branch.ring_partial(present, ring, seen)
    out = branch.step(present, partial, ring, seen, text, words, mean, weight)
    expected = out.attended @ branch.out.weight.T + branch.out.bias
    torch.testing.assert_close(out.remembered, expected, atol=1e-12, rtol=1e-12)
