"""Ctrl-C and SIGTERM end a loop between two of its turns."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TypeVar

_Item = TypeVar("_Item")


class StopOnSignal:
    """Ends a loop between two frames on Ctrl-C or SIGTERM, so that files are finished.

    While a frame is waited for, the signal interrupts at once; while one is written, at the end of that.
    """

    def __init__(self) -> None:
        self.number = 0
        """Of the signal that came first; 0 where none did."""
        self._waiting = False
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():  # Python sets handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def until_stopped(self, items: Iterator[_Item]) -> Iterator[_Item]:
        while True:
            self._waiting = True
            try:
                if self.number:
                    return
                item = next(items, None)
            except KeyboardInterrupt:
                return
            finally:
                self._waiting = False
            if item is None:
                return
            yield item

    def _stop(self, number: int, frame: FrameType | None) -> None:
        again, self.number = self.number != 0, self.number or number
        if self._waiting or again:
            raise KeyboardInterrupt(number)
