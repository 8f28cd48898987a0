"""Multi-scale deformable attention (arXiv 2010.04159, equation 3): each query looks at a few places of every level of a pyramid.

For a query, a head and its samples j = (level, point), with v a level's values on a grid of h x w cells,

    x_j = X_j w - 1/2,   y_j = Y_j h - 1/2            the location (X_j, Y_j), in cells
    s_j = sum over the four cells around of c_ij v_i   bilinear: c = (1 - fy)(1 - fx), (1 - fy) fx, fy (1 - fx), fy fx
    o   = sum_j a_j s_j                                a = softmax of the logits over all j

where fx, fy are what x_j, y_j have beyond the cell below them, and a cell outside the grid counts as zero: grid_sample with
zeros for padding and align_corners=False. A location whose four cells all lie outside, or which is infinite or NaN, gives
zero and gets no gradient, as grid_sample has it on CUDA; on a CPU the reference gives NaN for what is not finite. Exactly on
a cell, the gradient of a location is the slope towards the next cell; a rounding of 1e-7 decides which side that is, in
grid_sample too.

Backward, with g the gradient of o and p_i = g . v_i its products with the four cells of a sample:

    da_j  = sum_i c_ij p_i = g . s_j
    dlogits_j = a_j (da_j - delta),   delta = sum_j a_j da_j = g . o
    dX_j  = w a_j ((1 - fy)(p_01 - p_00) + fy (p_11 - p_10)),   dY_j = h a_j ((1 - fx)(p_10 - p_00) + fx (p_11 - p_01))
    dv_i += a_j c_ij g

The products p_i are all that a sample's gradients need of the values, and the saved o spares a pass over the samples for delta.

A program owns (frame, block of queries, head), its lanes run over the d channels of the head: one sample of one query is four
reads of d channels that lie side by side. The softmax is taken inside, from the logits, and nothing of the size of the
samples is written, where plain torch writes d numbers per sample several times over. Sums are float32. dX, dY and dlogits
have one owner each, and no atomics.

Cells of v have no owner: any query may look at any of them. So dv is summed by atomics, in float32, in an order that is up to
the GPU, and its last bits differ from run to run: with the 20 to 340 terms that a cell gets per frame of `full`, by up to
3e-7 of the sum of the terms' sizes (tried with random terms in random orders). Under torch.use_deterministic_algorithms(True)
the same kernel sums integers, whose order does not matter: terms in units of a power of two such that the largest possible
sum fits 63 bits. That is reproducible to the bit, no less exact, and moves twice the bytes. (The backward of grid_sample has
no such way on CUDA: torch raises there, and so does the reference.)
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from . import launch as launches
from .dispatch import check_extents, runs_kernel
from .launch import Compilation, Cost, Launch
from .triton_or_not import tl, triton


def deformable_attention(value: Tensor, sizes: list[int], locations: Tensor, logits: Tensor) -> Tensor:
    """What each query sees at its sampling locations, weighted by the softmax of its logits.

    The kernel or the reference runs by the rule of `dispatch`. The three types may differ, as they do under autocast: beside
    values of 16 bits, locations in float32 keep their places, which bfloat16 would move by a tenth of a cell on a level of
    48 x 48.

    Args:
        value: [B, S, heads, d], the levels one after the other, rows of cells within.
        sizes: h0, w0, h1, w1, ... of the levels; S = h0 w0 + h1 w1 + ...
        locations: [B, Q, heads, levels, points, 2], (x, y) with (0, 0) and (1, 1) the outer corners of a level.
        logits: [B, Q, heads, levels, points], not yet softmaxed over levels and points.

    Returns:
        o [B, Q, heads * d], of the type of `value`.

    Raises:
        ValueError: shapes that do not belong together.
    """
    return _op(value, sizes, locations, logits)


def deformable_attention_reference(
    value: Tensor, sizes: list[int], locations: Tensor, logits: Tensor
) -> Tensor:
    """`deformable_attention` as transformers' Mask2Former computes it, to the bit, if all types are one."""
    batch, _, heads, d = value.shape
    queries = locations.shape[1]
    samples = _samples(value, sizes, locations)
    weights = _weights(logits).to(samples.dtype)
    o = (samples * weights).sum(-1).view(batch, heads * d, queries)
    return o.transpose(1, 2).contiguous().to(value.dtype)


