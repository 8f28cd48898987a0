"""What `test_published.py` measured, as milliseconds a frame and as ratios.

Two readings of the published flow. As published: its whole visual network runs twice a frame. With two backbone passes: the
pixel and mask decoders of the first run, of which nothing is used, are left out. Ratios are against the second, the cheaper one,
unless it is said otherwise.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.published_flow import BACKBONE_AGAIN, MASKS, PARTS, PIXELS, UNUSED

_OF_DECODED_FRAMES = (BACKBONE_AGAIN, PIXELS, MASKS)


@dataclass(frozen=True)
class Comparison:
    """One preset's figures.

    A clip costs the published flow the same for each sentence, and N sentences N times that: what one costs is the median of all
    that were run.
    """

    info: Mapping[str, Any]
    """`extra_info` of the benchmark."""

    @property
    def sentences(self) -> list[int]:
        """Numbers of sentences that ours was run with."""
        return sorted(map(int, self.info["ours"]["onnx"]))

    def ours_ms(self, sentences: int, engine: str = "onnx") -> float | None:
        """Median of a frame that is a memory tick; None where it was not run."""
        row = self.info["ours"][engine].get(str(sentences))
        return None if row is None else 1e3 * row["median"]

    def parts_ms(self) -> dict[str, float]:
        """Medians of the published flow's parts, for one sentence and one frame of a clip."""
        frames = self.info["clip_frames"]
        return {
            part: 1e3 * statistics.median(clip[part] for clip in self.info["clips"]) / frames
            for part in PARTS
        }

    def clip_ms(self, sentences: int, *, as_published: bool = False) -> float:
        """A frame's share of a clip that is computed once: the published flow's best case."""
        without = () if as_published else (UNUSED,)
        each = statistics.median(_total(clip, without) for clip in self.info["clips"])
        return 1e3 * sentences * each / self.info["clip_frames"]

    def live_ms(self, sentences: int, *, as_published: bool = False) -> float:
        """A new frame, for which the window that ends in it is computed anew."""
        without = () if as_published else (UNUSED,)
        return 1e3 * sentences * statistics.median(_total(row, without) for row in self.info["windows"])

    def live_newest_ms(self, sentences: int) -> float:
        """The same, if the second run were for the new frame alone, and not for the whole window as in the published code."""
        frames = self.info["clip_frames"]
        each = statistics.median(
            _total(row, (UNUSED, *_OF_DECODED_FRAMES)) + _sum(row, _OF_DECODED_FRAMES) / frames
            for row in self.info["windows"]
        )
        return 1e3 * sentences * each

    @property
    def compiler(self) -> float:
        """How much faster ONNX Runtime runs the vision graph than torch eager: backbone and pixel decoder, the same weights."""
        vision = self.info["vision"]
        return float(vision["torch"]["median"] / vision["onnx"]["median"])

    def ratio(self, sentences: int, *, as_published: bool = False) -> float:
        """The published flow's best case over ours."""
        return self.clip_ms(sentences, as_published=as_published) / self._ours(sentences)

    def live_ratio(self, sentences: int, *, as_published: bool = False) -> float:
        """The published flow live over ours."""
        return self.live_ms(sentences, as_published=as_published) / self._ours(sentences)

    def design(self, sentences: int) -> float:
        """What is left of the ratio without the compiler's part."""
        return self.ratio(sentences) / self.compiler

    def design_in_torch(self, sentences: int) -> float | None:
        """The same by another way: the published flow's best case over ours, both in torch eager."""
        ours = self.ours_ms(sentences, "torch")
        return None if ours is None else self.clip_ms(sentences) / ours

    def _ours(self, sentences: int) -> float:
        return 1e3 * float(self.info["ours"]["onnx"][str(sentences)]["median"])


def _total(parts: Mapping[str, float], without: tuple[str, ...]) -> float:
    return _sum(parts, tuple(part for part in PARTS if part not in without))


def _sum(parts: Mapping[str, float], which: tuple[str, ...]) -> float:
    return sum(parts[part] for part in which)
