"""Evaluation against formulas in float64, with a predictor whose answers the test knows; and the command line."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from refavs_rt import dataset
from refavs_rt.dataset import DataError
from refavs_rt.train.cli import main
from refavs_rt.train.evaluate import EvaluateConfig, evaluate

from .test_dataset import FRAMES, mask_at, sound_of, write_clip, write_table

SIDE = 8
# uid, split, fid, exp, kind, other recording, swap. The clips a and b take turns, as in the real table.
ROWS: list[tuple[str, str, int, str, str, bool, str | None]] = [
    ("a_0_1_cat_1", "test_s", 0, "The cat.", "name", False, "a_0_1_dog_1"),
    ("b_0_1_cat_1", "test_s", 0, "A cat.", "name", True, "b_0_1_dog_1"),
    ("a_0_1_dog_1", "test_s", 1, "The barking one.", "sound", False, "a_0_1_cat_1"),
    ("null_c-a_0_1_null_1", "test_s", 0, "The bus.", "null", False, None),
    ("b_0_1_dog_1", "test_s", 1, "The dog.", "name", False, "b_0_1_cat_1"),
    ("a_0_1_cat_2", "test_s", 0, "The meowing one.", "sound", False, None),
    ("null_m-b_0_1_null_1", "test_s", 0, "The loud one.", "null", False, None),
    ("b_0_1_hat_1", "test_s", 2, "The hat.", "name", False, "b_0_1_cat_1"),
    ("null_c-a_0_1_null_2", "test_s", 0, "The train.", "null", False, None),
]
HIDDEN = 2
"""The object of clip b that no frame shows."""


def truth_at(fid: int, frame: int) -> NDArray[np.bool_]:
    """The object 1 is out of sight in frame 1, the object 2 always."""
    shown = fid != HIDDEN and not (fid == 1 and frame == 1)
    return mask_at(fid, frame) & shown


class KnownPredictor:
    """Answers by sentence; keeps what it was given."""

    image_size = 32

    def __init__(self) -> None:
        self.calls: list[tuple[NDArray[np.uint8], NDArray[np.float32] | None, list[str]]] = []

    def predict(
        self, frames: NDArray[np.uint8], patches: NDArray[np.float32] | None, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.calls.append((frames, patches, list(texts)))
        answers = [answer(text) for text in texts]
        return np.stack([a[0] for a in answers], axis=1), np.stack([a[1] for a in answers], axis=1)


@functools.cache
def answer(text: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits [T, SIDE, SIDE] that are near some box, and presence [T], of which some is below 0.5."""
    rng = np.random.default_rng(sum(text.encode()))
    logits = rng.normal(-0.5, 1.0, (FRAMES, SIDE, SIDE))
    for i in range(FRAMES):
        box = np.asarray(Image.fromarray(mask_at(int(rng.integers(2)), i)).resize((SIDE, SIDE)), np.float64)
        logits[i] += 2 * box
    presence = rng.permutation([0.9, 0.3, 0.5])  # 0.5 is enough
    return logits.astype(np.float32), presence.astype(np.float32)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tree"))


def build(folder: Path) -> Path:
    for clip, fids in (("a_0_1", (0, 1)), ("b_0_1", (0, 1, 2)), ("null_c-a_0_1", ()), ("null_m-b_0_1", ())):
        write_clip(folder, clip, fids)
        for fid in fids:
            for i in range(FRAMES):
                path = folder / "gt_mask" / clip / f"fid_{fid}" / f"{i:05d}.png"
                Image.fromarray(truth_at(fid, i).astype(np.uint8) * 255).save(path)
    write_table(folder, [row[:4] for row in ROWS])
    side = [{"uid": r[0], "kind": r[4], "other_recording": r[5], "swap_uid": r[6]} for r in ROWS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in side))
    return folder


# The formulas


@functools.cache
def weights(source: int) -> NDArray[np.float64]:
    """[256, source]: bilinear, half-pixel centres, edges repeated."""
    matrix = np.zeros((256, source))
    for i in range(256):
        at = min(max((i + 0.5) * source / 256 - 0.5, 0.0), source - 1.0)
        low = int(at)
        matrix[i, low] += 1 - (at - low)
        if at > low:
            matrix[i, low + 1] += at - low
    return matrix


def resized(picture: NDArray[Any]) -> NDArray[np.float64]:
    return weights(picture.shape[0]) @ picture.astype(np.float64) @ weights(picture.shape[1]).T


