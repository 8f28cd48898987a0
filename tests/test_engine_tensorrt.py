"""The TensorRT engine over stand-ins for CUDA and TensorRT: what it refuses, what it copies, and that it leaves nothing."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refavs_rt.bundle import Bundle, BundleError
from refavs_rt.config import TEST, RunConfig
from refavs_rt.contract import graph_specs
from refavs_rt.engines import EngineError, open_engine
from refavs_rt.engines.base import Arrays
from refavs_rt.engines.cuda import Buffer, Cuda, local_capability
from refavs_rt.engines.onnx import OnnxEngine
from refavs_rt.engines.tensorrt import TensorRTEngine
from refavs_rt.engines.tensorrt_checks import rebuild_command
from refavs_rt.engines.tensorrt_library import CollectingLogger, LibraryMissing, find_library, installed
from refavs_rt.examples import example_inputs
from refavs_rt.session import Model, load

from .engine_bundle import write_engine_bundle
from .tensorrt_double import CudaError, FakeCuda, Misuse, fake_tensorrt, install
from .tiny_bundle import tiny_files, write_tiny_bundle

SPECS = graph_specs(TEST)
TEXTS = ["a barking dog", "the silent cello", "a guitar", "the man who sings"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "refavs-rt" / "engines"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return install(monkeypatch)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_engine_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def example(graph: str, size: int, seed: int = 0) -> dict[str, Any]:
    return example_inputs(SPECS[graph], size, np.random.default_rng(seed), TEST.text_vocabulary)


def size_of(graph: str, *names: str, size: int = 1) -> int:
    """Bytes of some tensors of a graph."""
    tensors = {t.name: t for t in (*SPECS[graph].inputs, *SPECS[graph].outputs)}
    shapes = {n: [size if isinstance(axis, str) else axis for axis in tensors[n].shape] for n in names}
    return sum(int(np.prod(shape)) * np.dtype(tensors[n].dtype).itemsize for n, shape in shapes.items())


def frames(count: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(2)
    size = TEST.image_size
    return (
        rng.normal(size=(count, 3, size, size)).astype(np.float32),
        rng.normal(size=(count, 96, 64)).astype(np.float32),
    )


@pytest.mark.parametrize("mean", ["cumulative", "exponential", "window"])
def test_a_session_gives_the_masks_of_onnx_runtime(cuda: FakeCuda, bundle: Bundle, mean: Any) -> None:
    """To the bit, over 30 frames at 2 Hz of memory, while sentences come and go, and with sound and without."""
    pictures, sounds = frames(30)
    run = RunConfig(memory_mean=mean, threads=1)
    ours, theirs = (
        Model(bundle, engine, run).session(TEXTS[:1])
        for engine in (TensorRTEngine(bundle, threads=1), OnnxEngine(bundle, threads=1))
    )
    for i in range(30):
        for session in (ours, theirs):
            if i in (4, 11):
                session.add(*(TEXTS[1:3] if i == 4 else TEXTS[3:]))
            if i in (9, 17, 23):
                session.remove(0)
        sound = None if i % 5 == 3 else sounds[i]
        found, expected = (s.predict(pictures[i], sound, i / 2) for s in (ours, theirs))
        assert len(found.mask_logits) == len(ours.texts) and found.is_tick == (i % 2 == 0)
        np.testing.assert_array_equal(found.mask_logits, expected.mask_logits)
        np.testing.assert_array_equal(found.presence, expected.presence)
    assert cuda.launched > 60 and 3 < cuda.captured < 12


def test_only_what_is_new_crosses_the_bus(cuda: FakeCuda, bundle: Bundle) -> None:
    """Between ticks: the frame, its sound and the weights go up, masks and presence come down. Vision never goes either way."""
    pictures, sounds = frames(12)
    session = Model(bundle, TensorRTEngine(bundle, threads=1), RunConfig(threads=1)).session(TEXTS[:2])
    up = size_of("vision", "frame") + size_of("audio", "log_mel", "has_sound")
    up += size_of("step", "memory_weight", size=2)
    down = size_of("step", "mask_logits", "presence", size=2)
    state = ("memory_visual", "memory_audio", "memory_count", "ring_audio_tokens")
    rings = ("ring_age", "ring_visual_k", "ring_visual_v", "ring_audio_k", "ring_audio_v")
    fresh = ("attended_visual", "attended_audio", "audio_token")
    for i in range(12):
        uploaded, downloaded = cuda.uploaded, cuda.downloaded
        is_tick = session.predict(pictures[i], sounds[i], i / 4).is_tick
        after_tick = i % 4 == 1
        assert is_tick == (i % 4 == 0)
        if i:  # the first frame also brings the sentences and the empty state
            more = size_of("step", *state, *rings, size=2) if after_tick else 0
            assert cuda.uploaded - uploaded == up + more
        kept = size_of("step", *fresh, size=2) + size_of("step", "visual_k", "visual_v", "audio_k", "audio_v")
        assert cuda.downloaded - downloaded == down + (kept if is_tick else 0)


def test_memory_is_allocated_once_and_given_back(cuda: FakeCuda, bundle: Bundle) -> None:
    engine = TensorRTEngine(bundle, threads=1)
    for size in (1, 8):
        for graph in ("text", "vision", "audio", "step"):
            getattr(engine, graph)(example(graph, size if graph in ("text", "step") else 1))
    places = set(cuda.device)
    pinned = set(cuda.pinned)
    for size in (3, 1, 8, 2, 3, 3):
        held = engine.step(example("step", size))
        engine.text(example("text", size))
    assert set(cuda.device) == places and set(cuda.pinned) >= pinned
    del engine
    assert np.isfinite(np.asarray(held["audio_token"])).all(), "a handle keeps the memory it stands for"
    del held
    assert (cuda.device, cuda.pinned, cuda.streams, cuda.graphs) == ({}, {}, {}, {})
    assert cuda.misuses == []


def test_work_is_recorded_once_for_each_graph_and_size(cuda: FakeCuda, bundle: Bundle) -> None:
    engine = TensorRTEngine(bundle, threads=1)
    captured = cuda.captured
    for count, size in ((0, 2), (1, 2), (1, 2), (1, 3), (2, 3), (2, 2), (2, 3)):
        engine.step(example("step", size))
        assert cuda.captured - captured == count
    launched = cuda.launched
    engine.step(example("step", 2))
    assert cuda.launched == launched + 1


@pytest.mark.parametrize("call", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_what_cannot_be_recorded_runs_all_the_same(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, call: str
) -> None:
    fake = FakeCuda(failing={call: CudaError.cudaErrorStreamCaptureUnsupported})
    install(monkeypatch, fake)
    engine = TensorRTEngine(bundle, threads=1)
    expected = OnnxEngine(bundle, threads=1).step(example("step", 2))
    for _ in range(4):
        np.testing.assert_array_equal(engine.step(example("step", 2))["mask_logits"], expected["mask_logits"])
    assert fake.launched == 0


def test_engines_for_more_sentences_than_there_are(cuda: FakeCuda, tmp_path: Path, bundle: Bundle) -> None:
    """The smallest N of an engine is filled up with rows that nobody sees; between two profiles the smaller one is taken."""
    profiles = ((4, 4, 4), (6, 8, 8))
    made = write_engine_bundle(
        tmp_path / "bundle", of={graph: {"profiles": profiles} for graph in ("text", "step")}
    )
    engine, reference = TensorRTEngine(made, threads=1), OnnxEngine(bundle, threads=1)
    for size in (1, 8, 3, 5, 4, 1):
        for graph in ("text", "step"):
            found = getattr(engine, graph)(example(graph, size))
            for name, values in getattr(reference, graph)(example(graph, size)).items():
                assert found[name].shape == values.shape
                np.testing.assert_allclose(np.asarray(found[name]), values, atol=2e-4)


def test_too_many_sentences_and_wrong_arrays(cuda: FakeCuda, bundle: Bundle) -> None:
    engine = TensorRTEngine(bundle, threads=1)
    with pytest.raises(
        EngineError, match="step engine takes 1 to 8 sentences at a time, not 9.*--sentences 1:9"
    ):
        engine.step(example("step", 9))
    with pytest.raises(EngineError, match="step engine takes 1 to 8 sentences at a time, not 0"):
        engine.step(example("step", 0))
    with pytest.raises(EngineError, match="vision engine takes one camera at a time, not 2"):
        engine.vision(example("vision", 2))
    inputs = example("step", 2)
    for name, values, message in (
        ("text", inputs["text"][:1], r"text must be float32 \[2, 6, 16\], not float32 \[1, 6, 16\]"),
        ("text", inputs["text"].astype(np.float64), "text must be float32 .* not float64"),
        ("ring_age", inputs["ring_age"][:, 1:], r"ring_age must be int64 \[1, 3\], not int64 \[1, 2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.step({**inputs, name: values})
    with pytest.raises(KeyError, match="presence|text"):
        engine.step({name: values for name, values in inputs.items() if name != "text"})
    assert np.isfinite(engine.step(inputs)["presence"]).all() and cuda.misuses == []


def test_stripped_weights_come_from_the_bundles_graphs(
    cuda: FakeCuda, tmp_path: Path, bundle: Bundle
) -> None:
    made = write_engine_bundle(tmp_path / "bundle", record={"weights": "stripped"})
    found = TensorRTEngine(made, threads=1).step(example("step", 2))
    expected = OnnxEngine(bundle, threads=1).step(example("step", 2))
    np.testing.assert_array_equal(found["mask_logits"], expected["mask_logits"])


def test_weights_that_do_not_fit_are_refused(
    cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_engine_bundle(tmp_path / "bundle", record={"weights": "stripped"})
    parser = sys.modules["tensorrt"].OnnxParserRefitter(None, None)
    monkeypatch.setattr(type(parser), "refit_from_bytes", lambda self, graph: setattr(self, "num_errors", 1))
    with pytest.raises(EngineError, match="its weights are not those of text.onnx .*another count.*--trt"):
        TensorRTEngine(made, threads=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"record": {"version": "10.7.0"}}, "of tensorrt 10.7.0, and here is 10.3.0; build them again"),
        (
            {"record": {"version": "9.9.0", "version_compatible": True}},
            "of tensorrt 9.9.0, and here is 10.3.0",
        ),
        ({"record": {"version": "10.4", "version_compatible": True}}, "of tensorrt 10.4, and here is 10.3.0"),
        (
            {"record": {"capabilities": (87, 89)}},
            r"is for sm87, sm89, and this GPU \(Double of an RTX\) is sm86",
        ),
        ({"of": {"step": {"capabilities": (120,)}}}, "step.engine is for sm120"),
        ({"record": {"contract_hash": "0" * 64}}, "text.engine was built for another contract"),
        (
            {"of": {"step": {"version": "10.2"}}},
            "step.engine is of tensorrt 10.2 and text.engine of tensorrt 10.3.0",
        ),
        (
            {"of": {"step": {"profiles": ((1, 4, 4),)}}},
            "step.engine takes up to 4 sentences at a time, and the bundle up to 8",
        ),
    ],
)
def test_engines_for_something_else_are_refused(
    cuda: FakeCuda, tmp_path: Path, changes: Mapping[str, Any], message: str
) -> None:
    """With what was found, and the command that builds them again; and auto takes ONNX Runtime, and says why."""
    made = write_engine_bundle(tmp_path / "bundle", **changes)
    with pytest.raises(EngineError, match=message) as raised:
        open_engine("tensorrt", made)
    assert f"refavs-export --bundle {made.path} --trt" in str(raised.value)
    engine = open_engine("auto", made, threads=1)
    assert engine.name == "onnx" and engine.device == f"CPU, 1 thread; not TensorRT: {raised.value}"


@pytest.mark.parametrize(
    "record",
    [
        {"version": "10.1.0", "version_compatible": True},
        {"capabilities": (80,), "hardware_compatible": True},
        {"capabilities": (75, 86, 120)},
    ],
)
def test_compatible_engines_are_taken(cuda: FakeCuda, tmp_path: Path, record: Mapping[str, Any]) -> None:
    made = write_engine_bundle(tmp_path / "bundle", record=record)
    engine = load(made.path, run=RunConfig(threads=1)).engine
    assert (engine.name, engine.device) == ("tensorrt", "Double of an RTX, tensorrt 10.3.0")


def test_an_older_gpu_does_not_run_hardware_compatible_engines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, FakeCuda(75))
    made = write_engine_bundle(tmp_path / "bundle", record={"hardware_compatible": True})
    with pytest.raises(EngineError, match="this GPU .* is sm75"):
        TensorRTEngine(made, threads=1)


def test_a_bundle_without_engines(cuda: FakeCuda, tmp_path: Path) -> None:
    made = write_tiny_bundle(tmp_path / "bundle")
    with pytest.raises(
        EngineError, match="no TensorRT engines in it; build them: refavs-export --bundle .* --trt"
    ):
        open_engine("tensorrt", made)
    assert open_engine("auto", made, threads=1).device == "CPU, 1 thread"


@pytest.mark.parametrize(
    ("of", "wrong", "message"),
    [
        ("audio", {"name": {"audio_q": "sound"}}, "tensor 'sound' is not in the contract"),
        ("audio", {"mode": {"audio_k": 0}}, "output 'audio_k' is not an output"),
        ("step", {"dtype": {"presence": "HALF"}}, "output 'presence' is HALF, not FLOAT"),
        ("step", {"dtype": {"memory_count": "FLOAT"}}, "input 'memory_count' is FLOAT, not INT64"),
        ("vision", {"location": {"ring_age": 1}}, "input 'ring_age' is not in the device's memory"),
        (
            "vision",
            {"shape": {"frame": [-1, 3, 64, 32]}},
            r"'frame' has the shape \[-1, 3, 64, 32\], not \['B', 3",
        ),
        ("text", {"shape": {"text": [-1, 6]}}, r"'text' has the shape \[-1, 6\], not \['N', 6, 16\]"),
    ],
)
def test_engines_that_do_not_fit_the_contract_are_refused(
    cuda: FakeCuda, tmp_path: Path, of: str, wrong: Mapping[str, Any], message: str
) -> None:
    made = write_engine_bundle(tmp_path / "bundle", wrong={of: wrong})
    with pytest.raises(BundleError, match=f"{of}.engine: .*{message}"):
        open_engine("auto", made)


def test_an_engine_of_another_graph_and_other_profiles_are_refused(cuda: FakeCuda, tmp_path: Path) -> None:
    from .tensorrt_double import engine_bytes

    other = engine_bytes(tiny_files()["audio.onnx"], [[1, 1, 1]])
    made = write_engine_bundle(tmp_path / "graph", data={"vision": other})
    with pytest.raises(BundleError, match="vision.engine: tensor 'audio_k' is not in the contract"):
        TensorRTEngine(made)
    other = engine_bytes(tiny_files()["step.onnx"], [[1, 2, 8]])
    made = write_engine_bundle(tmp_path / "profiles", data={"step": other})
    with pytest.raises(
        BundleError, match=r"its profiles are \[\(1, 2, 8\)\], not \[\(1, 1, 1\), \(1, 8, 8\)\]"
    ):
        TensorRTEngine(made)


def test_bytes_that_are_no_engine_are_refused(cuda: FakeCuda, tmp_path: Path) -> None:
    made = write_engine_bundle(tmp_path / "bundle", data={"audio": b"no engine"})
    with pytest.raises(
        EngineError, match=r"audio.engine: tensorrt does not load it \(Serialization .* failed\);"
    ):
        TensorRTEngine(made)
    (made.path / "audio.engine").write_bytes(b"mo engine")
    with pytest.raises(BundleError, match="audio.engine: damaged"):
        open_engine("auto", Bundle.open(made.path))


def test_the_real_library_refuses_bytes_that_are_no_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """tensorrt_rtx itself, on a device that CUDA is made to believe in."""
    library = find_library("tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeCuda(86))
    made = write_engine_bundle(
        tmp_path / "bundle", record={"library": "tensorrt_rtx", "version": library.version}
    )
    with pytest.raises(EngineError, match="text.engine: tensorrt_rtx does not load it .*build it again here"):
        TensorRTEngine(made)


def test_first_load_on_a_device_compares_and_remembers(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    made = write_engine_bundle(tmp_path / "bundle")
    assert TensorRTEngine(made, threads=1).largest_error == 0.0
    (note,) = cache.iterdir()
    assert json.loads(note.read_text()) == {
        "device": "Double of an RTX, tensorrt 10.3.0",
        "largest_error": 0.0,
    }

    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("compared again")

    with monkeypatch.context() as patch:
        patch.setattr("refavs_rt.engines.tensorrt.compare", fail)
        assert TensorRTEngine(made).largest_error == 0.0
        install(patch, FakeCuda(86, name="Another card"))
        with pytest.raises(AssertionError, match="compared again"):
            TensorRTEngine(made)
        verified = {"device": "Another card", "largest_error": 0.01}
        known = write_engine_bundle(tmp_path / "verified", record={"verified": verified})
        assert TensorRTEngine(known).largest_error is None
    note.write_text("{}")
    assert TensorRTEngine(made, threads=1).largest_error == 0.0
    assert len(list(cache.iterdir())) == 1


def test_a_cache_folder_that_cannot_be_written_does_no_harm(
    cuda: FakeCuda, bundle: Bundle, cache: Path
) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    for _ in range(2):
        assert TensorRTEngine(bundle, threads=1).largest_error == 0.0


@pytest.mark.parametrize(("graph", "name"), [("vision", "pixel_k_1"), ("step", "presence"), ("text", "text")])
@pytest.mark.parametrize("damage", ["zeros", "NaN", "one row"])
def test_an_engine_that_computes_something_else_is_refused(
    cuda: FakeCuda,
    monkeypatch: pytest.MonkeyPatch,
    bundle: Bundle,
    cache: Path,
    graph: str,
    name: str,
    damage: str,
) -> None:
    right = getattr(TensorRTEngine, graph)

    def wrong(self: TensorRTEngine, inputs: Arrays) -> dict[str, Any]:
        outputs = right(self, inputs)
        values = np.array(outputs[name])
        values[...] = {"zeros": 0, "NaN": np.nan, "one row": values.ravel()[0]}[damage]
        return {**outputs, name: values}

    monkeypatch.setattr(TensorRTEngine, graph, wrong)
    with pytest.raises(EngineError, match=f"the tensorrt engine of {graph} gives a wrong {name} for N = "):
        open_engine("tensorrt", bundle, threads=1)
    assert not cache.exists()
    assert open_engine("auto", bundle, threads=1).name == "onnx"


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        (
            {"cudaGetDeviceCount": CudaError.cudaErrorInsufficientDriver},
            r"no NVIDIA GPU that CUDA can use \(cudaGetDeviceCount: CUDA driver version is insufficient",
        ),
        ({"cudaMallocHost": CudaError.cudaErrorMemoryAllocation}, "cudaMallocHost: out of memory"),
        ({"cudaMemcpyAsync": CudaError.cudaErrorMemoryAllocation}, "cudaMemcpyAsync: out of memory"),
        (
            {"cudaStreamSynchronize": CudaError.cudaErrorMemoryAllocation},
            "cudaStreamSynchronize: out of memory",
        ),
    ],
)
def test_cuda_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, failing: dict[str, CudaError], message: str
) -> None:
    install(monkeypatch, FakeCuda(failing=failing))
    with pytest.raises(EngineError, match=message):
        open_engine("tensorrt", bundle, threads=1)


def test_a_full_device_is_named(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    fake = FakeCuda(memory=20_000)
    install(monkeypatch, fake)
    with pytest.raises(EngineError, match="cudaMalloc: out of memory"):
        open_engine("tensorrt", bundle, threads=1)
    gc.collect()
    assert (fake.device, fake.pinned, fake.misuses) == ({}, {}, [])


def test_without_a_device_or_the_calls(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    fake = install(monkeypatch)
    assert local_capability() == 86
    monkeypatch.setattr(fake, "cudaGetDeviceCount", lambda: (CudaError.cudaSuccess, 0))
    with pytest.raises(EngineError, match="CUDA sees no device"):
        local_capability()
    with pytest.raises(EngineError, match="no NVIDIA GPU that CUDA can use .CUDA sees no device"):
        open_engine("tensorrt", bundle)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(EngineError, match="runtime calls are missing"):
        local_capability()
    with pytest.raises(EngineError, match=r"runtime calls are missing .*pip install 'refavs-rt\[trt\]'"):
        open_engine("tensorrt", bundle)
    assert open_engine("auto", bundle, threads=1).name == "onnx"


def test_libraries_are_found_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.10: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt(FakeCuda(), "tensorrt_rtx", "1.7.1.116"))
    assert installed() == ["tensorrt", "tensorrt_rtx"]
    assert find_library("tensorrt_rtx").version == "1.7.1.116"
    with pytest.raises(LibraryMissing, match=r"installed and does not load \(libnvinfer.so.10: cannot open"):
        find_library()
    with pytest.raises(LibraryMissing, match="no TensorRT library 'onnx'; there are: tensorrt, tensorrt_rtx"):
        find_library("onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        LibraryMissing, match=r"no TensorRT library is installed; .*pip install 'refavs-rt\[trt\]'"
    ):
        find_library()
    with pytest.raises(LibraryMissing, match="tensorrt is not installed: on a Jetson it comes with JetPack"):
        open_engine("tensorrt", bundle)


def test_the_logger_keeps_what_the_real_library_says(capfd: pytest.CaptureFixture[str]) -> None:
    trt = find_library("tensorrt_rtx").module
    log = CollectingLogger(trt)
    for severity, text in (
        (trt.ILogger.WARNING, "one"),
        (trt.ILogger.INFO, "nothing"),
        (trt.ILogger.WARNING, "two"),
        (trt.ILogger.WARNING, "one"),
        (trt.ILogger.ERROR, "bad"),
        (trt.ILogger.INTERNAL_ERROR, "worse"),
    ):
        log.log(severity, text)
    assert (log.warnings, log.last_error) == (["one", "two"], "worse")
    assert trt.Runtime(log).deserialize_cuda_engine(b"no engine" * 10) is None
    assert log.last_error != "worse" and capfd.readouterr() == ("", "")


def test_the_stand_ins_find_misuse() -> None:
    """What the tests above rely on."""
    fake = FakeCuda()
    cuda = Cuda(fake)
    address, pinned = cuda.allocate(100), cuda.allocate_pinned(100)
    cuda.upload(address, pinned)
    cuda.synchronise()
    for wrong, message in (
        (lambda: cuda.upload(address + 1, pinned), "beyond an allocation"),
        (lambda: cuda.upload(address, np.zeros(10, np.uint8)), "not pinned"),
        (lambda: cuda.upload(17, pinned), "not memory of the device"),
        (lambda: cuda.capture(cuda.synchronise), "waits while work is recorded"),
        (lambda: fake.cudaFree(address + 1), "freed"),
    ):
        with pytest.raises(Misuse, match=message):
            wrong()
    fake.cudaFree(address)
    with pytest.raises(Misuse, match="freed before"):
        fake.cudaFree(address)
    with pytest.raises(Misuse, match="was freed"):
        cuda.upload(address, pinned)
    fake.device[address] = np.zeros(100, np.uint8)  # so that it can be given back
    fresh = fake.cudaMalloc(8)[1]
    assert np.isnan(fake.view(fresh, 8).view(np.float32)).all()


def test_pinned_memory_is_left_alone_while_a_copy_needs_it() -> None:
    """Two copies through one buffer without waiting between; the stand-in copies as late as it may."""
    fake = FakeCuda()
    buffer = Buffer(Cuda(fake), np.dtype(np.float32), (2, 3))
    one, two = np.full((2, 3), 1, np.float32), np.full((1, 3), 2, np.float32)
    buffer.put(one)
    first = buffer.start_download((2, 3))
    buffer.put(two)
    held = buffer.hold((2, 3))
    del first
    np.testing.assert_array_equal(np.asarray(held), [[2, 2, 2], [1, 1, 1]])
    assert fake.misuses == []


def test_the_command_that_rebuilds_the_usual_bundle_does_not_end_where_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = write_engine_bundle(Path("bundles", "latest"))
    assert rebuild_command(made) == "refavs-export --bundle bundles/latest --trt --out bundles/latest-rebuilt"
    spaced = write_engine_bundle(tmp_path / "my bundle")
    assert rebuild_command(spaced) == f"refavs-export --bundle '{spaced.path}' --trt"
