"""Masks against torch's resize, pycocotools and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco
from scipy import ndimage

from refavs_rt import masks

SIZES = [(1, 1), (1, 7), (7, 1), (13, 17), (64, 48), (111, 63)]


def blobs(size: tuple[int, int], seed: int, level: float = 0.5) -> NDArray[np.bool_]:
    noise = np.random.default_rng(seed).random(size)
    return ndimage.gaussian_filter(noise, 2.0, mode="wrap") > level if min(size) > 8 else noise > level


@pytest.mark.parametrize("target", [(64, 64), (97, 131), (23, 40), (5, 3), (1, 1), (720, 1280)])
@pytest.mark.parametrize("source", [(16, 16), (64, 64), (1, 3)])
def test_resize_is_torchs_antialiased_bilinear(source: tuple[int, int], target: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).normal(size=source).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(plane)[None, None], target, mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(masks.resize(plane, target), expected[0, 0].numpy(), atol=2e-5)


@pytest.mark.parametrize("target", [(131, 97), (20, 30), (64, 64)])
def test_binary_masks_are_the_resized_sigmoid_above_the_threshold(target: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    logits = ndimage.gaussian_filter(rng.normal(size=(5, 64, 64)), (0, 3, 3)).astype(np.float32) * 30
    logits[1] -= 6.0  # small islands
    logits[2] = -9.0
    logits[3] = 9.0
    resized = np.stack([masks.resize(plane, target) for plane in logits])
    probability = 1 / (1 + np.exp(-resized.astype(np.float64)))
    found = masks.binary_masks(logits, target, 0.4)
    sure = np.abs(probability - 0.4) > 1e-5
    assert found.dtype == np.bool_ and found.shape == (5, *target)
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(found[sure], (probability > 0.4)[sure])
    assert not found[2].any() and found[3].all() and 0 < found[1].sum() < found[0].sum()


def test_binary_masks_of_no_sentence() -> None:
    assert masks.binary_masks(np.zeros((0, 16, 16), np.float32), (30, 40), 0.4).shape == (0, 30, 40)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["blobs", "noise", "empty", "full", "first", "last"])
def test_rle_is_cocos(size: tuple[int, int], kind: str) -> None:
    mask = {
        "blobs": blobs(size, 2),
        "noise": np.random.default_rng(3).random(size) > 0.3,
        "empty": np.zeros(size, bool),
        "full": np.ones(size, bool),
        "first": np.arange(size[0] * size[1]).reshape(size) == 0,
        "last": np.arange(size[0] * size[1]).reshape(size) == size[0] * size[1] - 1,
    }[kind]
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    rle = masks.rle_encode(mask)
    assert rle == {"size": list(size), "counts": expected["counts"].decode()}
    np.testing.assert_array_equal(masks.rle_decode(rle), mask)


def test_rle_of_long_runs_is_cocos() -> None:
    mask = np.zeros((3001, 2003), bool)
    mask[5:2990, 1000:1700] = True
    mask[17, 3] = True
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert masks.rle_encode(mask)["counts"] == expected
    np.testing.assert_array_equal(masks.rle_decode(masks.rle_encode(mask)), mask)


def test_rle_takes_arrays_of_any_layout() -> None:
    mask = blobs((40, 60), 5)
    assert masks.rle_encode(mask.T[::-1]) == masks.rle_encode(np.ascontiguousarray(mask.T[::-1]))


@pytest.mark.parametrize("counts", ["", "1", "PP", "~~", "0\x00", "é"])
def test_a_damaged_rle_is_refused(counts: str) -> None:
    with pytest.raises(ValueError, match="RLE"):
        masks.rle_decode({"size": [5, 5], "counts": counts})


@pytest.mark.parametrize("size", SIZES)
def test_box_area_and_centroid(size: tuple[int, int]) -> None:
    for seed in range(5):
        mask = blobs(size, seed, 0.52)
        rows, columns = np.nonzero(mask)
        if not rows.size:
            assert masks.box(mask) is None and masks.centroid(mask) is None
            continue
        x, y, width, height = masks.box(mask) or []
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
        assert masks.box(mask) == coco.toBbox(coco.encode(np.asfortranarray(mask.astype(np.uint8)))).tolist()
        assert masks.centroid(mask) == pytest.approx([columns.mean() + 0.5, rows.mean() + 0.5])
