"""What an exporter that knows standard operators alone puts in the place of an op: the op's reference in plain torch.

A program of `torch.export` holds the ops themselves. Translated it holds the operators of their references instead, which
`torch.onnx.export` knows:

    program = torch.export.export(module, inputs, dynamic_shapes=...)
    torch.onnx.export(translated(program), ...)

So a translation is no second text of the formula that could drift from it. Axes that were dynamic stay so, for which a reference
must read sizes from shapes: `len` makes a number of a size, and torch then takes the axis for a fixed one without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch._ops import OpOverload
from torch.export import ExportedProgram

from . import deformable_attention, masked_attention, memory_clip, memory_step, prompt_attention


def translated(program: ExportedProgram) -> ExportedProgram:
    """`program` with references in the ops' places, and nothing else exchanged; itself where it holds none of the ops."""
    table = decompositions()
    if not any(node.target in table for node in program.graph.nodes):
        return program  # a pass that exchanges nothing would still trace it all again
    return program.run_decompositions(table)


def decompositions() -> dict[OpOverload, Callable[..., Any]]:
    """Each op's overload -> a function of plain torch that takes what the op takes and gives what it gives.

    Only what a network calls when it runs is here: no backward passes, and not `memory_step_`, whose result in a new place is
    that of `memory_step`.
    """
    return {
        **deformable_attention.TRANSLATION,
        **masked_attention.TRANSLATION,
        **memory_clip.TRANSLATION,
        **memory_step.TRANSLATION,
        **prompt_attention.TRANSLATION,
    }
