"""The processes of one training, through torch's own distributed library.

`torchrun` starts the processes and says in their environment who they are; without it there is one. Each holds the whole network
(DistributedDataParallel sums the gradients): most parameters are frozen encoders, which need neither gradients nor optimizer
state, so there is little that FSDP could share out.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import Tensor, distributed

DeviceChoice = Literal["auto", "cpu", "cuda"]
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class DistributedError(Exception):
    """The processes of a training have lost each other; the message says which of them says so."""


class SharedError(Exception):
    """What at least one process cannot do and therefore none does: all raise it together; the message says it once."""


@dataclass(frozen=True)
class World:
    """This process among those of the training. Every method but `say` is called by all of them, in the same order."""

    rank: int
    size: int
    local_size: int
    """Processes on this machine."""
    device: torch.device
    timeout_minutes: float
    control: Any = None
    """The gloo group for what is no gradient, such as counts and flags; None: there is one process."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes of `values`, on the CPU."""
        if self.size == 1:
            return values
        total = values.clone()
        with self.guard():
            self._meet()
            distributed.all_reduce(total, group=self.control)
        return total

    def gather(self, texts: list[str]) -> list[str]:
        """The texts of all processes, in the order of ranks."""
        if self.size == 1:
            return texts
        content = torch.frombuffer(bytearray(json.dumps(texts).encode()), dtype=torch.uint8)
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(content)
        lengths = self.sum(lengths)
        padded = torch.zeros(int(lengths.max()), dtype=torch.uint8)
        padded[: len(content)] = content
        rows = [torch.empty_like(padded) for _ in range(self.size)]
        with self.guard():
            distributed.all_gather(rows, padded, group=self.control)
        out: list[str] = []
        for row, length in zip(rows, lengths.tolist(), strict=True):
            out += json.loads(row[:length].numpy().tobytes())
        return out

    def agree(self, text: str) -> str:
        """The text of the main process."""
        return self.gather([text])[0]

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            with self.guard():
                self._meet()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through the block before the others: what it writes there, they read."""
        if not self.is_main:
            self.barrier()
        try:
            yield
        finally:
            if self.is_main:
                self.barrier()

    @contextmanager
    def all_or_none(self, errors: tuple[type[Exception], ...]) -> Iterator[None]:
        """If any process fails in the block with one of `errors`, all raise a `SharedError`; one alone just raises its own. No
        process may wait for others in the block, but in `main_first`."""
        if self.size == 1:
            yield
            return
        mine = ""
        try:
            yield
        except errors as error:
            mine = str(error) or type(error).__name__
        said = self.gather([mine])
        if said[0]:
            raise SharedError(said[0])
        for rank, text in enumerate(said):
            if text:
                raise SharedError(f"process {rank} of {self.size}: {text}")

    def say(self, text: str) -> None:
        """Print to standard error, once for all processes."""
        if self.is_main:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """A failure of the network between the processes inside the block becomes a `DistributedError`."""
        try:
            yield
        except RuntimeError as error:
            if not _of_the_network(error):
                raise
            raise DistributedError(
                f"process {self.rank} of {self.size} lost another, which ended or was silent for "
                f"{self.timeout_minutes:g} minutes: {_first_line(error)}"
            ) from error

    def _meet(self) -> None:
        """Wait for all, in a way that says who does not come: of a plain sum only the silence would be known."""
        distributed.monitored_barrier(self.control, timedelta(minutes=self.timeout_minutes))


def alone(device: DeviceChoice = "auto") -> World:
    """This process, and no other."""
    return World(0, 1, 1, _device(device, 0), math.inf)


@contextmanager
def open_world(device: DeviceChoice = "auto", timeout_minutes: float = 30) -> Iterator[World]:
    """The processes that `torchrun` started, or this one alone.

    Raises:
        DistributedError: the environment is incomplete, the machine has too few GPUs, or a process does not come in time.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield alone(device)
        return
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if missing:
        raise DistributedError(
            f"WORLD_SIZE is {size} but {', '.join(missing)} is not set: start the processes with torchrun"
        )
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    chosen = _device(device, local_rank)
    wait = timedelta(minutes=timeout_minutes)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    try:
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=wait)
        control = distributed.new_group(backend="gloo", timeout=wait)
    except (RuntimeError, ValueError) as error:
        raise DistributedError(
            f"process {rank} of {size} found no other at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} in "
            f"{timeout_minutes:g} minutes: {_first_line(error)}"
        ) from error
    yield World(rank, size, int(os.environ.get("LOCAL_WORLD_SIZE", size)), chosen, timeout_minutes, control)
    distributed.destroy_process_group()  # not after a fault: it would wait for those that are gone


def _device(choice: DeviceChoice, local_rank: int) -> torch.device:
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise DistributedError(
            f"process {local_rank} of this machine has no GPU: torch sees {count}; start fewer, or give --device cpu"
        )
    return torch.device("cuda", local_rank)


def _of_the_network(error: RuntimeError) -> bool:
    """Whether it comes from gloo, NCCL or the store: torch raises bare RuntimeErrors for most of it."""
    text = str(error).lower()
    return isinstance(error, distributed.DistError) or any(
        word in text for word in ("gloo", "nccl", "monitoredbarrier", "connection")
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
