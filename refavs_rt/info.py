"""What is installed and what runs here, for people and for bug reports."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

from .bundle import Bundle


def describe(bundle: Bundle | str) -> dict[str, Any]:
    """Versions, engines, devices and the bundle as plain values.

    Args:
        bundle: an opened bundle, or why there is none.
    """
    return {
        "versions": _versions(),
        "engines": _engines(),
        "devices": {"cpu": _cpu_name(), "cores": len(os.sched_getaffinity(0)), "gpu": _gpu()},
        "bundle": {"error": bundle} if isinstance(bundle, str) else describe_bundle(bundle),
    }


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """What a bundle's manifest says, and its digest."""
    kept = ("preset", "format_version", "training", "parity", "tools")
    engines = {graph: record.to_json() for graph, record in bundle.engines.items()}
    return {
        "path": str(bundle.path),
        "digest": bundle.digest,
        "size": sum(entry["size"] for entry in bundle.files.values()),
        "files": {name: entry["size"] for name, entry in bundle.files.items()},
        **{name: bundle.manifest.get(name) for name in kept},
        "precision": bundle.precision,
        "sentences": list(bundle.sentences),
        "engines": engines,
    }


def to_text(described: dict[str, Any]) -> str:
    """`describe`'s values as lines to read."""
    lines = [f"{name:<14}{version}" for name, version in described["versions"].items()]
    lines += ["", f"{'engines':<14}{_joined(described['engines'])}"]
    devices = described["devices"]
    lines += [f"{'device':<14}{devices['cpu']}, {devices['cores']} cores usable; {devices['gpu']}"]
    return "\n".join([*lines, "", *_bundle_lines(described["bundle"])])


def _bundle_lines(bundle: dict[str, Any]) -> list[str]:
    if "error" in bundle:
        return [f"{'bundle':<14}none: {bundle['error']}"]
    lines = [
        f"{'bundle':<14}{bundle['path']}",
        f"{'preset':<14}{bundle['preset']}",
        f"{'size':<14}{bundle['size'] / 1e6:.1f} MB: "
        + ", ".join(f"{name} {size / 1e6:.1f}" for name, size in bundle["files"].items()),
        f"{'digest':<14}{bundle['digest']}",
        f"{'precision':<14}{bundle['precision']}, {bundle['sentences'][0]} to {bundle['sentences'][1]} sentences",
    ]
    for record in bundle["engines"].values():
        cards = ", ".join(f"sm{capability}" for capability in record["capabilities"])
        checked = (
            f"verified on {record['verified']['device']}"
            if record["verified"]
            else "not verified on a device"
        )
        where = f"{record['library']} {record['version']} for {cards}, {record['precision']}, {checked}"
        lines.append(f"{record['file']:<14}{where}")
    return lines + [f"{name:<14}{_printable(value)}" for name, value in (bundle["training"] or {}).items()]


def _printable(value: Any) -> str:
    """What a manifest says freely, with no character that a terminal obeys."""
    text = str(value)
    return text if text.isprintable() else repr(text)


def _versions() -> dict[str, str]:
    import numpy
    import onnxruntime
    import tokenizers

    from . import __version__
    from .ingest import ffmpeg_version

    return {
        "refavs-rt": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
        "tokenizers": tokenizers.__version__,
        "ffmpeg": ffmpeg_version(),
    }


def _engines() -> dict[str, str]:
    """Engine name -> what it runs with; engines whose packages are not here are left out."""
    import onnxruntime

    from .engines.tensorrt_library import LibraryMissing, find_library, installed

    found = {"onnx": "ONNX Runtime " + ", ".join(onnxruntime.get_available_providers())}
    libraries = []
    for name in installed():
        try:
            libraries.append(f"{name} {find_library(name).version}")
        except LibraryMissing as error:
            libraries.append(str(error))
    if libraries:
        found["tensorrt"] = ", ".join(libraries)
    if importlib.util.find_spec("torch") is not None:
        found["torch"] = f"torch {importlib.metadata.version('torch')}"
    return found


def _gpu() -> str:
    """The NVIDIA GPU and its compute capability, or why none can be used."""
    from .engines.base import EngineError
    from .engines.cuda import Cuda

    try:
        cuda = Cuda()
    except EngineError as error:
        return str(error)
    return f"{cuda.name} (sm{cuda.capability})"


def _joined(engines: dict[str, str]) -> str:
    return "; ".join(f"{name} ({where})" for name, where in engines.items())


def _cpu_name() -> str:
    """As the kernel calls it; on some ARM boards only the architecture is known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
