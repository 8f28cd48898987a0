"""When a session's memory takes a frame."""

from __future__ import annotations

CLOCK_SLACK_S = 1e-6
"""A frame this little before a tick is on it: timestamps are sums of fractions."""


class MemoryClock:
    """Says which frames are memory ticks: the first at or after start + k / memory_hz, for each k from 0."""

    def __init__(self, memory_hz: float) -> None:
        self._memory_hz = memory_hz
        self._start_s: float | None = None
        self._last_s = 0.0
        self._next_tick = 0

    def gap_s(self, pts_s: float) -> float:
        """Seconds since the last frame; 0 before the first."""
        return 0.0 if self._start_s is None else pts_s - self._last_s

    def advance(self, pts_s: float) -> bool:
        """Take the frame at `pts_s`; whether it is a tick."""
        if self._start_s is None or pts_s < self._last_s - 1.0 / self._memory_hz:
            self._start_s, self._next_tick = pts_s, 0
        self._last_s = pts_s
        reached = int((pts_s - self._start_s + CLOCK_SLACK_S) * self._memory_hz)
        if reached < self._next_tick:
            return False
        self._next_tick = reached + 1
        return True
