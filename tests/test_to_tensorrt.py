"""TensorRT engines: real ones, built by tensorrt_rtx without a GPU, and who builds for what."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from refavs_rt.bundle import Bundle, embedded_bundle, graph_file
from refavs_rt.config import EDGE, TEST
from refavs_rt.contract import GRAPHS, graph_specs
from refavs_rt.engines.base import EngineError
from refavs_rt.engines.cuda import local_capability
from refavs_rt.engines.tensorrt_library import Library, LibraryMissing, find_library
from refavs_rt.examples import example_inputs
from refavs_rt.export import to_tensorrt
from refavs_rt.export.half import to_half
from refavs_rt.export.int8 import Quantiser
from refavs_rt.export.material import halves, read_demo
from refavs_rt.export.precision import lower_precision
from refavs_rt.export.to_tensorrt import (
    RTX_CAPABILITIES,
    BuildOptions,
    EngineBuildError,
    Target,
    TargetError,
    build_engine,
    find_target,
)

from .tiny_bundle import tiny_files

BOTH = (86, 120)


def rtx(capabilities: tuple[int, ...] = BOTH) -> Target:
    return Target(find_library("tensorrt_rtx"), capabilities)


def nothing(*_: Any) -> None:
    """Says nothing."""


@pytest.fixture(scope="module")
def edge() -> Bundle:
    return Bundle.open(embedded_bundle())


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_edge_becomes_engines_for_two_cards(edge: Bundle, precision: str) -> None:
    clip = read_demo(EDGE, 12, 2)
    lower = lower_precision(precision, edge, *halves([clip]), 0.05, nothing)
    sizes = {}
    for graph in GRAPHS:
        spec = graph_specs(EDGE)[graph]
        told: list[float] = []
        built = build_engine(
            lower.graphs[graph], spec, rtx(), BuildOptions(sentences=(1, 8)), None, told.append
        )
        assert built.profiles == ([(1, 1, 1), (1, 8, 8)] if graph in ("text", "step") else [(1, 1, 1)])
        assert built.layers > 0
        assert told
        assert sorted(told) == told
        assert 0.5 < told[-1] <= 1.0
        for warning in built.warnings:
            assert "Int64 binding" in warning, "nothing else is warned of"
        sizes[graph] = len(built.data)
    assert sum(sizes.values()) > 1_000_000
    if precision == "fp16":
        exact = edge.read(graph_file("step"))
        whole = build_engine(exact, graph_specs(EDGE)["step"], rtx(), BuildOptions(sentences=(1, 8)))
        halved = len(exact) - len(lower.graphs["step"])
        assert halved > 0.45 * len(exact)
        assert len(whole.data) - sizes["step"] > 0.9 * halved, "what the graph lost, the engine lost"


def test_weights_are_left_out_only_where_the_graph_can_fill_them_in() -> None:
    """`tensorrt_rtx` leaves them out only on a machine with a GPU: its own words say that it missed one."""
    spec = graph_specs(TEST)
    options = BuildOptions(sentences=(1, 3), strip_weights=True)
    text = build_engine(tiny_files()["text.onnx"], spec["text"], rtx((86,)), options)
    assert text.profiles == [(1, 1, 1), (1, 3, 3)]
    assert not text.is_stripped, "its int8 words are float16 in an engine, and int8 in the bundle"
    if not has_gpu():
        with pytest.raises(EngineBuildError, match="CUDA_SUCCESS"):
            build_engine(tiny_files()["audio.onnx"], spec["audio"], rtx((86,)), options)
    else:
        assert build_engine(tiny_files()["audio.onnx"], spec["audio"], rtx((86,)), options).is_stripped


def test_one_number_of_sentences_is_one_profile() -> None:
    assert BuildOptions(sentences=(4, 4)).profiles(graph_specs(TEST)["step"]) == [(4, 4, 4)]


def test_a_graph_that_is_none_is_refused_in_the_librarys_words() -> None:
    half = to_half(tiny_files()["audio.onnx"])
    broken = half.replace(b"MaxPool", b"MaxPooh")
    with pytest.raises(EngineBuildError, match=r"tensorrt_rtx does not read the audio graph: .*MaxPooh"):
        build_engine(broken, graph_specs(TEST)["audio"], rtx(), BuildOptions())


def test_int8_in_an_engine_is_smaller_than_float32() -> None:
    spec = graph_specs(EDGE)["audio"]
    data = Bundle.open(embedded_bundle()).read("audio.onnx")
    samples = [example_inputs(spec, 1, np.random.default_rng(i), 1) for i in range(4)]
    whole, quantised = (
        len(build_engine(x, spec, rtx((86,)), BuildOptions()).data)
        for x in (data, Quantiser(data, samples).quantise(()))
    )
    assert quantised < 0.6 * whole


def here(capability: int | None) -> Callable[[], int]:
    def ask() -> int:
        if capability is None:
            raise EngineError("no NVIDIA GPU that CUDA can use (CUDA sees no device)")
        return capability

    return ask


def has_gpu() -> bool:
    try:
        return local_capability() > 0
    except EngineError:
        return False


@pytest.mark.parametrize(
    ("words", "capabilities"),
    [
        ([], RTX_CAPABILITIES),
        (["rtx"], RTX_CAPABILITIES),
        (["sm86"], (86,)),
        (["SM_120", "sm86"], (86, 120)),
        (["sm75", "rtx"], (75, *RTX_CAPABILITIES)),
    ],
)
def test_without_a_gpu_rtx_builds_for_any_of_its_cards(
    words: list[str], capabilities: tuple[int, ...]
) -> None:
    target = find_target(words, here(None))
    assert target.capabilities == capabilities
    assert target.library.name == "tensorrt_rtx"
    assert not target.is_local
    assert "tensorrt_rtx" in str(target)


def test_the_gpu_that_is_there_is_the_default() -> None:
    assert find_target([], here(89)).capabilities == (89,)
    assert find_target(["local"], here(89)).is_local
    assert find_target(["rtx"], here(89)).is_local and find_target(["sm86", "sm89"], here(89)).is_local
    assert not find_target(["sm86"], here(89)).is_local
    assert find_target([], here(110)).capabilities == RTX_CAPABILITIES, "a card that rtx does not know"


@pytest.fixture
def full_tensorrt(monkeypatch: pytest.MonkeyPatch) -> Library:
    """Beside the real tensorrt_rtx, a machine that also has `tensorrt`."""
    library = Library("tensorrt", SimpleNamespace(__name__="tensorrt"), "10.3.0")
    real = find_library("tensorrt_rtx")
    monkeypatch.setattr(to_tensorrt, "installed", lambda: ["tensorrt", "tensorrt_rtx"])
    monkeypatch.setattr(
        to_tensorrt, "find_library", lambda name=None: real if name == "tensorrt_rtx" else library
    )
    return library


def test_tensorrt_builds_for_its_own_card_alone(full_tensorrt: Library) -> None:
    target = find_target([], here(87))
    assert target.library is full_tensorrt
    assert target.capabilities == (87,)
    assert target.is_local
    assert find_target(["sm86"], here(87)).library.name == "tensorrt_rtx"
    with pytest.raises(TargetError, match="builds only for the GPU of its own machine"):
        find_target(["sm110"], here(87))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sm87"], "no library here builds engines for sm87: tensorrt_rtx builds for sm75, sm80, sm86"),
        (["local"], r"--target local: no NVIDIA GPU that CUDA can use \(CUDA sees no device\); else give"),
        (["rtx", "orin"], "--target orin: not a target"),
        (["sm9"], "--target sm9: not a target"),
    ],
)
def test_a_target_that_nothing_builds_for_is_said(words: list[str], said: str) -> None:
    with pytest.raises(TargetError, match=said):
        find_target(words, here(None))


def test_an_interrupt_ends_a_build_as_an_interrupt() -> None:
    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(
            tiny_files()["step.onnx"],
            graph_specs(TEST)["step"],
            rtx((86,)),
            BuildOptions((1, 3)),
            None,
            interrupt,
        )


def test_a_library_that_does_not_load_is_no_hindrance_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.10: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    assert find_target([], here(None)).library.name == "tensorrt_rtx"


def test_no_library_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import refavs_rt.engines.tensorrt_library as libraries

    monkeypatch.setattr(libraries, "installed", lambda: [])
    monkeypatch.setattr(to_tensorrt, "installed", lambda: [])
    with pytest.raises(LibraryMissing, match=r"pip install 'refavs-rt\[trt\]'"):
        find_target([], here(None))


class Cache:
    """What a builder of `tensorrt` offers of timings."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"+"


def test_timings_are_kept_beside_the_bundle(tmp_path: Path) -> None:
    file = tmp_path / "latest.timing-cache"
    config = SimpleNamespace(create_timing_cache=Cache, cache=None)

    def set_timing_cache(cache: Cache, ignore_mismatch: bool) -> bool:
        config.cache = cache
        return ignore_mismatch or not cache.content.startswith(b"another GPU")

    config.set_timing_cache = set_timing_cache
    config.get_timing_cache = lambda: config.cache
    for expected in (b"+", b"++"):
        assert to_tensorrt._load_cache(config, file) is not None
        to_tensorrt._store_cache(config, file)
        assert file.read_bytes() == expected
    file.write_bytes(b"another GPU's")
    assert to_tensorrt._load_cache(config, file).content == b""
    assert sorted(tmp_path.iterdir()) == [file]
