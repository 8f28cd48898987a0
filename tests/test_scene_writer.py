"""Scenes on disk: the form of Ref-AVS to the letter, whole clips only, and mistakes told in one line."""

from __future__ import annotations

import csv
import hashlib
import json
import signal
import subprocess
import sys
import time
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refavs_rt.dataset import read_clip, read_table
from refavs_rt.train.cli import main
from refavs_rt.train.material import Pack
from refavs_rt.train.scenes import SPLITS, SceneGenerator, writer
from refavs_rt.train.scenes.writer import DatasetError, write_dataset

ROOT = Path(__file__).resolve().parents[1]
SIZE = (48, 65)


def _quiet(done: int, total: int) -> None:
    pass


def _write(out: Path, pack: Pack, clips: int = 3, **options) -> Path:
    return write_dataset(
        out, pack, **{"seed": 5, "size": SIZE, "progress": _quiet, "clips": clips, **options}
    )


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "metadata.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _clip_of(row: dict[str, str]) -> str:
    return "_".join(row["uid"].split("_")[:-2])


def _tree(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def _assert_whole(out: Path, seconds: int = 10) -> set[str]:
    """Every clip on disk has all its files and every row its clip; returns the clips."""
    rows = _rows(out)
    for row in rows:
        masks = out / "gt_mask" / _clip_of(row) / f"fid_{row['fid']}"
        assert sorted(p.name for p in masks.iterdir()) == [f"{i:05d}.png" for i in range(seconds)]
    clips = {p.name for p in (out / "media").iterdir()}
    assert {_clip_of(row) for row in rows} <= clips
    for clip in clips:
        folder = out / "media" / clip
        assert {p.name for p in folder.iterdir()} == {"frames", "audio.wav"}
        assert {p.name for p in (folder / "frames").iterdir()} == {f"{i}.jpg" for i in range(seconds)}
        assert (out / "gt_mask" / clip).is_dir()
        with wave.open(str(folder / "audio.wav")) as sound:
            assert sound.getnframes() == seconds * 16000
    return clips


def test_the_form_is_that_of_ref_avs(tmp_path: Path, tiny: Pack) -> None:
    out = _write(tmp_path / "set", tiny, 12)
    header = (out / "metadata.csv").read_bytes().split(b"\r\n")[0]
    assert header == b"vid,uid,split,fid,exp"
    rows = _rows(out)
    clips = _assert_whole(out)
    assert {_clip_of(row) for row in rows} == clips
    assert {p.name for p in (out / "gt_mask").iterdir()} == clips
    assert len({row["uid"] for row in rows}) == len(rows)
    for row in rows:
        clip = _clip_of(row)
        assert clip in (row["vid"], f"null_c-{row['vid']}", f"null_m-{row['vid']}")
        assert row["split"] in SPLITS and row["fid"].isdigit() and row["exp"].strip()
        assert ("_null_" in row["uid"]) == clip.startswith("null_")
        if row["split"] == "test_n":
            assert clip.startswith("null_")
        with Image.open(out / "media" / clip / "frames" / "3.jpg") as frame:
            assert frame.format == "JPEG" and frame.size == (65, 48) and frame.mode == "RGB"
        with wave.open(str(out / "media" / clip / "audio.wav")) as sound:
            assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 16000)
        for path in (out / "gt_mask" / clip / f"fid_{row['fid']}").iterdir():
            with Image.open(path) as mask:
                assert mask.format == "PNG" and mask.mode == "L" and mask.size == (65, 48)
                values = set(np.unique(np.asarray(mask)).tolist())
            assert values == ({0} if clip.startswith("null_") else {0, 255})
    left = {p.name for p in out.iterdir()}
    assert left == {"metadata.csv", "rows.jsonl", "media", "gt_mask", "LICENCES.txt"}


