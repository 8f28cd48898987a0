"""The JPEG encoder, read back by Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from refavs_rt._ingest import JpegEncoder
from refavs_rt.ingest import IngestError


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.rint(np.stack([255 * x, 255 * y, 255 * (1 - x) * y], axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("size", [(90, 160), (91, 161), (33, 40), (720, 1280)])
def test_a_picture_comes_back(size: tuple[int, int]) -> None:
    image = smooth(*size)
    data = JpegEncoder(95).encode(image)
    read = Image.open(io.BytesIO(data))
    assert read.format == "JPEG" and read.size == size[::-1]
    assert np.abs(np.asarray(read.convert("RGB")).astype(int) - image).mean() < 2.5


def test_quality_costs_bytes_and_sizes_may_change() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    assert len(JpegEncoder(30).encode(image)) < len(JpegEncoder(90).encode(image)) / 2
    encoder = JpegEncoder()
    for size in ((40, 60), (80, 60), (40, 60)):
        assert Image.open(io.BytesIO(encoder.encode(smooth(*size)))).size == size[::-1]


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        JpegEncoder().encode(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="quality must be 1 to 100, not 0"):
        JpegEncoder(0)
    with pytest.raises(IngestError, match="sides are 1 to 16383"):
        JpegEncoder().encode(np.zeros((1, 17_000, 3), np.uint8))
