"""What a bundle accepts and refuses. Its files need not be graphs here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from refavs_rt import bundle as bundles
from refavs_rt.bundle import (
    MANIFEST,
    TOKENIZER,
    Bundle,
    BundleError,
    EngineRecord,
    embedded_bundle,
    find_bundle,
    write_bundle,
)
from refavs_rt.config import EDGE, TEST

FILES = {
    "text.onnx": b"t",
    "vision.onnx": b"vi" * 1000,
    "audio.onnx": b"",
    "step.onnx": b"s" * 7,
    TOKENIZER: b"{}",
}


def write(folder: Path, files: dict[str, bytes] = FILES, **options: Any) -> Bundle:
    return write_bundle(
        folder,
        TEST,
        files,
        tools={"torch": "2"},
        training={"data": "none", "licence": "MIT"},
        parity={},
        **options,
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write(tmp_path / "made" / "bundle")


def edit(bundle: Bundle, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest on disk."""
    manifest = json.loads((bundle.path / MANIFEST).read_text())
    change(manifest)
    (bundle.path / MANIFEST).write_text(json.dumps(manifest))


def test_a_written_bundle_opens_and_reads_back(bundle: Bundle) -> None:
    opened = Bundle.open(bundle.path)
    assert opened == bundle and opened.config == TEST
    assert {name: opened.read(name) for name in opened.files} == FILES
    assert opened.digest == hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest()
    assert opened.manifest["training"] == {"data": "none", "licence": "MIT"}
    assert opened.manifest["preset"] == "test" and opened.manifest["graphs"]["step"] == "step.onnx"
    assert [path.name for path in bundle.path.parent.iterdir()] == ["bundle"], "something is left beside it"


