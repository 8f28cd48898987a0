"""The Ref-AVS tree on disk: its table, its clips, its pairing of frames and sound, and what is said of bad files."""

from __future__ import annotations

import csv
import json
import math
import os
import time
import wave
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from refavs_rt import dataset
from refavs_rt.dataset import (
    ClipMedia,
    DataError,
    Row,
    count_frames,
    parse_table,
    read_clip,
    read_frames,
    read_rows,
    read_table,
)
from refavs_rt.train.truth import read_masks

from .ref_avs_tree import write_clips_of

REAL_TABLE = Path(__file__).parents[2] / "shared" / "refavs_metadata.csv"
HEIGHT, WIDTH = 36, 64
FRAMES = 3


def mask_at(fid: int, frame: int) -> NDArray[np.bool_]:
    """[HEIGHT, WIDTH]: a box of its own for each object and frame."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[4 + 6 * frame : 14 + 6 * frame, 3 + 9 * fid + 5 * frame : 21 + 9 * fid + 5 * frame] = True
    return mask


def shade_at(frame: int) -> int:
    return 40 + 70 * frame


def sound_of(clip: str, seconds: float = FRAMES) -> NDArray[np.int16]:
    rng = np.random.default_rng(sum(clip.encode()))
    return rng.integers(-9000, 9000, round(16_000 * seconds)).astype(np.int16)


def write_sound(
    path: Path, samples: NDArray[np.int16], rate: int = 16_000, channels: int = 1, width: int = 2
) -> None:
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(channels)
        wav.setsampwidth(width)
        wav.setframerate(rate)
        wav.writeframes(samples.tobytes())


def write_clip(folder: Path, clip: str, fids: tuple[int, ...] = (0, 1), frames: int = FRAMES) -> Path:
    """A clip with frames of one grey each, noise for sound and a box for each object; returns its media folder."""
    media = folder / "media" / clip
    (media / "frames").mkdir(parents=True)
    for i in range(frames):
        picture = np.full((HEIGHT, WIDTH, 3), shade_at(i), np.uint8)
        Image.fromarray(picture).save(media / "frames" / f"{i}.jpg", quality=95)
    write_sound(media / "audio.wav", sound_of(clip))
    for fid in fids:
        masks = folder / "gt_mask" / clip / f"fid_{fid}"
        masks.mkdir(parents=True)
        for i in range(frames):
            Image.fromarray(mask_at(fid, i).astype(np.uint8) * 255).save(masks / f"{i:05d}.png")
    return media


def write_table(folder: Path, rows: list[tuple[str, str, int | str, str]]) -> Path:
    """`rows`: uid, split, fid, exp."""
    path = folder / "metadata.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["vid", "uid", "split", "fid", "exp"])
        for uid, split, fid, text in rows:
            vid = uid.rsplit("_", 2)[0].removeprefix("null_c-").removeprefix("null_m-")
            writer.writerow([vid, uid, split, fid, text])
    return path


# The table


def test_clips_kinds_and_null_rows(tmp_path: Path) -> None:
    """Null rows have clips of their own; a clip's name may hold anything but the last two underscores."""
    rows = [
        ("a_b_0_10_cat_1", "test_s", 0, "The cat."),
        ("null_c-a_b_0_10_null_1", "test_n", 0, "The dog."),
        ("null_m--x_0_10_null_2", "test_n", 0, "The loud one."),
        ("nullable_0_10_cat_1", "test_s", 7, "A cat."),
        ("late_0_10_cat_1", "TODO", 0, "unsorted"),
    ]
    path = write_table(tmp_path, rows)
    (tmp_path / "rows.jsonl").write_text(
        json.dumps(
            {
                "uid": "nullable_0_10_cat_1",
                "kind": "name",
                "other_recording": True,
                "swap_uid": "a_b_0_10_cat_1",
            }
        )
        + "\n"
    )
    parsed, left_out = read_rows(path)
    assert left_out == {}
    assert [(row.clip, row.is_null, row.object_id, row.text) for row in parsed] == [
        ("a_b_0_10", False, "0", "The cat."),
        ("null_c-a_b_0_10", True, "0", "The dog."),
        ("null_m--x_0_10", True, "0", "The loud one."),
        ("nullable_0_10", False, "7", "A cat."),
    ]
    assert [(row.kind, row.other_recording, row.swap_uid) for row in parsed] == [
        *[(None, False, None)] * 3,
        ("name", True, "a_b_0_10_cat_1"),
    ]
    assert [row.uid for row in read_rows(path, "test_n")[0]] == [rows[1][0], rows[2][0]]


