"""Simplified graphs, by onnxslim: constants folded, paddings fused into convolutions, transposes that cancel removed."""

from __future__ import annotations

import onnx
import onnxslim

from .compact import widen_half

_LARGEST_FOLDED_BYTES = 262_144
"""A constant that folding would make larger than this is computed when the graph is loaded: weights keep their short form."""


def simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that computes the same in fewer nodes.

    Raises:
        onnx.checker.ValidationError: what came out is no valid graph.
    """
    slim: onnx.ModelProto = onnxslim.slim(proto, size_threshold=_LARGEST_FOLDED_BYTES)
    onnx.checker.check_model(slim, full_check=True)
    return slim


def prepare(data: bytes) -> onnx.ModelProto:
    """A bundle's graph as conversions to a lower precision start from it: weights in float32, simplified, all shapes inferred."""
    proto = onnx.load_from_string(data)
    widen_half(proto)
    return onnx.shape_inference.infer_shapes(simplify(proto), strict_mode=True)
