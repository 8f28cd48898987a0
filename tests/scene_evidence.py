"""What is to be seen and heard in a generated scene, measured in its rendered masks and in the sound of each object.

It takes nothing from the plans of the scene: neither paths of motion nor intervals of sound.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from refavs_rt.train.material import Pack
from refavs_rt.train.scenes import Scene
from refavs_rt.train.scenes.facts import SPOKEN_KINDS

FRAME_HZ = 50
"""Loudness is taken in frames of 20 ms."""
AUDIBLE = 0.05
"""A frame is audible above this share of its sound's loud level (-26 dB)."""
GENERAL = ("object", "item", "entity", "thing")


class Evidence:
    """What is to be seen and heard in a scene, measured.

    Args:
        size: (height, width) of the masks.
        step_s: time between them.
    """

    def __init__(self, scene: Scene, size: tuple[int, int] = (72, 128), step_s: float = 1.0) -> None:
        self.scene = scene
        self.size = size
        self.times = np.arange(0, scene.seconds - 0.99, step_s)
        self.frames, self.masks = scene.render(self.times, size)
        self.count = len(scene.objects)

    @cached_property
    def area(self) -> NDArray[np.float64]:
        """Pixels of each object, [T, K]."""
        return self.masks.sum(axis=(2, 3)).astype(np.float64)

    @cached_property
    def x(self) -> NDArray[np.float64]:
        """Centroids in frame widths, [T, K]."""
        columns = (np.arange(self.size[1]) + 0.5) / self.size[1]
        return self.masks.sum(axis=2) @ columns / self.area

    @cached_property
    def y(self) -> NDArray[np.float64]:
        rows = (np.arange(self.size[0]) + 0.5) / self.size[0]
        return self.masks.sum(axis=3) @ rows / self.area

    @cached_property
    def alone(self) -> NDArray[np.float64]:
        """Area in pixels and centroid in smaller sides of each object with no other before it: [T, K, (area, x, y)]."""
        out = np.zeros((len(self.times), self.count, 3))
        for k, item in enumerate(self.scene.objects):
            _, masks = replace(self.scene, objects=(item,)).render(self.times, self.size)
            rows, columns = ((np.arange(n) + 0.5) / min(self.size) for n in self.size)
            area = masks[:, 0].sum(axis=(1, 2)).astype(np.float64)
            out[:, k, 0] = area
            out[:, k, 1] = masks[:, 0].sum(axis=1) @ columns / area
            out[:, k, 2] = masks[:, 0].sum(axis=2) @ rows / area
        return out

    @cached_property
    def levels(self) -> NDArray[np.float64]:
        """Root mean square of each object's 20 ms frames, [K, frames]."""
        return np.stack([frame_levels(stem) for stem in self.scene.stems])

    def sounds(self, k: int) -> bool:
        return bool(np.abs(self.scene.stems[k]).max() > 0)

    @cached_property
    def audible(self) -> NDArray[np.bool_]:
        """[K, frames]; where the sound swells over the clip it is measured against what is loud around it."""
        out = np.zeros(self.levels.shape, bool)
        for k, levels in enumerate(self.levels):
            if levels.max() > 0:
                out[k] = levels > AUDIBLE * _loud_around(levels)
        return out

    def onset(self, k: int) -> float:
        return float(np.flatnonzero(self.audible[k])[0]) / FRAME_HZ

    def end(self, k: int) -> float:
        return float(np.flatnonzero(self.audible[k])[-1] + 1) / FRAME_HZ

    def duration(self, k: int) -> float:
        return float(self.audible[k].sum()) / FRAME_HZ

    def pauses_s(self, k: int, *, inside: bool = False) -> list[float]:
        """Lengths of the pauses, those at both ends of the clip among them unless `inside`."""
        heard = np.flatnonzero(self.audible[k])
        gaps = (np.diff(heard) - 1) / FRAME_HZ
        ends = [] if inside else [heard[0] / FRAME_HZ, (self.audible.shape[1] - 1 - heard[-1]) / FRAME_HZ]
        return [*gaps.tolist(), *ends]

    def loudness_db(self, k: int) -> float:
        """Level of the audible frames."""
        return float(10 * np.log10(np.mean(self.levels[k][self.audible[k]] ** 2)))

    def swell_db(self, k: int) -> float:
        """How much louder the last third of its audible frames is than the first."""
        heard = self.levels[k][self.audible[k]]
        third = max(1, len(heard) // 3)
        return float(10 * np.log10(np.mean(heard[-third:] ** 2) / np.mean(heard[:third] ** 2)))


def frame_levels(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    width = 16000 // FRAME_HZ
    whole = samples[: len(samples) // width * width].reshape(-1, width).astype(np.float64)
    return np.sqrt((whole**2).mean(axis=1))


def _loud_around(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The loudest frame within 2.5 s, [frames]."""
    reach = 5 * FRAME_HZ // 2
    padded = np.pad(levels, reach)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1)


# Words


def nouns(text: str, scene: Scene) -> list[str]:
    """Words for things in the text, in order: those of the pack, and 'object' and its like."""
    words = _vocabulary(scene.pack)
    text = text.lower().replace("toward the camera", "")
    found, at = [], 0
    tokens = re.findall(r"[\w'-]+", text)
    while at < len(tokens):
        for length in (4, 3, 2, 1):
            phrase = " ".join(tokens[at : at + length])
            if phrase in words and at + length <= len(tokens):
                found.append(phrase)
                at += length
                break
        else:
            at += 1
    return found


@lru_cache(maxsize=2)
def _vocabulary(pack: Pack) -> frozenset[str]:
    words = {*GENERAL, *SPOKEN_KINDS}
    for thing in pack.things:
        words |= {thing.name, *thing.aliases}
    return frozenset(word.lower() for word in words)


def meant_by(word: str, scene: Scene) -> set[int]:
    """The objects that a word means."""
    if word in GENERAL:
        return set(range(len(scene.objects)))
    things = [item.thing for item in scene.objects]
    return {
        i
        for i, thing in enumerate(things)
        if word in {w.lower() for w in (thing.name, *thing.aliases, *thing.kinds)}
    }


def perhaps_meant_by(word: str, scene: Scene) -> set[int]:
    """Those, and the objects that someone may wrongly call so."""
    wrong = {i for i, item in enumerate(scene.objects) if word in {w.lower() for w in item.thing.confusable}}
    return meant_by(word, scene) | wrong
