"""The overlay: what is painted where, in which colour, and that text is text."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features
from scipy import ndimage
from scipy.ndimage import binary_erosion, gaussian_filter, generate_binary_structure

from refavs_rt._ingest import paint_mask
from refavs_rt.font import Font
from refavs_rt.render import PALETTE, Overlay, colour

HEIGHT, WIDTH = 241, 317


def picture(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def disc(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.bool_]:
    y, x = np.mgrid[:height, :width]
    return np.asarray((y - height * 0.7) ** 2 + (x - width * 0.6) ** 2 < (height * 0.2) ** 2)


def legend(texts: list[str], presence: list[float]) -> NDArray[np.uint8]:
    """An overlay over black with no mask."""
    empty = np.zeros((len(texts), HEIGHT, WIDTH), bool)
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return Overlay(HEIGHT, WIDTH, 0.5).paint(black, texts, empty, np.array(presence, np.float32))


def test_a_mask_is_filled_and_outlined_and_the_rest_is_left() -> None:
    image, mask = picture(), disc()
    before = image.copy()
    painted = Overlay(HEIGHT, WIDTH, 0.5).paint(image, ["a dog"], mask[None], np.array([0.9], np.float32))
    np.testing.assert_array_equal(image, before)
    inner = ndimage.binary_erosion(mask)
    np.testing.assert_array_equal(
        painted[mask & ~inner], np.broadcast_to(colour(0), ((mask & ~inner).sum(), 3))
    )
    expected = 0.55 * image[inner] + 0.45 * np.array(colour(0))
    np.testing.assert_allclose(painted[inner], expected, atol=1.5)
    below = np.s_[HEIGHT // 3 :]
    np.testing.assert_array_equal(painted[below][~mask[below]], image[below][~mask[below]])


def test_a_mask_at_the_border_is_outlined_there() -> None:
    full = np.ones((1, HEIGHT, WIDTH), bool)
    painted = Overlay(HEIGHT, WIDTH, 0.5).paint(picture(), ["a"], full, np.array([1.0], np.float32))
    assert (painted[-1] == colour(0)).all() and (painted[:, -1] == colour(0)).all()


def test_each_sentence_has_its_own_colour() -> None:
    assert len(set(PALETTE)) == 8
    painted = legend(["a"] * 8, [0.9] * 8)
    for rgb in PALETTE:
        assert (painted == rgb).all(axis=2).sum() > 20, rgb


def test_the_legend_shows_score_and_words() -> None:
    assert (legend(["the dog"], [0.93]) != legend(["the dog"], [0.94])).any()
    assert (legend(["the dog"], [0.93]) != legend(["the dot"], [0.93])).any()
    present, absent = legend(["the dog"], [0.9]), legend(["the dog"], [0.1])
    assert present[..., 2].max() > 1.3 * absent[..., 2].max() > 0, (
        "words of what is absent are faint; only they have blue"
    )
    swatch = (present == colour(0)).all(axis=2).sum()
    assert 0 < (absent == colour(0)).all(axis=2).sum() < 0.8 * swatch


@pytest.mark.parametrize("size", [(1, 1), (9, 13), (40, 30), (16, 500)])
def test_any_size_of_frame_is_painted(size: tuple[int, int]) -> None:
    texts = [
        "the dog that barks after the guitar starts, and a very long rest of the sentence " * 5,
        "b",
        "c",
    ]
    image, masks = picture(*size), np.stack([disc(*size)] * 3)
    painted = Overlay(*size, 0.5).paint(image, texts, masks, np.array([0.1, 0.5, 1.0], np.float32))
    assert painted.shape == (*size, 3) and painted.dtype == np.uint8


def test_no_sentence_leaves_the_picture() -> None:
    none = np.zeros((0, HEIGHT, WIDTH), bool)
    painted = Overlay(HEIGHT, WIDTH, 0.5).paint(picture(), [], none, np.zeros(0, np.float32))
    assert (painted[40:] == picture()[40:]).all()


def test_a_frame_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="is not 1 of"):
        Overlay(HEIGHT, WIDTH, 0.5).paint(
            picture(9, 9), ["a"], np.zeros((1, 9, 9), bool), np.ones(1, np.float32)
        )


def test_text_is_the_fonts() -> None:
    """The atlas against the font itself, where Pillow can draw it."""
    if not features.check("freetype2"):
        pytest.skip("Pillow without FreeType")
    try:
        font = ImageFont.truetype("DejaVuSans.ttf", 28)
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    for text in ("Handgloves", "é0.93?", "Ж"):
        cells = [Image.new("L", (max(1, round(font.getlength(c))), sum(font.getmetrics()))) for c in text]
        for cell, character in zip(cells, text, strict=True):
            ImageDraw.Draw(cell).text((0, 0), character, fill=255, font=font)
        expected = np.concatenate([np.asarray(cell) for cell in cells], axis=1) / 255
        np.testing.assert_allclose(Font(expected.shape[0]).line(text), expected, atol=0.02)


def test_lines_have_the_height_asked_for_and_fit() -> None:
    for height in (5, 11, 33, 60):
        font = Font(height)
        assert font.line("").shape == (height, 0)
        assert font.line("dog").shape[0] == height and font.line("dog").shape[1] > height
        long = font.line("dog" * 30)
        assert font.line("dog" * 30, long.shape[1]).shape == long.shape
        for width in (0, 3, 50, 200):
            assert font.line("dog" * 30, width).shape[1] <= width
        assert font.line("dog", -5).shape == (height, 0)


def test_characters_without_a_glyph_show_as_a_mark_and_composed_ones_as_themselves() -> None:
    font = Font(33)
    np.testing.assert_array_equal(font.line("犬"), font.line("\N{REPLACEMENT CHARACTER}"))
    np.testing.assert_array_equal(font.line("e\N{COMBINING ACUTE ACCENT}"), font.line("é"))
    assert (font.line("é") != font.line("e")).any()


@pytest.mark.parametrize(
    ("height", "width", "outline"), [(37, 53, 1), (64, 40, 3), (5, 90, 2), (1, 1, 1), (30, 30, 0)]
)
def test_painting_is_scipys_erosion_and_a_blend(height: int, width: int, outline: int) -> None:
    rng = np.random.default_rng(height)
    image = rng.integers(0, 256, (height, width + 4, 3)).astype(np.uint8)[:, 2:-2]  # rows with gaps between
    blobs = gaussian_filter(rng.normal(size=(height, width)), 2.0)
    for mask in (blobs > 0, blobs > blobs.max() * 0.8, np.ones_like(blobs, bool), np.zeros_like(blobs, bool)):
        inner = binary_erosion(mask, generate_binary_structure(2, 1), outline) if outline else mask
        filled = (image.astype(int) * (256 - 115) + np.array([10, 200, 90]) * 115) >> 8
        expected = np.where(inner[..., None], filled, np.where(mask[..., None], [10, 200, 90], image))
        painted = image.copy()
        paint_mask(painted, mask, (10, 200, 90), opacity=115, outline=outline)
        np.testing.assert_array_equal(painted, expected)
        within = np.pad(image, ((0, 0), (2, 2), (0, 0)))
        paint_mask(within[:, 2:-2], mask, (10, 200, 90), opacity=115, outline=outline)
        np.testing.assert_array_equal(within[:, 2:-2], expected)
        assert not within[:, :2].any() and not within[:, -2:].any()


def test_what_cannot_be_painted_is_refused() -> None:
    image, mask = np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), np.bool_)
    frozen = image.copy()
    frozen.flags.writeable = False
    for wrong in (frozen, image[..., ::-1], image[:, ::2], image.astype(np.float32), image[..., 0]):
        with pytest.raises(ValueError, match="an image to paint into"):
            paint_mask(wrong, mask, (1, 2, 3), opacity=9, outline=1)
    for other in (mask[:3], mask.astype(np.uint8), mask[0]):
        with pytest.raises(ValueError, match="a mask is bool"):
            paint_mask(image, other, (1, 2, 3), opacity=9, outline=1)
    with pytest.raises(ValueError, match="opacity must be"):
        paint_mask(image, mask, (1, 2, 3), opacity=300, outline=1)
