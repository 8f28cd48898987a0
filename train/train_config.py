"""How one run is trained: every setting once, with its unit. The command line's flags and their help are made from it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from refavs_rt.config import RunConfig
from refavs_rt.model.eemc import TrainedParameters

from .batches import BatchConfig
from .distributed import DeviceChoice
from .loss import AUTHORS_LOSS, PAPER_LOSS, LossConfig

Precision = Literal["auto", "float32", "bfloat16", "float64"]
LossChoice = Literal["dense", "paper", "authors"]
LOG_EVERY = 10
"""Steps whose mean makes one line of the loss curve."""


class TrainingError(Exception):
    """A run that cannot go on; the message says why and what to do. All processes raise it together."""


@dataclass(frozen=True)
class TrainConfig:
    """One run."""

    steps: int = 2_900
    """Steps of the optimiser in the whole run."""
    seed: int = 0
    """Of the first weights, of the clips that are drawn, and of the points that the loss samples."""
    weights: str | None = None
    """A folder that `import-weights` wrote, for the parts that are published; what it lacks, or all of them without it, comes
    from the installed packages or from the hub. "random": no part is published."""
    loss: LossChoice | LossConfig = "dense"
    """What is minimised: the paper's loss; "dense", which classifies pixels, sounds and cues beside it; "authors", the published
    code's, which has no presence: evaluate it with --presence-threshold 0."""
    trained: TrainedParameters = "preset"
    """Which parameters train: those that the preset means to be trained, or only those that the published code trains."""
    temporal: Literal["band", "full"] = "band"
    """What a tick of the memory sees: the last ticks of its window, as a stream does, or the whole clip, as in the paper."""
    precision: Precision = "auto"
    """Of the products in forward and backward passes; "auto": bfloat16 where the device multiplies it in hardware. Weights,
    sums, softmax and losses stay float32; with "float64" all is float64."""

    learning_rate: float = 6e-4
    """Highest step size of AdamW, at the end of the warm-up; from there it falls by a cosine to 2% of it."""
    warmup_steps: int = 100
    """Steps in which the step size rises to its highest."""
    weight_decay: float = 0.02
    """Of AdamW, on matrices only."""
    clip_norm: float = 1.0
    """Gradients are shortened to this norm."""
    average_decay: float = 0.998
    """Decay a step of the averaged weights; the average starts shorter: min(decay, (1 + step) / (10 + step))."""
    freeze_batch_norm: bool = False
    """Batch norms keep the statistics they start with, so that clips do not depend on those beside them."""
    max_faults: int = 30
    """Steps in a row that are left out, for a loss that is no number or clips that cannot be read, until the run stops."""

    image_size: int = 192
    """Side of the pictures that most of the training sees, in pixels, at most the model's own."""
    full_size_share: float = 0.2
    """Share of the steps, the last ones, that see pictures of the model's own size."""
    batch: BatchConfig = dataclasses.field(default_factory=BatchConfig)
    """What a step is made of."""

    validate_every: int = 500
    """Steps between validations."""
    validation_clips: int = 40
    """Clips of a validation, at most."""
    save_every: int = 100
    """Steps between checkpoints, a multiple of 10."""
    save_every_minutes: float = 10.0
    """Minutes after which a checkpoint is written at the next tenth step, if none was before; 0: only by steps."""
    minutes: float = 0.0
    """Minutes after which the run saves at the next tenth step and stops, to go on another time; 0: at its last step alone."""

    micro_batch: int = 0
    """Clips that a process computes at once, at most; gradients are summed over them. 0: all of a step. The loss does not depend
    on it, but for batch norms that are not frozen."""
    workers: int = -1
    """Processes that draw clips, for each training process; -1: one for each core beyond the second, at most 8 on each GPU's
    behalf. On two cores none is fastest."""
    threads: int = 0
    """Threads of torch on a CPU, for each process; 0: its own choice."""
    device: DeviceChoice = "auto"
    """"auto": the GPUs if there are any."""
    timeout_minutes: float = 30.0
    """Minutes after which a process that others wait for is given up; longer than a validation takes."""

    def __post_init__(self) -> None:
        for name in ("steps", "save_every", "validate_every", "validation_clips", "max_faults"):
            self._at_least(name, 1)
        for name in (
            "seed",
            "warmup_steps",
            "weight_decay",
            "micro_batch",
            "threads",
            "save_every_minutes",
            "minutes",
        ):
            self._at_least(name, 0)
        self._at_least("workers", -1)
        for name in ("learning_rate", "clip_norm", "timeout_minutes"):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.save_every % LOG_EVERY:
            raise TrainingError(f"save_every must be a multiple of {LOG_EVERY}, not {self.save_every}")
        if self.image_size < 32 or self.image_size % 32:
            raise TrainingError(f"image_size must be a multiple of 32, not {self.image_size}")
        if not 0 <= self.average_decay < 1:
            raise TrainingError(f"average_decay must be in [0, 1), not {self.average_decay}")
        if not 0 <= self.full_size_share <= 1:
            raise TrainingError(f"full_size_share must be in [0, 1], not {self.full_size_share}")
        for name in ("scale", "sentences", "decoded_ticks"):
            if getattr(self.batch, name) < 1:
                raise TrainingError(f"{name} must be 1 or more, not {getattr(self.batch, name)}")
        for name in ("muted", "no_track", "dataset_pairing"):
            if not 0 <= getattr(self.batch, name) <= 1:
                raise TrainingError(f"{name} must be in [0, 1], not {getattr(self.batch, name)}")

    @property
    def presence_threshold(self) -> float:
        """For validation: 0 where nothing trains the presence head."""
        untrained = self.trained == "authors" or not self.loss_weights.presence
        return 0.0 if untrained else RunConfig().presence_threshold

    @property
    def loss_weights(self) -> LossConfig:
        """The weights of the parts of the loss."""
        if isinstance(self.loss, LossConfig):
            return self.loss
        return {"dense": LossConfig(), "paper": PAPER_LOSS, "authors": AUTHORS_LOSS}[self.loss]

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if not value >= least:
            raise TrainingError(f"{name} must be {least} or more, not {value}")


