"""A bundle of the `test` preset, made once a test run by the real exporter from random weights."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import torch

from refavs_rt.bundle import TOKENIZER, Bundle, graph_file, write_bundle
from refavs_rt.config import TEST
from refavs_rt.export.compact import fold
from refavs_rt.export.to_onnx import export_graphs
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.text import minilm_folder

from .shared import shared

TRAINING = {"data": "none: random weights", "licence": "Apache-2.0"}


@functools.cache
def trained_model() -> EEMC:
    """The network as training would leave it, its weights so large that sounds, sentences and memory are seen in the masks."""
    torch.manual_seed(3)
    model = EEMC(TEST).eval()
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        if parameter.dim() < 2:
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.3)
        elif part not in ("backbone", "text_encoder"):
            parameter.data *= 3 if part == "audio_encoder" else 2
    with torch.no_grad():
        model.decoder.embedding[-1].weight.mul_(10)
    return model


@functools.cache
def tiny_model() -> EEMC:
    """The network in torch as it is in the bundle."""
    model = copy.deepcopy(trained_model())
    fold(model.backbone)  # as the exporter does
    return model


def _graphs() -> dict[str, bytes]:
    return {graph_file(name): data for name, data in export_graphs(tiny_model()).items()}


@functools.cache
def tiny_files() -> dict[str, bytes]:
    """File name -> bytes."""
    return shared("tiny-graphs", _graphs) | {TOKENIZER: (minilm_folder() / "tokenizer.json").read_bytes()}


def write_tiny_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`."""
    return write_bundle(
        folder, TEST, tiny_files(), tools={"torch": torch.__version__}, training=TRAINING, parity={}
    )
