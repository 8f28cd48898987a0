"""The clip form of the cached-memory attention: reference, kernels and every gradient against the definition, in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from refavs_rt.kernels import launch, memory_clip
from refavs_rt.kernels.dispatch import forced
from refavs_rt.kernels.launch import Launch
from refavs_rt.kernels.partial_attention import band_mask

NAMES = (
    "inner", "text_o", "dq", "dk", "dv", "dtext_q", "dtext_k", "dtext_v", "dweight", "dbeta",
)  # fmt: skip
LARGE = 30.0
"""Of what queries and keys of the kind "large" are multiplied by."""
KERNELS = ("visual", "text", "dq", "dkv", "dtext")


@dataclass(frozen=True)
class Case:
    """Shape and peculiarities of one call."""

    clips: int = 1
    sentences: int = 2
    ticks: int = 3
    seen: int | str = 2
    """Ticks of a band, or "all", or "odd": any pattern."""
    tokens: int = 3
    length: int = 4
    heads: int = 2
    head_size: int = 16
    mean: str = "cumulative"
    """Or "exponential", "window", "none", "any": weights in no order."""
    kind: str = "plain"
    """Or "strided", "large": scores of thousands."""


def inputs(case: Case) -> tuple[list[Tensor], Tensor, Tensor]:
    """q, k, v, text_q, text_k, text_v, weight and beta in float64, then seen and text_mask."""
    torch.manual_seed(case.sentences + case.ticks + case.tokens + case.length + case.head_size)
    width = case.heads * case.head_size
    q, k, v = torch.randn(3, case.clips, case.ticks, case.tokens, width, dtype=torch.float64)
    text_q, text_k, text_v = torch.randn(
        3, case.clips, case.sentences, case.length, width, dtype=torch.float64
    )
    if case.kind == "large":
        q, k, text_q, text_k = (LARGE * x for x in (q, k, text_q, text_k))
    text_mask = torch.rand(case.clips, case.sentences, case.length) < 0.6
    text_mask[..., torch.randint(case.length, ())] = True
    if case.seen == "all":
        seen = torch.ones(case.ticks, case.ticks, dtype=torch.bool)
    elif case.seen == "odd":
        seen = (torch.rand(case.ticks, case.ticks) < 0.5) | torch.eye(case.ticks, dtype=torch.bool)
    else:
        seen = band_mask(case.ticks, int(case.seen))
    added_at = torch.arange(case.clips * case.sentences).view(case.clips, -1) % case.ticks
    if case.mean == "exponential":
        weight = memory_clip.exponential_weight(added_at, case.ticks, 0.3, torch.float64)
    elif case.mean == "none":
        weight = torch.zeros(case.clips, case.sentences, case.ticks, dtype=torch.float64)
    elif case.mean == "any":
        weight = torch.rand(case.clips, case.sentences, case.ticks, dtype=torch.float64)
    else:
        weight = memory_clip.cumulative_weight(added_at, case.ticks, torch.float64)
    return [q, k, v, text_q, text_k, text_v, weight, torch.tensor(0.7, dtype=torch.float64)], seen, text_mask


def window_of(case: Case) -> int:
    return 2 if case.mean == "window" else 0


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """[Q, C] over [K, C], head by head."""
    size = q.shape[-1] // heads
    parts = [slice(head * size, (head + 1) * size) for head in range(heads)]
    return torch.cat(
        [torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), dim=-1) @ v[:, part] for part in parts],
        dim=-1,
    )


def attended(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    text_q: Tensor,
    text_k: Tensor,
    text_v: Tensor,
    text_mask: Tensor,
    heads: int,
) -> tuple[Tensor, Tensor]:
    """o [N, Tq, P, C] and text_o [N, Tq, L, C] of one clip, by the definition."""
    o, text_o = [], []
    for n in range(len(text_q)):
        for t in range(len(q)):
            keys = torch.cat([*k[seen[t]], text_k[n][text_mask[n]]])
            values = torch.cat([*v[seen[t]], text_v[n][text_mask[n]]])
            o.append(attend(q[t], keys, values, heads))
            text_o.append(attend(text_q[n], keys, values, heads))
    return tuple(torch.stack(x).unflatten(0, (len(text_q), len(q))) for x in (o, text_o))


def oracle(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    text_q: Tensor,
    text_k: Tensor,
    text_v: Tensor,
    text_mask: Tensor,
    weight: Tensor,
    beta: Tensor,
    heads: int,
    mean_window: int,
) -> tuple[Tensor, Tensor]:
    """The definition: a clip, a sentence, a tick and a head at a time."""
    inner, text_o = [], []
    for b in range(len(q)):
        o, text = attended(q[b], k[b], v[b], seen, text_q[b], text_k[b], text_v[b], text_mask[b], heads)
        text_o.append(text)
        for n in range(len(o)):
            mean = torch.zeros_like(o[n, 0])
            for t in range(len(q[b])):
                if mean_window:
                    last = range(max(0, t - mean_window + 1), t + 1)
                    heard = [o[n, i] for i in last if weight[b, n, i] > 0]
                    mean = torch.stack(heard).mean(0) if heard else torch.zeros_like(mean)
                else:
                    mean = mean + weight[b, n, t] * (o[n, t] - mean)
                inner.append((1 + beta) * o[n, t] - mean)
    return torch.stack(inner).unflatten(0, (len(q), -1, q.shape[1])), torch.stack(text_o)


def gradients(
    function: Callable[..., tuple[Tensor, Tensor]],
    leaves: list[Tensor],
    seen: Tensor,
    text_mask: Tensor,
    case: Case,
) -> list[Tensor]:
    """What NAMES names, for one gradient of the results."""
    leaves = [x.detach().requires_grad_() for x in leaves]
    q, k, v, text_q, text_k, text_v, weight, beta = leaves
    if case.kind == "strided":
        packed = torch.cat([q, k, v], dim=-1).chunk(3, dim=-1)  # thirds of a projection
        q, k, v = packed[0], packed[1], packed[2].transpose(2, 3).contiguous().transpose(2, 3)
        text_q, text_k, text_v = torch.stack([text_q, text_k, text_v], dim=2).unbind(2)
        text_k = torch.stack([text_k, text_k], dim=-1)[..., 0]
        seen = seen.T.contiguous().T
        text_mask = text_mask.transpose(0, 2).contiguous().transpose(0, 2)
        weight = weight.transpose(0, 2).contiguous().transpose(0, 2)
    results = function(
        q, k, v, seen, text_q, text_k, text_v, text_mask, weight, beta, case.heads, window_of(case)
    )
    torch.manual_seed(1)
    given = [torch.randn(x.shape, dtype=torch.float64).half().to(x) for x in results]
    if case.kind == "strided":
        given[0] = given[0].transpose(2, 3).contiguous().transpose(2, 3)
        given[1] = given[1].transpose(2, 3).contiguous().transpose(2, 3)
    found = torch.autograd.grad(results, leaves, given, materialize_grads=True)
    return [*(x.detach() for x in results), *found]


@contextmanager
def launched(block_q: int, block_k: int) -> Iterator[None]:
    """All kernels with these blocks, so that small shapes have several and large ones few: fewer in the interpreter, which is
    slow, than on a card, which has not the shared memory."""
    if torch.cuda.is_available():
        block_q, block_k = min(block_q, 32), min(block_k, 32)
    with ExitStack() as stack:
        for name in KERNELS:
            stack.enter_context(
                launch.launched_as(f"memory_clip_{name}", Launch(block_q, block_k, warps=4, stages=2))
            )
        yield


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not yet written is NaN, or True."""
    for name in ("empty", "empty_like"):
        make = getattr(torch, name)

        def poison(*args: Any, make: Callable[..., Tensor] = make, **options: Any) -> Tensor:
            tensor = make(*args, **options)
            return tensor.fill_(math.nan if tensor.is_floating_point() else 1)

        monkeypatch.setattr(torch, name, poison)


