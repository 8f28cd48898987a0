"""Training with several processes, real ones that speak gloo: it computes what one computes, goes on after a kill, leaves out
what is bad by agreement, and never hangs."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from refavs_rt.train.checkpoint import LOSSES, RESUME, SKIPPED, load_model
from refavs_rt.train.cli import main
from refavs_rt.train.distributed import DistributedError, open_world
from refavs_rt.train.step import Stepper

from .processes import free_port
from .rank_job import make_trainer, record
from .ref_avs_tree import write_tree
from .two_processes import LOOPBACK, ROOT, environment, errors, run_jobs

pytestmark = pytest.mark.timeout(600)  # seconds on a machine that does something else too
CONFIG: dict[str, Any] = {
    "steps": 20,
    "warmup_steps": 5,
    "save_every": 10,
    "save_every_minutes": 0,
    "image_size": 64,
    "workers": 0,
    "device": "cpu",
    "freeze_batch_norm": True,
    "precision": "float32",
}
SHAPES = ((2, 3), (3, 1))
"""Three clips are two and one for two processes; of one clip the second process has none."""
BATCH = {"shapes": SHAPES, "late_shapes": SHAPES, "sentences": 2, "decoded_ticks": 2}


def job(out: Path, faults: dict[str, list[str]] | None = None, **config: Any) -> dict[str, Any]:
    return {"out": str(out), "config": {**CONFIG, **config}, "batch": BATCH, "faults": faults or {}}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(out: Path) -> list[set[str]]:
    """Names of the clips of each step, over all processes."""
    steps: dict[int, dict[str, set[str]]] = {}
    for path in sorted(out.parent.glob(f"{out.name}-names-*.jsonl")):
        for row in rows(path):  # of a step that was trained twice, the second time
            steps.setdefault(row["step"], {})[path.name] = set(row["names"])
    return [set.union(*steps[number].values()) for number in sorted(steps)]


class _PowerCutError(Exception):
    """Stands for the end of the process."""


def run_alone(out: Path, pack: Path, cut_at: int | None = None, **config: Any) -> Path:
    """A run of one process, which ends without warning before step `cut_at`."""
    trainer = make_trainer(job(out, **config), pack)
    whole = trainer.stepper.step

    def step(share: Any, number: int, save: bool) -> Any:
        if number == cut_at:
            raise _PowerCutError
        return whole(share, number, save)

    trainer.stepper.step = step  # type: ignore[method-assign]
    record(trainer, Path(f"{out}-names-0.jsonl"))
    with contextlib.nullcontext() if cut_at is None else pytest.raises(_PowerCutError):
        trainer.run()
    return out


def assert_same_curve(one: Path, other: Path, relative: float) -> None:
    mine, theirs = rows(one / LOSSES), rows(other / LOSSES)
    assert mine
    for a, b in zip(mine, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=relative, abs=1e-12), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def alone(folder: Path, tiny_path: Path) -> Path:
    """One process, float32."""
    return run_alone(folder / "alone", tiny_path)


@dataclass
class Faults:
    """Two clips of the second process of two."""

    nan: str
    unreadable: str
    steps: list[int]
    """Of the two clips, counted from 1."""


@pytest.fixture(scope="module")
def faults(folder: Path, tiny_path: Path) -> Faults:
    shares = make_trainer(job(folder / "unused"), tiny_path).shares
    shares.world, shares.rank = 2, 1
    mine = {step + 1: shares[step] for step in range(10)}
    steps = [step for step, share in mine.items() if share.counted == [True]][:2]
    nan, unreadable = (mine[step].batches[0].names[0] for step in steps)
    return Faults(nan, unreadable, steps)


@pytest.fixture(scope="module")
def pair(folder: Path, tiny_path: Path, faults: Faults) -> list[str | None]:
    """What ended the jobs of two processes: one that the second cannot start, one that neither can; float64, float32, with two
    bad clips, with nothing but bad clips after step 10, and one in which the second process was killed in step 13."""
    run_alone(folder / "poisoned", tiny_path, cut_at=13)
    bad = {"nan": [faults.nan], "unreadable": [faults.unreadable]}
    jobs = [
        {**job(folder / "half"), "starts": [None, "nowhere"]},
        {**job(folder / "none"), "starts": ["nowhere", "nowhere"]},
        job(folder / "pair64", precision="float64", steps=10),
        job(folder / "pair"),
        job(folder / "bad", bad, steps=10),
        job(folder / "poisoned", {"nan": ["all"]}, max_faults=3),
        {**job(folder / "killed"), "die_at": 13},
    ]
    content = {"pack": str(tiny_path), "jobs": jobs}
    assert run_jobs(folder / "pair.json", content) == [0, -signal.SIGKILL]
    return errors(folder / "pair.json")


@pytest.fixture(scope="module")
def resumed(folder: Path, tiny_path: Path, pair: list[str | None]) -> list[str | None]:
    """Two processes went on with `again`, which two began, and with `joined`, which one began; then one waited in vain."""
    shutil.copytree(folder / "killed", folder / "again")
    run_alone(folder / "joined", tiny_path, cut_at=13)
    jobs = [job(folder / "again"), job(folder / "joined")]
    content = {"pack": str(tiny_path), "jobs": jobs, "wait_in_vain": str(free_port())}
    assert run_jobs(folder / "resumed.json", content) == [0, 0]
    return errors(folder / "resumed.json")


def test_two_processes_compute_what_one_computes(
    folder: Path, tiny_path: Path, alone: Path, pair: list[str | None]
) -> None:
    assert pair[2:4] == [None, None]
    alone64 = run_alone(folder / "alone64", tiny_path, precision="float64", steps=10)
    assert_same_curve(folder / "pair64", alone64, 1e-6)
    assert_same_curve(folder / "pair", alone, 1e-4)
    assert names(folder / "pair") == names(alone)
    assert min(len(step) for step in names(alone)) == 1, "a step in which one process has no clip"
    # Weights in float64 only: Adam makes steps of its own size out of gradients that are rounding errors.
    mine, theirs = (load_file(run / RESUME / "tensors.safetensors") for run in (folder / "pair64", alone64))
    for name, value in theirs.items():
        if name.startswith("average."):
            torch.testing.assert_close(mine[name], value, rtol=0, atol=1e-6, msg=name)


def test_what_a_process_cannot_start_none_starts(folder: Path, pair: list[str | None]) -> None:
    missing = "nowhere/model.safetensors is missing: nowhere is no run that could be started from"
    assert pair[:2] == [f"SharedError: process 1 of 2: {missing}", f"SharedError: {missing}"]
    assert not (folder / "half").exists() and not (folder / "none").exists()


def test_a_bad_clip_of_one_process_is_left_out_by_both_and_named(
    folder: Path, pair: list[str | None], faults: Faults
) -> None:
    assert pair[4] is None
    nan, unreadable = rows(folder / "bad" / SKIPPED)
    assert [nan["step"], unreadable["step"]] == faults.steps
    assert nan["samples"] == [faults.nan] and "no finite number" in nan["why"]
    (message,) = unreadable["samples"]
    assert message.endswith(f"{faults.unreadable} is damaged") and "cannot be read" in unreadable["why"]
    for value in load_file(folder / "bad" / RESUME / "tensors.safetensors").values():
        assert torch.isfinite(value).all()
    (row,) = rows(folder / "bad" / LOSSES)
    assert all(math.isfinite(value) for value in row.values())


def test_bad_clips_without_end_stop_the_run_and_leave_the_checkpoint(
    folder: Path, pair: list[str | None]
) -> None:
    assert pair[5] is not None and pair[5].startswith(
        "TrainingError: 3 steps in a row were left out, up to step 13"
    )
    assert json.loads((folder / "poisoned" / RESUME / "state.json").read_text())["step"] == 10
    for value in load_model(folder / "poisoned").state_dict().values():
        assert torch.isfinite(value.double()).all()


def test_a_killed_process_ends_the_others_with_an_error(pair: list[str | None]) -> None:
    assert pair[6] is not None and pair[6].startswith("DistributedError: process 0 of 2 lost another")


def test_who_does_not_come_is_named(resumed: list[str | None]) -> None:
    assert resumed[2] is not None
    assert resumed[2].startswith("process 0 of 2 lost another") and "rank 1" in resumed[2].lower()


def test_two_killed_processes_go_on_as_if_they_had_not_been(
    folder: Path, resumed: list[str | None], pair: list[str | None]
) -> None:
    assert resumed[:2] == [None, None]
    assert (folder / "again" / LOSSES).read_bytes() == (folder / "pair" / LOSSES).read_bytes()
    mine, theirs = (load_file(folder / run / RESUME / "tensors.safetensors") for run in ("again", "pair"))
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name


def test_one_killed_process_goes_on_as_if_it_had_not_been(folder: Path, tiny_path: Path, alone: Path) -> None:
    path, out = folder / "one.json", folder / "one"
    path.write_text(json.dumps({"pack": str(tiny_path), "jobs": [{**job(out), "die_at": 13}]}))
    command = [sys.executable, "-m", "tests.rank_job", str(path)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **LOOPBACK}, check=False, timeout=100)
    assert done.returncode == -signal.SIGKILL
    assert make_trainer(job(out), tiny_path).step == 10
    run_alone(out, tiny_path)
    assert_same_curve(out, alone, 1e-9)
    mine, theirs = load_model(out).state_dict(), load_model(alone).state_dict()
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-6, atol=1e-8, msg=name)


def test_a_run_goes_on_with_more_processes(folder: Path, resumed: list[str | None], alone: Path) -> None:
    assert_same_curve(folder / "joined", alone, 1e-4)
    assert names(folder / "joined") == names(alone)


def test_a_run_goes_on_with_fewer_processes(
    folder: Path, pair: list[str | None], tiny_path: Path, alone: Path
) -> None:
    shutil.copytree(folder / "killed", folder / "left")
    trainer = make_trainer(job(folder / "left"), tiny_path)
    assert trainer.step == 10
    record(trainer, folder / "after-names-0.jsonl")
    trainer.run()
    assert_same_curve(folder / "left", alone, 1e-4)
    assert names(folder / "killed")[:10] + names(folder / "after") == names(alone)


def test_torchrun_stops_a_run_whose_data_went_bad_and_leaves_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person types: one process trains, and is interrupted; then two go on."""
    tree = write_tree(tmp_path / "tree")
    flags = (
        f"--data {tree} --preset test --out run --steps 30 --warmup-steps 5 --save-every 10 --image-size 64"
    )
    flags += " --max-faults 2 --device cpu --workers 0 --sentences 2 --decoded-ticks 1 --precision float32"
    monkeypatch.chdir(tmp_path)
    whole = Stepper.step

    def interrupted(self: Stepper, share: Any, number: int, save: bool) -> Any:
        if number == 11:
            raise KeyboardInterrupt
        return whole(self, share, number, save)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", interrupted)
        assert main(flags.split()) == 130
    for path in tree.glob("media/*/frames/*.jpg"):
        path.write_bytes(b"no picture")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += [
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        str(free_port()),
        "-m",
        "refavs_rt.train",
        *flags.split(),
    ]
    done = subprocess.run(
        command, env={**os.environ, **LOOPBACK}, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 1
    assert done.stderr.count("error: 2 steps in a row were left out, up to step 12") == 1, done.stderr
    assert [row["step"] for row in rows(tmp_path / "run" / SKIPPED)] == [11, 12]
    assert json.loads((tmp_path / "run" / RESUME / "state.json").read_text())["step"] == 10
    load_model(tmp_path / "run")


def test_an_environment_without_an_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(DistributedError, match=r"RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
        open_world(),
    ):
        pass


def test_processes_that_find_no_other_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(1, free_port()).items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(DistributedError, match="process 1 of 2 found no other at 127.0.0.1"),
        open_world("cpu", 0.02),
    ):
        pass
