"""The same bits whatever order programs run in: Triton's interpreter, which has one order, made to take others.

On a GPU the order is the hardware's, and differs from run to run.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from refavs_rt.kernels import launch
from refavs_rt.kernels.deformable_attention import deformable_attention
from refavs_rt.kernels.dispatch import forced
from refavs_rt.kernels.launch import Launch
from refavs_rt.kernels.masked_attention import masked_attention
from refavs_rt.kernels.memory_clip import memory_clip
from refavs_rt.kernels.memory_step import memory_step, ring_attention
from refavs_rt.kernels.partial_attention import band_mask
from refavs_rt.kernels.prompt_attention import prompt_attention

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has an order of its own")

Place = tuple[int, ...]
ORDERS: dict[str, Callable[[list[Place]], list[Place]]] = {
    "backwards": lambda grid: grid[::-1],
    "shuffled": lambda grid: random.Random(3).sample(grid, len(grid)),
}


@pytest.fixture
def run_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Place]]:
    """Sets the order of programs, and returns a list of those that then ran."""
    from triton.runtime.interpreter import interpreter_builder as builder

    set_place = builder.set_grid_idx
    ran: list[Place] = []
    orders: dict[Place, dict[Place, Place]] = {}

    def ordered(order: str) -> list[Place]:
        ran.clear()
        orders.clear()

        def set_other_place(*place: int) -> None:
            size = tuple(builder.grid_dim)
            if size not in orders:
                grid = list(itertools.product(*map(range, size)))
                orders[size] = dict(zip(grid, ORDERS[order](grid), strict=True))
            ran.append(orders[size][place])
            set_place(*ran[-1])

        monkeypatch.setattr(builder, "set_grid_idx", set_other_place)
        return ran

    return ordered


Normal = Callable[..., Tensor]
"""Shape -> random numbers, which ask for a gradient."""


def _step(normal: Normal) -> Any:
    ring = [normal(3, 17, 32), normal(3, 17, 32), torch.tensor([True, False, True])]
    text = [normal(2, 5, 32), normal(2, 5, 32), normal(2, 5, 32), torch.ones(2, 5, dtype=torch.bool)]
    present, memory = [normal(17, 32) for _ in range(3)], [normal(2, 17, 32), torch.tensor([0.3, 1.0])]
    given: list[Any] = [*present, *ring, *text, *memory, 1.0, 1]
    return memory_step(*given)


def _ring(normal: Normal) -> Any:
    seen = torch.tensor([[True, False, True], [True, True, True]])
    present, ring = [normal(2, 17, 32) for _ in range(3)], [normal(2, 3, 17, 32) for _ in range(2)]
    given: list[Any] = [*present, *ring, seen, 1]
    with torch.no_grad():
        return ring_attention(*given)


def _masked(normal: Normal) -> Any:
    logits = normal(1, 18, 84).detach()
    return masked_attention(normal(1, 18, 32), normal(1, 84, 32), normal(1, 84, 32), logits, 1)


def _prompt(normal: Normal) -> Any:
    cues, mask = [normal(2, 35, 64) for _ in range(3)], torch.ones(2, 35, dtype=torch.bool)
    asking, projection = [normal(18, 64), normal(18, 64)], [normal(64, 64), normal(64)]
    given: list[Any] = [*asking, *cues, mask, *projection, normal(), normal(), 2]
    return prompt_attention(*given)


def _clip(normal: Normal, mean_window: int = 0) -> Any:
    text = [normal(1, 2, 5, 32) for _ in range(3)]
    mask, weight = torch.ones(1, 2, 5, dtype=torch.bool), torch.full((1, 2, 2), 0.4, requires_grad=True)
    modality = [normal(1, 2, 17, 32) for _ in range(3)]
    given: list[Any] = [*modality, band_mask(2, 2), *text, mask, weight, normal(), 1, mean_window]
    return memory_clip(*given)


def _deformable(normal: Normal) -> Any:
    """Its sums of dvalue have no order of their own, so under torch's rule they are of integers."""
    value, samples = normal(1, 20, 2, 16), (1, 20, 2, 2, 2)
    return deformable_attention(value, [2, 2, 4, 4], normal(*samples, 2) * 0.2 + 0.5, normal(*samples))


OPS: dict[str, Callable[[Normal], Any]] = {
    "step": _step, "ring": _ring, "masked": _masked, "prompt": _prompt, "clip": _clip, "window": lambda normal: _clip(normal, 1),
    "deformable": _deformable,
}  # fmt: skip


def _results(op: Callable[[Normal], Any]) -> list[Tensor]:
    """Of the op, and the gradients of all that it was given."""
    generator = torch.Generator().manual_seed(4)
    given: list[Tensor] = []

    def normal(*shape: int) -> Tensor:
        given.append(torch.randn(shape, generator=generator).requires_grad_())
        return given[-1]

    out = op(normal)
    results = list(out) if isinstance(out, tuple) else [out]
    wanted = [x for x in results if x.requires_grad]
    if not wanted:
        return results
    gradients = [torch.linspace(-1, 1, x.numel()).view_as(x) for x in wanted]
    return [
        *results,
        *torch.autograd.grad(wanted, given, gradients, materialize_grads=True, allow_unused=True),
    ]


@pytest.mark.parametrize("op", OPS)
def test_the_order_of_programs_changes_no_bit(
    op: str, run_in: Callable[[str], list[Place]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "launch_of", lambda *_: Launch(16, 16, warps=4, stages=1, splits=3))
    torch.use_deterministic_algorithms(op == "deformable")
    try:
        with forced("kernel"):
            expected = _results(OPS[op])
            for order in ORDERS:
                ran = run_in(order)
                found = _results(OPS[op])
                assert len(set(ran)) > 3 and ran != sorted(ran)
                assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), order
    finally:
        torch.use_deterministic_algorithms(False)
