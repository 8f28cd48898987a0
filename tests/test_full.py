"""The preset `full`: transformers' own Mask2Former where the prompt's gates are closed, its published weights, its streams."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Mask2FormerForUniversalSegmentation, RobertaForMaskedLM

from refavs_rt.config import EDGE, FULL, IMAGENET_MEAN, IMAGENET_STD, TEST
from refavs_rt.contract import PYRAMID_STRIDES, graph_specs
from refavs_rt.model.decoder import QueryPrediction
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.hub import WeightsError
from refavs_rt.model.load_report import LoadReport
from refavs_rt.model.roberta import roberta_config, roberta_state
from refavs_rt.model.swin import mask2former_config, mask2former_state

from .full_small import FULL_SMALL
from .test_streaming import make_clip, make_model, run_clip, stream

MASK2FORMER_MEAN, MASK2FORMER_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def published(folder: Path, labels: int = 1, seed: int = 0) -> Mask2FormerForUniversalSegmentation:
    """A Mask2Former of random weights, saved by transformers itself; nothing in it is left at zero."""
    torch.manual_seed(seed)
    config = mask2former_config(FULL_SMALL)
    config.num_labels = labels
    model = Mask2FormerForUniversalSegmentation(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    return model


def as_older_files(folder: Path, **more: Tensor) -> None:
    """Add what published files hold beside the weights: Swin's table of relative positions, or `more`."""
    path = folder / "model.safetensors"
    state = load_file(path)
    prefix = "model.pixel_level_module.encoder.encoder.layers.0.blocks.0.attention.self"
    save_file(
        state | (more or {f"{prefix}.relative_position_index": torch.zeros(16, 16)}), path, {"format": "pt"}
    )


def load(model: EEMC, state: dict[str, Tensor]) -> None:
    outcome = model.load_state_dict(state, strict=False)
    assert not outcome.unexpected_keys


def predict(model: EEMC, frame: Tensor) -> tuple[list[QueryPrediction], Tensor]:
    """Predictions of the mask decoder for queries that no cue has prompted, and the mask features."""
    memory = model.pixel_decoder(model.backbone(frame))
    cues = torch.randn(1, 9, FULL_SMALL.decoder_width, dtype=frame.dtype)
    queries, _ = model.prompting(model.queries, cues, torch.ones(1, 9, dtype=torch.bool))
    _, predictions = model.decoder(queries[None], model.query_place, memory)
    return predictions, memory.mask_features


def test_with_closed_gates_and_empty_adapters_it_is_mask2former(tmp_path: Path) -> None:
    theirs = published(tmp_path).double()
    as_older_files(tmp_path)
    model = EEMC(FULL_SMALL).eval()
    state, report = mask2former_state(FULL_SMALL, str(tmp_path))
    assert report == LoadReport()
    load(model, state)
    model.double()
    with torch.no_grad():
        model.prompting.gate_attention.fill_(-torch.inf)
        model.prompting.gate_mean.fill_(-torch.inf)
        picture = torch.rand(1, 3, 64, 64, dtype=torch.float64)

        def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
            return (picture - torch.tensor(mean).double()[:, None, None]) / torch.tensor(std).double()[
                :, None, None
            ]

        expected = theirs(normalised(MASK2FORMER_MEAN, MASK2FORMER_STD), output_auxiliary_logits=True)
        ours, features = predict(model, normalised(IMAGENET_MEAN, IMAGENET_STD))

    def masks(prediction: QueryPrediction) -> Tensor:
        return torch.einsum("bnqd,bdhw->bnqhw", prediction.embeddings, features)[:, 0]

    # float32 constants of the two normalisations leave 1e-7 of a difference
    torch.testing.assert_close(masks(ours[-1]), expected.masks_queries_logits, atol=1e-5, rtol=1e-5)
    swapped = ours[-1].object_logits[:, 0].flip(-1)  # theirs: (object, nothing)
    torch.testing.assert_close(swapped, expected.class_queries_logits, atol=1e-5, rtol=1e-5)
    assert len(ours) == FULL_SMALL.decoder_layers + 1 == len(expected.auxiliary_logits) + 1
    for prediction, auxiliary in zip(ours, expected.auxiliary_logits, strict=False):
        torch.testing.assert_close(masks(prediction), auxiliary["masks_queries_logits"], atol=1e-5, rtol=1e-5)


