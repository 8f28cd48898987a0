"""The published flow that the benchmarks time gives the masks of our clip form, so that equal results are compared."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from benchmarks.published_flow import PARTS, Clip, PublishedFlow
from refavs_rt.config import TEST, ModelConfig
from refavs_rt.model.eemc import EEMC

from .full_small import FULL_SMALL
from .test_streaming import make_clip, make_model

TICKS, SENTENCES = 7, 3


@dataclasses.dataclass(frozen=True)
class Case:
    model: EEMC
    clip: Clip
    token_ids: Tensor
    token_mask: Tensor
    expected: Tensor
    """[T, N, h, w], of the clip form."""


@pytest.fixture(scope="module", params=[TEST, FULL_SMALL], ids=["test", "full"])
def case(request: pytest.FixtureRequest) -> Case:
    """More ticks than the window, sentences of unlike lengths, frames with and without sound; nothing is left at zero."""
    config: ModelConfig = request.param
    model = make_model(config, torch.float64)
    with torch.no_grad():
        model.decoder.embedding[-1].weight.mul_(100)  # masks that cover and do not cover, query by query
        model.decoder.object.weight.mul_(3)
    made = make_clip(config, torch.float64, SENTENCES, TICKS)
    with torch.no_grad():
        whole = model.forward_clip(
            made.frames, made.log_mel, made.has_sound, made.token_ids, made.token_mask, temporal="full"
        )
    clip = Clip(made.frames[0], made.log_mel[0], made.has_sound[0])
    return Case(model, clip, made.token_ids[0], made.token_mask[0], whole.mask_logits[0])


@pytest.mark.parametrize("frames_at_once", [1, 3, 10])
def test_its_masks_are_those_of_the_clip_form(case: Case, frames_at_once: int) -> None:
    flow = PublishedFlow(case.model, frames_at_once)
    for n in range(SENTENCES):
        outcome = flow.run(case.clip, case.token_ids[n], case.token_mask[n])
        torch.testing.assert_close(outcome.mask_logits, case.expected[:, n], atol=1e-9, rtol=1e-9)


def test_the_case_tells_frames_and_sentences_apart(case: Case) -> None:
    """Equal masks everywhere would prove nothing."""
    frame_by_frame = case.expected.diff(dim=0).abs().amax(dim=(-2, -1))
    sentence_by_sentence = case.expected.diff(dim=1).abs().amax(dim=(-2, -1))
    assert frame_by_frame.min() > 1e-3 and sentence_by_sentence.min() > 1e-4


def test_every_part_is_timed(case: Case) -> None:
    outcome = PublishedFlow(case.model).run(case.clip, case.token_ids[0], case.token_mask[0])
    assert tuple(outcome.seconds) == PARTS and min(outcome.seconds.values()) > 0


def test_nothing_is_kept(case: Case) -> None:
    """The backbone sees each frame twice for each sentence; so do the pixel decoder, and the encoder of sound once."""
    calls = {"backbone": 0, "pixel_decoder": 0, "audio_encoder": 0, "text_encoder": 0}
    hooks = [
        getattr(case.model, name).register_forward_hook(
            lambda *_, name=name: calls.__setitem__(name, calls[name] + 1)
        )
        for name in calls
    ]
    flow = PublishedFlow(case.model, frames_at_once=1)
    for n in range(2):
        flow.run(case.clip, case.token_ids[n], case.token_mask[n])
    for hook in hooks:
        hook.remove()
    assert calls == {
        "backbone": 4 * TICKS,
        "pixel_decoder": 4 * TICKS,
        "audio_encoder": 2,
        "text_encoder": 2,
    }
