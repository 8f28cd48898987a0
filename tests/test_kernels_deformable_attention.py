"""Deformable attention: reference, kernels and every gradient against grid_sample in float64, and that against a plain loop."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from refavs_rt.kernels import deformable_attention as module
from refavs_rt.kernels import launch
from refavs_rt.kernels.deformable_attention import (
    deformable_attention,
    deformable_attention_backward_reference,
    deformable_attention_reference,
)
from refavs_rt.kernels.dispatch import KernelError, forced
from refavs_rt.kernels.launch import Launch

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Of an element, relative to the largest of its tensor, or of the terms that make it up. Of a 16-bit type it is two steps:
outputs are rounded once, and in dlogits the saved o too."""
KINDS = ("plain", "strided", "large", "one place", "edges", "wide locations")
"""What is peculiar of a case's inputs, see `make_inputs`."""

Inputs = tuple[Tensor, list[int], Tensor, Tensor]


def oracle(value: Tensor, sizes: list[int], locations: Tensor, logits: Tensor) -> Tensor:
    """grid_sample, one frame, head, level and point at a time."""
    frames = []
    for b in range(value.shape[0]):
        heads = []
        for head in range(value.shape[2]):
            weights = torch.softmax(logits[b, :, head].flatten(1), 1).unflatten(1, logits.shape[-2:])
            seen: Any = 0.0
            start = 0
            for level, (h, w) in enumerate(zip(sizes[::2], sizes[1::2], strict=True)):
                grid = value[b, start : start + h * w, head].T.reshape(1, -1, h, w)
                for point in range(logits.shape[-1]):
                    at = locations[b, :, head, level, point][None, None] * 2 - 1
                    sampled = functional.grid_sample(grid, at, align_corners=False)[0, :, 0]
                    seen = seen + sampled.T * weights[:, level, point, None]
                start += h * w
            heads.append(seen)
        frames.append(torch.cat(heads, 1))
    return torch.stack(frames)


def loop(value: Tensor, sizes: list[int], locations: Tensor, logits: Tensor) -> Tensor:
    """The definition, one number at a time; locations must be finite."""
    batch, queries, heads, levels, points = logits.shape
    d = value.shape[-1]
    o = torch.zeros(batch, queries, heads * d, dtype=torch.float64)
    for b, q, head in itertools.product(range(batch), range(queries), range(heads)):
        exps = [[math.exp(logits[b, q, head, i, j]) for j in range(points)] for i in range(levels)]
        total = sum(map(sum, exps))
        start = 0
        for level in range(levels):
            h, w = sizes[2 * level : 2 * level + 2]
            for point in range(points):
                x = float(locations[b, q, head, level, point, 0]) * w - 0.5
                y = float(locations[b, q, head, level, point, 1]) * h - 0.5
                for row, column in itertools.product(range(h), range(w)):
                    share = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
                    for c in range(d):
                        v = float(value[b, start + row * w + column, head, c])
                        o[b, q, head * d + c] += exps[level][point] / total * share * v
            start += h * w
    return o


