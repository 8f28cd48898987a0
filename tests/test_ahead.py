"""An iterator in a thread of its own: order, errors, bounds, and that no thread is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from refavs_rt.ahead import Ahead

PATIENCE_S = 20.0


def is_running(name: str) -> bool:
    return any(thread.name == name for thread in threading.enumerate())


def test_all_items_in_order() -> None:
    with Ahead(lambda: (i * i for i in range(1000)), "squares", depth=3) as items:
        assert list(items) == [i * i for i in range(1000)]
        assert list(items) == []
    assert not is_running("squares")


def test_an_error_comes_in_its_place() -> None:
    def make() -> Generator[int]:
        yield 1
        yield 2
        raise OSError("the third is broken")

    with Ahead(make, "broken") as items:
        assert next(items) == 1
        assert next(items) == 2
        with pytest.raises(OSError, match="the third is broken"):
            next(items)
        with pytest.raises(StopIteration):
            next(items)
    assert not is_running("broken")


def test_it_runs_ahead_by_its_depth_and_no_further() -> None:
    made: list[int] = []
    reached = {i: threading.Event() for i in range(100)}

    def make() -> Generator[int]:
        for i in range(100):
            made.append(i)
            reached[i].set()
            yield i

    with Ahead(make, "bounded", depth=2) as items:
        for taken in range(3):
            assert reached[taken + 1].wait(PATIENCE_S)
            time.sleep(0.2)
            assert made == list(range(taken + 2))  # two wait, and the next is not begun
            assert next(items) == taken


def test_two_stages_work_at_the_same_time() -> None:
    """The second is made only while the first is with the caller, so neither would end alone."""
    with_caller, made = threading.Event(), threading.Event()

    def make() -> Generator[int]:
        yield 0
        assert with_caller.wait(PATIENCE_S)
        made.set()
        yield 1

    with Ahead(make, "overlap") as items:
        assert next(items) == 0
        with_caller.set()
        assert made.wait(PATIENCE_S)
        assert next(items) == 1


def test_closing_in_the_middle_closes_the_generator_in_its_thread() -> None:
    closed: list[str] = []

    def make() -> Generator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.append(threading.current_thread().name)

    items = Ahead(make, "closing")
    assert next(items) == 0
    items.close()
    items.close()
    assert closed == ["closing"]
    assert not is_running("closing")
    assert list(items) == []


def test_closing_before_the_first_item() -> None:
    items = Ahead(lambda: (i for i in range(10)), "early")
    items.close()
    assert not is_running("early")
