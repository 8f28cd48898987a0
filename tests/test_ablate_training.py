"""Experiments by training again: one start, no run trained twice, every variant measured on the same clips."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from refavs_rt.config import TEST
from refavs_rt.model.run_folder import load_config
from refavs_rt.train import loop
from refavs_rt.train.ablate import training
from refavs_rt.train.ablate.training import (
    ALL,
    COMPONENTS,
    MODALITIES,
    SUPERVISION,
    TrainingSettings,
    train_variants,
)
from refavs_rt.train.batches import BatchConfig
from refavs_rt.train.checkpoint import CheckpointError
from refavs_rt.train.cli import main
from refavs_rt.train.disk_batches import DiskSource
from refavs_rt.train.loop import TrainConfig, Trainer
from refavs_rt.train.loss import LossConfig

from .ref_avs_tree import write_tree

SWITCHES = {"cached_memory", "modality_tokens", "prompt_attention", "audio_cues", "visual_cues", "text_cues"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of the unit tests in place of `edge`, small batches, and no picture of each run's curve."""
    batch = BatchConfig(shapes=((2, 3), (3, 2)), sentences=2, decoded_ticks=2)
    monkeypatch.setattr(training, "EDGE", TEST)
    monkeypatch.setattr(training, "TrainConfig", functools.partial(TrainConfig, batch=batch))
    monkeypatch.setattr(loop, "plot", lambda *_: None)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "tree")


def settings(tmp_path: Path, steps: int = 10) -> TrainingSettings:
    return TrainingSettings(steps=steps, image_size=64, runs=tmp_path / "runs")


def test_variants_differ_by_what_they_are_named_after(tmp_path: Path) -> None:
    usual = settings(tmp_path).model(training.ALL)
    for variant in (*COMPONENTS, *MODALITIES):
        config = settings(tmp_path).model(variant)
        off = {name for name in SWITCHES if getattr(config, name) != getattr(usual, name)}
        assert off == set(variant.off)
        kept = variant.name.removeprefix("only-").split("-")
        if variant.name.startswith("only-"):
            named = {"audio": "audio_cues", "vision": "visual_cues", "text": "text_cues"}
            assert off == {switch for name, switch in named.items() if name not in kept}
    assert len({v.name for v in COMPONENTS}) == 6 and len({v.name for v in MODALITIES}) == 8


def test_variants_of_the_supervision_leave_out_what_they_are_named_after(tmp_path: Path) -> None:
    usual = settings(tmp_path).train(ALL)
    everything = {"pixel_names", "sound_names", "referent_names", "cue_masks", "inner_layers"}
    assert usual.loss_weights == LossConfig()
    for variant in SUPERVISION:
        config = settings(tmp_path).train(variant)
        loss = config.loss_weights
        zero = {name for name in everything if getattr(loss, name) == 0}
        left_out = variant.name.removeprefix("without-").replace("-", "_")
        assert zero == {"all_of_these": everything}.get(left_out, {left_out} & everything)
        assert (
            dataclasses.replace(loss, **{name: getattr(LossConfig(), name) for name in zero}) == LossConfig()
        )
        assert config.batch.sentences == (1 if variant.name == "one-sentence" else usual.batch.sentences)
        assert settings(tmp_path).model(variant) == settings(tmp_path).model(ALL)
    assert len({v.name for v in SUPERVISION}) == 9


def test_variants_of_a_seed_share_their_start(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: dict[str, dict[str, torch.Tensor]] = {}

    def note(trainer: Trainer) -> None:
        state = trainer.stepper.model.state_dict()
        starts[trainer.out.name] = {name: value.clone() for name, value in state.items()}
        trainer.out.mkdir()  # as a run does

    monkeypatch.setattr(Trainer, "run", note)
    train_variants(COMPONENTS, DiskSource(tree), settings(tmp_path))
    whole = starts["all"]
    assert set(starts) == {variant.name for variant in COMPONENTS}
    for name, state in starts.items():
        same = all(torch.equal(value, whole[key]) for key, value in state.items() if value.numel())
        assert same == (name != "all-seed-1"), name


def test_what_is_trained_is_not_trained_again(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = COMPONENTS[:3:2]
    folders = train_variants(variants, DiskSource(tree), settings(tmp_path))
    assert load_config(folders["without-memory"]).cached_memory is False
    weights = {name: load_file(folder / "model.safetensors") for name, folder in folders.items()}
    (folders["all"] / "finished.json").unlink()  # killed before the last line: it goes on from its last step
    capsys.readouterr()
    train_variants(variants, DiskSource(tree), settings(tmp_path))
    said = capsys.readouterr().out
    assert "all (1 of 2): training in" in said and "without-memory (2 of 2): trained already" in said
    for name, folder in folders.items():
        after = load_file(folder / "model.safetensors")
        assert all(torch.equal(value, after[key]) for key, value in weights[name].items())
    with pytest.raises(CheckpointError, match="started with"):
        train_variants(variants, DiskSource(tree), settings(tmp_path, steps=20))


@pytest.mark.parametrize(
    ("name", "variants"),
    [("components", COMPONENTS), ("modalities", MODALITIES), ("supervision", SUPERVISION)],
)
def test_a_person_runs_the_experiment(
    tree: Path, tmp_path: Path, name: str, variants: tuple[training.Variant, ...]
) -> None:
    command = f"ablate {name} --data {tree} --steps 10 --image-size 64 --clips 2 --split train"
    assert main([*command.split(), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    rows = (tmp_path / "out" / f"{name}.csv").read_text().splitlines()
    conditions = list(dict.fromkeys(row.split(",")[0] for row in rows[1:]))
    assert conditions == [variant.name for variant in variants]
    page = (tmp_path / "out" / f"{name}.md").read_text()
    assert "each variant trained 10 steps on pictures of 64 px" in page
    assert (tmp_path / "out" / f"{name}.png").stat().st_size > 10_000
    done = json.loads((tmp_path / "runs" / variants[-1].name / "finished.json").read_text())
    last = variants[-1]
    assert done["steps"] == 10
    assert (done["off"], done["sentences"]) == (list(last.off), last.sentences)
