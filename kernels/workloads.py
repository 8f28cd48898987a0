"""Calls of every op at the shapes that the presets `edge` and `full` give it: what is tuned, and what `make gpu` measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import deformable_attention as deformable
from . import masked_attention as masked
from . import memory_clip as clip
from . import memory_step as step
from . import prompt_attention as prompt
from .launch import Cost
from .partial_attention import band_mask


@dataclass(frozen=True)
class Workload:
    """One call of one op."""

    op: str
    shape: str
    """What is particular of it, for people: preset, sentences, direction."""
    rows: tuple[str, ...]
    """Kernels of the table that it launches."""
    head: int
    """Head size, the other half of the table's key."""
    make: Callable[[torch.dtype, torch.device], dict[str, Any]]
    """Random arguments of `run` of a type on a device; those that are differentiated ask for gradients where `backward`."""
    run: Callable[..., Any]
    """The op's public function."""
    reference: Callable[..., Any]
    """The same in plain torch, of the same arguments."""
    cost: Callable[[torch.dtype], Cost]
    unfused: Callable[[torch.dtype], Cost]
    backward: bool = False
    """Whether forward and backward are run, not forward alone."""

    @property
    def name(self) -> str:
        """Unique."""
        return f"{self.op}: {self.shape}"

    def call(self, function: Callable[..., Any], arguments: dict[str, Any]) -> Callable[[], Any]:
        """`function` of the arguments, with no gradients or with a backward pass behind it."""
        if not self.backward:

            def forward() -> Any:
                with torch.inference_mode():
                    return function(**arguments)

            return forward
        leaves = [x for x in arguments.values() if isinstance(x, Tensor) and x.requires_grad]

        def both() -> Any:
            out = function(**arguments)
            outputs = [x for x in (out if isinstance(out, tuple) else (out,)) if x.requires_grad]
            return torch.autograd.grad(outputs, leaves, [torch.ones_like(x) for x in outputs])

        return both


@dataclass(frozen=True)
class _Shape:
    """What a preset gives the ops."""

    preset: str
    tokens: int
    heads: int
    head: int
    queries: int
    prompt_heads: int
    prompt_head: int
    decoder_heads: int
    pixels: tuple[int, ...]
    """Of a frame at each level of the mask decoder."""
    cues: int
    words: int = 25
    slots: int = 9


_EDGE = _Shape("edge", 64, 6, 32, 8, 6, 32, 6, (64, 256, 1024), 101)
_FULL = _Shape("full", 144, 8, 128, 100, 4, 64, 8, (144, 576, 2304), 181)
_SENTENCES = (1, 8)
_FULL_SIZES = [12, 12, 24, 24, 48, 48]


def workloads() -> list[Workload]:
    """All of them, the step's first."""
    return [*_steps(), *_rings(), *_prompts(), *_masks(), *_deformables(), *_clips()]


