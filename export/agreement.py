"""How far exported graphs are from torch, on random inputs and on a real clip, and the bounds beyond which no bundle is written.

The bounds are those of float32: cues and state to 1e-5 * max(1, max|reference|); mask logits to 1e-4 relative on 99.9% of the
pixels, and the thresholded masks of all frames together to an IoU of 0.999. Masked attention thresholds, so single pixels may
flip where a logit is next to zero.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from refavs_rt.bundle import Bundle
from refavs_rt.config import RunConfig
from refavs_rt.contract import GRAPHS, graph_specs
from refavs_rt.engines.base import Arrays, Engine
from refavs_rt.engines.torch import TorchEngine
from refavs_rt.model.eemc import EEMC
from refavs_rt.session import Model

from .to_onnx import example_inputs

STATE_BOUND = 1e-5
MASK_BOUND = 1e-4
MASK_SHARE = 0.999
MASK_IOU = 0.999
_MASKS = "mask_logits"


class ParityError(Exception):
    """Exported graphs that do not compute what torch computes."""


@dataclass
class Agreement:
    """Running comparison of one graph's outputs with torch's."""

    largest_error: float = 0.0
    """Largest |difference| / max(1, max|reference|) of any output but the mask logits."""
    worst_output: str = ""
    close_pixels: int = 0
    """Pixels of mask logits within `MASK_BOUND` of torch, relative to the largest logit of the mask."""
    pixels: int = 0
    both: int = 0
    either: int = 0
    """Pixels in the intersection and in the union of the thresholded masks."""
    flipped: int = 0

    def add(self, name: str, value: NDArray[Any], reference: NDArray[Any], threshold: float) -> None:
        """Compare one output."""
        if name == _MASKS:
            scale = np.maximum(1.0, np.abs(reference).max(axis=(-2, -1), keepdims=True))
            self.close_pixels += int((np.abs(value - reference) <= MASK_BOUND * scale).sum())
            self.pixels += value.size
            logit = math.log(threshold / (1 - threshold))
            mine, theirs = value > logit, reference > logit
            self.both += int((mine & theirs).sum())
            self.either += int((mine | theirs).sum())
            self.flipped += int((mine ^ theirs).sum())
            return
        error = float(np.abs(value - reference).max(initial=0.0)) / max(
            1.0, float(np.abs(reference).max(initial=0.0))
        )
        if not error <= self.largest_error:  # a NaN is the largest of all
            self.largest_error, self.worst_output = error, name

    @property
    def iou(self) -> float:
        """Of the thresholded masks of all frames together; 1 where there is no mask at all."""
        return self.both / self.either if self.either else 1.0

    def check(self, what: str) -> None:
        """Raise ParityError where a bound is broken."""
        if not self.largest_error <= STATE_BOUND:
            raise ParityError(
                f"{what}: {self.worst_output} differs from torch by {self.largest_error:.2e} (bound {STATE_BOUND:.0e})"
            )
        if self.pixels and self.close_pixels < MASK_SHARE * self.pixels:
            share = self.close_pixels / self.pixels
            raise ParityError(
                f"{what}: only {share:.4%} of the mask logits are within {MASK_BOUND:.0e} of torch's"
            )
        if self.iou < MASK_IOU:
            raise ParityError(
                f"{what}: masks agree with torch's only to an IoU of {self.iou:.5f} (bound {MASK_IOU})"
            )

    def to_json(self) -> dict[str, Any]:
        """For a manifest."""
        row: dict[str, Any] = {"largest_error": self.largest_error}
        if self.pixels:
            row |= {"mask_iou": self.iou, "mask_pixels": self.pixels, "mask_pixels_flipped": self.flipped}
        return row


@dataclass
class ComparingEngine:
    """Runs one engine and compares each output with torch's on the same inputs."""

    engine: Engine
    reference: TorchEngine
    threshold: float
    agreement: dict[str, Agreement] = field(default_factory=lambda: defaultdict(Agreement))
    name: str = "compare"
    device: str = "CPU"

    def text(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("text", inputs)

    def vision(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("vision", inputs)

    def audio(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("audio", inputs)

    def step(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("step", inputs)

    def _run(self, graph: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        outputs: dict[str, NDArray[Any]] = getattr(self.engine, graph)(inputs)
        reference = getattr(self.reference, graph)(inputs)
        for name, value in outputs.items():
            self.agreement[graph].add(name, value, reference[name], self.threshold)
        return outputs


def compare_random(model: EEMC, engine: Engine, axes: Sequence[int] = (1, 2, 3, 8)) -> dict[str, Agreement]:
    """Each graph on random inputs, for several sizes of its dynamic axis."""
    compared = ComparingEngine(engine, TorchEngine(model), RunConfig().mask_threshold)
    for graph in GRAPHS:
        spec = graph_specs(model.config)[graph]
        for axis in axes:
            generator = torch.Generator().manual_seed(axis)
            inputs = example_inputs(spec, axis, generator, model.config.text_vocabulary)
            named = {x.name: value.numpy() for x, value in zip(spec.inputs, inputs, strict=True)}
            getattr(compared, graph)(named)
    return dict(compared.agreement)


def compare_stream(
    model: EEMC, bundle: Bundle, engine: Engine, clip: Path, texts: Sequence[str], max_frames: int
) -> dict[str, Agreement]:
    """The graphs on the frames, sounds and states of a real clip, streamed as a user would."""
    run = RunConfig()
    compared = ComparingEngine(engine, TorchEngine(model), run.mask_threshold)
    for _ in Model(bundle, compared, run).stream(clip, texts, max_frames=max_frames):
        pass
    return dict(compared.agreement)
