"""Viewers of a page that come and go, each in a process with the others and apart from what is measured.

    python -m benchmarks.viewers http://localhost:8765/ --seconds 25 --seed 3

Prints a JSON object: how many came, how many pictures they saw, how many saw none, and errors.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

CHAIRS = 4
"""So many watch at once; one of them reads so slowly that it gets few pictures."""
_SLOW_S = 1.0
_LONGEST_VISIT_S, _LONGEST_BREAK_S = 6.0, 1.5
_LARGEST_PICTURE = 1 << 22


@dataclass
class Visits:
    """What viewers saw."""

    viewers: int = 0
    pictures: int = 0
    empty_handed: int = 0
    """Those who saw no picture at all."""
    errors: list[str] = field(default_factory=list)


def watch(url: str, seconds: float, seed: int) -> Visits:
    """Viewers for so long."""
    visits = Visits()
    lock = threading.Lock()
    until = time.monotonic() + seconds
    chairs = [
        threading.Thread(
            target=_sit, args=(url, until, random.Random(seed * CHAIRS + i), i == 0, visits, lock)
        )
        for i in range(CHAIRS)
    ]
    for chair in chairs:
        chair.start()
    for chair in chairs:
        chair.join()
    return visits


def _sit(
    url: str, until: float, rng: random.Random, is_slow: bool, visits: Visits, lock: threading.Lock
) -> None:
    """One viewer after the other, for visits of chance lengths; every third leaves without a word."""
    parts = urlsplit(url)
    while time.monotonic() < until - 1.0:
        seen, error = 0, None
        try:
            with connect(
                f"ws://{parts.netloc}/stream",
                origin=Origin(f"http://{parts.netloc}"),
                max_size=_LARGEST_PICTURE,
            ) as viewer:
                leaves = max(until, time.monotonic() + 1.0)
                leaves = min(leaves, time.monotonic() + rng.uniform(1.0, _LONGEST_VISIT_S))
                while (rest := leaves - time.monotonic()) > 0:
                    try:
                        is_picture = isinstance(viewer.recv(timeout=rest), bytes)
                    except TimeoutError:
                        break
                    seen += is_picture
                    if is_slow and is_picture:
                        time.sleep(min(_SLOW_S, max(0.0, leaves - time.monotonic())))
                if rng.random() < 1 / 3:
                    viewer.socket.shutdown(socket.SHUT_RDWR)
        except (OSError, ConnectionClosed) as raised:
            error = f"{type(raised).__name__}: {raised}"
        with lock:
            visits.viewers += 1
            visits.pictures += seen
            visits.empty_handed += not seen
            if error:
                visits.errors.append(error)
        time.sleep(max(0.0, min(rng.uniform(0.1, _LONGEST_BREAK_S), until - time.monotonic())))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.viewers")
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    print(json.dumps(asdict(watch(args.url, args.seconds, args.seed))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
