"""Results in other libraries' hands, and the examples of docs/outputs.md, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import refavs_rt
from refavs_rt.convert import to_coco, to_detections
from refavs_rt.result import Result
from refavs_rt.session import Model, load

from .test_stream import make_clip
from .tiny_bundle import write_tiny_bundle

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "outputs.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)


def example(word: str) -> str:
    (found,) = [code for code in EXAMPLES if word in code]
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").path)


def result(size: tuple[int, int] = (90, 160)) -> Any:
    masks = np.zeros((3, *size), bool)
    masks[0, 10:50, 20:90] = True
    masks[2] = np.random.default_rng(0).random(size) > 0.5
    presence = np.array([0.9, 0.1, 0.8], np.float32)
    return SimpleNamespace(texts=("a dog", "nothing", "noise"), masks=masks, presence=presence)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_pycocotools_reads_the_records() -> None:
    found = result()
    records = to_coco(found, image_id=5)
    assert [record["category_id"] for record in records] == [1, 3]
    for record, mask in zip(records, found.masks[[0, 2]], strict=True):
        np.testing.assert_array_equal(coco_mask.decode(record["segmentation"]), mask)
        np.testing.assert_array_equal(coco_mask.toBbox(record["segmentation"]), record["bbox"])
        assert coco_mask.area(record["segmentation"]) == record["area"] == mask.sum()
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": 5, "width": 160, "height": 90}],
        "categories": [{"id": i} for i in (1, 2, 3)],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(records)
    np.testing.assert_array_equal(loaded.annToMask(loaded.anns[2]), found.masks[2])
    assert loaded.anns[1]["score"] == pytest.approx(0.9)


def test_the_example_for_pycocotools(model: Model, tmp_path: Path) -> None:
    code = example("pycocotools")
    assert len(code.strip().splitlines()) == 2
    for one in model.stream(make_clip(tmp_path / "clip.mp4"), ["a dog"], max_frames=3):
        names: dict[str, Any] = {"result": one}
        exec(code, names)
        assert list(names["areas"]) == [mask.sum() for mask in one.masks if mask.any()]


def test_detections_are_the_masks_that_are_not_empty() -> None:
    found = to_detections(result())
    np.testing.assert_array_equal(found["class_id"], [0, 2])
    np.testing.assert_array_equal(found["xyxy"], [[20, 10, 90, 50], [0, 0, 160, 90]])
    np.testing.assert_array_equal(found["mask"], result().masks[[0, 2]])
    np.testing.assert_array_equal(found["confidence"], np.float32([0.9, 0.8]))
    assert list(found["data"]["class_name"]) == ["a dog", "noise"]
    none = to_detections(SimpleNamespace(**{**vars(result()), "masks": np.zeros((3, 90, 160), bool)}))
    assert none["xyxy"].shape == (0, 4) and none["mask"].shape == (0, 90, 160)


def test_the_example_for_supervision() -> None:
    import supervision

    code = example("supervision")
    assert len(code.strip().splitlines()) == 2
    names: dict[str, Any] = {"result": result()}
    exec(code, names)
    detections: Any = names["detections"]
    assert isinstance(detections, supervision.Detections) and len(detections) == 2
    np.testing.assert_array_equal(detections.area, result().masks[[0, 2]].sum(axis=(1, 2)))
    sure: Any = detections[detections.confidence > 0.85]
    assert list(sure.data["class_name"]) == ["a dog"]
    painted = supervision.MaskAnnotator().annotate(np.zeros((90, 160, 3), np.uint8), detections)
    np.testing.assert_array_equal(painted.any(axis=2), result().masks[[0, 2]].any(axis=0))
    empty = SimpleNamespace(**{**vars(result()), "masks": np.zeros((3, 90, 160), bool)})
    exec(code, names := {"result": empty})
    assert len(names["detections"]) == 0


@pytest.mark.filterwarnings(
    "ignore::refavs_rt.tokenizer.SentenceCutWarning"
)  # the tiny model reads few words
@pytest.mark.parametrize("word", ["model.stream(", "watch("])
def test_the_examples_in_python_run_as_they_stand(
    word: str,
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(refavs_rt, "load", lambda: model, raising=False)
    make_clip(tmp_path / "clip.mp4")
    exec(example(word), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (3 if word == "watch(" else 22)
    assert lines[0].startswith("0.0 [") and lines[0].endswith("3)")


def test_a_callback_gets_each_result_painted_and_may_end_the_run(model: Model, tmp_path: Path) -> None:
    from refavs_rt.outputs.callback import watch
    from refavs_rt.render import Overlay

    clip = make_clip(tmp_path / "clip.mp4")
    got: list[tuple[Result, np.ndarray]] = []
    watch(model, clip, ["a dog"], lambda one, painted: got.append((one, painted)))
    assert [one.index for one, _ in got] == list(range(22))
    height, width, _ = got[0][0].image.shape
    overlay = Overlay(height, width, model.run.presence_threshold)
    for one, painted in got:
        np.testing.assert_array_equal(painted, overlay.paint(one.image, one.texts, one.masks, one.presence))

    def enough(one: Result, painted: np.ndarray) -> None:
        if one.index == 4:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        watch(model, clip, ["a dog"], enough)