def test_spreadsheet_habits_are_read(tmp_path: Path) -> None:
    """A byte order mark, CRLF, columns in another order and more of them, padded cells, quotes, commas, accents."""
    text = (
        "exp,fid,uid,split,vid,note\r\n"
        'The dog ,0, c_0_1_dog_1,test_s ,c_0_1,x\r\n"The ""big"" dog, barking",0,c_0_1_dog_2,test_s,c_0_1,\r\n'
        'The "big" dog,0,c_0_1_dog_3,test_s,c_0_1,\r\nLe chien é,0,c_0_1_dog_4,test_s,c_0_1,\r\n'
    )
    path = tmp_path / "metadata.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    rows, left_out = read_rows(path)
    assert left_out == {}
    assert [row.text for row in rows] == [
        "The dog",
        'The "big" dog, barking',
        'The "big" dog',
        "Le chien é",
    ]
    assert {(row.clip, row.split) for row in rows} == {("c_0_1", "test_s")}
    assert [row.line for row in rows] == [2, 3, 4, 5]


def test_rows_that_cannot_be_read_are_left_out_and_told(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_text(
        "vid,uid,split,fid,exp\n"
        "c,c_0_1_a_1,val,0,fine\n"
        "c,c_0_1_a_2,val,0,The dog, that barks\n"
        "c,c_0_1_a_3,val,0,  \n"
        "c,c_0_1_a_4,val,0\n"
        "c,,val,0,whose?\n"
        "c,c_0_1_a_5,train,0,\n"
        "\n"
        "c\n"
        "c,c_0_1_a_6,val,0,fine,\n"
    )
    rows, left_out = read_rows(path, "val")
    assert [row.uid for row in rows] == ["c_0_1_a_1", "c_0_1_a_6"]
    assert left_out == {
        "c_0_1_a_2": f"{path}, line 3: more cells than columns; quote the expression",
        "c_0_1_a_3": f"{path}, line 4: no uid or no expression; write one",
        "c_0_1_a_4": f"{path}, line 5: no uid or no expression; write one",
        f"{path}, line 6": f"{path}, line 6: no uid or no expression; write one",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column 'vid'"),
        (b"vid,uid,split,exp\nc,c_0_1_a_1,val,x\n", "has no column 'fid'; it must have vid, uid, split"),
        (b"vid,uid,split,fid,exp\n\xff\xfe,a,val,0,x\n", "cannot be read as a table"),
        (
            b'vid,uid,split,fid,exp\nc,c_0_1_a_1,val,0,"The dog\nc,c_0_1_a_2,val,0,The cat\n',
            "line 3: a line break in a cell; close the quotation mark",
        ),
        (b'vid,uid,split,fid,exp\nc,c_0_1_a_1,val,0,"' + b"x" * 200_000, "field larger than field limit"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "metadata.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_table(tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_table_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metadata\.csv is missing; write scenes with: python -m train"):
        read_table(tmp_path)
    with pytest.raises(DataError, match=r"there is no folder .*nowhere$"):
        read_table(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"metadata\.csv cannot be read as a table: .*Not a directory"):
        read_table(tmp_path / "file")
    (tmp_path / "metadata.csv").mkdir()
    with pytest.raises(DataError, match=r"metadata\.csv cannot be read as a table"):
        read_table(tmp_path)


def test_clips_that_the_disk_lacks_are_told(tmp_path: Path) -> None:
    write_clip(tmp_path, "here_0_1")
    write_table(
        tmp_path,
        [
            ("gone_0_1_a_1", "val", 0, "x"),
            ("here_0_1_a_1", "val", 0, "y"),
            ("gone_0_1_a_2", "val", 0, "z"),
            ("here_0_1_a_2", "test_s", 1, "w"),
            ("here_0_1_a_3", "val", 1, "v"),
        ],
    )
    table = read_table(tmp_path)
    assert table.left_out == {"gone_0_1": f"{tmp_path / 'media' / 'gone_0_1'} is missing"}
    assert [row.text for row in table.rows] == ["y", "w", "v"]
    assert [(clip, [row.text for row in rows]) for clip, rows in table.by_clip()] == [
        ("here_0_1", ["y", "w", "v"])
    ]
    with pytest.raises(DataError, match=r"no rows of split 'train' with their clips under .*\(0 clips"):
        read_table(tmp_path, "train")


def test_a_table_without_any_clip_on_disk_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path, [("gone_0_1_a_1", "val", 0, "x")])
    with pytest.raises(DataError, match=r"no rows with their clips under .*media \(1 clips missing\)"):
        read_table(tmp_path)
    write_table(tmp_path, [])
    with pytest.raises(DataError, match=r"\(0 clips missing\)"):
        read_table(tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]\n", "7\n", '{"kind": "name"}\n', "\n"])
def test_a_damaged_side_file_is_named(tmp_path: Path, content: str) -> None:
    path = write_table(tmp_path, [("c_0_1_a_1", "val", 0, "x")])
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(DataError, match=r"rows\.jsonl is damaged .*without the file"):
        read_rows(path)


@pytest.mark.parametrize(
    ("uid", "fid", "why"),
    [
        ("dog", "0", "its uid 'dog' is not CLIP_CLASS_NUMBER"),
        ("dog_1", "0", "its uid 'dog_1' is not CLIP_CLASS_NUMBER"),
        ("_dog_1", "0", "is not CLIP_CLASS_NUMBER"),
        ("c__1", "0", "is not CLIP_CLASS_NUMBER"),
        ("../c_dog_1", "0", "is not CLIP_CLASS_NUMBER"),
        (".._dog_1", "0", "is not CLIP_CLASS_NUMBER"),
        ("c\0_dog_1", "0", "is not CLIP_CLASS_NUMBER"),
        ("c_dog_1", "", "its fid is ''; write the number of the object"),
        ("c_dog_1", "../0", "its fid is '../0'"),
    ],
)
def test_rows_that_name_no_folder_are_left_out(tmp_path: Path, uid: str, fid: str, why: str) -> None:
    path = write_table(tmp_path, [("c_cat_1", "val", 0, "x"), (uid, "val", fid, "y"), (uid, "odd", fid, "z")])
    rows, left_out = read_rows(path, "val")
    assert [row.uid for row in rows] == ["c_cat_1"]
    assert list(left_out) == [uid] and left_out[uid].startswith(f"{path}, line 3: ") and why in left_out[uid]
    everything, unusable = parse_table(path)
    assert everything == rows and [(row.line, row.split) for row in unusable] == [(3, "val"), (4, "odd")]
    assert unusable[1].why.startswith("its split is 'odd'; write one of train, val, ")


def test_null_rows_need_no_object(tmp_path: Path) -> None:
    path = write_table(tmp_path, [("null_c-c_null_1", "val", "", "x")])
    assert [row.clip for row in read_rows(path)[0]] == ["null_c-c"]


def test_expressions_keep_their_case(tmp_path: Path) -> None:
    path = write_table(tmp_path, [("c_hair-dryer_1", "val", 0, "  The DOG  of\tAnna ")])
    (row,) = read_rows(path)[0]
    assert row.text == "The DOG  of\tAnna" and row.class_name == "hair dryer"


def real_lines() -> list[list[str]]:
    """vid, uid, split, fid, exp of the real table, cut at the first four commas: another reading than ours."""
    lines = REAL_TABLE.read_bytes().decode("utf-8").split("\r\n")
    assert lines[0] == "vid,uid,split,fid,exp" and lines[-1] == ""
    return [line.split(",", 4) for line in lines[1:-1]]


needs_real_table = pytest.mark.skipif(not REAL_TABLE.exists(), reason="the real annotation table is not here")


@needs_real_table
def test_the_real_table_has_what_is_known_of_it() -> None:
    started = time.process_time()
    rows, unusable = parse_table(REAL_TABLE)
    assert time.process_time() - started < 2
    assert len(rows) + len(unusable) == 20_459
    assert [(row.split, row.why[:20]) for row in unusable] == [("TODO", "its split is 'TODO';")] * 25
    assert Counter(row.split for row in rows) == {
        "train": 14_113,
        "val": 1_349,
        "test_s": 2_288,
        "test_u": 1_656,
        "test_n": 1_028,
    }
    assert sum(row.is_null for row in rows) == 1_708
    assert Counter(row.split for row in rows if row.is_null) == {"train": 608, "val": 72, "test_n": 1_028}
    assert all(len(read_rows(REAL_TABLE, split)[0]) == n for split, n in (("test_u", 1_656), ("val", 1_349)))
    assert read_rows(REAL_TABLE)[1] == {}


@needs_real_table
def test_the_real_table_cell_by_cell() -> None:
    """Against a reading that knows nothing of CSV: no row is lost, moved, or given another clip, object or sentence."""
    lines = real_lines()
    known = {number: line for number, line in enumerate(lines, start=2) if line[2] != "TODO"}
    rows = {row.line: row for row in parse_table(REAL_TABLE)[0]}
    assert rows.keys() == known.keys()
    padded = 0
    for number, (vid, uid, split, fid, text) in known.items():
        row = rows[number]
        assert (row.uid, row.split, row.object_id) == (uid, split, fid)
        plain = text[1:-1].replace('""', '"') if text.startswith('"') else text
        assert row.text == plain.strip(" ")
        padded += row.text != plain
        prefix = row.clip.removesuffix(vid)
        assert prefix in ("", "null_c-", "null_m-") and row.is_null is bool(prefix)
        assert uid.startswith(f"{row.clip}_{row.class_name.replace(' ', '-')}_")
    assert padded > 20 and any(row.text != row.text.lower() for row in rows.values())


@needs_real_table
def test_the_real_table_with_few_of_its_clips(tmp_path: Path) -> None:
    """Its rows find their files, whatever the sizes of the pictures; the rows of all other clips are told as missing."""
    tree = tmp_path / "tree"
    written = write_clips_of(REAL_TABLE, tree)
    table = read_table(tree)
    assert sorted(clip for clip, _ in table.by_clip()) == sorted(written) and len(written) == 5
    assert len(table.left_out) == 3_993 - 5
    for clip, rows in table.by_clip():
        media = read_clip(tree, clip, 32)
        assert media.frames.shape == (10, 32, 32, 3)
        assert media.samples is not None and len(media.samples) == 160_000
        for row in {row.object_id: row for row in rows}.values():
            truth = read_masks(tree, row, 10)
            assert truth.any(axis=(1, 2)).all() if not row.is_null else not truth.any()
    assert {row.split for row in table.rows} == {"train", "val", "test_s", "test_u", "test_n"}


# Clips


def test_frames_come_in_order_and_square(tmp_path: Path) -> None:
    """12 frames: 10.jpg comes after 9.jpg. Stray files are no frames."""
    media = write_clip(tmp_path, "c", frames=0)
    for i in range(12):
        Image.new("RGB", (WIDTH, HEIGHT), (20 * i, 0, 255 - 20 * i)).save(
            media / "frames" / f"{i}.jpg", quality=95
        )
    for stray in ("._0.jpg", "thumb.jpg", "0.png"):
        (media / "frames" / stray).write_bytes(b"stray")
    frames = read_clip(tmp_path, "c", 24).frames
    assert frames.shape == (12, 24, 24, 3) and frames.dtype == np.uint8
    np.testing.assert_allclose(frames[:, 12, 12, 0], [20 * i for i in range(12)], atol=3)
    np.testing.assert_allclose(frames[:, 12, 12, 2], [255 - 20 * i for i in range(12)], atol=3)


def test_a_gap_between_frames_is_no_shift(tmp_path: Path) -> None:
    media = write_clip(tmp_path, "c", frames=4)
    (media / "frames" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"frames/1\.jpg is missing"):
        read_clip(tmp_path, "c", 32)
    for path in (media / "frames").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"media/c/frames has no frames"):
        read_clip(tmp_path, "c", 32)


