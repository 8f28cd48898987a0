"""`python -m refavs_rt.kernels.tune`: find the fastest blocks of every kernel on this machine's GPU, and write them to the table.

For each kernel, head size and width of type, from the row that the card takes now: one setting after the other is varied and
the best kept, twice round. Compilations run side by side in processes, timings one at a time. A setting counts only where the
op's results stay those of the row it began with. `python -m refavs_rt.kernels.aot --cards CC` then says whether a new row spills.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .launch import TABLE, Launch, launched_as, row, table
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

_lock: Any = None


@dataclass(frozen=True)
class Task:
    """One entry of the table to be tuned."""

    kernel: str
    head: int
    bits: int


@dataclass
class Tuned:
    """What was tried of one entry, and found."""

    task: Task
    before: Launch
    best: Launch
    gain: float
    """Time before over time now, the geometric mean of the workloads."""
    tried: list[tuple[Launch, float]]
    """Each setting with its time over that of the row before; infinite where it did not run or was not right."""


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
    for tuned in _tune_all(_tasks(only), capability, args.workers, time.monotonic() + args.seconds):
        found.append(tuned)
        task = tuned.task
        print(
            f"{task.kernel} {task.head}x{task.bits}: {tuned.gain:.2f}x, {_short(tuned.before)} -> {_short(tuned.best)}"
            f" ({len(tuned.tried)} tried)",
            flush=True,
        )
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
    """A process for each: blocks that make a kernel fault spoil the CUDA context of theirs alone."""
    context = multiprocessing.get_context("spawn")
    jobs = [(task, capability, until) for task in tasks]
    with context.Pool(workers, _take_lock, (context.Lock(),), maxtasksperchild=1) as pool:
        for tuned in pool.imap_unordered(_tune_job, jobs):
            if isinstance(tuned, str):
                print(tuned, file=sys.stderr, flush=True)
            elif tuned:
                yield tuned


def _tune_job(job: tuple[Task, int, float]) -> Tuned | str | None:
    """What `_tune` gives, or why it cannot: the row that the card takes now does not run."""
    try:
        return _tune(*job)
    except Exception as problem:
        return f"{job[0]}: {type(problem).__name__}: {problem}"[:500]


def _take_lock(lock: Any) -> None:
    global _lock
    _lock = lock


def _tune(task: Task, capability: int, until: float) -> Tuned | None:
    """One entry, or None where its time had come before it began. `until` is of the clock that all processes share."""
    if time.monotonic() > until:
        return None
    device = torch.device("cuda")
    dtype = torch.float16 if task.bits == 16 else torch.float32
    found = []
    for workload in workloads():
        if task.kernel in workload.rows and workload.head == task.head:
            found.append((workload.backward, workload.call(workload.run, workload.make(dtype, device))))
    forward = [run for backward, run in found if not backward]
    calls = forward or [run for _, run in found]
    before = row(task.kernel, task.head, task.bits, capability)
    with launched_as(task.kernel, before):
        expected = [_flat(run()) for run in calls]
        start = [_time(run) for run in calls]
    tried: dict[Launch, float] = {before: 1.0}

    def score(launch: Launch) -> float:
        if launch in tried:
            return tried[launch]
        try:
            with launched_as(task.kernel, launch):
                right = all(
                    _close(_flat(run()), e, task.bits) for run, e in zip(calls, expected, strict=True)
                )
                times = [_time(run) for run in calls] if right else []
            ratios = (
                [math.log(now / then) for now, then in zip(times, start, strict=True)]
                if right
                else [math.inf]
            )
            tried[launch] = math.exp(sum(ratios) / len(ratios))
        except Exception:  # blocks that the card does not take: out of resources, or a compiler's failure
            tried[launch] = math.inf
        return tried[launch]

    choices = dict(_SAMPLING) if task.kernel.startswith("deformable") else dict(_CHOICES)
    if task.kernel not in _SPLIT:
        choices.pop("splits", None)
    best = before
    for _ in range(2):
        for name, values in choices.items():
            for value in values:
                if time.monotonic() > until + 20:
                    break
                candidate = replace(best, **{name: value})
                if score(candidate) < 0.98 * tried[best]:
                    best = candidate
    return Tuned(task, before, best, 1.0 / tried[best], list(tried.items()))


def _time(run: Any) -> float:
    with _lock:
        torch.cuda.synchronize()
        return graph_median_ms(run, _REPEAT_MS)


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
