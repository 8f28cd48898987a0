"""A frame of `edge` and of `full`: the fusion part alone and the whole, eager, compiled, and as CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from refavs_rt.config import MEL_BINS, PATCH_FRAMES, PRESETS, ModelConfig
from refavs_rt.contract import graph_specs
from refavs_rt.kernels.dispatch import forced
from refavs_rt.kernels.timing import graph_of, median_ms
from refavs_rt.model.eemc import EEMC

from .error import error


@dataclass
class NetworkFigures:
    """What a frame of one network took."""

    preset: str
    part: str
    """"fusion": what a frame does for its sentences, from the visual and audio tokens to masks; "whole": all of a frame."""
    sentences: int
    dtype: str
    error: float
    """Of the mask logits and presence with kernels against those without: see `error.error`."""
    milliseconds: dict[str, float] = field(default_factory=dict)
    """By form: "eager", "compiled", "graph" (a CUDA graph of eager), "compiled graph", each with "reference" or "kernels"."""
    failures: dict[str, str] = field(default_factory=dict)


def measure_networks(
    presets: list[str], time_for: Callable[[float], bool], progress: Callable[[str], None]
) -> Iterator[NetworkFigures]:
    """Both parts of each preset with random weights, for one sentence and for eight.

    Args:
        time_for: asked before each compilation whether there are so many seconds for it.
    """
    for preset in presets:
        model = EEMC(PRESETS[preset]).eval().requires_grad_(False).cuda()
        for dtype in (torch.float16, torch.float32):
            model.to(dtype)
            for sentences in (1, 8):
                for part, run in _parts(model, sentences, dtype).items():
                    compiles = (
                        dtype is torch.float16
                        and sentences == 1
                        and time_for(60 if part == "fusion" else 120)
                    )
                    figures = _measure(run, compiles)
                    figures.preset, figures.part, figures.sentences = preset, part, sentences
                    figures.dtype = str(dtype).removeprefix("torch.")
                    shown = ", ".join(f"{form} {ms:.2f}" for form, ms in figures.milliseconds.items())
                    progress(
                        f"{preset} {part}, {sentences} sentences, {figures.dtype}: {shown} ms; error {figures.error:.1e}"
                        f" {figures.failures or ''}"
                    )
                    yield figures


def random_inputs(
    config: ModelConfig, sentences: int, dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """Of a frame in the middle of a stream, by the contract's names, without what `vision` and `audio` give."""
    generator = torch.Generator().manual_seed(5)
    ring = config.ring_ticks
    made = {
        "frame": torch.randn(1, 3, config.image_size, config.image_size, generator=generator),
        "log_mel": torch.randn(1, PATCH_FRAMES, MEL_BINS, generator=generator),
        "has_sound": torch.ones(1, dtype=torch.bool),
        "token_mask": torch.arange(config.text_tokens).expand(sentences, -1) < 12,
        "ring_age": torch.arange(1, ring + 1)[None],
        "memory_weight": torch.full((sentences,), 0.05),
        "memory_count": torch.full((sentences,), 20),
    }
    produced = {spec.name for graph in ("vision", "audio") for spec in graph_specs(config)[graph].outputs}
    for spec in graph_specs(config)["step"].inputs:
        if spec.name not in made and spec.name not in produced:
            shape = [sentences if axis == "N" else int(axis) for axis in spec.shape]
            made[spec.name] = torch.randn(shape, generator=generator)
    return {name: x.to(device, dtype) if x.is_floating_point() else x.to(device) for name, x in made.items()}


def frame_function(model: EEMC) -> Callable[..., tuple[Tensor, ...]]:
    """All of a frame, as a function of the contract's names."""
    graphs = graph_specs(model.config)

    def frame(**given: Tensor) -> tuple[Tensor, ...]:
        vision = model.vision(
            given["frame"], given["ring_visual_k"], given["ring_visual_v"], given["ring_age"]
        )
        audio = model.audio(given["log_mel"], given["has_sound"])
        given |= {spec.name: x for spec, x in zip(graphs["vision"].outputs, vision, strict=True)}
        given |= {spec.name: x for spec, x in zip(graphs["audio"].outputs, audio, strict=True)}
        return model.step(*(given[spec.name] for spec in graphs["step"].inputs))

    return frame


def _parts(
    model: EEMC, sentences: int, dtype: torch.dtype
) -> dict[str, tuple[Callable[..., Any], list[Any]]]:
    """Part -> (function, its arguments)."""
    config, graphs = model.config, graph_specs(model.config)
    given = random_inputs(config, sentences, dtype, torch.device("cuda"))
    names = list(given)
    frame = frame_function(model)
    with torch.inference_mode(), forced("reference"):
        vision = model.vision(
            given["frame"], given["ring_visual_k"], given["ring_visual_v"], given["ring_age"]
        )
        audio = model.audio(given["log_mel"], given["has_sound"])
    known = {**given, **{spec.name: x for spec, x in zip(graphs["vision"].outputs, vision, strict=True)}}
    known |= {spec.name: x for spec, x in zip(graphs["audio"].outputs, audio, strict=True)}
    return {
        "fusion": (model.step, [known[spec.name].clone() for spec in graphs["step"].inputs]),
        "whole": (lambda *x: frame(**dict(zip(names, x, strict=True))), list(given.values())),
    }


def _measure(part: tuple[Callable[..., Any], list[Any]], compiles: bool) -> NetworkFigures:
    function, arguments = part

    def run(
        form: Callable[..., Any], context: Callable[[], AbstractContextManager[Any]]
    ) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode(), context():
                return form(*arguments)

        return call

    kernels, reference = contextlib.nullcontext, lambda: forced("reference")
    with_kernels, without = run(function, kernels), run(function, reference)
    figures = NetworkFigures("", "", 0, "", error(with_kernels()[:2], without()[:2]))
    forms: list[tuple[str, Callable[[], Any], bool]] = [
        ("eager, reference", without, False),
        ("eager, kernels", with_kernels, False),
        ("graph, reference", without, True),
        ("graph, kernels", with_kernels, True),
    ]
    if compiles:
        torch._dynamo.reset()
        compiled = run(torch.compile(function, dynamic=False), kernels)
        forms += [("compiled, kernels", compiled, False), ("compiled graph, kernels", compiled, True)]
    for form, call, as_graph in forms:
        try:
            if as_graph:
                graph, _ = graph_of(call)
                figures.milliseconds[form] = median_ms(graph.replay)
                del graph
            else:
                figures.milliseconds[form] = median_ms(call)
        except Exception as problem:  # a form that cannot run is a result; the others go on
            figures.failures[form] = f"{type(problem).__name__}: {problem}".splitlines()[0][:300]
    return figures
