"""Checks of Python, the compiled extension, the engines, and the main job itself."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys

from .check import BROKEN, MISSING, OK, Finding

_OLDEST = (3, 10)
_MOST_FRAMES = 50
"""Of the demo clip, in which a mask has to be found."""


def python() -> Finding:
    found = f"{sys.version.split()[0]} ({sys.executable})"
    return Finding(OK if sys.version_info >= _OLDEST else BROKEN, found)


def packages() -> Finding:
    """numpy and the tokenizer: without them nothing of the rest loads."""
    return Finding(OK, _versions("numpy", "tokenizers"))


def extension() -> Finding:
    from ..ingest import ffmpeg_version

    return Finding(OK, f"loads, with FFmpeg {ffmpeg_version()}")


def onnxruntime() -> Finding:
    module = importlib.import_module("onnxruntime")
    providers = [name.removesuffix("ExecutionProvider") for name in module.get_available_providers()]
    return Finding(OK, f"{module.__version__} ({', '.join(providers)})")


def bundle() -> Finding:
    """Every hash of the embedded bundle."""
    from ..bundle import Bundle, embedded_bundle

    opened = Bundle.open(embedded_bundle())
    size = sum(len(opened.read(name)) for name in opened.files)
    return Finding(OK, f"{opened.config.preset}, {size / 1e6:.0f} MB, digest {opened.digest[:12]}")


def job() -> Finding:
    """The demo clip through the embedded model, until there is a mask."""
    from ..demo import DEMO, Demo
    from ..session import load

    demo = Demo.read(DEMO)
    model = load("edge")
    for result in model.stream(demo.clip, demo.texts, max_frames=_MOST_FRAMES):
        if result.masks.any():
            return Finding(OK, f"a mask in frame {result.index} of {demo.clip.name}, {model.engine.device}")
    return Finding(BROKEN, f"no mask in {_MOST_FRAMES} frames of {demo.clip.name}")


def page() -> Finding:
    """The web server, and the JPEG encoder of what it shows."""
    import numpy as np

    versions = _versions("starlette", "uvicorn", "websockets")
    from .._ingest import JpegEncoder

    JpegEncoder().encode(np.zeros((16, 16, 3), np.uint8))
    return Finding(OK, versions)


def tensorrt() -> Finding:
    from ..engines.tensorrt_library import LibraryMissing, find_library, installed

    names = installed()
    try:
        libraries = [find_library(name) for name in names or (None,)]
    except LibraryMissing as error:
        return Finding(BROKEN if names else MISSING, str(error).partition(";")[0])
    return Finding(OK, ", ".join(f"{library.name} {library.version}" for library in libraries))


def torch() -> Finding:
    module = importlib.import_module("torch")
    cuda = f"CUDA {module.version.cuda}" if module.version.cuda else "CPU"
    return Finding(OK, f"{module.__version__} ({cuda})")


def triton() -> Finding:
    return Finding(OK, _versions("triton"))


def transformers() -> Finding:
    return Finding(OK, _versions("transformers"))


def _versions(*names: str) -> str:
    """What is installed of some packages, all of which load.

    Raises:
        ImportError: one is not installed, or fails to load.
    """
    for name in names:
        importlib.import_module(name)
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
