"""Ours beside the published flow: the same weights, interleaved in one run, so that ratios count and not a machine's day.

`extra_info` holds the seconds of each part of the published flow for every sentence's clip of ten frames, and for two windows of
ten frames that a live use would compute anew for one new frame; what our frames took, every one a memory tick, in ONNX Runtime
and in torch eager; and the vision graph alone (backbone, pixel decoder) in both. `comparison.py` makes ratios of them.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.networks import TEXTS, Network, frames_and_sound, network
from benchmarks.published_flow import CLIP_FRAMES, Clip, PublishedFlow
from benchmarks.results import summary
from refavs_rt.export.agreement import Agreement, compare_random
from refavs_rt.session import Session

SENTENCES = (1, 2, 4, 8)
IN_TORCH = (1, 8)
"""Numbers of sentences that ours is run with in torch eager too."""
WINDOWS = 2
FRAMES = {"edge": 5, "full": 2}
"""Of ours that are timed beside each clip of the published flow."""


@pytest.mark.parametrize(
    "preset",
    ["edge", pytest.param("full", marks=[pytest.mark.bench_full, pytest.mark.timeout(7_200)])],
)
def test_beside_the_published_flow(
    benchmark: Any, preset: str, all_cores: int, tell: Callable[[str], None]
) -> None:
    net = network(preset, all_cores)
    frames, log_mel = frames_and_sound(net.config, CLIP_FRAMES + WINDOWS)
    has_sound = torch.ones(len(frames), dtype=torch.bool)
    clip = Clip(torch.from_numpy(frames), torch.from_numpy(log_mel), has_sound)
    sentences = [torch.from_numpy(x) for x in net.session_model().tokenizer.encode(TEXTS)]
    check(net, clip, sentences)

    ours = {
        (engine.name, count): net.session_model(engine).session(TEXTS[:count])
        for engine, counts in ((net.onnx, SENTENCES), (net.torch_engine, IN_TORCH))
        for count in counts
    }
    pushes = {key: pusher(session, frames, log_mel) for key, session in ours.items()}
    seen = {**ours["onnx", 1].shared.feeds(), "frame": frames[:1]}
    looks: dict[str, Callable[[], object]] = {
        engine.name: functools.partial(engine.vision, seen) for engine in (net.onnx, net.torch_engine)
    }
    for call in (*pushes.values(), *looks.values()):
        call()

    first = clip.ticks(0, CLIP_FRAMES)
    at_once = {
        size: sum(PublishedFlow(net.model, size).run(first, *(x[0] for x in sentences)).seconds.values())
        for size in (CLIP_FRAMES, 1)
    }
    best = min(at_once, key=lambda size: at_once[size])
    shown = ", ".join(f"{size} at once {seconds:.1f} s" for size, seconds in at_once.items())
    tell(f"{preset}: a clip of the published flow, frames {shown}")
    flow = PublishedFlow(net.model, best)
    clips = []
    took: dict[tuple[str, int], list[float]] = defaultdict(list)
    looked: dict[str, list[float]] = defaultdict(list)
    for n in range(len(TEXTS)):
        clips.append(flow.run(first, *(x[n] for x in sentences)).seconds)
        for _ in range(FRAMES[preset]):
            for key, push in pushes.items():
                took[key].append(seconds_of(push))
            for name, look in looks.items():
                looked[name].append(seconds_of(look))
        tell(f"{preset}: sentence {n + 1} of {len(TEXTS)}, clip {sum(clips[-1].values()):.1f} s")
    windows = [
        flow.run(clip.ticks(i, i + CLIP_FRAMES), *(x[0] for x in sentences)).seconds
        for i in range(1, WINDOWS + 1)
    ]
    benchmark.extra_info.update(
        {
            "preset": preset,
            "threads": all_cores,
            "frames_at_once": best,
            "clip_frames": CLIP_FRAMES,
            "clips": clips,
            "windows": windows,
            "ours": {
                engine: {str(count): summary(took[engine, count]) for name, count in took if name == engine}
                for engine in ("onnx", "torch")
            },
            "vision": {name: summary(seconds) for name, seconds in looked.items()},
        }
    )
    benchmark.pedantic(pushes["onnx", 1], rounds=FRAMES[preset])


def check(net: Network, clip: Clip, sentences: list[torch.Tensor]) -> None:
    """No time is taken of unlike results: the published flow is our clip form, ONNX Runtime is torch.

    Raises:
        ParityError: they differ by more than an exported graph may.
    """
    short = clip.ticks(0, 2)
    with torch.inference_mode():
        expected = net.model.forward_clip(
            short.frames[None],
            short.log_mel[None],
            short.has_sound[None],
            *(x[None, :1] for x in sentences),
            temporal="full",
        )
    found = PublishedFlow(net.model).run(short, *(x[0] for x in sentences))
    masks = Agreement()
    masks.add("mask_logits", found.mask_logits.numpy(), expected.mask_logits[0, :, 0].numpy(), 0.4)
    masks.check("the published flow")
    for graph, agreement in compare_random(net.config, net.onnx, net.torch_engine, axes=(1,)).items():
        agreement.check(graph)


def pusher(session: Session, frames: np.ndarray, log_mel: np.ndarray) -> Callable[[], object]:
    """Each call is one frame, a second after the last: a memory tick."""
    at = iter(range(10**9))

    def push() -> object:
        tick = next(at)
        return session.predict(frames[tick % len(frames)], log_mel[tick % len(frames)], float(tick))

    return push


def seconds_of(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
