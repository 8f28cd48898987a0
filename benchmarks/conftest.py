"""Results are kept as they come, and a run that was cut off goes on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.results import RESULTS, Results

_KEPT = pytest.StashKey[Results]()
_DONE = pytest.StashKey[int]()
"""How many benchmarks were left out, since this commit has their figures."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--save-results",
        nargs="?",
        type=Path,
        const=RESULTS,
        metavar="DIR",
        help="keep the figures of each benchmark in DIR/MACHINE as it ends (default: benchmarks/results), "
        "and leave out what this commit has measured there",
    )


def pytest_configure(config: pytest.Config) -> None:
    folder = config.getoption("--save-results", None)
    if folder is not None and folder.is_file():
        raise pytest.UsageError(
            f"--save-results {folder}: is a file; let the option stand last, or give it a folder"
        )
    if folder is not None:
        config.stash[_KEPT] = Results(folder)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _KEPT not in config.stash:
        return
    done = [item for item in items if config.stash[_KEPT].has(_name(item))]
    config.stash[_DONE] = len(done)
    if done:
        config.hook.pytest_deselected(items=done)
        items[:] = [item for item in items if item not in done]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """That nothing is left to measure is no failure."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.stash.get(_DONE, 0):
        session.exitstatus = pytest.ExitCode.OK


@pytest.hookimpl(tryfirst=True)  # pytest asks no further once it has a report, and this gives none
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    if call.when != "call" or call.excinfo is not None or benchmark is None or benchmark.stats is None:
        return
    if _KEPT in item.config.stash:
        item.config.stash[_KEPT].add(_name(item), benchmark.stats.stats.data, benchmark.extra_info)


@pytest.fixture(autouse=True)
def all_cores() -> Iterator[int]:
    """How many there are for this process. torch uses them all, as ONNX Runtime does."""
    before, cores = torch.get_num_threads(), len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    yield cores
    torch.set_num_threads(before)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Shows a line at once: what takes minutes says how far it is."""

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}", end="", flush=True)

    return show


def _name(item: pytest.Item) -> str:
    """File and test, without the folder."""
    return item.nodeid.rpartition("/")[2]
