"""What one process computes of each training step: every `world`-th clip, in micro-batches."""

from __future__ import annotations

from dataclasses import dataclass

from torch.utils.data import Dataset

from refavs_rt.dataset import DataError

from .batches import Batch, BatchConfig, BatchPlan, Clip, ClipSource, clip_rng, collate, plan_batch


@dataclass
class Share:
    """The clips of one step that one process computes."""

    plan: BatchPlan
    batches: list[Batch]
    """The micro-batches, as many in every process; none where a clip could not be had."""
    counted: list[bool]
    """Of each micro-batch: False where the process has no clip left and computes clip 0 beside the others, without weight."""
    faults: list[str]
    """Why clips could not be had, one message a clip."""


class Shares(Dataset[Share]):
    """Share number `step`, the same for the same seed whoever asks for it, so that a resumed run sees the same clips.

    Args:
        clips: where they come from.
        config: what a step is made of.
        seed: of plans and clips.
        rank, world: this process takes the clips `rank`, `rank + world`, ...
        micro_batch: clips that are computed at once, at most; 0: all of a process.
    """

    def __init__(
        self, clips: ClipSource, config: BatchConfig, seed: int, rank: int, world: int, micro_batch: int
    ) -> None:
        self.clips = clips
        self.config = config
        self.seed = seed
        self.rank = rank
        self.world = world
        self.micro_batch = micro_batch

    def __getitem__(self, step: int) -> Share:
        plan = plan_batch(self.config, self.seed, step)
        groups = split(plan.count, self.rank, self.world, self.micro_batch)
        batches: list[Batch] = []
        faults: list[str] = []
        for group in groups:
            drawn: list[tuple[Clip, int]] = []
            for index in group or [0]:
                try:
                    drawn.append(self._draw(plan, step, index))
                except (DataError, OSError) as error:
                    faults.append(f"clip {index} of step {step + 1}: {error}")
            if not faults:
                clips, seeds = zip(*drawn, strict=True)
                batches.append(collate(clips, plan.decode, seeds))
        return Share(plan, [] if faults else batches, [bool(group) for group in groups], faults)

    def _draw(self, plan: BatchPlan, step: int, index: int) -> tuple[Clip, int]:
        rng = clip_rng(self.seed, step, index)
        return self.clips.draw(plan, rng), int(rng.integers(2**63 - 1))


def split(count: int, rank: int, world: int, micro_batch: int) -> list[list[int]]:
    """The indices of a process in micro-batches, all processes in equally many; an empty one where it has no clip left.

    Equally many, because a batch norm over all processes meets them in every one.
    """
    indices = list(range(rank, count, world))
    most = -(-count // world)
    size = micro_batch or most
    return [indices[i * size : (i + 1) * size] for i in range(-(-most // size))]