def make_inputs(
    kind: str,
    batch: int,
    queries: int,
    heads: int,
    d: int,
    sizes: list[int],
    points: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> Inputs:
    """Locations reach a little beyond the picture on all sides."""
    generator = torch.Generator().manual_seed(batch + queries + heads + d + points)
    levels = len(sizes) // 2
    cells = sum(h * w for h, w in zip(sizes[::2], sizes[1::2], strict=True))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    value = normal(batch, cells, heads, d)
    locations = torch.rand(batch, queries, heads, levels, points, 2, generator=generator, dtype=torch.float64)
    locations = locations * 1.5 - 0.25
    logits = normal(batch, queries, heads, levels, points)
    if kind == "large":  # exp(1e4) overflows; the softmax is nearly one-hot
        logits = logits * 1e4
        value = value * 100
    if kind == "one place":  # every query adds to the same cells
        locations = torch.full_like(locations, 0.4)
    if kind == "edges":
        locations = _edges(locations, sizes)
    places = torch.float32 if kind == "wide locations" else dtype
    value, locations, logits = value.to(dtype), locations.to(places), logits.to(dtype)
    if kind == "strided":
        value = value.transpose(1, 2).contiguous().transpose(1, 2)
        locations = torch.stack([locations, locations], -1)[..., 0]
        logits = logits.movedim(1, -1).contiguous().movedim(-1, 1)
    return value.to(device), sizes, locations.to(device), logits.to(device)


def _edges(locations: Tensor, sizes: list[int]) -> Tensor:
    """Every pair of places exactly on the outer cells, half a cell and one cell beyond, far outside. Sizes: powers of two."""
    locations = locations.clone()
    for level in range(len(sizes) // 2):
        for axis in range(2):
            size = sizes[2 * level + 1 - axis]
            places = [-1.0, -0.5, 0.0, size - 1.0, size - 0.5, float(size), -9.0, size + 9.0, 1e4, 0.25]
            flat = locations[:, :, :, level, :, axis]
            index = torch.arange(flat.numel()).reshape(flat.shape) // len(places) ** axis
            flat.copy_((torch.tensor(places, dtype=torch.float64)[index % len(places)] + 0.5) / size)
    return locations


def gradients(o: Tensor, do: Tensor, inputs: Inputs) -> tuple[Tensor, ...]:
    return torch.autograd.grad(o, (inputs[0], inputs[2], inputs[3]), do)


def following(inputs: Inputs) -> Inputs:
    """The same with gradients."""
    value, sizes, locations, logits = inputs
    value, locations, logits = (x.detach().requires_grad_() for x in (value, locations, logits))
    return value, sizes, locations, logits


def in_double(inputs: Inputs) -> Inputs:
    value, sizes, locations, logits = inputs
    return value.double().cpu(), sizes, locations.double().cpu(), logits.double().cpu()


def assert_near(found: Tensor, expected: Tensor, tolerance: float, terms: float = 1e-30) -> None:
    found, expected = found.detach().double().cpu(), expected.detach()
    assert found.shape == expected.shape
    scale = max(terms, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance * scale)


def assert_gradients(found: tuple[Tensor, ...], exact: Inputs, do: Tensor, tolerance: float) -> None:
    """Against the oracle's; dlogits are differences of two products that may cancel."""
    o, do = oracle(*exact), do.double().cpu()
    delta = float((o.detach() * do).unflatten(-1, (exact[0].shape[2], -1)).sum(-1).abs().max())
    for gradient, correct, terms in zip(found, gradients(o, do, exact), (1e-30, 1e-30, delta), strict=True):
        assert_near(gradient, correct, tolerance, terms)


def check(inputs: Inputs, form: str) -> None:
    """The op in one form against the oracle, forward and every gradient, at the same rounded inputs."""
    dtype = inputs[0].dtype
    exact = following(in_double(inputs))
    expected = oracle(*exact)
    generator = torch.Generator().manual_seed(0)
    do = torch.randn(expected.shape, generator=generator, dtype=torch.float64).to(dtype)
    given = following(inputs)
    with forced(form):
        o = deformable_attention(*given)
        found = gradients(o, do.to(o.device), given)
    assert o.dtype == dtype
    assert o.is_contiguous()
    assert_near(o, expected, TOLERANCE[dtype])
    for gradient, of in zip(found, (given[0], *given[2:]), strict=True):
        assert gradient.dtype == of.dtype
    assert_gradients(found, exact, do, TOLERANCE[dtype])


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allocated without a value holds NaN."""
    empty = torch.empty

    def poison(*args: Any, **kwargs: Any) -> Tensor:
        made = empty(*args, **kwargs)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poison)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch, kernel_device: torch.device) -> Callable[[int], None]:
    """Sets the queries of a program; small ones make a small case many programs."""

    def to(block_q: int) -> None:
        monkeypatch.setattr(launch, "launch_of", lambda *_: Launch(block_q, 1, 4, 1))

    return to


def needs_type(dtype: torch.dtype, device: torch.device) -> None:
    if dtype == torch.bfloat16 and device.type == "cpu":
        pytest.skip("Triton's interpreter computes bfloat16 wrongly")


TINY = ("plain", 2, 3, 2, 4, [2, 3, 3, 1], 2)
CASES = [
    # kind, B, Q, heads, d, sizes, points, type, block
    ("plain", 1, 11, 2, 32, [3, 5, 6, 4], 2, torch.float32, 8),
    ("plain", 2, 7, 1, 32, [4, 4], 3, torch.float16, 8),
    ("strided", 2, 1, 3, 64, [1, 1, 2, 7], 1, torch.float32, 4),
    ("strided", 1, 9, 2, 64, [5, 3, 2, 2, 3, 1], 1, torch.float16, 16),
    ("large", 1, 5, 1, 128, [2, 3], 4, torch.float32, 8),
    ("large", 1, 3, 2, 16, [3, 3, 2, 2], 1, torch.float16, 2),
    ("wide locations", 1, 6, 2, 128, [3, 3, 2, 4], 1, torch.float16, 8),
    ("one place", 2, 17, 1, 16, [3, 2], 5, torch.float32, 16),
    ("edges", 1, 50, 1, 16, [4, 8, 2, 2], 2, torch.float32, 64),
    ("plain", 1, 6, 2, 32, [3, 5, 6, 4], 2, torch.bfloat16, 8),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel(
    case: tuple[Any, ...], kernel_device: torch.device, cut: Callable[[int], None], poisoned: None
) -> None:
    *shape, dtype, block_q = case
    needs_type(dtype, kernel_device)
    cut(block_q)
    arguments: list[Any] = [*shape, dtype, kernel_device]
    check(make_inputs(*arguments), "kernel")


@pytest.mark.kernels_all
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [16, 32, 64, 128])
@pytest.mark.parametrize("sizes", [[1, 1], [2, 8], [2, 4, 4, 8, 1, 16]], ids=str)
@pytest.mark.parametrize("points", [1, 4])
@pytest.mark.parametrize(("batch", "queries", "heads"), [(1, 1, 3), (3, 10, 1), (2, 33, 2)])
def test_kernel_in_every_combination(
    batch: int,
    queries: int,
    heads: int,
    points: int,
    sizes: list[int],
    d: int,
    kind: str,
    dtype: torch.dtype,
    kernel_device: torch.device,
    cut: Callable[[int], None],
    poisoned: None,
) -> None:
    needs_type(dtype, kernel_device)
    cut(16)
    check(make_inputs(kind, batch, queries, heads, d, sizes, points, dtype, kernel_device), "kernel")


def test_kernel_with_the_launch_of_the_table(kernel_device: torch.device, poisoned: None) -> None:
    check(make_inputs("plain", 1, 18, 1, 32, [3, 2], 1, torch.float32, kernel_device), "kernel")


@pytest.mark.parametrize("kind", KINDS)
def test_reference(kind: str) -> None:
    dtype = torch.float32 if kind == "wide locations" else torch.float64
    check(make_inputs(kind, 2, 9, 2, 6, [4, 2, 1, 8], 3, dtype), "reference")


def test_oracle_is_the_plain_loop() -> None:
    for kind in ("plain", "edges"):
        inputs = make_inputs(kind, 1, 12, 2, 3, [4, 2, 1, 8], 2, torch.float64)
        torch.testing.assert_close(oracle(*inputs), loop(*inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 2])
def test_reference_is_transformers_to_the_bit(batch: int) -> None:
    theirs = pytest.importorskip("transformers.models.mask2former.modeling_mask2former")
    inputs = following(make_inputs("plain", batch, 38, 2, 8, [2, 3, 4, 3, 4, 5], 4, torch.float32))
    value, sizes, locations, logits = inputs
    shapes = list(zip(sizes[::2], sizes[1::2], strict=True))
    weights = functional.softmax(logits.flatten(-2), -1).view(logits.shape)
    expected = theirs.multi_scale_deformable_attention(value, shapes, locations, weights)
    o = deformable_attention(*inputs)
    assert torch.equal(o, expected)
    do = torch.randn_like(o)
    for found, correct in zip(gradients(o, do, inputs), gradients(expected, do, inputs), strict=True):
        assert_near(found, correct.double(), 1e-6)


def test_gradients_of_the_reference() -> None:
    value, sizes, locations, logits = following(make_inputs(*TINY, torch.float64))
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(
        lambda *x: deformable_attention(x[0], sizes, *x[1:]), (value, locations, logits)
    )


@pytest.mark.parametrize("form", ["reference", "kernel"])
def test_ops_keep_torchs_rules(form: str, kernel_device: torch.device, cut: Callable[[int], None]) -> None:
    cut(2)
    shape = ("plain", 1, 2, 1, 16, [2, 3], 1, torch.float32)
    device = "cpu" if form == "reference" else kernel_device
    inputs = following(make_inputs(*shape, device=device))
    with forced(form):
        torch.library.opcheck(torch.ops.refavs.deformable_attention.default, inputs)
        given = make_inputs(*shape, device=device)
        o = deformable_attention(*given)
        torch.library.opcheck(
            torch.ops.refavs.deformable_attention_backward.default, (torch.ones_like(o), *given, o)
        )


def test_what_is_not_finite_is_far_outside(kernel_device: torch.device, cut: Callable[[int], None]) -> None:
    """As grid_sample has it on CUDA; on a CPU it makes NaN of it."""
    cut(8)
    value, sizes, locations, logits = make_inputs("plain", 1, 5, 1, 16, [3, 4], 2, torch.float32)
    outside = locations.clone()
    for query, (x, y) in enumerate([(math.nan, 0.5), (0.5, math.nan), (math.inf, 0.5), (0.5, -math.inf)]):
        locations[0, query, 0, 0, 0] = torch.tensor([x, y])
        outside[0, query, 0, 0, 0] = 7.0
    locations[0, 4, 0, 0, 0] = torch.tensor([1e30, -1e30])
    outside[0, 4, 0, 0, 0] = 7.0
    given = following((value.to(kernel_device), sizes, locations.to(kernel_device), logits.to(kernel_device)))
    exact = following(in_double((value, sizes, outside, logits)))
    expected = oracle(*exact)
    with forced("kernel"):
        o = deformable_attention(*given)
        found = gradients(o, torch.ones_like(o), given)
    assert_near(o, expected, 1e-5)
    assert_gradients(found, exact, torch.ones_like(o), 1e-5)
    assert not found[1][0, :, 0, 0, 0].any()


def test_no_queries(kernel_device: torch.device) -> None:
    inputs = following(make_inputs("plain", 1, 0, 1, 16, [2, 2], 1, torch.float32, kernel_device))
    with forced("kernel"):
        o = deformable_attention(*inputs)
        dvalue, dlocations, dlogits = gradients(o, o.detach(), inputs)
    assert o.shape == (1, 0, 16)
    assert not dvalue.any()
    assert dlocations.numel() == dlogits.numel() == 0


@pytest.fixture
def deterministic() -> Any:
    before = torch.are_deterministic_algorithms_enabled()
    yield lambda on: torch.use_deterministic_algorithms(on)
    torch.use_deterministic_algorithms(before)


def backward(inputs: Inputs, do: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with forced("kernel"):
        o = deformable_attention(*inputs)
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.refavs.deformable_attention_backward(do, *inputs, o)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_deterministic_algorithms_do_not_depend_on_the_order(
    dtype: torch.dtype, deterministic: Any, kernel_device: torch.device, cut: Callable[[int], None]
) -> None:
    """Another order of the queries is another order of the sums, which shows in float32's last bits alone."""
    cut(4)
    value, sizes, locations, logits = make_inputs("one place", 1, 24, 1, 16, [2, 2], 1, dtype, kernel_device)
    do = torch.randn(1, 24, 16, generator=torch.Generator().manual_seed(1)).to(dtype).to(kernel_device)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(2)).to(kernel_device)
    there = value, sizes, locations, logits
    mixed = value, sizes, locations[:, order], logits[:, order]
    if dtype == torch.float32 and kernel_device.type == "cpu":
        assert not torch.equal(backward(there, do)[0], backward(mixed, do[:, order])[0])
    deterministic(True)
    dvalue, dlocations, dlogits = backward(there, do)
    again = backward(mixed, do[:, order])
    assert torch.equal(dvalue, again[0])
    assert torch.equal(dlocations[:, order], again[1])
    assert torch.equal(dlogits[:, order], again[2])
    assert_gradients((dvalue, dlocations, dlogits), following(in_double(there)), do, TOLERANCE[dtype])


@pytest.mark.parametrize("size", [1e-25, 1e30])
def test_deterministic_algorithms_take_gradients_of_any_size(
    size: float, deterministic: Any, kernel_device: torch.device, cut: Callable[[int], None]
) -> None:
    cut(8)
    inputs = make_inputs("plain", 1, 7, 1, 16, [2, 3], 1, torch.float32, kernel_device)
    do = torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(1)).to(kernel_device) * size
    deterministic(True)
    assert_gradients(backward(inputs, do), following(in_double(inputs)), do, 1e-5)


