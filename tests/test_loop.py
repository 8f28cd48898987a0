"""The training loop: what it computes, and that a killed run goes on as if it had not been."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from refavs_rt.config import EDGE, TEST
from refavs_rt.model.text import TextEncoder, minilm_folder
from refavs_rt.tokenizer import Tokenizer
from refavs_rt.train import loop, loss, step
from refavs_rt.train.batches import BatchConfig
from refavs_rt.train.checkpoint import (
    LOSSES,
    METRICS,
    RESUME,
    SKIPPED,
    CheckpointError,
    load_model,
    write_json,
)
from refavs_rt.train.cli import main
from refavs_rt.train.disk_batches import DiskSource
from refavs_rt.train.distributed import World, alone
from refavs_rt.train.flags import field_docs
from refavs_rt.train.loop import TrainConfig, Trainer, TrainingError
from refavs_rt.train.plot import plot
from refavs_rt.train.run_settings import StartedWith, settings_of, started_with
from refavs_rt.train.shares import Share, Shares, split
from refavs_rt.train.step import Skipped, StepResult
from refavs_rt.train.texts import TextCache
from refavs_rt.train.train_config import BATCH_FLAGS, GROUPS

from .ref_avs_tree import write_tree

SMALL = BatchConfig(shapes=((2, 3), (3, 2)), late_shapes=((2, 3), (3, 2)), sentences=2, decoded_ticks=2)
SHORT: dict[str, Any] = {
    "steps": 20,
    "batch": SMALL,
    "warmup_steps": 5,
    "save_every": 10,
    "validate_every": 10,
    "validation_clips": 1,
    "save_every_minutes": 0.0,
    "image_size": 64,
    "precision": "float32",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(autouse=True, scope="module")
def _no_picture_of_a_curve() -> Iterator[None]:
    """Only the run that a person starts draws one: it takes longer than all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "plot", lambda *_: None)
        yield


def trainer(out: Path, tree: Path, **changes: Any) -> Trainer:
    source = DiskSource(tree, tree.with_name("log-mels"))
    return Trainer(out, TEST, TrainConfig(**{**SHORT, **changes}), source)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    trainer(out, tree).run()
    return out


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


class _PowerCutError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("cut_at", [7, 10, 17])
def test_a_run_that_was_cut_goes_on_with_the_same_curve(
    whole: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: int
) -> None:
    first = trainer(tmp_path, tree)
    step_of = first.stepper.step

    def until_cut(share: Share, number: int, save: bool) -> tuple[StepResult | Skipped, bool]:
        if number == cut_at:
            raise _PowerCutError
        return step_of(share, number, save)

    monkeypatch.setattr(first.stepper, "step", until_cut)
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


def test_a_run_of_some_minutes_stops_whole_and_goes_on_with_the_same_curve(
    whole: Path, tree: Path, tmp_path: Path
) -> None:
    """It stops at the first tenth step after its time."""
    out = tmp_path / "run"
    assert trainer(out, tree, minutes=1e-6).run() is False
    assert [row["step"] for row in rows(out / LOSSES)] == [10]
    again = trainer(out, tree, minutes=60.0)
    assert again.step == 10 and again.run() is True
    assert rows(out / LOSSES) == rows(whole / LOSSES)
    assert without_times(rows(out / METRICS))[-1] == without_times(rows(whole / METRICS))[-1]


def test_a_finished_run_has_nothing_to_do(whole: Path, tree: Path) -> None:
    before = (whole / LOSSES).read_bytes()
    again = trainer(whole, tree)
    assert again.step == 20
    again.run()
    assert (whole / LOSSES).read_bytes() == before


def test_other_settings_are_refused_and_named(whole: Path, tree: Path) -> None:
    with pytest.raises(CheckpointError, match=r"started with train\.learning_rate = 0\.0006, not 0\.01"):
        trainer(whole, tree, learning_rate=0.01)
    trainer(whole, tree, workers=1, save_every=20)  # these change no weight
    for name, value in (("cached_memory", False), ("beta", 3.0)):
        other = dataclasses.replace(TEST, **{name: value})
        with pytest.raises(CheckpointError, match=rf"started with model\.{name} = "):
            Trainer(whole, other, TrainConfig(**SHORT), DiskSource(tree))


