"""One suite for every engine that this machine can run, with torch as the oracle. TensorRT runs over stand-ins without a GPU."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from refavs_rt.bundle import TOKENIZER
from refavs_rt.config import TEST, RunConfig
from refavs_rt.contract import GRAPHS, graph_specs
from refavs_rt.engines import ENGINES, Engine, EngineError, open_engine
from refavs_rt.engines.base import TO_HOST, Held, is_constant
from refavs_rt.engines.torch import TorchEngine
from refavs_rt.examples import example_inputs
from refavs_rt.session import Model, load

from .engine_bundle import write_engine_bundle
from .tensorrt_double import FakeCuda, install
from .tiny_bundle import tiny_files, tiny_model, write_tiny_bundle

Arrays = dict[str, NDArray[Any]]
SPECS = graph_specs(TEST)
SIZES = [("text", 1), ("text", 5), ("vision", 1), ("audio", 1), ("step", 1), ("step", 3), ("step", 8)]


def _doubled(library: str) -> Callable[[Path, pytest.MonkeyPatch], Engine]:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Engine:
        install(patch, FakeCuda(86), library)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return open_engine("tensorrt", write_engine_bundle(folder / "bundle", record={"library": library}))

    return make


def _real(folder: Path, patch: pytest.MonkeyPatch) -> Engine:
    """Engines that TensorRT builds for the GPU of this machine."""
    from refavs_rt.bundle import EngineRecord, graph_file, write_bundle
    from refavs_rt.contract import contract_hash
    from refavs_rt.engines.cuda import local_capability
    from refavs_rt.export.to_tensorrt import BuildOptions, build_engine, find_target

    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    target, files, engines = find_target(["local"], local_capability), tiny_files(), {}
    for graph in GRAPHS:
        built = build_engine(files[graph_file(graph)], SPECS[graph], target, BuildOptions())
        engines[graph] = EngineRecord(
            file=f"{graph}.engine",
            library=target.library.name,
            version=target.library.version,
            capabilities=target.capabilities,
            precision="fp32",
            contract_hash=contract_hash(TEST),
            sentences=(1, 8),
            profiles=tuple(built.profiles),
            weights="included",
            hardware_compatible=False,
            version_compatible=False,
            verified=None,
        )
        files = {**files, f"{graph}.engine": built.data}
    return open_engine(
        "tensorrt",
        write_bundle(folder / "bundle", TEST, files, tools={}, training={}, parity={}, engines=engines),
    )


def _provided(name: str) -> Callable[[Path, pytest.MonkeyPatch], Engine]:
    def make(folder: Path, patch: pytest.MonkeyPatch) -> Engine:
        try:
            return open_engine(name, write_tiny_bundle(folder / "bundle"))
        except EngineError as error:
            pytest.skip(f"ONNX Runtime here: {error}")

    return make


MAKERS: dict[str, Callable[[Path, pytest.MonkeyPatch], Engine]] = {
    "onnx": lambda folder, patch: open_engine("onnx", write_tiny_bundle(folder / "bundle"), threads=1),
    "torch": lambda folder, patch: TorchEngine(tiny_model()),
    "torch on a GPU": lambda folder, patch: TorchEngine(copy.deepcopy(tiny_model()).to("cuda")),
    "tensorrt over stand-ins": _doubled("tensorrt"),
    "tensorrt_rtx over stand-ins": _doubled("tensorrt_rtx"),
    "tensorrt": _real,
    "onnx-cuda": _provided("onnx-cuda"),
    "onnx-tensorrt": _provided("onnx-tensorrt"),
}
ON_A_GPU = {"torch on a GPU", "tensorrt", "onnx-cuda", "onnx-tensorrt"}
TOLERANCE = {name: 5e-3 if name in ON_A_GPU else 2e-5 for name in MAKERS}
"""Of the largest value of a tensor; products on a GPU may have the 10 bits of TF32."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.gpu] if name in ON_A_GPU else []) for name in MAKERS],
)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Engine, float]]:
    """An engine, and how close it is to torch."""
    with pytest.MonkeyPatch.context() as patch:
        yield (
            MAKERS[request.param](tmp_path_factory.mktemp("engines"), patch),
            TOLERANCE[request.param],
        )


@pytest.fixture
def engine(made: tuple[Engine, float]) -> Engine:
    return made[0]