def named(name: str) -> Callable[[str], str]:
    """What puts the name of a tensor before what is said of it."""
    return lambda message: f"{name}: {message}"


def check_kernels(case: Case, dtype: torch.dtype, device: torch.device) -> None:
    """The kernels' results and gradients are the oracle's.

    What is lost, relative to the largest element: the rounding of results, p, ds, o and do to `dtype`, several of each in a
    row; and one of the scores in float32, which the exponential turns from an absolute into a relative error. dweight and
    dbeta are sums over P * C products, whose roundings add up like a random walk. In 16 bits the folded do is rounded before it
    meets v, and delta is not: an error of ds that does not fall with p, which then meets queries and keys of their size.
    """
    if dtype == torch.bfloat16 and device.type == "cpu":
        pytest.skip("Triton's interpreter computes bfloat16 wrongly")
    leaves, seen, text_mask = inputs(case)
    *attention, weight, beta = leaves
    leaves = [x.to(dtype) for x in attention] + [weight.float(), beta.float()]
    expected = gradients(oracle, [x.double() for x in leaves], seen, text_mask, case)
    with forced("kernel"):
        found = gradients(
            memory_clip.memory_clip,
            [x.to(device) for x in leaves],
            seen.to(device),
            text_mask.to(device),
            case,
        )
    score = 3e3 if case.kind == "large" else 10.0
    tolerance = max(1e-5, 6 * torch.finfo(dtype).eps) + 8 * torch.finfo(torch.float32).eps * score
    summed = math.sqrt(case.tokens * case.heads * case.head_size)
    for name, a, b in zip(NAMES, found, expected, strict=True):
        scale = max(1.0, float(b.abs().max()), summed if name in ("dweight", "dbeta") else 0.0)
        if case.kind == "large" and dtype != torch.float32 and name in ("dq", "dk", "dtext_q", "dtext_k"):
            scale = max(scale, LARGE)
        assert a.dtype == (torch.float32 if name in ("dweight", "dbeta") else dtype)
        torch.testing.assert_close(a.cpu().double(), b, atol=tolerance * scale, rtol=0.0, msg=named(name))


