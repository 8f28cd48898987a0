"""What is true of a scene, with margins wide enough that a person would not argue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import SAMPLE_RATE_HZ

from ..material import Thing
from .motion import Pose

if TYPE_CHECKING:
    from .scene import Scene

SIDE_MARGIN = 0.1
"""Horizontal distance of centres, in frame widths, from which one is left of the other."""
HEIGHT_MARGIN = 0.16
SIZE_RATIO = 1.7
ORDER_GAP_S = 0.7
LOUD_MARGIN_DB = 5.0
DURATION_RATIO, DURATION_GAP_S = 1.5, 2.0
CONTINUOUS_SHARE, PAUSE_S = 0.9, 0.7
STEADY_PAUSE_S = 1.5
"""What is silent for as long as this, at the beginning or the end too, does not sound all the time."""
GLIDE = 0.18
"""Distance in frame widths from which a movement has a direction."""
CUT = 0.05
"""Share of a side of an object that is out of a square frame, from which on the object is cut."""
TRAVEL, GROWTH = 0.08, 1.25
"""Distance in frame heights, and ratio of sizes, from which a movement is clear."""
WIDEST = 16 / 9
"""Frames are from square to this: what is nearest or larger is so in both."""

_ALIKE_VERBS = (
    frozenset("bark bellow growl grunt moo roar".split()),
    frozenset("bellow bray call moo trumpet".split()),
    frozenset("call caw honk screech squawk".split()),
    frozenset("call cluck croak crow gobble hoot quack".split()),
    frozenset("call chirp sing squeak".split()),
    frozenset("chatter chirp click squeak".split()),
    frozenset("boil flush hiss".split()),
    frozenset("cut hit saw".split()),
)
"""Verbs of one set are not told apart with certainty: to one a bear growls, to another it grunts."""

SPOKEN_KINDS = frozenset(
    "animal bird fish insect reptile instrument vehicle fruit vegetable nut tool toy plant person rodent".split()
)
"""Kinds that are used as words: 'the bird'. The others only keep alike things apart."""


@dataclass(frozen=True)
class Facts:
    """Facts about `scene`. Indices are those of its objects."""

    scene: Scene

    @property
    def all(self) -> tuple[int, ...]:
        return tuple(range(len(self.scene.objects)))

    @cached_property
    def sounding(self) -> tuple[int, ...]:
        return tuple(i for i, item in enumerate(self.scene.objects) if item.sounds)

    @cached_property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Word -> the objects that it means, for every word that can be said of one of them.

        A word that could be taken to mean yet another object is left out.
        """
        words: dict[str, tuple[int, ...]] = {}
        for item in self.scene.objects:
            for word in spoken_words(item.thing):
                meant = tuple(i for i in self.all if word in spoken_words(self.scene.objects[i].thing))
                if all(word not in self.scene.objects[i].thing.words for i in self.all if i not in meant):
                    words[word] = meant
        return words

    def names(self, index: int) -> list[str]:
        """Words that mean this object and no other, its own name first if it is one."""
        return [
            word
            for word in spoken_words(self.scene.objects[index].thing)
            if self.groups.get(word) == (index,)
        ]

    # Places

    def left_of(self, a: int, b: int) -> bool:
        """Whether a is clearly left of b all the time."""
        x = self.scene.survey.x
        return bool((x[:, a] < x[:, b] - SIDE_MARGIN).all())

    def above(self, a: int, b: int) -> bool:
        y = self.scene.survey.y
        return bool((y[:, a] < y[:, b] - HEIGHT_MARGIN).all())

    def larger(self, a: int, b: int) -> bool:
        """Whether more of a is to be seen all the time, clearly so even where nothing covers b.

        The survey's frame is square; in a wider one less is covered.
        """
        area, whole = self.scene.survey.area, self.scene.survey.whole
        return bool((area[:, a] > np.maximum(SIZE_RATIO * area[:, b], 1.3 * whole[:, b])).all())

    def nearest(self, reference: int) -> int | None:
        """The object that is clearly nearest to another, of three or more."""
        others = [i for i in self.all if i != reference]
        if len(others) < 2:
            return None
        x, y = self.scene.survey.x, self.scene.survey.y
        dx, dy = (v[:, others] - v[:, [reference]] for v in (x, y))
        order = np.argsort(np.hypot(dx, dy).mean(axis=0))
        for aspect, ratio in ((1.0, 1.6), (WIDEST, 1.3)):
            away = np.hypot(aspect * dx, dy)[:, order]
            if (away[:, 1:] < ratio * away[:, :1]).any() or (away[:, 0] > 0.45 * aspect).any():
                return None
        return others[order[0]]

    # Motion

    @property
    def camera_moves(self) -> bool:
        return self.scene.camera.moves

    def moves(self, index: int) -> bool:
        """Whether it moves so far that it is seen in one frame a second."""
        pose = self._poses[index]
        return bool(np.hypot(np.ptp(pose.x), np.ptp(pose.y)) > TRAVEL or self._grows(index) > GROWTH)

    def rests(self, index: int) -> bool:
        """Whether it does not move at all. Some neither rest nor clearly move."""
        motion = self.scene.objects[index].motion
        return motion.kind == "still" and not motion.tilt

    def slides_out(self, index: int) -> bool:
        """Whether it moves while the frame cuts it: then one cannot see how far, since what is to be seen stays in place."""
        item, pose = self.scene.objects[index], self._poses[index]
        beyond = [
            np.maximum(np.abs(at - 0.5) + side * pose.scale / 2 - 0.5, 0) / (side * pose.scale)
            for at, side in ((pose.x, item.width), (pose.y, item.height))
        ]
        return not self.rests(index) and float(np.max(beyond)) > CUT

    def direction(self, index: int) -> str | None:
        """'left' or 'right' for a clear movement to that side."""
        way = self._poses[index].x[-1] - self._poses[index].x[0]
        if self.scene.objects[index].motion.kind != "glide" or abs(way) < GLIDE:
            return None
        return "left" if way < 0 else "right"

    def _grows(self, index: int) -> float:
        """Ratio of its largest to its smallest size."""
        scale = self._poses[index].scale
        return float(scale.max() / scale.min())

    @cached_property
    def _poses(self) -> tuple[Pose, ...]:
        """Of each object at each whole second."""
        times = np.arange(max(1, int(self.scene.seconds)), dtype=np.float64)
        return tuple(item.motion.at(times) for item in self.scene.objects)

    # Sound

    def onset(self, index: int) -> float:
        return self.scene.objects[index].intervals[0][0]

    def end(self, index: int) -> float:
        return self.scene.objects[index].intervals[-1][1]

    def duration(self, index: int) -> float:
        """Seconds in which it is heard."""
        return sum(b - a for a, b in self.scene.objects[index].intervals)

    def continuous(self, index: int) -> bool:
        """It is heard nearly all the time, without a clear pause."""
        seconds = self.scene.seconds
        gaps = self._gaps(index)
        return self.duration(index) >= CONTINUOUS_SHARE * seconds and max(gaps) < PAUSE_S

    def pauses(self, index: int) -> bool:
        """It is clearly not heard all the time."""
        return self.duration(index) < 0.75 * self.scene.seconds and max(self._gaps(index)) > STEADY_PAUSE_S

    def intermittent(self, index: int) -> bool:
        """It is heard at least three times with clear pauses between."""
        return sum(gap > PAUSE_S for gap in self._gaps(index)[1:-1]) >= 2

    @cached_property
    def level_db(self) -> tuple[float, ...]:
        """Level of each object's sound where it is heard, in dB of full scale; -inf for a silent one."""
        return tuple(
            _level_db(stem, item.intervals)
            for stem, item in zip(self.scene.stems, self.scene.objects, strict=True)
        )

    def louder(self, a: int, b: int) -> bool:
        """a is clearly louder than b, on the whole and at their loudest, and neither changes much."""
        ramps = (self._ramp(a), self._ramp(b))
        by_mean = self.level_db[a] > self.level_db[b] + LOUD_MARGIN_DB
        by_peak = self._peak_db[a] > self._peak_db[b] + LOUD_MARGIN_DB / 2
        return by_mean and by_peak and ramps == (0.0, 0.0)

    def swells(self, index: int) -> str | None:
        """'louder' or 'lower' for a sound that changes so over the clip."""
        ramp = self._ramp(index)
        if abs(ramp) < 10 or self.end(index) - self.onset(index) < 0.7 * self.scene.seconds:
            return None
        return "louder" if ramp > 0 else "lower"

    def changes(self, index: int) -> bool:
        """Whether it gets louder or softer over the clip, though perhaps not clearly so."""
        return self._ramp(index) != 0

    def _ramp(self, index: int) -> float:
        voice = self.scene.objects[index].voice
        return voice.ramp_db if voice else 0.0

    @cached_property
    def _peak_db(self) -> tuple[float, ...]:
        """Level of the loudest half second."""
        width = SAMPLE_RATE_HZ // 2
        out = []
        for stem in self.scene.stems:
            power = stem[: len(stem) // width * width].reshape(-1, width).astype(np.float64) ** 2
            out.append(10 * float(np.log10(max(power.mean(axis=1).max(), 1e-12))))
        return tuple(out)

    def _gaps(self, index: int) -> list[float]:
        """Silence before, between and after its intervals."""
        intervals = self.scene.objects[index].intervals
        edges = [0.0, *(t for interval in intervals for t in interval), self.scene.seconds]
        return [max(0.0, b - a) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def verbs_differ(a: str | None, b: str | None) -> bool:
    """Whether nobody would use the verb a for what b says of a sound; an unknown verb could be any."""
    return a is not None and b is not None and a != b and not any({a, b} <= alike for alike in _ALIKE_VERBS)


def spoken_words(thing: Thing) -> tuple[str, ...]:
    """The words that people use for a thing, its name first."""
    return (thing.name, *thing.aliases, *(kind for kind in thing.kinds if kind in SPOKEN_KINDS))


def _level_db(stem: NDArray[np.float32], intervals: tuple[tuple[float, float], ...]) -> float:
    pieces = [stem[round(a * SAMPLE_RATE_HZ) : round(b * SAMPLE_RATE_HZ)] for a, b in intervals]
    if not pieces:
        return float("-inf")
    power = float(np.mean(np.concatenate(pieces).astype(np.float64) ** 2))
    return 10 * float(np.log10(max(power, 1e-12)))
