"""A leg of training on a machine that has a GPU and neither network nor packages of weights: what travels there, what comes back.

FOLDER/scenes.pack            what training and its validation draw from: no test material, sounds to 12 bits
FOLDER/start/                 a run to start from, frozen parts included, large matrices in half precision

RESULTS/averaged.safetensors  what trained, averaged over the steps, in half precision; frozen parts stay at home
RESULTS/*.json, *.jsonl, curves.png   settings, curves, environment
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from refavs_rt.config import EDGE, PRESETS, ModelConfig
from refavs_rt.model.run_folder import CONFIG, PATHS

from . import checkpoint
from .checkpoint import CheckpointError
from .data_source import SceneSource
from .loop import Trainer
from .material import Background, Pack, Thing
from .material.pack import Split, decode_sound, encode_sound, write_pack
from .run_settings import read_settings, started_with
from .starting_weights import RANDOM, starting_model
from .tensor_file import write_tensors
from .train_config import LOG_EVERY, TrainConfig, TrainingError

PACK, START, RESULTS = "scenes.pack", "start", "averaged.safetensors"
LIMIT_MIB = 56
"""Of the folder: with the sources beside it, all that travels stays below 64 MiB."""
_KEPT: tuple[Split, ...] = ("train", "val")
_LARGE = 4096
"""Values from which a tensor travels in half precision."""
_FROZEN = ("backbone.", "text_encoder.")
_STEP = 16
"""Sounds are rounded to multiples of this, of 32,768."""
_RETURNED = (
    checkpoint.LOSSES,
    checkpoint.METRICS,
    checkpoint.SKIPPED,
    checkpoint.ENVIRONMENT,
    checkpoint.CURVES,
)
_LEG = "leg.json"
"""In a run: digest of the weights that it began with."""
_TRIAL_STEPS = 30
_TRIAL_SHARE = 0.15
"""Of the time that a trial of speed may take."""
_RESERVE_S = 40.0
"""Seconds at the end for the last validation and for writing."""


def write_leg(folder: Path, pack: Pack, start: Path | None) -> int:
    """Write what travels into `folder`; returns its size in bytes.

    Args:
        pack: of scenes.
        start: the run to go on from; None: random weights beside the published ones.

    Raises:
        CheckpointError: the run cannot be read, or all that travels would be larger than `LIMIT_MIB`.
        WeightsError, ModuleNotFoundError: the published weights are nowhere to be had.
    """
    (folder / START).mkdir(parents=True, exist_ok=True)
    config = EDGE if start is None else checkpoint.load_config(start)
    torch.manual_seed(0)
    model, tokenizer = starting_model(config)
    if start is not None:
        checkpoint.load_start(model, start)
    checkpoint.write_json(folder / START / CONFIG, config.to_json())
    (folder / START / checkpoint.TOKENIZER).write_bytes(tokenizer)
    write_tensors(folder / START / checkpoint.WEIGHTS, _halved(model.state_dict()))
    if start is not None and (start / checkpoint.SETTINGS).is_file():
        shutil.copyfile(start / checkpoint.SETTINGS, folder / START / checkpoint.SETTINGS)
    write_training_pack(folder / PACK, pack)
    written = [folder / PACK, *(path for path in (folder / START).iterdir() if path.is_file())]
    size = sum(path.stat().st_size for path in written)
    if size > LIMIT_MIB << 20:
        (folder / PACK).unlink()  # what else lies in the folder is not ours
        raise CheckpointError(
            f"{folder} has {size / 2**20:.1f} MiB, more than the {LIMIT_MIB} that can travel"
        )
    return size


def write_training_pack(path: Path, pack: Pack) -> None:
    """A pack without what only tests use, from which training and validation draw the same scenes."""
    entries: dict[str, bytes] = {}

    def keep_picture(entry: str) -> None:
        entries[entry] = pack.entry(entry)

    def keep_sound(entry: str) -> None:
        samples = decode_sound(pack.entry(entry)).astype(np.int32)
        rounded = np.clip((samples + _STEP // 2) // _STEP * _STEP, -32_768, 32_752)
        entries[entry] = encode_sound(rounded.astype(np.int16))

    things: list[Thing] = []
    for thing in (thing for thing in pack.things if not thing.unseen):
        recordings = tuple(r for r in thing.recordings if r.split in _KEPT)
        for picture in thing.pictures:
            keep_picture(picture.entry)
        for recording in recordings:
            keep_sound(recording.entry)
        things.append(dataclasses.replace(thing, recordings=recordings))
    backgrounds: list[Background] = [b for b in pack.backgrounds if b.split in _KEPT]
    ambiences: list[Background] = [b for b in pack.ambiences if b.split in _KEPT]
    for background in backgrounds:
        keep_picture(background.entry)
    for ambience in ambiences:
        keep_sound(ambience.entry)
    write_pack(path, things, backgrounds, ambiences, [], entries, _KEPT)


def run_leg(folder: Path, run: Path, out: Path, config: TrainConfig, minutes: float) -> int:
    """Train from `folder` for so many minutes, all included, and write the results into `out`, at each checkpoint and at the end;
    returns the steps done.

    How many steps fit is measured first, so that the step size falls to its end within the time. A run that stands in `run`
    goes on instead, with the steps that it was started with.

    Raises:
        CheckpointError, MaterialError: the folder, or the run, is damaged, or the run has another start or is finished.
        TrainingError: too few steps fit into the time.
    """
    end = time.monotonic() + minutes * 60 - _RESERVE_S
    start = folder / START
    if not (folder / PACK).is_file() or not (start / checkpoint.WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder} holds no leg; write one with: python -m train leg pack --out {folder}"
        )
    source = SceneSource(Pack.load(folder / PACK))
    model = checkpoint.load_config(start)
    config = dataclasses.replace(config, weights=RANDOM)
    digest = hashlib.sha256((start / checkpoint.WEIGHTS).read_bytes()).hexdigest()
    if checkpoint.has_resume(run):
        config = started_with(run).train
        if not (run / _LEG).is_file() or json.loads((run / _LEG).read_text()) != digest:
            raise CheckpointError(f"{run} began with other weights than {start} holds; give another --run")
    else:
        steps = _steps_that_fit(run, model, config, source, start, end)
        config = dataclasses.replace(config, steps=steps)
    trainer = _Leg(run, out, model, config, source, start)
    if trainer.step == config.steps:
        raise CheckpointError(f"{run} is finished: give another --run, or pack the next leg with --start")
    run.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(run / _LEG, digest)
    trainer.run(end)
    return trainer.step


class _Leg(Trainer):
    """A run whose results are written with each checkpoint: whoever ends it, what it had come to comes back."""

    def __init__(
        self,
        run: Path,
        results: Path,
        model: ModelConfig,
        config: TrainConfig,
        source: SceneSource,
        start: Path,
    ) -> None:
        super().__init__(run, model, config, source, start=start)
        self.results = results

    def save(self) -> None:
        super().save()
        write_results(self.out, self.results)


def write_results(run: Path, out: Path) -> None:
    """Copy what comes back: the trained weights without frozen parts, and the curves.

    Raises:
        CheckpointError: the run has no weights yet.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = _read(run / checkpoint.WEIGHTS)
    trained = {name: value for name, value in state.items() if not name.startswith(_FROZEN)}
    write_tensors(out / RESULTS, _halved(trained))
    settings = read_settings(run)
    settings.pop(PATHS, None)  # of that machine
    checkpoint.write_json(out / checkpoint.SETTINGS, settings)
    for name in _RETURNED:
        if (run / name).is_file():
            shutil.copyfile(run / name, out / name)


