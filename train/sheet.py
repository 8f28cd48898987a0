"""Pictures for people: a frame with what was predicted and what is true, and sheets of such pictures with captions."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LEGEND = "pink: predicted    white line: true"
WIDTH, HEIGHT = 384, 216
"""Of an overlay, in pixels: 16:9, as most videos are; the network sees a square."""
_TINT = np.array([255, 0, 160], np.float32)
"""Rare in videos, so that a tinted object is not taken for a coloured one."""
_PAPER, _INK, _GREY = (255, 255, 255), (20, 20, 20), (105, 105, 105)
_GAP, _MARGIN, _LINE = 14, 18, 21
_CAPTION_LINES = 3


def overlay(
    frame: NDArray[np.uint8], shown: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """A frame [S, S, 3] with the mask `shown` tinted and `truth` outlined, masks [h, w] -> [HEIGHT, WIDTH, 3]."""
    picture = Image.fromarray(frame).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture).astype(np.float32)
    predicted, true = _enlarge(shown), _enlarge(truth)
    pixels[predicted] = 0.5 * pixels[predicted] + 0.5 * _TINT
    pixels[predicted & ~_shrink(predicted)] = _TINT
    white = _grow(_grow(true))
    pixels[_grow(_grow(white)) & ~white] = 0
    pixels[white & ~true] = 255
    return pixels.round().astype(np.uint8)


def sheet(
    tiles: Sequence[tuple[NDArray[np.uint8], str, str]], title: str, columns: int = 4
) -> NDArray[np.uint8]:
    """Pictures in rows under a title.

    Args:
        tiles: pictures [h, w, 3] of one size, at least one, each with a heading, cut to one line, and a text, which wraps.
        title: one line.
        columns: pictures in a row, at most.

    Returns:
        [H, W, 3].
    """
    height, width = tiles[0][0].shape[:2]
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    wrapped = [[_wrap(text, _font(15), width, _CAPTION_LINES) for _, _, text in row] for row in rows]
    heights = [height + _LINE * (1 + max(map(len, texts))) + _GAP for texts in wrapped]
    across = min(columns, len(tiles))
    bold = _font(19, bold=True)
    inside = max(across * (width + _GAP) - _GAP, min(math.ceil(bold.getlength(title)), columns * width))
    top = _MARGIN + 2 * _LINE
    page = Image.new("RGB", (2 * _MARGIN + inside, top + sum(heights)), _PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, _MARGIN), _cut(title, bold, inside), _INK, bold)
    for row, texts, row_height in zip(rows, wrapped, heights, strict=True):
        for column, ((picture, heading, _), lines) in enumerate(zip(row, texts, strict=True)):
            x, y = _MARGIN + column * (width + _GAP), top
            page.paste(Image.fromarray(picture), (x, y))
            y += height + 3
            pen.text((x, y), _cut(heading, _font(15, bold=True), width), _INK, _font(15, bold=True))
            for i, line in enumerate(lines, start=1):
                pen.text((x, y + i * _LINE), line, _GREY, _font(15))
        top += row_height
    return np.asarray(page)


def _enlarge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[h, w] -> [HEIGHT, WIDTH], corners rounded."""
    small = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)) >= 128


def _grow(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One pixel wider on every side."""
    out = mask.copy()
    out[1:] |= mask[:-1]
    out[:-1] |= mask[1:]
    tall = out.copy()
    out[:, 1:] |= tall[:, :-1]
    out[:, :-1] |= tall[:, 1:]
    return out


def _shrink(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One pixel narrower on every side that is not the picture's edge."""
    return ~_grow(~mask)


@functools.cache
def _font(height: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has more letters than Pillow's own font."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), height)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Lines of whole words; what is beyond `most` lines ends in an ellipsis, and so does a word wider than a line."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines[most - 1 :] = [" ".join(lines[most - 1 :])]
    return [_cut(line, font, width) for line in lines]


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """`text`, shortened to `width` pixels with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