@pytest.fixture
def close(made: tuple[Engine, float]) -> Callable[[Arrays, Arrays], None]:
    """Asserts that outputs are the oracle's."""

    def check(found: Arrays, expected: Arrays) -> None:
        assert list(found) == list(expected)
        for name, reference in expected.items():
            scale = max(1.0, float(np.abs(reference).max()))
            off = np.abs(np.asarray(found[name]) - reference) / scale
            # Masked attention thresholds: a logit next to zero may flip on another device.
            worst = np.quantile(off, 0.98) if made[1] > 1e-4 and off.size > 100 else off.max()
            assert worst <= made[1], f"{name}: {worst}"

    return check


@torch.no_grad()
def oracle(graph: str, inputs: Arrays) -> Arrays:
    """The network's own functions."""
    spec = SPECS[graph]
    given = (torch.from_numpy(np.array(np.asarray(inputs[x.name]))) for x in spec.inputs)
    outputs = getattr(tiny_model(), graph)(*given)
    return {x.name: y.numpy() for x, y in zip(spec.outputs, outputs, strict=True)}


def example(graph: str, size: int, seed: int = 0) -> Arrays:
    return example_inputs(SPECS[graph], size, np.random.default_rng(seed), TEST.text_vocabulary)


@pytest.mark.parametrize(("graph", "size"), SIZES)
def test_outputs_are_torchs_in_the_contracts_types_and_shapes(
    engine: Engine, close: Callable[..., None], graph: str, size: int
) -> None:
    inputs = example(graph, size)
    before = {name: values.copy() for name, values in inputs.items()}
    found = getattr(engine, graph)({**inputs, "something else": np.zeros(1)})
    assert list(found) == [x.name for x in SPECS[graph].outputs]
    for x in SPECS[graph].outputs:
        shape = tuple(size if isinstance(axis, str) else axis for axis in x.shape)
        assert (found[x.name].shape, found[x.name].dtype) == (shape, np.dtype(x.dtype))
        if x.name in TO_HOST:
            assert isinstance(found[x.name], np.ndarray)
        values = np.asarray(found[x.name])
        assert (values.shape, values.dtype) == (shape, np.dtype(x.dtype))
    close(found, oracle(graph, inputs))
    for name, values in before.items():
        np.testing.assert_array_equal(inputs[name], values)


@pytest.mark.parametrize("graph", ["text", "step"])
def test_the_number_of_sentences_may_change_at_any_time(
    engine: Engine, close: Callable[..., None], graph: str
) -> None:
    for turn, size in enumerate([1, 3, 8, 2, 3, 1, 8, 3, 2, 1]):
        inputs = example(graph, size, turn)
        close(getattr(engine, graph)(inputs), oracle(graph, inputs))


@pytest.mark.parametrize(("graph", "size"), [("text", 2), ("vision", 1), ("audio", 1), ("step", 2)])
def test_the_same_inputs_give_the_same_bits(engine: Engine, graph: str, size: int) -> None:
    inputs = example(graph, size)
    first, *others = ({k: np.asarray(v) for k, v in getattr(engine, graph)(inputs).items()} for _ in range(4))
    for other in others:
        for name, values in first.items():
            np.testing.assert_array_equal(other[name], values)


@pytest.mark.parametrize(("graph", "size"), [("text", 2), ("vision", 1), ("audio", 1), ("step", 2)])
def test_later_runs_change_no_output(
    engine: Engine, close: Callable[..., None], graph: str, size: int
) -> None:
    """Also of those that nobody has looked at yet."""
    runs = [
        (inputs, getattr(engine, graph)(inputs)) for inputs in (example(graph, size, i) for i in range(4))
    ]
    for inputs, found in runs:
        close(found, oracle(graph, inputs))


def test_outputs_of_one_graph_are_inputs_of_the_next(engine: Engine, close: Callable[..., None]) -> None:
    """A frame as a session runs it; then the same step with the outputs of an older frame, which left the device."""
    known = example("step", 3)
    frames = []
    for seed in (1, 2):
        vision, audio = example("vision", 1, seed), example("audio", 1, seed)
        shared = {name: known[name] for name in vision if name in known}
        present = engine.vision({**vision, **shared}) | engine.audio(audio)
        expected = oracle("vision", {**vision, **shared}) | oracle("audio", audio)
        frames.append((present, expected))
        close(engine.step({**known, **present}), oracle("step", {**known, **expected}))
    present, expected = frames[0]
    close(engine.step({**known, **present}), oracle("step", {**known, **expected}))