def join_leg(results: Path, run: Path) -> None:
    """Make a run of the results of a leg and the frozen parts of this machine's packages: to evaluate, export, start from.

    Raises:
        CheckpointError: the results are damaged or of another network, or `run` holds a run already.
        WeightsError, ModuleNotFoundError: the published weights are nowhere to be had.
    """
    if (run / checkpoint.WEIGHTS).exists():
        raise CheckpointError(f"{run} holds a run already; give another --out")
    model, tokenizer = starting_model(PRESETS[started_with(results).preset])
    try:
        outcome = model.load_state_dict(_read(results / RESULTS), strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{results / RESULTS} is of another network: {error}") from error
    lacking = [name for name in outcome.missing_keys if not name.startswith(_FROZEN)]
    if lacking or outcome.unexpected_keys:
        odd = (lacking + outcome.unexpected_keys)[0]
        raise CheckpointError(f"{results / RESULTS} is of another network: {odd}")
    run.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(run / checkpoint.JOINED, str(results))
    for name in (checkpoint.SETTINGS, *_RETURNED):
        if (results / name).is_file():
            shutil.copyfile(results / name, run / name)
    (run / checkpoint.TOKENIZER).write_bytes(tokenizer)
    checkpoint.save_weights(run, model.config, model.state_dict())


def _steps_that_fit(
    run: Path, model: ModelConfig, config: TrainConfig, source: SceneSource, start: Path, end: float
) -> int:
    """By a short run that is thrown away, the first third of which warms up."""
    begun = time.monotonic()
    trial = run.with_name(run.name + ".trial")
    short = dataclasses.replace(config, steps=_TRIAL_STEPS, full_size_share=0.0)
    times = Trainer(trial, model, short, source, start=start).step_times(begun + _TRIAL_SHARE * (end - begun))
    each = float(np.mean(times[len(times) // 3 :]))
    larger = 1 + config.full_size_share * ((model.image_size / config.image_size) ** 2 - 1)
    fit = int(0.93 * (end - time.monotonic()) / (each * larger)) // LOG_EVERY * LOG_EVERY
    if fit < LOG_EVERY:
        raise TrainingError(f"a step takes {each:.1f} s here: give more --minutes, or a smaller --scale")
    return fit


def _halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Large tensors of floats in half precision."""
    return {
        name: value.half() if value.is_floating_point() and value.numel() >= _LARGE else value
        for name, value in state.items()
    }


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
