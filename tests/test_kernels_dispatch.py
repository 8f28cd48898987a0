"""Which form of an op runs, and that the network calls the ops in both of its modes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from refavs_rt.config import TEST
from refavs_rt.kernels import deformable_attention as deformable
from refavs_rt.kernels import dispatch, launch, masked_attention, memory_clip, memory_step, prompt_attention
from refavs_rt.kernels.dispatch import KernelError, forced, runs_kernel, spanned

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
    assert not runs_kernel("an_op", "prompt", 32, x)
    with forced("reference"):
        assert not runs_kernel("an_op", "prompt", 32, x)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs the interpreter")
def test_a_kernel_measured_to_be_slow_runs_only_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(2)
    monkeypatch.setattr(dispatch, "_refusal", lambda *_: "")
    assert runs_kernel("an_op", "prompt", 32, x)
    assert not runs_kernel("an_op", "prompt", 32, x, slow=True)
    with forced("kernel"):
        assert runs_kernel("an_op", "prompt", 32, x, slow=True)


@pytest.mark.parametrize(
    ("kernel", "sizes"),
    [("memory_step", {32, 128}), ("prompt", {32, 64}), ("masked_attention", {32}), ("deformable", {32})],
)
def test_a_kernel_runs_for_the_heads_of_the_presets_and_by_force_for_others(
    kernel: str, sizes: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.zeros(2)
    monkeypatch.setattr(dispatch, "_refusal", lambda *_: "")
    for size in dispatch.HEAD_SIZES:
        assert runs_kernel("an_op", kernel, size, x) == (size in sizes)
        with forced("kernel"):
            assert runs_kernel("an_op", kernel, size, x)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs the interpreter")
def test_force_holds_in_its_block_alone() -> None:
    x = torch.zeros(2)
    with forced("kernel"):
        assert runs_kernel("an_op", "prompt", 32, x)
        with forced("reference"):
            assert not runs_kernel("an_op", "prompt", 32, x)
        assert runs_kernel("an_op", "prompt", 32, x)
    assert not runs_kernel("an_op", "prompt", 32, x)
    with pytest.raises(ZeroDivisionError), forced("kernel"):
        raise ZeroDivisionError
    assert not runs_kernel("an_op", "prompt", 32, x)


@pytest.mark.parametrize(
    ("head_size", "dtype", "why"),
    [
        (48, torch.float32, "heads of 48 channels; there are kernels for 16, 32, 64, 128"),
        (32, torch.float64, "tensors of torch.float64"),
    ],
)
def test_a_forced_kernel_that_cannot_run_is_an_error(head_size: int, dtype: torch.dtype, why: str) -> None:
    x, mask = torch.zeros(2, dtype=dtype), torch.ones(2, dtype=torch.bool)
    assert not runs_kernel("an_op", "prompt", head_size, x, mask)
    with forced("kernel"), pytest.raises(KernelError, match=f"the kernel of an_op cannot run: {why}"):
        runs_kernel("an_op", "prompt", head_size, x, mask)


def test_without_the_interpreter_a_forced_kernel_refuses_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with forced("kernel"), pytest.raises(KernelError, match="tensors on a CPU"):
        runs_kernel("an_op", "prompt", 32, torch.zeros(2))


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 4), (2, 0, 3)])
def test_spanned_is_what_torch_keeps_for_a_view(shape: tuple[int, ...]) -> None:
    for x in (torch.zeros(shape), torch.zeros(shape).transpose(0, 2), torch.zeros(4, 6, 9)[:2, ::2, 1:]):
        last = torch.arange(1000).as_strided(x.shape, x.stride()).max() + 1 if x.numel() else 0
        assert spanned(x.shape, x.stride()) == last


def _empty(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    """Without memory, so of any size."""
    return torch.empty(shape, dtype=dtype, device="meta")


def _launch(name: str, size: int) -> None:
    """A launch whose tensor `name` has `size` numbers, and the others few."""
    width = 1024
    rows = size // width
    given: list[Any]
    if name == "ring":
        present, ring = _empty(1, 1, width), _empty(1, rows, 1, width)
        given = [present, present, present, ring, ring, _empty(1, rows, dtype=torch.bool), 8]
        memory_step._launch_ring(*given)
    elif name in ("mean", "text"):
        tokens, words = (rows, 1) if name == "mean" else (1, rows)
        present, ring, text = _empty(tokens, width), _empty(0, tokens, width), _empty(1, words, width)
        given = [present, present, present, ring, ring, _empty(0, dtype=torch.bool), text, text, text]
        given += [_empty(1, words, dtype=torch.bool), _empty(1, tokens, width), _empty(1), 1.0, 8, None, None]
        memory_step._launch_step(*given)
    elif name == "pixels":
        pixels = _empty(1, rows, width)
        masked_attention._forward(_empty(1, 2, width), pixels, pixels, _empty(1, 2, rows), 32)
    elif name == "cues":
        cues, mask = _empty(1, rows, width), _empty(1, rows, dtype=torch.bool)
        given = [
            _empty(2, width),
            _empty(2, width),
            cues,
            cues,
            cues,
            mask,
            _empty(width, width),
            _empty(width),
        ]
        given += [_empty(), _empty(), 16]
        prompt_attention._forward(*given)
    elif name == "clip":
        clip, text = _empty(1, rows, 1, width), _empty(1, 2, 3, width)
        given = [
            clip,
            clip,
            clip,
            _empty(0, dtype=torch.bool),
            text,
            text,
            text,
            _empty(1, 2, 3, dtype=torch.bool),
        ]
        given += [_empty(1, 2, rows), _empty(), 8, 0]
        memory_clip._forward_kernels(*given)
    else:
        samples = _empty(1, 2, 32, 1, 4)
        deformable._launch_forward(_empty(1, rows, 32, 32), [rows, 1], _empty(*samples.shape, 2), samples)


@pytest.mark.parametrize("name", ["ring", "mean", "text", "pixels", "cues", "clip", "value"])
def test_a_call_whose_offsets_need_more_than_32_bits_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(launch, "start", lambda kernel, *_, **__: started.append(kernel))
    _launch(name, 2**31 - 1024)
    assert started
    started.clear()
    with pytest.raises(
        KernelError, match=r"takes fewer than 2\^31 numbers of \w+, not 2,147,483,648: make the call"
    ):
        _launch(name, 2**31)
    assert not started


def test_every_launch_is_on_the_device_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launch goes past `launch.start`, which makes that device the current one."""
    for module in (deformable, masked_attention, memory_clip, memory_step, prompt_attention):
        source = Path(str(module.__file__)).read_text()
        assert not re.findall(r"_kernel\[", source) and "launches.start(" in source
    order: list[Any] = []

    @contextmanager
    def device_of(x: torch.Tensor) -> Iterator[None]:
        order.append(x)
        yield
        order.append("left")

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *arguments, **constants: order.append((grid, arguments, constants))

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    x = torch.zeros(1)
    launch.start(Kernel(), [2, 1], x, 5, BLOCK=16)
    assert order == [x, ((2, 1), (5,), {"BLOCK": 16}), "left"]


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
