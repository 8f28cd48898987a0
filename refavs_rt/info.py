"""What is installed and what runs here, for people and for bug reports."""

from __future__ import annotations

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
        "devices": {"cpu": _cpu_name(), "cores": len(os.sched_getaffinity(0))},
        "bundle": {"error": bundle} if isinstance(bundle, str) else describe_bundle(bundle),
    }


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """What a bundle's manifest says, and its digest."""
    kept = ("preset", "format_version", "training", "parity", "tools")
    return {
        "path": str(bundle.path),
        "digest": bundle.digest,
        "size": sum(entry["size"] for entry in bundle.files.values()),
        "files": {name: entry["size"] for name, entry in bundle.files.items()},
        **{name: bundle.manifest.get(name) for name in kept},
    }


def to_text(described: dict[str, Any]) -> str:
    """`describe`'s values as lines to read."""
    lines = [f"{name:<14}{version}" for name, version in described["versions"].items()]
    lines += ["", f"{'engines':<14}{_joined(described['engines'])}"]
    devices = described["devices"]
    lines += [f"{'device':<14}{devices['cpu']}, {devices['cores']} cores usable"]
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
    ]
    return lines + [f"{name:<14}{value}" for name, value in (bundle["training"] or {}).items()]


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
    """Engine name -> what it runs on."""
    import onnxruntime

    return {"onnx": "ONNX Runtime " + ", ".join(onnxruntime.get_available_providers())}


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
