"""An iterator that runs in a thread of its own, a little ahead of who asks for it."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_PATIENCE_S = 0.05
"""How late a thread that waits for room notices that nobody asks any more."""


@dataclass(frozen=True)
class _End:
    """The last thing that a thread hands over: that there is no more, or what went wrong."""

    error: BaseException | None


class Ahead(Generic[_Item]):
    """The items of a generator in their order, each made while those before it are used.

    The thread starts at once. What the generator raises is raised in its place by `next`. Close it, or use it in a `with` block:
    the thread then ends with the item that it is making, so whatever the generator waits for must be ended first.

    Args:
        make: the generator function; the generator lives and dies in the thread.
        name: of the thread.
        depth: how many items may be in the making or finished and waiting: of one that would have to wait the making is not
            begun, so that it is made of what is newest then.
    """

    def __init__(
        self, make: Callable[[], Generator[_Item, None, None]], name: str, *, depth: int = 1
    ) -> None:
        self._make = make
        self._finished: queue.SimpleQueue[_Item | _End] = queue.SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._stop = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> Ahead[_Item]:
        return self

    def __next__(self) -> _Item:
        if self._ended:
            raise StopIteration
        item = self._finished.get()
        if not isinstance(item, _End):
            self._room.release()
            return item
        self._ended = True
        if item.error is not None:
            raise item.error
        raise StopIteration

    def close(self) -> None:
        """End the thread; what it has made is lost."""
        self._ended = True
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Ahead[_Item]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            with contextlib.closing(self._make()) as items:
                while self._has_room():
                    try:
                        self._finished.put(next(items))
                    except StopIteration:
                        break
        except BaseException as raised:  # is raised again where the item was wanted
            error = raised
        self._finished.put(_End(error))

    def _has_room(self) -> bool:
        """Whether another item may be begun, which is waited for; False once nobody asks any more."""
        while not self._stop.is_set():
            if self._room.acquire(timeout=_PATIENCE_S):
                return True
        return False
