"""The training loop: AdamW, warm-up and cosine, clipping, an averaged copy of the weights, resume with the same loss curve."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from refavs_rt.config import ModelConfig
from refavs_rt.model.text import minilm_folder
from refavs_rt.tokenizer import Tokenizer

from . import checkpoint
from .batches import Batch, BatchConfig, Clip
from .checkpoint import CheckpointError
from .data_source import Source
from .loss import LossConfig, NameSpace, clip_loss
from .texts import TextCache
from .validate import validate

Precision = Literal["auto", "float32", "bfloat16"]
_LOG_EVERY = 10
"""Steps whose mean makes one line of the loss curve."""
_FAULTS = 30
"""Steps in a row without a finite gradient that end a run."""


class TrainingError(Exception):
    """A run that cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class TrainConfig:
    """One run."""

    steps: int = 2_900
    learning_rate: float = 6e-4
    warmup_steps: int = 100
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    average_decay: float = 0.998
    """Decay a step of the averaged weights; the average starts shorter: min(decay, (1 + step) / (10 + step))."""
    validate_every: int = 500
    validation_clips: int = 40
    save_every: int = 100
    """A multiple of 10."""
    workers: int = -1
    """Processes that make batches; -1: one for each core beyond the second, at most 8. On two cores none is fastest."""
    seed: int = 0
    precision: Precision = "auto"
    """Of the products in forward and backward passes. "auto": bfloat16 where the device multiplies it in hardware. Weights,
    sums, softmax and losses stay float32."""
    image_size: int = 192
    """Side of the pictures that most of the training sees, in pixels."""
    full_size_share: float = 0.2
    """Share of the steps, the last ones, that see pictures of the model's own size."""
    batch: BatchConfig = dataclasses.field(default_factory=BatchConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "save_every", "validate_every", "validation_clips"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.save_every % _LOG_EVERY:
            raise TrainingError(f"save_every must be a multiple of {_LOG_EVERY}, not {self.save_every}")
        if self.image_size < 32 or self.image_size % 32:
            raise TrainingError(f"image_size must be a multiple of 32, not {self.image_size}")
        if self.seed < 0:
            raise TrainingError(f"seed must be 0 or more, not {self.seed}")
        if not 0 < self.learning_rate < math.inf:
            raise TrainingError(f"learning_rate must be above 0, not {self.learning_rate}")


class Trainer:
    """Trains one run in its folder; `run` goes on from where the folder stands."""

    def __init__(self, out: Path, model_config: ModelConfig, config: TrainConfig, source: Source) -> None:
        """Make or resume a run.

        Raises:
            CheckpointError: the folder holds a run with other settings, or a damaged one.
        """
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.out = out
        self.config = config
        self.model_config = model_config
        self.source = source
        self.step = 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.half = _multiplies_bfloat16(self.device, config.precision)
        self.model = checkpoint.new_model(model_config).to(self.device)
        self.model.backbone.requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.tokenizer = (minilm_folder() / "tokenizer.json").read_bytes()
        self.texts = TextCache(self.model.text_encoder, Tokenizer(self.tokenizer, model_config.text_tokens))
        embeddings = self.texts.sentence_embeddings(list(source.names))
        self.name_space = NameSpace(embeddings, model_config.pixel_width, model_config.width).to(self.device)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=config.learning_rate, betas=(0.9, 0.98))
        # The weights fit any size: a network is trained on small pictures first and on its own size at last.
        batch = dataclasses.replace(
            config.batch,
            image_size=min(config.image_size, model_config.image_size),
            late_image_size=model_config.image_size,
            late_from_step=round(config.steps * (1 - config.full_size_share)),
        )
        self.batches = source.batches(batch, config.seed)
        self._faults = 0
        if (out / checkpoint.RESUME).exists():
            self._resume()
        for name in (
            checkpoint.LOSSES,
            checkpoint.METRICS,
        ):  # what came after the checkpoint is trained again
            checkpoint.drop_rows_after(out / name, self.step)

    def run(self) -> None:
        """Train to the last step; every `save_every` steps and at the end the folder can be resumed.

        Raises:
            TrainingError: the loss stays infinite or NaN.
            DataError: the data set has become unreadable.
        """
        config = self.config
        checkpoint.write_json(self.out / checkpoint.SETTINGS, self._settings())
        (self.out / checkpoint.TOKENIZER).write_bytes(self.tokenizer)
        workers = config.workers if config.workers >= 0 else min(8, max(0, len(os.sched_getaffinity(0)) - 2))
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=range(self.step, config.steps),
            num_workers=workers,
            prefetch_factor=3 if workers else None,
            pin_memory=self.device.type == "cuda",
        )
        writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.step)
        bar = tqdm(
            loader, initial=self.step, total=config.steps, unit="step", desc="train", dynamic_ncols=True
        )
        recent: list[dict[str, float]] = []
        for batch in bar:
            recent.append(self._train_step(batch))
            self.step += 1
            if self.step % _LOG_EVERY == 0 or self.step == config.steps:
                row = {name: sum(parts[name] for parts in recent) / len(recent) for name in recent[0]}
                recent.clear()
                bar.set_postfix(loss=f"{row['total']:.3f}", refresh=False)
                self._log(row, writer)
            # In this order: what is killed between the two is validated again, not left out.
            if self.step % config.validate_every == 0 or self.step == config.steps:
                self._validate(writer)
            if self.step % config.save_every == 0 or self.step == config.steps:
                self.save()
        writer.close()

    def save(self) -> None:
        """Write the averaged weights, and all that is needed to go on."""
        checkpoint.save_weights(self.out, self.model_config, self.average.state_dict())
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        trained |= {name for name, _ in self.model.named_buffers() if "running_" in name}
        model, average = self.model.state_dict(), self.average.state_dict()
        checkpoint.save_resume(
            self.out,
            {
                "step": self.step,
                "model": {name: model[name] for name in sorted(trained)},
                "average": {name: average[name] for name in sorted(trained)},
                "names": self.name_space.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def _resume(self) -> None:
        self._check_settings()
        state = checkpoint.load_resume(self.out)
        try:
            self.model.load_state_dict(state["model"], strict=False)
            self.average.load_state_dict(state["average"], strict=False)
            self.name_space.load_state_dict(state["names"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{self.out / checkpoint.RESUME} is of another network or data set ({error}); give another --out"
            ) from error

    def _check_settings(self) -> None:
        """The settings that the folder's run was started with are those given now: else its curve would have no meaning."""
        path = self.out / checkpoint.SETTINGS
        try:
            before = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); give another --out") from error
        now = json.loads(json.dumps(self._settings()))
        for name in ("workers", "validate_every", "validation_clips", "save_every"):  # change no weight
            for settings in (before, now):
                settings.get("train", {}).pop(name, None)
        changed = _first_difference(before, now)
        if changed:
            name, old, new = changed
            raise CheckpointError(
                f"{self.out} was started with {name} = {old}, not {new}: give the same settings, or another --out"
            )

    def _settings(self) -> dict[str, Any]:
        return {
            **self.source.material,
            "preset": self.model_config.preset,
            "train": dataclasses.asdict(self.config),
        }

    def _train_step(self, batch: Batch) -> dict[str, float]:
        self.model.train()
        self.model.backbone.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(self.step)
        fields = dataclasses.fields(batch.target)
        target = dataclasses.replace(
            batch.target, **{f.name: self._put(getattr(batch.target, f.name)) for f in fields}
        )
        ids, mask, hidden = (self._put(x) for x in self.texts(batch.texts))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            output = self.model.forward_clip(
                self._put(batch.frames),
                self._put(batch.log_mel),
                self._put(batch.has_sound),
                ids,
                mask,
                decode_ticks=batch.decode_ticks,
                text_hidden=hidden,
            )
            parts = clip_loss(output, target, self.name_space, self.config.loss)
        self.optimizer.zero_grad(set_to_none=True)
        parts["total"].backward()
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(trained, self.config.clip_norm)
        self._faults = 0 if torch.isfinite(norm) else self._faults + 1
        if self._faults == 0:
            self.optimizer.step()
            self._average()
        else:
            self._restore_running_means()
        if self._faults >= _FAULTS:
            raise TrainingError(
                f"no finite gradient for {_FAULTS} steps, up to step {self.step}: start anew with a lower --learning-rate"
                " or with --precision float32"
            )
        return {name: float(value.detach()) for name, value in parts.items()} | {"grad_norm": float(norm)}

    @torch.no_grad()
    def _restore_running_means(self) -> None:
        """Batch norms as they were after the last good step: one infinite activation would stay in them for ever."""
        good = dict(self.average.named_buffers())
        for name, buffer in self.model.named_buffers():
            if "running_" in name:
                buffer.copy_(good[name])

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.average_decay, (1 + self.step) / (10 + self.step))
        current = dict(self.model.named_parameters())
        for name, value in self.average.named_parameters():
            if current[name].requires_grad:
                value.lerp_(current[name], 1 - decay)
        buffers = dict(self.model.named_buffers())
        for name, buffer in self.average.named_buffers():
            if "running_" in name:
                buffer.copy_(buffers[name])

    @cached_property
    def _validation(self) -> Sequence[Clip]:
        return self.source.validation(self.config.validation_clips, self.model_config.image_size)

    def _log(self, row: dict[str, float], writer: SummaryWriter) -> None:
        for name, value in row.items():
            writer.add_scalar(f"loss/{name}", value, self.step)
        line = {"step": self.step, "rate": self._rate(self.step - 1), **row}
        checkpoint.append_row(self.out / checkpoint.LOSSES, line)

    def _validate(self, writer: SummaryWriter) -> None:
        started = time.monotonic()
        if not self._validation:
            return
        scores, picture = validate(self.average, self.texts, self._validation, self.device)
        row = {"step": self.step, "seconds": round(time.monotonic() - started, 1), **scores}
        checkpoint.append_row(self.out / checkpoint.METRICS, row)
        tqdm.write(json.dumps(row))
        for name, value in scores.items():
            writer.add_scalar(f"validation/{name}", value, self.step)
        writer.add_image("validation/overlay", picture, self.step, dataformats="HWC")

    def _groups(self) -> list[dict[str, object]]:
        """Decay on matrices only, not on biases, norms and tokens."""
        parameters = [p for m in (self.model, self.name_space) for p in m.parameters() if p.requires_grad]
        return [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]

    def _rate(self, step: int) -> float:
        config = self.config
        if step < config.warmup_steps:
            return config.learning_rate * (step + 1) / config.warmup_steps
        progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

    def _put(self, x: Tensor) -> Tensor:
        return x.to(self.device, non_blocking=True)


def _multiplies_bfloat16(device: torch.device, precision: Precision) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


def _first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The dotted name and both values of the first setting in which two trees of settings differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            found = _first_difference(before.get(key), now.get(key), f"{name}.{key}".strip("."))
            if found:
                return found
        return None
    return None if before == now else (name, before, now)
