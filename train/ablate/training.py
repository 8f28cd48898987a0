"""Experiments by training again: the network without a part, or without a modality, each from the same start."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from refavs_rt.config import EDGE, ModelConfig
from refavs_rt.model.run_folder import WEIGHTS

from .. import checkpoint
from ..data_source import SceneSource, Source
from ..disk_batches import DiskSource
from ..loop import TrainConfig, Trainer
from ..loss import LossConfig
from ..predict import Predictor, TorchPredictor
from ..starting_weights import starting_model
from .clips import EvaluationClip, measure, observe, open_clips, told
from .observation import Context, Experiment, Observation, Progress

START, FINISHED = "start", "finished.json"
_PARTS = {"memory": "cached_memory", "tokens": "modality_tokens", "attention": "prompt_attention"}
_CUES = {"audio": "audio_cues", "vision": "visual_cues", "text": "text_cues"}


@dataclass(frozen=True)
class Variant:
    """A network to train."""

    name: str
    """Of the condition in tables and of the run's folder."""
    off: tuple[str, ...] = ()
    """Switches of the ModelConfig that are turned off."""
    untaught: tuple[str, ...] = ()
    """Parts of the dense loss, fields of LossConfig, that weigh nothing."""
    sentences: int | None = None
    """Of a clip in training; None: as many as usual."""
    seed: int = 0


ALL, AGAIN = Variant("all"), Variant("all-seed-1", seed=1)
"""The whole network, and the same trained with another seed: what differs between these two is chance."""
COMPONENTS = (
    ALL,
    AGAIN,
    *(Variant(f"without-{name}", (switch,)) for name, switch in _PARTS.items()),
    Variant("without-all-three", tuple(_PARTS.values())),
)
MODALITIES = (
    ALL,
    AGAIN,
    *(
        Variant("only-" + "-".join(kept), tuple(s for name, s in _CUES.items() if name not in kept))
        for kept in (
            ("text",),
            ("vision",),
            ("audio",),
            ("vision", "text"),
            ("audio", "text"),
            ("audio", "vision"),
        )
    ),
)
SUPERVISION = (
    ALL,
    AGAIN,
    *(
        Variant(f"without-{name}", untaught=parts)
        for name, parts in {
            "pixel-names": ("pixel_names",),
            "sound-names": ("sound_names",),
            "referent-names": ("referent_names",),
            "cue-masks": ("cue_masks",),
            "inner-layers": ("inner_layers",),
            "all-of-these": ("pixel_names", "sound_names", "referent_names", "cue_masks", "inner_layers"),
        }.items()
    ),
    Variant("one-sentence", sentences=1),
)


