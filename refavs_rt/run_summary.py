"""What a run of `refavs-rt stream` comes to: frames, latencies, drops, and how often each sentence was found."""

from __future__ import annotations

import statistics
import time
from collections import deque
from typing import Any

from .controls import MOST_SENTENCES
from .result import Result

_LATENCIES = 100_000
"""The summary's latencies are those of so many frames, the last ones."""


class RunSummary:
    """Counts of a run."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.frames = 0
        self._latencies_ms: deque[float] = deque(maxlen=_LATENCIES)
        self._asked: dict[str, int] = {}
        self._present: dict[str, int] = {}
        self.counters: dict[str, float] = {}
        """Of a live source."""

    @property
    def frames_per_second(self) -> float:
        """Over the whole run, with decoding, drawing and writing."""
        return self.frames / (time.perf_counter() - self._started)

    def add(self, result: Result) -> None:
        self.frames += 1
        self._latencies_ms.append(result.latency_ms)
        found = {text: bool(mask.any()) for text, mask in zip(result.texts, result.masks, strict=True)}
        for text, is_found in found.items():
            if text not in self._asked and len(self._asked) >= MOST_SENTENCES:
                continue
            self._asked[text] = self._asked.get(text, 0) + 1
            self._present[text] = self._present.get(text, 0) + is_found

    def to_text(self) -> str:
        if not self.frames:
            return "no frame"
        median, p95, p99 = self._latency_ms()
        lines = [
            f"{self.frames} frames in {time.perf_counter() - self._started:.1f} s: {self.frames_per_second:.1f} fps, "
            f"latency {median:.0f} ms (median), {p95:.0f} ms (p95), {p99:.0f} ms (p99)"
        ]
        lines += self._live_lines()
        for text, asked in self._asked.items():
            lines.append(f"  {text!r}: segmented in {self._present[text]} of {asked} frames")
        return "\n".join(lines)

    def to_fields(self) -> dict[str, Any]:
        """The same for machines."""
        if not self.frames:
            return {"frames": 0}
        median, p95, p99 = (round(value, 1) for value in self._latency_ms())
        return {
            "frames": self.frames,
            "seconds": round(time.perf_counter() - self._started, 3),
            "fps": round(self.frames_per_second, 2),
            "latency_ms": {"median": median, "p95": p95, "p99": p99},
            "sentences": [
                {"text": text, "frames": asked, "segmented": self._present[text]}
                for text, asked in self._asked.items()
            ],
            "counters": self.counters,
        }

    def _latency_ms(self) -> tuple[float, float, float]:
        """Median, p95 and p99."""
        ordered = sorted(self._latencies_ms)
        p95, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.95, 0.99))
        return statistics.median(ordered), p95, p99

    def _live_lines(self) -> list[str]:
        if not self.counters:
            return []
        count = {name: int(value) for name, value in self.counters.items()}
        heard = count["decoded"] + count["late"]
        return [
            f"latency from capture to result; {count['dropped'] + count['late'] + count['overdue']} of {heard} pictures dropped, "
            f"{count['corrupt']} damaged, {count['reconnects']} reconnects, "
            f"{count['sound_late']} frames before their sound, "
            f"sound drift {self.counters['sound_drift_ppm']:+.0f} ppm"
        ]
