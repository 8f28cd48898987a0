"""The four ONNX graphs of a bundle, from a network in torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator

import onnx
import torch
from torch import Tensor, nn

from refavs_rt.contract import GRAPHS, GraphSpec, TensorSpec, graph_specs
from refavs_rt.kernels.translation import translated
from refavs_rt.model.eemc import EEMC

from .compact import fold, store_half

OPSET = 18

_DTYPES = {"float32": torch.float32, "int64": torch.int64, "bool": torch.bool}
_EXAMPLE_AXIS = 2
"""Size of the dynamic axis in the example inputs; 1 would be specialised away."""


def export_graphs(model: EEMC, progress: Callable[[str], None] = lambda stage: None) -> dict[str, bytes]:
    """Export `model` graph by graph. The model is made compact in place first (`compact.fold`).

    Args:
        progress: called with each graph's name before its export.

    Returns:
        {graph name: serialised ONNX model}, all names and axes as in the contract, checked by `onnx.checker`.
    """
    model = model.eval().float().cpu()
    fold(model.backbone)
    graphs = {}
    for name in GRAPHS:
        progress(name)
        graphs[name] = _export(model, graph_specs(model.config)[name])
    return graphs


def example_inputs(graph: GraphSpec, axis: int, generator: torch.Generator, vocabulary: int) -> list[Tensor]:
    """Random inputs that fulfil the contract, with `axis` for its dynamic axis.

    Masks and rings hold empty and full slots, as a running stream has them.
    """
    return [_example(spec, axis, generator, vocabulary) for spec in graph.inputs]


class _Graph(nn.Module):
    """One graph function of the network as a module, which is what the exporter takes."""

    def __init__(self, model: EEMC, name: str) -> None:
        super().__init__()
        self.model = model
        self.function = getattr(EEMC, name)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.function(self.model, *inputs)
        return outputs


def _export(model: EEMC, graph: GraphSpec) -> bytes:
    generator = torch.Generator().manual_seed(0)
    inputs = example_inputs(graph, _EXAMPLE_AXIS, generator, model.config.text_vocabulary)
    dynamic = tuple(
        {i: torch.export.Dim.DYNAMIC for i, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in graph.inputs
    )
    with _quiet(), torch.no_grad():
        program = torch.export.export(_Graph(model, graph.name), tuple(inputs), dynamic_shapes=(dynamic,))
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
    proto = exported.model_proto
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


def _example(spec: TensorSpec, axis: int, generator: torch.Generator, vocabulary: int) -> Tensor:
    shape = [axis if isinstance(size, str) else size for size in spec.shape]
    if spec.name == "token_ids":
        return torch.randint(0, vocabulary, shape, generator=generator)
    if spec.name == "token_mask":
        lengths = torch.randint(1, shape[1] + 1, (shape[0], 1), generator=generator)
        return torch.arange(shape[1]) < lengths
    if spec.name == "ring_age":
        filled = int(torch.randint(0, shape[1] + 1, (1,), generator=generator))
        ages = torch.zeros(shape, dtype=torch.int64)
        ages[:, :filled] = torch.randperm(filled, generator=generator) + 1
        return ages
    if spec.name == "memory_count":
        return torch.randint(0, 30, shape, generator=generator)
    if spec.name == "memory_weight":
        return torch.rand(shape, generator=generator).clamp(min=0.05)
    if spec.dtype == "bool":
        return torch.rand(shape, generator=generator) > 0.3
    return torch.randn(shape, generator=generator, dtype=_DTYPES[spec.dtype])


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