def test_a_link_to_a_bundle_opens(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(bundle.path)
    assert Bundle.open(tmp_path / "latest").digest == bundle.digest


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(bundle: Bundle, name: str) -> None:
    (bundle.path / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: missing"):
        Bundle.open(bundle.path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere: no such bundle folder"):
        Bundle.open(tmp_path / "nowhere")


def test_a_package_without_its_bundle_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "embedded_bundle", lambda: tmp_path / "edge")
    with pytest.raises(BundleError, match="edge: the embedded bundle is missing; install refavs-rt again"):
        Bundle.open(find_bundle("edge"))


def test_a_file_of_another_size_is_refused(bundle: Bundle) -> None:
    (bundle.path / "step.onnx").write_bytes(b"s" * 8)
    with pytest.raises(BundleError, match=r"step.onnx: damaged \(8 bytes, not 7\)"):
        Bundle.open(bundle.path)


def test_a_flipped_bit_is_refused(bundle: Bundle) -> None:
    data = bytearray(FILES["vision.onnx"])
    data[1234] ^= 1
    (bundle.path / "vision.onnx").write_bytes(data)
    opened = Bundle.open(bundle.path)
    assert opened.read("step.onnx") == FILES["step.onnx"]
    with pytest.raises(BundleError, match="vision.onnx: damaged"):
        opened.read("vision.onnx")


def test_a_file_that_grew_after_opening_is_refused(bundle: Bundle) -> None:
    with open(bundle.path / "step.onnx", "ab") as stream:
        stream.write(b"s" * 100)
    with pytest.raises(BundleError, match="step.onnx: damaged"):
        bundle.read("step.onnx")


@pytest.mark.parametrize("name", ["step.onnx", MANIFEST])
def test_a_link_in_a_bundle_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    (bundle.path / name).rename(outside)
    (bundle.path / name).symlink_to(outside)
    with pytest.raises(BundleError, match=f"{name}: a link"):
        Bundle.open(bundle.path)


def test_a_pipe_in_a_bundle_is_refused(bundle: Bundle) -> None:
    (bundle.path / "step.onnx").unlink()
    os.mkfifo(bundle.path / "step.onnx")
    with pytest.raises(BundleError, match=r"step.onnx: a link or no file"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", "..", ".", "", "a\\b", MANIFEST])
def test_a_file_outside_the_folder_is_refused(bundle: Bundle, name: str) -> None:
    (bundle.path.parent / "secret").write_bytes(b"x")
    edit(bundle, lambda manifest: manifest["files"].update({name: {"size": 1, "sha256": "0"}}))
    with pytest.raises(BundleError, match="is not a file of this folder"):
        Bundle.open(bundle.path)


def test_a_file_that_is_not_listed_is_not_read(bundle: Bundle) -> None:
    (bundle.path / "extra").write_bytes(b"x")
    with pytest.raises(BundleError, match="extra: not listed"):
        bundle.read("extra")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=99), "its format 99 is newer .* update refavs_rt"),
        (lambda m: m.update(format_version=10**400), "is newer .* update refavs_rt"),
        (lambda m: m.update(format_version=0), "no valid format_version"),
        (lambda m: m.update(format_version=True), "no valid format_version"),
        (lambda m: m.pop("format_version"), "no valid format_version"),
        (lambda m: m.update(contract_hash="0" * 64), "another contract"),
        (lambda m: m["config"].update(width=32), "another contract"),
        (lambda m: m["config"].update(colour=1), "unknown model setting 'colour'"),
        (lambda m: m["config"].update(width="16"), "'width' must be a int"),
        (lambda m: m.pop("config"), "no config"),
        (lambda m: m.update(files=[]), "no files"),
        (lambda m: m["files"].pop("step.onnx"), "does not list step.onnx"),
        (lambda m: m["files"]["step.onnx"].pop("sha256"), "no size and sha256 for step.onnx"),
        (lambda m: m["files"].update({"step.onnx": 3}), "no size and sha256 for step.onnx"),
        (lambda m: m["files"]["step.onnx"].update(size=True), "no size and sha256 for step.onnx"),
        (lambda m: m["files"]["step.onnx"].update(size=-1), "no valid size for step.onnx"),
        (lambda m: m["files"]["step.onnx"].update(size=10**20), "no valid size for step.onnx"),
        (lambda m: m["files"].update({f"{i}": {} for i in range(2_000)}), "lists 2005 files"),
        (lambda m: m.update(preset="edge"), "its preset is not its config's, 'test'"),
        (lambda m: m["graphs"].update(step="text.onnx"), "its graphs are not"),
        (lambda m: m.update(graphs=None), "its graphs are not"),
        (lambda m: m.pop("training"), "no training in it"),
        (lambda m: m.update(parity=[]), "no parity in it"),
        (lambda m: m["config"].update(width=10**12), "model setting 'width' cannot be"),
        (lambda m: m["config"].update(decoder_layers=900_000), "model setting 'decoder_layers' cannot be"),
        (lambda m: m["config"].update(beta=float("nan")), "model setting 'beta' cannot be nan"),
        (lambda m: m["config"].update(image_size=32_000), "would have the shape"),
        (lambda m: m.update(precision="fp8"), "its precision is none of fp32, fp16, int8"),
        (lambda m: m.update(precision=None), "its precision is none of"),
        (lambda m: m.update(sentences=[2, 1]), "no valid range of sentences"),
        (lambda m: m.update(sentences=[0, 1]), "no valid range of sentences"),
        (lambda m: m.update(sentences=[1, 9]), "no valid range of sentences"),
        (lambda m: m.update(sentences=[1, 8, 8]), "no valid range of sentences"),
        (lambda m: m.update(sentences=[True, 8]), "no valid range of sentences"),
        (lambda m: m.update(engines=[]), "engines of graphs that no bundle has"),
        (lambda m: m.update(engines={"depth": {}}), "engines of graphs that no bundle has"),
        (lambda m: m.update(engines={"step": 3}), "the engine of the step graph has not a record"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    bundle: Bundle, change: Callable[[Any], Any], message: str
) -> None:
    edit(bundle, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "null"])
def test_a_damaged_manifest_is_refused(bundle: Bundle, text: str) -> None:
    (bundle.path / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=MANIFEST):
        Bundle.open(bundle.path)


