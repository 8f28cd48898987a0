"""Prompting: the reference, the kernels and every gradient against the definition, a query at a time in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from refavs_rt.kernels import launch, prompt_attention
from refavs_rt.kernels.dispatch import forced
from refavs_rt.kernels.launch import Cost, Launch
from refavs_rt.model.layers import Attention

NAMES = ("queries", "q", "k", "v", "source", "out_weight", "out_bias", "gate_attention", "gate_mean")
"""The inputs that have gradients."""
KINDS = ("plain", "late", "one cue", "strided", "large", "wide outside")
"""What is peculiar of a case's inputs, see `make_inputs`."""


def oracle(x: dict[str, Tensor], heads: int) -> tuple[Tensor, Tensor]:
    """The definition, one sentence-frame, head and query at a time."""
    size = x["q"].shape[-1] // heads
    prompted, means = [], []
    for item in range(x["k"].shape[0]):
        there = [cue for cue in range(x["k"].shape[1]) if bool(x["mask"][item, cue])]
        mean = torch.stack([x["source"][item, cue] for cue in there]).mean(dim=0)
        rows = []
        for query in range(x["q"].shape[0]):
            parts = []
            for head in range(heads):
                of_head = slice(head * size, (head + 1) * size)
                scores = x["k"][item, there, of_head] @ x["q"][query, of_head] / math.sqrt(size)
                parts.append(torch.softmax(scores, dim=0) @ x["v"][item, there, of_head])
            attended = x["out_weight"] @ torch.cat(parts) + x["out_bias"]
            s1, s2 = torch.sigmoid(x["gate_attention"]), torch.sigmoid(x["gate_mean"])
            rows.append(x["queries"][query] + s1 * attended + s2 * mean)
        prompted.append(torch.stack(rows))
        means.append(mean)
    return torch.stack(prompted), torch.stack(means)


