"""A graph in float16 with float32 inputs and outputs, by ONNX Runtime's own converter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from .simplify import prepare

_NO_HALF = ["Range"]
"""Operators that ONNX does not define, or runtimes do not run, in float16."""
_HALF_LARGEST = 65_504.0
_BEST_DB, _WORST_DB = 73.0, -73.0
"""A tensor rounded to float16's 11 bits has about the former; where an infinity or NaN came up, it has the latter."""


def to_half(data: bytes, keep: Collection[str] = ()) -> bytes:
    """The graph in float16.

    Args:
        data: a serialised float32 graph.
        keep: names of nodes that stay in float32.

    Returns:
        A serialised graph with the same inputs and outputs, checked by `onnx.checker`.
    """
    proto = prepare(data)
    logging.disable(
        logging.WARNING
    )  # it tells of constants beyond float16, such as those that mask; they are cut
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            half = convert_float_to_float16(
                proto,
                keep_io_types=True,
                op_block_list=_NO_HALF,
                node_block_list=list(keep),
                max_finite_val=_HALF_LARGEST,
            )
    finally:
        logging.disable(logging.NOTSET)

    sorter = OnnxModel(half)
    sorter.topological_sort()
    _skip_round_trips(sorter.model)
    onnx.checker.check_model(sorter.model, full_check=True)
    converted: bytes = sorter.model.SerializeToString()
    return converted


def _skip_round_trips(proto: onnx.ModelProto) -> None:
    """Let a node that is kept read another that is kept directly: the converter casts between them to float16 and back."""
    known = onnx.shape_inference.infer_shapes(proto).graph
    floats = {
        value.name
        for value in (*known.input, *known.value_info)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    narrowed = {
        node.output[0]: node.input[0]
        for node in proto.graph.node
        if _casts_to(node, TensorProto.FLOAT16) and node.input[0] in floats  # a mask or a count stays one
    }
    direct = {
        node.output[0]: narrowed[node.input[0]]
        for node in proto.graph.node
        if _casts_to(node, TensorProto.FLOAT) and node.input[0] in narrowed
    }
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = direct.get(name, name)
    read = {name for node in proto.graph.node for name in node.input} | {x.name for x in proto.graph.output}
    nodes = [node for node in proto.graph.node if not read.isdisjoint(node.output)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == kind


def rounded(data: bytes) -> bytes:
    """A float16 graph in float32, with every tensor that was float16 rounded to it as it leaves its node.

    It gives what hardware gives that forms products and sums of float16 in float32. A CPU without kernels of float16 does not
    show that by running the graph itself: ONNX Runtime then computes chains of nodes in float32 and rounds at their ends alone.

    Args:
        data: what `to_half` made.
    """
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), strict_mode=True)
    halves = {
        value.name
        for value in proto.graph.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
            )
    nodes = []
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32))
                )
        nodes.append(node)
        for i, name in enumerate(node.output):
            if name in halves:
                node.output[i] = f"{name}.exact"
                nodes.append(
                    helper.make_node("Cast", [f"{name}.exact"], [f"{name}.half"], to=TensorProto.FLOAT16)
                )
                nodes.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    serialised: bytes = proto.SerializeToString()
    return serialised


def count_nodes(data: bytes) -> int:
    """How many nodes of a graph could be converted."""
    return len(prepare(data).graph.node)


def rank_nodes(data: bytes, samples: Sequence[Mapping[str, NDArray[Any]]]) -> list[tuple[str, float]]:
    """Nodes by the accuracy that is lost at each when the whole graph is in float16.

    Every tensor of the float16 graph (`rounded`) is compared with the float32 graph's on real inputs. What a
    node loses is the signal-to-noise ratio of its least accurate input less that of its output: an overflow, a difference of
    like numbers, a sum that is too long.

    Returns:
        (node name, loss in dB), the largest loss first; nodes that lose nothing are left out.
    """
    proto = prepare(data)
    exact = _all_tensors(proto.SerializeToString(), samples)
    lossy = _all_tensors(rounded(to_half(data)), samples)
    ratio = {name: _signal_to_noise(exact[name], lossy[name]) for name in exact if name in lossy}
    losses = []
    for node in proto.graph.node:
        outputs = [ratio[name] for name in node.output if name in ratio]
        inputs = [ratio[name] for name in node.input if name in ratio]
        if outputs and (loss := min(inputs, default=_BEST_DB) - min(outputs)) > 0:
            losses.append((node.name, loss))
    return sorted(losses, key=lambda pair: -pair[1])


def _all_tensors(
    data: bytes, samples: Sequence[Mapping[str, NDArray[Any]]]
) -> dict[str, list[NDArray[np.float32]]]:
    """Every float32 tensor of a graph by name, sample by sample."""
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), strict_mode=True)
    known = {value.name: value for value in proto.graph.value_info}
    outputs = {value.name for value in proto.graph.output}
    for node in proto.graph.node:
        for name in node.output:
            if (
                name in known
                and name not in outputs
                and known[name].type.tensor_type.elem_type == TensorProto.FLOAT
            ):
                proto.graph.output.append(known[name])
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_outputs()]
    tensors: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for sample in samples:
        for name, value in zip(names, session.run(names, sample), strict=True):
            tensors[name].append(value)
    return tensors


def _signal_to_noise(exact: list[NDArray[np.float32]], other: list[NDArray[np.float32]]) -> float:
    """In dB over all samples. Infinity in float32 counts as float16's largest number, which its constants become."""
    signal = noise = 0.0
    for ours, theirs in zip(exact, other, strict=True):
        masked = np.isinf(ours)
        a, b = (
            np.where(masked, np.clip(x, -_HALF_LARGEST, _HALF_LARGEST), x).astype(np.float64)
            for x in (ours, theirs)
        )
        signal += float(np.square(a).sum())
        noise += float(np.square(a - b).sum())
    if noise == 0:
        return _BEST_DB
    if not np.isfinite(noise) or signal == 0:
        return _WORST_DB
    return float(np.clip(10 * np.log10(signal / noise), _WORST_DB, _BEST_DB))
