"""Deformable and masked attention in forms of standard operators: what each takes in ONNX Runtime, and whether TensorRT builds.

The form that is exported is the reference in `kernels/`; the others are here to show what they would cost.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from refavs_rt.contract import GraphSpec, TensorSpec
from refavs_rt.engines.tensorrt_library import find_library
from refavs_rt.export.to_tensorrt import BuildOptions, EngineBuildError, Target, build_engine
from refavs_rt.kernels.deformable_attention import deformable_attention_reference
from refavs_rt.kernels.masked_attention import masked_attention_reference

_ROUNDS = 12
_LEVELS = [12, 12, 24, 24, 48, 48]
"""Of `full` at 384 pixels."""
_HEADS, _POINTS, _HEAD_SIZE = 8, 4, 32
_QUERIES, _PIXELS, _WIDTH = 100, 48 * 48, 256


def deformable_grid_sample(value: Tensor, locations: Tensor, logits: Tensor) -> Tensor:
    """As exported."""
    return deformable_attention_reference(value, _LEVELS, locations, logits)


def deformable_gather(value: Tensor, locations: Tensor, logits: Tensor) -> Tensor:
    """Four gathers a sample and their weights, without GridSample."""
    batch, _, heads, d = value.shape
    queries = locations.shape[1]
    sampled, start = [], 0
    for level, (h, w) in enumerate(zip(_LEVELS[::2], _LEVELS[1::2], strict=True)):
        rows = value[:, start : start + h * w].permute(0, 2, 1, 3).reshape(batch * heads, h * w, d)
        start += h * w
        place = locations[:, :, :, level].permute(0, 2, 1, 3, 4).reshape(batch * heads, queries * _POINTS, 2)
        x, y = place[..., 0] * w - 0.5, place[..., 1] * h - 0.5
        left, top = x.floor(), y.floor()
        total = torch.zeros((), dtype=value.dtype)
        for dx in (0, 1):
            for dy in (0, 1):
                column, row = left + dx, top + dy
                weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
                inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
                index = (row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).long()
                cells = rows.gather(1, index[..., None].expand(-1, -1, d))
                total = total + cells * (weight * inside)[..., None]
        sampled.append(total.view(batch * heads, queries, _POINTS, d))
    weights = (
        functional.softmax(logits.flatten(-2), -1).permute(0, 2, 1, 3).reshape(batch * heads, queries, 1, -1)
    )
    o = weights @ torch.cat(sampled, dim=2)
    return o.view(batch, heads, queries, d).transpose(1, 2).reshape(batch, queries, heads * d)


def masked_where(q: Tensor, k: Tensor, v: Tensor, logits: Tensor) -> Tensor:
    """As exported."""
    return masked_attention_reference(q, k, v, logits, _HEADS)[0]


def masked_bias(q: Tensor, k: Tensor, v: Tensor, logits: Tensor) -> Tensor:
    """The mask as a large negative number that is added to the scores."""
    return _attention(
        q, k, v, _open(logits), lambda scores, seen: (scores + torch.where(seen, 0.0, -1e4)).softmax(-1)
    )


def masked_product(q: Tensor, k: Tensor, v: Tensor, logits: Tensor) -> Tensor:
    """The softmax of all scores, multiplied by the mask and divided by its sum."""

    def weigh(scores: Tensor, seen: Tensor) -> Tensor:
        weights = scores.softmax(-1) * seen
        return weights / weights.sum(-1, keepdim=True)

    return _attention(q, k, v, _open(logits), weigh)


def _open(logits: Tensor) -> Tensor:
    covered = logits >= 0
    return (covered | ~covered.any(-1, keepdim=True))[:, None]


def _attention(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, weigh: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    split = [x.unflatten(-1, (_HEADS, -1)).transpose(1, 2) for x in (q, k, v)]
    scores = split[0] @ split[1].transpose(-1, -2) * split[0].shape[-1] ** -0.5
    return (weigh(scores, seen) @ split[2]).transpose(1, 2).flatten(2)


def _deformable_inputs() -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    cells = sum(h * w for h, w in zip(_LEVELS[::2], _LEVELS[1::2], strict=True))
    levels = len(_LEVELS) // 2
    value = torch.randn(1, cells, _HEADS, _HEAD_SIZE)
    return (
        value,
        torch.rand(1, cells, _HEADS, levels, _POINTS, 2),
        torch.randn(1, cells, _HEADS, levels, _POINTS),
    )


def _masked_inputs() -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, n, _WIDTH) for n in (_QUERIES, _PIXELS, _PIXELS))
    return q, k, v, torch.randn(1, _QUERIES, _PIXELS) - 1


class _Module(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def _export(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> bytes:
    names = [f"x{i}" for i in range(len(inputs))]
    file = io.BytesIO()
    program = torch.onnx.export(
        _Module(function).eval(),
        inputs,
        dynamo=True,
        opset_version=18,
        input_names=names,
        output_names=["y"],
        verbose=False,
    )
    assert program is not None
    program.save(file)
    return file.getvalue()


def _builds(data: bytes, inputs: tuple[Tensor, ...]) -> bool:
    """Whether tensorrt_rtx builds an engine of it."""
    spec = GraphSpec(
        "form", tuple(TensorSpec(f"x{i}", "float32", tuple(x.shape)) for i, x in enumerate(inputs)), ()
    )
    try:
        build_engine(data, spec, Target(find_library("tensorrt_rtx"), (86,)), BuildOptions())
    except EngineBuildError:
        return False
    return True


@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.parametrize(
    ("forms", "make_inputs"),
    [
        ((deformable_grid_sample, deformable_gather), _deformable_inputs),
        ((masked_where, masked_bias, masked_product), _masked_inputs),
    ],
    ids=["deformable", "masked"],
)
def test_forms(
    benchmark: Any, forms: tuple[Callable[..., Tensor], ...], make_inputs: Callable[[], tuple[Tensor, ...]]
) -> None:
    """Interleaved medians; `extra_info` holds them. The benchmark's own rounds are those of the form that is exported."""
    inputs = make_inputs()
    feeds = {f"x{i}": x.numpy() for i, x in enumerate(inputs)}
    sessions, builds = {}, {}
    expected = forms[0](*(x.double() for x in inputs))
    for form in forms:
        data = _export(form, inputs)
        sessions[form.__name__] = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
        builds[form.__name__] = _builds(data, inputs)
        found = torch.from_numpy(sessions[form.__name__].run(None, feeds)[0])
        torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(_ROUNDS):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(None, feeds)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) * 1e3 for name, values in seconds.items()}
    benchmark.extra_info.update({"ms": medians, "tensorrt_rtx builds": builds})
    print("\n" + ", ".join(f"{name} {ms:.1f} ms (TensorRT {builds[name]})" for name, ms in medians.items()))
    benchmark.pedantic(lambda: sessions[forms[0].__name__].run(None, feeds), rounds=_ROUNDS)
