"""`python -m refavs_rt.kernels.tune`: find the fastest blocks of every kernel on this machine's GPU, and write them to the table.

For each kernel, head size and width of type, from the row that the card takes now: one setting after the other is varied and
the best kept, twice round. A setting counts only where the op's results stay those of the row it began with. `python -m
refavs_rt.kernels.aot --cards CC` then says whether a new row spills.

Each entry has a process of its own, in which kernels are compiled while others are timed, one at a time. A setting whose kernel
reads outside memory leaves no process in which another could be tried: the entry's process ends with it, the reason is written
down, and a fresh one goes on from what is known.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .launch import MOST_FLOAT32_ROWS, TABLE, Launch, launched_as, product_rows, row, table
from .timing import graph_median_ms
from .workloads import workloads

_REPEAT_MS = 6
_CHOICES = {
    "block_q": (16, 32, 64),
    "block_k": (16, 32, 64, 128),
    "warps": (1, 2, 4, 8),
    "stages": (1, 2, 3, 4),
    "splits": (1, 2, 4, 8, 16),
}
_SPLIT = ("memory_ring", "memory_step", "masked_attention")
"""Kernels whose keys can be cut into splits."""
_SAMPLING = {"block_q": (4, 8, 16, 32, 64), "warps": (1, 2, 4, 8)}
"""Of the kernels of deformable attention, which have no other settings."""
_PATIENCE_S = 300.0
"""For one setting to be compiled, checked and timed; then it counts as one that does not end."""


@dataclass(frozen=True)
class Task:
    """One entry of the table to be tuned."""

    kernel: str
    head: int
    bits: int


@dataclass(frozen=True)
class Trial:
    """What came of one setting."""

    ratio: float
    """Its time over that of the row before, as the workloads' geometric mean; infinite where it did not run or was not right."""
    reason: str = ""
    """Why it is infinite."""


Measure = Callable[[Launch], Trial]
Prepare = Callable[[Task, Launch, Callable[[], AbstractContextManager[None]]], Measure]
"""Makes a `Measure` of an entry and the row that it begins with; what is to be timed alone goes into the context."""


class BrokenError(Exception):
    """After this setting nothing can run in the process any more."""


@dataclass
class Tuned:
    """What was tried of one entry, and found."""

    task: Task
    before: Launch
    best: Launch
    gain: float
    """Time before over time now, the geometric mean of the workloads."""
    tried: list[tuple[Launch, Trial]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m refavs_rt.kernels.tune", description=__doc__)
    parser.add_argument("--only", default="", metavar="KERNEL,KERNEL", help=f"some of {', '.join(table())}")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="entries not begun by then keep their rows"
    )
    parser.add_argument("--workers", type=int, default=max(1, len(os.sched_getaffinity(0)) - 2), metavar="N")
    parser.add_argument(
        "--out",
        type=Path,
        default=TABLE,
        metavar="FILE",
        help="the table to write; default: the package's own",
    )
    parser.add_argument(
        "--json", type=Path, default=None, metavar="FILE", help="write all that was tried there"
    )
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("error: no CUDA device: the table can only be tuned on the card it is for", file=sys.stderr)
        return 2
    only = args.only.split(",") if args.only else list(table())
    if unknown := sorted(set(only) - set(table())):
        print(
            f"error: no kernel {unknown[0]!r} in the table; there are {', '.join(table())}", file=sys.stderr
        )
        return 2
    major, minor = torch.cuda.get_device_capability()
    capability = 10 * major + minor
    found: list[Tuned] = []
    for one in _tune_all(_tasks(only), capability, args.workers, time.monotonic() + args.seconds):
        found.append(one)
        task = one.task
        print(
            f"{task.kernel} {task.head}x{task.bits}: {one.gain:.2f}x, {_short(one.before)} -> {_short(one.best)}"
            f" ({len(one.tried)} tried)",
            flush=True,
        )
        for launch, trial in one.tried:
            if trial.reason:
                print(f"  {_short(launch)}: {trial.reason}", file=sys.stderr, flush=True)
        _write(found, capability, args.out)
        if args.json:
            args.json.write_text(json.dumps([asdict(t) for t in found], indent=1) + "\n")
    print(f"{len(found)} entries tuned for sm_{capability}, written to {args.out}")
    return 0