REFERENCE_CASES = (
    Case(clips=2, sentences=3, ticks=5, seen=2),
    Case(ticks=4, seen=9, mean="exponential", kind="strided"),
    Case(clips=2, ticks=4, seen="all", mean="window"),
    Case(ticks=5, seen="odd", mean="any", tokens=1),
    Case(ticks=4, seen="odd", mean="none", kind="strided", clips=2, sentences=3),
    Case(ticks=1, seen=1, length=1, sentences=1),
    Case(ticks=3, seen=2, kind="large"),
)


@pytest.mark.parametrize("case", REFERENCE_CASES, ids=str)
def test_reference_is_the_definition(case: Case) -> None:
    """In float64 the op is its reference; so are the gradients, which it has by formulas."""
    leaves, seen, text_mask = inputs(case)
    expected = gradients(oracle, leaves, seen, text_mask, case)
    found = gradients(memory_clip.memory_clip, leaves, seen, text_mask, case)
    for name, a, b in zip(NAMES, found, expected, strict=True):
        scale = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a, b, atol=1e-10 * scale, rtol=0.0, msg=named(name))

    def reference(*arguments: Any) -> tuple[Tensor, Tensor]:
        return memory_clip.memory_clip_reference(*arguments)[:2]

    found = gradients(reference, leaves, seen, text_mask, case)
    for name, a, b in zip(NAMES, found, expected, strict=True):
        scale = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a, b, atol=1e-10 * scale, rtol=0.0, msg=named(name))


