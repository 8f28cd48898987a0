"""Random inputs of a graph, as a running stream might give them: what engines are compared on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contract import GraphSpec, TensorSpec

_LEAST_WEIGHT = 0.05
_MOST_TICKS = 30
_SHARE_OF_TRUE = 0.7


def example_inputs(
    graph: GraphSpec, axis: int, rng: np.random.Generator, vocabulary: int
) -> dict[str, NDArray[Any]]:
    """Random inputs that fulfil the contract.

    Token masks are prefixes of one token at least. Of the rings any number of slots is filled, each tick's age once. What is
    no state is normally distributed.

    Args:
        graph: whose inputs.
        axis: size of its dynamic axis.
        rng: where the numbers come from.
        vocabulary: token ids are below this.
    """
    return {spec.name: _example(spec, axis, rng, vocabulary) for spec in graph.inputs}


def _example(spec: TensorSpec, axis: int, rng: np.random.Generator, vocabulary: int) -> NDArray[Any]:
    shape = [axis if isinstance(size, str) else size for size in spec.shape]
    if spec.name == "token_ids":
        return rng.integers(0, vocabulary, shape, np.int64)
    if spec.name == "token_mask":
        return np.arange(shape[1]) < rng.integers(1, shape[1] + 1, (shape[0], 1))
    if spec.name == "ring_age":
        filled = int(rng.integers(0, shape[1] + 1))
        ages = np.zeros(shape, np.int64)
        ages[:, :filled] = rng.permutation(filled) + 1
        return ages
    if spec.name == "memory_count":
        return rng.integers(0, _MOST_TICKS, shape, np.int64)
    if spec.name == "memory_weight":
        return np.maximum(rng.random(shape, np.float32), np.float32(_LEAST_WEIGHT))
    if spec.dtype == "bool":
        return rng.random(shape) < _SHARE_OF_TRUE
    return rng.standard_normal(shape, np.float32).astype(spec.dtype, copy=False)
