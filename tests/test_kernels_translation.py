"""Programs of `torch.export` hold the ops; translated, standard operators that compute the same for any size of an axis."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram

from refavs_rt.kernels.deformable_attention import deformable_attention
from refavs_rt.kernels.masked_attention import masked_attention
from refavs_rt.kernels.memory_clip import cumulative_weight, memory_clip
from refavs_rt.kernels.memory_step import memory_step, ring_attention
from refavs_rt.kernels.partial_attention import band_mask
from refavs_rt.kernels.prompt_attention import prompt_attention
from refavs_rt.kernels.translation import decompositions, translated

# Of torch's own, where it runs decompositions.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")

HEADS, WIDTH = 2, 8


@dataclass
class Case:
    """A call of one op by a module."""

    op: str
    call: Callable[..., Any]
    """The public function, with all arguments that are no tensors."""
    inputs: Callable[[int], tuple[Tensor, ...]]
    """Tensors for a size of the axis that is dynamic."""


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _mask(*shape: int) -> Tensor:
    """With something True in each row."""
    mask = _normal(*shape) > 0.3
    mask[..., -1] = True
    return mask


def _ring_inputs(cameras: int) -> tuple[Tensor, ...]:
    q, k, v = _normal(3, cameras, 5, WIDTH)
    ring_k, ring_v = _normal(2, cameras, 3, 5, WIDTH)
    return q, k, v, ring_k, ring_v, _mask(cameras, 3)


def _step_inputs(sentences: int) -> tuple[Tensor, ...]:
    q, k, v, ring_k, ring_v, ring_seen = (x[0] for x in _ring_inputs(1))
    text = _normal(3, sentences, 4, WIDTH).unbind()
    words, mean = _mask(sentences, 4), _normal(sentences, 5, WIDTH)
    return q, k, v, ring_k, ring_v, ring_seen, *text, words, mean, _normal(sentences).sigmoid()


def _step_inputs_with_partial(sentences: int) -> tuple[Tensor, ...]:
    inputs = _step_inputs(sentences)
    o, lse = CASES["ring_attention"].call(*(x[None] for x in inputs[:6]))
    return *inputs, o[0], lse[0]


def _clip_inputs(sentences: int) -> tuple[Tensor, ...]:
    ticks = 3
    q, k, v = _normal(3, 1, ticks, 5, WIDTH)
    text = _normal(3, 1, sentences, 4, WIDTH).unbind()
    weight = cumulative_weight(torch.arange(sentences)[None] % ticks, ticks)
    return q, k, v, band_mask(ticks, 2), *text, _mask(1, sentences, 4), weight, torch.tensor(0.7)


def _prompt_inputs(items: int) -> tuple[Tensor, ...]:
    queries, q = _normal(2, 3, WIDTH)
    k, v, source = _normal(3, items, 6, WIDTH)
    weight, bias, gates = _normal(WIDTH, WIDTH), _normal(WIDTH), _normal(2)
    return queries, q, k, v, source, _mask(items, 6), weight, bias, gates[0], gates[1]


def _masked_inputs(queries: int) -> tuple[Tensor, ...]:
    """The first query's mask is empty."""
    k, v = _normal(2, 2, 7, WIDTH)
    logits = _normal(2, queries, 7)
    logits[:, 0] = -1.0
    return _normal(2, queries, WIDTH), k, v, logits


def _deformable_inputs(frames: int) -> tuple[Tensor, ...]:
    """Some locations are outside the picture."""
    value, logits = _normal(frames, 2 * 3 + 4 * 1, HEADS, 4), _normal(frames, 5, HEADS, 2, 3)
    return value, 1.5 * _normal(frames, 5, HEADS, 2, 3, 2).sigmoid() - 0.25, logits


def _step_with_partial(*inputs: Tensor) -> Any:
    *others, o, lse = inputs
    return _STEP(*others, partial_o=o, partial_lse=lse)


