"""Static int8: quantised values in a graph (QuantizeLinear, DequantizeLinear) by ONNX Runtime's own quantiser, layer by layer.

Weights are symmetric, per channel and of 7 bits: a CPU without VNNI adds two products of uint8 and int8 in 16 bits, which 8 bits
overflow. Activations are asymmetric uint8, whose ranges are percentiles over recorded inputs: on a
CPU the range of uint8 takes the place of a following Relu or Clip.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from .simplify import prepare

LAYERS = ("Conv", "MatMul", "Gemm")
"""Operators with weights, which int8 makes faster."""
_BETWEEN = ("Add", "Resize", "Relu", "Clip")
"""What may stand between two of them, so that values need not be widened on their way. Only in graphs of convolutions: what a
transformer adds up is kept in float32."""
_ACTIVATIONS = ("Relu", "Clip")
_PERCENTILE = 99.99
_BINS = 2_048

Sample = Mapping[str, NDArray[Any]]
"""The inputs of one run, by name."""


class Quantiser:
    """One graph, ready to be quantised in part or in whole.

    Args:
        data: the serialised float32 graph.
        samples: real inputs of the graph, for the ranges of its activations.
    """

    def __init__(self, data: bytes, samples: Sequence[Sample]) -> None:
        self._graph = prepare(data)
        has_convolutions = any(node.op_type == "Conv" for node in self._graph.graph.node)
        self._operators = LAYERS + (_BETWEEN if has_convolutions else ())
        self._ranges = _calibrate(self._graph, self._operators, samples)
        self.units = _units(self._graph, self._operators)
        """Name of a layer -> its nodes: the layer and an activation that follows it, quantised or kept as a whole."""

    def quantise(self, keep: Collection[str]) -> bytes:
        """The graph with all units in int8 but those in `keep`."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self._graph)
        nodes = [node for name, nodes in self.units.items() if name not in keep for node in nodes]
        if not nodes:
            return proto.SerializeToString()
        with _quiet():
            quantiser = QDQQuantizer(
                proto,
                per_channel=True,
                reduce_range=True,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self._ranges,
                nodes_to_quantize=nodes,
                nodes_to_exclude=[],
                op_types_to_quantize=list(self._operators),
                extra_options={
                    "ActivationSymmetric": False,
                    "WeightSymmetric": True,
                    "MatMulConstBOnly": True,
                    # A range from zero can take the place of a Relu, but not where ranges are made symmetric (engine_graph).
                    "QDQKeepRemovableActivations": True,
                },
            )
            quantiser.quantize_model()
        quantiser.model.topological_sort()
        quantised: bytes = quantiser.model.model.SerializeToString()
        return quantised


def _calibrate(proto: onnx.ModelProto, operators: Sequence[str], samples: Sequence[Sample]) -> TensorsData:
    with tempfile.TemporaryDirectory(prefix="refavs-int8-") as scratch, _quiet():
        source = Path(scratch, "float.onnx")
        onnx.save(proto, source)
        calibrator = create_calibrator(
            source,
            list(operators),
            augmented_model_path=str(Path(scratch, "augmented.onnx")),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"percentile": _PERCENTILE, "num_bins": _BINS},
        )
        for sample in samples:  # one at a time: every activation of what it is given at once is kept
            calibrator.collect_data(_Reader([sample]))
        return calibrator.compute_data()


def _units(proto: onnx.ModelProto, operators: Sequence[str]) -> dict[str, tuple[str, ...]]:
    constants = {tensor.name for tensor in proto.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    units: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    for node in proto.graph.node:
        if node.op_type not in operators or node.name in taken:
            continue
        if node.op_type in LAYERS and node.input[1] not in constants:
            continue
        unit = [node.name]
        following = readers.get(node.output[0], [])
        if len(following) == 1 and following[0].op_type in _ACTIVATIONS and following[0].op_type in operators:
            unit.append(following[0].name)
        taken.update(unit)
        units[node.name] = tuple(unit)
    return units


class _Reader(CalibrationDataReader):  # type: ignore[misc] # the library is not typed
    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        sample = next(self._samples, None)
        return None if sample is None else {name: np.asarray(value) for name, value in sample.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library prints its progress and advises through the root logger; errors still come as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
