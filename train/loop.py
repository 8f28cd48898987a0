"""The training loop: AdamW, warm-up and cosine, clipping, an averaged copy of the weights, resume with the same loss curve."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from refavs_rt.config import ModelConfig
from refavs_rt.model.text import minilm_folder
from refavs_rt.tokenizer import Tokenizer

from . import checkpoint
from .batches import Batch, BatchConfig, SceneBatches
from .loss import LossConfig, NameSpace, clip_loss
from .material import Pack
from .scenes import SceneGenerator
from .texts import TextCache
from .validate import ValidationScenes, validate

DATA = (
    "generated scenes: photo cut-outs and sounds of the Tux Paint stamps, sounds and backgrounds of GCompris, melodies of the "
    "sound banks TimGM6mb and FluidR3; the frozen backbone is EfficientNet-Lite0 trained on ImageNet, the frozen sentence "
    "encoder all-MiniLM-L6-v2"
)
"""What the generated scenes and the frozen parts are made of, for manifests and model cards."""


@dataclass(frozen=True)
class TrainConfig:
    """One run."""

    steps: int = 2_500
    learning_rate: float = 6e-4
    warmup_steps: int = 100
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    average_decay: float = 0.998
    """Decay a step of the averaged weights; the average starts shorter: min(decay, (1 + step) / (10 + step))."""
    validate_every: int = 500
    validation_scenes: int = 40
    save_every: int = 100
    workers: int = 1
    seed: int = 0
    precision: str = "auto"
    """Of the products in forward and backward passes: "float32", "bfloat16", or "auto": bfloat16 where the device multiplies
    it in hardware. Weights, sums, softmax and losses stay float32."""
    image_size: int = 192
    """Side of the pictures that most of the training sees, in pixels."""
    full_size_share: float = 0.2
    """Share of the steps, the last ones, that see pictures of the model's own size."""
    batch: BatchConfig = dataclasses.field(default_factory=BatchConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)


class Trainer:
    """Trains one run in its folder; `run` goes on from where the folder stands."""

    def __init__(self, out: Path, model_config: ModelConfig, config: TrainConfig, pack: Pack) -> None:
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.out = out
        self.config = config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.half = _multiplies_bfloat16(self.device, config.precision)
        # Trained at the batch's size; the weights fit the model's own size as they are.
        self.model_config = model_config
        self.model = checkpoint.new_model(model_config).to(self.device)
        self.model.backbone.requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tokenizer = (minilm_folder() / "tokenizer.json").read_bytes()
        self.texts = TextCache(self.model.text_encoder, Tokenizer(self.tokenizer, model_config.text_tokens))
        names = pack.train_class_names
        embeddings = self.texts.sentence_embeddings(list(names))
        self.name_space = NameSpace(embeddings, model_config.pixel_width, model_config.width).to(self.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(self._groups(), lr=config.learning_rate, betas=(0.9, 0.98))
        self.step = 0
        scenes = SceneGenerator(pack, "train", seed=config.seed)
        self.material = {"data": DATA, "licence": "; ".join(sorted(_licences(pack)))}
        batch = dataclasses.replace(
            config.batch,
            image_size=config.image_size,
            late_image_size=model_config.image_size,
            late_from_step=round(config.steps * (1 - config.full_size_share)),
        )
        self.batches = SceneBatches(scenes, names, batch, config.seed)
        validation_scenes = SceneGenerator(pack, "val", seed=1)
        self.validation = ValidationScenes(
            validation_scenes, config.validation_scenes, model_config.image_size
        )
        if (out / checkpoint.RESUME).exists():
            self._resume()

    def run(self) -> None:
        """Train to the last step; every `save_every` steps and at the end the folder can be resumed."""
        config = self.config
        settings = {**self.material, "preset": self.model_config.preset, "train": dataclasses.asdict(config)}
        checkpoint.write_json(self.out / checkpoint.SETTINGS, settings)
        (self.out / checkpoint.TOKENIZER).write_bytes(self.tokenizer)
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=range(self.step, config.steps),
            num_workers=config.workers,
            prefetch_factor=3 if config.workers else None,
        )
        writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.step)
        bar = tqdm(
            loader, initial=self.step, total=config.steps, unit="step", desc="train", dynamic_ncols=True
        )
        smooth: dict[str, float] = {}
        for batch in bar:
            parts = self._train_step(batch)
            self.step += 1
            for name, value in parts.items():
                smooth[name] = value if name not in smooth else 0.98 * smooth[name] + 0.02 * value
            bar.set_postfix(loss=f"{smooth['total']:.3f}", refresh=False)
            if self.step % 10 == 0:
                for name, value in parts.items():
                    writer.add_scalar(f"loss/{name}", value, self.step)
                with (self.out / checkpoint.LOSSES).open("a") as log:
                    log.write(json.dumps({"step": self.step, "rate": self._rate(self.step), **smooth}) + "\n")
            if self.step % config.save_every == 0 or self.step == config.steps:
                self.save()
            if self.step % config.validate_every == 0 or self.step == config.steps:
                self._validate(writer)
        writer.close()

    def save(self) -> None:
        """Write the averaged weights and all that `_resume` needs."""
        checkpoint.save_weights(self.out, self.model_config, self.average.state_dict())
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        trained |= {name for name, _ in self.model.named_buffers() if "running_" in name}
        state = self.model.state_dict()
        checkpoint.save_resume(
            self.out,
            {
                "step": self.step,
                "model": {name: state[name] for name in sorted(trained)},
                "names": self.name_space.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def _resume(self) -> None:
        state = checkpoint.load_resume(self.out)
        self.model.load_state_dict(state["model"], strict=False)
        self.name_space.load_state_dict(state["names"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(checkpoint.load_model(self.out).state_dict())
        self.step = int(state["step"])

    def _train_step(self, batch: Batch) -> dict[str, float]:
        self.model.train()
        self.model.backbone.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(self.step)
        target = dataclasses.replace(
            batch.target,
            **{f.name: self._put(getattr(batch.target, f.name)) for f in dataclasses.fields(batch.target)},
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
        if torch.isfinite(norm):
            self.optimizer.step()
            self._average()
        return {name: float(value.detach()) for name, value in parts.items()} | {"grad_norm": float(norm)}

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

    def _validate(self, writer: SummaryWriter) -> None:
        started = time.monotonic()
        scores, picture = validate(self.average, self.texts, self.validation, self.device)
        row = {"step": self.step, "seconds": round(time.monotonic() - started, 1), **scores}
        with (self.out / checkpoint.METRICS).open("a") as log:
            log.write(json.dumps(row) + "\n")
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


def _multiplies_bfloat16(device: torch.device, precision: str) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


def _licences(pack: Pack) -> set[str]:
    recordings = {recording.licence for thing in pack.things for recording in thing.recordings}
    return recordings | {background.licence for background in pack.backgrounds}
