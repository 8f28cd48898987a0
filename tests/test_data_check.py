"""The check of a data set: every fault that the test puts into a tree is found, counted and told, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refavs_rt.dataset import DataError
from refavs_rt.train import data_check
from refavs_rt.train.cli import main
from refavs_rt.train.data_check import Counts, Report, check
from refavs_rt.train.data_check_cli import describe

from .ref_avs_tree import FRAMES, write_clips_of, write_tone, write_tree
from .test_dataset import REAL_TABLE, needs_real_table

SPLITS = ("train", "train", "train", "val", "test_s")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two objects with two rows each in five clips, and of each a clip with one row that nothing fits."""
    return write_tree(tmp_path / "tree", SPLITS)


def places(report: Report) -> dict[str, str]:
    return {fault.place: fault.why for fault in report.unreadable}


@pytest.mark.parametrize("fast", [False, True])
def test_a_whole_tree_is_well(tree: Path, fast: bool, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(tree, fast=fast)
    assert report.splits["train"] == Counts(15, 0, 3, 6, 6, 0, 0, 15)
    assert report.splits["val"] == report.splits["test_s"] == Counts(5, 0, 1, 2, 2, 0, 0, 5)
    assert report.splits["test_u"] == report.splits["test_n"] == Counts()
    assert report.total == Counts(25, 0, 5, 10, 10, 0, 0, 25)
    assert not (report.unreadable or report.missing or report.unusable or report.odd or report.strangers)
    assert report.frames == {"10 frames": 10}
    assert report.pictures == ({} if fast else {"80x45": 10})
    assert report.sounds == ({} if fast else {"16000 Hz, 1 channels": 10})
    assert main(["data", "--check", str(tree), *(["--fast"] if fast else [])]) == 0
    assert (
        "total     25         0     5     10     10        0           0          25"
        in capsys.readouterr().out
    )


def spoil(tree: Path) -> dict[str, str]:
    """A fault of each kind in clips of `train`; returns each file and the beginning of what is to be said of it."""
    media, masks = tree / "media", tree / "gt_mask"
    (media / "clip0_0_10000/frames/4.jpg").unlink()
    (media / "clip0_0_10000/frames/7.jpg").write_bytes(b"no picture")
    cut = masks / "clip1_0_10000/fid_1/00003.png"
    cut.write_bytes(cut.read_bytes()[:60])
    (masks / "clip1_0_10000/fid_0/00009.png").unlink()
    sound = media / "clip2_0_10000/audio.wav"
    sound.write_bytes(sound.read_bytes()[:1000])
    shutil.rmtree(media / "null_c-clip0_0_10000/frames")
    shutil.rmtree(masks / "clip3_0_10000/fid_1")
    shutil.rmtree(masks / "null_c-clip1_0_10000")  # no fault: nothing needs them
    return {
        "media/clip0_0_10000/frames/4.jpg": "is missing",
        "media/clip0_0_10000/frames/7.jpg": "is damaged: it is no picture",
        "gt_mask/clip1_0_10000/fid_1/00003.png": "is damaged: ",
        "gt_mask/clip1_0_10000/fid_0/00009.png": "is missing",
        "media/clip2_0_10000/audio.wav": "cannot be read: it ends too early: 956 bytes of sound, not 320000",
        "media/null_c-clip0_0_10000/frames": "has no frames",
        "gt_mask/clip3_0_10000/fid_1": "is missing",
    }


def test_every_fault_is_found_and_told(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = spoil(tree)
    shutil.rmtree(tree / "media" / "clip4_0_10000")
    (tree / "media" / "stranger").mkdir()
    with (tree / "metadata.csv").open("a") as table:
        table.write("v,dog,val,0,A uid without its parts.\nv,c_0_1_dog_1,TODO,0,x\nv,c_0_1_dog_2,TODO,0,y\n")
    out = tmp_path / "deep" / "report.json"
    assert main(["data", "--check", str(tree), "--json", str(out)]) == 1
    report = json.loads(out.read_text())
    found = {fault["place"]: fault["why"] for fault in report["unreadable"]}
    assert found.keys() == expected.keys()
    assert all(found[place].startswith(why) for place, why in expected.items())
    assert report["splits"]["train"] == vars(Counts(15, 0, 3, 6, 6, 0, 4, 2))
    assert report["splits"]["val"] == vars(Counts(6, 1, 1, 2, 2, 0, 1, 1))
    assert report["splits"]["test_s"] == vars(Counts(5, 0, 1, 2, 1, 1, 0, 1))
    assert report["splits"]["TODO"] == vars(Counts(2, 2))
    assert report["total"] == vars(Counts(28, 3, 5, 10, 9, 1, 5, 4))
    assert [fault["clip"] for fault in report["missing"]] == ["clip4_0_10000"]
    assert report["strangers"] == ["stranger"]
    shown = capsys.readouterr().out
    assert "files that cannot be read: 7" in shown and "rows that cannot be used: 3" in shown
    for place, why in expected.items():
        assert f"{place} {why}" in shown
    assert "TODO  line 28 and 1 more cannot be used: its split is 'TODO'" in shown
    assert "val  line 27 cannot be used: its uid 'dog' is not CLIP_CLASS_NUMBER; write it so" in shown
    assert not list(out.parent.glob("*.partial"))


def test_fast_only_looks_for_files(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {place for place, why in spoil(tree).items() if why in ("is missing", "has no frames")}

    def refuse(*_: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(data_check, "decode_wav", refuse)
    report = check(tree, fast=True)
    assert places(report).keys() == expected
    assert report.total.unreadable == 4


def test_what_is_odd_is_told_and_used(tree: Path) -> None:
    media = tree / "media"
    for i in (8, 9):
        (media / f"clip0_0_10000/frames/{i}.jpg").unlink()
    Image.new("RGB", (33, 21)).save(media / "clip1_0_10000/frames/2.jpg")
    write_tone(media / "clip2_0_10000/audio.wav", seconds=3.3, rate=44_100, channels=2)
    (media / "clip3_0_10000/audio.wav").unlink()
    for i in range(FRAMES):
        empty = np.zeros((45, 80), np.uint8)
        Image.fromarray(empty).save(tree / f"gt_mask/clip4_0_10000/fid_1/{i:05d}.png")
        Image.fromarray(empty[:, :79] + 255).save(tree / f"gt_mask/clip4_0_10000/fid_0/{i:05d}.png")
    with (tree / "metadata.csv").open("a") as table:
        table.write(
            "v,clip0_0_10000_wolf_1,train,0,The wolf.\n"
            "v,clip0_0_10000_wolf_1,train,1,[Error] no words\n"
            "v,clip1_0_10000_cat_9,val,7,The cat.\n"
        )
    shutil.copytree(tree / "gt_mask/clip1_0_10000/fid_0", tree / "gt_mask/clip1_0_10000/fid_7")
    report = check(tree)
    assert not report.unreadable
    odd = {(fault.place, fault.why) for fault in report.odd}
    assert odd >= {
        ("media/clip0_0_10000/frames", "has 8 frames, not 10"),
        ("media/clip0_0_10000/audio.wav", "has 10.0 s of sound for 8 frames"),
        ("media/clip1_0_10000/frames", "has frames of 33x21 and 80x45"),
        ("media/clip2_0_10000/audio.wav", "has 3.3 s of sound for 10 frames"),
        ("media/clip3_0_10000/audio.wav", "is missing: the clip has no track"),
        ("gt_mask/clip4_0_10000/fid_1", "has no mask that is not empty"),
        ("gt_mask/clip4_0_10000/fid_0", "has masks of 79x45, frames are 80x45"),
        ("line 27", "has the uid clip0_0_10000_wolf_1, as 1 more"),
        ("line 28", "has an error message for an expression: [Error] no words"),
        ("line 7", "has a clip that is in the splits train and val"),
    }
    classes = [why for _, why in odd if "its class is ignored" in why]
    assert len(classes) == 2 and all("wolf" in why for why in classes)
    assert report.sounds == {"16000 Hz, 1 channels": 9, "44100 Hz, 2 channels": 1, "no file": 1}
    assert report.frames == {"10 frames": 10, "8 frames": 1}


def test_processes_find_the_same(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = spoil(tree)
    alone = check(tree, workers=1)
    monkeypatch.setattr(data_check, "_SPAWN_FROM", 2)
    done: list[tuple[int, int]] = []
    together = check(tree, workers=2, progress=lambda *counts: done.append(counts))
    assert together == alone and places(together).keys() == expected.keys()
    assert done == [(i, 10) for i in range(1, 11)]


def test_a_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_check, "_SPAWN_FROM", 2)
    with pytest.raises(DataError, match="a process that opens files has died .* Give fewer --workers"):
        list(data_check._run(os._exit, [7, 7, 7], 2))


def test_names_that_are_no_text(tree: Path, tmp_path: Path) -> None:
    """In the tree and above it; shown and written as escapes, also where the screen takes no more than ASCII."""
    folder = tmp_path / os.fsdecode(b"d\xe9ta")
    tree.rename(folder)
    (folder / "media" / os.fsdecode(b"\xff\xfe")).mkdir()
    (folder / "media" / "clip0_0_10000" / "frames" / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    (folder / "media" / "clip0_0_10000" / "audio.wav").write_bytes(b"x")
    out = tmp_path / "report.json"
    command = [sys.executable, "-m", "refavs_rt.train", "data", "--check", folder, "--json", out]
    for encoding in ("utf-8", "ascii"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        result = subprocess.run(command, capture_output=True, env=environment, check=False)
        assert result.returncode == 1 and b"Traceback" not in result.stderr
        assert b"media/clip0_0_10000/audio.wav cannot be read: it is no WAV file" in result.stdout
        assert b"the first: \\udcff\\udcfe" in result.stdout
    assert json.loads(out.read_text())["strangers"] == ["\udcff\udcfe"]


@needs_real_table
@pytest.mark.parametrize("as_file", [True, False])
def test_the_real_table_alone(as_file: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = REAL_TABLE
    if not as_file:
        (tmp_path / "metadata.csv").symlink_to(REAL_TABLE)
        path = tmp_path
    assert main(["data", "--check", str(path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {line[0]: line[1:] for line in lines[2:9]} == {
        "split": ["rows", "unusable", "null", "clips"],
        "train": ["14,113", "0", "608", "2,919"],
        "val": ["1,349", "0", "72", "275"],
        "test_s": ["2,288", "0", "0", "273"],
        "test_u": ["1,656", "0", "0", "269"],
        "test_n": ["1,028", "0", "1,028", "257"],
        "TODO": ["25", "25", "0", "0"],
    }
    assert lines[9] == ["total", "20,459", "25", "1,708", "3,993"]
    report = check(path)
    assert [fault.place for fault in report.odd if "error message" in fault.why] == ["line 4170"]
    assert sum("has the uid" in fault.why for fault in report.odd) == 11


@needs_real_table
def test_the_real_table_with_few_of_its_clips(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    written = write_clips_of(REAL_TABLE, tree)
    report = check(tree)
    assert not report.unreadable and not [
        fault for fault in report.odd if fault.clip in written and "/" in fault.place
    ]
    assert report.total.there == 5 and report.total.missing == 3_993 - 5 == len(report.missing)
    assert sorted(report.sounds.values()) == [1, 2, 2] and len(report.pictures) == 5
    text = "\n".join(describe(report))
    assert "clips that are missing: 3,988" in text and "and 3,968 more; --json OUT writes all" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--check", "nowhere"], "there is no folder nowhere"),
        (["--check", "pyproject.toml"], "pyproject.toml has no column 'vid'"),
    ],
)
def test_what_is_no_data_set_is_told(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    assert main(["data", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("error: ")


def test_a_number_of_workers_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("0", "-1", "x"):
        with pytest.raises(SystemExit):
            main(["data", "--check", ".", "--workers", text])
        assert "argument --workers: " in capsys.readouterr().err


def test_the_check_takes_no_torch() -> None:
    """So that its processes start at once."""
    code = "import sys, refavs_rt.train.data_check_cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
