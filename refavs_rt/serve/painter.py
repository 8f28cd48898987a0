"""From results to what viewers are sent, in a thread of its own, so that no viewer costs the stream a frame."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refavs_rt._ingest import JpegEncoder
from refavs_rt.controls import Sentence
from refavs_rt.render import Overlay, colour
from refavs_rt.result import Result

_QUALITY = 82
_RATE_RESULTS = 30
"""The rate is measured over so many results."""
_METER_SAMPLES = 1_600
"""The meter shows the last 0.1 s."""
_FLOOR_DB = -60.0

Send = Callable[[dict[str, Any], bytes], None]


@dataclass(frozen=True)
class Shown:
    """A result, and what was asked for when it was made."""

    result: Result
    sentences: Sequence[Sentence]
    dropped: int
    """Pictures that were not looked at, since the stream began."""


class Painter:
    """Paints the newest result that it is given; those that come while it paints, but the last, are left out.

    Args:
        overlay: for pictures of the source's size.
        send: takes the description and the JPEG of each picture.
        is_watched: whether anybody would see it.
        tell: takes what went wrong, each thing once.
    """

    def __init__(
        self,
        overlay: Overlay,
        threshold: float,
        send: Send,
        is_watched: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        self._overlay = overlay
        self._threshold = threshold
        self._send = send
        self._is_watched = is_watched
        self._tell = tell
        self._told: set[str] = set()
        self._encoder = JpegEncoder(_QUALITY)
        self._times: deque[float] = deque(maxlen=_RATE_RESULTS)
        self._changed = threading.Condition()
        self._newest: Shown | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="refavs-page-painter", daemon=True)
        self._thread.start()

    def show(self, shown: Shown) -> None:
        self._times.append(time.monotonic())
        with self._changed:
            self._newest = shown
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._closed)
                if self._closed:
                    return
                shown, self._newest = self._newest, None
            if shown is None or not self._is_watched():
                continue
            try:
                self._send(self._describe(shown), self._paint(shown))
            except Exception as error:  # one picture that cannot be shown must not be the last one
                if str(error) not in self._told:
                    self._told.add(str(error))
                    self._tell(f"a picture cannot be shown: {error}")

    def _paint(self, shown: Shown) -> bytes:
        image = shown.result.image.copy()
        colours = [colour(sentence.key - 1) for sentence in shown.sentences]
        self._overlay.paint_masks(image, shown.result.masks, colours)
        return self._encoder.encode(image)

    def _describe(self, shown: Shown) -> dict[str, Any]:
        result = shown.result
        times = list(self._times)
        rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0
        return {
            "index": result.index,
            "at_s": round(result.pts_s, 3),
            "fps": round(rate, 1),
            "latency_ms": round(result.latency_ms, 1),
            "dropped": shown.dropped,
            "level_db": level_db(result.frame.samples),
            "sentences": [
                {
                    **describe(sentence),
                    "presence": round(float(score), 3),
                    "present": bool(score >= self._threshold or mask.any()),
                }
                for sentence, score, mask in zip(shown.sentences, result.presence, result.masks, strict=True)
            ],
        }


def describe(sentence: Sentence) -> dict[str, Any]:
    """What the page knows of a sentence."""
    red, green, blue = colour(sentence.key - 1)
    return {
        "key": sentence.key,
        "text": sentence.text,
        "label": sentence.label,
        "colour": f"#{red:02x}{green:02x}{blue:02x}",
    }


def level_db(samples: NDArray[np.float32] | None) -> float | None:
    """How loud the last tenth of a second is, in dB of full scale, from -60; None where there is no sound."""
    if samples is None:
        return None
    power = float(np.mean(np.square(samples[-_METER_SAMPLES:], dtype=np.float64)))
    return round(max(_FLOOR_DB, 10.0 * math.log10(power)), 1) if power > 0.0 else _FLOOR_DB
