"""The training loop: what it computes, and that a killed run goes on as if it had not been."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refavs_rt.config import TEST
from refavs_rt.train import loop, loss
from refavs_rt.train.batches import Batch
from refavs_rt.train.checkpoint import LOSSES, METRICS, RESUME, CheckpointError, load_model
from refavs_rt.train.disk_batches import DiskSource
from refavs_rt.train.loop import TrainConfig, Trainer, TrainingError

from .ref_avs_tree import write_tree

SHORT: dict[str, Any] = {
    "steps": 40,
    "warmup_steps": 5,
    "save_every": 10,
    "validate_every": 20,
    "validation_clips": 2,
    "image_size": 64,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


def trainer(out: Path, tree: Path, **changes: Any) -> Trainer:
    return Trainer(out, TEST, TrainConfig(**{**SHORT, **changes}), DiskSource(tree))


def rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 steps that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    trainer(out, tree).run()
    return out


def without_times(lines: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


class _PowerCutError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("cut_at", [7, 20, 27])
def test_a_run_that_was_cut_goes_on_with_the_same_curve(
    whole: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: int
) -> None:
    first = trainer(tmp_path, tree)
    step_of = first._train_step

    def until_cut(batch: Batch) -> dict[str, float]:
        if first.step == cut_at:
            raise _PowerCutError
        return step_of(batch)

    monkeypatch.setattr(first, "_train_step", until_cut)
    with pytest.raises(_PowerCutError):
        first.run()
    second = trainer(tmp_path, tree)
    assert second.step == cut_at // 10 * 10
    second.run()
    assert rows(tmp_path / LOSSES) == rows(whole / LOSSES)
    assert without_times(rows(tmp_path / METRICS)) == without_times(rows(whole / METRICS))
    mine, theirs = load_model(tmp_path).state_dict(), load_model(whole).state_dict()
    for name, value in theirs.items():
        assert torch.equal(mine[name], value), name


def test_a_finished_run_has_nothing_to_do(whole: Path, tree: Path) -> None:
    before = (whole / LOSSES).read_bytes()
    again = trainer(whole, tree)
    assert again.step == 40
    again.run()
    assert (whole / LOSSES).read_bytes() == before


def test_other_settings_are_refused_and_named(whole: Path, tree: Path) -> None:
    with pytest.raises(CheckpointError, match=r"started with train\.learning_rate = 0\.0006, not 0\.01"):
        trainer(whole, tree, learning_rate=0.01)
    trainer(whole, tree, workers=1, save_every=20)  # these change no weight


def test_a_damaged_resume_file_is_named(whole: Path, tree: Path, tmp_path: Path) -> None:
    for path in whole.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    content = (tmp_path / RESUME).read_bytes()
    (tmp_path / RESUME).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"resume\.pt is damaged"):
        trainer(tmp_path, tree)


def test_the_rate_is_warm_up_and_cosine(whole: Path) -> None:
    for row in rows(whole / LOSSES):
        step = row["step"] - 1
        progress = (step - 5) / 35
        expected = 6e-4 * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        assert row["rate"] == pytest.approx(expected, rel=1e-12)


def test_a_line_of_the_curve_is_the_mean_of_ten_steps(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = trainer(tmp_path, tree, steps=20)
    step_of, seen = watched._train_step, []

    def watch(batch: Batch) -> dict[str, float]:
        seen.append(step_of(batch))
        return seen[-1]

    monkeypatch.setattr(watched, "_train_step", watch)
    watched.run()
    lines = rows(tmp_path / LOSSES)
    assert [line["step"] for line in lines] == [10, 20]
    for name in ("total", "dice", "grad_norm"):
        assert lines[1][name] == pytest.approx(np.mean([parts[name] for parts in seen[10:]]), rel=1e-12)


def test_the_average_is_an_exponential_one(tree: Path, tmp_path: Path) -> None:
    watched = trainer(tmp_path, tree)
    name = "queries"
    expected = dict(watched.average.named_parameters())[name].double().clone()
    for step in range(6):
        watched._train_step(watched.batches[step])
        decay = min(0.998, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * watched.model.queries.detach().double()
        watched.step += 1
        torch.testing.assert_close(watched.average.queries.double(), expected, rtol=0, atol=1e-6)


def test_frozen_parts_stay(tree: Path, whole: Path) -> None:
    torch.manual_seed(0)
    fresh = trainer(whole.parent / "fresh", tree).model.state_dict()
    for name, value in load_model(whole).state_dict().items():
        part = name.split(".")[0]
        if part in ("backbone", "text_encoder"):
            assert torch.equal(value, fresh[name]), name
        elif part == "decoder" and name.endswith("q.weight"):
            assert not torch.equal(value, fresh[name]), name


def test_bfloat16_computes_nearly_the_same_loss(tree: Path, tmp_path: Path) -> None:
    exact, half = trainer(tmp_path / "a", tree), trainer(tmp_path / "b", tree, precision="bfloat16")
    assert half.half and not exact.half
    for step in range(3):
        a, b = exact._train_step(exact.batches[step]), half._train_step(half.batches[step])
        assert a["total"] != b["total"]
        assert b["total"] == pytest.approx(a["total"], rel=0.03)


def test_a_loss_without_a_finite_gradient_ends_the_run(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = trainer(tmp_path, tree)
    before = broken.model.queries.detach().clone()
    real = loss.clip_loss

    def poisoned(*arguments: Any) -> dict[str, torch.Tensor]:
        return {name: value * math.nan for name, value in real(*arguments).items()}

    monkeypatch.setattr(loop, "clip_loss", poisoned)
    with pytest.raises(TrainingError, match="start anew with a lower --learning-rate"):
        broken.run()
    assert torch.equal(broken.model.queries, before)


def test_one_infinite_picture_leaves_no_trace_in_the_norms(tree: Path, tmp_path: Path) -> None:
    watched = trainer(tmp_path, tree)
    watched._train_step(watched.batches[0])
    before = {name: value.clone() for name, value in watched.model.named_buffers() if "running_" in name}
    bad = watched.batches[1]
    bad.log_mel[0, 0] = math.inf
    assert not math.isfinite(watched._train_step(bad)["grad_norm"])
    for name, value in watched.model.named_buffers():
        if "running_" in name:
            assert torch.equal(value, before[name]), name


def test_a_run_cut_before_its_first_checkpoint_begins_a_new_curve(
    whole: Path, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / LOSSES).write_text('{"step": 10, "total": 99.0}\n{"step": 2')
    trainer(tmp_path, tree, steps=10)
    assert rows(tmp_path / LOSSES) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be 1"),
        ({"save_every": 15}, "multiple of 10"),
        ({"image_size": 50}, "multiple of 32"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        TrainConfig(**settings)


def test_it_learns(tree: Path, tmp_path: Path) -> None:
    """Three clips of coloured discs, learned by heart: the masks come out where the sentences say."""
    learner = trainer(
        tmp_path, tree, steps=250, learning_rate=4e-3, warmup_steps=20, save_every=250, validate_every=250
    )
    learner.run()
    first, last = rows(tmp_path / LOSSES)[0], rows(tmp_path / LOSSES)[-1]
    assert last["dice"] < 0.6 * first["dice"]


def test_a_killed_process_goes_on(tree: Path, whole: Path, tmp_path: Path) -> None:
    """`python -m train`, killed without warning between two checkpoints, and the same command once more."""
    command = [
        sys.executable,
        "-m",
        "refavs_rt.train",
        "--preset",
        "test",
        "--data",
        str(tree),
        "--out",
        "run",
    ]
    for name, value in SHORT.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / RESUME).exists() and process.poll() is None:
            assert time.monotonic() < deadline, "no checkpoint in two minutes"
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "done: run; next: refavs-export --checkpoint run" in done.stdout
    mine, theirs = rows(tmp_path / "run" / LOSSES), rows(whole / LOSSES)
    assert [line["step"] for line in mine] == [10, 20, 30, 40]
    for a, b in zip(mine, theirs, strict=True):  # another process may use other threads, hence other sums
        assert a["total"] == pytest.approx(b["total"], rel=1e-4)
    assert os.readlink(tmp_path / "runs" / "latest") == str((tmp_path / "run").resolve())


def test_a_mistake_is_one_line(tree: Path, whole: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["--data", "nowhere"], "error: --data nowhere: there is neither a pack nor a data set"),
        (
            ["--data", str(tree), "--out", str(whole), "--preset", "test", "--steps", "99"],
            "was started with train.steps = 40",
        ),
        (["--steps", "-5"], "error: steps must be 1 or more, not -5"),
    ):
        command = [sys.executable, "-m", "refavs_rt.train", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert message in line
