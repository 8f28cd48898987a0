"""Networks of random weights by a fixed seed, in torch and as a bundle that our own exporter wrote.

Bundles are kept in build/: to export `full` takes minutes, and several gigabytes.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from refavs_rt.bundle import TOKENIZER, Bundle, graph_file, write_bundle
from refavs_rt.config import MEL_BINS, PATCH_FRAMES, PRESETS, ModelConfig, RunConfig
from refavs_rt.engines import Engine, open_engine
from refavs_rt.engines.torch import TorchEngine
from refavs_rt.export.compact import fold
from refavs_rt.export.to_onnx import export_graphs
from refavs_rt.model.eemc import EEMC
from refavs_rt.session import Model
from refavs_rt.train.starting_weights import RANDOM, starting_model

TEXTS = (
    "The sounding object.",
    "The dog.",
    "The first object to make a sound.",
    "The silent object.",
    "The object on the left.",
    "The violin that is being played.",
    "The object making the loudest sound.",
    "The cat on the right of the dog.",
)

_ROOT = Path(__file__).resolve().parents[1]
_CACHE = _ROOT / "build" / "bench"
_SOURCES = ("refavs_rt/model", "kernels", "export", "refavs_rt/config.py", "refavs_rt/contract.py")
"""What decides on the graphs, beside the libraries."""


@dataclass(frozen=True)
class Network:
    """The same weights in torch and in ONNX Runtime."""

    config: ModelConfig
    model: EEMC
    bundle: Bundle
    onnx: Engine

    def session_model(self, engine: Engine | None = None) -> Model:
        """What sessions are made of; None: in ONNX Runtime."""
        return Model(self.bundle, engine or self.onnx, RunConfig())

    @functools.cached_property
    def torch_engine(self) -> TorchEngine:
        """The weights in torch eager."""
        return TorchEngine(self.model)


@functools.lru_cache(maxsize=1)  # of `full` two would not fit some machines
def network(preset: str, threads: int) -> Network:
    """The network of a preset, in as many threads in ONNX Runtime; torch's are set by the caller."""
    model, tokenizer = _model(preset)
    folder = _bundle_folder(preset)
    if not folder.is_dir():
        files = {graph_file(name): data for name, data in export_graphs(model).items()}
        files[TOKENIZER] = tokenizer
        write_bundle(folder, model.config, files, tools={}, training={}, parity={})
    bundle = Bundle.open(folder)
    return Network(model.config, model, bundle, open_engine("onnx", bundle, threads=threads))


def in_torch(preset: str) -> TorchEngine:
    """The network in torch eager alone."""
    return TorchEngine(_model(preset)[0])


def is_exported(preset: str) -> bool:
    """Whether `network` need not export anything."""
    return _bundle_folder(preset).is_dir()


def exported_graph(preset: str, name: str) -> bytes:
    """One graph of the network, exported alone where there is no bundle yet."""
    path = _bundle_folder(preset) / graph_file(name)
    if not path.is_file():
        path = _CACHE / f"{path.parent.name}-{path.name}"
    if not path.is_file():
        data = export_graphs(_model(preset)[0], names=[name])[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(path)
    return path.read_bytes()


def _model(preset: str) -> tuple[EEMC, bytes]:
    """The network, its weights as the exporter rounds them, and its tokenizer."""
    config = PRESETS[preset]
    torch.manual_seed(0)
    model, tokenizer = starting_model(config, RANDOM if config.backbone == "swin" else None)
    model.eval()
    fold(model.backbone)
    return model, tokenizer


def _bundle_folder(preset: str) -> Path:
    return _CACHE / f"{preset}-{_digest()}"


def frames_and_sound(config: ModelConfig, ticks: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Random pictures [T, 3, S, S] and log-mel patches [T, 96, 64]; what they show decides on no cost."""
    rng = np.random.default_rng(0)
    size = config.image_size
    frames = rng.standard_normal((ticks, 3, size, size)).astype(np.float32)
    return frames, rng.standard_normal((ticks, PATCH_FRAMES, MEL_BINS)).astype(np.float32)


@functools.cache
def _digest() -> str:
    digest = hashlib.sha256(
        " ".join(
            importlib.metadata.version(name) for name in ("torch", "transformers", "onnx", "onnxscript")
        ).encode()
    )
    for source in _SOURCES:
        path = _ROOT / source
        for file in [path] if path.is_file() else sorted(path.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