def test_only_frames_count(tmp_path: Path) -> None:
    """Files whose names are other numbers, or no text at all, beside them."""
    media = write_clip(tmp_path, "c")
    for name in ("03.jpg", "٤.jpg", "²5.jpg", "-6.jpg", "7.JPG", "99999999999999999999.jpg", "8.jpg.part"):
        (media / "frames" / name).write_bytes(b"stray")
    (media / "frames" / os.fsdecode(b"\xff\xfe9.jpg")).write_bytes(b"stray")
    assert count_frames(tmp_path, "c") == FRAMES
    assert count_frames(tmp_path, "nowhere") == 0
    (media / "file").write_bytes(b"x")
    assert count_frames(tmp_path, "c/file") == 0


def test_folders_whose_names_are_no_text(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"d\xe9ta")
    write_clip(folder, "here_0_1")
    (folder / "media" / os.fsdecode(b"\xff_0_1")).mkdir()
    write_table(folder, [("here_0_1_a_1", "val", 0, "x"), ("ÿ_0_1_a_1", "val", 0, "y")])
    table = read_table(folder)
    assert [row.text for row in table.rows] == ["x"] and list(table.left_out) == ["ÿ_0_1"]
    assert read_clip(folder, "here_0_1", 16).frames.shape == (FRAMES, 16, 16, 3)