def test_what_is_written_is_the_scene(tmp_path: Path, tiny: Pack) -> None:
    out = _write(tmp_path / "set", tiny, 4, split="train")
    generator = SceneGenerator(tiny, "train", seed=5)
    rows = _rows(out)
    checked = 0
    for index, vid in enumerate(dict.fromkeys(row["vid"] for row in rows)):
        scene = generator.scene(index)
        frames, masks = scene.render(np.arange(10.0), SIZE)
        said = {(e.text, e.target) for e in scene.expressions()}
        track = _track(out, vid)
        assert np.abs(track / 32767 - scene.waveform()).max() <= 0.51 / 32767
        for row in rows:
            if row["vid"] != vid:
                continue
            clip, fid = _clip_of(row), int(row["fid"])
            shown = np.stack([_pixels(out / "media" / clip / "frames" / f"{i}.jpg") for i in range(10)])
            assert np.abs(shown.astype(int) - frames).mean() < 8  # JPEG
            if clip.startswith("null_m-"):
                assert not _track(out, clip).any()
                continue
            np.testing.assert_array_equal(_track(out, clip), track)
            null = clip.startswith("null_c-")
            assert (row["exp"], None if null else fid) in said
            folder = out / "gt_mask" / clip / f"fid_{fid}"
            drawn = np.stack([_pixels(folder / f"{i:05d}.png") for i in range(10)]) > 0
            np.testing.assert_array_equal(drawn, np.zeros_like(drawn) if null else masks[:, fid])
            checked += 1
    assert checked > 10


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def _track(out: Path, clip: str) -> np.ndarray:
    with wave.open(str(out / "media" / clip / "audio.wav")) as sound:
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2")


def test_our_own_reader_reads_it(tmp_path: Path, tiny: Pack) -> None:
    out = _write(tmp_path / "set", tiny, 6)
    table = read_table(out)
    assert len(table.rows) == len(_rows(out))
    for row in table.rows:
        assert row.is_null == (row.kind == "null")
        assert read_clip(out, row.clip, 32).frames.shape == (10, 32, 32, 3)


def test_the_side_file_has_a_line_a_row(tmp_path: Path, tiny: Pack) -> None:
    out = _write(tmp_path / "set", tiny, 8, seconds=2)
    rows = _rows(out)
    lines = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert [line["uid"] for line in lines] == [row["uid"] for row in rows]
    by_uid = {row["uid"]: row for row in rows}
    for line in lines:
        if line["swap_uid"]:
            swap, row = by_uid[line["swap_uid"]], by_uid[line["uid"]]
            assert swap["vid"] == row["vid"] and swap["fid"] != row["fid"]


def test_splits_are_mixed_or_one(tmp_path: Path, tiny: Pack) -> None:
    mixed = _write(tmp_path / "mixed", tiny, 20, seconds=2)
    clips = Counter({row["vid"]: row["split"] for row in _rows(mixed)}.values())
    assert set(clips) == set(SPLITS) and clips.most_common(1)[0][0] == "train"
    for split in SPLITS:
        one = _write(tmp_path / split, tiny, 2, split=split, seconds=2)
        assert {row["split"] for row in _rows(one)} == {split}


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path, tiny: Pack) -> None:
    first = _tree(_write(tmp_path / "a", tiny, 3, seconds=3))
    assert _tree(_write(tmp_path / "b", tiny, 3, seconds=3)) == first
    other = _tree(_write(tmp_path / "c", tiny, 3, seconds=3, seed=6))
    assert not set(other.values()) & {v for k, v in first.items() if k.endswith(".jpg")}
    longer = _tree(_write(tmp_path / "d", tiny, 5, seconds=3, split="val"))
    shorter = _tree(_write(tmp_path / "e", tiny, 3, seconds=3, split="val"))
    assert {k: v for k, v in shorter.items() if "/" in k}.items() <= longer.items()


@pytest.mark.parametrize("seconds", [1, 2.5])
def test_short_clips(tmp_path: Path, tiny: Pack, seconds: float) -> None:
    out = _write(tmp_path / "set", tiny, 2, split="train", seconds=seconds)
    frames = next((out / "media").iterdir()) / "frames"
    assert len(list(frames.iterdir())) == int(seconds)


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path, tiny: Pack) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"is not an empty folder: choose another --out"):
        _write(tmp_path, tiny)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(DatasetError, match="is not an empty folder"):
        _write(tmp_path / "mine.txt", tiny)
    with pytest.raises(DatasetError, match="cannot write to"):
        _write(tmp_path / "mine.txt" / "below", tiny)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    _assert_whole(_write(tmp_path / "empty", tiny, 1))


