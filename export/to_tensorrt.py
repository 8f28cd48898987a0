"""TensorRT engines from a bundle's ONNX graphs: one builder for `tensorrt` and for `tensorrt_rtx`.

`tensorrt` (Jetson, data centre) builds for the GPU of the machine it runs on, timing candidates there. `tensorrt_rtx` (PCs)
compiles for any list of compute capabilities and needs no GPU; its engines are specialised on the device when they are loaded.
Both get strongly typed networks: the graph alone says which precision a layer has.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refavs_rt.contract import GraphSpec
from refavs_rt.engines.base import EngineError
from refavs_rt.engines.tensorrt_library import (
    CollectingLogger,
    Library,
    LibraryMissing,
    find_library,
    installed,
)

from .engine_graph import engine_graph

RTX_CAPABILITIES = (86, 89, 120)
"""What `--target rtx` means: the RTX cards of the last three generations."""
_NAMES = {
    75: "Turing",
    80: "A100",
    86: "RTX 30",
    87: "Jetson Orin",
    89: "RTX 40",
    90: "H100",
    110: "Jetson Thor",
    120: "RTX 50",
}
_WORD = re.compile(r"sm_?(\d{2,3})")


class TargetError(Exception):
    """Engines that no library of this machine can build; the message says what would."""


class EngineBuildError(Exception):
    """A graph that TensorRT does not build; the message has the library's own words."""


@dataclass(frozen=True)
class Target:
    """What engines are built for, and with what."""

    library: Library
    capabilities: tuple[int, ...]
    """Compute capabilities, such as 86 for 8.6."""
    is_local: bool = False
    """Whether the GPU of this machine is among them."""

    def __str__(self) -> str:
        cards = ", ".join(f"sm{c} ({_NAMES[c]})" if c in _NAMES else f"sm{c}" for c in self.capabilities)
        return f"{cards} with {self.library.name} {self.library.version}"


@dataclass(frozen=True)
class BuildOptions:
    """How engines are built."""

    sentences: tuple[int, int] = (1, 8)
    """Smallest and largest N of the step and text engines."""
    workspace_mib: int | None = None
    """Scratch memory that a layer may ask for; None: the library's own limit."""
    hardware_compatible: bool = False
    """`tensorrt` only: an engine that newer GPUs (Ampere and up) also run, slower."""
    version_compatible: bool = False
    """`tensorrt` only: an engine that later versions of the library also run."""
    strip_weights: bool = False
    """Engines without weights, which loading fills in from the bundle's graph: where TensorRT takes that graph as it is, which
    is not so for int8. `tensorrt_rtx` needs a GPU for it."""

    def profiles(self, spec: GraphSpec) -> list[tuple[int, int, int]]:
        """Optimization profiles (smallest, best, largest) of a graph's dynamic axis. Cameras are one; the smallest number of
        sentences, one and the most common, has a profile of its own."""
        if not any(axis == "N" for tensor in spec.inputs for axis in tensor.shape):
            return [(1, 1, 1)]
        low, high = self.sentences
        if low == high:
            return [(low, low, high)]
        return [(low, low, low), (low, high, high)]


@dataclass(frozen=True)
class BuiltEngine:
    """A serialised engine and what is known of its making."""

    data: bytes
    profiles: list[tuple[int, int, int]]
    layers: int
    seconds: float
    is_stripped: bool
    """Whether it is without weights."""
    warnings: list[str] = field(default_factory=list)
    """The library's, each once."""


def find_target(words: Sequence[str], local_capability: Callable[[], int]) -> Target:
    """The target that words of `--target` name.

    Args:
        words: "local", "rtx", "sm86", "sm87"...; none: the GPU that is there, else "rtx".
        local_capability: gives the compute capability of this machine's GPU; EngineError where it cannot.

    Raises:
        LibraryMissing: neither library is installed and loads.
        TargetError: no library here builds for that.
    """
    available = _loading()
    here, why_not = None, ""
    try:
        here = local_capability()
    except EngineError as error:
        why_not = str(error)
    if not words:
        words = ["local"] if here is not None and _builds_here(available, here) else ["rtx"]
    wanted: set[int] = set()
    for word in words:
        wanted |= _capabilities(word, here, why_not)
    if here is not None and wanted == {here} and "tensorrt" in available:
        return Target(find_library("tensorrt"), (here,), is_local=True)
    if "tensorrt_rtx" in available:
        library = find_library("tensorrt_rtx")
        if wanted <= _rtx_offers(library):
            return Target(library, tuple(sorted(wanted)), is_local=here in wanted)
    raise TargetError(_refusal(wanted, here, why_not, available))