def frame_figures(
    text: str, fid: int, null: bool, frame: int, gate: bool
) -> tuple[float, list[float] | None, float]:
    """J, the curve of F (None without a truth) and the shown share of one frame."""
    logits, presence = answer(text)
    share = 1 / (1 + np.exp(-resized(logits[frame])))
    if gate and presence[frame] < 0.5:
        share = np.zeros_like(share)
    truth = resized(255 * truth_at(HIDDEN if null else fid, frame)) > 0
    mask = share > 0.4
    shown = float((share > 0.5).sum()) / 65_536
    if truth.sum() == 0:
        return float((~mask).sum()) / 65_536, None, shown
    curve = []
    for threshold in np.linspace(0, 1 - 1e-10, 255):
        predicted = share >= threshold
        hits = float((predicted & truth).sum())
        precision, recall = hits / max(float(predicted.sum()), 1e-20), hits / float(truth.sum())
        bottom = 0.3 * precision + recall
        curve.append(1.3 * precision * recall / bottom if bottom else 0.0)
    return float((mask & truth).sum()) / float((mask | truth).sum()), curve, shown


@functools.cache
def row_figures(
    text: str, fid: int, null: bool, gate: bool
) -> tuple[tuple[float, list[float] | None, float], ...]:
    return tuple(frame_figures(text, fid, null, i, gate) for i in range(FRAMES))


def expected(rows: list[tuple[str, int, bool]], gate: bool, batch: int) -> dict[str, float | None]:
    """`rows`: sentence, object and whether nothing fits, in table order. Each batch gives one figure."""
    j, f, s = [], [], []
    for null in (False, True):
        chosen = [row for row in rows if row[2] is null]
        for start in range(0, len(chosen), batch):
            frames = [x for row in chosen[start : start + batch] for x in row_figures(*row, gate)]
            if null:
                s.append(math.sqrt(sum(shown for _, _, shown in frames) / len(frames)))
                continue
            j.append(sum(iou for iou, _, _ in frames) / len(frames))
            curves = [curve for _, curve, _ in frames if curve is not None]
            if curves:
                f.append(max(sum(values) / len(curves) for values in zip(*curves, strict=True)))
            elif batch > 1:
                f.append(0.0)
    return {
        name: sum(values) / len(values) if values else None for name, values in (("J", j), ("F", f), ("S", s))
    }


def check(
    found: dict[str, Any], rows: list[tuple[str, int, bool]], gate: bool = True, batch: int = 1
) -> None:
    figures = expected(rows, gate, batch)
    for name, value in figures.items():
        assert (found[name] is None) is (value is None), name
        if value is not None:
            assert found[name] == pytest.approx(value, abs=5e-5), name
    assert found["n"] == len(rows)


def plain(rows: Sequence[tuple[str, str, int, str, str, bool, str | None]]) -> list[tuple[str, int, bool]]:
    return [(row[3], row[2], row[0].startswith("null_")) for row in rows]


def test_all_figures_are_the_formulas(tree: Path) -> None:
    """Over clips that take turns, a truth that is empty in one frame or in all, null rows and a presence that gates."""
    report = evaluate(KnownPredictor(), tree, EvaluateConfig())
    check(report, plain(ROWS))
    variants = report["variants"]
    assert sorted(variants) == ["authors_with_gate", "authors_without_gate", "per_expression_without_gate"]
    check(variants["per_expression_without_gate"], plain(ROWS), gate=False)
    check(variants["authors_with_gate"], plain(ROWS), batch=4)
    check(variants["authors_without_gate"], plain(ROWS), gate=False, batch=4)
    figures = [report, *variants.values()]
    for name in "JFS":
        assert len({round(x[name], 4) for x in figures}) == 4, "the variants cannot be told apart"

    assert sorted(report["by_type"]) == ["name", "null", "sound"]
    for kind, found in report["by_type"].items():
        check(found, plain([row for row in ROWS if row[4] == kind]))
    assert report["by_type"]["null"]["J"] is None and report["by_type"]["name"]["S"] is None
    assert list(report["other_recording"]) == ["name"]
    check(report["other_recording"]["name"], plain([ROWS[1]]))
    assert report["skipped"] == {}
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_without_null_rows_s_is_null(tmp_path: Path) -> None:
    tree = build(tmp_path)
    (tree / "rows.jsonl").unlink()
    write_table(tree, [row[:4] for row in ROWS[:3]])
    report = evaluate(KnownPredictor(), tree, EvaluateConfig())
    assert report["S"] is None and report["by_type"] == {} and report["other_recording"] == {}
    check(report, plain(ROWS[:3]))


