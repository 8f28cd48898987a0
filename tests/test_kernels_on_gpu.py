"""The network on a GPU: with its kernels as without them, in a clip and in a stream, compiled, and in a CUDA graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from refavs_rt.config import EDGE, MEL_BINS, PATCH_FRAMES
from refavs_rt.contract import graph_specs
from refavs_rt.kernels.dispatch import forced
from refavs_rt.model.eemc import EEMC

from .test_streaming import make_clip, make_model

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def model() -> EEMC:
    torch.backends.cudnn.allow_tf32 = False
    return make_model(EDGE, torch.float32).cuda()


def frame_inputs(seed: int, sentences: int = 3) -> dict[str, Tensor]:
    """Of a frame in a stream, by the contract's names, without what `vision` and `audio` give."""
    generator = torch.Generator().manual_seed(seed)
    slots = EDGE.ring_ticks
    made: dict[str, Tensor] = {
        "frame": torch.randn(1, 3, EDGE.image_size, EDGE.image_size, generator=generator),
        "log_mel": torch.randn(1, PATCH_FRAMES, MEL_BINS, generator=generator),
        "has_sound": torch.ones(1, dtype=torch.bool),
        "token_mask": torch.arange(EDGE.text_tokens).expand(sentences, -1)
        < torch.randint(2, 26, (sentences, 1), generator=generator),
        "ring_age": torch.randint(0, 2, (1, slots), generator=generator) * torch.arange(1, slots + 1),
        "memory_weight": torch.rand(sentences, generator=generator),
        "memory_count": torch.randint(0, 30, (sentences,), generator=generator),
    }
    produced = {spec.name for graph in ("vision", "audio") for spec in graph_specs(EDGE)[graph].outputs}
    for spec in graph_specs(EDGE)["step"].inputs:
        if spec.name not in made and spec.name not in produced:
            shape = [sentences if axis == "N" else int(axis) for axis in spec.shape]
            made[spec.name] = torch.randn(shape, generator=generator)
    return {name: x.cuda() for name, x in made.items()}


def frame(model: EEMC, given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    graphs = graph_specs(EDGE)
    vision = model.vision(*(given[spec.name] for spec in graphs["vision"].inputs))
    audio = model.audio(given["log_mel"], given["has_sound"])
    known = {**given, **{spec.name: x for spec, x in zip(graphs["vision"].outputs, vision, strict=True)}}
    known |= {spec.name: x for spec, x in zip(graphs["audio"].outputs, audio, strict=True)}
    return model.step(*(known[spec.name] for spec in graphs["step"].inputs))


def close(found: Any, expected: Any, within: float) -> None:
    for x, y in zip(found, expected, strict=True):
        assert torch.isfinite(x).all()
        assert float((x - y).norm()) <= within * float(y.norm())


def test_a_frame_with_kernels_is_that_of_the_references(model: EEMC) -> None:
    given = frame_inputs(1)
    with torch.inference_mode():
        found = frame(model, given)
        with forced("reference"):
            expected = frame(model, given)
    close(found, expected, 1e-4)


def test_a_clip_and_its_gradients_with_kernels_are_those_of_the_references(model: EEMC) -> None:
    clip = make_clip(EDGE, torch.float32, 3, 4)
    inputs = [x.cuda() for x in (clip.frames, clip.log_mel, clip.has_sound, clip.token_ids, clip.token_mask)]

    def gradients() -> list[Tensor]:
        model.zero_grad()
        out = model.forward_clip(*inputs)
        (out.mask_logits.square().mean() + out.presence_logits.square().mean()).backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    found = gradients()
    with forced("reference"):
        expected = gradients()
    assert len(found) == len(expected) > 100
    total = torch.cat([x.flatten() for x in expected]).norm()
    for x, y in zip(found, expected, strict=True):
        assert float((x - y).norm()) <= 1e-3 * float(y.norm()) + 1e-5 * float(total)


def test_replays_of_a_graph_follow_their_inputs(model: EEMC) -> None:
    static = frame_inputs(2)
    with torch.inference_mode():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                frame(model, static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = frame(model, static)
        for seed in (3, 4, 3):
            given = frame_inputs(seed)
            for name, x in given.items():
                static[name].copy_(x)
            graph.replay()
            close(out, frame(model, given), 1e-5)


def test_compiled_in_one_piece_the_step_is_the_same(model: EEMC) -> None:
    given = frame_inputs(5)
    graphs = graph_specs(EDGE)
    with torch.no_grad():
        vision = model.vision(*(given[spec.name] for spec in graphs["vision"].inputs))
        audio = model.audio(given["log_mel"], given["has_sound"])
        known = {**given, **{spec.name: x for spec, x in zip(graphs["vision"].outputs, vision, strict=True)}}
        known |= {spec.name: x for spec, x in zip(graphs["audio"].outputs, audio, strict=True)}
        inputs = [known[spec.name] for spec in graphs["step"].inputs]
        torch._dynamo.reset()
        compiled = torch.compile(model.step, fullgraph=True, dynamic=False)
        close(compiled(*inputs), model.step(*inputs), 1e-4)
