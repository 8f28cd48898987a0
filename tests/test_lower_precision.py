"""Conversion to float16 and int8: the arithmetic, which layers stay, and what TensorRT is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from refavs_rt.config import TEST
from refavs_rt.contract import GRAPHS, graph_specs
from refavs_rt.examples import example_inputs
from refavs_rt.export.compact import store_half, widen_half
from refavs_rt.export.engine_graph import engine_graph
from refavs_rt.export.half import rank_nodes, rounded, to_half
from refavs_rt.export.int8 import Quantiser
from refavs_rt.export.simplify import prepare

from .tiny_bundle import tiny_files

RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def graph(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[Any]], shape: list[int]) -> bytes:
    """A model from `x` of `shape` to `y`."""
    made = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString()
    return serialised


def run(data: bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    result: NDArray[np.float32] = ort.InferenceSession(data, options).run(None, {"x": x})[0]
    return result


def convolution() -> tuple[bytes, dict[str, NDArray[Any]]]:
    """Conv, Clip to [0, 6], MatMul with a constant."""
    constants: dict[str, NDArray[Any]] = {
        "w": (RNG.normal(size=(5, 3, 3, 3)) * 10.0 ** np.arange(-2, 3)[:, None, None, None]).astype(
            np.float32
        ),
        "b": RNG.normal(size=5).astype(np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
        "m": RNG.normal(size=(7, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c", "low", "high"], ["a"], "clip"),
        helper.make_node("MatMul", ["a", "m"], ["y"], "matmul"),
    ]
    return graph(nodes, constants, [1, 3, 9, 7]), constants


def samples(count: int = 6) -> list[dict[str, NDArray[Any]]]:
    return [{"x": RNG.normal(size=(1, 3, 9, 7)).astype(np.float32)} for _ in range(count)]


def dequantised(proto: onnx.ModelProto, name: str) -> NDArray[np.float64]:
    """The value of a DequantizeLinear of constants, by its definition."""
    constants = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer}
    (node,) = [n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == name]
    scale, zero = constants[node.input[1]], constants[node.input[2]]
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if scale.ndim:
        shape = [-1 if i == axis % constants[name].ndim else 1 for i in range(constants[name].ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return (constants[name] - zero) * scale


@pytest.mark.parametrize("name", GRAPHS)
def test_a_float16_graph_computes_what_float16_gives(name: str) -> None:
    """onnx's own evaluator computes every node in numpy's float16; `rounded` differs from it by sums of float32."""
    data = tiny_files()[f"{name}.onnx"]
    half = to_half(data)
    spec = graph_specs(TEST)[name]
    inputs = example_inputs(spec, 3, np.random.default_rng(1), TEST.text_vocabulary)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = ort.InferenceSession(rounded(half), options).run(None, inputs)
    exact = ort.InferenceSession(data, options).run(None, inputs)
    expected = ReferenceEvaluator(onnx.load_from_string(half)).run(None, inputs)
    for ours, theirs, wanted, output in zip(found, expected, exact, spec.outputs, strict=True):
        assert ours.dtype == np.float32, "inputs and outputs are the contract's"
        scale = float(np.sqrt(np.square(wanted).mean())) + 1e-3
        noise = float(np.sqrt(np.square(theirs - wanted).mean())) / scale
        assert noise < 0.05, output.name
        assert float(np.sqrt(np.square(ours - theirs).mean())) / scale < max(2e-3, 2 * noise), output.name


def test_float16_keeps_what_it_is_told_to_keep() -> None:
    data, _ = convolution()
    kinds = {
        node.name: value.type.tensor_type.elem_type
        for proto in [onnx.shape_inference.infer_shapes(onnx.load_from_string(to_half(data, ["conv"])))]
        for node in proto.graph.node
        for value in [*proto.graph.value_info, *proto.graph.output]
        if value.name == node.output[0]
    }
    assert kinds["conv"] == TensorProto.FLOAT
    assert kinds["clip"] == TensorProto.FLOAT16


def test_the_node_that_overflows_is_ranked_first_and_mended_by_keeping_it() -> None:
    constants: dict[str, NDArray[Any]] = {
        "big": np.array(3e4, np.float32),
        "w": np.full((4, 4), 1.0, np.float32),
        "small": np.array(1e-5, np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "plain"),
        helper.make_node("Mul", ["a", "big"], ["b"], "overflows"),
        helper.make_node("Mul", ["b", "small"], ["y"], "back"),
    ]
    data = graph(nodes, constants, [2, 4])
    x = np.abs(RNG.normal(size=(2, 4))).astype(np.float32) + 1
    wanted = (x.astype(np.float64) @ constants["w"]) * float(constants["big"]) * float(constants["small"])
    assert not np.isfinite(run(rounded(to_half(data)), x)).all(), "in float16 it is lost"
    ranking = [name for name, _ in rank_nodes(data, [{"x": x}])]
    assert ranking[0] == "overflows"
    np.testing.assert_allclose(run(rounded(to_half(data, ["overflows", "back"])), x), wanted, rtol=4e-3)


def test_weights_are_per_channel_to_half_a_step() -> None:
    data, constants = convolution()
    proto = onnx.load_from_string(Quantiser(data, samples()).quantise(()))
    names = {t.name for t in proto.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 4}
    (name,) = names
    step = np.abs(constants["w"]).max(axis=(1, 2, 3), keepdims=True) / 64  # 7 bits
    assert (np.abs(dequantised(proto, name) - constants["w"]) <= 0.501 * step).all()


def test_int8_is_near_float64_and_nearer_where_a_layer_is_kept() -> None:
    data, _ = convolution()
    quantiser = Quantiser(data, samples(24))
    assert set(quantiser.units) == {"conv", "matmul"}
    assert quantiser.units["conv"] == ("conv", "clip")
    x = samples(1)[0]["x"]
    exact = run(data, x).astype(np.float64)
    errors = {
        kept: float(np.abs(run(quantiser.quantise(kept), x) - exact).max())
        for kept in ((), ("conv",), ("conv", "matmul"))
    }
    assert 0 < errors["conv",] < errors[()] < 0.1 * np.abs(exact).max()
    assert errors["conv", "matmul"] < 1e-5 * np.abs(exact).max()


def test_sums_of_products_of_int8_do_not_saturate() -> None:
    """A CPU without VNNI adds two products of uint8 and int8 in 16 bits."""
    data = graph(
        [helper.make_node("MatMul", ["x", "m"], ["y"], "matmul")],
        {"m": np.ones((64, 8), np.float32)},
        [3, 64],
    )
    x = np.ones((3, 64), np.float32)  # the largest sample times the largest weight, 64 times
    quantised = Quantiser(data, [{"x": x}, {"x": 0 * x}]).quantise(())
    np.testing.assert_allclose(run(quantised, x), 64.0, rtol=0.02)


def test_tensorrt_is_given_int8_alone_and_no_zero_points() -> None:
    data, _ = convolution()
    quantised = Quantiser(data, samples(24)).quantise(())
    proto = onnx.load_from_string(engine_graph(quantised))
    onnx.checker.check_model(proto, full_check=True)
    kinds = {t.name: t for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = kinds[node.input[2]]
            assert zero.data_type == TensorProto.INT8
            assert not numpy_helper.to_array(zero).any()
    assert TensorProto.INT32 not in {t.data_type for t in kinds.values()}, "a bias is float32"
    assert "Clip" in {node.op_type for node in proto.graph.node}, (
        "no range from zero takes its place any more"
    )
    x = samples(1)[0]["x"]
    exact = run(data, x)
    assert np.abs(run(engine_graph(quantised), x) - exact).max() < 0.15 * np.abs(exact).max()


def test_the_engines_graph_of_float32_is_the_same_to_the_bit() -> None:
    data = tiny_files()["text.onnx"]
    inputs = example_inputs(graph_specs(TEST)["text"], 3, np.random.default_rng(0), TEST.text_vocabulary)
    before, after = (ort.InferenceSession(x).run(None, inputs) for x in (data, engine_graph(data)))
    for ours, theirs in zip(after, before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("convert", [lambda x: x, to_half], ids=["float32", "float16"])
def test_stored_halves_are_widened_to_what_they_were(convert: Callable[[bytes], bytes]) -> None:
    weights = RNG.normal(size=(64, 32)).astype(np.float16).astype(np.float32)
    data = graph([helper.make_node("MatMul", ["x", "w"], ["y"], "m")], {"w": weights}, [3, 64])
    proto = onnx.load_from_string(data)
    store_half(proto)
    assert [t.data_type for t in proto.graph.initializer] == [TensorProto.FLOAT16]
    x = RNG.normal(size=(3, 64)).astype(np.float32)
    np.testing.assert_array_equal(run(convert(proto.SerializeToString()), x), run(convert(data), x))
    widen_half(proto)
    np.testing.assert_array_equal(numpy_helper.to_array(proto.graph.initializer[0]), weights)
    assert [node.op_type for node in proto.graph.node] == ["MatMul"]


@pytest.mark.parametrize("name", GRAPHS)
def test_any_nodes_can_be_kept_and_all_of_them_are_the_float32_graph(name: str) -> None:
    """Masks, counts and int8 words are cast to float16 too, and must stay what they are where their reader is kept."""
    data = tiny_files()[f"{name}.onnx"]
    nodes = [node.name for node in prepare(data).graph.node]
    inputs = example_inputs(graph_specs(TEST)[name], 2, np.random.default_rng(2), TEST.text_vocabulary)
    exact = ort.InferenceSession(data).run(None, inputs)
    for share in (0.02, 0.3, 0.7):
        kept = [node for node in nodes if RNG.random() < share]
        ort.InferenceSession(rounded(to_half(data, kept))).run(None, inputs)
    for ours, wanted in zip(
        ort.InferenceSession(rounded(to_half(data, nodes))).run(None, inputs), exact, strict=True
    ):
        scale = float(np.abs(wanted).max()) + 1e-3
        np.testing.assert_allclose(ours, wanted, atol=2e-3 * scale, err_msg="weights alone are rounded")
