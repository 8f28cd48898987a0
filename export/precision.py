"""Graphs of a lower precision that give the same masks: measured on real clips, with the layers kept that cost accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refavs_rt.bundle import Bundle, BundleError, graph_file
from refavs_rt.config import RunConfig
from refavs_rt.contract import GRAPHS
from refavs_rt.session import Model

from .agreement import mask_iou, stream_masks
from .engine_graph import engine_graph
from .graphs_engine import GraphsEngine, RecordingEngine
from .half import count_nodes, rank_nodes, rounded, to_half
from .int8 import Quantiser, Sample
from .material import Clip, count_frames, spread
from .search import PrecisionError, fewest_kept

PRECISIONS = ("fp32", "fp16", "int8")
MIN_AGREEMENT = {"fp16": 0.995, "int8": 0.97}
"""Mask agreement that is asked for where the user does not say."""
_SAMPLES = 24
"""Runs of each graph whose inputs are recorded."""
_RANKING_SAMPLES = 3
_QUANTISED_GRAPHS = ("vision", "audio", "step")
"""The sentence encoder runs once a sentence and its weights are int8 already."""

Layer = tuple[str, str]
"""(graph, name of a layer)"""


@dataclass(frozen=True)
class LowerPrecision:
    """What became of a bundle's graphs."""

    graphs: dict[str, bytes]
    kept: dict[str, list[str]]
    """Graph -> its layers that stayed in float32, those that would do the most harm first."""
    layers: dict[str, int]
    """Graph -> how many layers could have changed."""
    agreement: float
    """IoU of all masks on the checked frames with those of the graphs it was made from."""
    frames: int

    def to_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "kept_in_float32": self.kept,
            "layers": self.layers,
            "mask_agreement": self.agreement,
            "frames": self.frames,
        }


def lower_precision(
    precision: str,
    bundle: Bundle,
    calibration: Sequence[Clip],
    checked: Sequence[Clip],
    min_agreement: float,
    say: Callable[[str], None],
) -> LowerPrecision:
    """Convert a float32 bundle's graphs.

    Args:
        precision: "fp16" or "int8".
        calibration: clips for the ranges of activations and the ranking of layers.
        checked: other clips; both precisions run them with memories of their own, and all their masks are compared.
        min_agreement: the IoU that must be reached.
        say: told of each stage.

    Raises:
        PrecisionError: the agreement is not reached, or there is no mask to agree with.
    """
    run = RunConfig()
    graphs = {name: bundle.read(graph_file(name)) for name in GRAPHS}
    exact = GraphsEngine(bundle.config, graphs)
    say(f"running {count_frames(calibration) + count_frames(checked)} frames in float32")
    every = math.ceil(count_frames(calibration) / _SAMPLES)
    recording = RecordingEngine(exact, bundle.config, every)
    stream_masks(Model(bundle, recording, run), calibration)
    reference = stream_masks(Model(bundle, exact, run), checked)
    if not any(masks.any() for masks in reference):
        raise PrecisionError(
            f"float32 shows no mask on any of the {count_frames(checked)} frames that are checked, so {precision} cannot be held"
            " against it; give clips whose sentences fit (--calibration DATA), or train the model longer"
        )
    say(f"converting to {precision}")
    kinds: dict[str, type[_Half | _Int8]] = {"fp16": _Half, "int8": _Int8}
    conversion = kinds[precision](bundle, graphs, recording.inputs)

    def agreement(kept: Sequence[Layer]) -> float:
        found = 1.0
        for engine in conversion.engines(conversion.graphs(kept)):
            try:
                masks = stream_masks(Model(bundle, engine, run), checked)
            except BundleError:  # it overflows: no mask is as it was
                found = 0.0
                break
            found = min(found, mask_iou(masks, reference))
            if found < min_agreement:
                break
        say(f"{precision} with {len(kept)} layers kept in float32: mask agreement {found:.4f}")
        return found

    kept: Sequence[Layer] = ()
    if (reached := agreement(kept)) < min_agreement:
        say(f"ranking {sum(conversion.layers.values())} layers by the harm that each does alone")
        kept, reached = fewest_kept(conversion.ranked(), agreement, min_agreement)
    names = {graph: _of(graph, kept) for graph in GRAPHS}
    return LowerPrecision(conversion.graphs(kept), names, conversion.layers, reached, count_frames(checked))