def test_a_draft_is_taken_only_where_it_is_about_the_same(tmp_path: Path) -> None:
    """A picture of smooth noise, edges and fine stripes; whole pictures are PIL's own stretch, to the bit."""
    media = write_clip(tmp_path, "c", frames=0)
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (24, 43, 3), np.uint8)).resize(
        (643, 361), Image.Resampling.BICUBIC
    )
    picture = np.array(coarse)
    picture[100:140, 200:420] = (250, 20, 30)
    picture[200:300:2, 300:500] //= 2
    path = media / "frames" / "0.jpg"
    Image.fromarray(picture).save(path, quality=92)
    for size, drafted in ((128, True), (129, False), (360, False)):
        whole, draft = (read_frames(tmp_path, "c", [0], size, draft=d)[0] for d in (False, True))
        with Image.open(path) as original:
            expected = np.asarray(original.resize((size, size), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(whole, expected)
        error = np.abs(draft.astype(int) - whole)
        assert error.any() == drafted
        assert error.mean() < 0.8 and np.percentile(error, 99) <= 5


def cuts(data: bytes, latest: int = 1) -> Iterator[bytes]:
    """A file that ends too early, in many places up to `latest` bytes before its end, or holds other bytes."""
    yield b""
    yield b"no such format"
    yield b"\0" * len(data)
    for share in (0.02, 0.1, 0.3, 0.6, 0.9, 1):
        yield data[: int((len(data) - latest) * share)]


def test_damaged_frames_are_named(tmp_path: Path) -> None:
    path = write_clip(tmp_path, "c") / "frames" / "2.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    for content in cuts(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"2\.jpg is damaged"):
            read_clip(tmp_path, "c", 32)


def row_of(clip: str, fid: int, null: bool = False) -> Row:
    return Row(f"{clip}_x_1", clip, "val", str(fid), "x", null, 2)


def test_damaged_masks_are_named(tmp_path: Path) -> None:
    write_clip(tmp_path, "c")
    path = tmp_path / "gt_mask" / "c" / "fid_1" / "00001.png"
    good = path.read_bytes()
    for content in cuts(good, latest=22):  # what comes later are checksums and the end mark
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"fid_1/00001\.png is damaged"):
            read_masks(tmp_path, row_of("c", 1), FRAMES)
    refused = 0
    for bit in range(0, 8 * len(good), 7):  # PIL answers some of these with SyntaxError or ValueError
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            read_masks(tmp_path, row_of("c", 1), FRAMES)
        except DataError as error:
            refused += str(path) in str(error)
    assert refused > 4 * len(good) / 7
    path.unlink()
    with pytest.raises(DataError, match=r"fid_1/00001\.png is missing"):
        read_masks(tmp_path, row_of("c", 1), FRAMES)


def test_masks_are_those_of_the_object_and_the_frame(tmp_path: Path) -> None:
    write_clip(tmp_path, "c")
    for fid in (0, 1):
        truth = read_masks(tmp_path, row_of("c", fid), FRAMES)
        assert truth.shape == (FRAMES, 256, 256) and truth.dtype == bool
        for i in range(FRAMES):
            expected = mask_at(fid, i)
            # Pixels whose two neighbours in each direction agree: the middle of each source cell.
            for y in range(1, HEIGHT - 1):
                for x in range(1, WIDTH - 1):
                    at = int((y + 0.5) * 256 / HEIGHT), int((x + 0.5) * 256 / WIDTH)
                    around = expected[y - 1 : y + 2, x - 1 : x + 2]
                    if around.all() or not around.any():
                        assert truth[i][at] == expected[y, x]
    assert not read_masks(tmp_path, row_of("null_c-c", 0, null=True), FRAMES).any()


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA"])
def test_masks_of_any_picture_mode(tmp_path: Path, mode: str) -> None:
    write_clip(tmp_path, "c")
    expected = read_masks(tmp_path, row_of("c", 0), FRAMES)
    for path in (tmp_path / "gt_mask" / "c" / "fid_0").iterdir():
        with Image.open(path) as picture:
            converted = picture.convert(mode)
        converted.save(path)
    assert (read_masks(tmp_path, row_of("c", 0), FRAMES) == expected).all()


# Sound


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """`patches` returns the samples under each patch."""
    monkeypatch.setattr(dataset, "log_mel", lambda samples: samples.copy())


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("seconds", [3.0, 1.6, 0.0])
def test_windows_begin_at_the_frame_or_end_there(seconds: float) -> None:
    """To the sample; outside of the track there is silence."""
    samples = np.random.default_rng(0).normal(size=round(seconds * 16_000)).astype(np.float32)
    media = ClipMedia(np.zeros((3, 4, 4, 3), np.uint8), samples)
    for offset_s, begin in ((0.975, 0), (0.0, -15_600), (-0.5, -23_600)):
        found = media.patches(offset_s)
        assert found.shape == (3, 15_600)
        for i in range(3):
            for k in (*range(0, 15_600, 97), 15_599):
                at = 16_000 * i + begin + k
                assert found[i, k] == (samples[at] if 0 <= at < len(samples) else 0.0)


def test_no_track_sounds_like_silence() -> None:
    silent = ClipMedia(np.zeros((2, 4, 4, 3), np.uint8), None).patches(0.0)
    np.testing.assert_allclose(silent, math.log(0.01), rtol=1e-6)


def test_sound_is_mono_at_16_khz(tmp_path: Path) -> None:
    path = write_clip(tmp_path, "c") / "audio.wav"
    plain = read_clip(tmp_path, "c", 32).samples
    assert plain is not None and plain.dtype == np.float32
    np.testing.assert_array_equal(plain, sound_of("c") / np.float32(32_768))

    left, right = sound_of("left"), sound_of("right")
    write_sound(path, np.stack([left, right], axis=1), channels=2)
    both = read_clip(tmp_path, "c", 32).samples
    np.testing.assert_allclose(both, (left.astype(np.float64) + right) / 65_536, atol=1e-7)

    for rate in (8_000, 22_050, 44_100, 48_000):  # a tone keeps its height, its loudness and its length
        times = np.arange(2 * rate) / rate
        write_sound(path, (16_384 * np.sin(2 * np.pi * 440 * times)).astype(np.int16), rate)
        heard = read_clip(tmp_path, "c", 32).samples
        assert heard is not None and heard.dtype == np.float32 and len(heard) == 32_000
        expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
        np.testing.assert_allclose(heard[500:-500], expected[500:-500], atol=2e-3)


def test_no_track_and_an_empty_one(tmp_path: Path) -> None:
    path = write_clip(tmp_path, "c") / "audio.wav"
    for rate in (16_000, 44_100):
        write_sound(path, np.zeros(0, np.int16), rate)
        samples = read_clip(tmp_path, "c", 32).samples
        assert samples is not None and len(samples) == 0
    path.unlink()
    assert read_clip(tmp_path, "c", 32).samples is None


def test_damaged_sound_is_named(tmp_path: Path) -> None:
    path = write_clip(tmp_path, "c") / "audio.wav"
    write_sound(path, sound_of("c"), channels=2)
    good = path.read_bytes()
    for content in (*cuts(good), good[:-1], good[:-2], good[:20], good[:40]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"audio\.wav (is damaged|cannot be read): "):
            read_clip(tmp_path, "c", 32)
    path.write_bytes(good[:24] + b"\0\0\0\0" + good[28:])  # a rate of 0
    with pytest.raises(DataError, match=r"audio\.wav (is damaged|cannot be read)"):
        read_clip(tmp_path, "c", 32)
    path.write_bytes(good[:20] + b"\3\0" + good[22:])  # floating point samples
    with pytest.raises(DataError, match=r"audio\.wav cannot be read: .* 16 bits; convert it to 16-bit PCM"):
        read_clip(tmp_path, "c", 32)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"audio\.wav cannot be read"):
        read_clip(tmp_path, "c", 32)