def test_only_null_rows(tmp_path: Path) -> None:
    tree = build(tmp_path)
    nulls = [row for row in ROWS if row[0].startswith("null_")]
    write_table(tree, [row[:4] for row in nulls])
    report = evaluate(KnownPredictor(), tree, EvaluateConfig())
    assert report["J"] is None and report["F"] is None
    check(report, plain(nulls))
    check(report["variants"]["authors_with_gate"], plain(nulls), batch=4)


def test_others_are_evaluated_on_the_same_clips(tree: Path) -> None:
    """Each beside the first as if it were alone; what the first says is untouched."""

    class Contrary(KnownPredictor):
        def predict(self, frames: Any, patches: Any, texts: Any) -> Any:
            masks, presence = super().predict(frames, patches, texts)
            return -masks, presence

    first, other = KnownPredictor(), Contrary()
    report = evaluate(first, tree, EvaluateConfig(), {"full": other})
    alone = {"": evaluate(KnownPredictor(), tree, EvaluateConfig())}
    alone["full"] = evaluate(Contrary(), tree, EvaluateConfig())
    figures = ("J", "F", "S", "n", "by_type", "other_recording", "variants")
    assert set(report) == {*alone[""], "full"} and set(report["full"]) == set(figures)
    for name in figures:
        assert report[name] == alone[""][name]
        assert report["full"][name] == alone["full"][name]
    assert report["J"] != report["full"]["J"]
    assert [frames is again for (frames, *_), (again, *_) in zip(first.calls, other.calls, strict=True)] == [
        True
    ] * 4


def test_split_and_limit(tmp_path: Path) -> None:
    tree = build(tmp_path)
    rows = [(row[0], "test_u" if row[0].startswith("b") else "test_s", *row[2:4]) for row in ROWS]
    write_table(tree, rows)
    check(
        evaluate(KnownPredictor(), tree, EvaluateConfig(split="test_u")),
        plain([row for row in ROWS if row[0].startswith("b")]),
    )
    check(
        evaluate(KnownPredictor(), tree, EvaluateConfig(limit=2)),
        plain([row for row in ROWS if row[0][:2] in ("a_", "b_")]),
    )
    with pytest.raises(DataError, match="no rows of split 'val'"):
        evaluate(KnownPredictor(), tree, EvaluateConfig(split="val"))


# What the predictor is given


@pytest.mark.parametrize(("pairing", "begin"), [("dataset", 0), ("live", -15_600)])
def test_pairing_of_frames_and_sound(
    tree: Path, monkeypatch: pytest.MonkeyPatch, pairing: Any, begin: int
) -> None:
    monkeypatch.setattr(dataset, "log_mel", lambda samples: samples.copy())
    predictor = KnownPredictor()
    evaluate(predictor, tree, EvaluateConfig(pairing=pairing))
    assert [texts for _, _, texts in predictor.calls] == [
        ["The cat.", "The barking one.", "The meowing one."],
        ["A cat.", "The dog.", "The hat."],
        ["The bus.", "The train."],
        ["The loud one."],
    ]
    for (frames, patches, _), clip in zip(
        predictor.calls, ("a_0_1", "b_0_1", "null_c-a_0_1", "null_m-b_0_1"), strict=True
    ):
        assert frames.shape == (FRAMES, 32, 32, 3)
        samples = sound_of(clip) / np.float32(32_768)
        assert patches is not None
        for i in range(FRAMES):
            window = np.zeros(15_600, np.float32)
            for k in range(15_600):
                at = 16_000 * i + begin + k
                if 0 <= at < len(samples):
                    window[k] = samples[at]
            np.testing.assert_array_equal(patches[i], window)


def test_muted_is_silence_and_no_track_stays_none(tmp_path: Path) -> None:
    tree = build(tmp_path)
    (tree / "media" / "b_0_1" / "audio.wav").unlink()
    for muted in (False, True):
        predictor = KnownPredictor()
        report = evaluate(predictor, tree, EvaluateConfig(muted=muted))
        check(report, plain(ROWS))
        assert report["settings"]["muted"] is muted
        patches = [patches for _, patches, _ in predictor.calls]
        assert patches[1] is None
        first = patches[0]
        assert first is not None and first.shape == (FRAMES, 96, 64) and first.dtype == np.float32
        assert np.allclose(first, math.log(0.01), rtol=1e-6) is muted


def test_swap_asks_for_another_object_of_the_clip(tree: Path) -> None:
    """Truths stay, rows without another object are left out."""
    predictor = KnownPredictor()
    report = evaluate(predictor, tree, EvaluateConfig(swap=True))
    texts = {row[0]: row[3] for row in ROWS}
    swapped = [(texts[row[6]], row[2], False) for row in ROWS if row[6]]
    check(report, swapped)
    assert [said for _, _, said in predictor.calls] == [
        ["The barking one.", "The cat."],
        ["The dog.", "A cat.", "A cat."],
    ]


