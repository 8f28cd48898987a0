"""Folding and half storage: the same function, fewer bytes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from refavs_rt.export.compact import fold, store_half
from refavs_rt.model.efficientnet import EfficientNetLite0, TinyBackbone, imagenet_state


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def test_folding_keeps_the_published_backbones_maps(picture: torch.Tensor) -> None:
    """In float64 folding alone is exact; what is left is float16's 11 bits of each weight, over 16 blocks."""
    torch.manual_seed(0)
    model = EfficientNetLite0().double().eval()
    model.load_state_dict(imagenet_state())
    with torch.no_grad():
        before = model(picture.double())
        fold(model)
        after = model(picture.double())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    for a, b in zip(before, after, strict=True):
        assert float((a - b).norm() / a.norm()) < 5e-3
        assert not torch.equal(a, b)


def test_weights_are_what_float16_holds() -> None:
    model = EfficientNetLite0().eval()
    fold(model)
    for name, weight in model.named_parameters():
        if name.endswith("conv.weight"):
            assert torch.equal(weight, weight.half().float()), name


def test_a_backbone_without_norms_is_rounded(picture: torch.Tensor) -> None:
    model = TinyBackbone((4, 6, 8, 8)).eval()
    fold(model)
    weight = model.stages[0].weight
    assert torch.equal(weight, weight.half().float())


def test_only_what_float16_holds_is_stored_so() -> None:
    """One weight is exact in float16, one is not, one too large for it, one small."""
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(40, 40)).astype(np.float16).astype(np.float32)
    weights = {
        "exact": exact,
        "inexact": exact + np.float32(1e-5),
        "large": exact + np.float32(1e6),
        "small": exact[:2, :2],
    }
    nodes = [helper.make_node("ReduceSum", [name], [f"sum_{name}"], keepdims=0) for name in weights]
    nodes.append(helper.make_node("Sum", [f"sum_{name}" for name in weights] + ["x"], ["y"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [])],
        [value("y", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    before, size = run(proto), proto.ByteSize()
    store_half(proto)
    onnx.checker.check_model(proto, full_check=True)
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    assert kinds == {
        "exact.half": TensorProto.FLOAT16,
        "inexact": TensorProto.FLOAT,
        "large": TensorProto.FLOAT,
        "small": TensorProto.FLOAT,
    }
    assert size - proto.ByteSize() > 0.9 * 2 * exact.size
    assert run(proto) == before


def run(proto: onnx.ModelProto) -> float:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return float(session.run(["y"], {"x": np.array(2, np.float32)})[0])
