"""Masks with the picture's edges: the guided filter's formula in float64, and what it does to a known edge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from refavs_rt._ingest import GuidedUpsampler

Array = NDArray[np.float64]
RAW: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
"""Of a tensor that is in [0, 1] as it is."""


def box(plane: Array, radius: int) -> Array:
    """The mean of what of a window lies inside."""
    side = 2 * radius + 1
    inside = uniform_filter(np.ones_like(plane), side, mode="constant")
    return uniform_filter(plane, side, mode="constant") / inside


def guided(mask: Array, small: Array, image: NDArray[np.uint8], radius: int, epsilon: float) -> Array:
    """He and Sun's fast guided filter with a guide in colour, [H, W], by a solver for each window."""
    means = [box(channel, radius) for channel in small]
    mean_mask = box(mask, radius)
    with_mask = np.stack([box(small[c] * mask, radius) - means[c] * mean_mask for c in range(3)], axis=-1)
    covariance = np.empty((*mask.shape, 3, 3))
    for i in range(3):
        for j in range(3):
            covariance[..., i, j] = box(small[i] * small[j], radius) - means[i] * means[j]
    a = np.linalg.solve(covariance + epsilon * np.eye(3), with_mask[..., None])[..., 0]
    b = mean_mask - sum(a[..., c] * means[c] for c in range(3))
    planes = np.stack([*(box(a[..., c], radius) for c in range(3)), box(b, radius)])
    wide = torch.nn.functional.interpolate(torch.from_numpy(planes)[None], image.shape[:2], mode="bilinear")[
        0
    ]
    rgb = torch.from_numpy(image).permute(2, 0, 1) / 255.0
    return (wide[:3] * rgb).sum(dim=0).add(wide[3]).numpy()


@pytest.mark.parametrize(
    ("height", "width", "low", "radius", "factor"),
    [(90, 131, 32, 3, 1), (31, 17, 32, 4, 2), (200, 64, 24, 1, 3), (5, 9, 4, 4, 1)],
)
def test_the_formula(height: int, width: int, low: int, radius: int, factor: int) -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    tensor = rng.normal(size=(3, low * factor, low * factor)).astype(np.float32)
    small = tensor.reshape(3, low, factor, low, factor).mean(axis=(2, 4), dtype=np.float64)
    small = small * np.array(std)[:, None, None] + np.array(mean)[:, None, None]
    masks = rng.random((2, low, low)).astype(np.float32)
    upsampler = GuidedUpsampler(width, height, low, radius, 1e-2)
    for threshold in (0.4, 0.55):
        found = upsampler.run(masks, tensor, image, mean=mean, std=std, threshold=threshold)
        assert found.dtype == np.bool_
        for mask, plane in zip(masks, found, strict=True):
            exact = guided(mask.astype(np.float64), small, image, radius, 1e-2)
            clear = np.abs(exact - threshold) > 1e-4
            assert clear.mean() > 0.99
            np.testing.assert_array_equal(plane[clear], (exact > threshold)[clear])


def test_only_what_a_mask_reaches_is_looked_at() -> None:
    """A mask in a corner gives what it gives where all is looked at; none gives none, also after one."""
    rng = np.random.default_rng(4)
    image = rng.integers(0, 256, (70, 110, 3)).astype(np.uint8)
    small = rng.random((3, 40, 40)).astype(np.float32)
    mask = np.zeros((40, 40), np.float32)
    mask[3:9, 28:36] = 0.9
    upsampler = GuidedUpsampler(110, 70, 40, 2, 1e-2)
    found = upsampler.run(np.stack([mask, np.zeros_like(mask)]), small, image, **RAW, threshold=0.4)
    exact = guided(mask.astype(np.float64), small.astype(np.float64), image, 2, 1e-2)
    clear = np.abs(exact - 0.4) > 1e-4
    np.testing.assert_array_equal(found[0][clear], (exact > 0.4)[clear])
    assert found[0].any() and not found[1].any()


def test_a_coarse_mask_takes_the_edge_of_the_picture() -> None:
    """A disc seen by 8 x 8 cells comes back as the disc of 256 x 256 pixels, but for few of them."""
    y, x = np.mgrid[:256, :256] + 0.5
    disc = np.hypot(y - 120, x - 140) < 60
    rng = np.random.default_rng(5)
    colours = np.where(disc[..., None], (180, 120, 60), (40, 90, 130)) + rng.normal(0, 6, (256, 256, 3))
    image = np.clip(colours, 0, 255).astype(np.uint8)
    small = (image.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3)) / 255).transpose(2, 0, 1).astype(np.float32)
    cells = torch.from_numpy(disc.reshape(8, 32, 8, 32).mean(axis=(1, 3)))[None, None]
    mask = torch.nn.functional.interpolate(cells, (64, 64), mode="bilinear")[0].numpy().astype(np.float32)
    found = GuidedUpsampler(256, 256, 64, 6, 1e-3).run(mask, small, image, **RAW, threshold=0.5)[0]
    plain = torch.nn.functional.interpolate(cells, (256, 256), mode="bilinear")[0, 0].numpy() > 0.5
    wrong, wrong_plain = (found != disc).sum(), (plain != disc).sum()
    assert wrong < 0.2 * wrong_plain, f"{wrong} pixels wrong, {wrong_plain} without the picture"


def test_wrong_arrays_are_refused() -> None:
    upsampler = GuidedUpsampler(20, 10, 8, 2, 1e-3)
    masks, small, image = (
        np.zeros((1, 8, 8), np.float32),
        np.zeros((3, 8, 8), np.float32),
        np.zeros((10, 20, 3), np.uint8),
    )
    assert upsampler.run(masks, small, image, **RAW, threshold=0.5).shape == (1, 10, 20)
    assert upsampler.run(masks[:0], small, image, **RAW, threshold=0.5).shape == (0, 10, 20)
    with pytest.raises(ValueError, match=r"masks are \[n, low, low\]"):
        upsampler.run(masks[:, 1:], small, image, **RAW, threshold=0.5)
    with pytest.raises(ValueError, match=r"a tensor is \[3, S, S\] with S a multiple of 8"):
        upsampler.run(masks, small[:2], image, **RAW, threshold=0.5)
    with pytest.raises(ValueError, match="10 high and 20 wide"):
        upsampler.run(masks, small, image[1:], **RAW, threshold=0.5)
    for size in ((0, 10, 8), (20, 0, 8), (20, 10, 0)):
        with pytest.raises(ValueError, match="a size must be"):
            GuidedUpsampler(*size, 1, 1e-3)
    with pytest.raises(ValueError, match="radius must be"):
        GuidedUpsampler(20, 10, 8, 9, 1e-3)
    with pytest.raises(ValueError, match="epsilon must be positive"):
        GuidedUpsampler(20, 10, 8, 2, 0.0)
