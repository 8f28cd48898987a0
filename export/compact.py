"""Smaller graphs: the frozen backbone's batch norms are folded into its convolutions, whose weights are stored as float16.

The network in torch is changed first (`fold`), so that what is compared with the graphs is what they hold; then each weight that
float16 holds exactly is stored so in the graph (`store_half`). Runtimes widen it once, when they load the graph.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_SMALL = 1_024
"""Weights with fewer values stay as they are."""


def fold(backbone: nn.Module) -> None:
    """Fold every batch norm that follows a convolution into it, and round the weights to float16, in place.

    A norm follows the convolution that was registered just before it in the same module; a backbone without norms is only
    rounded. Folding changes no result but for rounding; so does float16: weights keep 11 bits.
    """
    for module in list(backbone.modules()):
        previous: tuple[str, nn.Conv2d] | None = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d) and previous is not None:
                setattr(module, previous[0], fuse_conv_bn_eval(previous[1], child))
                setattr(module, name, nn.Identity())
            previous = (name, child) if isinstance(child, nn.Conv2d) else None
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(module.weight.half().float())


def store_half(proto: onnx.ModelProto) -> None:
    """Store in place, as float16 and a Cast, each large float32 weight that float16 holds exactly."""
    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or int(np.prod(tensor.dims)) < _SMALL:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def widen_half(proto: onnx.ModelProto) -> None:
    """Undo `store_half` in place: every float16 constant that a Cast widens becomes a float32 constant."""
    halves = {t.name: t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    kept = []
    for node in proto.graph.node:
        if node.op_type == "Cast" and node.input[0] in halves:
            tensor = halves[node.input[0]]
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), node.output[0])
            )
        else:
            kept.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