@dataclass(frozen=True)
class TrainingSettings:
    """How each variant is trained."""

    steps: int = 500
    """Steps of each variant."""
    image_size: int = 128
    """Side of the pictures in pixels, a multiple of 32."""
    runs: Path = Path("runs/ablate")
    """Where the variants' run folders are; finished ones are not trained again, killed ones go on."""

    def model(self, variant: Variant) -> ModelConfig:
        """The network of a variant."""
        off: dict[str, Any] = dict.fromkeys(variant.off, False)
        return dataclasses.replace(EDGE, image_size=self.image_size, **off)

    def train(self, variant: Variant) -> TrainConfig:
        """Its training: `edge`'s, shortened."""
        weights: dict[str, Any] = dict.fromkeys(variant.untaught, 0.0)
        usual = TrainConfig().batch
        return TrainConfig(
            loss=dataclasses.replace(LossConfig(), **weights),
            batch=dataclasses.replace(usual, sentences=variant.sentences or usual.sentences),
            steps=self.steps,
            warmup_steps=max(1, self.steps // 10),
            image_size=self.image_size,
            full_size_share=0.0,
            average_decay=0.99,
            validate_every=self.steps,
            validation_clips=24,
            seed=variant.seed,
        )


@dataclass(frozen=True)
class Retraining:
    """An experiment: what is trained, and what must be known to read the result."""

    variants: tuple[Variant, ...]
    title: str
    note: str


RETRAININGS = {
    "components": Retraining(
        COMPONENTS,
        "Components: cached memory, modality tokens, prompt attention",
        "without-memory: f' = f; without-tokens: no aud and vis among the cues; without-attention: the queries get the gated "
        "mean of the cues alone",
    ),
    "modalities": Retraining(
        MODALITIES,
        "Modalities: cues from sound, picture and sentence, alone and in pairs",
        "a withheld modality reaches no cue: sound is as without a track, visual tokens are zeros, every sentence is the "
        "same one; the mask decoder sees the pixels in every variant, so without visual cues it can still segment",
    ),
    "supervision": Retraining(
        SUPERVISION,
        "Supervision: what each part of the dense loss teaches",
        "without-pixel-names, without-sound-names, without-referent-names: no classification of pixels, of sounds, of mean "
        "cues against the names of all objects; without-cue-masks: no coarse mask read off the visual cues; "
        "without-inner-layers: the sentence's mask is judged after the last decoder layer alone; one-sentence: a clip "
        "teaches one sentence, not six, at nearly the same cost",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of experiments by training again."""
    usual = TrainingSettings()
    parser.add_argument(
        "--steps", type=int, default=usual.steps, metavar="N", help="of each variant; default: %(default)s"
    )
    parser.add_argument(
        "--image-size",
        type=int,
        default=usual.image_size,
        metavar="PX",
        help="side of the pictures, a multiple of 32; default: %(default)s",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=usual.runs,
        metavar="DIR",
        help="where the runs are kept: finished ones are not trained again, killed ones go on; default: %(default)s",
    )


def run(context: Context, progress: Progress) -> Experiment:
    """Train the variants of the experiment that `context` names, where they are not yet, and evaluate all on the same clips.

    Raises:
        CheckpointError, DataError, MaterialError, TrainingError: a run or the clips cannot be had.
    """
    chosen, options = RETRAININGS[context.name], context.options
    settings = TrainingSettings(options.steps, options.image_size, options.runs)
    source: Source = SceneSource(context.pack()) if context.data is None else DiskSource(context.data)
    folders = train_variants(chosen.variants, source, settings)
    clips = open_clips(context, settings.image_size)
    observations: list[Observation] = []
    for variant in chosen.variants:
        predictor = TorchPredictor(folders[variant.name])
        observations += measure(clips, progress, partial(_observe, predictor, variant.name))
    return Experiment(
        context.name,
        chosen.title,
        "J",
        None,
        ALL.name,
        observations,
        [
            *told(clips),
            f"each variant trained {settings.steps} steps on pictures of {settings.image_size} px, the backbone frozen, from the "
            f"same random start and the same clips; {AGAIN.name} has another start and other clips: what it differs by from "
            f"{ALL.name} is chance, which the intervals, over clips, do not hold",
            chosen.note,
        ],
    )


def _observe(predictor: Predictor, condition: str, clip: EvaluationClip) -> list[Observation]:
    return observe(predictor, clip, condition)


def train_variants(
    variants: Sequence[Variant], source: Source, settings: TrainingSettings
) -> dict[str, Path]:
    """Train what is not trained yet; returns each variant's run folder by its name.

    Variants of the same seed share their start: the weights that the whole network begins with.

    Raises:
        CheckpointError: a folder holds a run with other settings.
        TrainingError: a run failed.
    """
    folders = {variant.name: settings.runs / variant.name for variant in variants}
    for number, variant in enumerate(variants, 1):
        folder = folders[variant.name]
        if _is_finished(folder, settings, variant):
            print(f"{variant.name} ({number} of {len(variants)}): trained already, in {folder}", flush=True)
            continue
        print(f"{variant.name} ({number} of {len(variants)}): training in {folder}", flush=True)
        start = _shared_start(settings, variant.seed)
        trainer = Trainer(folder, settings.model(variant), settings.train(variant), source, start=start)
        trainer.run()
        checkpoint.write_json(folder / FINISHED, _done(settings, variant))
    return folders


def _shared_start(settings: TrainingSettings, seed: int) -> Path:
    """A run folder with the random weights that the whole network begins with, written once."""
    folder = settings.runs / f"{START}-{seed}"
    if not (folder / WEIGHTS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        whole = settings.model(ALL)
        checkpoint.save_weights(folder, whole, starting_model(whole)[0].state_dict())
    return folder


def _done(settings: TrainingSettings, variant: Variant) -> dict[str, object]:
    return {
        "steps": settings.steps,
        "image_size": settings.image_size,
        "off": list(variant.off),
        "untaught": list(variant.untaught),
        "sentences": variant.sentences,
        "seed": variant.seed,
    }


def _is_finished(folder: Path, settings: TrainingSettings, variant: Variant) -> bool:
    try:
        found = json.loads((folder / FINISHED).read_text())
    except (OSError, ValueError):
        return False
    return bool(found == _done(settings, variant))