def test_inputs_may_be_any_view(engine: Engine) -> None:
    plain = example("step", 4)
    views = {name: np.repeat(values, 2, axis=0)[::-2] for name, values in plain.items()}
    flipped = {name: values[::-1].copy() for name, values in plain.items()}
    found, expected = engine.step(views), engine.step(flipped)
    for name, values in expected.items():
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(values))


def test_an_array_that_may_be_written_is_read_anew(engine: Engine, close: Callable[..., None]) -> None:
    inputs, other = example("step", 2, 1), example("step", 2, 2)
    for values in inputs.values():
        values.flags.writeable = False
    close(engine.step(inputs), oracle("step", inputs))
    changing = {name: values.copy() for name, values in inputs.items()}
    for source in (inputs, other, inputs):
        for name, values in source.items():
            changing[name][...] = values
        close(engine.step(changing), oracle("step", source))
    mixed = {**inputs, "text": other["text"]}
    for _ in range(2):
        close(engine.step(mixed), oracle("step", mixed))
        close(engine.step(inputs), oracle("step", inputs))


def test_sessions_of_one_engine_do_not_see_each_other(engine: Engine, made: tuple[Engine, float]) -> None:
    """Two cameras with their own sentences take turns; each gives what it gives alone, and what ONNX Runtime gives it."""
    rng = np.random.default_rng(3)
    size = TEST.image_size
    frames = rng.normal(size=(2, 9, 3, size, size)).astype(np.float32)
    sounds = rng.normal(size=(2, 9, 96, 64)).astype(np.float32)

    class Source:
        path, config, sentences = Path("here"), TEST, (1, 8)

        def read(self, name: str) -> bytes:
            assert name == TOKENIZER
            return tiny_files()[TOKENIZER]

    texts = (["a barking dog"], ["the silent cello", "a guitar"])
    together = [Model(Source(), engine, RunConfig()).session(t) for t in texts]
    alone = [Model(Source(), TorchEngine(tiny_model()), RunConfig()).session(t) for t in texts]
    for i in range(9):
        for camera in range(2):
            found = together[camera].predict(frames[camera, i], sounds[camera, i], i / 2)
            expected = alone[camera].predict(frames[camera, i], sounds[camera, i], i / 2)
            np.testing.assert_allclose(found.presence, expected.presence, atol=10 * made[1])
            scale = max(1.0, float(np.abs(expected.mask_logits).max()))
            near = np.abs(found.mask_logits - expected.mask_logits) <= 10 * made[1] * scale
            assert near.mean() >= 0.98