@pytest.mark.parametrize("mean", ["any", "window"])
def test_gradcheck(mean: str) -> None:
    case = Case(ticks=3, tokens=2, length=2, heads=1, head_size=3, seen="odd", mean=mean)
    leaves, seen, text_mask = inputs(case)
    leaves = [x.requires_grad_() for x in leaves]

    def function(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v, text_q, text_k, text_v, weight, beta = leaves
        return memory_clip.memory_clip(
            q, k, v, seen, text_q, text_k, text_v, text_mask, weight, beta, 1, window_of(case)
        )

    if mean == "window":
        leaves[6].requires_grad_(False)
    assert torch.autograd.gradcheck(function, leaves)


KERNEL_CASES = (
    # W 1 and 10, T below, at and beyond it; N 1, 3, 8; P 1, 64, 144, 145; L 1, 25; d 32, 64, 128; every mean, every kind.
    (Case(sentences=3, ticks=3, seen=2, clips=2, tokens=5, length=7), 16, 16),
    (Case(sentences=1, ticks=3, seen=1, tokens=64, length=1, heads=1, head_size=32, mean="exponential"), 32, 32),
    (Case(sentences=8, ticks=2, seen=10, tokens=1, length=25, heads=1, head_size=64, mean="window"), 16, 32),
    (Case(sentences=1, ticks=2, seen="all", tokens=145, length=1, heads=1, head_size=128, kind="strided"), 64, 64),
    (Case(sentences=1, ticks=10, seen=10, tokens=1, length=25, head_size=32, kind="large"), 16, 16),
    (Case(sentences=1, ticks=12, seen=10, tokens=1, length=1, heads=1, head_size=128), 16, 16),
    (Case(sentences=3, ticks=4, seen="odd", tokens=17, length=17, heads=1, head_size=32, mean="any", kind="strided"), 16, 16),
    (Case(sentences=1, ticks=2, seen=10, tokens=144, length=25, heads=1, head_size=64, mean="none"), 64, 32),
    (Case(sentences=4, ticks=5, seen="odd", clips=2, tokens=2, length=3, heads=1, mean="window"), 16, 16),
    (Case(sentences=2, ticks=4, seen=2, tokens=17, length=25, heads=1, head_size=128, mean="any", kind="large"), 16, 16),
)  # fmt: skip


def _with_types() -> Iterator[Any]:
    """Every case in every type; the interpreter is slow, so of float16 every second one is left to `make kernels-all`."""
    for number, case in enumerate(KERNEL_CASES):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            left = dtype == torch.float16 and number % 2 == 0
            yield pytest.param(*case, dtype, marks=[pytest.mark.kernels_all] if left else [])


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("case", "block_q", "block_k", "dtype"), list(_with_types()), ids=str)
def test_kernels(
    case: Case, block_q: int, block_k: int, dtype: torch.dtype, kernel_device: torch.device
) -> None:
    if dtype == torch.float16 and case.kind == "large":
        case = replace(case, kind="plain")  # gradients of such scores leave the range of float16
    with launched(block_q, block_k):
        check_kernels(case, dtype, kernel_device)


@pytest.mark.kernels_all
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 25])
@pytest.mark.parametrize("tokens", [1, 64, 144, 145])
@pytest.mark.parametrize(("ticks", "seen"), [(3, 1), (2, 10), (10, 10), (12, 10)])
@pytest.mark.parametrize("sentences", [1, 3, 8])
@pytest.mark.parametrize("head_size", [32, 64, 128])
def test_kernels_in_every_combination(
    head_size: int, sentences: int, ticks: int, seen: int, tokens: int, length: int, dtype: torch.dtype,
    kernel_device: torch.device,
) -> None:  # fmt: skip
    """With the table's blocks, every mean and every kind; in float16 no large scores, whose gradients leave its range."""
    if kernel_device.type == "cpu":
        if dtype == torch.bfloat16:
            pytest.skip("Triton's interpreter computes bfloat16 wrongly")
        if tokens * ticks * sentences > 1200:
            pytest.skip(
                "more than 1,200 positions in all sentences take the interpreter minutes: `make gpu` has them"
            )
    kinds = ("plain", "strided") if dtype == torch.float16 else ("plain", "strided", "large")
    for kind, mean in itertools.product(kinds, ("cumulative", "exponential", "window")):
        case = Case(1, sentences, ticks, seen, tokens, length, 2, head_size, mean, kind)
        check_kernels(case, dtype, kernel_device)


@pytest.mark.parametrize("form", ["reference", "kernel"])
@pytest.mark.parametrize("mean", ["cumulative", "window"])
def test_no_sentences(form: Any, mean: str, kernel_device: torch.device) -> None:
    case = Case(sentences=0, mean=mean)
    torch.manual_seed(0)
    modality, text = torch.randn(3, 1, 3, 2, 32), torch.randn(3, 1, 0, 4, 32)
    leaves = [*modality, *text, torch.zeros(1, 0, 3), torch.tensor(1.0)]
    mask, seen = torch.ones(1, 0, 4, dtype=torch.bool), band_mask(3, 2)
    leaves = [x.to(kernel_device) for x in leaves]
    with forced(form):
        inner, text_o, *found = gradients(
            memory_clip.memory_clip, leaves, seen.to(kernel_device), mask.to(kernel_device), case
        )
    assert inner.shape == (1, 0, 3, 2, 32) and text_o.shape == (1, 0, 3, 4, 32)
    for leaf, gradient in zip(leaves, found, strict=True):
        assert gradient.shape == leaf.shape and not gradient.any()


