"""One step of training: micro-batches, processes, and what happens when a clip or a loss is bad."""

from __future__ import annotations

import copy
import dataclasses
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from refavs_rt.model.eemc import EEMC, ClipOutput

from .batches import Batch
from .distributed import World
from .loss import COUNT_NAMES, LossConfig, NameSpace, Target, clip_loss, finite_clips, loss_counts
from .shares import Share
from .texts import TextCache
from .train_config import TrainConfig, TrainingError


@dataclass(frozen=True)
class Skipped:
    """Why a step was left out, the same in all processes."""

    why: str
    samples: list[str]
    """Names of the bad clips, or messages that name them."""


@dataclass(frozen=True)
class StepResult:
    """What a step has shown."""

    parts: dict[str, Tensor]
    """The parts of the loss; their sums over all processes are those of the step."""
    grad_norm: float
    """Of the whole step."""


class LossModule(nn.Module):
    """Network and loss in one forward pass, so that DistributedDataParallel sees all that trains."""

    def __init__(self, model: EEMC, names: NameSpace, config: TrainConfig, in_bfloat16: bool) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.config: LossConfig = config.loss_weights
        self.temporal = config.temporal
        self.in_bfloat16 = in_bfloat16
        """Of the products."""

    def forward(
        self, batch: Batch, texts: tuple[Tensor, Tensor, Tensor], counts: Tensor | None
    ) -> dict[str, Tensor]:
        """The weighted parts of the loss over `counts` and their `total`; `texts` as `TextCache` makes them."""
        with torch.autocast(batch.frames.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            parts = clip_loss(self.predict(batch, texts), batch.target, self.names, self.config, counts)
        # DistributedDataParallel waits for the gradient of every parameter: what a loss does not use has a gradient of zero.
        parts["total"] = parts["total"] + 0 * sum(p.sum() for p in self.parameters() if p.requires_grad)
        return parts

    def predict(self, batch: Batch, texts: tuple[Tensor, Tensor, Tensor]) -> ClipOutput:
        """What the network says of the decoded ticks."""
        ids, mask, hidden = texts
        return self.model.forward_clip(
            batch.frames,
            batch.log_mel,
            batch.has_sound,
            ids,
            mask,
            temporal=self.temporal,
            decode_ticks=batch.decode_ticks,
            text_hidden=hidden,
        )


def is_norm(buffer: str) -> bool:
    """Whether a buffer of that name is a running statistic of a batch norm."""
    return "running_" in buffer


class Stepper:
    """Network, averaged network and optimiser, and the step that moves them.

    All clips of a step count alike, however they are cut into micro-batches and shared out to processes: what the parts of
    the loss are divided by is summed over all of them first. Batch norms that are not frozen are the one exception: each
    micro-batch has its own statistics, or on several GPUs the micro-batches of one moment together (SyncBatchNorm); of
    processes on CPUs the statistics of the main one are kept.
    """

    def __init__(
        self,
        model: EEMC,
        names: NameSpace,
        texts: TextCache,
        config: TrainConfig,
        world: World,
        *,
        in_bfloat16: bool,
    ) -> None:
        self.config = config
        self.world = world
        self.texts = texts
        self.dtype = model.queries.dtype
        if world.size > 1 and world.device.type == "cuda" and not config.freeze_batch_norm:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        shared = {id(p): p for p in self.model.parameters() if not p.requires_grad}
        self.average: EEMC = copy.deepcopy(self.model, shared).requires_grad_(False).eval()
        self.module = LossModule(self.model, names.to(world.device, self.dtype), config, in_bfloat16)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=config.learning_rate, betas=(0.9, 0.98))
        self.faults = 0
        """Steps in a row that were left out, up to now."""
        self._wrapped: nn.Module = self.module
        if world.size > 1:
            devices = [world.device] if world.device.type == "cuda" else None
            with world.guard():
                self._wrapped = DistributedDataParallel(self.module, devices, forward_sync_buffers=False)

    def step(self, share: Share, number: int, save: bool) -> tuple[StepResult | Skipped, bool]:
        """Train on one step's clips.

        Args:
            share: this process's part of them.
            number: of the step, from 0.
            save: the main process has reason to save soon.

        Returns:
            what the step has shown or why it was left out, and the main process's `save`, now known to all.

        Raises:
            DistributedError: another process is lost.
        """
        counts, faulty, save = self._agree(share, save)
        if faulty:
            self.faults += 1
            samples = self.world.gather(share.faults)
            return Skipped("a clip cannot be read", list(dict.fromkeys(samples))), save
        self._train_mode()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(number)
        parts, norm = self._gradients(share, counts, number)
        if math.isfinite(norm):
            self.faults = 0
            self.optimizer.step()
            self._move_average(number)
            return StepResult(parts, norm), save
        self.faults += 1
        self._restore_norms()
        return Skipped("the loss or its gradient is no finite number", self._culprits(share)), save

    def check_faults(self, number: int, last: Skipped) -> None:
        """End a run that leaves out step after step.

        Raises:
            TrainingError: `max_faults` in a row, up to and with step `number`, counted from 0, whose fault was `last`.
        """
        if self.faults < self.config.max_faults:
            return
        raise TrainingError(
            f"{self.faults} steps in a row were left out, up to step {number + 1}: {last.why} ({'; '.join(last.samples[:3])}). "
            "The last checkpoint is kept. Mend the clips that skipped.jsonl names, or start anew with a lower --learning-rate "
            "or with --precision float32"
        )

    def rate(self, step: int) -> float:
        """The step size of step number `step`, from 0: warm-up, then a cosine."""
        config = self.config
        if step < config.warmup_steps:
            return config.learning_rate * (step + 1) / config.warmup_steps
        progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

    def _agree(self, share: Share, save: bool) -> tuple[Tensor, bool, bool]:
        """The counts of the whole step, whether any process lacks a clip, and the main process's `save`: in one message."""
        counts = torch.zeros(len(COUNT_NAMES), dtype=torch.float64)
        for batch, counted in zip(share.batches, share.counted, strict=False):
            if counted:
                counts += loss_counts(batch.target, self.module.config)
        flags = torch.tensor([len(share.faults), save and self.world.is_main], dtype=torch.float64)
        message = self.world.sum(torch.cat([counts, flags]))
        return message[:-2].to(self.world.device), bool(message[-2] > 0), bool(message[-1] > 0)

    def _gradients(self, share: Share, counts: Tensor, number: int) -> tuple[dict[str, Tensor], float]:
        """Gradients of the whole step, in place; this process's parts of the loss, and the norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        last = len(share.batches) - 1
        for i, (batch, counted) in enumerate(zip(share.batches, share.counted, strict=True)):
            self._seed(number, i)
            with self._without_sum() if i < last else nullcontext(), self.world.guard():
                parts = self._wrapped(self._put(batch), self._put_texts(batch), counts)
                # The mean over processes that DistributedDataParallel takes becomes the sum.
                (parts["total"] * (self.world.size if counted else 0)).backward()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0) + value.detach() * (1 if counted else 0)
        norm = nn.utils.clip_grad_norm_(self._trained(), self.config.clip_norm)
        return sums, float(norm)

    @torch.no_grad()
    def _culprits(self, share: Share) -> list[str]:
        """Names of the clips of all processes that the network makes no finite numbers of; where none is, all of the step."""
        self.module.eval()
        bad, everything = [], []
        for batch, counted in zip(share.batches, share.counted, strict=True):
            if counted:
                batch = self._put(batch)
                finite = finite_clips(self.module.predict(batch, self._put_texts(batch)), batch.target)
                everything += batch.names
                bad += [name for name, good in zip(batch.names, finite.tolist(), strict=True) if not good]
        return self.world.gather(bad) or self.world.gather(everything)

    def _without_sum(self) -> AbstractContextManager[Any]:
        """Gradients stay in this process."""
        wrapped = self._wrapped
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def _seed(self, number: int, micro_batch: int) -> None:
        """Whatever the network draws by chance depends on the step, so a resumed run draws the same."""
        key = (self.config.seed, number, self.world.rank, micro_batch)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def _train_mode(self) -> None:
        self.module.train()
        self.model.backbone.eval()
        if self.config.freeze_batch_norm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _put(self, batch: Batch) -> Batch:
        target = batch.target
        moved = {f.name: self._move(getattr(target, f.name)) for f in dataclasses.fields(Target)}
        return dataclasses.replace(
            batch,
            frames=self._move(batch.frames),
            log_mel=self._move(batch.log_mel),
            has_sound=self._move(batch.has_sound),
            target=dataclasses.replace(target, **moved),
        )

    def _put_texts(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        ids, mask, hidden = (self._move(x) for x in self.texts(batch.texts))
        return ids, mask, hidden

    def _move(self, tensor: Tensor) -> Tensor:
        dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self.world.device, dtype, non_blocking=True)

    @torch.no_grad()
    def _restore_norms(self) -> None:
        """Batch norms as they were after the last good step: one infinite activation would stay in them for ever."""
        good = dict(self.average.named_buffers())
        for name, buffer in self.model.named_buffers():
            if is_norm(name):
                buffer.copy_(good[name])

    @torch.no_grad()
    def _move_average(self, number: int) -> None:
        decay = min(self.config.average_decay, (1 + number) / (10 + number))
        current = dict(self.model.named_parameters())
        for name, value in self.average.named_parameters():
            if current[name].requires_grad:
                value.lerp_(current[name], 1 - decay)
        buffers = dict(self.model.named_buffers())
        for name, buffer in self.average.named_buffers():
            if is_norm(name):
                buffer.copy_(buffers[name])

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.module.parameters() if p.requires_grad]

    def _groups(self) -> list[dict[str, object]]:
        """Decay on matrices, learned tokens among them; not on biases and norms."""
        trained = self._trained()
        return [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ]
