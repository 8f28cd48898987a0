"""`refavs-export`: a run becomes a bundle that runs, or nothing is written and one line says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from refavs_rt.bundle import Bundle
from refavs_rt.config import TEST, RunConfig
from refavs_rt.export import to_onnx
from refavs_rt.export.card import CARD, EVALUATIONS, model_card
from refavs_rt.export.cli import demo_clip, main
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.run_folder import CheckpointError, load_run
from refavs_rt.model.text import minilm_folder
from refavs_rt.session import load
from refavs_rt.train.checkpoint import save_weights, write_json

FIGURES = {"J": 0.5, "F": 0.625, "S": None, "n": 12}
REPORT: dict[str, Any] = {
    **FIGURES,
    "by_type": {"sound": FIGURES},
    "other_recording": {"sound": {**FIGURES, "n": 3}},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of random weights."""
    folder = tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(0)
    save_weights(folder, TEST, EEMC(TEST).state_dict())
    write_json(
        folder / "settings.json", {"data": "noise", "licence": "none", "train": {"steps": 7, "seed": 0}}
    )
    (folder / "tokenizer.json").write_bytes((minilm_folder() / "tokenizer.json").read_bytes())
    return folder


def export(run: Path, out: Path) -> int:
    return main(["--checkpoint", str(run), "--out", str(out)])


@pytest.mark.filterwarnings("ignore::refavs_rt.tokenizer.SentenceCutWarning")  # the preset reads six tokens
def test_a_run_becomes_a_bundle_that_runs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    assert export(run, out) == 0
    printed = capsys.readouterr().out
    for graph in ("text", "vision", "audio", "step"):
        assert f"exporting the {graph} graph" in printed
    bundle = Bundle.open(out)
    for name in bundle.files:
        bundle.read(name)
    assert bundle.manifest["training"]["data"] == "noise"
    assert bundle.manifest["parity"]["clip"]["step"]["mask_pixels"] > 0
    assert set(bundle.manifest["tools"]) == {"refavs-rt", "torch", "onnx", "onnxscript", "onnxruntime"}
    assert "Trained on: noise." in (out / CARD).read_text()

    clip, texts = demo_clip()
    results = list(load(out, run=RunConfig(threads=1)).stream(clip, texts, max_frames=3))
    assert [result.index for result in results] == [0, 1, 2]
    first = (out / "manifest.json").read_bytes()
    assert export(run, out) == 0, "a bundle that stands there is replaced"
    assert json.loads(first)["files"].keys() == Bundle.open(out).files.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "run"]


@pytest.mark.filterwarnings("ignore::refavs_rt.tokenizer.SentenceCutWarning")
@pytest.mark.parametrize(
    "part", ["text_project.0.weight", "audio_branch.qkv.weight", "pixel_decoder.mask_project.weight"]
)
def test_graphs_that_differ_from_torch_are_not_written(
    part: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter is made to lose a thousandth of one weight on the way."""
    real = to_onnx.export_graphs

    def lossy(model: EEMC, progress: Any) -> dict[str, bytes]:
        other = EEMC(TEST)
        other.load_state_dict(model.state_dict())
        dict(other.named_parameters())[part].data.mul_(1.001)
        return real(other.eval(), progress)

    monkeypatch.setattr(to_onnx, "export_graphs", lossy)
    out = tmp_path / "bundle"
    assert export(run, out) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "torch" in line
    assert not out.exists()


def test_mistakes_are_told_in_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tmp_path / "nowhere", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere is not a run folder; train one with: python -m train" in line
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert export(run, tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.safetensors is damaged" in line


def test_the_card_has_every_figure(run: Path) -> None:
    assert "Not measured." in model_card(load_run(run))
    (run / EVALUATIONS).mkdir()
    write_json(run / EVALUATIONS / "test_s.json", REPORT)
    card = model_card(load_run(run))
    assert "### test s" in card
    assert "| sound | 0.500 | 0.625 | - | 12 |" in card
    assert "| sound, other recordings | 0.500 | 0.625 | - | 3 |" in card
    assert "- Steps: 7, seed 0." in card


def test_a_figure_that_is_none_is_named(run: Path) -> None:
    (run / EVALUATIONS).mkdir()
    (run / EVALUATIONS / "muted.json").write_text('{"J": 1}')
    with pytest.raises(CheckpointError, match=r"muted\.json is not a report"):
        model_card(load_run(run))
