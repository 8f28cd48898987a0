"""The ONNX Runtime engine: torch's values on the contract's inputs, and graphs that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from refavs_rt.bundle import Bundle, BundleError, write_bundle
from refavs_rt.config import TEST
from refavs_rt.contract import GRAPHS, graph_specs
from refavs_rt.engines import ENGINES, EngineError, open_engine
from refavs_rt.engines.onnx import OnnxEngine
from refavs_rt.export.to_onnx import example_inputs

from .tiny_bundle import TRAINING, tiny_files, tiny_model, write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> OnnxEngine:
    return OnnxEngine(bundle, threads=1)


@pytest.mark.parametrize("axis", [1, 3, 8])
@pytest.mark.parametrize("graph", GRAPHS)
def test_outputs_are_torchs(engine: OnnxEngine, graph: str, axis: int) -> None:
    spec = graph_specs(TEST)[graph]
    inputs = example_inputs(spec, axis, torch.Generator().manual_seed(5), TEST.text_vocabulary)
    with torch.no_grad():
        expected = getattr(tiny_model(), graph)(*inputs)
    named = {x.name: value.numpy() for x, value in zip(spec.inputs, inputs, strict=True)}
    before = {name: values.copy() for name, values in named.items()}
    found = getattr(engine, graph)({**named, "something else": np.zeros(1)})
    assert list(found) == [x.name for x in spec.outputs]
    for x, reference in zip(spec.outputs, expected, strict=True):
        assert found[x.name].dtype == np.dtype(x.dtype)
        scale = max(1.0, float(reference.abs().max()))
        np.testing.assert_allclose(found[x.name], reference.numpy(), atol=2e-5 * scale, err_msg=x.name)
    for name, values in before.items():
        np.testing.assert_array_equal(named[name], values)


def test_inputs_may_be_any_view(engine: OnnxEngine) -> None:
    patch = np.random.default_rng(0).normal(size=(2, 64, 96)).astype(np.float32)
    sound = np.array([True, False, True, True])
    views = engine.audio({"log_mel": patch.transpose(0, 2, 1), "has_sound": sound[::2]})
    plain = engine.audio({"log_mel": patch.transpose(0, 2, 1).copy(), "has_sound": sound[::2].copy()})
    for name, values in plain.items():
        np.testing.assert_array_equal(views[name], values)


def test_engines_by_name(bundle: Bundle) -> None:
    assert set(ENGINES) >= {"auto", "onnx"}
    for name in ("auto", "onnx"):
        assert open_engine(name, bundle, threads=1).name == "onnx"
    with pytest.raises(EngineError, match="no engine 'tpu'; there are: auto, onnx"):
        open_engine("tpu", bundle)
    with pytest.raises(EngineError, match="threads must be 0 or more, not -1"):
        open_engine("onnx", bundle, threads=-1)


def changed(graph: str, what: str) -> bytes:
    """A graph that is sound in itself and does not fit the contract."""
    model = onnx.load_from_string(tiny_files()[f"{graph}.onnx"])
    first_out = model.graph.output[0]
    if what == "renamed output":
        for node in model.graph.node:
            node.output[:] = ["foreign" if name == first_out.name else name for name in node.output]
            node.input[:] = ["foreign" if name == first_out.name else name for name in node.input]
        first_out.name = "foreign"
    elif what == "extra input":
        model.graph.input.append(onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, [1]))
    elif what == "fixed axis":
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    elif what in ("other type", "other shape"):
        dtype = onnx.TensorProto.INT64 if what == "other type" else onnx.TensorProto.FLOAT
        model = onnx.helper.make_model(
            onnx.helper.make_graph(
                [onnx.helper.make_node("Cast", ["log_mel"], [f"audio_{x}"], to=dtype) for x in "qkv"],
                "audio",
                list(model.graph.input),
                [onnx.helper.make_tensor_value_info(f"audio_{x}", dtype, None) for x in "qkv"],
            ),
            opset_imports=[onnx.helper.make_opsetid("", 18)],
            ir_version=10,
        )
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("renamed output", "audio.onnx: output 'foreign' is not in the contract"),
        ("extra input", "audio.onnx: input 'extra' is not in the contract"),
        ("fixed axis", r"audio.onnx: input 'log_mel' has the shape \[2, 96, 64\], not \['B', 96, 64\]"),
        ("other type", r"audio.onnx: output 'audio_q' is tensor\(int64\), not tensor\(float\)"),
        ("other shape", r"audio.onnx: output 'audio_q' has the shape \['B', 96, 64\], not \['B', 16\]"),
    ],
)
def test_a_graph_that_does_not_fit_the_contract_is_refused(tmp_path: Path, what: str, message: str) -> None:
    files = {**tiny_files(), "audio.onnx": changed("audio", what)}
    bundle = write_bundle(tmp_path / "bundle", TEST, files, tools={}, training=TRAINING, parity={})
    with pytest.raises(BundleError, match=message):
        OnnxEngine(bundle, threads=1)


@pytest.mark.parametrize("data", [b"", b"no graph", b"\x08\x0a" * 50])
def test_bytes_that_are_no_graph_are_refused(tmp_path: Path, data: bytes) -> None:
    files = {**tiny_files(), "vision.onnx": data}
    bundle = write_bundle(tmp_path / "bundle", TEST, files, tools={}, training=TRAINING, parity={})
    with pytest.raises(BundleError, match="vision.onnx: not a graph that runs here"):
        OnnxEngine(bundle, threads=1)


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    data = bytearray(tiny_files()["step.onnx"])
    data[len(data) // 2] ^= 0xFF
    (bundle.path / "step.onnx").write_bytes(data)
    with pytest.raises(BundleError, match="step.onnx: damaged"):
        OnnxEngine(Bundle.open(bundle.path), threads=1)