def test_engines_by_name(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    assert ENGINES == ("auto", "onnx", "onnx-cuda", "onnx-tensorrt", "tensorrt", "torch")
    assert open_engine("auto", bundle, threads=1).device == "CPU, 1 thread"
    with pytest.raises(
        EngineError, match="a bundle; the torch engine runs a run folder, such as runs/latest"
    ):
        open_engine("torch", bundle)
    with pytest.raises(EngineError, match="no engine 'tpu'; there are: auto, onnx, onnx-cuda"):
        open_engine("tpu", bundle)


def write_run(folder: Path) -> Path:
    """A run folder of the tiny network, as training writes it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TEST.to_json()))
    (folder / "settings.json").write_text("{}")
    save_file(tiny_model().state_dict(), folder / "model.safetensors")
    (folder / "tokenizer.json").write_bytes(tiny_files()[TOKENIZER])
    return folder


def test_torch_runs_a_run_folder(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    model = load(path, engine="torch", run=RunConfig(threads=1))
    assert (model.engine.name, model.bundle.path, model.config) == ("torch", path, TEST)
    rng = np.random.default_rng(0)
    size = TEST.image_size
    frame = rng.normal(size=(3, size, size)).astype(np.float32)
    expected = load(write_tiny_bundle(tmp_path / "bundle").path, engine="onnx", run=RunConfig(threads=1))
    found = model.session(["a dog"]).predict(frame, None, 0.0)
    reference = expected.session(["a dog"]).predict(frame, None, 0.0)
    np.testing.assert_allclose(found.presence, reference.presence, atol=1e-5)
    np.testing.assert_allclose(found.mask_logits, reference.mask_logits, atol=1e-2)


def test_a_run_folder_and_a_bundle_are_not_taken_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, bundle = write_run(tmp_path / "run"), write_tiny_bundle(tmp_path / "bundle")
    for engine in ("auto", "onnx", "tensorrt"):
        with pytest.raises(
            EngineError, match=f"{path}: a run folder; export it .* or run it with --engine torch"
        ):
            load(path, engine=engine)
    with pytest.raises(EngineError, match="a bundle; the torch engine runs a run folder of python -m train"):
        load(bundle.path, engine="torch")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match="runs/latest is not a run folder"):
        load(engine="torch")
    with pytest.raises(EngineError, match="threads must be 0 or more"):
        load(path, engine="torch", run=RunConfig(threads=-1))
    (path / "tokenizer.json").unlink()
    with pytest.raises(EngineError, match="tokenizer.json is missing"):
        load(path, engine="torch")
    monkeypatch.setitem(sys.modules, "refavs_rt.engines.torch", None)
    with pytest.raises(EngineError, match=r"torch engine needs packages .*pip install 'refavs-rt\[train\]'"):
        load(path, engine="torch")


@pytest.mark.parametrize("axis", [1, 7])
def test_example_inputs_fulfil_the_contract(axis: int) -> None:
    lengths, filled = set(), set()
    for seed in range(40):
        for graph, spec in SPECS.items():
            inputs = example(graph, axis, seed)
            assert list(inputs) == [x.name for x in spec.inputs]
            for x in spec.inputs:
                shape = tuple(axis if isinstance(size, str) else size for size in x.shape)
                assert (inputs[x.name].shape, inputs[x.name].dtype) == (shape, np.dtype(x.dtype))
        mask, age = inputs["token_mask"], inputs["ring_age"][0]
        assert mask[:, 0].all() and not (mask[:, 1:] & ~mask[:, :-1]).any()
        assert sorted(age[age > 0]) == list(range(1, (age > 0).sum() + 1))
        assert ((inputs["memory_weight"] >= 0.05) & (inputs["memory_weight"] <= 1)).all()
        assert (inputs["memory_count"] >= 0).all()
        ids = example("text", axis, seed)["token_ids"]
        assert ((ids >= 0) & (ids < TEST.text_vocabulary)).all()
        lengths |= set(mask.sum(axis=1).tolist())
        filled.add(int((age > 0).sum()))
    assert lengths == set(range(1, TEST.text_tokens + 1)) and filled == set(range(TEST.ring_ticks + 1))


def test_a_provider_that_onnx_runtime_lacks_is_refused(tmp_path: Path) -> None:
    import onnxruntime

    available = onnxruntime.get_available_providers()
    bundle = write_tiny_bundle(tmp_path / "bundle")
    for name, provider in (
        ("onnx-cuda", "CUDAExecutionProvider"),
        ("onnx-tensorrt", "TensorrtExecutionProvider"),
    ):
        if provider not in available:
            with pytest.raises(EngineError):
                open_engine(name, bundle)


def test_a_handle_is_an_array_to_numpy() -> None:
    fetched = []

    def fetch() -> NDArray[Any]:
        fetched.append(1)
        return np.arange(6, dtype=np.float32).reshape(3, 2)

    held: Any = Held((3, 2), np.dtype(np.float32), fetch)
    assert (held.shape, held.dtype, len(held)) == ((3, 2), np.float32, 3) and not fetched
    expected = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(held, expected)
    np.testing.assert_array_equal(np.concatenate([expected, held]), np.concatenate([expected, expected]))
    assert (held - expected).sum() == 0 and np.abs(expected - held).max() == 0
    np.testing.assert_array_equal(held[1], expected[1])
    assert np.asarray(held, np.float64).dtype == np.float64
    assert fetched == [1]
    values = np.asarray(held)
    assert not values.flags.writeable and np.array(held, copy=True).flags.writeable
    with pytest.raises(ValueError, match="float32 cannot be seen as int64 without a copy"):
        held.__array__(np.int64, copy=False)


def test_what_is_constant() -> None:
    values = np.zeros(3)
    assert not is_constant(values)
    values.flags.writeable = False
    assert is_constant(values)
    base = np.zeros(3)
    view = base[:2]
    view.flags.writeable = False
    assert not is_constant(view), "its base may be written"
    assert not is_constant([1, 2])
