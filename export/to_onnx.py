"""The four ONNX graphs of a bundle, from a network in torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from refavs_rt.contract import GRAPHS, GraphSpec, graph_specs
from refavs_rt.examples import example_inputs
from refavs_rt.kernels.translation import translated
from refavs_rt.model.eemc import EEMC

from .compact import fold, store_half
from .simplify import simplify

OPSET = 18

_EXAMPLE_AXIS = 2
"""Size of the dynamic axis in the example inputs; 1 would be specialised away."""


def export_graphs(
    model: EEMC,
    progress: Callable[[str], None] = lambda stage: None,
    *,
    sentences: tuple[int, int] | None = None,
    names: Sequence[str] = GRAPHS,
) -> dict[str, bytes]:
    """Export `model` graph by graph. The model is made compact in place first (`compact.fold`).

    Args:
        progress: called with each graph's name before its export.
        sentences: the smallest and the largest N that is declared to torch; None: from one to the model's limit.
        names: of the graphs that are wanted.

    Returns:
        {graph name: serialised ONNX model}, all names and axes as in the contract, checked by `onnx.checker`.
    """
    model = model.eval().float().cpu()
    fold(model.backbone)
    graphs = {}
    for name in names:
        progress(name)
        graphs[name] = _export(
            model, graph_specs(model.config)[name], sentences or (1, model.config.max_sentences)
        )
    return graphs


class _Graph(nn.Module):
    """One graph function of the network as a module, which is what the exporter takes."""

    def __init__(self, model: EEMC, name: str) -> None:
        super().__init__()
        self.model = model
        self.function = getattr(EEMC, name)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.function(self.model, *inputs)
        return outputs


def _export(model: EEMC, graph: GraphSpec, sentences: tuple[int, int]) -> bytes:
    named = example_inputs(graph, _EXAMPLE_AXIS, np.random.default_rng(0), model.config.text_vocabulary)
    inputs = tuple(torch.from_numpy(named[spec.name]) for spec in graph.inputs)
    axes = {
        "N": torch.export.Dim("N", min=1, max=max(sentences[1], _EXAMPLE_AXIS)),
        "B": torch.export.Dim("B", min=1),
    }
    dynamic = tuple(
        {i: axes[size] for i, size in enumerate(spec.shape) if isinstance(size, str)} for spec in graph.inputs
    )
    with _quiet(), torch.no_grad():
        program = torch.export.export(_Graph(model, graph.name), inputs, dynamic_shapes=(dynamic,))
        exported = torch.onnx.export(
            translated(program),
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in graph.inputs],
            output_names=[spec.name for spec in graph.outputs],
            optimize=True,
            verbose=False,
        )
    assert exported is not None
    proto = simplify(exported.model_proto)
    _name_axes(proto, graph)
    _strip_metadata(proto)
    store_half(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def _name_axes(proto: onnx.ModelProto, graph: GraphSpec) -> None:
    """Give inputs and outputs the contract's shapes, dynamic axes by letter."""
    for values, specs in ((proto.graph.input, graph.inputs), (proto.graph.output, graph.outputs)):
        for value, spec in zip(values, specs, strict=True):
            if value.name != spec.name:
                raise RuntimeError(f"the exporter named {spec.name!r} {value.name!r}")
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            for size in spec.shape:
                dim = shape.dim.add()
                if isinstance(size, str):
                    dim.dim_param = size
                else:
                    dim.dim_value = size


def _strip_metadata(proto: onnx.ModelProto) -> None:
    """Drop the exporter's traces: they name source files of the machine and are larger than the small graphs."""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.value_info[:]
    for values in (proto.graph.input, proto.graph.output, proto.graph.initializer):
        for value in values:
            del value.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]
    proto.doc_string = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and warns of its own deprecations; errors still come as exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