def test_processes_with_other_clips_are_refused(tree: Path, tmp_path: Path) -> None:
    class Apart(World):
        def gather(self, texts: list[str]) -> list[str]:
            return [*texts, texts[0] if texts[0].isdigit() else "another digest"]

    mine = alone("cpu")
    apart = Apart(**{field.name: getattr(mine, field.name) for field in dataclasses.fields(mine)})
    with pytest.raises(CheckpointError, match="process 1 finds other clips than process 0"):
        Trainer(tmp_path, TEST, TrainConfig(**SHORT), DiskSource(tree), apart)


def test_a_data_set_without_a_clip_has_another_digest(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "tree"
    shutil.copytree(tree, other)
    assert DiskSource(other).digest() == DiskSource(tree).digest()
    clips = [row["uid"].rsplit("_", 2)[0] for row in table(other) if row["split"] == "train"]
    shutil.rmtree(other / "media" / clips[0])
    assert DiskSource(other).digest() != DiskSource(tree).digest()


@pytest.mark.parametrize(
    ("changes", "threshold"),
    [({}, 0.5), ({"loss": "paper"}, 0.5), ({"loss": "authors"}, 0.0), ({"trained": "authors"}, 0.0)],
)
def test_a_presence_that_nothing_trains_is_not_asked(changes: dict[str, Any], threshold: float) -> None:
    assert TrainConfig(**changes).presence_threshold == threshold


@pytest.mark.parametrize(
    ("name", "damage"), [("tensors.safetensors", 0.5), ("state.json", 0.5), ("state.json", 0)]
)
def test_a_damaged_checkpoint_is_named(
    whole: Path, tree: Path, tmp_path: Path, name: str, damage: float
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    content = (out / RESUME / name).read_bytes()
    (out / RESUME / name).write_bytes(content[: int(len(content) * damage)])
    with pytest.raises(CheckpointError, match=r"resume is damaged .*delete it to start again from step 0"):
        trainer(out, tree)


def test_a_checkpoint_of_another_network_is_named(whole: Path, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    path = out / RESUME / "tensors.safetensors"
    tensors = load_file(path)
    save_file({name: value for name, value in tensors.items() if name != "model.queries"}, path)
    with pytest.raises(CheckpointError, match=r"another network or data set \('model\.queries'\)"):
        trainer(out, tree)


def test_the_rate_is_warm_up_and_cosine(whole: Path) -> None:
    for row in rows(whole / LOSSES):
        step = row["step"] - 1
        progress = (step - 5) / 15
        expected = 6e-4 * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        assert row["rate"] == pytest.approx(expected, rel=1e-12)


def train_step(trainer: Trainer) -> StepResult | Skipped:
    """The trainer's next step, without what it writes."""
    result, _ = trainer.stepper.step(trainer.shares[trainer.step], trainer.step, False)
    trainer.step += 1
    return result


def total(result: StepResult | Skipped) -> float:
    assert isinstance(result, StepResult)
    return float(result.parts["total"])


def test_a_line_of_the_curve_is_the_mean_of_ten_steps(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = trainer(tmp_path, tree, steps=20)
    step_of, seen = watched.stepper.step, []

    def watch(share: Share, number: int, save: bool) -> tuple[StepResult | Skipped, bool]:
        seen.append(step_of(share, number, save))
        return seen[-1]

    monkeypatch.setattr(watched.stepper, "step", watch)
    watched.run()
    lines = rows(tmp_path / LOSSES)
    assert [line["step"] for line in lines] == [10, 20]
    for name in ("total", "dice", "grad_norm"):
        values = [r.grad_norm if name == "grad_norm" else float(r.parts[name]) for r, _ in seen[10:]]
        assert lines[1][name] == pytest.approx(np.mean(values), rel=1e-12)


def test_the_average_is_an_exponential_one(tree: Path, tmp_path: Path) -> None:
    watched = trainer(tmp_path, tree)
    model, average = watched.stepper.model, watched.stepper.average
    expected = average.queries.double().clone()
    for number in range(6):
        train_step(watched)
        decay = min(0.998, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * model.queries.detach().double()
        torch.testing.assert_close(average.queries.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("micro_batch", [1, 2])
@pytest.mark.parametrize("weights", ["dense", "paper"])
def test_micro_batches_add_up_to_the_step(tree: Path, tmp_path: Path, micro_batch: int, weights: str) -> None:
    """Three clips at once, or one or two at a time: the same loss, gradients and weights."""
    exact = {"precision": "float64", "freeze_batch_norm": True, "loss": weights, "batch": ODD}
    at_once = trainer(tmp_path / "a", tree, **exact)
    one_by_one = trainer(tmp_path / "b", tree, micro_batch=micro_batch, **exact)
    assert [len(b.names) for b in one_by_one.shares[0].batches] == {1: [1, 1, 1], 2: [2, 1]}[micro_batch]
    for _ in range(3):
        a, b = train_step(at_once), train_step(one_by_one)
        assert isinstance(a, StepResult) and isinstance(b, StepResult)
        for name, value in a.parts.items():
            assert float(b.parts[name]) == pytest.approx(float(value), rel=1e-9, abs=1e-12), name
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-9)
    for name, value in at_once.stepper.model.named_parameters():
        other = dict(one_by_one.stepper.model.named_parameters())[name]
        torch.testing.assert_close(other.grad, value.grad, rtol=1e-7, atol=1e-10, msg=name)


ODD = BatchConfig(shapes=((3, 3),), late_shapes=((3, 3),), sentences=3, decoded_ticks=2)


@pytest.mark.parametrize(
    ("count", "world", "micro_batch"), [(9, 1, 0), (9, 2, 0), (9, 4, 2), (1, 3, 1), (7, 3, 1), (5, 2, 9)]
)
def test_every_clip_is_in_one_share(count: int, world: int, micro_batch: int) -> None:
    shares = [split(count, rank, world, micro_batch) for rank in range(world)]
    assert sorted(i for share in shares for group in share for i in group) == list(range(count))
    assert len({len(share) for share in shares}) == 1, "a batch norm over all processes would wait for ever"
    assert all(len(group) <= (micro_batch or count) for share in shares for group in share)
    for rank, share in enumerate(shares):
        assert [i for group in share for i in group] == list(range(rank, count, world))


def test_features_of_a_sentence_do_not_depend_on_its_company() -> None:
    """Of the real sentence encoder: the int8 one itself, whole and with padding, is the oracle."""
    encoder, tokenizer = TextEncoder(EDGE), (minilm_folder() / "tokenizer.json").read_bytes()
    encoder.load_minilm(minilm_folder())
    texts = ["the red disc", "a disc that beeps before the blue one does on the left", "a disc", "discs"]
    ids, mask, alone = zip(
        *(TextCache(encoder, Tokenizer(tokenizer, 25))([[text]]) for text in texts), strict=True
    )
    together = TextCache(encoder, Tokenizer(tokenizer, 25))([texts[:2], texts[2:]])
    for i, part in enumerate((ids, mask, alone)):
        assert torch.equal(together[i].flatten(0, 1), torch.cat(part)[:, 0]), i
    padded = encoder(torch.cat(ids)[:, 0], torch.cat(mask)[:, 0])
    seen = torch.cat(mask)[:, 0]
    torch.testing.assert_close(torch.cat(alone)[:, 0][seen], padded[seen], rtol=2e-3, atol=2e-3)
    assert not torch.cat(alone)[:, 0][~seen].any()


def test_frozen_parts_stay(tree: Path, whole: Path) -> None:
    torch.manual_seed(0)
    fresh = trainer(whole.parent / "fresh", tree).stepper.model.state_dict()
    for name, value in load_model(whole).state_dict().items():
        part = name.split(".")[0]
        if part in ("backbone", "text_encoder"):
            assert torch.equal(value, fresh[name]), name
        elif part == "decoder" and name.endswith("q.weight"):
            assert not torch.equal(value, fresh[name]), name


def test_bfloat16_computes_nearly_the_same_loss(tree: Path, tmp_path: Path) -> None:
    exact, half = trainer(tmp_path / "a", tree), trainer(tmp_path / "b", tree, precision="bfloat16")
    assert half.stepper.module.in_bfloat16 and not exact.stepper.module.in_bfloat16
    for _ in range(3):
        a, b = total(train_step(exact)), total(train_step(half))
        assert a != b
        assert b == pytest.approx(a, rel=0.03)


def test_the_whole_run_can_be_float64(tree: Path, tmp_path: Path) -> None:
    exact = trainer(tmp_path, tree, precision="float64", steps=10)
    exact.run()
    assert load_file(tmp_path / RESUME / "tensors.safetensors")["model.queries"].dtype == torch.float64
    assert load_file(tmp_path / "model.safetensors")["queries"].dtype == torch.float32
    assert math.isfinite(rows(tmp_path / METRICS)[0]["presence_accuracy"])


def test_a_loss_without_a_finite_gradient_ends_the_run(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clips are good, so all of them are named."""
    broken = trainer(tmp_path, tree, max_faults=4)
    before = broken.stepper.model.queries.detach().clone()
    real = loss.clip_loss

    def poisoned(*arguments: Any) -> dict[str, torch.Tensor]:
        return {name: value * math.nan for name, value in real(*arguments).items()}

    monkeypatch.setattr(step, "clip_loss", poisoned)
    with pytest.raises(TrainingError, match=r"4 steps in a row .* step 4: .* a lower --learning-rate"):
        broken.run()
    assert torch.equal(broken.stepper.model.queries, before)
    skipped = rows(tmp_path / SKIPPED)
    assert [row["step"] for row in skipped] == [1, 2, 3, 4]
    share = broken.shares[0]
    assert sorted(skipped[0]["samples"]) == sorted(n for batch in share.batches for n in batch.names)


def test_good_steps_between_bad_ones_go_on(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other step is bad: never two in a row. The curve is of the good ones."""
    limping = trainer(tmp_path, tree, steps=10, max_faults=2)
    draw = Shares.__getitem__

    def draw_spoiled(self: Shares, number: int) -> Share:
        return spoiled(draw(self, number)) if number % 2 else draw(self, number)

    monkeypatch.setattr(Shares, "__getitem__", draw_spoiled)
    limping.run()
    assert [row["step"] for row in rows(tmp_path / SKIPPED)] == [2, 4, 6, 8, 10]
    assert all(math.isfinite(value) for row in rows(tmp_path / LOSSES) for value in row.values())


def spoiled(share: Share) -> Share:
    """The first clip of the last micro-batch has an infinite sound."""
    share.batches[-1].log_mel[0, 0] = math.inf
    return share


def test_one_infinite_sound_is_named_and_leaves_no_trace_in_the_norms(tree: Path, tmp_path: Path) -> None:
    watched = trainer(tmp_path, tree)
    train_step(watched)
    model = watched.stepper.model
    before = {name: value.clone() for name, value in model.named_buffers() if "running_" in name}
    share = watched.shares[1]
    result, _ = watched.stepper.step(spoiled(share), 1, False)
    assert isinstance(result, Skipped)
    assert result.samples == share.batches[-1].names[:1]
    for name, value in model.named_buffers():
        if "running_" in name:
            assert torch.equal(value, before[name]), name


def test_frozen_batch_norms_stay(tree: Path, tmp_path: Path) -> None:
    watched = trainer(tmp_path, tree, freeze_batch_norm=True)
    model = watched.stepper.model
    before = {name: value.clone() for name, value in model.named_buffers() if "running_" in name}
    assert before
    train_step(watched)
    for name, value in before.items():
        assert torch.equal(model.get_buffer(name), value), name


def test_a_checkpoint_is_written_by_the_clock_too(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that runs four minutes a step: at the tenth step more than ten have gone by."""
    watched = trainer(tmp_path, tree, save_every=100, save_every_minutes=10.0)
    minutes = iter(range(0, 10**6, 4))
    monkeypatch.setattr(time, "monotonic", lambda: 60.0 * next(minutes))
    saved: list[int] = []
    monkeypatch.setattr(watched, "save", lambda: saved.append(watched.step))
    watched.run()
    assert saved == [10, 20]


def test_a_run_killed_between_the_moves_of_a_checkpoint_has_the_one_before(
    whole: Path, tree: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / RESUME).rename(out / "resume.old")
    (out / "resume.partial").mkdir()
    resumed = trainer(out, tree)
    assert resumed.step == 20
    resumed.save()
    assert sorted(path.name for path in out.glob("resume*")) == ["resume"]


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
        ({"warmup_steps": -1}, "warmup_steps must be 0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0"),
        ({"workers": -2}, "workers must be -1"),
        ({"average_decay": 1.0}, r"in \[0, 1\)"),
        ({"full_size_share": 1.5}, r"full_size_share must be in \[0, 1\]"),
        ({"batch": BatchConfig(sentences=0)}, "sentences must be 1"),
        ({"batch": BatchConfig(muted=2)}, "muted must be in"),
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


def test_a_person_trains_from_the_command_line(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "plot", plot)
    monkeypatch.chdir(tmp_path)
    flags = "--preset test --out run --steps 10 --save-every 10 --image-size 64 --validation-clips 1 --sentences 2"
    assert (
        main(["--data", str(tree), *flags.split(), "--no-track", "0", "--threads", "1", "--device", "cpu"])
        == 0
    )
    assert "done: run; next: refavs-export --checkpoint run" in capsys.readouterr().out
    assert os.readlink(tmp_path / "runs" / "latest") == str((tmp_path / "run").resolve())
    expected = {"config.json", "settings.json", "environment.json", "model.safetensors", "tokenizer.json"}
    expected |= {"loss.jsonl", "metrics.jsonl", "curves.png", "samples", "tensorboard", "resume"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == expected
    train = json.loads((tmp_path / "run" / "settings.json").read_text())["train"]
    assert (train["steps"], train["batch"]["sentences"], train["loss"]) == (10, 2, "dense")
    events = next((tmp_path / "run" / "tensorboard").iterdir()).read_bytes()
    for tag in (b"loss/total", b"validation/presence_accuracy", b"validation/expression"):
        assert tag in events


FLAGS = (
    "--preset test --out run --steps 20 --warmup-steps 5 --save-every 10 --sentences 2 --no-track 0 --threads 1 "
    "--device cpu"
)


def test_a_killed_run_goes_on_without_its_flags(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what it was started with, wherever its data have gone, and with a word where there are others now."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tree, "tree")
    give_up = Trainer.save

    def save_once(self: Trainer) -> None:
        give_up(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "save", save_once)
    assert main(["--data", "tree", "--image-size", "64", *FLAGS.split()]) == 130
    assert "it goes on with: python -m train --out run" in capsys.readouterr().err
    monkeypatch.setattr(Trainer, "save", give_up)
    started = json.loads(Path("run/settings.json").read_text())
    assert started["paths"] == {"data": str(tmp_path / "tree"), "start": None}

    Path("tree").rename("moved")
    assert main(["--out", "run", "--device", "cpu"]) == 1
    assert f"--data {tmp_path / 'tree'}: there is neither a pack nor a data set" in capsys.readouterr().err
    assert main(["--out", "run", "--preset", "edge", "--data", "moved"]) == 1
    assert "was started with preset = test, not edge" in capsys.readouterr().err
    assert main(["--out", "run", "--data", "moved", "--seed", "1"]) == 1
    assert "was started with train.seed = 0, not 1" in capsys.readouterr().err

    assert main(["--out", "run", "--data", "moved", "--save-every", "20"]) == 0
    out, err = capsys.readouterr()
    assert "training test on cpu into run from step 10" in out and "note" not in err
    goes_on = json.loads(Path("run/settings.json").read_text())
    assert goes_on["train"] == {**started["train"], "save_every": 20}
    assert [row["step"] for row in rows(Path("run") / LOSSES)] == [10, 20]

    clips = [row["uid"].rsplit("_", 2)[0] for row in table(Path("moved")) if row["split"] == "train"]
    shutil.rmtree(Path("moved/media") / clips[0])
    assert main(["--out", "run"]) == 0
    out, err = capsys.readouterr()
    assert "into run from step 20" in out
    assert "note: the data are not those that run had before" in err


def test_settings_are_read_as_they_were_written(tree: Path, tmp_path: Path) -> None:
    given = TrainConfig(**SHORT, loss=loss.PAPER_LOSS, seed=3)
    Trainer(tmp_path / "run", TEST, given, DiskSource(tree)).save()
    with pytest.raises(CheckpointError, match=r"settings.json cannot be read"):
        started_with(tmp_path / "run")
    settings = settings_of(TEST.to_json(), given, {}, "", {"data": None, "start": "elsewhere"}, [])
    write_json(tmp_path / "settings.json", settings)
    assert started_with(tmp_path) == StartedWith("test", None, Path("elsewhere"), given)
    damages: tuple[dict[str, Any], ...] = (
        {"preset": "huge"},
        {"train": {}},
        {"train": None},
        {"train": {**settings["train"], "steps": -1}},
    )
    for damage in damages:
        write_json(tmp_path / "settings.json", {**settings, **damage})
        with pytest.raises(CheckpointError, match=r"settings.json is damaged or of another version \("):
            started_with(tmp_path)


def test_a_run_within_its_warm_up_is_told_of(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer(tmp_path, tree, warmup_steps=20)
    assert "note: all 20 steps are within the warm-up of 20" in capsys.readouterr().err
    trainer(tmp_path, tree)
    assert not capsys.readouterr().err


def test_all_files_of_a_run_may_be_read_by_those_who_may_read_any(whole: Path) -> None:
    (whole / "any").touch()
    usual = (whole / "any").stat().st_mode
    (whole / "any").unlink()
    assert {path.name: path.stat().st_mode for path in whole.rglob("*") if path.is_file()} == {
        path.name: usual for path in whole.rglob("*") if path.is_file()
    }


def test_a_command_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evalaute"]) == 2
    assert "no command 'evalaute', only scenes, data, evaluate" in capsys.readouterr().err


def test_the_help_shows_every_flag_with_what_it_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in [f.name for f in dataclasses.fields(TrainConfig) if f.name != "batch"] + list(BATCH_FLAGS):
        assert f"--{name.replace('_', '-')} " in text or f"--{name.replace('_', '-')}," in text, name
    assert "Gradients are shortened to this norm. Default: 1.0." in text
    assert "Default: 0.0006, 0.0001 for full." in text
    assert sorted(f.name for f in dataclasses.fields(TrainConfig)) == sorted(sum(GROUPS.values(), ()))
    for kind in (TrainConfig, BatchConfig):
        assert field_docs(kind).keys() == {f.name for f in dataclasses.fields(kind)}


def test_a_run_begins_with_the_weights_of_another(whole: Path, tree: Path, tmp_path: Path) -> None:
    """Of a network without a part too; that it lacks one is an error."""
    start = load_file(whole / "model.safetensors")
    tokenless, deaf = (
        dataclasses.replace(TEST, **{part: False}) for part in ("modality_tokens", "prompt_attention")
    )
    for number, config in enumerate((TEST, tokenless, deaf)):
        out = tmp_path / str(number)
        begun = Trainer(out, config, TrainConfig(**SHORT), DiskSource(tree), start=whole)
        for name, value in begun.stepper.model.state_dict().items():
            assert not value.numel() or torch.equal(value, start[name]), name
    begun.save()
    with pytest.raises(CheckpointError, match="is of another network: it lacks"):
        Trainer(tmp_path / "c", TEST, TrainConfig(**SHORT), DiskSource(tree), start=out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data nowhere", "error: --data nowhere: there is neither a pack nor a data set"),
        ("--data TREE/metadata.csv", "metadata.csv is a table and no pack: give its folder"),
        ("--data TREE --out WHOLE --preset test --steps 99", "was started with train.steps = 20"),
        ("--steps -5", "error: steps must be 1 or more, not -5"),
        ("--threads -1", "error: threads must be 0 or more, not -1"),
        ("--data TREE --preset test --trained authors", "fits the preset full, not test"),
        ("--data TREE --preset full --weights nowhere", "error: nowhere is no folder"),
        (
            "--data TREE --preset test --out TREE/metadata.csv",
            "metadata.csv is no folder: no run can be kept in",
        ),
        (
            "--data TREE --preset test --out TREE/metadata.csv/a/run",
            "metadata.csv is no folder: no run can be kept in",
        ),
        (
            "--data TREE --preset test --image-size 96",
            "image_size must be at most 64, which test is made for, not 96",
        ),
    ],
)
def test_a_mistake_is_one_line(
    arguments: str,
    message: str,
    tree: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = arguments.replace("TREE", str(tree)).replace("WHOLE", str(whole)).split()
    size = [] if "--image-size" in given else ["--image-size", "64"]
    assert main([*given, *size, "--save-every-minutes", "0", "--device", "cpu"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not [
        path for path in tmp_path.rglob("*") if path.is_dir() and path.name not in ("runs", "log-mels")
    ]