def test_keys_and_text_are_taken_in_the_type_of_the_queries(kernel_device: torch.device) -> None:
    case = Case(head_size=32)
    leaves, seen, text_mask = inputs(case)
    q, k, v, text_q, text_k, text_v, weight, beta = (x.float() for x in leaves)
    rest = seen, text_q, text_k, text_v, text_mask, weight, beta
    mixed = [x.to(kernel_device) for x in (q.half(), k, v, *rest)]
    same = [x.half() if x.is_floating_point() and x.dim() == 4 else x for x in mixed]
    with forced("kernel"):
        found, expected = (memory_clip.memory_clip(*[*x, case.heads]) for x in (mixed, same))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float16 and torch.equal(a, b)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("form", ["reference", "kernel"])
@pytest.mark.parametrize(("query_ticks", "key_ticks"), [(1, 4), (3, 2)])
def test_attention_gradients_with_other_query_ticks(
    query_ticks: int, key_ticks: int, form: Any, kernel_device: torch.device
) -> None:
    """As a stream's step has them: one query tick, and slots of the ring that nobody sees."""
    case = Case(clips=2, sentences=3, ticks=4, tokens=18, length=5, heads=2)
    (q, k, v, text_q, text_k, text_v, *_), _, text_mask = inputs(case)
    q, k, v = q[:, :query_ticks], k[:, :key_ticks], v[:, :key_ticks]
    seen = torch.rand(2, query_ticks, key_ticks) < 0.6
    seen[..., 0], seen[..., 1] = True, False
    leaves = [x.detach().requires_grad_() for x in (q, k, v, text_q, text_k, text_v)]
    of_clips: list[list[Any]] = [
        [x[b] for x in (*leaves[:3], seen, *leaves[3:], text_mask)] + [2] for b in range(2)
    ]
    results = [torch.stack(x) for x in zip(*(attended(*x) for x in of_clips), strict=True)]
    given = [torch.randn_like(x) for x in results]
    expected = torch.autograd.grad(results, leaves, given)

    of_visual: list[Tensor] = []  # by the definition too
    of_text: list[Tensor] = []
    for b, n, t in itertools.product(range(2), range(3), range(query_ticks)):
        keys = torch.cat([*k[b][seen[b, t]], text_k[b, n][text_mask[b, n]]]).unflatten(-1, (2, 16))
        for queries, into in ((q[b, t], of_visual), (text_q[b, n], of_text)):
            scores = torch.einsum("qhd,khd->hqk", queries.unflatten(-1, (2, 16)), keys) / 4
            into.append(scores.logsumexp(-1))
    lse, text_lse = (torch.stack(x).unflatten(0, (2, 3, -1)).transpose(2, 3) for x in (of_visual, of_text))
    tensors = [q, k, v, seen, text_q, text_k, text_v, text_mask, *results, lse, text_lse, *given]
    if form == "kernel":
        tensors = [x if x.dtype == torch.bool else x.float() for x in tensors]
    arguments: list[Any] = [*(x.detach().to(kernel_device) for x in tensors), 2]
    with forced(form), launched(16, 16):
        found = memory_clip.attention_gradients(*arguments)
    for name, a, correct in zip(NAMES[2:], found, expected, strict=False):
        atol = 1e-5 if form == "kernel" else 1e-10
        torch.testing.assert_close(a.cpu().double(), correct, atol=atol, rtol=0.0, msg=named(name))
    for unseen in (found[1][:, 1], found[2][:, 1]):
        assert not unseen.any()


def test_weights() -> None:
    """Cumulative: the mean since the sentence came. Exponential: started at the first value."""
    added_at = torch.tensor([[0, 2]])
    o = torch.randn(1, 2, 5, dtype=torch.float64)
    cumulative = memory_clip.cumulative_weight(added_at, 5, torch.float64)
    exponential = memory_clip.exponential_weight(added_at, 5, 0.25, torch.float64)
    assert cumulative.dtype == exponential.dtype == torch.float64
    for n, first in enumerate((0, 2)):
        mean, faded = torch.zeros(2, dtype=torch.float64)
        for t in range(5):
            mean = mean + cumulative[0, n, t] * (o[0, n, t] - mean)
            faded = faded + exponential[0, n, t] * (o[0, n, t] - faded)
            if t < first:
                assert mean == faded == 0.0
            else:
                torch.testing.assert_close(mean, o[0, n, first : t + 1].mean())
            if t == first:
                assert faded == o[0, n, t]
    torch.testing.assert_close(exponential[0, 1], torch.tensor([0, 0, 1, 0.25, 0.25], dtype=torch.float64))