def build_engine(
    data: bytes,
    spec: GraphSpec,
    target: Target,
    options: BuildOptions,
    timing_cache: Path | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> BuiltEngine:
    """Build one graph's engine.

    Args:
        data: the bundle's ONNX graph.
        timing_cache: a file of times measured on this GPU that is read where it exists and written; `tensorrt_rtx`, which
            measures nothing when it builds, leaves it alone.
        progress: called with the share of the build that is done, from 0 to 1.

    Raises:
        EngineBuildError: the parser or the builder refuses the graph.
    """
    trt = target.library.module
    log = CollectingLogger(trt)
    started = time.monotonic()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    graph = engine_graph(data)
    is_stripped = options.strip_weights and graph is data
    if not parser.parse(graph):
        reasons = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise EngineBuildError(
            f"{target.library.name} does not read the {spec.name} graph: {'; '.join(reasons) or log.last_error}"
        )
    config = builder.create_builder_config()
    _configure(config, trt, target, options)
    if is_stripped:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    profiles = options.profiles(spec)
    for profile in profiles:
        _add_profile(config, builder, spec, profile)
    cache = _load_cache(config, timing_cache) if target.library.name == "tensorrt" else None
    monitor = _monitor(trt, progress) if hasattr(trt, "IProgressMonitor") else None
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise EngineBuildError(
            f"{target.library.name} does not build the {spec.name} graph: {log.last_error}"
        )
    if cache is not None and timing_cache is not None:
        _store_cache(config, timing_cache)
    seconds = time.monotonic() - started
    return BuiltEngine(bytes(plan), profiles, network.num_layers, seconds, is_stripped, log.warnings)


def _loading() -> list[str]:
    """Names of the libraries that load; one that does not is no reason to leave the other."""
    loading = []
    for name in installed():
        with contextlib.suppress(LibraryMissing):
            loading.append(find_library(name).name)
    if not loading:
        find_library()  # says why
    return loading


def _builds_here(available: Sequence[str], capability: int) -> bool:
    return "tensorrt" in available or capability in _rtx_offers(find_library("tensorrt_rtx"))


def _capabilities(word: str, here: int | None, why_not: str) -> set[int]:
    if word == "rtx":
        return set(RTX_CAPABILITIES)
    if word == "local":
        if here is None:
            raise TargetError(f"--target local: {why_not}; else give --target rtx, or a card such as sm86")
        return {here}
    if (found := _WORD.fullmatch(word.lower())) is None:
        raise TargetError(
            f"--target {word}: not a target; give local, rtx, or a compute capability such as sm86"
        )
    return {int(found[1])}


def _rtx_offers(library: Library) -> set[int]:
    names = (_WORD.fullmatch(name.lower()) for name in dir(library.module.ComputeCapability))
    return {int(found[1]) for found in names if found}


def _refusal(wanted: set[int], here: int | None, why_not: str, available: Sequence[str]) -> str:
    names = ", ".join(f"sm{c}" for c in sorted(wanted))
    offers = sorted(_rtx_offers(find_library("tensorrt_rtx"))) if "tensorrt_rtx" in available else []
    can = (
        f"tensorrt_rtx builds for {', '.join(f'sm{c}' for c in offers)} together"
        if offers
        else "tensorrt_rtx is not installed"
    )
    there = f"sm{here}" if here is not None else why_not
    return (
        f"no library here builds engines for {names}: {can}; tensorrt builds only for the GPU of its own machine (here: {there})."
        f" On the machine with that GPU run: refavs-export --bundle BUNDLE --trt"
    )


def _configure(config: Any, trt: Any, target: Target, options: BuildOptions) -> None:
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if target.library.name == "tensorrt_rtx":
        config.num_compute_capabilities = len(target.capabilities)
        for index, capability in enumerate(target.capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), index)
    elif options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.version_compatible and target.library.name == "tensorrt":
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def _add_profile(config: Any, builder: Any, spec: GraphSpec, sizes: tuple[int, int, int]) -> None:
    profile = builder.create_optimization_profile()
    for tensor in spec.inputs:
        if any(isinstance(axis, str) for axis in tensor.shape):
            shapes = [[size if isinstance(axis, str) else axis for axis in tensor.shape] for size in sizes]
            profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)


def _load_cache(config: Any, file: Path | None) -> Any:
    if file is None:
        return None
    kept = file.read_bytes() if file.is_file() else b""
    for content in dict.fromkeys(
        (kept, b"")
    ):  # times of another GPU or version are not taken: it begins anew
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return cache
    return None


def _store_cache(config: Any, file: Path) -> None:
    content = bytes(config.get_timing_cache().serialize())
    partial = file.with_name(f".{file.name}.part")
    partial.write_bytes(content)
    partial.replace(file)


def _monitor(trt: Any, progress: Callable[[float], None]) -> Any:
    """An IProgressMonitor that says how much of the outermost phase is done; Ctrl-C ends the build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # the library's own class
        def __init__(self) -> None:
            super().__init__()
            self.outermost: str | None = None
            self.steps = 1
            self.interrupted = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.outermost, self.steps = phase_name, max(1, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                if phase_name == self.outermost:
                    progress(min(1.0, (step + 1) / self.steps))
            except KeyboardInterrupt:
                self.interrupted = True
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self.outermost:
                self.outermost = None

    return Monitor()
