"""How far two engines are from each other, and the bounds beyond which no float32 bundle is written.

Two comparisons. Side by side (`ComparingEngine`): both get the same inputs, so each graph answers for itself alone; exported
graphs are held against torch so. The bounds are those of float32: cues and state to 1e-5 * max(1, max|reference|); mask logits
to 1e-4 relative on 99.9% of the pixels, and the thresholded masks of all frames together to an IoU of 0.999. Masked attention
thresholds, so single pixels may flip where a logit is next to zero.

Each on its own (`stream_masks`, `mask_iou`): both run the same clips with their own memory, as two cameras would, and the masks
that a user would see are compared. A lower precision answers for that.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import ModelConfig, RunConfig
from refavs_rt.contract import GRAPHS, graph_specs
from refavs_rt.engines.base import Arrays, Engine, GraphByName
from refavs_rt.examples import example_inputs
from refavs_rt.session import Model

from .material import Clip

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
    error_sum: float = 0.0
    """Of |difference| / max(1, max|reference|), over all values of all outputs, mask logits among them."""
    values: int = 0
    close_pixels: int = 0
    """Pixels of mask logits within `MASK_BOUND` of torch, relative to the largest logit of the mask."""
    pixels: int = 0
    both: int = 0
    either: int = 0
    """Pixels in the intersection and in the union of the thresholded masks."""
    flipped: int = 0

    def add(self, name: str, value: NDArray[Any], reference: NDArray[Any], threshold: float) -> None:
        """Compare one output."""
        size = max(1.0, float(np.abs(reference).max(initial=0.0)))
        difference = np.abs(value.astype(np.float64) - reference)
        self.error_sum += float(difference.sum()) / size
        self.values += value.size
        if name == _MASKS:
            scale = np.maximum(1.0, np.abs(reference).max(axis=(-2, -1), keepdims=True))
            self.close_pixels += int((difference <= MASK_BOUND * scale).sum())
            self.pixels += value.size
            logit = math.log(threshold / (1 - threshold))
            mine, theirs = value > logit, reference > logit
            self.both += int((mine & theirs).sum())
            self.either += int((mine | theirs).sum())
            self.flipped += int((mine ^ theirs).sum())
            return
        error = float(difference.max(initial=0.0)) / size
        if not (error <= self.largest_error or math.isnan(self.largest_error)):  # a NaN is the largest of all
            self.largest_error, self.worst_output = error, name

    @property
    def iou(self) -> float:
        """Of the thresholded masks of all frames together; 1 where there is no mask at all."""
        return self.both / self.either if self.either else 1.0

    @property
    def mean_error(self) -> float:
        """Mean of |difference| / max(1, max|reference|) over all values."""
        return self.error_sum / self.values if self.values else 0.0

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
        row: dict[str, Any] = {"largest_error": self.largest_error, "mean_error": self.mean_error}
        if self.pixels:
            row |= {"mask_iou": self.iou, "mask_pixels": self.pixels, "mask_pixels_flipped": self.flipped}
        return row


@dataclass
class ComparingEngine(GraphByName):
    """Runs one engine and compares each output with another's on the same inputs."""

    engine: Engine
    reference: Engine
    threshold: float
    agreement: dict[str, Agreement] = field(default_factory=lambda: defaultdict(Agreement))
    name: str = "compare"
    device: str = "CPU"

    def _run(self, graph: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        outputs: dict[str, NDArray[Any]] = getattr(self.engine, graph)(inputs)
        reference = getattr(self.reference, graph)(inputs)
        for name, value in outputs.items():
            self.agreement[graph].add(name, value, reference[name], self.threshold)
        return outputs


def compare_random(
    config: ModelConfig, engine: Engine, reference: Engine, axes: Sequence[int] = (1, 2, 3, 8)
) -> dict[str, Agreement]:
    """Side by side on random inputs, for several sizes of the dynamic axis."""
    compared = ComparingEngine(engine, reference, RunConfig().mask_threshold)
    for graph, spec in graph_specs(config).items():
        for axis in axes:
            getattr(compared, graph)(
                example_inputs(spec, axis, np.random.default_rng(axis), config.text_vocabulary)
            )
    return dict(compared.agreement)


def compare_stream(model: Model, reference: Engine, clips: Iterable[Clip]) -> dict[str, Agreement]:
    """Side by side on real clips: `model`'s own outputs go on through its session; the reference sees what it saw."""
    compared = ComparingEngine(model.engine, reference, model.run.mask_threshold)
    stream_masks(Model(model.bundle, compared, model.run), clips)
    return dict(compared.agreement)


def stream_masks(model: Model, clips: Iterable[Clip]) -> list[NDArray[np.bool_]]:
    """The masks of each clip, each from a session of its own.

    Returns:
        For each clip [T, N, h, w], at a quarter of the image: empty where the presence is under its threshold.
    """
    level = math.log(model.run.mask_threshold / (1 - model.run.mask_threshold))
    masks = []
    for clip in clips:
        session = model.session(clip.texts)
        frames = []
        for frame, log_mel, pts_s in clip.pushes():
            prediction = session.predict(frame, log_mel, pts_s)
            there = prediction.presence >= model.run.presence_threshold
            frames.append((prediction.mask_logits > level) & there[:, None, None])
        masks.append(np.stack(frames))
    return masks


def mask_iou(ours: Iterable[NDArray[np.bool_]], theirs: Iterable[NDArray[np.bool_]]) -> float:
    """Intersection over union of all masks together; 1 where neither has any."""
    both = either = 0
    for mine, other in zip(ours, theirs, strict=True):
        both += int((mine & other).sum())
        either += int((mine | other).sum())
    return both / either if either else 1.0


def to_json(agreements: Mapping[str, Agreement]) -> dict[str, Any]:
    """For a manifest: graph name -> its row."""
    return {graph: agreements[graph].to_json() for graph in GRAPHS}