@pytest.mark.parametrize("options", [{"clips": 0}, {"size": (31, 64)}, {"split": "test"}, {"seconds": 0.5}])
def test_numbers_out_of_range_are_refused_before_anything_is_made(
    tmp_path: Path, tiny: Pack, options: dict[str, object]
) -> None:
    with pytest.raises(ValueError):
        _write(tmp_path / "set", tiny, **options)
    assert not (tmp_path / "set").exists()


def test_an_error_in_the_middle_leaves_whole_clips(
    tmp_path: Path, tiny: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_masks, calls = writer._write_masks, iter(range(8))

    def full_disk(folder: Path, masks: np.ndarray) -> None:
        write_masks(folder, masks)
        if next(calls, None) is None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_write_masks", full_disk)
    with pytest.raises(OSError, match="No space left"):
        _write(tmp_path / "set", tiny, 30, split="train")
    assert _assert_whole(tmp_path / "set")
    assert {p.name for p in (tmp_path / "set").iterdir()} >= {"metadata.csv", "media", "gt_mask"}


def test_a_kill_in_the_middle_leaves_whole_clips(tmp_path: Path, tiny_path: Path) -> None:
    out = tmp_path / "set"
    command = f"-m train scenes --out {out} --clips 500 --seed 1 --size 64x48 --pack {tiny_path}"
    process = subprocess.Popen([sys.executable, *command.split()], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            if out.exists() and (out / "metadata.csv").exists() and len(_rows(out)) > 20:
                break
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    clips = _assert_whole(out)
    assert 2 <= len(clips) < 500
    assert read_table(out).rows


def _scenes(*arguments: object) -> int:
    return main(["scenes", *map(str, arguments)])


def test_the_command_writes_a_data_set(
    tmp_path: Path, tiny_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    options = ("--split", "test_s", "--seconds", 3, "--size", "64x48", "--pack", tiny_path)
    assert _scenes("--out", out, "--clips", 2, "--seed", 7, *options) == 0
    assert capsys.readouterr().out.strip() == f"2 clips in {out}"
    _assert_whole(out, seconds=3)
    assert {row["split"] for row in _rows(out)} == {"test_s"}


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--out", "FULL", "is not an empty folder: choose another --out"),
        ("--out", "FILE/below", "cannot write to"),
        ("--clips", "0", "must be at least 1, not 0"),
        ("--clips", "many", "must be a whole number"),
        ("--seed", "-1", "must be a whole number from 0 on"),
        ("--split", "test", "invalid choice: 'test'"),
        ("--seconds", "0", "must be at least 1"),
        ("--size", "640", "must be WIDTHxHEIGHT"),
        ("--size", "8x8", "at least 32 pixels a side"),
        ("--pack", "FILE", "delete it and build it anew"),
        ("--pack", "FULL", "cannot be read"),
        ("--pack", "FILE/below.pack", "FILE"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    tmp_path: Path,
    tiny_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flag: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("not a pack")
    Path("FULL").mkdir()
    Path("FULL/kept.txt").write_text("kept")
    options = {"--out": "set", "--clips": "1", "--seed": "1", "--pack": str(tiny_path), flag: value}
    try:
        code = _scenes(*(part for option in options.items() for part in option))
    except SystemExit as stop:
        code = int(stop.code or 0)
    error = capsys.readouterr().err
    assert code in (1, 2)
    lines = [line for line in error.splitlines() if "error: " in line]
    assert len(lines) == 1 and said in lines[0] and "Traceback" not in error
    assert error.splitlines()[-1] == lines[0]
    assert Path("FILE").read_text() == "not a pack" and Path("FULL/kept.txt").read_text() == "kept"


def test_a_full_output_folder_is_told_before_a_pack_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    from refavs_rt.train import material

    monkeypatch.setattr(material, "build_pack", lambda path: path.write_bytes(b""))
    assert _scenes("--out", tmp_path, "--clips", 1, "--seed", 1, "--pack", tmp_path / "new.pack") == 1
    assert "is not an empty folder" in capsys.readouterr().err
    assert not (tmp_path / "new.pack").exists()