def test_writing_never_leaves_part_of_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_late(file: Path, data: bytes) -> None:
        if file.name == "step.onnx":
            raise OSError("disk full")
        file.write_bytes(data)

    old = write(tmp_path / "bundle")
    monkeypatch.setattr(bundles, "_write", fail_late)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "bundle", FILES | {"text.onnx": b"new"}, replace=True)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert Bundle.open(tmp_path / "bundle") == old


def test_a_failed_replacement_puts_the_old_bundle_back(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last move is the one that fails: the old bundle has been moved away by then."""
    real = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(bundle.path, FILES | {"text.onnx": b"new"}, replace=True)
    assert Bundle.open(bundle.path) == bundle


def test_a_bundle_is_replaced_only_when_asked(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="exists already"):
        write(bundle.path)
    new = write(bundle.path, FILES | {"text.onnx": b"new"}, replace=True)
    assert new.digest != bundle.digest and Bundle.open(bundle.path).read("text.onnx") == b"new"


def test_what_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    (tmp_path / "extension").mkdir()
    (tmp_path / "extension" / "manifest.json").write_text('{"manifest_version": 3, "name": "of a browser"}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    for name, message in (
        ("home", "holds thesis.txt, which is of no bundle"),
        ("extension", "holds manifest.json, which is of no bundle"),
        ("broken", "holds manifest.json, which is of no bundle"),
        ("file", "no folder"),
        ("link", "no folder"),
    ):
        with pytest.raises(BundleError, match=message):
            write(tmp_path / name, replace=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "extension" / "manifest.json").exists()


def test_what_lies_in_a_bundle_beside_its_files_is_not_lost(bundle: Bundle) -> None:
    (bundle.path / "notes.txt").write_text("on which clips it fails")
    with pytest.raises(BundleError, match=r"holds notes\.txt, which is of no bundle"):
        write(bundle.path, FILES | {"text.onnx": b"new"}, replace=True)
    assert (bundle.path / "notes.txt").exists() and Bundle.open(bundle.path) == bundle


def test_a_bundle_without_a_graph_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="needs audio.onnx"):
        write(tmp_path / "bundle", {name: data for name, data in FILES.items() if name != "audio.onnx"})
    assert not list(tmp_path.iterdir())


def test_which_bundle_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    embedded = Path(bundles.__file__).parent / "assets" / EDGE.preset
    assert find_bundle(None) == find_bundle("edge") == embedded
    (tmp_path / "bundles" / "latest").mkdir(parents=True)
    assert find_bundle(None) == Path("bundles/latest")
    assert find_bundle("edge") == embedded
    assert find_bundle("some/where") == Path("some/where")


RECORD = EngineRecord(
    file="step.engine",
    library="tensorrt_rtx",
    version="1.7.1.116",
    capabilities=(86, 89, 120),
    precision="fp16",
    contract_hash="0" * 64,
    sentences=(1, 8),
    profiles=((1, 1, 1), (1, 8, 8)),
    weights="stripped",
    hardware_compatible=True,
    verified={"device": "NVIDIA RTX 4090", "largest_error": 1e-5},
)
WITH_ENGINE = {**FILES, "step.engine": b"engine"}


def test_engines_are_written_and_read_back(tmp_path: Path) -> None:
    written = write(
        tmp_path / "bundle", WITH_ENGINE, precision="fp16", sentences=(1, 4), engines={"step": RECORD}
    )
    opened = Bundle.open(written.path)
    assert opened.engines == {"step": RECORD} and opened.engines["step"].profiles == ((1, 1, 1), (1, 8, 8))
    assert opened.precision == "fp16" and opened.sentences == (1, 4)
    assert opened.read("step.engine") == b"engine"
    row = json.loads((written.path / MANIFEST).read_text())["engines"]["step"]
    assert row["capabilities"] == [86, 89, 120] and row["profiles"] == [[1, 1, 1], [1, 8, 8]]
    assert row["verified"] == {"device": "NVIDIA RTX 4090", "largest_error": 1e-5}


def test_a_manifest_that_knows_of_no_engines_opens(bundle: Bundle) -> None:
    edit(bundle, lambda m: [m.pop(name) for name in ("precision", "sentences", "engines")])
    for opened in (Bundle.open(bundle.path), Bundle.open(embedded_bundle())):
        assert opened.precision == "fp32" and opened.sentences == (1, 8) and opened.engines == {}


def set_field(manifest: dict[str, Any], field: str, value: Any) -> None:
    manifest["engines"]["step"][field] = value


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("file", ["", None, 3, "\x1b[2J"]),
        ("library", ["openvino", None, []]),
        ("version", [10.3, "", "1\n2"]),
        ("capabilities", [[], 86, [8.6], [-86], ["86"], [10**20]]),
        ("precision", ["fp8", None]),
        ("contract_hash", [None, ""]),
        ("sentences", [[8, 1], [0, 8], [1], None, [1, 10**10]]),
        ("profiles", [[], [[1, 8]], [[8, 4, 1]], [[0, 1, 1]], [1, 1, 1], None]),
        ("weights", ["refit", True]),
        ("hardware_compatible", [None, 1, "no"]),
        ("version_compatible", [None, 0]),
        (
            "verified",
            [
                True,
                {},
                {"device": "x"},
                {"device": "x", "largest_error": float("nan")},
                {"device": 1, "largest_error": 0},
            ],
        ),
    ],
)
def test_an_engine_that_cannot_be_is_refused(tmp_path: Path, field: str, values: list[Any]) -> None:
    bundle = write(tmp_path / "bundle", WITH_ENGINE, engines={"step": RECORD})
    for value in values:
        edit(bundle, partial(set_field, field=field, value=value))
        with pytest.raises(
            BundleError, match=f"{MANIFEST}: the engine of the step graph has no valid {field}; export"
        ):
            Bundle.open(bundle.path)
    edit(bundle, lambda m: m["engines"]["step"].pop(field))
    with pytest.raises(BundleError, match=f"no valid {field}"):
        Bundle.open(bundle.path)


def test_an_engine_for_more_sentences_than_the_model_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match="the engine of the step graph is for 1 to 9 sentences, the model for 8"
    ):
        write(tmp_path / "b", WITH_ENGINE, engines={"step": dataclasses.replace(RECORD, sentences=(1, 9))})


def test_an_engine_whose_file_is_not_listed_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"bundle/{MANIFEST}: it does not list step.engine"):
        write(tmp_path / "bundle", engines={"step": RECORD})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x" * 101, "\x1b[2J", "a\nb", "-rf", "é", "\ud800", "a b", ".hidden"])
def test_names_that_a_terminal_or_a_shell_obeys_are_refused_unprinted(bundle: Bundle, name: str) -> None:
    edit(bundle, lambda m: m["files"].update({name: {"size": 0, "sha256": "0" * 64}}))
    with pytest.raises(BundleError, match="is not a file of this folder") as caught:
        Bundle.open(bundle.path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 200_000, '{"format_version": 1' + "0" * 5_000 + "}"]
)
def test_a_manifest_that_is_hard_to_read_is_refused(bundle: Bundle, text: str) -> None:
    (bundle.path / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match=f"{MANIFEST}: damaged"):
        Bundle.open(bundle.path)


def test_a_manifest_of_absurd_size_is_not_read(bundle: Bundle) -> None:
    os.truncate(bundle.path / MANIFEST, 2**40)
    with pytest.raises(BundleError, match=f"{MANIFEST}: damaged .longer than 16000000 bytes"):
        Bundle.open(bundle.path)


def test_a_file_that_became_a_pipe_is_not_waited_for(bundle: Bundle) -> None:
    (bundle.path / "step.onnx").unlink()
    os.mkfifo(bundle.path / "step.onnx")
    with pytest.raises(BundleError, match="step.onnx: a link or no file"):
        bundle.read("step.onnx")


def test_a_file_is_read_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is hashed is what is returned: a second reading could find other bytes."""
    real, opened = os.open, []

    def counted(file: Any, *args: Any, **options: Any) -> int:
        opened.append(Path(file).name)
        return real(file, *args, **options)

    monkeypatch.setattr(os, "open", counted)
    assert bundle.read("vision.onnx") == FILES["vision.onnx"]
    assert opened == ["vision.onnx"]
