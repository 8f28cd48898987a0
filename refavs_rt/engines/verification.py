"""Whether an engine computes what ONNX Runtime computes of the same bundle.

Newer TensorRT is reported to get some graphs wrong in silence, so engines are believed on a device only after they were compared
there, once. The measure is the relative error of a whole tensor, |found - expected| / |expected| with root mean squares: masked
attention thresholds, so that single values may be far off where a logit is next to zero, but not the tensor.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..bundle import Bundle
from ..contract import GRAPHS, GraphSpec, graph_specs
from ..examples import example_inputs
from .base import Engine, EngineError

BOUNDS = {"fp32": 0.02, "fp16": 0.05, "int8": 0.25}
"""Precision of a graph -> the largest relative error of an output. A GPU may form float32 products with the 10 bits of TF32; int8
rounds to another step where a value lies between two."""
_LEAST = 1e-3
"""Root mean square below which an expected tensor counts as this large."""


def compare(
    engine: Engine,
    reference: Engine,
    bundle: Bundle,
    sizes: Mapping[str, Sequence[int]],
    precisions: Mapping[str, str],
) -> float:
    """Run both on random inputs.

    Args:
        engine: what is in question.
        reference: what is believed.
        bundle: whose graphs both run.
        sizes: graph -> the sizes of its dynamic axis to try.
        precisions: graph -> its precision, a name in `BOUNDS`.

    Returns:
        The largest relative error of any output.

    Raises:
        EngineError: an output is further off than its precision explains.
    """
    largest = 0.0
    for graph in GRAPHS:
        spec = graph_specs(bundle.config)[graph]
        for size in sizes[graph]:
            name, error = _worst(engine, reference, spec, size, bundle.config.text_vocabulary)
            if not error <= BOUNDS[precisions[graph]]:  # NaN is none
                raise EngineError(
                    f"{bundle.path}: on {engine.device} the {engine.name} engine of {graph} gives a wrong {name} for N = {size}: "
                    f"it is {error:.2g} off ONNX Runtime's (bound {BOUNDS[precisions[graph]]} for {precisions[graph]}); "
                    f"run it with --engine onnx, and report this"
                )
            largest = max(largest, error)
    return largest


class Verified:
    """A note in the user's cache folder that a bundle's engines were compared on a device.

    Args:
        bundle: whose.
        device: the GPU and what else the result depends on.
        folder: where notes are kept; None for the user's cache folder.
    """

    def __init__(self, bundle: Bundle, device: str, folder: Path | None = None) -> None:
        key = hashlib.sha256(f"{bundle.digest}\n{device}".encode()).hexdigest()[:32]
        self._device = device
        self._file = (folder or _cache_folder()) / f"{key}.json"

    def recall(self) -> float | None:
        """The largest relative error that was found; None if they were not compared yet."""
        try:
            note = json.loads(self._file.read_text())
            error = note["largest_error"] if note["device"] == self._device else None
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return error if isinstance(error, float) else None

    def remember(self, largest_error: float) -> None:
        """Write the note. Where that cannot be, they are compared again next time."""
        partial = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({"device": self._device, "largest_error": largest_error}) + "\n")
            partial.replace(self._file)


def _worst(
    engine: Engine, reference: Engine, spec: GraphSpec, size: int, vocabulary: int
) -> tuple[str, float]:
    """The output that is furthest off, and its relative error; one with NaN or infinity is the furthest."""
    inputs = example_inputs(spec, size, np.random.default_rng(size), vocabulary)
    found = getattr(engine, spec.name)(inputs)
    expected = getattr(reference, spec.name)(inputs)
    errors = {}
    for tensor in spec.outputs:
        ours = np.asarray(found[tensor.name], np.float64)
        theirs = np.asarray(expected[tensor.name], np.float64)
        difference = math.sqrt(np.square(ours - theirs).mean())
        error = difference / max(_LEAST, math.sqrt(np.square(theirs).mean()))
        errors[tensor.name] = error if math.isfinite(error) else math.inf
    name = max(errors, key=errors.__getitem__)
    return name, errors[name]


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base if base and os.path.isabs(base) else Path.home() / ".cache") / "refavs-rt" / "engines"
