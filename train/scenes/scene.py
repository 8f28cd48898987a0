"""A scene: what there is to see and to hear in one clip, and what can be said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import SAMPLE_RATE_HZ

from ..material import Pack, Picture, Thing
from .backdrop import Backdrop
from .motion import Camera, Motion
from .render import Finish, Look, Renderer
from .survey import Survey
from .voice import Interval, Noise, Voice

if TYPE_CHECKING:
    from .grammar import Expression

_HEARD_S = 0.05
"""An object is heard in a window if it sounds there for as long as this."""
_PEAK = 0.98


@dataclass(frozen=True)
class SceneObject:
    """One thing in a scene."""

    thing: Thing
    picture: Picture
    height: float
    width: float
    """Its size at the motion's scale 1, in units of the frame's smaller side."""
    motion: Motion
    look: Look
    voice: Voice | None
    """None: it makes no sound in this scene."""
    other_recording: bool
    """Whether its recording is one that training never plays."""
    intervals: tuple[Interval, ...]
    """When it is heard, in seconds."""

    @property
    def class_name(self) -> str:
        return self.thing.name

    @property
    def caption(self) -> str:
        return self.picture.caption

    @property
    def sounds(self) -> bool:
        return bool(self.intervals)

    @property
    def gain_db(self) -> float:
        return self.voice.gain_db if self.voice else float("-inf")

    @property
    def recording_source(self) -> str | None:
        """'stamp', 'gcompris', 'bank:timgm', 'bank:fluidr3', or None without a sound."""
        return self.voice.recording.source if self.voice else None


@dataclass(frozen=True)
class Scene:
    """One clip. Everything about it follows from these fields; nothing is drawn by chance any more.

    `objects` are in order of depth, the farthest first: object k covers those before it, and is mask k.
    """

    pack: Pack = field(repr=False)
    split: str
    key: tuple[int, ...]
    """The seed, split and number that it was made from."""
    seconds: float
    objects: tuple[SceneObject, ...]
    camera: Camera
    backdrop: Backdrop
    finish: Finish
    noise: Noise
    survey: Survey = field(repr=False)
    """Where each object is and how much of it is to be seen, at each whole second."""
    _renderers: dict[tuple[int, int], Renderer] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Class names of the objects."""
        return tuple(item.class_name for item in self.objects)

    def render(
        self, times_s: NDArray[np.float64] | list[float], size: tuple[int, int] = (360, 640)
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Frames and masks at `times_s` [T].

        Args:
            times_s: seconds from the beginning of the clip.
            size: (height, width) in pixels. Objects keep their size relative to the smaller side, places are relative to
                the whole frame.

        Returns:
            frames uint8 [T, h, w, 3], RGB, and masks bool [T, K, h, w]: the visible pixels of each object.
        """
        height, width = int(size[0]), int(size[1])
        renderer = self._renderers.get((height, width))
        if renderer is None:
            self._renderers.clear()
            renderer = self._renderers[height, width] = Renderer(self, (height, width))
        return renderer.draw(np.asarray(times_s, np.float64))

    @cached_property
    def stems(self) -> tuple[NDArray[np.float32], ...]:
        """The sound of each object alone [seconds * 16000], as loud as it is in `waveform`."""
        scale = self._scale
        return tuple(stem * scale for stem in self._raw_stems)

    def waveform(self) -> NDArray[np.float32]:
        """The sound track, float32 [seconds * 16000] in [-1, 1]: the stems and the noise."""
        return self._wave

    def sounding(self, start_s: float, end_s: float) -> NDArray[np.bool_]:
        """Which objects [K] are heard between `start_s` and `end_s`, for 50 ms at least."""
        return np.array([heard_s(item.intervals, start_s, end_s) >= _HEARD_S for item in self.objects], bool)

    def expressions(self) -> list[Expression]:
        """What can be truly said of the scene, and what would be false; always the same list for the same scene."""
        from .grammar import say

        return say(self)

    @cached_property
    def _raw_stems(self) -> tuple[NDArray[np.float32], ...]:
        silence = np.zeros(round(self.seconds * SAMPLE_RATE_HZ), np.float32)
        return tuple(
            item.voice.stem(self.pack, self.seconds) if item.voice else silence for item in self.objects
        )

    @cached_property
    def _sum(self) -> NDArray[np.float32]:
        return np.sum(self._raw_stems, axis=0, dtype=np.float32) + self.noise.wave(self.pack, self.seconds)

    @cached_property
    def _scale(self) -> float:
        return min(1.0, _PEAK / max(float(np.abs(self._sum).max()), 1e-9))

    @cached_property
    def _wave(self) -> NDArray[np.float32]:
        return (self._sum * self._scale).astype(np.float32)


def heard_s(intervals: tuple[Interval, ...], start_s: float, end_s: float) -> float:
    """How many seconds of `intervals` lie between `start_s` and `end_s`."""
    return sum(max(0.0, min(end, end_s) - max(start, start_s)) for start, end in intervals)
