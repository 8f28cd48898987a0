"""A bundle's ONNX graph in the form that TensorRT takes.

- Quantised values: TensorRT has int8 alone, and no zero points. A range [lo, hi] of uint8 becomes the symmetric range
  max(|lo|, |hi|) / 127; what follows a Relu keeps seven of its eight bits.
- Biases that the quantiser stored as int32 become float32 again; TensorRT quantises no bias.
- Constants of int8 that no DequantizeLinear reads are refused. The frozen sentence encoder keeps its weights so and widens them
  by a Cast; they are rewritten as float16, which holds each of their 255 levels exactly.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

_QUANTISED = ("QuantizeLinear", "DequantizeLinear")
_LARGEST_INT8 = 127


def engine_graph(data: bytes) -> bytes:
    """The graph as TensorRT takes it.

    Args:
        data: a serialised ONNX model.

    Returns:
        A serialised ONNX model, `data` itself where there is nothing to change. It computes the same to the bit where nothing
        is quantised.
    """
    proto = onnx.load_from_string(data)
    before = proto.SerializeToString(deterministic=True)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    quantised = [node for node in proto.graph.node if node.op_type in _QUANTISED]
    read = {name for node in quantised for name in node.input}
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and tensor.name not in read:
            _replace(tensor, numpy_helper.to_array(tensor).astype(np.float16))
    biases = [node for node in quantised if _type(node.input[0], constants) == TensorProto.INT32]
    for node in biases:
        _replace(constants[node.input[0]], _dequantised(node, constants))
        constants[node.input[0]].name = node.output[0]
        proto.graph.node.remove(node)
    asymmetric = [
        node
        for node in quantised
        if len(node.input) > 2 and _type(node.input[2], constants) == TensorProto.UINT8
    ]
    values = {
        node.input[0]: _dequantised(node, constants)
        for node in asymmetric
        if _type(node.input[0], constants) == TensorProto.UINT8
    }
    scales = {node.input[1]: constants[node.input[2]] for node in asymmetric}
    for name, zero in scales.items():
        _make_symmetric(constants[name], zero)
    for node in asymmetric:
        if node.input[0] in values:
            scale = numpy_helper.to_array(constants[node.input[1]])
            levels = np.clip(np.rint(values[node.input[0]] / scale), -_LARGEST_INT8, _LARGEST_INT8)
            _replace(constants[node.input[0]], levels.astype(np.int8))
    for name in {node.input[2] for node in asymmetric}:
        _replace(constants[name], np.zeros(constants[name].dims, np.int8))
    if proto.SerializeToString(deterministic=True) == before:
        return data
    _drop_unread(proto)
    return proto.SerializeToString()


def _drop_unread(proto: onnx.ModelProto) -> None:
    read = {name for node in proto.graph.node for name in node.input} | {x.name for x in proto.graph.output}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)


def _make_symmetric(scale: TensorProto, zero: TensorProto) -> None:
    step = numpy_helper.to_array(scale).astype(np.float64)
    zero_point = numpy_helper.to_array(zero).astype(np.float64)
    largest = step * np.maximum(zero_point, np.iinfo(np.uint8).max - zero_point)
    _replace(scale, (largest / _LARGEST_INT8).astype(numpy_helper.to_array(scale).dtype))


def _dequantised(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> NDArray[np.float32]:
    """The values of a constant that is read by `node`; a zero point beside a row of scales is a row of zeros."""
    values, scale, *zero = (numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input)
    return ((values - (zero[0] if zero and zero[0].ndim == 0 else 0.0)) * scale).astype(np.float32)


def _replace(tensor: TensorProto, values: NDArray[np.generic]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _type(name: str, constants: Mapping[str, TensorProto]) -> int | None:
    return constants[name].data_type if name in constants else None