def test_an_open_gate_or_an_adapter_changes_it(tmp_path: Path) -> None:
    """The parity above would be worth nothing if gates and adapters had no part in the outcome."""
    published(tmp_path)
    model = EEMC(FULL_SMALL).eval()
    load(model, mask2former_state(FULL_SMALL, str(tmp_path))[0])
    frame = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.manual_seed(1)
        before = predict(model, frame)[0][-1].embeddings
        pixels: Any = model.pixel_decoder
        pixels.decoder.encoder.layers[0].self_attn.output_proj.adapter[2].weight.normal_()
        torch.manual_seed(1)
        adapted = predict(model, frame)[0][-1].embeddings
        model.prompting.gate_mean.fill_(-torch.inf)
        torch.manual_seed(1)
        closed = predict(model, frame)[0][-1].embeddings
    assert (adapted - before).abs().max() > 1e-3
    assert (closed - adapted).abs().max() > 1e-3


def test_a_class_head_of_another_size_is_reported_and_its_ends_are_taken(tmp_path: Path) -> None:
    theirs = published(tmp_path, labels=5)
    state, report = mask2former_state(FULL_SMALL, str(tmp_path))
    assert report.missing == report.unexpected == []
    width = FULL_SMALL.decoder_width
    assert report.mismatched == [
        ("class_predictor.bias", (6,), (2,)),
        ("class_predictor.weight", (6, width), (2, width)),
    ]
    head = theirs.class_predictor
    torch.testing.assert_close(state["decoder.object.weight"], head.weight[[5, 0]])
    torch.testing.assert_close(state["decoder.object.bias"], head.bias[[5, 0]])


def test_every_weight_of_mask2former_finds_its_place(tmp_path: Path) -> None:
    """All that the visual half of EEMC has, adapters excepted, comes from the file, and all of the file goes there."""
    theirs = published(tmp_path)
    model = EEMC(FULL_SMALL)
    state, _ = mask2former_state(FULL_SMALL, str(tmp_path))
    halves = ("backbone.", "pixel_decoder.", "decoder.", "queries", "query_place")
    expected = {n for n, _ in model.named_parameters() if n.startswith(halves) and ".adapter." not in n}
    buffers = {n for n, _ in model.named_buffers()}
    assert expected <= set(state)
    assert set(state) - expected <= buffers
    ours = sum(state[name].numel() for name in expected)
    assert ours == sum(p.numel() for p in theirs.parameters())


