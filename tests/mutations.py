"""Seeded changes of bytes and of ONNX graphs, for the fuzz of bundles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

INTEGERS = [
    -1,
    0,
    1,
    2,
    3,
    5,
    7,
    64,
    1_000,
    65_536,
    2**31 - 1,
    2**31,
    2**40,
    2**62,
    2**63 - 1,
    -2,
    -(2**31),
    -(2**63),
]
FLOATS = [0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan")]


def change_bytes(data: bytes, places: np.ndarray[Any, Any], draw: np.random.Generator) -> tuple[bytes, str]:
    """Flip, cut, insert, leave out or copy bytes, beginning at one of `places`; never what leaves all as it was."""
    while True:
        at = int(draw.choice(places))
        length = int(draw.choice([1, 1, 2, 8, 100]))
        action = str(
            draw.choice(["flip", "flip", "flip", "set", "cut", "insert", "leave out", "copy", "zero", "full"])
        )
        changed = bytearray(data)
        if action == "flip":
            for place in [at, *draw.choice(places, int(draw.choice([0, 0, 3])))]:
                changed[place] ^= 1 << int(draw.integers(8))
        elif action == "set":
            changed[at] = int(draw.integers(256))
        elif action == "cut":
            del changed[at:]
        elif action == "insert":
            changed[at:at] = draw.bytes(length)
        elif action == "leave out":
            del changed[at : at + length]
        elif action == "copy":
            start = int(draw.choice(places))
            changed[at : at + length] = data[start : start + length]
        else:
            changed[at : at + length] = (b"\0" if action == "zero" else b"\xff") * length
        if changed != data:
            return bytes(changed), f"{action} at {at}, {length} bytes"


def structure(data: bytes) -> np.ndarray[Any, Any]:
    """Positions in a graph that are not in the data of a large tensor."""
    is_structure = np.ones(len(data), np.bool_)
    for tensor in onnx.load_from_string(data).graph.initializer:
        if len(tensor.raw_data) > 64:
            start = data.find(tensor.raw_data)
            is_structure[start : start + len(tensor.raw_data)] = False
    return np.flatnonzero(is_structure)


def change_graph(data: bytes, draw: np.random.Generator) -> tuple[bytes, str]:
    """One to three changes of fields."""
    model = onnx.load_from_string(data)
    changes: list[Callable[[onnx.ModelProto, np.random.Generator], str]] = [
        _change_attribute,
        _change_attribute,
        _change_node,
        _change_node,
        _change_tensor,
        _change_tensor,
        _change_constant,
        _change_value,
        _change_head,
    ]
    what = [
        changes[int(draw.integers(len(changes)))](model, draw)
        for _ in range(int(draw.choice([1, 1, 1, 2, 3])))
    ]
    return model.SerializeToString(), "; ".join(what)


def _change_attribute(model: onnx.ModelProto, draw: np.random.Generator) -> str:
    nodes = [node for node in model.graph.node if node.attribute]
    node = nodes[int(draw.integers(len(nodes)))]
    attribute = node.attribute[int(draw.integers(len(node.attribute)))]
    if draw.random() < 0.1:
        node.attribute.remove(attribute)
        return f"{node.op_type} {node.name}: an attribute removed"
    new: Any = INTEGERS[int(draw.integers(len(INTEGERS)))]
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = new
    elif attribute.type == onnx.AttributeProto.INTS:
        if attribute.ints and draw.random() < 0.8:
            attribute.ints[int(draw.integers(len(attribute.ints)))] = new
        else:
            attribute.ints.append(new)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        new = attribute.f = FLOATS[int(draw.integers(len(FLOATS)))]
    elif attribute.type == onnx.AttributeProto.STRING:
        new = attribute.s = [b"", b"x", b"\xff", b"cubic", b"SAME_UPPER", b"reflect"][int(draw.integers(6))]
    else:
        new = "unchanged"
    return f"{node.op_type} {node.name}: {attribute.name} {new}"


def _change_node(model: onnx.ModelProto, draw: np.random.Generator) -> str:
    nodes = model.graph.node
    index = int(draw.integers(len(nodes)))
    node, other = nodes[index], nodes[int(draw.integers(len(nodes)))]
    names = [name for each in nodes for name in each.output] + [x.name for x in model.graph.initializer]
    name = names[int(draw.integers(len(names)))]
    action = str(
        draw.choice(
            ["operator", "any operator", "rewire", "rewire", "input", "output", "delete", "double", "move"]
        )
    )
    what = f"{node.op_type} {node.name}: {action}"
    if action == "operator":
        node.op_type = other.op_type
    elif action == "any operator":
        schemas = [x.name for x in onnx.defs.get_all_schemas()]
        node.op_type = schemas[int(draw.integers(len(schemas)))]
    elif action == "rewire" and node.input:
        node.input[int(draw.integers(len(node.input)))] = name if draw.random() < 0.9 else ""
        return f"{what} to {name}"
    elif action == "input":
        node.input.append(name)
    elif action == "output":
        node.output[0] = name
    elif action == "delete":
        del nodes[index]
    elif action == "double":
        nodes.add().CopyFrom(node)
    elif action == "move":
        node.CopyFrom(other)
    return f"{what} {node.op_type}"


def _change_tensor(model: onnx.ModelProto, draw: np.random.Generator) -> str:
    """An initialiser of another shape or type, whose data still have its size."""
    tensors = model.graph.initializer
    tensor = tensors[int(draw.integers(len(tensors)))]
    size = len(tensor.raw_data)
    action = str(
        draw.choice(["reverse", "flatten", "axis", "empty", "scalar", "type", "double", "large", "noise"])
    )
    if action == "reverse":
        tensor.dims[:] = list(tensor.dims)[::-1]
    elif action == "flatten":
        tensor.dims[:] = [int(np.prod(tensor.dims))]
    elif action == "axis":
        tensor.dims.insert(int(draw.integers(len(tensor.dims) + 1)), 1)
    elif action == "empty":
        tensor.dims[:] = [0, *tensor.dims][: max(1, len(tensor.dims))]
        tensor.raw_data = b""
    elif action == "scalar":
        item = size // max(1, int(np.prod(tensor.dims)))
        tensor.dims[:] = []
        tensor.raw_data = tensor.raw_data[:item]
    elif action == "type":
        same = {1: [6, 12], 7: [11, 13], 11: [7, 13], 6: [1], 9: [2, 3], 3: [2, 9], 2: [3], 10: [4, 5, 16]}
        kinds = same.get(tensor.data_type, [1])
        tensor.data_type = kinds[int(draw.integers(len(kinds)))]
    elif action == "double":
        tensors.add().CopyFrom(tensor)
    elif action == "large" and len(tensor.dims):
        tensor.dims[0] *= 7
        tensor.raw_data = tensor.raw_data * 7
    else:
        tensor.raw_data = draw.bytes(size)
    return f"tensor {tensor.name}: {action}"


def _change_constant(model: onnx.ModelProto, draw: np.random.Generator) -> str:
    """Another number where a graph says shapes, axes and positions."""
    tensors = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT64 and t.raw_data]
    if not tensors:
        return "no integers"
    tensor = tensors[int(draw.integers(len(tensors)))]
    values = np.frombuffer(tensor.raw_data, np.int64).copy()
    index, new = int(draw.integers(len(values))), INTEGERS[int(draw.integers(len(INTEGERS)))]
    values[index] = new
    tensor.raw_data = values.tobytes()
    return f"tensor {tensor.name}: {new} at {index}"


def _change_value(model: onnx.ModelProto, draw: np.random.Generator) -> str:
    """An input, or an output, declared otherwise."""
    values = [*model.graph.input, *model.graph.output]
    value = values[int(draw.integers(len(values)))]
    kind = value.type.tensor_type
    if draw.random() < 0.3 or not kind.shape.dim:
        kind.elem_type = int(draw.integers(20))
        return f"value {value.name}: of type {kind.elem_type}"
    axis = kind.shape.dim[int(draw.integers(len(kind.shape.dim)))]
    if draw.random() < 0.4:
        axis.dim_param = str(draw.choice(["N", "B", "x", ""]))
    else:
        axis.dim_value = INTEGERS[int(draw.integers(len(INTEGERS)))]
    return f"value {value.name}: an axis {axis.dim_param or axis.dim_value}"


def _change_head(model: onnx.ModelProto, draw: np.random.Generator) -> str:
    action = int(draw.integers(5))
    if action == 0:
        model.ir_version = int(draw.integers(20))
    elif action == 1:
        model.opset_import[0].version = int(draw.integers(1, 45))
    elif action == 2:
        model.opset_import.add().domain = "com.microsoft"
    elif action == 3:
        del model.graph.output[0]
    else:
        model.graph.input.pop()
    return f"head: {action}"
