"""The contract holds together, and the network keeps it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from refavs_rt.config import EDGE, PRESETS, TEST
from refavs_rt.contract import GRAPHS, contract_hash, graph_specs
from refavs_rt.examples import example_inputs
from refavs_rt.model.eemc import EEMC


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_step_takes_what_the_other_graphs_give(preset: str) -> None:
    """Every output of text, vision and audio is a step input of the same type, and of the same shape but for its first axis."""
    specs = graph_specs(PRESETS[preset])
    step = {spec.name: spec for spec in specs["step"].inputs}
    for graph in ("text", "vision", "audio"):
        for spec in specs[graph].outputs:
            assert step[spec.name].dtype == spec.dtype
            assert step[spec.name].shape[1:] == spec.shape[1:]
            assert step[spec.name].shape[0] == ("N" if graph == "text" else 1)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_names_are_used_once_a_side(preset: str) -> None:
    for graph in graph_specs(PRESETS[preset]).values():
        for side in (graph.inputs, graph.outputs):
            assert len({spec.name for spec in side}) == len(side)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("axis", [1, 3])
def test_the_network_keeps_the_contract(graph: str, axis: int) -> None:
    model = EEMC(TEST).eval()
    spec = graph_specs(TEST)[graph]
    inputs = example_inputs(spec, axis, np.random.default_rng(axis), TEST.text_vocabulary)
    with torch.no_grad():
        outputs = getattr(model, graph)(*(torch.from_numpy(inputs[x.name]) for x in spec.inputs))
    assert len(outputs) == len(spec.outputs)
    for value, wanted in zip(outputs, spec.outputs, strict=True):
        assert tuple(value.shape) == tuple(axis if isinstance(n, str) else n for n in wanted.shape), (
            wanted.name
        )
        assert str(value.dtype) == f"torch.{wanted.dtype}"
        assert torch.isfinite(value).all()


@pytest.mark.parametrize(
    "change", [{"width": 240}, {"window_ticks": 9}, {"image_size": 320}, {"decoder_layers": 4}]
)
def test_another_shape_has_another_hash(change: dict[str, int]) -> None:
    assert contract_hash(dataclasses.replace(EDGE, **change)) != contract_hash(EDGE)


def test_what_the_graphs_do_not_show_does_not_change_the_hash() -> None:
    assert contract_hash(dataclasses.replace(EDGE, preset="other", beta=2.0)) == contract_hash(EDGE)
