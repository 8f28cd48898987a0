"""`refavs-export`: a run becomes a bundle that runs, or nothing is written and one line says why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from refavs_rt.bundle import Bundle, graph_file, write_bundle
from refavs_rt.config import TEST, RunConfig
from refavs_rt.contract import GRAPHS
from refavs_rt.export import to_onnx
from refavs_rt.export.card import CARD, EVALUATIONS, model_card
from refavs_rt.export.cli import main
from refavs_rt.export.compact import fold
from refavs_rt.export.material import demo_clip
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.run_folder import CheckpointError, load_run
from refavs_rt.model.text import minilm_folder
from refavs_rt.session import load
from refavs_rt.train.checkpoint import save_weights, write_json
from refavs_rt.train.material import Pack

from .tiny_bundle import tiny_files, trained_model, write_tiny_bundle

FIGURES = {"J": 0.5, "F": 0.625, "S": None, "n": 12}
REPORT: dict[str, Any] = {
    **FIGURES,
    "by_type": {"sound": FIGURES},
    "other_recording": {"sound": {**FIGURES, "n": 3}},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that ended with the weights of the tiny bundle."""
    folder = tmp_path / "run"
    folder.mkdir()
    save_weights(folder, TEST, trained_model().state_dict())
    write_settings(folder, data="noise")
    (folder / "tokenizer.json").write_bytes((minilm_folder() / "tokenizer.json").read_bytes())
    return folder


def write_settings(run: Path, data: str) -> None:
    write_json(run / "settings.json", {"data": data, "licence": "none", "train": {"steps": 7, "seed": 0}})


def export(run: Path, out: Path) -> int:
    return main(["--checkpoint", str(run), "--out", str(out)])


def tiny_graphs(model: EEMC, progress: Callable[[str], None], **options: Any) -> dict[str, bytes]:
    """What the exporter makes of the weights of `run`, without its time."""
    fold(model.backbone)
    return {name: tiny_files()[graph_file(name)] for name in GRAPHS}


@pytest.mark.filterwarnings("ignore::refavs_rt.tokenizer.SentenceCutWarning")  # the preset reads six tokens
def test_a_run_becomes_a_bundle_that_runs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    assert export(run, out) == 0
    printed = capsys.readouterr().out
    for graph in GRAPHS:
        assert f"exporting the {graph} graph" in printed
    bundle = Bundle.open(out)
    for name in bundle.files:
        bundle.read(name)
    assert bundle.manifest["training"]["data"] == "noise"
    assert bundle.manifest["parity"]["clip"]["step"]["mask_pixels"] > 0
    assert set(bundle.manifest["tools"]) == {
        "refavs-rt",
        "torch",
        "onnx",
        "onnxscript",
        "onnxslim",
        "onnxruntime",
    }
    assert "Trained on: noise." in (out / CARD).read_text()

    clip, texts = demo_clip()
    results = list(load(out, run=RunConfig(threads=1)).stream(clip, texts, max_frames=3))
    assert [result.index for result in results] == [0, 1, 2]
    monkeypatch.setattr(to_onnx, "export_graphs", tiny_graphs)
    write_settings(run, data="other noise")
    assert export(run, out) == 0, "a bundle that stands there is replaced"
    replaced = Bundle.open(out)
    assert replaced.files.keys() == bundle.files.keys()
    assert replaced.manifest["training"]["data"] == "other noise"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "run"]