_STEP = partial(memory_step, beta=0.7, heads=HEADS)
CASES = {
    "ring_attention": Case("ring_attention", partial(ring_attention, heads=HEADS), _ring_inputs),
    "memory_step": Case("memory_step", _STEP, _step_inputs),
    "memory_step-partial": Case("memory_step", _step_with_partial, _step_inputs_with_partial),
    "memory_clip": Case("memory_clip", partial(memory_clip, heads=HEADS), _clip_inputs),
    "memory_clip-window": Case("memory_clip", partial(memory_clip, heads=HEADS, mean_window=2), _clip_inputs),
    "prompt_attention": Case("prompt_attention", partial(prompt_attention, heads=HEADS), _prompt_inputs),
    "masked_attention": Case("masked_attention", partial(masked_attention, heads=HEADS), _masked_inputs),
    "deformable_attention": Case(
        "deformable_attention",
        lambda value, locations, logits: deformable_attention(value, [2, 3, 4, 1], locations, logits),
        _deformable_inputs,
    ),
}


class _Calls(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case

    def forward(self, *inputs: Tensor) -> Any:
        return self.case.call(*inputs)


@cache
def _programs(name: str) -> tuple[ExportedProgram, ExportedProgram]:
    """Of a case, with the op and translated. Dynamic is each axis that is larger in larger inputs."""
    case = CASES[name]
    inputs, larger = case.inputs(2), case.inputs(3)
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis in range(x.dim()) if x.shape[axis] != y.shape[axis]}
        for x, y in zip(inputs, larger, strict=True)
    )
    assert any(dynamic)
    program = torch.export.export(_Calls(case), inputs, dynamic_shapes=(dynamic,))
    return program, translated(program)


def _ops(program: ExportedProgram) -> list[str]:
    """Names of our own ops in a program, one for each call."""
    targets = [node.target for node in program.graph.nodes if isinstance(node.target, OpOverload)]
    return [x._opname for x in targets if x.namespace == "refavs"]


def _results(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else list(found)


@pytest.mark.parametrize("name", CASES)
def test_a_program_holds_the_op_and_translated_standard_operators(name: str) -> None:
    case = CASES[name]
    program, standard = _programs(name)
    assert _ops(program) == [case.op]
    assert not _ops(standard)
    for size in (2, 5):
        inputs = case.inputs(size)
        expected = _results(case.call(*inputs))
        for form in (program, standard):
            found = _results(form.module()(*inputs))
            assert len(found) == len(expected)
            assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_translated_program_runs_in_onnx_runtime(name: str) -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx needs it")
    runtime = pytest.importorskip("onnxruntime")
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own deprecations
        exported = torch.onnx.export(_programs(name)[1], dynamo=True, verbose=False)
    assert exported is not None
    file = io.BytesIO()
    exported.save(file)
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for size in (1, 2, 5):
        inputs = case.inputs(size)
        names = [x.name for x in session.get_inputs()]
        found = session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})
        for x, y in zip(found, _results(case.call(*inputs)), strict=True):
            torch.testing.assert_close(torch.from_numpy(x), y, rtol=1e-5, atol=1e-5)


def test_only_our_ops_are_exchanged() -> None:
    """The default decompositions, which would cut a `linear` into a product and a sum, do not run."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, *inputs: Tensor) -> Tensor:
            return self.linear(CASES["masked_attention"].call(*inputs))

    program = translated(torch.export.export(Both(), _masked_inputs(2)))
    assert torch.ops.aten.linear.default in {node.target for node in program.graph.nodes}


def test_a_program_without_ops_stays_itself() -> None:
    program = torch.export.export(nn.Linear(WIDTH, WIDTH), (_normal(2, WIDTH),))
    assert translated(program) is program


def test_every_op_but_backward_passes_and_those_in_place_is_translated() -> None:
    names = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("refavs::")}
    left_out = {name for name in names if name.endswith("_backward")} | {"refavs::memory_step_"}
    assert {op.name() for op in decompositions()} == names - left_out


@pytest.mark.parametrize("op", decompositions(), ids=str)
def test_a_translation_takes_what_its_op_takes(op: Any) -> None:
    parameters = inspect.signature(decompositions()[op]).parameters.values()
    assert [(x.name, x.default is not x.empty) for x in parameters] == [
        (x.name, x.has_default_value()) for x in op._schema.arguments
    ]
