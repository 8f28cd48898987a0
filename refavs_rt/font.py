"""Text as coverage, from an atlas of glyphs (assets/glyphs.npz; assets/FONT.md tells its licence and how it was made)."""

from __future__ import annotations

import functools
import unicodedata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .masks import resize

_ATLAS = Path(__file__).parent / "assets" / "glyphs.npz"
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class Font:
    """DejaVu Sans at one height in pixels, line gap included. Latin, Greek and Cyrillic; other characters show as a mark."""

    def __init__(self, height: int) -> None:
        self.height = height
        self._scaled: dict[str, NDArray[np.float32]] = {}

    def line(self, text: str, max_width: int | None = None) -> NDArray[np.float32]:
        """Coverage in [0, 1] of a line of text, [height, width]; a line wider than `max_width` ends in an ellipsis."""
        glyphs = [self._glyph(character) for character in unicodedata.normalize("NFC", text)]
        if max_width is not None and _width(glyphs) > max_width:
            ellipsis = self._glyph("…")
            while glyphs and _width(glyphs) + ellipsis.shape[1] > max_width:
                glyphs.pop()
            glyphs.append(ellipsis)
            return np.concatenate(glyphs, axis=1)[:, : max(max_width, 0)]
        return np.concatenate([np.zeros((self.height, 0), np.float32), *glyphs], axis=1)

    def _glyph(self, character: str) -> NDArray[np.float32]:
        if character not in self._scaled:
            atlas = _atlas()
            coverage = atlas.get(character, atlas[_UNKNOWN])
            width = max(1, round(coverage.shape[1] * self.height / coverage.shape[0]))
            self._scaled[character] = resize(coverage, (self.height, width))
        return self._scaled[character]


def _width(glyphs: list[NDArray[np.float32]]) -> int:
    return sum(glyph.shape[1] for glyph in glyphs)


@functools.cache
def _atlas() -> dict[str, NDArray[np.float32]]:
    """Character -> its coverage [h, w], at the atlas's own height."""
    with np.load(_ATLAS, allow_pickle=False) as stored:
        codes, widths, alpha = stored["codes"], stored["widths"], stored["alpha"]
    cells = np.split(alpha.astype(np.float32) / 255.0, np.cumsum(widths)[:-1], axis=1)
    return {chr(code): cell for code, cell in zip(codes, cells, strict=True)}
