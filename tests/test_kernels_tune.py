"""The table of configurations: what writes it, what it may hold, and the page that shows what comes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from refavs_rt.kernels import tables, tune
from refavs_rt.kernels.launch import TABLE, Launch, row, table
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


def test_no_row_has_blocks_of_64_float32_rows() -> None:
    """With them, one configuration of a backward pass read outside memory on an H200 (Triton 3.6)."""
    for kernel, cards in table().items():
        for rows in cards.values():
            for (head, bits), launch in rows.items():
                if bits == 32 and not kernel.startswith("deformable"):
                    assert launch.block_q < 64, (kernel, head)


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
