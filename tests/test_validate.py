"""Validation against scipy's Jaccard distance, each sentence by itself and with a second look for the muted score."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.distance import jaccard

from refavs_rt.config import TEST
from refavs_rt.log_mel import log_mel
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.text import minilm_folder
from refavs_rt.tokenizer import Tokenizer
from refavs_rt.train import sheet, validate
from refavs_rt.train.batches import Clip
from refavs_rt.train.disk_batches import DiskSource
from refavs_rt.train.material import Pack
from refavs_rt.train.scenes import SceneGenerator
from refavs_rt.train.texts import TextCache
from refavs_rt.train.validate import ScoredSample, scene_clips

from .ref_avs_tree import write_tree

CPU = torch.device("cpu")
CONFIG = dataclasses.replace(TEST, text_tokens=25)
Temporal = Literal["band", "full"]


@pytest.fixture(scope="module")
def model() -> EEMC:
    """Random weights whose masks and presence are neither all true nor all false, and hear the difference of a muted clip."""
    torch.manual_seed(4)
    network = EEMC(CONFIG).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() > 1 and not name.startswith(("backbone", "text_")):
                weight.mul_(3)
        last = [module for module in network.presence_head.modules() if isinstance(module, torch.nn.Linear)][
            -1
        ]
        last.bias.sub_(5)
    return network


@pytest.fixture(scope="module")
def texts(model: EEMC) -> TextCache:
    return TextCache(
        model.text_encoder, Tokenizer((minilm_folder() / "tokenizer.json").read_bytes(), CONFIG.text_tokens)
    )


@pytest.fixture(scope="module")
def clips(tiny: Pack) -> list[Clip]:
    return scene_clips(SceneGenerator(tiny, "val", seed=1), 5, CONFIG.image_size)


def test_a_clip_has_eight_sentences_and_all_ticks(clips: list[Clip]) -> None:
    assert {(len(clip.frames), len(clip.texts), clip.masks.shape[0]) for clip in clips} == {(6, 8, 6)}
    assert len({clip.name for clip in clips}) == len(clips)


@pytest.mark.parametrize("temporal", ["band", "full"])
def test_scores_are_scipys(model: EEMC, texts: TextCache, clips: list[Clip], temporal: Temporal) -> None:
    expected = reference(model, texts, clips, temporal)
    assert {"J_name", "J_sound", "J_sound_muted", "S_null", "presence_accuracy"} <= expected.keys()
    assert all(0.02 < expected[name] < 0.98 for name in ("J_name", "S_null", "presence_accuracy"))
    assert abs(expected["J_sound"] - expected["J_sound_muted"]) > 1e-3
    result = validate.validate(model, texts, clips, CPU, temporal=temporal)
    assert result.scores.keys() == expected.keys()
    for name, value in expected.items():
        assert result.scores[name] == pytest.approx(value, abs=6e-5), name


def test_what_a_tick_sees_matters(model: EEMC, texts: TextCache, clips: list[Clip]) -> None:
    band, full = (validate.validate(model, texts, clips, CPU, temporal=t).scores for t in ("band", "full"))
    assert band != full


def test_frames_are_looked_at_once(model: EEMC, texts: TextCache, clips: list[Clip]) -> None:
    """Though clips with sentences about sound are run twice."""
    calls: dict[str, int] = defaultdict(int)
    parts = {name: getattr(model, name) for name in ("backbone", "pixel_decoder", "presence_head")}

    def count(name: str) -> torch.utils.hooks.RemovableHandle:
        return parts[name].register_forward_hook(lambda *_: calls.update({name: calls[name] + 1}))

    hooks = [count(name) for name in parts]
    validate.validate(model, texts, clips, CPU)
    for hook in hooks:
        hook.remove()
    twice = sum("sound" in clip.kinds for clip in clips)
    assert twice
    assert calls["backbone"] == calls["pixel_decoder"] == len(clips)
    assert len(clips) < calls["presence_head"] <= len(clips) + twice
    assert all(getattr(model, name) is part for name, part in parts.items())


def test_a_sentence_said_twice_counts_once(model: EEMC, texts: TextCache, clips: list[Clip]) -> None:
    def doubled(clip: Clip) -> Clip:
        return dataclasses.replace(
            clip,
            texts=[*clip.texts, clip.texts[0]],
            kinds=[*clip.kinds, clip.kinds[0]],
            masks=np.concatenate([clip.masks, clip.masks[:, :1]], axis=1),
            presence=np.concatenate([clip.presence, clip.presence[:, :1]], axis=1),
        )

    once = validate.validate(model, texts, clips[:2], CPU)
    twice = validate.validate(model, texts, [doubled(clip) for clip in clips[:2]], CPU)
    assert twice.scores == once.scores
    assert [s.text for s in twice.samples] == [s.text for s in once.samples]


def test_an_object_that_is_never_there_is_not_scored(
    model: EEMC, texts: TextCache, clips: list[Clip]
) -> None:
    empty = dataclasses.replace(
        clips[0],
        kinds=["name"] * 8,
        masks=np.zeros_like(clips[0].masks),
        presence=np.zeros_like(clips[0].presence),
    )
    result = validate.validate(model, texts, [empty], CPU)
    assert result.scores.keys() == {"presence_accuracy"}
    assert result.samples == [] and result.overlays == {}


def test_samples_are_the_sentences(model: EEMC, texts: TextCache, clips: list[Clip]) -> None:
    result = validate.validate(model, texts, clips, CPU)
    by_kind: dict[str, list[float]] = defaultdict(list)
    for sample in result.samples:
        clip = next(clip for clip in clips if clip.name == sample.name)
        assert sample.text in clip.texts and 0 <= sample.J <= 1
        by_kind[sample.kind].append(sample.J)
        assert any(np.abs(shown_bytes(frame) - sample.frame).max() <= 1 for frame in clip.frames)
    for kind, values in by_kind.items():
        if kind != "null":
            assert np.mean(values) == pytest.approx(result.scores[f"J_{kind}"], abs=6e-5)
    left = [1 - sample.J for sample in result.samples if sample.kind == "null"]
    assert np.mean(np.sqrt(left)) == pytest.approx(result.scores["S_null"], abs=6e-5)


def test_the_picture_is_of_the_middling_frame(model: EEMC, texts: TextCache, clips: list[Clip]) -> None:
    """The J of the masks that are shown is the lower median of those of the frames that count."""
    result = validate.validate(model, texts, clips, CPU)
    checked = 0
    for clip in clips:
        shown, _ = predict(model, texts, clip, clip.log_mel, "band")
        for sample in (s for s in result.samples if s.name == clip.name and s.kind != "null"):
            n = clip.texts.index(sample.text)
            ticks = np.flatnonzero(clip.presence[:, n])
            values = sorted(iou(shown[t, n], clip.masks[t, n] >= 0.5) for t in ticks)
            assert iou(sample.shown, sample.truth) == pytest.approx(values[(len(values) - 1) // 2])
            checked += len(values) > 2
    assert checked > 5


def test_each_kind_has_its_sheet(
    model: EEMC, texts: TextCache, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, list[tuple[str, str]]] = {}

    def note(tiles: list[tuple[NDArray[np.uint8], str, str]], title: str) -> NDArray[np.uint8]:
        said[title.split()[0]] = [(heading, text) for _, heading, text in tiles]
        return sheet.sheet(tiles, title)

    monkeypatch.setattr(validate, "sheet", note)
    result = validate.validate(model, texts, clips, CPU)
    kinds = {sample.kind for sample in result.samples}
    assert result.overlays.keys() == said.keys() == kinds and len(kinds) > 4
    for kind, picture in result.overlays.items():
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        scores = {(s.name, s.text): s.J for s in result.samples if s.kind == kind}
        assert len(said[kind]) == min(12, len(scores))
        for heading, text in said[kind]:
            value = scores[heading.rsplit(" · ", 1)[1], text]
            score = f"{1 - value:.1%} shown" if kind == "null" else f"J {value:.2f}"
            assert heading.startswith(f"{score} · {kind} · scene ")
    clips_of = [heading.rsplit(" · ", 1)[1] for heading, _ in said["name"]]
    assert len(set(clips_of[: len(set(clips_of))])) == len(
        set(clips_of)
    )  # each clip's first before any second


def test_the_overlay_tints_what_is_shown_and_outlines_the_truth() -> None:
    frame = np.full((64, 64, 3), 100, np.uint8)
    shown, truth = np.zeros((16, 16), bool), np.zeros((16, 16), bool)
    shown[4:12, 2:6] = True
    truth[4:12, 10:14] = True
    picture = ScoredSample("clip", "name", "The disc.", 0.0, frame, shown, truth).picture
    height, width = picture.shape[:2]
    assert width * 9 == height * 16

    def at(row: float, column: float) -> list[int]:
        return picture[int(row / 16 * height), int(column / 16 * width)].tolist()

    assert at(8, 0.5) == at(8, 8) == at(8, 12) == [100, 100, 100]
    red, green, blue = at(8, 4)
    assert red > 150 and green < 60 and blue > 100
    line = picture[height // 2, int(9.5 / 16 * width) : int(10.5 / 16 * width)]
    assert line.max() == 255 and line.min() == 0


def test_float64_weights_are_validated_too(texts: TextCache, clips: list[Clip], model: EEMC) -> None:
    single = validate.validate(model, texts, clips[:2], CPU)
    double = validate.validate(model.double(), texts, clips[:2], CPU)
    model.float()
    for name, value in single.scores.items():
        assert double.scores[name] == pytest.approx(value, abs=2e-3)


def test_a_data_set_on_disk(model: EEMC, texts: TextCache, tmp_path: Path) -> None:
    clips = DiskSource(write_tree(tmp_path)).validation(5, CONFIG.image_size)
    result = validate.validate(model, texts, clips, CPU)
    assert result.scores.keys() == {"J_expression", "S_null", "presence_accuracy"}
    expected = reference(model, texts, clips, "band")
    for name, value in result.scores.items():
        assert value == pytest.approx(expected[name], abs=6e-5)
    assert result.overlays.keys() == {"expression", "null"}
    assert {sample.name for sample in result.samples} == {"clip3_0_10000", "null_c-clip3_0_10000"}


def test_long_captions_wrap_and_stay_on_their_picture() -> None:
    """Two pictures beside each other, the left with a text of many words and one endless word: nothing is drawn between them."""
    colour = (50, 120, 200)
    tile = np.full((40, 120, 3), colour, np.uint8)
    text = "the thing that " * 20 + "w" * 200
    page = sheet.sheet([(tile, "heading " * 30, text), (tile, "short", "short")], "title")
    rows, columns = np.nonzero((page == colour).all(axis=2))
    bottom, right = rows.max() + 1, columns.min() + 120
    assert (page[rows.min() :, right : columns.max() - 119] == 255).all()
    inked = (page[bottom:, :right] != 255).any(axis=(1, 2))
    assert np.count_nonzero(np.diff(inked.astype(int), prepend=0) == 1) == 4  # a heading, three lines of text
    for columns_at_most, title in (
        (4, "a title wider than the picture it stands over"),
        (1, "endless " * 50),
    ):
        wide = sheet.sheet([(tile, "", "")], title, columns_at_most)
        inked = (wide != 255).any(axis=(0, 2))
        assert np.flatnonzero(inked)[-1] < wide.shape[1] - 5


def reference(model: EEMC, texts: TextCache, clips: list[Clip], temporal: Temporal) -> dict[str, float]:
    silence = log_mel(np.zeros(15_600, np.float32))
    values: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        shown, present = predict(model, texts, clip, clip.log_mel, temporal)
        quiet, _ = predict(model, texts, clip, np.stack([silence] * len(clip.frames)), temporal)
        seen = set()
        for n, (text, kind) in enumerate(zip(clip.texts, clip.kinds, strict=True)):
            if text in seen:
                continue
            seen.add(text)
            there = clip.presence[:, n] == 1
            right = [bool(a) is bool(b) for a, b in zip(present[:, n], there, strict=True)]
            values["presence_accuracy"].append(sum(right) / len(right))
            if kind == "null":
                values["S_null"].append(math.sqrt(shown[:, n].sum() / shown[:, n].size))
                continue
            ticks = [t for t in range(len(there)) if there[t]]
            if not ticks:
                continue
            truth = clip.masks[:, n] >= 0.5
            values[f"J_{kind}"].append(sum(iou(shown[t, n], truth[t]) for t in ticks) / len(ticks))
            if kind == "sound":
                muted = sum(iou(quiet[t, n], truth[t]) for t in ticks) / len(ticks)
                values["J_sound_muted"].append(muted)
    return {name: sum(each) / len(each) for name, each in values.items()}


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return 1 - float(jaccard(a.ravel(), b.ravel()))


@torch.no_grad()
def predict(
    model: EEMC, texts: TextCache, clip: Clip, patches: NDArray[np.float32], temporal: Temporal
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks p > 0.4 where presence p >= 0.5, and that presence, by the formulas of the sigmoid."""
    ids, mask, hidden = texts([clip.texts])
    out = model.forward_clip(
        torch.from_numpy(clip.frames)[None],
        torch.from_numpy(np.ascontiguousarray(patches))[None],
        torch.from_numpy(clip.has_sound)[None],
        ids,
        mask,
        temporal=temporal,
        text_hidden=hidden,
    )
    share = 1 / (1 + np.exp(-out.mask_logits[0].double().numpy()))
    present = 1 / (1 + np.exp(-out.presence_logits[0].double().numpy())) >= 0.5
    return (share > 0.4) & present[:, :, None, None], present


def shown_bytes(frame: NDArray[np.float32]) -> NDArray[np.int64]:
    """[3, S, S] as the backbone takes it, (byte - 127) / 128 -> [S, S, 3] in 0 .. 255."""
    return np.rint(128 * frame.transpose(1, 2, 0) + 127).astype(np.int64)


def test_the_frame_is_shown_in_its_own_colours(model: EEMC, texts: TextCache, tmp_path: Path) -> None:
    tree = write_tree(tmp_path)
    clips = DiskSource(tree).validation(1, CONFIG.image_size)
    (sample, *_) = validate.validate(model, texts, clips, CPU).samples
    with Image.open(tree / "media" / sample.name / "frames" / "0.jpg") as picture:
        expected = np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(sample.frame - expected).max() <= 1