def _tasks(only: Sequence[str]) -> list[Task]:
    """Entries that some workload launches, in the order of the workloads."""
    tasks = [
        Task(kernel, workload.head, bits)
        for workload in workloads()
        for kernel in workload.rows
        for bits in (16, 32)
        if kernel in only
    ]
    return list(dict.fromkeys(tasks))


def _tune_all(tasks: Sequence[Task], capability: int, workers: int, until: float) -> Iterator[Tuned]:
    lock = threading.Lock()
    with ThreadPoolExecutor(workers) as pool:
        waiting = [
            pool.submit(
                tuned, task, row(task.kernel, task.head, task.bits, capability), _on_device, until, lock
            )
            for task in tasks
        ]
        for future in as_completed(waiting):
            found = future.result()
            if isinstance(found, str):
                print(found, file=sys.stderr, flush=True)
            elif found:
                yield found


def tuned(
    task: Task, before: Launch, prepare: Prepare, until: float, lock: threading.Lock
) -> Tuned | str | None:
    """One entry, in processes of its own.

    Args:
        prepare: at the top of a module, for processes take it by its name.
        until: of the clock that all processes share.
        lock: who holds it may time.

    Returns:
        what was found; why nothing can be; or None where its time had come before it began.
    """
    if time.monotonic() > until:
        return None
    known = {before: Trial(1.0)}
    while True:
        end = _one_process(task, before, prepare, until, known, lock)
        if isinstance(end, Launch):
            return Tuned(task, before, end, 1.0 / known[end].ratio, list(known.items()))
        if end:
            return f"{task}: {end}"


