"""Exported graphs: the contract's names, a dynamic axis, torch's numbers; and parity that notices a difference."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from refavs_rt.bundle import Bundle, graph_file
from refavs_rt.config import TEST
from refavs_rt.contract import GRAPHS, graph_specs
from refavs_rt.engines import open_engine
from refavs_rt.engines.torch import TorchEngine
from refavs_rt.export.agreement import Agreement, ParityError, compare_random
from refavs_rt.model.eemc import EEMC

from .tiny_bundle import tiny_model, write_tiny_bundle


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[EEMC, Bundle]:
    return tiny_model(), write_tiny_bundle(tmp_path_factory.mktemp("export") / "bundle")


@pytest.mark.parametrize("graph", GRAPHS)
def test_names_types_and_axes_are_the_contracts(exported: tuple[EEMC, Bundle], graph: str) -> None:
    proto = onnx.load_from_string(exported[1].read(graph_file(graph)))
    spec = graph_specs(TEST)[graph]
    for values, specs in ((proto.graph.input, spec.inputs), (proto.graph.output, spec.outputs)):
        assert [v.name for v in values] == [s.name for s in specs]
        for value, wanted in zip(values, specs, strict=True):
            dims = tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
            assert dims == wanted.shape
            name = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
            assert name == wanted.dtype


def test_graphs_compute_what_torch_computes(exported: tuple[EEMC, Bundle]) -> None:
    model, bundle = exported
    agreements = compare_random(TEST, open_engine("onnx", bundle), TorchEngine(model), axes=(1, 2, 5, 8))
    for graph in GRAPHS:
        agreements[graph].check(graph)


def test_other_weights_are_refused(exported: tuple[EEMC, Bundle]) -> None:
    """A network that differs in one projection by 1% does not pass for the exported one."""
    model, bundle = exported
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.audio_branch.qkv.weight.mul_(1.01)
    agreements = compare_random(TEST, open_engine("onnx", bundle), TorchEngine(other), axes=(1,))
    with pytest.raises(ParityError, match="audio graph: audio_[qkv] differs"):
        agreements["audio"].check("audio graph")


def test_frozen_text_weights_stay_int8(exported: tuple[EEMC, Bundle]) -> None:
    proto = onnx.load_from_string(exported[1].read("text.onnx"))
    words = [t for t in proto.graph.initializer if list(t.dims) == [TEST.text_vocabulary, TEST.text_width]]
    assert [t.data_type for t in words] == [onnx.TensorProto.INT8]


def test_no_trace_of_the_exporting_machine(exported: tuple[EEMC, Bundle]) -> None:
    for graph in GRAPHS:
        data = exported[1].read(graph_file(graph))
        assert str(Path(__file__).parents[1]).encode() not in data
        proto = onnx.load_from_string(data)
        for tensor in proto.graph.initializer:
            tensor.ClearField("raw_data")  # any bytes may be in it
        assert b".py" not in proto.SerializeToString()


def test_agreement_counts_flipped_pixels() -> None:
    reference = np.full((1, 100, 100), 4.0, np.float32)
    value = reference.copy()
    value[0, 0, :3] = -4
    agreement = Agreement()
    agreement.add("mask_logits", value, reference, 0.4)
    assert agreement.flipped == 3
    assert agreement.iou == pytest.approx(1 - 3 / 10_000)


def test_agreement_refuses_many_wrong_logits() -> None:
    reference = np.full((1, 100, 100), 4.0, np.float32)
    value = reference.copy()
    value[0, :2] += 0.01
    agreement = Agreement()
    agreement.add("mask_logits", value, reference, 0.4)
    with pytest.raises(ParityError, match="mask logits"):
        agreement.check("step")


def test_agreement_refuses_nan() -> None:
    agreement = Agreement()
    agreement.add("presence", np.array([np.nan], np.float32), np.zeros(1, np.float32), 0.4)
    agreement.add("audio_token", np.ones(3, np.float32), np.zeros(3, np.float32), 0.4)
    with pytest.raises(ParityError, match="presence"):
        agreement.check("step")