def test_roberta_loads_from_a_folder_in_the_hubs_format(tmp_path: Path) -> None:
    torch.manual_seed(4)
    theirs = RobertaForMaskedLM(roberta_config(FULL_SMALL)).eval()
    theirs.save_pretrained(tmp_path)
    pooler = {"roberta.pooler.dense.weight": torch.ones(16, 16), "roberta.pooler.dense.bias": torch.ones(16)}
    as_older_files(tmp_path, **pooler)
    state, report = roberta_state(FULL_SMALL, str(tmp_path))
    assert report == LoadReport()
    model = EEMC(FULL_SMALL).eval()
    load(model, state)
    assert {n for n, _ in model.named_parameters() if n.startswith("text_encoder.")} <= set(state)
    ids = torch.randint(5, 100, (3, 6))
    mask = torch.arange(6) < torch.tensor([[6], [4], [1]])
    ids[~mask] = 1
    with torch.no_grad():
        expected = theirs.roberta(ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(model.text_encoder(ids, mask)[mask], expected[mask])


def test_a_file_of_another_size_is_told(tmp_path: Path) -> None:
    published(tmp_path)
    wider = dataclasses.replace(FULL_SMALL, decoder_hidden=40)
    _, report = mask2former_state(wider, str(tmp_path))
    assert ("model.transformer_module.decoder.layers.0.fc1.bias", (24,), (40,)) in report.mismatched


def test_stream_equals_clip() -> None:
    model = make_model(FULL_SMALL, torch.float64)
    clip = make_clip(FULL_SMALL, torch.float64, 2, 9)
    added_at = (0, 3)
    with torch.no_grad():
        whole = run_clip(model, clip, added_at)
        results, _ = stream(model, clip, added_at, None)
    for tick, result in enumerate(results):
        alive = [i for i, start in enumerate(added_at) if start <= tick]
        torch.testing.assert_close(
            result.mask_logits, whole.mask_logits[0, tick, alive], atol=1e-9, rtol=1e-9
        )
        torch.testing.assert_close(result.presence, whole.presence[0, tick, alive], atol=1e-9, rtol=1e-9)


def test_the_sizes_are_the_papers() -> None:
    """Shapes that the paper and the published weights fix, from the configuration alone."""
    with torch.device("meta"):
        model = EEMC(FULL)
    state = model.state_dict()
    assert FULL.visual_tokens == 144 and FULL.window_ticks == 10 and FULL.text_tokens == 25
    assert state["queries"].shape == (100, 256)
    assert state["visual_branch.qkv.weight"].shape == (3 * 1024, 1024) and model.visual_branch.heads == 8
    assert model.prompting.attention.heads == 4 and state["prompting.attention.q.weight"].shape == (256, 256)
    assert state["pixel_decoder.decoder.encoder.layers.5.self_attn.output_proj.adapter.0.weight"].shape == (
        64,
        256,
    )
    assert len(model.decoder.layers) == 9
    steps = {spec.name: spec.shape for spec in graph_specs(FULL)["step"].inputs}
    assert steps["pixel_k_8"] == (1, (384 // PYRAMID_STRIDES[2]) ** 2, 256)
    swin = sum(p.numel() for n, p in model.named_parameters() if n.startswith("backbone."))
    assert swin == pytest.approx(87e6, rel=0.01)


def test_what_trains() -> None:
    model = EEMC(FULL_SMALL)
    trained = model.trained_parameters()
    frozen = {name for name, _ in model.named_parameters()} - trained
    assert "visual_branch.qkv.weight" in trained and "decoder.object.weight" in trained
    assert "pixel_decoder.decoder.encoder.layers.0.self_attn.output_proj.adapter.0.weight" in trained
    assert "pixel_decoder.decoder.encoder.layers.0.self_attn.output_proj.weight" in frozen
    assert {"queries", "query_place", "decoder.layers.0.cross.q.weight"} <= frozen
    authors = model.trained_parameters("authors")
    assert authors < trained
    assert "visual_branch.qkv.weight" not in authors and "prompting.gate_mean" in authors
    edge = EEMC(TEST)
    untrained = {name for name, _ in edge.named_parameters()} - edge.trained_parameters()
    assert {name.split(".")[0] for name in untrained} == {"backbone", "text_encoder"}
    with pytest.raises(ValueError, match="preset full, not test"):
        edge.trained_parameters("authors")


def test_presets_share_all_but_their_encoders() -> None:
    """The same classes stand at the same names in `edge` and `full`, encoders and their projections excepted."""
    with torch.device("meta"):
        edge, full = EEMC(EDGE), EEMC(FULL)

    def classes(model: nn.Module) -> dict[str, type]:
        encoders = {
            "backbone",
            "visual_tokens",
            "pixel_decoder",
            "text_encoder",
            "text_project",
            "audio_encoder",
        }
        return {n: type(m) for n, m in model.named_children() if n not in encoders}

    assert classes(edge) == classes(full)
    assert len(classes(edge)) == 6


@pytest.mark.parametrize("load_state", [mask2former_state, roberta_state])
def test_folders_that_cannot_be_loaded(load_state, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is no folder, and the hub does not give it"):
        load_state(FULL_SMALL, str(tmp_path / "missing"))
    with pytest.raises(WeightsError, match="not a whole folder in the hub's format"):
        load_state(FULL_SMALL, str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{broken}")
    with pytest.raises(WeightsError, match="not a whole folder in the hub's format"):
        load_state(FULL_SMALL, str(tmp_path))
