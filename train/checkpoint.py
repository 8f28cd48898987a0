"""Writing a run folder, in whole files only; `refavs_rt.model.run_folder` reads it.

Beside what that module names, a run holds

RUN/resume/state.json            the step and the numbers of the optimizer
RUN/resume/tensors.safetensors   trained weights, their average, batch norms, tensors of the optimizer, by name
RUN/loss.jsonl                   one line for ten steps
RUN/metrics.jsonl                one line a validation
RUN/skipped.jsonl                one line a step that was left out, with the names of its bad samples
RUN/environment.json             versions and hardware
RUN/curves.png, samples/, tensorboard/

Names in `resume/` are those of the modules, so what one number of processes wrote, another reads. Nothing is a pickle.
"""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from refavs_rt.config import ModelConfig
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.run_folder import (
    CONFIG,
    SETTINGS,
    TOKENIZER,
    WEIGHTS,
    CheckpointError,
    load_config,
    load_model,
)

from .tensor_file import write_tensors

__all__ = [
    "CURVES",
    "ENVIRONMENT",
    "JOINED",
    "LOSSES",
    "METRICS",
    "RESUME",
    "SETTINGS",
    "SKIPPED",
    "TOKENIZER",
    "WEIGHTS",
    "CheckpointError",
    "append_row",
    "check_can_hold_run",
    "drop_rows_after",
    "has_resume",
    "load_config",
    "load_model",
    "load_resume",
    "load_start",
    "save_resume",
    "save_weights",
    "write_json",
]

RESUME, ENVIRONMENT, CURVES = "resume", "environment.json", "curves.png"
JOINED = "joined.json"
"""In a run that was made of the results of a leg."""
METRICS, LOSSES, SKIPPED = "metrics.jsonl", "loss.jsonl", "skipped.jsonl"
_STATE, _TENSORS = "state.json", "tensors.safetensors"
_OLD = RESUME + ".old"


def load_start(model: EEMC, run: Path) -> None:
    """Put the averaged weights of another run into `model`; parts that it has not, such as one switched off, are left out.

    Raises:
        CheckpointError: the weights are missing or damaged, or `model` has parts that they lack.
    """
    path = run / WEIGHTS
    off = {name: value for name, value in model.state_dict().items() if not value.numel()}
    try:
        missing = model.load_state_dict({**load_file(path), **off}, strict=False).missing_keys
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: {run} is no run that could be started from") from error
    except (OSError, RuntimeError, SafetensorError) as error:
        what = textwrap.shorten(str(error), 300)
        raise CheckpointError(f"{path} is damaged or of another network: {what}") from error
    if missing:
        raise CheckpointError(f"{path} is of another network: it lacks {missing[0]}")


def save_weights(run: Path, config: ModelConfig, state: dict[str, Tensor]) -> None:
    """Write `config.json` and `model.safetensors`, each replaced in one move; float64 becomes float32."""
    write_json(run / CONFIG, config.to_json())
    single = {n: v.float() if v.dtype == torch.float64 else v for n, v in state.items()}
    partial = run / (WEIGHTS + ".partial")
    write_tensors(partial, single)
    _sync(partial)
    os.replace(partial, run / WEIGHTS)
    _sync(run)


def check_can_hold_run(run: Path) -> None:
    """See that a run can be written into the folder `run`, which need not be there yet; makes nothing.

    Raises:
        CheckpointError: it cannot.
    """
    place = run
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise CheckpointError(f"{place} is no folder: no run can be kept in {run}; give another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise CheckpointError(f"{place} cannot be written: no run can be kept in {run}; give another --out")


def has_resume(run: Path) -> bool:
    """Whether there is something to go on from."""
    return (run / RESUME).is_dir() or (run / _OLD).is_dir()


def save_resume(run: Path, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write `resume/` whole beside the one before, which goes only when this one is on the disk and in its place."""
    place, partial, old = run / RESUME, run / (RESUME + ".partial"), run / _OLD
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_tensors(partial / _TENSORS, tensors)
    (partial / _STATE).write_text(json.dumps(values))
    for path in (partial / _TENSORS, partial / _STATE, partial):
        _sync(path)
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
    partial.rename(place)
    _sync(run)
    shutil.rmtree(old, ignore_errors=True)


def load_resume(run: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The values and tensors of `resume/`, or of the one before where a run was killed between the two moves.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    place = run / RESUME if (run / RESUME).is_dir() else run / _OLD
    if not place.is_dir():
        raise CheckpointError(f"{run / RESUME} is missing: nothing to resume in {run}")
    try:
        values = json.loads((place / _STATE).read_text())
        tensors = load_file(place / _TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{place} is damaged ({error}); delete it to start again from step 0"
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{place / _STATE} is damaged; delete {place} to start again from step 0")
    return values, tensors


def write_json(path: Path, value: Any) -> None:
    """Write `value` in one move."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    _sync(partial)
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


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
