"""One process of a training with several, for tests: `python -m tests.rank_job JOB.json`, started by `two_processes.py`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from refavs_rt.config import TEST
from refavs_rt.dataset import DataError
from refavs_rt.train.batches import BatchConfig, BatchPlan, Clip, SceneClips
from refavs_rt.train.data_source import SceneSource
from refavs_rt.train.distributed import DistributedError, SharedError, World, open_world
from refavs_rt.train.loop import TrainConfig, Trainer, TrainingError
from refavs_rt.train.material import Pack

MODEL = replace(TEST, text_tokens=25)
"""The `test` preset, with room for the sentences of scenes."""


class FaultyScenes(SceneSource):
    """Scenes of which some cannot be read and some are not numbers, by name; "all" is every one. None is for validation."""

    def __init__(self, pack: Pack, unreadable: Sequence[str] = (), nan: Sequence[str] = ()) -> None:
        super().__init__(pack)
        self.unreadable = unreadable
        self.nan = nan

    def clips(self, config: BatchConfig) -> SceneClips:
        return _FaultyClips(super().clips(config), self)

    def validation(self, count: int, image_size: int) -> list[Clip]:
        return []


class _FaultyClips(SceneClips):
    """Draws each clip once in a process, however many trainings ask for it."""

    known: ClassVar[dict[str, tuple[Clip, dict[str, Any]]]] = {}

    def __init__(self, whole: SceneClips, source: FaultyScenes) -> None:
        super().__init__(whole.scenes, tuple(whole.names), whole.config)
        self.source = source

    def draw(self, plan: BatchPlan, rng: np.random.Generator) -> Clip:
        key = f"{plan} {rng.bit_generator.state}"
        if key not in self.known:
            self.known[key] = super().draw(plan, rng), dict(rng.bit_generator.state)
        clip, rng.bit_generator.state = self.known[key]
        if clip.name in self.source.unreadable:
            raise DataError(f"{clip.name} is damaged")
        if clip.name in self.source.nan or "all" in self.source.nan:
            return replace(clip, frames=clip.frames * np.float32(np.nan))
        return clip


def make_trainer(job: dict[str, Any], pack: Path, world: World | None = None) -> Trainer:
    """The trainer of a job: `out`, settings `config` and `batch`, `faults`, and `starts`: each process's run to begin with."""
    config = TrainConfig(**job["config"], batch=BatchConfig(**job["batch"]))
    source = FaultyScenes(Pack.load(pack), **job.get("faults", {}))
    start = job["starts"][world.rank] if world and "starts" in job else None
    return Trainer(Path(job["out"]), MODEL, config, source, world, start and Path(start))


def record(trainer: Trainer, names: Path, die_at: int | None = None) -> None:
    """Write the names of each step's clips to `names`; at step `die_at` the process kills itself."""
    whole = trainer.stepper.step

    def step(share: Any, number: int, save: bool) -> Any:
        if number == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        counted = [n for b, c in zip(share.batches, share.counted, strict=False) if c for n in b.names]
        with names.open("a") as log:
            log.write(json.dumps({"step": number, "names": counted}) + "\n")
        return whole(share, number, save)

    trainer.stepper.step = step  # type: ignore[method-assign]


def _run(job: dict[str, Any], pack: Path, world: World) -> str | None:
    """The message of the error that ended the training, if one did."""
    try:
        trainer = make_trainer(job, pack, world)
        die_at = job.get("die_at") if world.rank == world.size - 1 else None
        record(trainer, Path(f"{job['out']}-names-{world.rank}.jsonl"), die_at)
        trainer.run()
    except (TrainingError, DistributedError, SharedError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _wait_in_vain(said: Path) -> str | None:
    """A barrier that the last process does not come to before the first has `said` so."""
    try:
        with open_world("cpu", timeout_minutes=0.08) as world:
            if world.rank == world.size - 1:
                while not said.exists():
                    time.sleep(0.1)
                os._exit(0)
            world.barrier()
    except DistributedError as error:
        return str(error)
    return None


def main(path: Path) -> None:
    """Run all jobs of the file, one after another, and write what ended each."""
    content = json.loads(path.read_text())
    said = path.with_suffix(f".{os.environ.get('RANK', 0)}")
    errors: list[str | None] = []
    with open_world("cpu", timeout_minutes=5) as world:
        for job in content["jobs"]:
            errors.append(_run(job, Path(content["pack"]), world))
    if content.get("wait_in_vain"):
        os.environ["MASTER_PORT"] = content["wait_in_vain"]
        errors.append(_wait_in_vain(path.with_suffix(".0")))
    said.write_text(json.dumps(errors))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
