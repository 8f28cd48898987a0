"""A run folder is written whole, read back the same, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from refavs_rt.config import TEST
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.run_folder import CONFIG, WEIGHTS, CheckpointError, load_config, load_model, load_run
from refavs_rt.train.checkpoint import load_resume, save_resume, save_weights, write_json


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


def test_no_partial_file_stays(run: Path) -> None:
    save_resume(run, {"step": 3, "model": {"a": torch.ones(2)}})
    assert not list(run.glob("*.partial"))
    assert load_resume(run)["step"] == 3


def test_resume_is_never_unpickled(run: Path) -> None:
    """A resume file that would run code is refused."""

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("ran",)

    torch.save({"step": Evil()}, run / "resume.pt")
    with pytest.raises(CheckpointError, match=r"resume\.pt"):
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
