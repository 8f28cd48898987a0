"""Masks as PNG files, read back by Pillow and OpenCV."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from refavs_rt.jsonl import read_records
from refavs_rt.outputs import mask_files
from refavs_rt.outputs.base import Facts
from refavs_rt.outputs.mask_files import MaskFilesOutput
from refavs_rt.png import encode_mask
from refavs_rt.sink import SinkError

TEXTS = ("a dog", "ein Bär")


def facts(is_live: bool = False) -> Facts:
    return SimpleNamespace(is_live=is_live)  # type: ignore[return-value]


def result(index: int, size: tuple[int, int] = (90, 160), texts: tuple[str, ...] = TEXTS) -> Any:
    masks = np.random.default_rng(index).random((len(texts), *size)) > 0.7
    return SimpleNamespace(index=index, pts_s=index / 25, texts=texts, masks=masks)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (91, 161), (720, 1280)])
@pytest.mark.parametrize("kind", ["empty", "full", "noise", "circle", "strided"])
def test_a_mask_comes_back(size: tuple[int, int], kind: str) -> None:
    height, width = size
    y, x = np.mgrid[:height, :width]
    mask = {
        "empty": np.zeros(size, bool),
        "full": np.ones(size, bool),
        "noise": np.random.default_rng(0).random(size) > 0.5,
        "circle": (x - width / 2) ** 2 + (y - height / 2) ** 2 < height**2 / 9,
        "strided": (np.random.default_rng(1).random((height, 2 * width)) > 0.5)[:, ::2],
    }[kind]
    data = encode_mask(mask)
    read = Image.open(io.BytesIO(data))
    assert (read.format, read.mode, read.size) == ("PNG", "L", (width, height))
    np.testing.assert_array_equal(np.asarray(read), 255 * mask.astype(np.uint8))
    by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(by_opencv, 255 * mask.astype(np.uint8))
    if kind == "circle" and height > 500:
        assert len(data) < 20_000


def test_every_frame_of_a_file_is_written(tmp_path: Path) -> None:
    results = [result(i, texts=TEXTS[: i % 3]) for i in range(40)]  # sentences come and go
    with MaskFilesOutput(tmp_path / "masks", facts()) as output:
        for one in results:
            output.write(one)
    rows = list(read_records(tmp_path / "masks/index.jsonl"))
    assert [row["index"] for row in rows] == list(range(40))
    for row, one in zip(rows, results, strict=True):
        assert row["pts_s"] == one.pts_s
        assert [m["text"] for m in row["masks"]] == list(one.texts)
        assert [m["file"] for m in row["masks"]] == [
            f"{one.index:06d}_{i}.png" for i in range(len(one.texts))
        ]
        for named, mask in zip(row["masks"], one.masks, strict=True):
            pixels = np.asarray(Image.open(tmp_path / "masks" / named["file"]))
            np.testing.assert_array_equal(pixels, 255 * mask.astype(np.uint8))
    named = {m["file"] for row in rows for m in row["masks"]} | {"index.jsonl"}
    assert {item.name for item in (tmp_path / "masks").iterdir()} == named
    assert output.dropped == 0 and output.summary == f"wrote {tmp_path / 'masks'}"


class SlowDisk:
    """Files are written when it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()

        def slow(mask: Any) -> bytes:
            assert self.go.wait(60)
            return encode_mask(mask)

        monkeypatch.setattr(mask_files, "encode_mask", slow)


def test_a_slow_disk_costs_a_live_source_frames_and_a_file_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    with MaskFilesOutput(tmp_path / "live", facts(is_live=True)) as live:
        for i in range(50):
            live.write(result(i))  # never waits
        assert live.dropped >= 40
        ((at_s, text),) = live.take_notices()
        assert "too slow; masks are left out" in text and 0 < at_s < 1 and live.take_notices() == []
        disk.go.set()
    assert len(list(read_records(tmp_path / "live/index.jsonl"))) == 50 - live.dropped
    assert live.summary.endswith(f", {live.dropped} frames left out")

    disk.go.clear()
    with MaskFilesOutput(tmp_path / "file", facts()) as file:

        def write() -> None:
            for i in range(10):
                file.write(result(i))

        writing = threading.Thread(target=write)
        writing.start()
        writing.join(0.5)
        assert writing.is_alive(), "it waits"
        disk.go.set()
        writing.join(60)
    assert len(list(read_records(tmp_path / "file/index.jsonl"))) == 10


def test_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(mask: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mask_files, "encode_mask", full)
    output = MaskFilesOutput(tmp_path / "masks", facts())
    with pytest.raises(SinkError, match=r"masks cannot be written \(No space left on device\)"):
        for i in range(100):
            output.write(result(i))
    output.abort()
    with (
        pytest.raises(SinkError, match="No space left"),
        MaskFilesOutput(tmp_path / "more", facts()) as output,
    ):
        output.write(result(0))


def test_what_is_there_is_not_mixed_with(tmp_path: Path) -> None:
    (tmp_path / "other.png").write_text("mine")
    with pytest.raises(SinkError, match="holds files already; name a new folder"):
        MaskFilesOutput(tmp_path, facts())
    with pytest.raises(SinkError, match="cannot be written there"):
        MaskFilesOutput(tmp_path / "no" / "such", facts())
    with pytest.raises(SinkError, match="cannot be written there"):
        MaskFilesOutput(tmp_path / "other.png", facts())
