"""What a frame costs after so much of a stream, on the embedded bundle: the same, since the state does not grow.

`extra_info` holds it for streams of several lengths, taken in turn in one run. Every frame is a memory tick, the dearest kind.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from typing import Any

import pytest

import refavs_rt
from benchmarks.networks import TEXTS, frames_and_sound
from benchmarks.results import summary
from refavs_rt.session import Session

LENGTHS_S = (10, 30, 60, 300, 600)
ROUNDS = 30


@pytest.mark.parametrize("sentences", [1, pytest.param(8, marks=pytest.mark.bench_full)])
def test_length_of_stream(benchmark: Any, sentences: int) -> None:
    model = refavs_rt.load("edge")
    frames, log_mel = frames_and_sound(model.config, 16)

    def push(session: Session, second: int) -> float:
        started = time.perf_counter()
        prediction = session.predict(frames[second % 16], log_mel[second % 16], float(second))
        took = time.perf_counter() - started
        assert prediction.is_tick
        return took

    growing = model.session(TEXTS[:sentences])
    sessions: dict[int, Session] = {}
    for second in range(LENGTHS_S[-1]):
        push(growing, second)
        if second + 1 in LENGTHS_S:
            sessions[second + 1] = copy.deepcopy(growing, {id(model): model})
    took: dict[int, list[float]] = defaultdict(list)
    for i in range(ROUNDS):
        for length, session in sessions.items():
            took[length].append(push(session, length + i))
    benchmark.extra_info.update(
        {"sentences": sentences, "seconds_by_length": {str(n): summary(x) for n, x in took.items()}}
    )
    longest = iter(range(LENGTHS_S[-1] + ROUNDS, 10**9))
    benchmark.pedantic(lambda: push(sessions[LENGTHS_S[-1]], next(longest)), rounds=ROUNDS)