def _samples(value: Tensor, sizes: list[int], locations: Tensor) -> Tensor:
    """s_j [B * heads, d, Q, levels * points], in the wider of the two types."""
    sampled = [
        functional.grid_sample(v, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        for v, grid in _levels(value, sizes, locations)
    ]
    return torch.stack(sampled, dim=-2).flatten(-2)


def _levels(value: Tensor, sizes: list[int], locations: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What grid_sample takes, for each level: values [B * heads, d, h, w] and grid [B * heads, Q, points, 2]."""
    wide = torch.promote_types(value.dtype, locations.dtype)
    value, locations = value.to(wide), locations.to(wide)
    batch, _, heads, d = value.shape
    shapes = list(zip(sizes[::2], sizes[1::2], strict=True))
    values = value.split([h * w for h, w in shapes], dim=1)
    grids = 2 * locations - 1
    return [
        (
            v.flatten(2).transpose(1, 2).reshape(batch * heads, d, h, w),
            grids[:, :, :, level].transpose(1, 2).flatten(0, 1),
        )
        for level, (v, (h, w)) in enumerate(zip(values, shapes, strict=True))
    ]


def _weights(logits: Tensor) -> Tensor:
    """a_j [B * heads, 1, Q, levels * points]."""
    batch, queries, heads, levels, points = logits.shape
    weights = functional.softmax(logits.flatten(-2), -1)
    return weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)


def deformable_attention_backward_reference(
    do: Tensor, value: Tensor, sizes: list[int], locations: Tensor, logits: Tensor, o: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """dvalue, dlocations and dlogits from `do` [B, Q, heads * d], each with shape and type of what it is the gradient of."""
    batch, queries, heads, levels, points = logits.shape
    d = value.shape[-1]
    samples = _samples(value, sizes, locations)
    weights = _weights(logits).to(samples.dtype)
    g = (
        do.unflatten(-1, (heads, d))
        .permute(0, 2, 3, 1)
        .reshape(batch * heads, d, queries, 1)
        .to(samples.dtype)
    )
    dweights = (g * samples).sum(1, keepdim=True)
    dlogits = weights * (dweights - (weights * dweights).sum(-1, keepdim=True))
    dsamples = (g * weights).unflatten(-1, (levels, points))
    dvalues, dgrids = [], []
    for level, (v, grid) in enumerate(_levels(value, sizes, locations)):
        dv, dgrid = torch.ops.aten.grid_sampler_2d_backward(
            dsamples[..., level, :], v, grid, 0, 0, False, [True, True]
        )
        dvalues.append(dv.reshape(batch, heads, d, -1).permute(0, 3, 1, 2))
        dgrids.append(dgrid.unflatten(0, (batch, heads)).transpose(1, 2))
    return (
        torch.cat(dvalues, 1).to(value.dtype).contiguous(),
        2 * torch.stack(dgrids, 3).to(locations.dtype).contiguous(),
        dlogits.reshape(batch, heads, queries, levels, points).transpose(1, 2).to(logits.dtype).contiguous(),
    )


@torch.library.custom_op("refavs::deformable_attention", mutates_args=())
def _op(value: Tensor, sizes: list[int], locations: Tensor, logits: Tensor) -> Tensor:
    _check(value, sizes, locations, logits)
    if runs_kernel("deformable_attention", "deformable", value.shape[-1], value, locations, logits):
        return _launch_forward(value, sizes, locations, logits)
    return deformable_attention_reference(value, sizes, locations, logits)


@_op.register_fake
def _(value: Tensor, sizes: list[int], locations: Tensor, logits: Tensor) -> Tensor:
    _check(value, sizes, locations, logits)
    batch, _, heads, d = value.shape
    return value.new_empty(batch, locations.shape[1], heads * d)


@torch.library.custom_op("refavs::deformable_attention_backward", mutates_args=())
def _backward_op(
    do: Tensor, value: Tensor, sizes: list[int], locations: Tensor, logits: Tensor, o: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    _check(value, sizes, locations, logits)
    tensors = do, value, locations, logits, o
    if runs_kernel("deformable_attention_backward", "deformable_backward", value.shape[-1], *tensors):
        return _launch_backward(do, value, sizes, locations, logits, o)
    return deformable_attention_backward_reference(do, value, sizes, locations, logits, o)


@_backward_op.register_fake
def _(
    do: Tensor, value: Tensor, sizes: list[int], locations: Tensor, logits: Tensor, o: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return value.new_empty(value.shape), locations.new_empty(locations.shape), logits.new_empty(logits.shape)


def _setup_context(ctx, inputs, output) -> None:
    value, ctx.sizes, locations, logits = inputs
    ctx.save_for_backward(value, locations, logits, output)


def _backward(ctx, do):
    value, locations, logits, o = ctx.saved_tensors
    dvalue, dlocations, dlogits = _backward_op(do, value, ctx.sizes, locations, logits, o)
    return dvalue, None, dlocations, dlogits


_op.register_autograd(_backward, setup_context=_setup_context)

TRANSLATION = {torch.ops.refavs.deformable_attention.default: deformable_attention_reference}
"""What `translation` puts in the op's place."""


def _check(value: Tensor, sizes: list[int], locations: Tensor, logits: Tensor) -> None:
    """The kernel trusts these: a wrong size would read outside the values."""
    batch, tokens, heads, _ = value.shape
    if len(sizes) % 2 or min(sizes, default=0) < 1:
        raise ValueError(f"sizes must be h0, w0, h1, w1, ..., each at least 1, not {list(sizes)}")
    if sum(h * w for h, w in zip(sizes[::2], sizes[1::2], strict=True)) != tokens:
        raise ValueError(
            f"value {tuple(value.shape)} has not as many rows as levels of {list(sizes)} have cells"
        )
    expected = (batch, locations.shape[1], heads, len(sizes) // 2, logits.shape[-1])
    if tuple(logits.shape) != expected or tuple(locations.shape) != (*expected, 2):
        raise ValueError(
            f"locations {tuple(locations.shape)} and logits {tuple(logits.shape)} do not belong to value {tuple(value.shape)}"
            f" with {len(sizes) // 2} levels: [B, Q, heads, levels, points, 2] and [B, Q, heads, levels, points]"
        )


@triton.jit(do_not_specialize=["queries", "tokens"])
def _deformable_kernel(
    value_ptr,  # [B, tokens, HEADS, D]
    locations_ptr,  # [B, queries, HEADS, LEVELS, POINTS, 2]
    logits_ptr,  # [B, queries, HEADS, LEVELS, POINTS]
    o_ptr,  # [B, queries, HEADS, D]
    queries,
    tokens,
    SIZES: tl.constexpr,  # h0, w0, h1, w1, ...
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    PADDED: tl.constexpr,  # power of two, at least LEVELS * POINTS
    BLOCK_Q: tl.constexpr,
):
    head = tl.program_id(0)
    q = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    batch = tl.program_id(2).to(tl.int64)
    d = tl.arange(0, D)
    seen = q < queries
    first = batch * queries * HEADS + head
    locations_ptr += first * (LEVELS * POINTS * 2)
    logits_ptr += first * (LEVELS * POINTS)
    o_ptr += first * D
    value_ptr += (batch * tokens * HEADS + head) * D
    top, total = _softmax_parts(logits_ptr, q * (HEADS * LEVELS * POINTS), seen, LEVELS * POINTS, PADDED)
    o = tl.zeros([BLOCK_Q, D], tl.float32)
    start = 0
    for level in range(LEVELS):
        height, width = _size(SIZES, LEVELS, level)
        for point in range(POINTS):
            j = q * (HEADS * LEVELS * POINTS) + level * POINTS + point
            a = tl.exp(tl.load(logits_ptr + j, mask=seen, other=0.0).to(tl.float32) - top) / total
            x, fx = _cell(locations_ptr + 2 * j, seen, width)
            y, fy = _cell(locations_ptr + 2 * j + 1, seen, height)
            cell = ((start + y * width + x) * (HEADS * D))[:, None] + d[None, :]
            for dy in tl.static_range(2):
                for dx in tl.static_range(2):
                    share = (fy if dy else 1.0 - fy) * (fx if dx else 1.0 - fx)
                    inside = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
                    at = cell + (dy * width + dx) * (HEADS * D)
                    v = tl.load(value_ptr + at, mask=inside[:, None], other=0.0).to(tl.float32)
                    o += (a * share)[:, None] * v
        start += height * width
    at = q[:, None] * (HEADS * D) + d[None, :]
    tl.store(o_ptr + at, o.to(o_ptr.dtype.element_ty), mask=seen[:, None])


@triton.jit(do_not_specialize=["queries", "tokens"])
def _deformable_backward_kernel(
    do_ptr,  # [B, queries, HEADS, D]
    value_ptr,
    locations_ptr,
    logits_ptr,
    o_ptr,
    dvalue_ptr,  # as value, zeros: float32, or int64 in units of 1 / scale
    dlocations_ptr,
    dlogits_ptr,
    scale_ptr,  # float32 [1], a power of two; read only for int64
    queries,
    tokens,
    SIZES: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    DETERMINISTIC: tl.constexpr,
):
    head = tl.program_id(0)
    q = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    batch = tl.program_id(2).to(tl.int64)
    d = tl.arange(0, D)
    seen = q < queries
    first = batch * queries * HEADS + head
    locations_ptr += first * (LEVELS * POINTS * 2)
    dlocations_ptr += first * (LEVELS * POINTS * 2)
    logits_ptr += first * (LEVELS * POINTS)
    dlogits_ptr += first * (LEVELS * POINTS)
    value_ptr += (batch * tokens * HEADS + head) * D
    dvalue_ptr += (batch * tokens * HEADS + head) * D
    top, total = _softmax_parts(logits_ptr, q * (HEADS * LEVELS * POINTS), seen, LEVELS * POINTS, PADDED)
    at = first * D + q[:, None] * (HEADS * D) + d[None, :]
    g = tl.load(do_ptr + at, mask=seen[:, None], other=0.0).to(tl.float32)
    delta = tl.sum(g * tl.load(o_ptr + at, mask=seen[:, None], other=0.0).to(tl.float32), 1)
    if DETERMINISTIC:
        scale = tl.load(scale_ptr)
    start = 0
    for level in range(LEVELS):
        height, width = _size(SIZES, LEVELS, level)
        for point in range(POINTS):
            j = q * (HEADS * LEVELS * POINTS) + level * POINTS + point
            a = tl.exp(tl.load(logits_ptr + j, mask=seen, other=0.0).to(tl.float32) - top) / total
            x, fx = _cell(locations_ptr + 2 * j, seen, width)
            y, fy = _cell(locations_ptr + 2 * j + 1, seen, height)
            cell = ((start + y * width + x) * (HEADS * D))[:, None] + d[None, :]
            da = 0.0
            slope_x = 0.0
            slope_y = 0.0
            for dy in tl.static_range(2):
                for dx in tl.static_range(2):
                    share_y = fy if dy else 1.0 - fy
                    share_x = fx if dx else 1.0 - fx
                    inside = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
                    corner = cell + (dy * width + dx) * (HEADS * D)
                    v = tl.load(value_ptr + corner, mask=inside[:, None], other=0.0).to(tl.float32)
                    p = tl.sum(g * v, 1)
                    da += share_y * share_x * p
                    slope_x += (2 * dx - 1) * share_y * p
                    slope_y += (2 * dy - 1) * share_x * p
                    term = (a * share_y * share_x)[:, None] * g
                    if DETERMINISTIC:
                        term = (term * scale).to(tl.int64)
                    tl.atomic_add(dvalue_ptr + corner, term, mask=inside[:, None], sem="relaxed")
            tl.store(dlogits_ptr + j, (a * (da - delta)).to(dlogits_ptr.dtype.element_ty), mask=seen)
            dlocation_ptr = dlocations_ptr + 2 * j
            tl.store(dlocation_ptr, (width * a * slope_x).to(dlocations_ptr.dtype.element_ty), mask=seen)
            tl.store(dlocation_ptr + 1, (height * a * slope_y).to(dlocations_ptr.dtype.element_ty), mask=seen)
        start += height * width


@triton.jit
def _softmax_parts(logits_ptr, row, seen, SAMPLES: tl.constexpr, PADDED: tl.constexpr):
    """The largest of each row's logits, which begin at `row`, and the sum of exp(logit - largest)."""
    j = tl.arange(0, PADDED)
    real = (j < SAMPLES)[None, :]
    logits = tl.load(logits_ptr + row[:, None] + j[None, :], mask=seen[:, None] & real, other=0.0).to(
        tl.float32
    )
    logits = tl.where(real, logits, float("-inf"))
    top = tl.max(logits, 1)
    return top, tl.sum(tl.exp(logits - top[:, None]), 1)


@triton.jit
def _size(SIZES: tl.constexpr, LEVELS: tl.constexpr, level):
    """Height and width of a level. The loop over levels is not unrolled, which would triple code and compile time for nothing."""
    height = SIZES[0]
    width = SIZES[1]
    for other in tl.static_range(1, LEVELS):
        height = SIZES[2 * other] if level == other else height
        width = SIZES[2 * other + 1] if level == other else width
    return height, width


@triton.jit
def _cell(location_ptr, seen, size):
    """The cell at or below a location on an axis of `size` cells, and the fraction beyond it.

    -2 and 0 where neither this cell nor the next is on the axis, so also for NaN: no such number is ever made an integer.
    """
    place = tl.load(location_ptr, mask=seen, other=0.0).to(tl.float32) * size - 0.5
    place = tl.where((place >= -1.0) & (place < size), place, -2.0)
    cell = tl.floor(place)
    return cell.to(tl.int32), place - cell


def _launch_forward(value: Tensor, sizes: list[int], locations: Tensor, logits: Tensor) -> Tensor:
    value, locations, logits = value.contiguous(), locations.contiguous(), logits.contiguous()
    batch, tokens, heads, d = value.shape
    queries = locations.shape[1]
    launch = launches.launch_of("deformable", d, value.dtype, value.device)
    o = torch.empty(batch, queries, heads * d, dtype=value.dtype, device=value.device)
    launches.start(
        _deformable_kernel,
        _grid(launch, value, locations),
        value,
        value,
        locations,
        logits,
        o,
        queries,
        tokens,
        **_constants(launch, sizes, heads, logits.shape[-1], d),
        **launch.options,
    )
    return o


def _launch_backward(
    do: Tensor, value: Tensor, sizes: list[int], locations: Tensor, logits: Tensor, o: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    do, value, o = do.contiguous(), value.contiguous(), o.contiguous()
    locations, logits = locations.contiguous(), logits.contiguous()
    queries, (_, tokens, heads, d) = locations.shape[1], value.shape
    launch = launches.launch_of("deformable_backward", d, value.dtype, value.device)
    deterministic = torch.are_deterministic_algorithms_enabled()
    dvalue = torch.zeros(
        value.shape, dtype=torch.int64 if deterministic else torch.float32, device=value.device
    )
    scale = _scale(do, queries) if deterministic else dvalue
    dlocations = torch.empty(locations.shape, dtype=locations.dtype, device=value.device)
    dlogits = torch.empty(logits.shape, dtype=logits.dtype, device=value.device)
    launches.start(
        _deformable_backward_kernel,
        _grid(launch, value, locations),
        value,
        do,
        value,
        locations,
        logits,
        o,
        dvalue,
        dlocations,
        dlogits,
        scale,
        queries,
        tokens,
        **_constants(launch, sizes, heads, logits.shape[-1], d),
        DETERMINISTIC=deterministic,
        **launch.options,
    )
    if deterministic:
        dvalue = dvalue.double() / scale
    return dvalue.to(value.dtype), dlocations, dlogits


def _scale(do: Tensor, queries: int) -> Tensor:
    """The largest power of two, float32 [1], times which no sum of terms of dvalue passes 2^62.

    What one query adds to a cell is at most its |do|, for its weights sum to 1. NaN where `do` is not finite, and so all of
    dvalue.
    """
    largest = do.abs().amax().double() * queries
    exponent = torch.frexp(largest).exponent.clamp(min=-60)  # keeps the scale within float32
    scale = torch.ldexp(torch.ones_like(largest), 62 - exponent)
    return torch.where(largest.isfinite(), scale, float("nan")).float().reshape(1)


def _grid(launch: Launch, value: Tensor, locations: Tensor) -> tuple[int, int, int]:
    """Heads first: programs side by side then share the rows of locations, logits and o.

    Raises:
        KernelError: a frame so large that places in it do not fit 32 bits.
    """
    batch, tokens, heads, d = value.shape
    queries, _, levels, points, _ = locations.shape[1:]
    check_extents(
        "deformable_attention",
        value=heads * tokens * d,
        o=heads * queries * d,
        locations=heads * queries * levels * points * 2,
    )
    return heads, -(-queries // launch.block_q), batch


def _constants(launch: Launch, sizes: list[int], heads: int, points: int, d: int) -> dict[str, Any]:
    levels = len(sizes) // 2
    return {
        "SIZES": tuple(sizes),
        "LEVELS": levels,
        "POINTS": points,
        "HEADS": heads,
        "D": d,
        "PADDED": 1 << (levels * points - 1).bit_length(),
        "BLOCK_Q": launch.block_q,
    }


_FULL_SIZES = (12, 12, 24, 24, 48, 48)
_BITS = {"fp32": 32, "fp16": 16, "bf16": 16}


def compilations(capability: int) -> list[Compilation]:
    """What `full` launches on a card of this compute capability, 8 heads of 32 (`edge` has no such layer): both kernels in all
    types.

    Also with locations in float32 beside values of 16 bits, as autocast gives them.
    """
    found = []
    for name, kernel, variants in (
        ("deformable", _deformable_kernel, [{}]),
        ("deformable_backward", _deformable_backward_kernel, [{"DETERMINISTIC": no} for no in (False, True)]),
    ):
        for (dtype, bits), variant in itertools.product(_BITS.items(), variants):
            row = launches.row(name, 32, bits, capability)
            for places in dict.fromkeys((dtype, "fp32")):
                found.append(_compilation(name, kernel, row, 32, dtype, places, variant))
    return found


def _compilation(
    name: str, kernel: Any, launch: Launch, d: int, dtype: str, places: str, variant: dict[str, bool]
) -> Compilation:
    deterministic = variant.get("DETERMINISTIC", False)
    pointers = {
        "value_ptr": dtype,
        "locations_ptr": places,
        "logits_ptr": dtype,
        "o_ptr": dtype,
    }
    if variant:
        pointers |= {
            "do_ptr": dtype,
            "dvalue_ptr": "i64" if deterministic else "fp32",
            "dlocations_ptr": places,
            "dlogits_ptr": dtype,
            "scale_ptr": "fp32",
        }
    constants = {**_constants(launch, list(_FULL_SIZES), 8, 4, d), **variant}
    signature = {pointer: f"*{kind}" for pointer, kind in pointers.items()}
    signature |= {"queries": "i32", "tokens": "i32"} | dict.fromkeys(constants, "constexpr")
    title = f"{name} d{d} {dtype}"
    if places != dtype:
        title += f" locations {places}"
    if deterministic:
        title += " deterministic"
    title += f" q{launch.block_q} w{launch.warps}"
    entry = name, d, _BITS[dtype]
    return Compilation(title, kernel, signature, constants, launch, multiplies=False, entry=entry)


def cost(
    batch: int, queries: int, heads: int, d: int, sizes: list[int], points: int, dtype: torch.dtype,
    backward: bool = False,
) -> Cost:  # fmt: skip
    """The fused op, forward or backward alone; each tensor once, for the values of a frame fit every card's cache.

    Operations are the products and sums of formulas and softmax. The backward's sum of dvalue is float32, set to zero, added
    to in the cache, and made 16 bits afterwards: with 16 bits three launches, with float32 two.

    Predictions for one frame of `full` in float16. Forward, 4.8 MB against 125 MB of the chain: 24 us on Orin (205 GB/s), 4.8
    on an RTX 4090 (1008), 1.4 on an H100 (3350). Backward, 12.8 MB against 124: 62, 13 and 3.8 us. These floors will not be
    met: each sample reads four cells from the caches, 74 MB a frame, and the backward adds to four by atomics there, 149 MB.
    At some 5 TB/s of an H100's second level the reads alone are 15 us, less what the first level catches, as neighbours look
    at the same cells. The chain's bytes are 37 us there, and its ten launches take as long again. So expect four to eight
    times the chain, not twenty-six.

    A plain CUDA op that samples in one kernel, as others have it, gathers the same bytes, and only a softmax is saved: expect
    a tie. At small sizes expect a loss, as others saw on a 3090: below some 500 queries blocks of 32 leave an H100 partly
    idle, and outside a CUDA graph the launch through Python, tens of microseconds, is all that is measured.
    """
    value, n, o = _counts(batch, queries, heads, d, sizes, points)
    size = dtype.itemsize
    if not backward:
        return Cost(n * (8 * d + 19), size * (value + 3 * n + o), 1)
    half = size < 4
    moved = size * (2 * o + value + 6 * n) + 4 * value + half * size * value
    return Cost(n * (16 * d + 49) + 2 * o, moved, 2 + half)


def unfused_cost(
    batch: int, queries: int, heads: int, d: int, sizes: list[int], points: int, dtype: torch.dtype,
    backward: bool = False,
) -> Cost:  # fmt: skip
    """The reference as torch runs it operator by operator, all in one type; backward as autograd derives it.

    Every operator reads what it takes and writes what it gives. Views are free; copies that only a batch of more than one
    needs are counted there. The backward of grid_sample fills its gradient with zeros first, as does that of an index: a
    launch each.
    """
    value, n, o = _counts(batch, queries, heads, d, sizes, points)
    levels, batched = len(sizes) // 2, batch > 1
    sampled = n * d
    if not backward:
        moved = 6 * sampled + 13 * n + value + 3 * o + batched * (2 * value + 6 * n)
        return Cost(n * (10 * d + 29), dtype.itemsize * moved, 7 + levels + batched * (2 * levels + 1))
    moved = 5 * sampled + (8 * levels + 11) * n + 5 * value + 2 * o + batched * 2 * o
    return Cost(n * (19 * d + 43 + 2 * levels), dtype.itemsize * moved, 5 + 5 * levels + batched)


def _counts(
    batch: int, queries: int, heads: int, d: int, sizes: list[int], points: int
) -> tuple[int, int, int]:
    """Elements of value, of logits (which is the number of samples), and of o."""
    cells = sum(h * w for h, w in zip(sizes[::2], sizes[1::2], strict=True))
    samples = batch * queries * heads * (len(sizes) // 2) * points
    return batch * cells * heads * d, samples, batch * queries * heads * d
