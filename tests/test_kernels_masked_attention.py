"""Masked attention: the reference, the kernels and every gradient against the definition, a query at a time in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from refavs_rt.kernels import launch, masked_attention
from refavs_rt.kernels.dispatch import forced
from refavs_rt.kernels.launch import Cost, Launch
from refavs_rt.model.layers import ProjectedAttention

KINDS = ("plain", "some open", "all open", "nan", "strided", "large", "wide logits")
"""What is peculiar of a case's inputs, see `make_inputs`."""


def oracle(q: Tensor, k: Tensor, v: Tensor, logits: Tensor, heads: int) -> Tensor:
    """The definition, one frame, head and query at a time."""
    size = q.shape[-1] // heads
    frames = []
    for frame in range(q.shape[0]):
        rows = []
        for query in range(q.shape[1]):
            seen = [s for s in range(k.shape[1]) if float(logits[frame, query, s]) >= 0]
            seen = seen or list(range(k.shape[1]))
            parts = []
            for head in range(heads):
                of_head = slice(head * size, (head + 1) * size)
                scores = k[frame, seen, of_head] @ q[frame, query, of_head] / math.sqrt(size)
                parts.append(torch.softmax(scores, dim=0) @ v[frame, seen, of_head])
            rows.append(torch.cat(parts))
        frames.append(torch.stack(rows))
    return torch.stack(frames)


