"""Batches from a data set on disk: truths, names, pairing, and clips that cannot be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from refavs_rt.log_mel import log_mel
from refavs_rt.train.batches import Batch, BatchConfig
from refavs_rt.train.data import DataError
from refavs_rt.train.data_source import open_source
from refavs_rt.train.disk_batches import DiskBatches, DiskSource

from .ref_avs_tree import FRAMES, write_tree

CONFIG = BatchConfig(
    image_size=64, late_image_size=96, late_from_step=50, sentences=4, shapes=((10, 3),), decoded_ticks=4
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


def batch_of(source: DiskSource, step: int, config: BatchConfig = CONFIG, seed: int = 0) -> Batch:
    return source.batches(config, seed)[step]


def test_open_source_takes_the_folder(tree: Path, tmp_path: Path) -> None:
    source = open_source(str(tree), tmp_path)
    assert isinstance(source, DiskSource)
    assert source.names == ("blue disc", "green disc", "red disc")
    assert source.material["data"].startswith("6 clips")
    with pytest.raises(FileNotFoundError, match="neither a pack nor a data set"):
        open_source(str(tree / "nowhere"), tmp_path)


def test_masks_are_the_share_of_each_cell(tree: Path) -> None:
    """Against torch's adaptive average of the mask pictures."""
    batch = batch_of(DiskSource(tree), 0)
    assert batch.frames.shape == (3, 10, 3, 64, 64) and batch.target.masks.shape == (3, 4, 4, 16, 16)
    found = 0
    for texts, masks, presence in zip(batch.texts, batch.target.masks, batch.target.presence, strict=True):
        for n, text in enumerate(texts):
            candidates = [m for t, m in truths(tree) if t == text]
            errors = [float((masks[0, n] - m).abs().max()) for m in candidates]
            if presence[0, n]:
                assert min(errors) < 1e-5
                found += 1
            else:
                assert not masks[:, n].any()
    assert found >= 4


def truths(tree: Path) -> list[tuple[str, torch.Tensor]]:
    out = []
    for line in (tree / "metadata.csv").read_text().splitlines()[1:]:
        _, uid, _, fid, text = line.split(",")
        path = tree / "gt_mask" / uid.rsplit("_", 2)[0] / f"fid_{fid}" / "00000.png"
        mask = torch.from_numpy(np.array(Image.open(path)) > 0).float()
        out.append((text, exact_cells(mask, 16)))
    return out


def exact_cells(mask: torch.Tensor, side: int) -> torch.Tensor:
    """Mean over cells of fractional size: enlarged until the cells are whole, then averaged."""
    height, width = mask.shape
    whole = mask.repeat_interleave(side, 0).repeat_interleave(side, 1)
    return functional.avg_pool2d(whole[None, None], (height, width))[0, 0]


def test_null_sentences_have_no_mask(tree: Path) -> None:
    source = DiskSource(tree)
    seen = 0
    for step in range(6):
        batch = batch_of(source, step)
        for kinds, masks, presence in zip(
            batch.kinds, batch.target.masks, batch.target.presence, strict=True
        ):
            for n, kind in enumerate(kinds):
                assert kind in ("null", "expression")
                assert bool(presence[:, n].all()) is (kind == "expression")
                assert bool(masks[:, n].any()) is (kind == "expression")
                seen += kind == "null"
    assert seen > 3


def test_cells_are_named_only_where_a_mask_is(tree: Path) -> None:
    source = DiskSource(tree)
    names = batch_of(source, 0).target.names
    assert names.shape == (3, 4, 8, 8)
    assert set(names.unique().tolist()) <= {-2, 0, 1, 2} and (names >= 0).any() and (names == -2).any()


def test_a_step_is_the_same_whoever_asks(tree: Path) -> None:
    one, two = DiskSource(tree), DiskSource(tree)
    batch_of(one, 3)
    first, second = batch_of(one, 4), batch_of(two, 4)
    assert first.texts == second.texts and torch.equal(first.frames, second.frames)
    assert torch.equal(first.target.masks, second.target.masks)
    assert not torch.equal(batch_of(one, 5).target.masks, first.target.masks)
    assert batch_of(one, 4, seed=1).texts != first.texts


def test_late_steps_see_large_pictures(tree: Path) -> None:
    assert batch_of(DiskSource(tree), 50).frames.shape[-1] == 96


@pytest.mark.parametrize(("share", "begins_s"), [(1.0, 0.0), (0.0, -0.975)])
def test_sound_is_paired_as_asked(tree: Path, share: float, begins_s: float) -> None:
    """The second that begins at the frame, or the window that ends at it, of a 440 Hz tone that the test makes anew."""
    config = replace(CONFIG, dataset_pairing=share)
    batch = batch_of(DiskSource(tree), 0, config)
    wave = np.trunc(8_000 * np.sin(2 * np.pi * 440 * np.arange(160_000) / 16_000)) / 32_768
    for tick in (1, 4):
        start = round((tick + begins_s) * 16_000)
        expected = log_mel(wave[start : start + 15_600].astype(np.float32))
        np.testing.assert_allclose(batch.log_mel[0, tick].numpy(), expected, atol=1e-4)


def test_a_broken_clip_is_told_and_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_tree(tmp_path)
    broken = tree / "media" / "clip0_0_10000" / "frames" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    source = DiskSource(tree)
    for step in range(3):
        assert torch.isfinite(batch_of(source, step).frames).all()
    assert str(broken) in capsys.readouterr().err


def test_a_data_set_without_a_readable_clip_is_given_up(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, ("train",))
    source = DiskSource(tree)
    for path in tree.glob("media/*/frames/*.jpg"):
        path.write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"20 clips in a row cannot be read; the last fault: .*jpg is damaged"
    ):
        batch_of(source, 0)


def test_a_split_that_is_missing_is_named(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, ("val",))
    with pytest.raises(DataError, match="train"):
        DiskSource(tree)


def test_validation_is_the_split_val_whole(tree: Path, tmp_path: Path) -> None:
    clips = DiskSource(tree).validation(5, 64)
    assert len(clips) == 2 and {len(clip.frames) for clip in clips} == {FRAMES}
    assert {kind for clip in clips for kind in clip.kinds} == {"null", "expression"}
    assert DiskSource(write_tree(tmp_path, ("train",))).validation(5, 64) == []


def test_batches_can_be_made_in_a_worker(tree: Path) -> None:
    loader = torch.utils.data.DataLoader(
        DiskBatches(tree, DiskSource(tree).clips, ("red disc",), CONFIG, 0),
        batch_size=None,
        sampler=range(2),
        num_workers=1,
    )
    assert [batch.frames.shape[0] for batch in loader] == [3, 3]