def test_scale_of_the_integers() -> None:
    """No sum passes 2^62, and no more than one bit is left unused."""
    for largest in (1e-12, 0.3, 1.0, 7.0, 1e38):
        scale = float(module._scale(torch.tensor([[0.0, -largest]]), 3024))
        assert 2.0**61 <= scale * largest * 3024 < 2.0**62 * (1 + 1e-6)
        assert math.frexp(scale)[0] == 0.5
    assert math.isfinite(float(module._scale(torch.zeros(1, 2), 3024)))
    for strange in (math.nan, math.inf):
        assert math.isnan(float(module._scale(torch.tensor([1.0, strange]), 3024)))


@pytest.mark.parametrize(
    ("sizes", "locations", "logits", "says"),
    [
        ([2, 3, 3], (1, 2, 1, 1, 1, 2), (1, 2, 1, 1, 1), "h0, w0"),
        ([6, 0], (1, 2, 1, 1, 1, 2), (1, 2, 1, 1, 1), "at least 1"),
        ([], (1, 2, 1, 0, 1, 2), (1, 2, 1, 0, 1), "at least 1"),
        ([2, 2], (1, 2, 1, 1, 1, 2), (1, 2, 1, 1, 1), "as many rows"),
        ([2, 3], (1, 2, 1, 2, 1, 2), (1, 2, 1, 2, 1), "with 1 levels"),
        ([2, 3], (2, 2, 1, 1, 1, 2), (2, 2, 1, 1, 1), "do not belong"),
        ([2, 3], (1, 2, 1, 1, 1, 2), (1, 2, 1, 1, 2), "do not belong"),
        ([2, 3], (1, 2, 1, 1, 1, 2), (1, 3, 1, 1, 1), "do not belong"),
    ],
)
def test_shapes_that_do_not_belong_together(
    sizes: list[int], locations: tuple[int, ...], logits: tuple[int, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        deformable_attention(torch.zeros(1, 6, 1, 16), sizes, torch.zeros(locations), torch.zeros(logits))


def test_a_frame_beyond_32_bits_is_refused() -> None:
    large, small = torch.empty(1, 2**20, 64, 32, device="meta"), torch.empty(1, 4, 64, 32, device="meta")
    few, many = (torch.empty(1, queries, 64, 2, 4, 2, device="meta") for queries in (5, 2**21))
    for value, locations in ((large, few), (small, many)):
        with pytest.raises(KernelError, match=r"2\^31"):
            module._grid(Launch(32, 1, 4, 1), value, locations)


def test_backward_reference_is_what_autograd_derives() -> None:
    inputs = following(make_inputs(*TINY, torch.float64))
    o = deformable_attention_reference(*inputs)
    do = torch.randn_like(o)
    value, sizes, locations, logits = inputs
    found = deformable_attention_backward_reference(
        do, value.detach(), sizes, locations.detach(), logits.detach(), o
    )
    for gradient, correct in zip(found, gradients(o, do, inputs), strict=True):
        assert_near(gradient, correct, 1e-12)


class _Operators(TorchDispatchMode):
    """Counts operators that write."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        views = func.is_view or func is torch.ops.aten._unsafe_view.default
        self.count += not views and isinstance(made, (Tensor, tuple))
        return made


@pytest.mark.parametrize("batch", [1, 2])
def test_launches_of_the_unfused_chain(batch: int) -> None:
    sizes = [2, 3, 3, 4, 4, 5]
    inputs = following(make_inputs("plain", batch, 5, 2, 16, sizes, 4, torch.float32))
    shape = (batch, 5, 2, 16, sizes, 4, torch.float32)
    with _Operators() as forward:
        o = deformable_attention_reference(*inputs)
    assert forward.count == module.unfused_cost(*shape).launches
    do = torch.ones_like(o)
    with _Operators() as operators:
        gradients(o, do, inputs)
    fills = 2 * len(sizes) // 2
    assert operators.count + fills == module.unfused_cost(*shape, backward=True).launches


def test_cost_at_the_shape_of_full() -> None:
    """The numbers of the docstring."""
    shape = (1, 3024, 8, 32, [12, 12, 24, 24, 48, 48], 4, torch.float16)
    found = [f(*shape, backward=b).bytes for b in (False, True) for f in (module.cost, module.unfused_cost)]
    assert [round(n / 1e6, 1) for n in found] == [4.8, 125.2, 12.8, 124.1]


def test_compilations_name_every_parameter() -> None:
    compilations = module.compilations(80)
    assert len({c.name for c in compilations}) == len(compilations)
    for compilation in compilations:
        names = set(getattr(compilation.kernel, "arg_names", compilation.signature))
        assert set(compilation.signature) == names
        assert set(compilation.constants) == {
            name for name, kind in compilation.signature.items() if kind == "constexpr"
        }
