"""The table of configurations: what writes it, what it may hold, and the page that shows what comes of it."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from refavs_rt.kernels import masked_attention, prompt_attention, tables, tune
from refavs_rt.kernels.launch import TABLE, Launch, head_sizes, product_rows, row, table
from refavs_rt.kernels.workloads import workloads

PAGE = Path(__file__).resolve().parents[1] / "docs/kernels.md"


def test_every_workload_launches_kernels_of_the_table() -> None:
    names = [workload.name for workload in workloads()]
    assert len(set(names)) == len(names)
    launched = {kernel for workload in workloads() for kernel in workload.rows}
    assert launched == set(table())


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without one")
def test_without_a_gpu_the_tuner_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_what_was_found_becomes_rows_of_the_card_alone(tmp_path: Path) -> None:
    before = row("memory_step", 32, 16, 89)
    best = replace(before, block_k=16, splits=3)
    found = tune.Tuned(tune.Task("memory_step", 32, 16), before, best, 1.5, [])
    out = tmp_path / "table.json"
    tune._write([found], 89, out)
    old, new = json.loads(TABLE.read_text()), json.loads(out.read_text())
    assert Launch(**new["memory_step"]["89"].pop("32x16")) == best
    for name, values in new["memory_step"].pop("89").items():
        head, bits = map(int, name.split("x"))
        assert Launch(**values) == row("memory_step", head, bits, 89)
    old["memory_step"].pop("89", None)
    assert new == old


def _multiplies_in_float32() -> list[tuple[str, int]]:
    """Entries of the table with `tl.dot` of float32."""
    kernels = [kernel for kernel in table() if not kernel.startswith("deformable")]
    return [(kernel, head) for kernel in kernels for head in head_sizes(kernel)]


@pytest.mark.parametrize(("kernel", "head"), _multiplies_in_float32())
def test_no_row_multiplies_tiles_of_64_float32_rows(kernel: str, head: int) -> None:
    """With them, one configuration of a backward pass read outside memory on an H200 (Triton 3.6)."""
    for rows in table()[kernel].values():
        assert product_rows(kernel, rows[head, 32]) < 64


def test_rows_of_products_are_what_the_kernels_multiply() -> None:
    """The first operand of each `tl.dot`, by the source: keys in the two kernels whose programs own keys, else queries."""
    launch = Launch(block_q=16, block_k=32, warps=4, stages=1)
    assert {kernel for kernel in table() if product_rows(kernel, launch) == 32} == {
        "prompt_dkv",
        "masked_attention_dkv",
    }
    for module in (masked_attention, prompt_attention):
        source = Path(str(module.__file__)).read_text()
        of_keys = source.split("_dkv_kernel(")[1].split("@triton.jit")[0].split("\ndef ")[0]
        assert "tl.zeros([BLOCK_K, HEAD]" in of_keys and "tl.dot(k, tl.trans(q)" in of_keys


def test_the_tuner_does_not_try_what_the_table_may_not_have() -> None:
    small = Launch(16, 16, 4, 2)
    for kernel, setting in (("prompt", "block_q"), ("prompt_dkv", "block_k"), ("memory_clip_dkv", "block_q")):
        large = replace(small, **{setting: 64})
        assert not tune._may_be(tune.Task(kernel, 32, 32), large)
        assert tune._may_be(tune.Task(kernel, 32, 16), large)
    assert tune._may_be(tune.Task("prompt_dkv", 32, 32), replace(small, block_q=64))
    assert tune._may_be(tune.Task("deformable", 32, 32), replace(small, block_q=64))


def _measure_some(
    task: tune.Task, before: Launch, alone: Callable[[], AbstractContextManager[None]]
) -> tune.Measure:
    """As on a card on which 8 warps kill the process, 1 warp breaks its context, and 3 stages are no good."""

    def measure(launch: Launch) -> tune.Trial:
        with alone():
            if launch.warps == 8:
                os._exit(7)
            if launch.warps == 1:
                raise tune.BrokenError("an illegal memory access")
        if launch.stages == 3:
            return tune.Trial(math.inf, "out of resource")
        return tune.Trial(launch.block_q / before.block_q)

    return measure


def _cannot_begin(task: tune.Task, before: Launch, alone: Any) -> tune.Measure:
    raise ValueError("no such thing")


def test_a_setting_that_breaks_its_process_ends_itself_alone() -> None:
    task, before, lock = tune.Task("memory_step", 32, 16), Launch(32, 32, 4, 2), threading.Lock()
    found = tune.tuned(task, before, _measure_some, math.inf, lock)
    assert isinstance(found, tune.Tuned)
    tried = dict(found.tried)
    assert found.best == replace(before, block_q=16) and found.gain == 2.0
    for launch, trial in tried.items():
        reasons = {8: "the process ended by itself, code 7", 1: "an illegal memory access"}
        assert trial.reason == reasons.get(launch.warps, "out of resource" if launch.stages == 3 else "")
        assert (trial.ratio == math.inf) == bool(trial.reason)
    assert {launch.warps for launch in tried} == {1, 2, 4, 8} and {launch.splits for launch in tried} == {
        1,
        2,
        4,
        8,
        16,
    }
    assert lock.acquire(blocking=False)


def test_an_entry_that_cannot_begin_says_why() -> None:
    task, before = tune.Task("memory_step", 32, 16), Launch(32, 32, 4, 2)
    found = tune.tuned(task, before, _cannot_begin, math.inf, threading.Lock())
    assert isinstance(found, str) and "memory_step" in found and "ValueError: no such thing" in found
    assert tune.tuned(task, before, _cannot_begin, 0.0, threading.Lock()) is None


def test_the_page_has_the_predictions_that_the_counts_give() -> None:
    page = PAGE.read_text()
    assert tables.replaced(page, "predictions", tables.predictions()) == page


def test_a_floor_is_bytes_over_bandwidth() -> None:
    """The ring of `full` in float16: K and V of 10 ticks of 144 tokens of 1024 channels, q, o, lse of 8 heads, 9 flags."""
    line = next(x for x in tables.predictions().splitlines() if x.startswith("| ring_attention: full"))
    moved = 2 * (2 * 10 * 144 * 1024 + 2 * 144 * 1024) + 4 * 8 * 144 + 9
    cells = [cell.strip() for cell in line.split("|")[-4:-1]]
    assert cells == [f"{moved / rate * 1e6:.2f}" for rate in (205e9, 1008e9, 3350e9)]


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="<!-- resources -->"):
        tables.replaced("nothing", "resources", "")
