"""Reading a run folder, where training, evaluation and export meet.

RUN/config.json          the ModelConfig
RUN/settings.json        how it was trained, on what material and under which licences
RUN/model.safetensors    the averaged weights, frozen parts included
RUN/tokenizer.json       the sentence encoder's tokenizer
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from refavs_rt.config import ModelConfig

from .eemc import EEMC

CONFIG, SETTINGS, WEIGHTS, TOKENIZER = "config.json", "settings.json", "model.safetensors", "tokenizer.json"
PATHS = "paths"
"""What of the settings says where things lie on this machine; nobody else needs it."""


class CheckpointError(Exception):
    """A run folder that cannot be read; the message names the file and the mend."""


@dataclass(frozen=True)
class Run:
    """What a finished or running training has written."""

    path: Path
    model: EEMC
    """The averaged weights, in evaluation mode."""
    tokenizer: bytes
    training: dict[str, Any]
    """`data`, `licence` and the settings of the training, without `PATHS`."""


def load_run(path: Path) -> Run:
    """All of a run folder that export needs.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the configuration.
    """
    model = load_model(path)
    training = _read_json(path / SETTINGS)
    training.pop(PATHS, None)
    try:
        tokenizer = (path / TOKENIZER).read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path / TOKENIZER} is missing: has the run saved a checkpoint yet?"
        ) from error
    return Run(path, model, tokenizer, training)


def load_config(path: Path) -> ModelConfig:
    """The ModelConfig of a run folder.

    Raises:
        CheckpointError: the folder or its `config.json` is missing or malformed.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a run folder; train one with: python -m train")
    values = _read_json(path / CONFIG)
    try:
        return ModelConfig.from_json(values)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path / CONFIG} is damaged: {error}") from error


def load_model(path: Path) -> EEMC:
    """The averaged weights of a run, in evaluation mode.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the configuration.
    """
    config = load_config(path)
    weights = path / WEIGHTS
    model = EEMC(config)
    try:
        model.load_state_dict(load_file(weights))
    except FileNotFoundError as error:
        raise CheckpointError(f"{weights} is missing: has the run saved a checkpoint yet?") from error
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{weights} is damaged or does not fit {path / CONFIG}: {error}") from error
    return model.eval()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: has the run saved a checkpoint yet?") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged: not a JSON object")
    return values