def make_inputs(
    kind: str, items: int, asking: int, cues: int, heads: int, size: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """On the CPU."""
    torch.manual_seed(items + asking + cues + size)
    width = heads * size
    x = {
        "queries": torch.randn(asking, width),
        "q": torch.randn(asking, width),
        "k": torch.randn(items, cues, width),
        "v": torch.randn(items, cues, width),
        "source": torch.randn(items, cues, width),
        "out_weight": torch.randn(width, width) / math.sqrt(width),
        "out_bias": torch.randn(width),
        "gate_attention": torch.tensor(0.3),
        "gate_mean": torch.tensor(-1.2),
    }
    if kind == "large":
        x["q"], x["k"] = 50 * x["q"], 50 * x["k"]
        x["gate_attention"] = torch.tensor(30.0)
    outside = (
        ("queries", "source", "out_bias", "gate_attention", "gate_mean") if kind == "wide outside" else ()
    )
    x = {name: value if name in outside else value.to(dtype) for name, value in x.items()}
    mask = torch.rand(items, cues) < 0.6
    if kind == "late":  # the first blocks hold no cue
        mask[:, : cues // 2 + 1] = False
    if kind == "one cue":
        mask[:] = False
    mask[range(items), [cues - 1 - item % cues for item in range(items)]] = True
    if kind == "strided":
        x = {name: torch.stack([value, value], dim=-1)[..., 0] for name, value in x.items()}
        x["k"] = x["k"].transpose(1, 2).contiguous().transpose(1, 2)
        x["out_weight"] = x["out_weight"].T.contiguous().T
        mask = mask.T.contiguous().T
    return {**x, "mask": mask}


def run(
    function: Callable[[dict[str, Tensor], int], tuple[Tensor, Tensor]], x: dict[str, Tensor], heads: int
) -> dict[str, Tensor]:
    """Both results and all gradients, for one pair of gradients of the results."""
    leaves = {name: x[name].detach().requires_grad_() for name in NAMES}
    prompted, mean = function({**x, **leaves}, heads)
    torch.manual_seed(1)
    given = [
        torch.randn(result.shape).to(x["queries"].dtype).to(result.dtype).to(result.device)
        for result in (prompted, mean)
    ]
    gradients = torch.autograd.grad((prompted, mean), list(leaves.values()), given)
    return {
        "prompted": prompted.detach(),
        "mean": mean.detach(),
        **dict(zip(NAMES, gradients, strict=True)),
    }


def op(x: dict[str, Tensor], heads: int) -> tuple[Tensor, Tensor]:
    return prompt_attention.prompt_attention(**x, heads=heads)


def named(name: str) -> Callable[[str], str]:
    """What puts the name of a tensor before what is said of it."""
    return lambda message: f"{name}: {message}"


def check(
    kind: str,
    items: int,
    asking: int,
    cues: int,
    heads: int,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """The kernels' results and gradients are the oracle's.

    What is lost: roundings to `dtype` (p, ds, A, dA, results), and one of the scores in float32, which the exponential turns from
    an absolute into a relative error. dq sums ds k: where scores are large ds almost vanishes and its rounding meets k, so a
    sixteenth of k has a say in the scale, as q has in that of dk. A gate's gradient is s (1 - s), at most a quarter, times a sum
    of as many terms as the result has, each rounded by itself.
    """
    x = make_inputs(kind, items, asking, cues, heads, size, dtype)
    expected = run(oracle, {n: v if v.dtype == torch.bool else v.double() for n, v in x.items()}, heads)
    with forced("kernel"):
        found = run(op, {name: value.to(device) for name, value in x.items()}, heads)
    score = 1e4 if kind == "large" else 10.0
    tolerance = max(1e-5, 6 * torch.finfo(dtype).eps) + 8 * torch.finfo(torch.float32).eps * score
    other = {"q": x["k"], "k": x["q"]}
    for name, a in found.items():
        of = {"prompted": "queries", "mean": "source"}.get(name, name)
        assert a.dtype == x[of].dtype
        scale = max(1.0, float(expected[name].abs().max()))
        if name in other:
            scale = max(scale, float(other[name].abs().max()) / 16)
        if name.startswith("gate"):
            scale = max(scale, math.sqrt(found["prompted"].numel()) / 4)
        torch.testing.assert_close(
            a.cpu().double(),
            expected[name],
            atol=tolerance * scale,
            rtol=0.0,
            msg=named(name),
        )


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not yet written is NaN."""
    for name in ("empty", "empty_like"):
        make = getattr(torch, name)

        def poison(*args: Any, make: Callable[..., Tensor] = make, **options: Any) -> Tensor:
            tensor = make(*args, **options)
            return tensor.fill_(math.nan if tensor.is_floating_point() else 1)

        monkeypatch.setattr(torch, name, poison)


def cut(monkeypatch: pytest.MonkeyPatch, block_q: int = 16, block_k: int = 16) -> None:
    """Launches with these blocks, so that small shapes have several."""
    row = Launch(block_q, block_k, warps=4, stages=2)
    monkeypatch.setattr(launch, "launch_of", lambda *_: row)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wide outside"])
def test_the_reference_and_its_gradients_are_the_definition(kind: str) -> None:
    x = make_inputs(kind, 2, 3, 7, 3, 4, torch.float64)
    expected, found = run(oracle, x, 3), run(op, x, 3)
    for name, a in found.items():
        scale = max(1.0, float(expected[name].abs().max()))
        torch.testing.assert_close(a, expected[name], atol=1e-10 * scale, rtol=0.0, msg=name)


def test_the_reference_is_the_models_attention_over_normed_cues() -> None:
    torch.manual_seed(2)
    attention, norm = Attention(24, 3).double(), torch.nn.LayerNorm(24).double()
    queries, cues = torch.randn(5, 24, dtype=torch.float64), torch.randn(2, 9, 24, dtype=torch.float64)
    mask = torch.rand(2, 9) < 0.6
    mask[:, 4] = True
    g1, g2 = torch.tensor(0.4, dtype=torch.float64), torch.tensor(-0.7, dtype=torch.float64)
    source = norm(cues)
    share = mask.double().unsqueeze(-1)
    mean = (source * share).sum(dim=1) / share.sum(dim=1)
    attended = attention(queries.expand(2, -1, -1), source, source, mask[:, None, :])
    expected = queries + torch.sigmoid(g2) * mean[:, None] + torch.sigmoid(g1) * attended
    prompted, found_mean = prompt_attention.prompt_attention(
        queries,
        attention.q(queries),
        attention.k(source),
        attention.v(source),
        source,
        mask,
        attention.out.weight,
        attention.out.bias,
        g1,
        g2,
        3,
    )
    torch.testing.assert_close(prompted, expected, atol=1e-10, rtol=0.0)
    torch.testing.assert_close(found_mean, mean, atol=1e-10, rtol=0.0)


def test_gradcheck_of_the_reference() -> None:
    x = make_inputs("plain", 2, 3, 4, 2, 2, torch.float64)
    leaves = [x[name].requires_grad_() for name in NAMES]
    assert torch.autograd.gradcheck(
        lambda *leaves: op({**x, **dict(zip(NAMES, leaves, strict=True))}, 2), leaves, eps=1e-6
    )


def test_what_is_masked_has_no_say_and_no_gradient() -> None:
    x = make_inputs("plain", 1, 2, 5, 1, 4, torch.float64)
    x["mask"] = torch.tensor([[True, False, True, False, False]])
    other = {**x, **{name: x[name].clone() for name in ("k", "v", "source")}}
    for name in ("k", "v", "source"):
        other[name][:, [1, 3, 4]] = 1e6
    a, b = run(op, x, 1), run(op, other, 1)
    for name in ("prompted", "mean", *NAMES):
        assert torch.equal(a[name], b[name]), name
    for name in ("k", "v", "source"):
        assert not a[name][:, [1, 3, 4]].any()


def test_types_as_autocast_leaves_them() -> None:
    """What projections gave is half; parameters, the queries and the normed cues are not."""
    x = make_inputs("plain", 2, 3, 5, 1, 32, torch.float32)
    half = {name: x[name].half() for name in ("q", "k", "v")}
    found, exact = run(op, {**x, **half}, 1), run(op, x, 1)
    for name, value in found.items():
        assert value.dtype == (torch.float16 if name in half else torch.float32)
        torch.testing.assert_close(value.float(), exact[name], atol=0.02, rtol=0.01)


CASES = [  # items, queries, cues, heads, size, kind
    (1, 8, 40, 3, 32, "plain"),
    (2, 19, 37, 3, 32, "late"),
    (1, 17, 33, 1, 64, "strided"),
    (1, 3, 20, 1, 128, "large"),
    (3, 1, 1, 1, 32, "plain"),
    (8, 5, 25, 1, 32, "one cue"),
    (1, 18, 50, 3, 64, "wide outside"),
    (1, 8, 101, 1, 32, "large"),
]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("items", "asking", "cues", "heads", "size", "kind"), CASES)
def test_kernels(
    monkeypatch: pytest.MonkeyPatch,
    kernel_device: torch.device,
    items: int,
    asking: int,
    cues: int,
    heads: int,
    size: int,
    kind: str,
    dtype: torch.dtype,
) -> None:
    if dtype == torch.bfloat16 and kernel_device.type == "cpu":
        pytest.skip("Triton's interpreter is wrong in bfloat16")
    cut(monkeypatch)
    check(kind, items, asking, cues, heads, size, dtype, kernel_device)


@pytest.mark.kernels_all
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "items", "cues"), list(itertools.product((32, 64, 128), (1, 3, 8), (1, 25, 101, 181)))
)
def test_kernels_in_every_combination(
    kernel_device: torch.device, size: int, items: int, cues: int, kind: str, dtype: torch.dtype
) -> None:
    """With the table's blocks; fewer queries for more sentence-frames, and a width that is no power of two where it is cheap."""
    if dtype == torch.bfloat16 and kernel_device.type == "cpu":
        pytest.skip("Triton's interpreter is wrong in bfloat16")
    check(kind, items, 48 // items + 1, cues, 1 if size > 32 else 3, size, dtype, kernel_device)


@pytest.mark.usefixtures("poisoned")
def test_the_log_sum_exp_of_the_kernel(monkeypatch: pytest.MonkeyPatch, kernel_device: torch.device) -> None:
    cut(monkeypatch)
    x = {n: v.to(kernel_device) for n, v in make_inputs("late", 2, 5, 35, 2, 32, torch.float32).items()}
    _, _, lse = prompt_attention.prompt_attention_reference(**x, heads=2)
    with forced("kernel"):
        _, _, found = torch.ops.refavs.prompt_attention(**x, heads=2)
    torch.testing.assert_close(found, lse, atol=1e-5, rtol=1e-6)


def test_kernels_give_the_same_bits_again(
    monkeypatch: pytest.MonkeyPatch, kernel_device: torch.device
) -> None:
    cut(monkeypatch)
    x = {n: v.to(kernel_device) for n, v in make_inputs("plain", 2, 5, 35, 1, 32, torch.float32).items()}
    with forced("kernel"):
        first, second = run(op, x, 1), run(op, x, 1)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("form", ["reference", "kernel"])
def test_torchs_own_check_of_the_op(kernel_device: torch.device, form: Any) -> None:
    x = {n: v.to(kernel_device) for n, v in make_inputs("plain", 2, 3, 5, 1, 32, torch.float32).items()}
    for name in NAMES:
        x[name].requires_grad_()
    with forced(form):
        torch.library.opcheck(torch.ops.refavs.prompt_attention.default, (), {**x, "heads": 1})


def test_shapes_that_do_not_fit() -> None:
    x = make_inputs("plain", 2, 3, 5, 1, 4, torch.float32)
    with pytest.raises(ValueError, match=r"mask must be \[2, 5\] for queries \[3, 4\], not \[2, 4\]"):
        op({**x, "mask": x["mask"][:, :4]}, 1)
    with pytest.raises(ValueError, match="4 channels cannot be cut into 3 heads"):
        op(x, 3)


def test_costs() -> None:
    """2 queries, 3 cues, 8 channels, 2 heads, half: x, q and the result 48 numbers; k, v, c 72; W and b 72; mean 8."""
    operations = 2 * 2 * (2 * 3 * 8) + 2 * (2 * 8 * 8) + 3 * 8
    assert prompt_attention.cost(1, 2, 3, 8, 2) == Cost(operations, 2 * (48 + 72 + 72 + 8) + 3 + 16, 1)
    full = (8, 100, 181, 256, 4)
    for backward in (False, True):
        fused = prompt_attention.cost(*full, backward=backward)
        chain = prompt_attention.unfused_cost(*full, backward=backward)
        assert fused.launches < chain.launches and fused.bytes < chain.bytes


def test_compilations_have_names_of_their_own_and_all_that_their_kernels_take() -> None:
    compilations = prompt_attention.compilations(80)
    assert len({c.name for c in compilations}) == len(compilations) >= 2 * (4 * 3 - 1)
    for c in compilations:
        assert set(c.kernel.arg_names) <= set(c.signature) | set(c.constants), c.name
