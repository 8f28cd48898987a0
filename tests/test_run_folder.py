"""A run folder is written whole, read back the same, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from refavs_rt.config import TEST
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.run_folder import CONFIG, WEIGHTS, CheckpointError, load_config, load_model, load_run
from refavs_rt.train import checkpoint
from refavs_rt.train.checkpoint import has_resume, load_resume, save_resume, save_weights, write_json


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_weights(tmp_path, TEST, EEMC(TEST).state_dict())
    write_json(tmp_path / "settings.json", {"data": "noise", "licence": "none"})
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    return tmp_path


def test_weights_come_back_bit_for_bit(run: Path) -> None:
    torch.manual_seed(0)
    expected = EEMC(TEST).state_dict()
    loaded = load_run(run)
    assert loaded.training["data"] == "noise"
    state = loaded.model.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


def test_a_checkpoint_comes_back_and_no_partial_file_stays(run: Path) -> None:
    for step in (3, 4):
        save_resume(run, {"step": step}, {"a": torch.full((2, 3), step).T})
    values, tensors = load_resume(run)
    assert values == {"step": 4} and torch.equal(tensors["a"], torch.full((3, 2), 4))
    assert {path.name for path in run.iterdir()} == {
        "config.json",
        "model.safetensors",
        "resume",
        "settings.json",
        "tokenizer.json",
    }


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_resume(run, {"step": 3}, {"a": torch.ones(2)})

    def full(path: Path) -> None:
        raise OSError(f"{path}: no space left on the device")

    monkeypatch.setattr(checkpoint, "_sync", full)
    with pytest.raises(OSError, match="no space left"):
        save_resume(run, {"step": 4}, {"a": torch.ones(2)})
    assert load_resume(run)[0] == {"step": 3}


def test_nothing_to_resume_is_named(run: Path) -> None:
    assert not has_resume(run)
    with pytest.raises(CheckpointError, match="resume is missing"):
        load_resume(run)


def test_a_pickle_is_never_read(run: Path) -> None:
    """Tensors that would run code are refused."""

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("ran",)

    save_resume(run, {"step": 3}, {"a": torch.ones(2)})
    torch.save({"step": Evil()}, run / "resume" / "tensors.safetensors")
    with pytest.raises(CheckpointError, match="resume is damaged"):
        load_resume(run)


def test_missing_things_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere.*python -m train"):
        load_config(tmp_path / "nowhere")
    (run / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        load_run(run)
    (run / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load_model(run)
    (run / CONFIG).unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_model(run)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_damaged_weights_are_named(run: Path, damage: str) -> None:
    path = run / WEIGHTS
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "garbage": b"\xff" * 100, "empty": b""}[damage])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_model(run)


def test_weights_of_another_shape_are_refused(run: Path) -> None:
    write_json(run / CONFIG, {**json.loads((run / CONFIG).read_text()), "width": 32})
    with pytest.raises(CheckpointError, match="does not fit"):
        load_model(run)


def test_wrong_settings_are_named(run: Path) -> None:
    write_json(run / CONFIG, {"widht": 3})
    with pytest.raises(CheckpointError, match="widht"):
        load_config(run)
    (run / CONFIG).write_text("[1]")
    with pytest.raises(CheckpointError, match="not a JSON object"):
        load_config(run)
