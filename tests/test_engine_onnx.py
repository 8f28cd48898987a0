"""The ONNX Runtime engine: torch's values on the contract's inputs, and graphs that do not fit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from refavs_rt.bundle import Bundle, BundleError, write_bundle
from refavs_rt.config import TEST
from refavs_rt.contract import GRAPHS, graph_specs
from refavs_rt.engines import ENGINES, EngineError, open_engine
from refavs_rt.engines.onnx import OnnxEngine
from refavs_rt.examples import example_inputs

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
    named = example_inputs(spec, axis, np.random.default_rng(5), TEST.text_vocabulary)
    with torch.no_grad():
        expected = getattr(tiny_model(), graph)(*(torch.from_numpy(named[x.name]) for x in spec.inputs))
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


def audio_graph(nodes: list[onnx.NodeProto], *constants: onnx.TensorProto) -> bytes:
    """An audio graph of the contract's names and shapes, in which `nodes` make `y`, which all outputs are."""
    model = onnx.load_from_string(tiny_files()["audio.onnx"])
    nodes = [*nodes, *(onnx.helper.make_node("Identity", ["y"], [f"audio_{x}"]) for x in "qkv")]
    graph = onnx.helper.make_graph(
        nodes, "audio", list(model.graph.input), list(model.graph.output), constants
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()


def engine_of(folder: Path, audio: bytes) -> OnnxEngine:
    files = {**tiny_files(), "audio.onnx": audio}
    return OnnxEngine(write_bundle(folder, TEST, files, tools={}, training=TRAINING, parity={}), threads=1)


SOUND = {"log_mel": np.ones((2, 96, 64), np.float32), "has_sound": np.array([True, False])}


def row_reader(row: int) -> bytes:
    """The mean of one row of the patch, sixteen times; there are 96 rows."""
    return audio_graph(
        [
            onnx.helper.make_node("Gather", ["log_mel", "rows"], ["picked"], axis=1),
            onnx.helper.make_node("ReduceMean", ["picked", "axes"], ["y"], keepdims=0),
        ],
        onnx.numpy_helper.from_array(np.full(16, row), "rows"),
        onnx.numpy_helper.from_array(np.array([2]), "axes"),
    )


def test_a_graph_that_fails_is_the_bundles_fault(tmp_path: Path) -> None:
    found = engine_of(tmp_path / "sound", row_reader(95)).audio(SOUND)
    np.testing.assert_array_equal(found["audio_k"], np.ones((2, 16), np.float32))
    with pytest.raises(
        BundleError, match=r"audio\.onnx: the graph failed \(.*\); export the bundle again"
    ) as caught:
        engine_of(tmp_path / "failing", row_reader(96)).audio(SOUND)
    assert "\n" not in str(caught.value)


def test_outputs_that_do_not_fit_the_contract_are_refused(tmp_path: Path) -> None:
    """The graph says that its outputs have a row a sound; they have two."""
    audio = audio_graph(
        [
            onnx.helper.make_node("Concat", ["log_mel", "log_mel"], ["both"], axis=0),
            onnx.helper.make_node("Gather", ["both", "rows"], ["picked"], axis=1),
            onnx.helper.make_node("ReduceMean", ["picked", "axes"], ["y"], keepdims=0),
        ],
        onnx.numpy_helper.from_array(np.zeros(16, np.int64), "rows"),
        onnx.numpy_helper.from_array(np.array([2]), "axes"),
    )
    with pytest.raises(
        BundleError, match=r"output 'audio_q' came as float32 \[4, 16\], not float32 \[2, 16\]; export"
    ):
        engine_of(tmp_path / "bundle", audio).audio(SOUND)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"log_mel": SOUND["log_mel"]}, KeyError, "has_sound"),
        ({**SOUND, "log_mel": SOUND["log_mel"][:, :95]}, ValueError, r"log_mel must be .*\[2, 96, 64\], not .*\[2, 95, 64\]"),
        ({**SOUND, "log_mel": SOUND["log_mel"].astype(np.float64)}, ValueError, "log_mel must be float32 .*, not float64"),
        ({**SOUND, "has_sound": np.array([True] * 3)}, ValueError, r"has_sound must be bool \[2\], not bool \[3\]"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_the_callers_fault(
    engine: OnnxEngine, inputs: dict[str, np.ndarray], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        engine.audio(inputs)


def test_messages_do_not_repeat_what_a_terminal_obeys(tmp_path: Path) -> None:
    audio = audio_graph([onnx.helper.make_node("Relu", ["\x1b[2J" + "x" * 5_000], ["y"])])
    with pytest.raises(BundleError, match=r"audio\.onnx: not a graph that runs here") as caught:
        engine_of(tmp_path / "bundle", audio)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1_000


def test_data_in_other_files_are_refused(tmp_path: Path) -> None:
    """Though ONNX Runtime would read them: the file is there, beside the bundle."""
    constant = onnx.numpy_helper.from_array(np.zeros((16,), np.float32), "y")
    (tmp_path / "secret").write_bytes(constant.raw_data)
    constant.ClearField("raw_data")
    constant.data_location = onnx.TensorProto.EXTERNAL
    entry = constant.external_data.add()
    entry.key, entry.value = "location", "../secret"
    with pytest.raises(BundleError, match=r"audio\.onnx: .*the data of 'y' are in another file"):
        engine_of(tmp_path / "bundle", audio_graph([], constant))


def test_onnx_runtimes_own_format_is_not_taken_for_a_graph(tmp_path: Path) -> None:
    """It would come past the reader of graphs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "audio.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(tiny_files()["audio.onnx"], options, providers=["CPUExecutionProvider"])
    data = (tmp_path / "audio.ort").read_bytes()
    assert data[4:8] == b"ORTM"
    with pytest.raises(BundleError, match=r"audio\.onnx: not a graph that runs here"):
        engine_of(tmp_path / "bundle", data)


def test_a_provider_that_does_not_start_is_not_left_out(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This ONNX Runtime is made to say that it has CUDA; it then runs without, and only warns."""
    available = [*ort.get_available_providers(), "CUDAExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: available)
    with warnings.catch_warnings(), pytest.raises(EngineError, match="left out CUDA.*onnxruntime-gpu"):
        warnings.simplefilter("ignore")
        OnnxEngine(bundle, threads=1, provider="cuda")
    real = ort.InferenceSession

    def fail(data: bytes, *args: Any, providers: list[str], **options: Any) -> Any:
        if len(providers) > 1:
            raise RuntimeError("no kernel\nfor this")
        return real(data, *args, providers=providers, **options)

    monkeypatch.setattr(ort, "InferenceSession", fail)
    with pytest.raises(EngineError, match=r"CUDAExecutionProvider does not run text\.onnx \(no kernel\)"):
        OnnxEngine(bundle, threads=1, provider="cuda")