def make_inputs(
    kind: str, frames: int, queries: int, pixels: int, heads: int, size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and logits on the CPU."""
    torch.manual_seed(frames + queries + pixels + size)
    width = heads * size
    q, k, v = (torch.randn(frames, n, width) for n in (queries, pixels, pixels))
    logits = torch.randn(frames, queries, pixels)
    logits[..., ::5] = 0.0  # just seen
    if kind == "large":
        q, k = 50 * q, 50 * k
    if kind in ("some open", "large"):
        logits[:, ::3] = -1.0
    if kind == "all open":
        logits = -logits.abs() - 1.0
    if kind == "nan":
        logits[:, ::2] = math.nan
        logits[:, ::4, 1:2] = 2.0
    tensors = [q.to(dtype), k.to(dtype), v.to(dtype), logits if kind == "wide logits" else logits.to(dtype)]
    if kind == "strided":
        q, k, v, logits = tensors
        tensors = [
            torch.stack([q, q], dim=-1)[..., 0],
            k.transpose(1, 2).contiguous().transpose(1, 2),
            torch.cat([v, v], dim=1)[:, : v.shape[1]],
            logits.transpose(1, 2).contiguous().transpose(1, 2),
        ]
    q, k, v, logits = tensors
    return q, k, v, logits


def gradients(
    function: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor
) -> list[Tensor]:
    """The result and the gradients of q, k and v, for one gradient of the result."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    o = function(*leaves)
    torch.manual_seed(1)
    given = torch.randn(o.shape).to(o.dtype).to(o.device)
    return [o.detach(), *torch.autograd.grad(o, leaves, given)]


def named(name: str) -> Callable[[str], str]:
    """What puts the name of a tensor before what is said of it."""
    return lambda message: f"{name}: {message}"


def check(
    kind: str,
    frames: int,
    queries: int,
    pixels: int,
    heads: int,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """The kernels' result and gradients are the oracle's.

    What is lost: a rounding of p, ds and of the result to `dtype`, and one of the scores in float32, which the exponential
    turns from an absolute into a relative error.
    """
    q, k, v, logits = make_inputs(kind, frames, queries, pixels, heads, size, dtype)
    expected = gradients(
        lambda q, k, v: oracle(q, k, v, logits.double(), heads), q.double(), k.double(), v.double()
    )
    with forced("kernel"):
        found = gradients(
            lambda q, k, v: masked_attention.masked_attention(q, k, v, logits.to(device), heads),
            *(x.to(device) for x in (q, k, v)),
        )
    score = 1e4 if kind == "large" else 10.0
    tolerance = max(1e-5, 4 * torch.finfo(dtype).eps) + 8 * torch.finfo(torch.float32).eps * score
    for name, a, b in zip(("o", "dq", "dk", "dv"), found, expected, strict=True):
        assert a.dtype == dtype
        scale = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a.cpu().double(), b, atol=tolerance * scale, rtol=0.0, msg=named(name))


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not yet written is NaN, or True."""
    for name in ("empty", "empty_like"):
        make = getattr(torch, name)

        def poison(*args: object, make: Callable[..., Tensor] = make, **options: object) -> Tensor:
            tensor = make(*args, **options)
            return tensor.fill_(math.nan if tensor.is_floating_point() else 1)

        monkeypatch.setattr(torch, name, poison)


def cut(monkeypatch: pytest.MonkeyPatch, block_q: int = 16, block_k: int = 16, splits: int = 1) -> None:
    """Launches with these blocks, so that small shapes have several."""
    row = Launch(block_q, block_k, warps=4, stages=2, splits=splits)
    monkeypatch.setattr(launch, "launch_of", lambda *_: row)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wide logits"])
def test_the_reference_and_its_gradients_are_the_definition(kind: str) -> None:
    q, k, v, logits = make_inputs(kind, 2, 5, 9, 3, 4, torch.float64)
    expected = gradients(lambda q, k, v: oracle(q, k, v, logits, 3), q, k, v)
    found = gradients(lambda q, k, v: masked_attention.masked_attention(q, k, v, logits, 3), q, k, v)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10 * max(1.0, float(b.abs().max())), rtol=0.0)


def test_the_reference_is_the_models_masked_cross_attention() -> None:
    torch.manual_seed(2)
    cross = ProjectedAttention(24, 3).double()
    queries, k, v = (torch.randn(2, n, 24, dtype=torch.float64) for n in (6, 10, 10))
    logits = torch.randn(2, 6, 10, dtype=torch.float64)
    logits[0, 2] = -1.0
    hidden = logits.sigmoid() < 0.5
    hidden[hidden.all(dim=-1)] = False
    expected = cross.attend(queries, k, v, ~hidden)
    found = cross.out(masked_attention.masked_attention(cross.q(queries), k, v, logits, 3))
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0.0)


def test_gradcheck_of_the_reference() -> None:
    q, k, v, logits = make_inputs("some open", 1, 4, 5, 2, 2, torch.float64)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    assert torch.autograd.gradcheck(
        lambda q, k, v: masked_attention.masked_attention(q, k, v, logits, 2), leaves, eps=1e-6
    )


def test_logits_get_no_gradient() -> None:
    q, k, v, logits = make_inputs("plain", 1, 2, 3, 1, 4, torch.float64)
    logits.requires_grad_()
    masked_attention.masked_attention(q.requires_grad_(), k, v, logits, 1).sum().backward()
    assert logits.grad is None and q.grad is not None


def test_keys_are_taken_in_the_type_of_the_queries() -> None:
    """So it is under autocast, where a projection is half and what is added to it is not."""
    q, k, v, logits = make_inputs("plain", 1, 2, 3, 1, 32, torch.float32)
    k.requires_grad_()
    o = masked_attention.masked_attention(q.half(), k, v, logits, 1)
    o.sum().backward()
    assert o.dtype == torch.float16 and k.grad.dtype == torch.float32


CASES = [  # frames, queries, pixels, heads, size, kind, splits
    (1, 8, 64, 2, 32, "plain", 1),
    (2, 19, 37, 3, 32, "some open", 1),
    (1, 17, 50, 1, 64, "strided", 1),
    (1, 3, 20, 1, 128, "large", 1),
    (1, 1, 1, 1, 32, "plain", 1),
    (1, 24, 33, 2, 32, "all open", 1),
    (1, 9, 40, 1, 32, "nan", 3),
    (2, 5, 100, 2, 64, "some open", 3),
    (1, 18, 145, 1, 32, "large", 4),
    (1, 4, 35, 1, 128, "wide logits", 9),
]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("frames", "queries", "pixels", "heads", "size", "kind", "splits"), CASES)
def test_kernels(
    monkeypatch: pytest.MonkeyPatch,
    kernel_device: torch.device,
    frames: int,
    queries: int,
    pixels: int,
    heads: int,
    size: int,
    kind: str,
    splits: int,
    dtype: torch.dtype,
) -> None:
    if dtype == torch.bfloat16 and kernel_device.type == "cpu":
        pytest.skip("Triton's interpreter is wrong in bfloat16")
    if dtype == torch.float16 and kernel_device.type == "cpu" and splits == 9:
        pytest.skip("one form of it is enough in the interpreter")
    cut(monkeypatch, splits=splits)
    check(kind, frames, queries, pixels, heads, size, dtype, kernel_device)


@pytest.mark.kernels_all
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "sentences", "pixels"), list(itertools.product((32, 64, 128), (1, 3, 8), (1, 64, 144, 145)))
)
def test_kernels_in_every_combination(
    monkeypatch: pytest.MonkeyPatch,
    kernel_device: torch.device,
    size: int,
    sentences: int,
    pixels: int,
    kind: str,
    dtype: torch.dtype,
) -> None:
    """With the table's blocks; 7 queries a sentence; pixels in up to three parts."""
    if dtype == torch.bfloat16 and kernel_device.type == "cpu":
        pytest.skip("Triton's interpreter is wrong in bfloat16")
    if pixels > 64:
        cut(monkeypatch, 32, 32, splits=3)
    check(kind, 1, 7 * sentences, pixels, 1, size, dtype, kernel_device)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("splits", [1, 3])
def test_what_the_kernel_returns_beside_the_result(
    monkeypatch: pytest.MonkeyPatch, kernel_device: torch.device, splits: int
) -> None:
    cut(monkeypatch, splits=splits)
    q, k, v, logits = (x.to(kernel_device) for x in make_inputs("some open", 2, 18, 40, 2, 32, torch.float32))
    _, lse, is_open = masked_attention.masked_attention_reference(q, k, v, logits, 2)
    with forced("kernel"):
        _, found, found_open = torch.ops.refavs.masked_attention(q, k, v, logits, 2)
    torch.testing.assert_close(found, lse, atol=1e-5, rtol=1e-6)
    assert torch.equal(found_open, is_open) and 0 < int(is_open.sum()) < is_open.numel()


def test_kernels_give_the_same_bits_again(
    monkeypatch: pytest.MonkeyPatch, kernel_device: torch.device
) -> None:
    cut(monkeypatch, splits=3)
    q, k, v, logits = (x.to(kernel_device) for x in make_inputs("some open", 1, 18, 50, 1, 32, torch.float32))

    def run() -> list[Tensor]:
        with forced("kernel"):
            return gradients(lambda q, k, v: masked_attention.masked_attention(q, k, v, logits, 1), q, k, v)

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@pytest.mark.parametrize("form", ["reference", "kernel"])
def test_torchs_own_check_of_the_op(kernel_device: torch.device, form: Any) -> None:
    q, k, v, logits = (x.to(kernel_device) for x in make_inputs("some open", 1, 3, 5, 1, 32, torch.float32))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    with forced(form):
        torch.library.opcheck(torch.ops.refavs.masked_attention.default, (*leaves, logits, 1))


def test_shapes_that_do_not_fit() -> None:
    q, k, v, logits = make_inputs("plain", 1, 2, 3, 1, 4, torch.float32)
    with pytest.raises(ValueError, match=r"logits must be \[1, 2, 3\] for q \[1, 2, 4\], not \[1, 2, 2\]"):
        masked_attention.masked_attention(q, k, v, logits[..., :2], 1)
    with pytest.raises(ValueError, match="4 channels cannot be cut into 3 heads"):
        masked_attention.masked_attention(q, k, v, logits, 3)


def test_costs() -> None:
    """2 queries, 3 pixels, 8 channels, 2 heads: q and o 32 numbers, k and v 48, logits 6."""
    expected = Cost(2 * 2 * 2 * 3 * 8, 2 * (32 + 48 + 6) + 4 * 4 + 2, 1)
    assert masked_attention.cost(1, 2, 3, 8, 2) == expected
    full = (8, 100, 2_304, 256, 8)
    for backward in (False, True):
        fused = masked_attention.cost(*full, backward=backward)
        chain = masked_attention.unfused_cost(*full, backward=backward)
        assert fused.launches < chain.launches and 3 * fused.bytes < chain.bytes


def test_compilations_have_names_of_their_own_and_all_that_their_kernels_take() -> None:
    compilations = masked_attention.compilations(80)
    assert len({c.name for c in compilations}) == len(compilations) == 4 * 3
    for c in compilations:
        assert set(c.kernel.arg_names) <= set(c.signature) | set(c.constants), c.name
