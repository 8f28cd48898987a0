"""The training loop: steps, curves, validation, checkpoints, and going on where a run stands."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from refavs_rt.config import ModelConfig
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.hub import WeightsError
from refavs_rt.tokenizer import Tokenizer

from . import checkpoint
from .batches import BatchConfig, Clip
from .checkpoint import CheckpointError
from .data_source import Source
from .distributed import DistributedError, World, alone
from .environment import environment
from .loss import NameSpace
from .plot import plot
from .report import write_samples
from .run_settings import DATA, DIGEST, START, first_change, read_settings, settings_of, steps_before
from .shares import Share, Shares
from .starting_weights import starting_model
from .step import Skipped, Stepper, StepResult
from .texts import TextCache
from .train_config import LOG_EVERY, Precision, TrainConfig, TrainingError
from .training_state import restore, training_state
from .validate import validate

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TrainConfig", "Trainer", "TrainingError"]


class Trainer:
    """Trains one run in its folder; `run` goes on from where the folder stands. Every process of `world` has one."""

    def __init__(
        self,
        out: Path,
        model_config: ModelConfig,
        config: TrainConfig,
        source: Source,
        world: World | None = None,
        start: Path | None = None,
    ) -> None:
        """Make or resume a run; `start` is another run whose averaged weights a new one begins with.

        Raises:
            CheckpointError: the folder holds a run with other settings, or a damaged one, or cannot be one.
            TrainingError: the choice of parameters does not fit the network.
            WeightsError: published weights are nowhere to be had.
        """
        self.out = out
        self.config = config
        self.model_config = model_config
        self.source = source
        self.start = start
        self.world = world or alone(config.device)
        self.step = 0
        self._digest = source.digest()
        with self.world.all_or_none((CheckpointError, OSError, TrainingError, WeightsError)):
            if self.world.is_main:
                checkpoint.check_can_hold_run(out)
            resumed = self._checkpoint()
            model = self._starting_model()
        self.texts = TextCache(model.text_encoder, Tokenizer(self.tokenizer, model_config.text_tokens))
        embeddings = self.texts.sentence_embeddings(list(source.names))
        torch.manual_seed(config.seed)  # whatever a variant of the network has drawn
        names = NameSpace(embeddings, model_config)
        in_bfloat16 = _multiplies_bfloat16(self.world.device, config.precision)
        self.stepper = Stepper(model, names, self.texts, config, self.world, in_bfloat16=in_bfloat16)
        # The weights fit any size: a network is trained on small pictures first and on its own size at last.
        batch = dataclasses.replace(
            config.batch,
            image_size=min(config.image_size, model_config.image_size),
            late_image_size=model_config.image_size,
            late_from_step=round(config.steps * (1 - config.full_size_share)),
        )
        self.shares = Shares(
            source.clips(batch),
            batch,
            config.seed,
            self.world.rank,
            self.world.size,
            config.micro_batch,
        )
        self._tell_of_odd_settings(batch)
        if resumed is not None:
            self._restore(*resumed)
        self._check_same_step()
        self._check_same_data()
        if self.world.is_main:  # what came after the checkpoint is trained again
            for name in (checkpoint.LOSSES, checkpoint.METRICS, checkpoint.SKIPPED):
                checkpoint.drop_rows_after(out / name, self.step)

    def run(self, end: float = math.inf) -> bool:
        """Train to the last step, or for the minutes of the configuration; every `save_every` steps and at the end the folder can
        be resumed. Returns whether the last step is done.

        Args:
            end: time of the clock `time.monotonic` at which it stops too.

        Raises:
            TrainingError: `max_faults` steps in a row had a loss that is no number, or clips that cannot be read.
            DistributedError: another process is lost, or one that draws clips.
        """
        config = self.config
        if config.minutes:
            end = min(end, time.monotonic() + config.minutes * 60)
        writer = self._begin() if self.world.is_main else None
        window: list[StepResult] = []
        saved, save_soon, over = time.monotonic(), False, False
        bar = tqdm(
            self._shares_to_come(),
            initial=self.step,
            total=config.steps,
            unit="step",
            desc="train",
            dynamic_ncols=True,
            disable=not self.world.is_main,
        )
        for share in bar:
            due = 0 < config.save_every_minutes <= (time.monotonic() - saved) / 60
            result, asked = self.stepper.step(share, self.step, due)
            save_soon |= asked
            if isinstance(result, Skipped):
                self._note_skipped(result)
                self.stepper.check_faults(self.step, result)
            else:
                window.append(result)
            self.step += 1
            ends = self.step == config.steps
            if self.step % LOG_EVERY == 0 or ends:
                self._log(window, bar, writer)
                window.clear()
                if end < math.inf:
                    over = self.world.agree("over" if time.monotonic() >= end else "") == "over" and not ends
            # In this order: what is killed between the two is validated again, not left out.
            if self.step % config.validate_every == 0 or ends:
                self._validate(writer)
            if (
                self.step % config.save_every == 0
                or ends
                or over
                or (save_soon and self.step % LOG_EVERY == 0)
            ):
                self.save()
                saved, save_soon = time.monotonic(), False
            if over:
                bar.close()
                break
        if writer is not None:
            writer.close()
        self.world.barrier()
        return self.step == config.steps

    def step_times(self, end: float) -> list[float]:
        """Seconds of each step to the last, or until `end` on the clock `time.monotonic`, drawing of clips included; nothing is
        written. For trials of speed."""
        times: list[float] = []
        begun = time.monotonic()
        for share in self._shares_to_come():
            self.stepper.step(share, self.step, save=False)
            if self.world.device.type == "cuda":
                torch.cuda.synchronize(self.world.device)
            self.step += 1
            times.append(time.monotonic() - begun)
            begun = time.monotonic()
            if begun >= end:
                break
        return times

    def save(self) -> None:
        """Write the averaged weights, and all that is needed to go on."""
        values, tensors = training_state(self.stepper)
        if self.world.is_main:
            self.out.mkdir(parents=True, exist_ok=True)
            checkpoint.save_weights(self.out, self.model_config, self.stepper.average.state_dict())
            checkpoint.save_resume(self.out, {"step": self.step, **values}, tensors)

    def _begin(self) -> SummaryWriter:
        """Make the folder, with what stands in it from the beginning."""
        from torch.utils.tensorboard import SummaryWriter

        self.out.mkdir(parents=True, exist_ok=True)
        checkpoint.write_json(self.out / checkpoint.SETTINGS, self._settings())
        checkpoint.write_json(
            self.out / checkpoint.ENVIRONMENT, {"processes": self.world.size, **environment()}
        )
        (self.out / checkpoint.TOKENIZER).write_bytes(self.tokenizer)
        return SummaryWriter(str(self.out / "tensorboard"), purge_step=self.step)

    def _shares_to_come(self) -> Iterator[Share]:
        workers = self.config.workers
        if workers < 0:
            cores = len(os.sched_getaffinity(0)) // self.world.local_size
            workers = min(8, max(0, cores - 2))
        loader = DataLoader(
            self.shares,
            batch_size=None,
            sampler=range(self.step, self.config.steps),
            num_workers=workers,
            prefetch_factor=3 if workers else None,
        )
        shares = iter(loader)
        while True:
            try:
                yield next(shares)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise DistributedError(  # not a TrainingError: the other processes know nothing of it
                    f"a process that draws clips for process {self.world.rank} has ended ({error}): is there too little memory? "
                    "Fewer --workers take less"
                ) from error

    def _starting_model(self) -> EEMC:
        """The network as a run begins with it, with what trains marked."""
        config = self.config
        torch.manual_seed(config.seed)
        model, self.tokenizer = starting_model(self.model_config, config.weights, self.start)
        if self.start is not None:
            checkpoint.load_start(model, self.start)
        model = model.to(self.world.device, torch.float64 if config.precision == "float64" else torch.float32)
        try:
            trained = model.trained_parameters(config.trained)
        except ValueError as error:
            raise TrainingError(str(error)) from error
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
        return model

    def _tell_of_odd_settings(self, batch: BatchConfig) -> None:
        config, size = self.config, self.world.size
        fewest = batch.scale * min(count for _, count in (*batch.shapes, *batch.late_shapes))
        if fewest < size:
            self.world.say(
                f"note: some steps have {fewest} clips for {size} processes, and the others are idle: give a --scale of "
                f"{-(-size * batch.scale // fewest)} or more"
            )
        if config.steps <= config.warmup_steps:
            self.world.say(
                f"note: all {config.steps} steps are within the warm-up of {config.warmup_steps}, and the step size stays low: "
                "give fewer --warmup-steps"
            )

    def _checkpoint(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        """What the folder's run saved of itself, if it was started with the settings given now; None: there is none yet."""
        if not checkpoint.has_resume(self.out):
            if (self.out / checkpoint.JOINED).exists():
                raise CheckpointError(
                    f"{self.out} holds the results of a leg, which cannot go on: start from it with --start {self.out}, into "
                    "another --out"
                )
            return None
        self._check_settings()
        return checkpoint.load_resume(self.out)

    def _restore(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        try:
            restore(self.stepper, values, tensors)
            self.step = int(values["step"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            what = " ".join(str(error).split())
            raise CheckpointError(
                f"{self.out / checkpoint.RESUME} is of another network or data set ({what}); give another --out"
            ) from error

    def _check_same_step(self) -> None:
        """All processes stand at the same step, before the main one writes."""
        steps = self.world.gather([str(self.step)])
        for rank, step in enumerate(steps):
            if step != steps[0]:
                raise CheckpointError(
                    f"process {rank} finds step {step} in {self.out}, process 0 step {steps[0]}: the folder must be one that all "
                    "machines share"
                )

    def _check_same_data(self) -> None:
        """All processes have the same clips: else which clips a step sees would depend on who draws them."""
        digests = self.world.gather([self._digest])
        for rank, digest in enumerate(digests):
            if digest != digests[0]:
                raise CheckpointError(
                    f"process {rank} finds other clips than process 0: --data must hold the same on all machines"
                )

    def _check_settings(self) -> None:
        """The settings that the folder's run was started with are those given now: else its curve would have no meaning."""
        before, now = read_settings(self.out), self._settings()
        changed = first_change(before, now)
        if changed:
            name, old, new = changed
            raise CheckpointError(
                f"{self.out} was started with {name} = {old}, not {new}: give the same settings, or another --out"
            )
        if before.get(DIGEST, self._digest) != self._digest:
            self.world.say(
                f"note: the data are not those that {self.out} had before ({before.get('data')}; now "
                f"{self.source.material['data']}): from here on it sees others than it would have seen"
            )

    def _settings(self) -> dict[str, Any]:
        paths = {DATA: self.source.address, START: None if self.start is None else str(self.start.resolve())}
        before = [] if self.start is None else steps_before(self.start)
        return settings_of(
            self.model_config.to_json(), self.config, self.source.material, self._digest, paths, before
        )

    def _note_skipped(self, skipped: Skipped) -> None:
        if not self.world.is_main:
            return
        row = {"step": self.step + 1, "why": skipped.why, "samples": skipped.samples}
        checkpoint.append_row(self.out / checkpoint.SKIPPED, row)
        tqdm.write(
            f"note: step {self.step + 1} was left out: {skipped.why}: {'; '.join(skipped.samples)}",
            file=sys.stderr,
        )

    def _log(self, window: list[StepResult], bar: tqdm[Share], writer: SummaryWriter | None) -> None:
        """One line of the curve: the mean over the steps since the last that were not left out; none without such."""
        if not window:
            return
        names = list(window[0].parts)
        mine = torch.stack(
            [torch.stack([result.parts[name].double() for name in names]) for result in window]
        )
        sums = self.world.sum(mine.sum(dim=0).cpu())
        if writer is None:
            return
        row = {name: value / len(window) for name, value in zip(names, sums.tolist(), strict=True)}
        row["grad_norm"] = sum(result.grad_norm for result in window) / len(window)
        bar.set_postfix(loss=f"{row['total']:.3f}", refresh=False)
        for name, value in row.items():
            writer.add_scalar(f"loss/{name}", value, self.step)
        line = {"step": self.step, "rate": self.stepper.rate(self.step - 1), **row}
        checkpoint.append_row(self.out / checkpoint.LOSSES, line)

    @cached_property
    def _validation(self) -> Sequence[Clip]:
        return self.source.validation(self.config.validation_clips, self.model_config.image_size)

    def _validate(self, writer: SummaryWriter | None) -> None:
        """By the main process alone; the others wait at the next step."""
        if writer is None or not self._validation:
            return
        started = time.monotonic()
        average = self.stepper.average
        if self.config.precision == "float64":  # clips are float32
            average = copy.deepcopy(average).float()
        result = validate(
            average,
            self.texts,
            self._validation,
            self.world.device,
            temporal=self.config.temporal,
            presence_threshold=self.config.presence_threshold,
        )
        row = {"step": self.step, "seconds": round(time.monotonic() - started, 1), **result.scores}
        checkpoint.append_row(self.out / checkpoint.METRICS, row)
        tqdm.write(json.dumps(row))
        for name, value in result.scores.items():
            writer.add_scalar(f"validation/{name}", value, self.step)
        for kind, picture in result.overlays.items():
            writer.add_image(f"validation/{kind}", picture, self.step, dataformats="HWC")
        write_samples(self.out, result.samples, self.step)
        if (self.out / checkpoint.LOSSES).exists():
            plot(self.out, self.out / checkpoint.CURVES)


def _multiplies_bfloat16(device: torch.device, precision: Precision) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()