def random_arguments(
    shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, device: torch.device, grad: bool = False
) -> dict[str, Tensor]:
    """Normal numbers, the same every time."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(shape, generator=generator).to(device, dtype).requires_grad_(grad)
        for name, shape in shapes.items()
    }


def _steps() -> Iterator[Workload]:
    for s in (_EDGE, _FULL):
        for n in _SENTENCES:
            for tokens, what in ((s.tokens, "picture"), (1, "sound")):
                counts = dict(
                    tokens=tokens, words=s.words, sentences=n, slots=s.slots, heads=s.heads, head_size=s.head
                )

                def make(dtype: torch.dtype, device: torch.device, s=s, n=n, tokens=tokens) -> dict[str, Any]:
                    width = s.heads * s.head
                    shapes = {
                        **dict.fromkeys(("q", "k", "v"), (tokens, width)),
                        **dict.fromkeys(("ring_k", "ring_v"), (s.slots, tokens, width)),
                        **dict.fromkeys(("text_q", "text_k", "text_v"), (n, s.words, width)),
                    }
                    return {
                        **random_arguments(shapes, dtype, device),
                        "ring_seen": torch.ones(s.slots, dtype=torch.bool, device=device),
                        "text_mask": torch.ones(n, s.words, dtype=torch.bool, device=device),
                        "mean": torch.randn(n, tokens, width, device=device),
                        "weight": torch.full((n,), 0.1, device=device),
                        "beta": 1.0,
                        "heads": s.heads,
                    }

                yield Workload(
                    "memory_step",
                    f"{s.preset}, {what}, {_many(n, 'sentence')}",
                    ("memory_step",),
                    s.head,
                    make,
                    step.memory_step,
                    step.memory_step_reference,
                    _by_size(step.cost, **counts),
                    _by_size(step.unfused_cost, **counts),
                )


def _rings() -> Iterator[Workload]:
    for s in (_EDGE, _FULL):
        counts = dict(cameras=1, tokens=s.tokens, slots=s.slots, heads=s.heads, head_size=s.head)

        def make(dtype: torch.dtype, device: torch.device, s=s) -> dict[str, Any]:
            width = s.heads * s.head
            present, ring = (1, s.tokens, width), (1, s.slots, s.tokens, width)
            shapes = {**dict.fromkeys(("q", "k", "v"), present), **dict.fromkeys(("ring_k", "ring_v"), ring)}
            seen = torch.ones(1, s.slots, dtype=torch.bool, device=device)
            return {**random_arguments(shapes, dtype, device), "ring_seen": seen, "heads": s.heads}

        yield Workload(
            "ring_attention",
            s.preset,
            ("memory_ring",),
            s.head,
            make,
            step.ring_attention,
            step.ring_attention_reference,
            _by_size(step.ring_cost, **counts),
            _by_size(step.unfused_ring_cost, **counts),
        )


def _prompts() -> Iterator[Workload]:
    for s in (_EDGE, _FULL):
        for n, backward in ((1, False), (8, False), (12, True)):
            counts = (n, s.queries, s.cues, s.prompt_heads * s.prompt_head, s.prompt_heads)

            def make(dtype: torch.dtype, device: torch.device, s=s, n=n, backward=backward) -> dict[str, Any]:
                width = s.prompt_heads * s.prompt_head
                shapes = {
                    **dict.fromkeys(("queries", "q"), (s.queries, width)),
                    **dict.fromkeys(("k", "v", "source"), (n, s.cues, width)),
                    "out_weight": (width, width),
                    "out_bias": (width,),
                    **dict.fromkeys(("gate_attention", "gate_mean"), ()),
                }
                mask = torch.ones(n, s.cues, dtype=torch.bool, device=device)
                found = random_arguments(shapes, dtype, device, backward)
                return {**found, "mask": mask, "heads": s.prompt_heads}

            yield Workload(
                "prompt_attention",
                f"{s.preset}, {_many(n, 'sentence-frame')}{', and backward' if backward else ''}",
                ("prompt", *(("prompt_dq", "prompt_dkv") if backward else ())),
                s.prompt_head,
                make,
                prompt.prompt_attention,
                lambda **x: prompt.prompt_attention_reference(**x)[:2],
                _both(prompt.cost, counts, backward),
                _both(prompt.unfused_cost, counts, backward),
                backward,
            )


def _masks() -> Iterator[Workload]:
    cases = [(_EDGE, 1, _EDGE.pixels[2], False), (_EDGE, 8, _EDGE.pixels[2], False)]
    cases += [(_FULL, n, pixels, False) for n in _SENTENCES for pixels in _FULL.pixels]
    cases += [(_FULL, 6, _FULL.pixels[1], True)]
    for s, n, pixels, backward in cases:
        counts = (1, n * s.queries, pixels, s.decoder_heads * 32, s.decoder_heads)

        def make(
            dtype: torch.dtype, device: torch.device, s=s, n=n, pixels=pixels, backward=backward
        ) -> dict[str, Any]:
            width, queries = s.decoder_heads * 32, n * s.queries
            shapes = {"q": (1, queries, width), **dict.fromkeys(("k", "v"), (1, pixels, width))}
            logits = torch.randn(1, queries, pixels, device=device).to(dtype)
            return {
                **random_arguments(shapes, dtype, device, backward),
                "logits": logits,
                "heads": s.decoder_heads,
            }

        yield Workload(
            "masked_attention",
            f"{s.preset}, {_many(n, 'sentence')}, {pixels} pixels{', and backward' if backward else ''}",
            ("masked_attention", *(("masked_attention_dq", "masked_attention_dkv") if backward else ())),
            32,
            make,
            masked.masked_attention,
            lambda **x: masked.masked_attention_reference(**x)[0],
            _both(masked.cost, counts, backward),
            _both(masked.unfused_cost, counts, backward),
            backward,
        )


def _deformables() -> Iterator[Workload]:
    tokens = sum(h * w for h, w in zip(_FULL_SIZES[::2], _FULL_SIZES[1::2], strict=True))
    for batch, backward in ((1, False), (1, True)):

        def make(dtype: torch.dtype, device: torch.device, batch=batch, backward=backward) -> dict[str, Any]:
            generator = torch.Generator().manual_seed(2)
            samples = (batch, tokens, 8, 3, 4)
            found = random_arguments(
                {"value": (batch, tokens, 8, 32), "logits": samples}, dtype, device, backward
            )
            # Around each query's own place, as trained offsets are, of which the published start is 1 to 4 cells.
            places = [
                torch.stack(
                    torch.meshgrid((torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h, indexing="xy"),
                    -1,
                )
                for h, w in zip(_FULL_SIZES[::2], _FULL_SIZES[1::2], strict=True)
            ]
            own = torch.cat([x.flatten(0, 1) for x in places])[None, :, None, None, None]
            cells = torch.tensor(_FULL_SIZES[::2])[:, None, None]
            offsets = torch.randn(*samples, 2, generator=generator) * 2.0 / cells
            locations = (own + offsets).to(device, dtype).requires_grad_(backward)
            return {**found, "locations": locations, "sizes": _FULL_SIZES}

        def cost(of: Callable[..., Cost], dtype: torch.dtype, batch=batch, backward=backward) -> Cost:
            counts = batch, tokens, 8, 32, _FULL_SIZES, 4, dtype
            return of(*counts) if not backward else _sum(of(*counts), of(*counts, backward=True))

        yield Workload(
            "deformable_attention",
            f"full{', and backward' if backward else ''}",
            ("deformable", *(("deformable_backward",) if backward else ())),
            32,
            make,
            deformable.deformable_attention,
            deformable.deformable_attention_reference,
            partial(cost, deformable.cost),
            partial(cost, deformable.unfused_cost),
            backward,
        )


def _clips() -> Iterator[Workload]:
    for s in (_EDGE, _FULL):
        for tokens, what in ((s.tokens, "picture"), (1, "sound")):
            for backward in (False, True):
                shape = clip.ClipShape(2, 6, 10, 10, tokens, s.words, s.heads, s.head)

                def make(
                    dtype: torch.dtype, device: torch.device, c=shape, backward=backward
                ) -> dict[str, Any]:
                    shapes = {
                        **dict.fromkeys(("q", "k", "v"), (c.clips, c.ticks, c.tokens, c.width)),
                        **dict.fromkeys(
                            ("text_q", "text_k", "text_v"), (c.clips, c.sentences, c.length, c.width)
                        ),
                    }
                    added_at = torch.zeros(c.clips, c.sentences, dtype=torch.int64, device=device)
                    return {
                        **random_arguments(shapes, dtype, device, backward),
                        "seen": band_mask(c.ticks, c.window, device),
                        "text_mask": torch.ones(
                            c.clips, c.sentences, c.length, dtype=torch.bool, device=device
                        ),
                        "weight": clip.cumulative_weight(added_at, c.ticks),
                        "beta": torch.ones((), device=device),
                        "heads": c.heads,
                    }

                def cost(of: Callable[..., Cost], dtype: torch.dtype, c=shape, backward=backward) -> Cost:
                    bits = dtype.itemsize * 8
                    return of(c, bits) if not backward else _sum(of(c, bits), of(c, bits, backward=True))

                parts = ("visual", "text", *(("dq", "dkv", "dtext") if backward else ()))
                yield Workload(
                    "memory_clip",
                    f"{s.preset}, {what}, 2 clips of 6 sentences{', and backward' if backward else ''}",
                    tuple(f"memory_clip_{part}" for part in parts),
                    s.head,
                    make,
                    clip.memory_clip,
                    lambda **x: clip.memory_clip_reference(**x)[:2],
                    partial(cost, clip.cost),
                    partial(cost, clip.unfused_cost),
                    backward,
                )


def _by_size(of: Callable[..., Cost], **counts: int) -> Callable[[torch.dtype], Cost]:
    def cost(dtype: torch.dtype) -> Cost:
        return of(itemsize=dtype.itemsize, **counts)

    return cost


def _both(of: Callable[..., Cost], counts: tuple[int, ...], backward: bool) -> Callable[[torch.dtype], Cost]:
    def cost(dtype: torch.dtype) -> Cost:
        forward = of(*counts, dtype.itemsize)
        return _sum(forward, of(*counts, dtype.itemsize, backward=True)) if backward else forward

    return cost


def _sum(a: Cost, b: Cost) -> Cost:
    return Cost(a.operations + b.operations, a.bytes + b.bytes, a.launches + b.launches)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count > 1 else "")
