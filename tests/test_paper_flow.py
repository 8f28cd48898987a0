"""`temporal="full"` against the paper's flow, written with torch's own attention over whole concatenated sequences."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from refavs_rt.config import ModelConfig
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.temporal import TemporalBranch

from .full_small import FULL_SMALL
from .test_streaming import Clip, make_clip, make_model

CONFIG = dataclasses.replace(FULL_SMALL, cue_positions=False)


def multihead(branch: TemporalBranch) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(
        branch.out.in_features, branch.heads, batch_first=True, dtype=torch.float64
    )
    theirs.in_proj_weight.data.copy_(branch.qkv.weight)
    theirs.in_proj_bias.data.copy_(branch.qkv.bias)
    theirs.out_proj.load_state_dict(branch.out.state_dict())
    return theirs


def remember(f: Tensor, beta: float) -> Tensor:
    """(1 + beta) f_t - mean(f_1 .. f_t) of [T, ...]."""
    return torch.stack([(1 + beta) * f[t] - f[: t + 1].mean(dim=0) for t in range(len(f))])


def plain_mean_cues(model: EEMC, clip: Clip, n: int) -> Tensor:
    """Mean cues [T, E] of sentence `n`: one self-attention over [all sound ; text], one over [all pixels ; text], then frame by
    frame the cues [A ; aud ; V_t ; vis ; X'] of the whole clip's sound."""
    config = model.config
    ticks = clip.frames.shape[1]
    length = int(clip.token_mask[0, n].sum())
    text = model.text_project(model.text_encoder(clip.token_ids[0], clip.token_mask[0])[n, :length])
    heard = model.audio_encoder(clip.log_mel[0], clip.has_sound[0])
    seen = model.visual_tokens(model.backbone(clip.frames[0]))  # [T, P, C]

    def attend(branch: TemporalBranch, tokens: Tensor) -> tuple[Tensor, Tensor]:
        whole = torch.cat([tokens, text])[None]
        out, _ = multihead(branch)(whole, whole, whole)
        return out[0, : len(tokens)], out[0, len(tokens) :]

    audio, text_heard = attend(model.audio_branch, heard)
    visual, text_seen = attend(model.visual_branch, seen.flatten(0, 1))
    audio, visual = remember(audio, config.beta), remember(visual.unflatten(0, (ticks, -1)), config.beta)
    said = (text + text_heard + text_seen) / 3
    out = []
    integration = model.integration
    for t in range(ticks):
        cues = torch.cat([audio, integration.audio_token, visual[t], integration.visual_token, said])[None]
        everything = torch.ones(cues.shape[:2], dtype=torch.bool)
        for layer in integration.layers:
            cues = layer(cues, everything)
        out.append(model.prompting.norm(integration.to_decoder(integration.norm(cues)))[0].mean(dim=0))
    return torch.stack(out)


def full(model: EEMC, clip: Clip, **options) -> Tensor:
    """Mean cues [T, N, E]."""
    out = model.forward_clip(
        clip.frames, clip.log_mel, clip.has_sound, clip.token_ids, clip.token_mask, **options
    )
    return out.mean_cues


def test_full_is_the_papers_flow() -> None:
    model = make_model(CONFIG, torch.float64)
    clip = make_clip(CONFIG, torch.float64, 2, 7)  # more ticks than the window of 4
    with torch.no_grad():
        ours = full(model, clip, temporal="full")
        for n in range(2):
            torch.testing.assert_close(ours[:, n], plain_mean_cues(model, clip, n), atol=1e-10, rtol=1e-10)


def test_full_sees_what_comes_and_band_does_not() -> None:
    model = make_model(CONFIG, torch.float64)
    clip = make_clip(CONFIG, torch.float64, 1, 4)
    later: Clip = dataclasses.replace(clip, frames=clip.frames.clone())
    later.frames[:, -1] += 1
    with torch.no_grad():
        for temporal, changed in (("full", True), ("band", False)):
            before, after = (full(model, c, temporal=temporal)[0] for c in (clip, later))
            assert (not torch.equal(before, after)) == changed


def test_decoding_some_ticks_gives_those_of_all(config: ModelConfig = CONFIG) -> None:
    model = make_model(config, torch.float64)
    clip = make_clip(config, torch.float64, 2, 6)
    with torch.no_grad():
        for temporal in ("full", "band"):
            whole = full(model, clip, temporal=temporal)
            some = full(model, clip, temporal=temporal, decode_ticks=[1, 4])
            torch.testing.assert_close(some, whole[[1, 4]], atol=1e-10, rtol=1e-10)
