"""Each result painted once, for all who show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refavs_rt.render import Image, Overlay

if TYPE_CHECKING:
    from refavs_rt.result import Result


class Painting:
    """Paints results of one size; for one thread at a time."""

    def __init__(self, height: int, width: int, presence_threshold: float) -> None:
        self._overlay = Overlay(height, width, presence_threshold)
        self._last: tuple[Result, Image] | None = None

    def of(self, result: Result) -> Image:
        """[H, W, 3] RGB: the frame with masks and legend."""
        if self._last is None or self._last[0] is not result:
            painted = self._overlay.paint(result.image, result.texts, result.masks, result.presence)
            painted.flags.writeable = False  # others see it too
            self._last = result, painted
        return self._last[1]
