"""The C++ stretch and normalisation against PIL's resize and a float64 triangle filter."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from refavs_rt.config import IMAGENET_MEAN, IMAGENET_STD
from refavs_rt.ingest import resize_normalize

SIZES = [(720, 1280), (179, 321), (100, 640), (256, 256), (64, 64), (37, 1), (1, 37), (1, 1), (1080, 1919)]


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


def denormalized(tensor: NDArray[np.float32]) -> NDArray[np.float64]:
    """[3, S, S] back to [S, S, 3] on the scale of bytes."""
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    return (tensor.transpose(1, 2, 0).astype(np.float64) * std + mean) * 255.0


def triangle(source: int, target: int) -> NDArray[np.float64]:
    """[target, source] weights of an antialiased triangle filter, from its definition."""
    scale = source / target
    reach = max(scale, 1.0)
    centre = (np.arange(target) + 0.5)[:, None] * scale
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(source) + 0.5 - centre) / reach)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [256, 33])
def test_equals_pil_within_its_rounding(height: int, width: int, size: int) -> None:
    image = noise(height, width)
    tensor = resize_normalize(image, size)
    assert tensor.shape == (3, size, size) and tensor.dtype == np.float32 and tensor.flags.c_contiguous
    expected = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR), np.float64)
    assert np.abs(denormalized(tensor) - expected).max() <= 1.0


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_equals_the_filter_in_float64(height: int, width: int) -> None:
    image = noise(height, width)
    expected = np.einsum("yh,hwc,xw->yxc", triangle(height, 96), image, triangle(width, 96), optimize=True)
    np.testing.assert_allclose(denormalized(resize_normalize(image, 96)), expected, rtol=0, atol=1e-3)


def test_normalises_each_channel_by_its_own() -> None:
    image = np.full((5, 7, 3), (255, 0, 51), np.uint8)
    tensor = resize_normalize(image, 4, mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 0.1))
    for channel, value in enumerate((1.0, -0.5, 2.0)):
        np.testing.assert_allclose(tensor[channel], value, rtol=1e-6)


def test_takes_views_that_are_not_contiguous() -> None:
    image = noise(90, 120)
    view = image[::2, ::-1]
    np.testing.assert_array_equal(resize_normalize(view, 32), resize_normalize(view.copy(), 32))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_refuses_other_arrays(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"an image is uint8 \[H, W, 3\]"):
        resize_normalize(image, 8)


def test_refuses_impossible_arguments() -> None:
    image = noise(4, 4)
    with pytest.raises(ValueError, match="size must be 1 to 4096, not 0"):
        resize_normalize(image, 0)
    with pytest.raises(ValueError, match="std must be positive"):
        resize_normalize(image, 8, std=(1.0, 0.0, 1.0))