def test_beta_is_a_number_or_a_tensor() -> None:
    leaves, seen, text_mask = inputs(Case())
    q, k, v, text_q, text_k, text_v, weight, _ = leaves
    one, other = (
        memory_clip.memory_clip(q, k, v, seen, text_q, text_k, text_v, text_mask, weight, beta, 2)
        for beta in (0.25, torch.tensor([0.25], dtype=torch.float64))
    )
    torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


def test_refuses_shapes_that_do_not_fit() -> None:
    leaves, seen, text_mask = inputs(Case())
    q, k, v, text_q, text_k, text_v, weight, beta = leaves
    with pytest.raises(ValueError, match="k must be"):
        memory_clip.memory_clip(q, k[:, 1:], v, seen, text_q, text_k, text_v, text_mask, weight, beta, 2)
    with pytest.raises(ValueError, match="weight must be"):
        memory_clip.memory_clip(q, k, v, seen, text_q, text_k, text_v, text_mask, weight[..., 1:], beta, 2)
    with pytest.raises(ValueError, match="32 channels cannot be cut into 3 heads"):
        memory_clip.memory_clip(q, k, v, seen, text_q, text_k, text_v, text_mask, weight, beta, 3)
    with pytest.raises(ValueError, match="mean_window must be"):
        memory_clip.memory_clip(q, k, v, seen, text_q, text_k, text_v, text_mask, weight, beta, 2, -1)


@pytest.mark.parametrize("form", ["reference", "kernel"])
def test_op_is_well_formed(form: Any, kernel_device: torch.device) -> None:
    """Schema, fake, autograd and the graph of both passes; as torch itself checks an op."""
    case = Case(ticks=2, sentences=1, tokens=2, length=2, heads=1, seen=2)
    leaves, seen, text_mask = inputs(case)
    q, k, v, text_q, text_k, text_v, weight, beta = (
        x.float().to(kernel_device).requires_grad_() for x in leaves
    )
    seen, text_mask = seen.to(kernel_device), text_mask.to(kernel_device)
    arguments = q, k, v, seen, text_q, text_k, text_v, text_mask, weight, beta, 1
    with forced(form):
        torch.library.opcheck(torch.ops.refavs.memory_clip.default, arguments)


def test_half_precision_without_a_kernel() -> None:
    """Where no kernel runs the reference takes float16, with float32 sums."""
    case = Case()
    leaves, seen, text_mask = inputs(case)
    leaves = [x.half() for x in leaves]
    expected = gradients(oracle, [x.double() for x in leaves], seen, text_mask, case)
    with forced("reference"):
        found = gradients(memory_clip.memory_clip, leaves, seen, text_mask, case)
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert a.dtype == torch.float16
        scale = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a.double(), b, atol=6e-3 * scale, rtol=0.0, msg=named(name))


SHAPES = {
    "edge": memory_clip.ClipShape(9, 6, 10, 10, 64, 25, 6, 32),
    "full": memory_clip.ClipShape(2, 6, 10, 10, 144, 25, 8, 128),
}


def test_costs_by_hand() -> None:
    """One clip of two ticks with one token and one word, one head of 16, in 16 bits: everything counted on the fingers."""
    shape = memory_clip.ClipShape(1, 1, 2, 2, 1, 1, 1, 16)
    cost = memory_clip.cost(shape, 16)
    # pairs: tick 0 sees 1 key, tick 1 sees 2; two words seen by queries; the word sees 2 keys and itself
    assert cost.operations == 4 * 16 * (3 + 2 + 3)
    # q, k, v of 2 tokens; text_q, text_k, text_v; inner of 2, text_o of 2; lse and text_lse of 2 each
    assert cost.bytes == 2 * 16 * (6 + 3 + 2 + 2) + 4 * (2 + 2)
    assert cost.launches == 2


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_fused_costs_less(name: str, backward: bool) -> None:
    fused = memory_clip.cost(SHAPES[name], 16, backward)
    unfused = memory_clip.unfused_cost(SHAPES[name], 16, backward)
    assert fused.bytes < unfused.bytes / 3
    assert fused.launches < unfused.launches / 10


def test_compilations_are_complete() -> None:
    pytest.importorskip("triton")
    compilations = memory_clip.compilations(80)
    assert len({c.name for c in compilations}) == len(compilations)
    for c in compilations:
        assert set(c.signature) | set(c.constants) == set(c.kernel.arg_names), c.name
        assert not set(c.signature) & set(c.constants)