class _Half:
    """float16, node by node."""

    def __init__(
        self, bundle: Bundle, graphs: Mapping[str, bytes], samples: Mapping[str, Sequence[Sample]]
    ) -> None:
        self._bundle = bundle
        self._graphs = graphs
        self._samples = samples
        self._without = {name: to_half(data) for name, data in graphs.items()}
        self.layers = {name: count_nodes(data) for name, data in graphs.items()}

    def ranked(self) -> list[Layer]:
        losses = [
            (loss, (graph, node))
            for graph, data in self._graphs.items()
            for node, loss in rank_nodes(data, spread(self._samples[graph], _RANKING_SAMPLES))
        ]
        return [layer for _, layer in sorted(losses, key=lambda pair: -pair[0])]

    def graphs(self, kept: Sequence[Layer]) -> dict[str, bytes]:
        return {
            name: to_half(data, names) if (names := _of(name, kept)) else self._without[name]
            for name, data in self._graphs.items()
        }

    def engines(self, graphs: Mapping[str, bytes]) -> Iterator[GraphsEngine]:
        yield GraphsEngine(self._bundle.config, {name: rounded(data) for name, data in graphs.items()})


class _Int8:
    """Static int8, layer by layer."""

    def __init__(
        self, bundle: Bundle, graphs: Mapping[str, bytes], samples: Mapping[str, Sequence[Sample]]
    ) -> None:
        self._bundle = bundle
        self._graphs = graphs
        self._samples = samples
        self._exact = GraphsEngine(bundle.config, graphs)
        self._quantisers = {name: Quantiser(graphs[name], samples[name]) for name in _QUANTISED_GRAPHS}
        self.layers = {name: len(x.units) for name, x in self._quantisers.items()}

    def ranked(self) -> list[Layer]:
        """By the noise that quantising each layer alone brings into the mask logits."""
        frames = spread(
            range(min(len(self._samples[graph]) for graph in _QUANTISED_GRAPHS)), _RANKING_SAMPLES
        )
        exact = self._mask_logits(self._exact, frames)
        noises = []
        for graph, quantiser in self._quantisers.items():
            for unit in quantiser.units:
                one = {**self._graphs, graph: quantiser.quantise(quantiser.units.keys() - {unit})}
                engine = GraphsEngine(self._bundle.config, one, base=self._exact)
                difference = self._mask_logits(engine, frames) - exact
                noises.append((float(np.square(difference).sum()), (graph, unit)))
        return [layer for _, layer in sorted(noises, key=lambda pair: -pair[0])]

    def _mask_logits(self, engine: GraphsEngine, frames: Sequence[int]) -> NDArray[np.float32]:
        """Of recorded frames, whose memory is that of float32."""
        logits = []
        for index in frames:
            present = engine.vision(self._samples["vision"][index])
            present |= engine.audio(self._samples["audio"][index])
            outputs = engine.step({**self._samples["step"][index], **present})
            logits.append(np.ravel(outputs["mask_logits"]))
        return np.concatenate(logits)

    def graphs(self, kept: Sequence[Layer]) -> dict[str, bytes]:
        return {
            name: self._quantisers[name].quantise(_of(name, kept)) if name in self._quantisers else data
            for name, data in self._graphs.items()
        }

    def engines(self, graphs: Mapping[str, bytes]) -> Iterator[GraphsEngine]:
        yield GraphsEngine(self._bundle.config, graphs)
        engines = {name: engine_graph(data) for name, data in graphs.items()}
        yield GraphsEngine(self._bundle.config, engines)


def _of(graph: str, layers: Sequence[Layer]) -> list[str]:
    return [name for owner, name in layers if owner == graph]