_WHOLE_CLIPS = ((10, 2),)
DEFAULTS = {
    "edge": TrainConfig(),
    "full": TrainConfig(
        steps=60_000,
        loss="paper",
        learning_rate=1e-4,
        warmup_steps=500,
        average_decay=0.9995,
        image_size=384,
        batch=BatchConfig(
            shapes=_WHOLE_CLIPS,
            late_shapes=_WHOLE_CLIPS,
            decoded_ticks=10,
            muted=0,
            no_track=0,
            dataset_pairing=1.0,
        ),
        temporal="full",
        validate_every=2_000,
        save_every=500,
    ),
    "test": TrainConfig(),
}
"""How each preset is trained if nothing else is said. For `full` as in the paper: whole clips, all of which a tick sees, paired
with sound as the data set does; the published step size and, at two clips of six sentences a step, as many sentences as the
published code's 50 rounds over the table have."""

GROUPS: dict[str, tuple[str, ...]] = {
    "run": ("steps", "seed", "weights", "loss", "trained", "temporal", "precision"),
    "optimiser": (
        "learning_rate",
        "warmup_steps",
        "weight_decay",
        "clip_norm",
        "average_decay",
        "freeze_batch_norm",
        "max_faults",
    ),
    "data": ("image_size", "full_size_share", "batch"),
    "checkpoints": ("validate_every", "validation_clips", "save_every", "save_every_minutes", "minutes"),
    "scale": ("micro_batch", "workers", "threads", "device", "timeout_minutes"),
}
"""The fields of `TrainConfig` as the help shows them."""

BATCH_FLAGS = ("scale", "sentences", "decoded_ticks", "muted", "no_track", "dataset_pairing")
"""The fields of `TrainConfig.batch` that are flags."""

CHANGE_NO_WEIGHT = frozenset((*GROUPS["checkpoints"], *GROUPS["scale"], "max_faults"))
"""What may be given anew when a run goes on."""
