"""That peers compute what the ops do, so that a ratio to them means something; and the page that `make gpu` writes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from refavs_rt.kernels.workloads import Workload, workloads

from .error import error
from .ops import OpFigures
from .peers import peer
from .report import markdown

_SMALL = [w for w in workloads() if not w.backward and "full, picture" not in w.name and "2304" not in w.name]


@pytest.mark.parametrize(
    "workload", [w for w in _SMALL if w.op != "deformable_attention"], ids=lambda w: w.name
)
def test_the_peer_is_the_reference(workload: Workload) -> None:
    arguments: dict[str, Any] = workload.make(torch.float32, torch.device("cpu"))
    if "text_mask" in arguments:
        arguments["text_mask"][..., 20:] = False
    if "ring_seen" in arguments:
        arguments["ring_seen"][..., ::3] = False
    found = peer(workload.op, arguments)
    assert found is not None
    run, given = found
    expected = workload.reference(**arguments)
    if workload.op == "ring_attention":
        expected = expected[0]
    assert error(run(**given), expected) < 1e-5


def test_errors_are_relative_and_nan_never_passes() -> None:
    x = torch.tensor([3.0, 4.0])
    assert error(x + torch.tensor([0.0, 0.5]), x) == pytest.approx(0.1)
    assert error((x, x), (x, 2 * x)) == pytest.approx(0.5)
    assert error(torch.tensor([3.0, torch.nan]), x) != error(x, x)
    assert not error(torch.tensor([3.0, torch.nan]), x) < 1.0


def test_the_page_has_ratios_and_what_failed() -> None:
    op = OpFigures(
        "an op",
        "float16",
        1_000_000,
        5,
        9,
        1e-3,
        2e-3,
        {"kernel graph": 0.01, "peer graph": 0.03},
        {"x": "why"},
    )
    machine = {
        "device": "a card", "compute_capability": "9.0", "multiprocessors": 1, "driver": "1", "torch": "2", "triton": "3",
        "python": "3", "copy_bytes_per_s": 1e12,
    }  # fmt: skip
    page = markdown({"machine": machine, "ops": [dataclasses.asdict(op)]})
    line = next(x for x in page.splitlines() if x.startswith("| an op"))
    cells = [cell.strip() for cell in line.split("|")]
    assert "3.00" in cells  # over the peer
    assert "100" in cells  # GB/s: 1 MB in 10 us
    assert "1.0" in cells and "10%" in cells  # the floor: 1 MB at 1 TB/s, of 10 us
    assert "x: why" in page