@pytest.mark.filterwarnings("ignore::refavs_rt.tokenizer.SentenceCutWarning")
@pytest.mark.parametrize(
    "part", ["text_project.0.weight", "audio_branch.qkv.weight", "pixel_decoder.mask_project.weight"]
)
def test_graphs_that_differ_from_torch_are_not_written(
    part: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network in torch is given a thousandth more of one weight than the graphs have."""

    def graphs_of_less(model: EEMC, progress: Callable[[str], None], **options: Any) -> dict[str, bytes]:
        dict(model.named_parameters())[part].data.mul_(1.001)
        return tiny_graphs(model, progress, **options)

    monkeypatch.setattr(to_onnx, "export_graphs", graphs_of_less)
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


def edge_export(*flags: str) -> int:
    return main(["--bundle", "edge", *flags])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "nothing to add to it; give --trt, --precision or --triton-repo"),
        (["--precision", "int8"], "--calibration DATA; python -m train scenes --out DATA writes some"),
        (["--precision", "int8", "--calibration", "nowhere"], "nowhere"),
        (["--precision", "fp16", "--calibration", "nowhere"], "nowhere"),
        (["--trt", "--calibration", "nowhere"], "--calibration and --min-agreement need --precision"),
        (["--trt", "--min-agreement", "0.9"], "--calibration and --min-agreement need --precision"),
        (["--trt", "--hardware-compatible"], "compiles for a list of cards: name them with --target"),
        (["--target", "sm86"], "need --trt"),
        (["--trt", "--target", "sm87"], "no library here builds engines for sm87"),
        (["--trt", "--target", "moon"], "--target moon: not a target"),
        (["--trt", "--sentences", "1:99"], "takes at most 8 at a time"),
        (["--triton-repo", "taken"], "taken"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    flags: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    assert edge_export(*flags, "--out", "out/bundle") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert not (tmp_path / "out" / "bundle").exists()


def test_a_place_that_is_taken_is_said_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    assert edge_export("--precision", "fp16", "--out", str(tmp_path)) == 1
    said = capsys.readouterr()
    assert "holds notes.txt, which is of no bundle" in said.err
    assert said.out == ""


def test_a_graph_that_is_none_of_ours_is_not_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load_from_string(tiny_files()["step.onnx"])
    model.graph.node[0].domain = "somebody.else"
    foreign = tiny_files() | {"step.onnx": model.SerializeToString()}
    bundle = write_bundle(
        tmp_path / "foreign", TEST, foreign, tools={}, training={"data": "none", "licence": "MIT"}, parity={}
    )
    assert main(["--bundle", str(bundle.path), "--out", str(tmp_path / "out"), "--precision", "fp16"]) == 1
    assert f"{bundle.path / 'step.onnx'}: not a graph of ours" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_masks_that_nothing_shows_are_no_agreement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from refavs_rt.export import precision

    monkeypatch.setattr(precision, "RunConfig", lambda: RunConfig(presence_threshold=1.0))
    assert edge_export("--precision", "fp16", "--out", str(tmp_path / "bundle")) == 1
    assert "float32 shows no mask on any of the 20 frames" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("value", ["0:3", "3:1", "a", "1:2:3", ""])
def test_a_range_of_sentences_that_is_none_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        edge_export("--trt", "--sentences", value)
    assert "--sentences" in capsys.readouterr().err


def test_without_tensorrt_nothing_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import refavs_rt.engines.tensorrt_library as libraries
    from refavs_rt.export import to_tensorrt

    monkeypatch.setattr(libraries, "installed", list)
    monkeypatch.setattr(to_tensorrt, "installed", list)
    assert edge_export("--trt", "--out", str(tmp_path / "bundle")) == 1
    said = capsys.readouterr()
    assert "pip install 'refavs-rt[trt]'" in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_not_changed_in_place(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    assert main(["--bundle", str(bundle.path), "--out", str(bundle.path), "--precision", "fp16"]) == 1
    assert "never changed in place" in capsys.readouterr().err
    assert Bundle.open(bundle.path).digest == bundle.digest


@pytest.mark.filterwarnings("ignore::refavs_rt.tokenizer.SentenceCutWarning")
def test_a_bundle_in_half_with_engines_in_a_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    out = tmp_path / "with engines"
    command = [
        "--bundle",
        str(bundle.path),
        "--out",
        str(out),
        "--precision",
        "fp16",
        "--min-agreement",
        "0.5",
    ]
    assert main([*command, "--trt", "--target", "sm86", "sm120", "--sentences", "1:3"]) == 0
    printed = capsys.readouterr().out
    assert "not verified on a device" in printed
    made = Bundle.open(out)
    assert Bundle.open(bundle.path).digest == bundle.digest
    assert made.precision == "fp16"
    assert made.sentences == (1, 3)
    for graph, record in made.engines.items():
        assert record.file == f"{graph}.engine"
        assert len(made.read(record.file)) == made.files[record.file]["size"]
        assert (record.library, record.capabilities, record.precision) == ("tensorrt_rtx", (86, 120), "fp16")
        assert record.verified is None
        assert record.contract_hash == made.manifest["contract_hash"]
    assert set(made.engines) == {"text", "vision", "audio", "step"}
    assert made.manifest["parity"]["lower_precision"]["mask_agreement"] >= 0.5
    assert set(made.files) > set(bundle.files)

    again = ("--bundle", str(out), "--out", str(tmp_path / "third"))
    assert main([*again, "--precision", "int8", "--calibration", "x"]) == 1
    assert "graphs are fp16 already" in capsys.readouterr().err


@pytest.mark.media
@pytest.mark.filterwarnings("ignore::refavs_rt.tokenizer.SentenceCutWarning")
def test_train_export_stream(tmp_path: Path, pack: Pack) -> None:
    """The user's three commands, one after the other, with a real TensorRT engine in the middle."""
    clip, texts = demo_clip()

    def do(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    scripts = Path(sys.executable).parent
    steps = ("--steps", "2", "--workers", "0", "--validation-clips", "1", "--device", "cpu")
    data = f"scenes:{pack.path.resolve()}"
    do(
        sys.executable,
        "-m",
        "refavs_rt.train",
        "--preset",
        "test",
        "--data",
        data,
        "--out",
        "runs/one",
        *steps,
    )
    do(str(scripts / "refavs-export"), "--trt", "--target", "sm86")
    assert Bundle.open(tmp_path / "bundles/latest").engines["step"].capabilities == (86,)
    stream = (
        "stream",
        "--source",
        str(clip),
        "--text",
        texts[0],
        "--max-frames",
        "3",
        "--jsonl",
        "out.jsonl",
    )
    do(str(scripts / "refavs-rt"), *stream)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) >= 3
