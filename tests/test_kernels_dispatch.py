"""Which form of an op runs, and that the network calls the ops in both of its modes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from refavs_rt.config import TEST
from refavs_rt.kernels import dispatch
from refavs_rt.kernels.dispatch import KernelError, forced, runs_kernel

from .test_streaming import make_clip, make_model, run_clip, stream

pytest.importorskip("triton", reason="without Triton the reference always runs")


class _Ops(TorchDispatchMode):
    """Counts our own ops by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace == "refavs":
            self.found[func._opname] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_cpu_the_reference_runs_unless_the_kernel_is_forced(dtype: torch.dtype) -> None:
    """In the interpreter too, which would take minutes for a frame."""
    x = torch.zeros(2, dtype=dtype)
    assert not runs_kernel("an_op", 32, x)
    with forced("reference"):
        assert not runs_kernel("an_op", 32, x)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs the interpreter")
def test_a_kernel_measured_to_be_slow_runs_only_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(2)
    monkeypatch.setattr(dispatch, "_refusal", lambda *_: "")
    assert runs_kernel("an_op", 32, x)
    assert not runs_kernel("an_op", 32, x, slow=True)
    with forced("kernel"):
        assert runs_kernel("an_op", 32, x, slow=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs the interpreter")
def test_force_holds_in_its_block_alone() -> None:
    x = torch.zeros(2)
    with forced("kernel"):
        assert runs_kernel("an_op", 32, x)
        with forced("reference"):
            assert not runs_kernel("an_op", 32, x)
        assert runs_kernel("an_op", 32, x)
    assert not runs_kernel("an_op", 32, x)
    with pytest.raises(ZeroDivisionError), forced("kernel"):
        raise ZeroDivisionError
    assert not runs_kernel("an_op", 32, x)


@pytest.mark.parametrize(
    ("head_size", "dtype", "why"),
    [
        (48, torch.float32, "heads of 48 channels; there are kernels for 16, 32, 64, 128"),
        (32, torch.float64, "tensors of torch.float64"),
    ],
)
def test_a_forced_kernel_that_cannot_run_is_an_error(head_size: int, dtype: torch.dtype, why: str) -> None:
    x, mask = torch.zeros(2, dtype=dtype), torch.ones(2, dtype=torch.bool)
    assert not runs_kernel("an_op", head_size, x, mask)
    with forced("kernel"), pytest.raises(KernelError, match=f"the kernel of an_op cannot run: {why}"):
        runs_kernel("an_op", head_size, x, mask)


def test_without_the_interpreter_a_forced_kernel_refuses_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with forced("kernel"), pytest.raises(KernelError, match="tensors on a CPU"):
        runs_kernel("an_op", 32, torch.zeros(2))


def test_the_network_calls_the_ops_in_both_modes() -> None:
    model, clip = make_model(TEST, torch.float32), make_clip(TEST, torch.float32, 1, 2)
    with torch.no_grad():
        with _Ops() as in_clip:
            run_clip(model, clip, (0,))
        with _Ops() as in_stream:
            stream(model, clip, (0,), None)
    layers = in_clip.found["masked_attention"]
    assert layers
    assert in_clip.found == {"memory_clip": 2, "prompt_attention": 1, "masked_attention": layers}
    assert in_stream.found == {  # of two ticks; the picture's part of the ring is of the graph vision
        "ring_attention": 2, "memory_step": 2 * 2, "prompt_attention": 2, "masked_attention": 2 * layers
    }  # fmt: skip


def test_a_step_is_compiled_in_one_piece_with_the_ops_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = make_model(TEST, torch.float32), make_clip(TEST, torch.float32, 1, 1)
    held: list[Counter[str]] = []

    def counted(graph: torch.fx.GraphModule, _: Any) -> Any:
        targets = [node.target for node in graph.graph.nodes if isinstance(node.target, OpOverload)]
        held.append(Counter(x._opname for x in targets if x.namespace == "refavs"))
        return make_boxed_func(graph.forward)

    with torch.no_grad():
        expected = stream(model, clip, (0,), None)[0][0]
        compiled = torch.compile(model.step, backend=aot_autograd(fw_compiler=counted), fullgraph=True)
        monkeypatch.setattr(model, "step", compiled)
        found = stream(model, clip, (0,), None)[0][0]
    layers = held[0]["masked_attention"]
    assert layers
    assert held == [{"memory_step": 2, "prompt_attention": 1, "masked_attention": layers}]
    assert torch.equal(found.mask_logits, expected.mask_logits)
