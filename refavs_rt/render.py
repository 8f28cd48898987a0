"""The overlay: each sentence's mask in its colour over the picture, and a legend with presence scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ._ingest import paint_mask
from .font import Font
from .masks import Mask

Image = NDArray[np.uint8]

PALETTE = (
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
    (230, 159, 0),
    (255, 255, 255),
)
"""Okabe and Ito's colours, told apart with any kind of colour vision; white in place of their black. Repeats from the ninth."""

_FILL, _PANEL = 0.45, 0.6
"""Opacity of a mask's fill and of the legend's black ground."""
_TEXT, _FAINT = (255, 255, 255), (150, 150, 150)


class Overlay:
    """Paints frames of one size.

    Args:
        height, width: of the frames, in pixels.
        presence_threshold: sentences below it without a mask stand faint in the legend.
    """

    def __init__(self, height: int, width: int, presence_threshold: float) -> None:
        self._size = height, width
        self._presence_threshold = presence_threshold
        self._font = Font(max(9, round(min(height, width) / 24)))
        self._outline = max(1, round(min(height, width) / 220))
        self._sentences: dict[str, NDArray[np.float32]] = {}

    def paint(self, image: Image, texts: Sequence[str], masks: Mask, presence: NDArray[np.float32]) -> Image:
        """A painted copy of a frame.

        Args:
            image: [H, W, 3] RGB.
            texts: N sentences.
            masks: [N, H, W].
            presence: [N].

        Raises:
            ValueError: the frame or a mask is not of the overlay's size.
        """
        if image.shape != (*self._size, 3) or masks.shape != (len(texts), *self._size):
            raise ValueError(
                f"a frame {image.shape} with masks {masks.shape} is not {len(texts)} of {self._size}"
            )
        painted = image.copy()
        self.paint_masks(painted, masks, [colour(index) for index in range(len(masks))])
        self._paint_legend(painted, texts, masks, presence)
        for gone in self._sentences.keys() - set(texts):
            del self._sentences[gone]
        return painted

    def paint_masks(self, image: Image, masks: Mask, colours: Sequence[tuple[int, int, int]]) -> None:
        """Paint masks alone, into `image` itself.

        Args:
            image: [H, W, 3] RGB.
            masks: [N, H, W].
            colours: N times RGB.
        """
        for mask, rgb in zip(masks, colours, strict=True):
            paint_mask(image, mask, rgb, opacity=round(_FILL * 256), outline=self._outline)

    def _paint_legend(
        self, image: Image, texts: Sequence[str], masks: Mask, presence: NDArray[np.float32]
    ) -> None:
        """A row a sentence, at the top left: its colour, its score, its words."""
        line, gap = self._font.height, self._font.height // 3
        scores = [self._font.line(f"{score:.2f}") for score in presence]
        score_width = max((score.shape[1] for score in scores), default=0)
        words_x = 4 * gap + line + score_width
        words = [self._words(text, self._size[1] - words_x - 3 * gap) for text in texts]
        panel_width = words_x + max((row.shape[1] for row in words), default=0) + gap
        panel = image[gap : gap + len(texts) * (line + gap) + gap, gap : gap + panel_width]
        panel[:] = _blend(panel, (0, 0, 0), _PANEL)
        for index, (score, row) in enumerate(zip(scores, words, strict=True)):
            top = 2 * gap + index * (line + gap)
            # A sentence that was shown keeps its mask for a little below the threshold.
            present = presence[index] >= self._presence_threshold or masks[index].any()
            self._swatch(
                image[top : top + line, 2 * gap : 2 * gap + line], colour(index), filled=bool(present)
            )
            text_colour = _TEXT if present else _FAINT
            _stamp(image, score, top, 3 * gap + line, text_colour)
            _stamp(image, row, top, words_x, text_colour)

    def _words(self, text: str, max_width: int) -> NDArray[np.float32]:
        if text not in self._sentences:
            self._sentences[text] = self._font.line(text, max_width)
        return self._sentences[text]

    def _swatch(self, part: Image, rgb: tuple[int, int, int], *, filled: bool) -> None:
        if filled:
            part[:] = rgb
            return
        rim = max(1, self._font.height // 6)
        for side in (part[:rim], part[-rim:], part[:, :rim], part[:, -rim:]):
            side[:] = rgb


def colour(index: int) -> tuple[int, int, int]:
    """RGB of the sentence at `index`."""
    return PALETTE[index % len(PALETTE)]


def _blend(pixels: Image, rgb: tuple[int, int, int], opacity: float) -> Image:
    weight = round(opacity * 256)
    return ((pixels.astype(np.uint16) * (256 - weight) + np.array(rgb, np.uint16) * weight) >> 8).astype(
        np.uint8
    )


def _stamp(
    image: Image, coverage: NDArray[np.float32], top: int, left: int, rgb: tuple[int, int, int]
) -> None:
    """Paint text with its top left corner at (top, left), as far as it lies in the image."""
    part = image[top : top + coverage.shape[0], left : left + coverage.shape[1]]
    share = coverage[: part.shape[0], : part.shape[1], None]
    part[:] = np.rint(part * (1.0 - share) + np.array(rgb, np.float32) * share)