def test_swap_without_such_rows_is_told(tmp_path: Path) -> None:
    tree = build(tmp_path)
    (tree / "rows.jsonl").unlink()
    with pytest.raises(
        DataError, match=r"--swap takes a data set that says which rows .* evaluate without --swap"
    ):
        evaluate(KnownPredictor(), tree, EvaluateConfig(swap=True))


# Faults


def test_what_cannot_be_read_is_skipped_and_told(tmp_path: Path) -> None:
    tree = build(tmp_path)
    rows = [
        *[row[:4] for row in ROWS],
        ("gone_0_1_cat_1", "test_s", 0, "Gone."),
        ("a_0_1_cat_3", "test_s", 0, " "),
        ("a_0_1_cat_4", "val", 0, ""),
    ]
    write_table(tree, rows)
    (tree / "media" / "a_0_1" / "frames" / "1.jpg").write_bytes(b"\xff\xd8\xff")
    (tree / "gt_mask" / "b_0_1" / "fid_2" / "00002.png").unlink()
    sound = tree / "media" / "null_m-b_0_1" / "audio.wav"
    sound.write_bytes(sound.read_bytes()[:-7])
    report = evaluate(KnownPredictor(), tree, EvaluateConfig(split="test_s"))
    check(report, plain([row for row in ROWS if row[0].startswith("null_c")]))
    assert set(report["skipped"]) == {"a_0_1", "b_0_1", "null_m-b_0_1", "gone_0_1", "a_0_1_cat_3"}
    assert report["skipped"]["a_0_1"].startswith(f"{tree}/media/a_0_1/frames/1.jpg is damaged")
    assert report["skipped"]["b_0_1"] == f"{tree}/gt_mask/b_0_1/fid_2/00002.png is missing"
    assert "audio.wav cannot be read" in report["skipped"]["null_m-b_0_1"]
    assert report["skipped"]["gone_0_1"] == f"{tree}/media/gone_0_1 is missing"

    (tree / "media" / "null_c-a_0_1" / "frames" / "0.jpg").unlink()
    with pytest.raises(
        DataError, match=r"no clip could be evaluated; the last fault: .*audio\.wav cannot be read"
    ):
        evaluate(KnownPredictor(), tree, EvaluateConfig(split="test_s"))


def test_a_clip_with_fewer_frames_is_scored_on_them(tmp_path: Path) -> None:
    tree = build(tmp_path)
    (tree / "media" / "a_0_1" / "frames" / f"{FRAMES - 1}.jpg").unlink()
    write_table(tree, [ROWS[0][:4]])

    class Short(KnownPredictor):
        def predict(self, frames: Any, patches: Any, texts: Any) -> Any:
            assert len(frames) == len(patches) == FRAMES - 1
            return tuple(x[: FRAMES - 1] for x in super().predict(frames, patches, texts))

    figures = row_figures("The cat.", 0, False, True)[: FRAMES - 1]
    report = evaluate(Short(), tree, EvaluateConfig())
    assert report["J"] == pytest.approx(sum(j for j, _, _ in figures) / len(figures), abs=5e-5)


# The command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "{tmp}/run", "--data", "{tmp}"], "run is not a run folder"),
        (["--bundle", "{tmp}/no-bundle", "--data", "{tmp}"], "no such bundle folder"),
        (["--bundle", "edge", "--data", "{tmp}", "--json", "{tmp}"], "cannot be written; choose another"),
        (["--bundle", "edge", "--data", "{tmp}", "--json", "{tmp}/file/x"], "cannot be written: .*exists"),
        (
            ["--bundle", "edge", "--data", "{tmp}", "--temporal", "both"],
            "a bundle can only stream; give a run",
        ),
    ],
)
def test_faults_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("x")
    assert main(["evaluate", *(a.format(tmp=tmp_path) for a in arguments)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "x"],
        ["--checkpoint", "x", "--bundle", "edge", "--data", "x"],
        ["--bundle", "edge"],
        ["--bundle", "edge", "--data", "x", "--split", "TODO"],
        ["--bundle", "edge", "--data", "x", "--limit", "0"],
        ["--bundle", "edge", "--data", "x", "--limit", "-1"],
        ["--bundle", "edge", "--data", "x", "--pairing", "none"],
        ["--bundle", "edge", "--data", "x", "--temporal", "none"],
        ["--bundle", "edge", "--data", "x", "--memory-mean", "none"],
    ],
)
def test_wrong_usage_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["evaluate", *arguments])
    assert error.value.code == 2
    assert "usage:" in capsys.readouterr().err
