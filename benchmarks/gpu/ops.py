"""Every op at the shapes of the presets: its kernels beside the reference's operators, torch's own, and its compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from refavs_rt.kernels.timing import graph_median_ms, median_ms
from refavs_rt.kernels.workloads import Workload, workloads

from .error import error
from .peers import peer


@dataclass
class OpFigures:
    """What one call of one op took."""

    name: str
    dtype: str
    bytes: int
    """The fewest that device memory must move for it."""
    operations: int
    launches_saved: int
    error: float
    """Of the kernels against the reference in float64: see `error.error`."""
    reference_error: float
    """Of the reference in this type, likewise."""
    milliseconds: dict[str, float] = field(default_factory=dict)
    """By form: "kernel", "reference", "peer", "compiled", each also with " graph" behind: replayed from a CUDA graph."""
    failures: dict[str, str] = field(default_factory=dict)
    """Form -> why it has no figure."""


def measure_ops(compiled: Callable[[], bool], progress: Callable[[str], None]) -> Iterator[OpFigures]:
    """All workloads in float16 and float32, those of training in bfloat16 and float32.

    Args:
        compiled: asked before each compilation of a reference, which takes seconds: whether there is time.
        progress: called with a line for each.
    """
    for workload in workloads():
        for dtype in (torch.bfloat16 if workload.backward else torch.float16, torch.float32):
            figures = _measure(workload, dtype, compiled() and dtype.itemsize == 2)
            shown = ", ".join(f"{form} {1e3 * ms:.1f}" for form, ms in figures.milliseconds.items())
            progress(
                f"{figures.name} {figures.dtype}: {shown} us; error {figures.error:.1e} {figures.failures or ''}"
            )
            yield figures


def _measure(workload: Workload, dtype: torch.dtype, compiles: bool) -> OpFigures:
    device = torch.device("cuda")
    arguments = workload.make(dtype, device)
    cost, unfused = workload.cost(dtype), workload.unfused(dtype)
    exact = {name: _exact(x) for name, x in arguments.items()}
    expected = workload.call(workload.reference, exact)()
    figures = OpFigures(
        workload.name,
        str(dtype).removeprefix("torch."),
        cost.bytes,
        cost.operations,
        unfused.launches - cost.launches,
        error(workload.call(workload.run, arguments)(), expected),
        error(workload.call(workload.reference, arguments)(), expected),
    )
    del exact, expected
    forms = {
        "kernel": workload.call(workload.run, arguments),
        "reference": workload.call(workload.reference, arguments),
    }
    other = peer(workload.op, arguments)
    if other is not None:
        forms["peer"] = workload.call(*other)
    if compiles:
        torch._dynamo.reset()
        forms["compiled"] = workload.call(torch.compile(workload.reference, dynamic=False), arguments)
    for form, run in forms.items():
        try:
            figures.milliseconds[form] = median_ms(run)
            figures.milliseconds[f"{form} graph"] = graph_median_ms(run)
        except Exception as problem:  # a form that cannot run is a result; the others go on
            figures.failures[form] = f"{type(problem).__name__}: {problem}".splitlines()[0][:300]
    return figures


def _exact(x: Any) -> Any:
    """A float64 tensor of the same numbers."""
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        return x
    return x.detach().double().requires_grad_(x.requires_grad)
