"""What a run was started with: written in its `settings.json`, and taken from there when it goes on without its flags."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refavs_rt.config import PRESETS
from refavs_rt.model.run_folder import PATHS, SETTINGS, CheckpointError

from .batches import BatchConfig
from .loss import LossConfig
from .set_loss import SetLossConfig
from .train_config import CHANGE_NO_WEIGHT, TrainConfig, TrainingError

DATA, START, DIGEST = "data", "start", "digest"
BEFORE = "steps_before"
"""Steps of the runs that the weights went through before."""
_MATERIAL = ("data", "licence", DIGEST)
"""What a data set says of itself, which may be moved and may grow while a run lasts."""


@dataclass(frozen=True)
class StartedWith:
    """The command line that a run's flags come from where they are not given anew."""

    preset: str
    data: str | None
    """As `--data` names it; None: the usual pack of scenes."""
    start: Path | None
    """The run whose weights it began with."""
    train: TrainConfig


def started_with(run: Path) -> StartedWith:
    """What the run in the folder `run` was started with.

    Raises:
        CheckpointError: its settings are missing, damaged, or of another version of this program.
    """
    settings = read_settings(run)
    preset, paths = settings.get("preset"), settings.get(PATHS, {})
    try:
        if preset not in PRESETS:
            raise ValueError(f"there is no preset {preset!r}")
        start = paths.get(START)
        return StartedWith(
            preset, paths.get(DATA), None if start is None else Path(start), _train_config(settings["train"])
        )
    except (AttributeError, KeyError, TypeError, ValueError, TrainingError) as error:
        raise CheckpointError(
            f"{run / SETTINGS} is damaged or of another version ({error}); give another --out"
        ) from error


def read_settings(run: Path) -> dict[str, Any]:
    """The content of `settings.json`.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = run / SETTINGS
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); give another --out") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} is damaged; give another --out")
    return settings


def steps_before(start: Path) -> list[int]:
    """Steps of the runs that the weights of the run `start` went through, its own last; empty where it does not say."""
    try:
        settings = json.loads((start / SETTINGS).read_text())
        return [*settings.get(BEFORE, []), int(settings["train"]["steps"])]
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return []


def first_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The dotted name and both values of the first setting that differs and on which the curve depends; None without one."""
    return _first_difference(_that_matter(before), _that_matter(now))


def _that_matter(settings: Mapping[str, Any]) -> dict[str, Any]:
    train = {k: v for k, v in settings.get("train", {}).items() if k not in CHANGE_NO_WEIGHT}
    paths = {k: v for k, v in settings.get(PATHS, {}).items() if k != DATA}
    rest = {k: v for k, v in settings.items() if k not in _MATERIAL}
    plain: dict[str, Any] = json.loads(json.dumps({**rest, "train": train, PATHS: paths}))
    return plain


def _first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            found = _first_difference(before.get(key), now.get(key), f"{name}.{key}".strip("."))
            if found:
                return found
        return None
    return None if before == now else (name, before, now)


def _train_config(values: dict[str, Any]) -> TrainConfig:
    """From the JSON of `dataclasses.asdict`."""
    batch = {name: _tuple(value) for name, value in values["batch"].items()}
    loss = values["loss"]
    if isinstance(loss, dict):
        loss = LossConfig(**{**loss, "queries": SetLossConfig(**loss["queries"])})
    return TrainConfig(**{**values, "batch": BatchConfig(**batch), "loss": loss})


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value


def settings_of(
    model: dict[str, Any],
    train: TrainConfig,
    material: Mapping[str, str],
    digest: str,
    paths: dict[str, str | None],
    before: list[int],
) -> dict[str, Any]:
    """What `settings.json` holds.

    Args:
        model: the ModelConfig as JSON.
        material: of the data, see `Source`.
        digest: of the data.
        paths: where things lie on this machine, `DATA` and `START`; exported bundles do not have them.
        before: steps of the runs that these weights went through before, the first run first.
    """
    return {
        **material,
        DIGEST: digest,
        "preset": model["preset"],
        "model": model,
        PATHS: paths,
        BEFORE: before,
        "train": dataclasses.asdict(train),
        "loss_weights": dataclasses.asdict(train.loss_weights),
    }
