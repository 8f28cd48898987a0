"""What has to be true before a bundle's TensorRT engines are believed: they are for this machine, and they fit the contract."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from ..bundle import LATEST, Bundle, BundleError, EngineRecord
from ..contract import GRAPHS, GraphSpec, TensorSpec, contract_hash
from .base import EngineError
from .tensorrt_library import Library, find_library

PER_SENTENCE = ("text", "step")
"""Graphs whose dynamic axis is N; that of the others counts cameras, and engines take one."""

_AMPERE = 80
"""The oldest compute capability that a hardware-compatible engine runs on."""


def rebuild_command(bundle: Bundle) -> str:
    """What the user runs to get engines that fit: in a copy, since a bundle is not changed in place."""
    path = shlex.quote(str(bundle.path))
    command = f"refavs-export --bundle {path} --trt"
    is_default = bundle.path.absolute() == LATEST.absolute()
    return f"{command} --out {path}-rebuilt" if is_default else command


def check_records(bundle: Bundle) -> None:
    """What the manifest alone tells.

    Raises:
        EngineError: the bundle has no engine of some graph, or they do not belong together, to its contract, or take fewer
            sentences than it.
    """
    missing = [graph for graph in GRAPHS if graph not in bundle.engines]
    if missing:
        what = "no TensorRT engines" if len(missing) == len(GRAPHS) else f"no TensorRT engine of {missing[0]}"
        raise EngineError(f"{bundle.path}: {what} in it; build them: {rebuild_command(bundle)}")
    first = bundle.engines[GRAPHS[0]]
    for graph in GRAPHS:
        record = bundle.engines[graph]
        if (record.library, record.version) != (first.library, first.version):
            raise EngineError(
                f"{bundle.path}: {record.file} is of {record.library} {record.version} and {first.file} of "
                f"{first.library} {first.version}; build them together: {rebuild_command(bundle)}"
            )
        if record.contract_hash != contract_hash(bundle.config):
            raise EngineError(
                f"{bundle.path}: {record.file} was built for another contract; build it again: {rebuild_command(bundle)}"
            )
    _, wanted = bundle.sentences
    for graph in PER_SENTENCE:
        most = max(high for _, _, high in bundle.engines[graph].profiles)
        if most < wanted:
            raise EngineError(
                f"{bundle.path}: {bundle.engines[graph].file} takes up to {most} sentences at a time, and the bundle up to "
                f"{wanted}; build it again: {rebuild_command(bundle)} --sentences 1:{wanted}"
            )


def matching_library(bundle: Bundle) -> Library:
    """The library that the engines were built with.

    Raises:
        LibraryMissing: it is not here.
        EngineError: it is here in a version that does not load them.
    """
    record = bundle.engines[GRAPHS[0]]
    library = find_library(record.library)
    if library.version != record.version and not (
        record.version_compatible and _loads_older(library.version, record.version)
    ):
        raise EngineError(
            f"{bundle.path}: its engines are of {record.library} {record.version}, and here is {library.version}; "
            f"build them again: {rebuild_command(bundle)}"
        )
    return library


def check_device(bundle: Bundle, name: str, capability: int) -> None:
    """Whether the engines run on a GPU.

    Args:
        name: of the GPU.
        capability: its compute capability, such as 86.

    Raises:
        EngineError: they do not.
    """
    for graph in GRAPHS:
        record = bundle.engines[graph]
        if capability in record.capabilities or (record.hardware_compatible and capability >= _AMPERE):
            continue
        built_for = ", ".join(f"sm{each}" for each in record.capabilities)
        raise EngineError(
            f"{bundle.path}: {record.file} is for {built_for}, and this GPU ({name}) is sm{capability}; "
            f"build it again here: {rebuild_command(bundle)}"
        )


def check_engine(file: Path, engine: Any, trt: Any, spec: GraphSpec, record: EngineRecord) -> None:
    """Whether a deserialised engine has the contract's tensors and the manifest's profiles.

    Raises:
        BundleError: it has not.
    """
    mend = "export the bundle again"
    found = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    wanted = {tensor.name: tensor for tensor in (*spec.inputs, *spec.outputs)}
    for name in sorted(set(found) - set(wanted)):
        raise BundleError(f"{file}: tensor {name!r} is not in the contract; {mend}")
    types = {"float32": trt.DataType.FLOAT, "int64": trt.DataType.INT64, "bool": trt.DataType.BOOL}
    for side, mode, tensors in (
        ("input", trt.TensorIOMode.INPUT, spec.inputs),
        ("output", trt.TensorIOMode.OUTPUT, spec.outputs),
    ):
        for tensor in tensors:
            where = f"{file}: {side} {tensor.name!r}"
            if tensor.name not in found:
                raise BundleError(f"{where} is missing; {mend}")
            if engine.get_tensor_mode(tensor.name) != mode:
                raise BundleError(f"{where} is not an {side}; {mend}")
            if engine.get_tensor_location(tensor.name) != trt.TensorLocation.DEVICE:
                raise BundleError(f"{where} is not in the device's memory; {mend}")
            dtype = engine.get_tensor_dtype(tensor.name)
            if dtype != types[tensor.dtype]:
                raise BundleError(f"{where} is {_name(dtype)}, not {_name(types[tensor.dtype])}; {mend}")
            shape = tuple(engine.get_tensor_shape(tensor.name))
            if not _fits(shape, tensor):
                raise BundleError(f"{where} has the shape {list(shape)}, not {list(tensor.shape)}; {mend}")
    profiles = _profiles(engine, spec)
    if profiles != list(record.profiles):
        raise BundleError(f"{file}: its profiles are {profiles}, not {list(record.profiles)}; {mend}")


def _loads_older(here: str, built: str) -> bool:
    """Whether a version loads a version-compatible engine of another: the same major version, and not an older one."""
    ours, theirs = (tuple(int(part) for part in re.findall(r"\d+", version)) for version in (here, built))
    return bool(ours and theirs) and ours[0] == theirs[0] and ours >= theirs


def _name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]


def _fits(shape: tuple[int, ...], tensor: TensorSpec) -> bool:
    """An engine's shape has -1 where it knows a size only at run time; that may be so of any output axis."""
    return len(shape) == len(tensor.shape) and all(
        size == -1 or isinstance(expected, str) or size == expected
        for size, expected in zip(shape, tensor.shape, strict=True)
    )


def _profiles(engine: Any, spec: GraphSpec) -> list[tuple[int, int, int]]:
    """Smallest, best and largest size of the dynamic axis, a row an optimization profile."""
    tensor = next(t for t in spec.inputs if any(isinstance(axis, str) for axis in t.shape))
    axis = next(i for i, size in enumerate(tensor.shape) if isinstance(size, str))
    rows = []
    for profile in range(engine.num_optimization_profiles):
        low, best, high = engine.get_tensor_profile_shape(tensor.name, profile)
        rows.append((low[axis], best[axis], high[axis]))
    return rows
