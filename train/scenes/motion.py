"""How objects and the camera move: smooth paths as functions of time.

World coordinates: x to the right and y down, both from 0 to 1 over the frame that an unmoved camera sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MotionKind = Literal["still", "glide", "sway", "bob", "wander", "approach", "recede"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """Where an object is at T times: centre, relative size and angle (radians, clockwise), each [T]."""

    x: Floats
    y: Floats
    scale: Floats
    angle: Floats


@dataclass(frozen=True)
class Motion:
    """The path of an object."""

    kind: MotionKind
    x: float
    y: float
    """Where it is at the beginning; for 'sway', 'bob' and 'wander' the middle of its path."""
    dx: float = 0.0
    dy: float = 0.0
    """'glide': the way it goes. 'sway' and 'wander': half the width of its path; 'bob': `dy` is the height of a hop."""
    angle: float = 0.0
    tilt: float = 0.0
    """Half the angle through which it rocks."""
    growth: float = 1.0
    """'approach' and 'recede': its size at the end, its size at the beginning being 1."""
    start_s: float = 0.0
    end_s: float = 10.0
    """When a one-way movement begins and ends."""
    period_s: float = 4.0
    phase: float = 0.0

    def at(self, times_s: Floats) -> Pose:
        """The pose at `times_s` [T]."""
        t = np.asarray(times_s, np.float64)
        turn = 2 * np.pi * t / self.period_s + self.phase
        zero = np.zeros_like(t)
        x, y, scale = zero + self.x, zero + self.y, zero + 1.0
        if self.kind == "glide":
            way = _smooth((t - self.start_s) / max(self.end_s - self.start_s, 1e-6))
            x, y = x + self.dx * way, y + self.dy * way
        elif self.kind == "sway":
            x = x + self.dx * np.sin(turn)
        elif self.kind == "bob":
            y = y - self.dy * np.abs(np.sin(turn / 2))
        elif self.kind == "wander":
            x = x + self.dx * np.sin(turn)
            y = y + self.dy * np.sin(1.618 * turn + 1)
        elif self.kind in ("approach", "recede"):
            way = _smooth((t - self.start_s) / max(self.end_s - self.start_s, 1e-6))
            scale = self.growth**way
        angle = self.angle + self.tilt * np.sin(turn)
        return Pose(x, y, scale, angle)


@dataclass(frozen=True)
class Camera:
    """A slow pan and zoom over the whole picture, the view always inside the world.

    It goes from its first state to its last over the clip. `zoom` >= 1 is the width of the world in views.
    """

    x: tuple[float, float] = (0.5, 0.5)
    y: tuple[float, float] = (0.5, 0.5)
    zoom: tuple[float, float] = (1.0, 1.0)
    seconds: float = 10.0

    def at(self, times_s: Floats) -> tuple[Floats, Floats, Floats]:
        """Centre x, centre y and zoom at `times_s`, each [T]."""
        way = _smooth(np.asarray(times_s, np.float64) / self.seconds)
        zoom = self.zoom[0] * (self.zoom[1] / self.zoom[0]) ** way
        margin = 0.5 / zoom
        x = np.clip(self.x[0] + (self.x[1] - self.x[0]) * way, margin, 1 - margin)
        y = np.clip(self.y[0] + (self.y[1] - self.y[0]) * way, margin, 1 - margin)
        return x, y, zoom

    @property
    def moves(self) -> bool:
        return self.x[0] != self.x[1] or self.y[0] != self.y[1] or self.zoom[0] != self.zoom[1]


def _smooth(way: Floats) -> Floats:
    """Smoothstep: 0 before 0, 1 after 1, no corner between."""
    w = np.clip(way, 0, 1)
    return w * w * (3 - 2 * w)