def _one_process(
    task: Task,
    before: Launch,
    prepare: Prepare,
    until: float,
    known: dict[Launch, Trial],
    lock: threading.Lock,
) -> Launch | str:
    """Search in a new process until the end, whose best setting is returned, or until a setting breaks the process: then that is
    known, and "" returned. Where nothing could be tried, why."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_search, args=(there, task, before, prepare, until, known), daemon=True)
    process.start()
    there.close()
    trying: Launch | None = None
    timing, reason = False, ""
    try:
        while True:
            if not here.poll(_PATIENCE_S):
                process.kill()
                reason = f"not done in {_PATIENCE_S:.0f} s"
                break
            what, value = here.recv()
            if what == "tries":
                trying = value
            elif what == "tried":
                known[value[0]], trying = value[1], None
            elif what == "times":
                timing = lock.acquire()
                here.send(None)
            elif what == "timed":
                lock.release()
                timing = False
            elif what == "done":
                return value
            else:
                reason = value
                break
    except (EOFError, ConnectionError):
        pass
    finally:
        if timing:
            lock.release()
        here.close()
        process.join()
    reason = reason or f"the process ended by itself, code {process.exitcode}"
    if trying is None:
        return reason
    known[trying] = Trial(math.inf, reason)
    return ""


def _search(
    connection: Connection,
    task: Task,
    before: Launch,
    prepare: Prepare,
    until: float,
    known: dict[Launch, Trial],
) -> None:
    """What a process does, telling its parent of every step."""

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        connection.send(("times", None))
        connection.recv()
        yield
        connection.send(("timed", None))

    try:
        measure = prepare(task, before, alone)
        best = before
        for _ in range(2):
            for name, values in _choices(task.kernel).items():
                for value in values:
                    if time.monotonic() > until + 20:
                        break
                    candidate = replace(best, **{name: value})
                    if not _may_be(task, candidate):
                        continue
                    if candidate not in known:
                        connection.send(("tries", candidate))
                        known[candidate] = measure(candidate)
                        connection.send(("tried", (candidate, known[candidate])))
                    if known[candidate].ratio < 0.98 * known[best].ratio:
                        best = candidate
        connection.send(("done", best))
    except Exception as problem:  # BrokenError, or the row that the card takes now does not run
        connection.send(("broken", _said(problem)))


def _choices(kernel: str) -> dict[str, tuple[int, ...]]:
    choices = dict(_SAMPLING) if kernel.startswith("deformable") else dict(_CHOICES)
    if kernel not in _SPLIT:
        choices.pop("splits", None)
    return choices


def _may_be(task: Task, launch: Launch) -> bool:
    """Whether the table may have it: see `MOST_FLOAT32_ROWS`."""
    multiplies = not task.kernel.startswith("deformable")
    return not multiplies or task.bits == 16 or product_rows(task.kernel, launch) <= MOST_FLOAT32_ROWS


def _on_device(task: Task, before: Launch, alone: Callable[[], AbstractContextManager[None]]) -> Measure:
    """On the GPU, with the workloads that launch the kernel; forward passes where there are any."""
    device = torch.device("cuda")
    dtype = torch.float16 if task.bits == 16 else torch.float32
    found = []
    for workload in workloads():
        if task.kernel in workload.rows and workload.head == task.head:
            found.append((workload.backward, workload.call(workload.run, workload.make(dtype, device))))
    forward = [run for backward, run in found if not backward]
    calls = forward or [run for _, run in found]

    def milliseconds(run: Callable[[], Any]) -> float:
        with alone():
            torch.cuda.synchronize()
            return graph_median_ms(run, _REPEAT_MS)

    with launched_as(task.kernel, before):
        expected = [_flat(run()) for run in calls]
        start = [milliseconds(run) for run in calls]

    def measure(launch: Launch) -> Trial:
        try:
            with launched_as(task.kernel, launch):
                if not all(
                    _close(_flat(run()), e, task.bits) for run, e in zip(calls, expected, strict=True)
                ):
                    return Trial(math.inf, "other results than the row before")
                times = [milliseconds(run) for run in calls]
        except Exception as problem:  # out of resources, a compiler's failure, or worse
            try:
                torch.cuda.synchronize()
            except Exception:
                raise BrokenError(_said(problem)) from problem
            return Trial(math.inf, _said(problem))
        ratios = [math.log(now / then) for now, then in zip(times, start, strict=True)]
        return Trial(math.exp(sum(ratios) / len(ratios)))

    return measure


def _said(problem: Exception) -> str:
    name = "" if isinstance(problem, BrokenError) else f"{type(problem).__name__}: "
    return " ".join(f"{name}{problem}".split())[:300]


def _close(found: list[Tensor], expected: list[Tensor], bits: int) -> bool:
    within = 2e-2 if bits == 16 else 1e-3
    return all(
        bool(torch.isfinite(x).all())
        and float((x.float() - y.float()).norm()) <= within * float(y.float().norm())
        for x, y in zip(found, expected, strict=True)
    )


def _flat(out: Any) -> list[Tensor]:
    return [x.clone() for x in out if x is not None] if isinstance(out, (tuple, list)) else [out.clone()]


def _write(found: Sequence[Tuned], capability: int, out: Path) -> None:
    """The table with rows of this card for every kernel that was tuned; its other entries are those that it took before."""
    content: dict[str, dict[str, dict[str, Any]]] = json.loads(TABLE.read_text())
    best = {(t.task.kernel, t.task.head, t.task.bits): t.best for t in found}
    for kernel in dict.fromkeys(t.task.kernel for t in found):
        entries = next(iter(table()[kernel].values()))
        content[kernel][str(capability)] = {
            f"{head}x{bits}": asdict(best.get((kernel, head, bits)) or row(kernel, head, bits, capability))
            for head, bits in entries
        }
    out.write_text(json.dumps(content, indent=1) + "\n")


def _short(launch: Launch) -> str:
    return f"q{launch.block_q} k{launch.block_k} w{launch.warps} s{launch.stages} x{launch.splits}"


if __name__ == "__main__":
    sys.exit(main())
