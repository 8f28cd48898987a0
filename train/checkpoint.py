"""Writing a run folder, in whole files only; `refavs_rt.model.run_folder` reads it.

Beside what that module names, a run holds `resume.pt` (all that training needs to go on: tensors only, loaded with
weights_only), `metrics.jsonl` (one line a validation), `loss.jsonl` and `tensorboard/`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from refavs_rt.config import ModelConfig
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.efficientnet import imagenet_state
from refavs_rt.model.run_folder import (
    CONFIG,
    SETTINGS,
    TOKENIZER,
    WEIGHTS,
    CheckpointError,
    load_config,
    load_model,
)
from refavs_rt.model.text import minilm_folder

__all__ = [
    "LOSSES",
    "METRICS",
    "RESUME",
    "SETTINGS",
    "TOKENIZER",
    "CheckpointError",
    "append_row",
    "drop_rows_after",
    "load_config",
    "load_model",
    "load_resume",
    "new_model",
    "save_resume",
    "save_weights",
    "write_json",
]

RESUME, METRICS, LOSSES = "resume.pt", "metrics.jsonl", "loss.jsonl"


def new_model(config: ModelConfig) -> EEMC:
    """A network with the published weights in its frozen parts and random ones elsewhere.

    The `test` preset has no published parts. Random weights come from torch's global generator.
    """
    model = EEMC(config)
    if config.backbone == "efficientnet_lite0":
        model.backbone.load_state_dict(imagenet_state())
        model.text_encoder.load_minilm(minilm_folder())
    return model


def save_weights(run: Path, config: ModelConfig, state: dict[str, torch.Tensor]) -> None:
    """Write `config.json` and `model.safetensors`, each replaced in one move."""
    write_json(run / CONFIG, config.to_json())
    partial = run / (WEIGHTS + ".partial")
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in state.items()}, partial)
    os.replace(partial, run / WEIGHTS)


def save_resume(run: Path, state: dict[str, Any]) -> None:
    """Write `resume.pt` in one move."""
    partial = run / (RESUME + ".partial")
    torch.save(state, partial)
    os.replace(partial, run / RESUME)


def load_resume(run: Path) -> dict[str, Any]:
    """Read `resume.pt`.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = run / RESUME
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: nothing to resume in {run}") from error
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise CheckpointError(f"{path} is damaged ({error}); delete it to start again from step 0") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` in one move."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(partial, path)


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one line of JSON to a curve."""
    with path.open("a") as log:
        log.write(json.dumps(row) + "\n")


def drop_rows_after(path: Path, step: int) -> None:
    """Cut a curve back to `step`: what came after it is trained again. A line that was not finished is dropped too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["step"] <= step:
            kept.append(line + "\n")
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(kept))
    os.replace(partial, path)
