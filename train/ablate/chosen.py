"""The first scenes that an experiment can use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic

from ..scenes import Scene, SceneGenerator
from .clips import NamedClipOut

_SCENES_A_CLIP = 30
"""Scenes that are looked at for each that is wanted; then there are fewer."""


class ChosenScenes(Generic[NamedClipOut]):
    """What is made of the first scenes of a generator of which something can be made."""

    def __init__(
        self, scenes: SceneGenerator, count: int, make: Callable[[Scene], NamedClipOut | None], which: str
    ) -> None:
        """Choose `count` scenes.

        Args:
            make: None for a scene that cannot be used.
            which: in words, the scenes that can be used.
        """
        self.note = (
            f"generated scenes of the split {scenes.split}, seed {scenes.seed}: the first {count} {which}"
        )
        self.skipped: dict[str, str] = {}
        self._scenes, self._count, self._make = scenes, count, make

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[NamedClipOut]:
        found = 0
        for number in range(self._count * _SCENES_A_CLIP):
            made = self._make(self._scenes.scene(number))
            if made is not None:
                yield made
                found += 1
                if found == self._count:
                    return
