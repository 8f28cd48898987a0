"""Photographs that were outlined by hand: what an outline covers, which picture it belongs to, and what is asked of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from refavs_rt.dataset import DataError
from refavs_rt.train.ablate.photographs import (
    ABSENT,
    ALIKE,
    BY_NAME,
    BY_NEW_NAME,
    BY_SOUND,
    MUTED,
    PANNED,
    SECONDS,
    STILL,
    Question,
    answers,
    pan,
    questions,
    track,
)
from refavs_rt.train.material import Pack, Photo, Recording
from refavs_rt.train.material.backdrops import PHOTO_FOLDERS
from refavs_rt.train.material.rcc import read_rcc
from refavs_rt.train.photographs import Outline, Photograph, View, read_photographs

from .tiny_pack import TONE_S, write_tiny_pack

OUTLINES = Path(__file__).with_name("photographs.json")
TRIANGLE = ((0.2, 0.1), (0.9, 0.5), (0.3, 0.8))
SQUARE = ((0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0))


def inside(triangle: tuple[tuple[float, float], ...], x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
    """By the signs of cross products."""
    sides = zip(triangle, triangle[1:] + triangle[:1], strict=True)
    signs = np.stack([(bx - ax) * (y - ay) - (by - ay) * (x - ax) for (ax, ay), (bx, by) in sides])
    return np.asarray((signs > 0).all(axis=0) | (signs < 0).all(axis=0))


@pytest.mark.parametrize("view", [View(), View(0.1, 0.2, 0.8, 0.5)])
def test_an_outline_is_where_its_corners_say(view: View) -> None:
    size = 200
    ours = Outline("dog", (TRIANGLE,)).mask(view, size)
    centre = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(view.left + view.width * centre, view.top + view.height * centre)
    expected = inside(TRIANGLE, x, y)
    assert expected.sum() > 5_000
    assert (ours & expected).sum() / (ours | expected).sum() > 0.99


def test_polygons_of_an_object_are_joined() -> None:
    both = Outline("dog", (TRIANGLE, SQUARE)).mask(View(), 64)
    each = [Outline("dog", (p,)).mask(View(), 64) for p in (TRIANGLE, SQUARE)]
    edge = both ^ (each[0] | each[1])
    assert edge.sum() < 70 and not edge[:30].any()


def test_a_view_shows_the_part_that_it_names() -> None:
    """Against PIL's crop and resize; a mask cut from a painted outline lies where the picture is painted."""
    picture = Image.new("RGB", (1600, 800))
    corners = [(x * 1600 - 0.5, y * 800 - 0.5) for x, y in TRIANGLE]
    ImageDraw.Draw(picture).polygon(corners, fill=(255, 255, 255))
    view = View(0.1, 0.05, 0.8, 0.8)
    frame = view.of(picture, 100)
    cropped = picture.crop((160, 40, 1440, 680)).resize((100, 100), Image.Resampling.BILINEAR)
    assert (
        np.abs(frame.astype(int) - np.asarray(cropped)).max() <= 40
    )  # at edges: the crop ends in half a pixel
    painted = frame[..., 0] >= 128
    mask = Outline("dog", (TRIANGLE,)).mask(view, 100)
    assert (painted & mask).sum() / (painted | mask).sum() > 0.98


@pytest.fixture
def pictured(tmp_path: Path) -> Pack:
    """The tiny pack with two photographs, one of which has a recording."""
    pack = Pack.load(write_tiny_pack(tmp_path / "tiny.pack"))
    picture, sound = pack.things[0].pictures[0].entry, pack.things[0].recordings[0]
    recording = Recording(sound.entry, "gcompris", "farm/dog", "test", TONE_S, ((0.0, TONE_S),), "none")
    pack.photos = (
        Photo(picture, "farm/dog", "aa", recording, "none"),
        Photo(picture, "farm/koala", "bb", None, "none"),
    )
    return pack


def write_outlines(path: Path, photographs: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"photographs": photographs}))
    return path


def entry(sha256: str, *names: str, polygon: Any = TRIANGLE) -> dict[str, Any]:
    objects = [{"name": name, "polygons": [polygon]} for name in names]
    return {"sha256": sha256, "alike": "cow", "absent": "car", "objects": objects}


def test_only_pictures_that_were_outlined_are_taken(pictured: Pack, tmp_path: Path) -> None:
    path = write_outlines(
        tmp_path / "o.json",
        {
            "farm/dog": entry("aa", "dog"),
            "farm/koala": entry("other", "koala"),
            "farm/cow": entry("cc", "cow"),
        },
    )
    found, left_out = read_photographs(path, pictured)
    assert [p.name for p in found] == ["farm/dog"]
    assert left_out == {
        "farm/koala": "the pack has another picture of that name",
        "farm/cow": "it is not in the pack",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"farm/dog": entry("aa")}, "no objects"),
        ({"farm/dog": entry("aa", "dog", polygon=TRIANGLE[:2])}, "fewer than three corners"),
        (
            {"farm/dog": entry("aa", "dog", polygon=[[0.1, 0.1], [1.1, 0.2], [0.3, 0.3]])},
            "leaves the picture",
        ),
        ({"farm/dog": entry("aa", "dog", polygon=[[0.1], [0.5], [0.3]])}, "is damaged"),
        ({"farm/dog": {"objects": []}}, "is damaged"),
        ([], "is damaged"),
    ],
)
def test_damaged_outlines_are_refused(pictured: Pack, tmp_path: Path, content: Any, message: str) -> None:
    path = write_outlines(tmp_path / "o.json", content)
    with pytest.raises(DataError, match=message):
        read_photographs(path, pictured)


def test_a_missing_file_of_outlines_is_told(pictured: Pack, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json cannot be read"):
        read_photographs(tmp_path / "none.json", pictured)


def test_questions_are_about_what_is_there_and_what_is_not(pictured: Pack, tmp_path: Path) -> None:
    path = write_outlines(
        tmp_path / "o.json",
        {"farm/dog": entry("aa", "dog", "dog"), "farm/koala": entry("bb", "koala", "hound")},
    )
    (dog, koala), _ = read_photographs(path, pictured)
    of_dog = {q.group: q for q in questions(pictured, dog)}
    assert of_dog[BY_NAME] == Question(BY_NAME, "The dog.", 0)
    assert of_dog[BY_SOUND] == Question(BY_SOUND, "The sounding object.", 0)
    assert of_dog[ALIKE] == Question(ALIKE, "The cow.", None)
    assert of_dog[ABSENT] == Question(ABSENT, "The car.", None)
    of_koala = questions(pictured, koala)
    assert [(q.group, q.text) for q in of_koala[:2]] == [(BY_NEW_NAME, "The koala."), (BY_NAME, "The hound.")]
    assert not [q for q in of_koala if q.group == BY_SOUND]  # it has no recording


def test_a_pan_crosses_the_picture() -> None:
    ways = set()
    for name in ("a", "b", "c", "d"):
        views = pan(Photograph(Photo("", name, "", None, ""), ()))
        assert len(views) == SECONDS
        assert all(v.left >= 0 and v.top >= 0 and v.left + v.width <= 1.0001 for v in views)
        ways.add((round(views[-1].left - views[0].left, 6), round(views[-1].top - views[0].top, 6)))
    assert ways == {(x, y) for x in (0.2, -0.2) for y in (0.2, -0.2)}


def test_the_track_is_the_recording_again_and_again(pictured: Pack) -> None:
    dog, koala = (Photograph(photo, ()) for photo in pictured.photos)
    sound = pictured.sound(pictured.things[0].recordings[0].entry)
    samples = track(pictured, dog)
    assert len(samples) == SECONDS * 16_000 and not samples[:16_000].any()
    first = samples[16_000 : 16_000 + len(sound)]
    assert np.array_equal(first, sound)
    again = 16_000 + len(sound) + 12_800
    assert not samples[16_000 + len(sound) : again].any() and samples[again : again + 100].any()
    assert not track(pictured, koala).any()


class Outliner:
    """Shows what it is told to, whatever it sees; keeps what it was given."""

    image_size = 32

    def __init__(self, shown: NDArray[np.bool_], presence: float) -> None:
        self.shown, self.presence = shown, presence
        self.patches: list[NDArray[np.float32] | None] = []

    def predict(
        self, frames: NDArray[np.uint8], patches: NDArray[np.float32] | None, texts: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.patches.append(patches)
        logits = np.where(self.shown, 9.0, -9.0).astype(np.float32)
        masks = np.broadcast_to(logits, (len(frames), len(texts), *logits.shape))
        return masks, np.full((len(frames), len(texts)), self.presence, np.float32)


def test_answers_are_scored_by_the_outline(pictured: Pack) -> None:
    """Still, J is that of a formula; what is not there is scored by what was left alone; others of the name do not count."""
    outlines = tuple(Outline("dog", (p,)) for p in (TRIANGLE, SQUARE))
    photograph = Photograph(pictured.photos[0], outlines, "cow", "car")
    shown = np.zeros((256, 256), bool)
    shown[:, :200] = True
    predictor = Outliner(shown, 0.9)
    found = {(a.condition, a.question.group): a for a in answers(predictor, pictured, photograph)}
    assert {c for c, _ in found} == {STILL, PANNED, MUTED}
    truth, other = (o.mask(View(), 256) for o in outlines)
    counts = ~other
    iou = (shown & truth & counts).sum() / ((shown | truth) & counts).sum()
    assert found[STILL, BY_NAME].value == pytest.approx(iou, abs=1e-12)
    assert found[STILL, ABSENT].value == pytest.approx(1 - 200 / 256)
    assert found[PANNED, BY_NAME].value != pytest.approx(iou, abs=1e-3)
    heard, panned, muted = predictor.patches
    assert heard is not None and panned is not None and muted is not None
    assert np.array_equal(heard, panned) and not np.array_equal(heard, muted)
    assert np.ptp(muted) == 0
    refused = list(answers(Outliner(shown, 0.2), pictured, photograph))
    assert {a.value for a in refused if a.question.target is not None} == {0.0}
    assert {a.value for a in refused if a.question.target is None} == {1.0}


@pytest.mark.media
def test_the_outlines_that_the_project_keeps_are_sound(pack: Pack) -> None:
    """Each is found in the pack, under names that are no slip of the pen."""
    found, left_out = read_photographs(OUTLINES, pack)
    assert not left_out and len(found) >= 15
    for photograph in found:
        asked = questions(pack, photograph)
        assert any(q.target is not None for q in asked) and any(q.target is None for q in asked)
        for number in photograph.named():
            share = photograph.truth(number, [View()], 256).mean()
            assert 0.005 < share < 0.8, photograph.name
            panned = photograph.truth(number, pan(photograph), 64)
            assert panned.any(axis=(1, 2)).all(), photograph.name
    words = {word for thing in pack.things if not thing.unseen for word in (thing.name,)}
    assert {word for p in found for word in (p.alike, p.absent)} <= words
    groups = [q.group for p in found for q in questions(pack, p)]
    assert groups.count(BY_NAME) >= 15 and groups.count(BY_SOUND) >= 5 and groups.count(ALIKE) == len(found)
    assert not {photo.origin for photo in pack.photos} & {b.origin for b in pack.backgrounds}


@pytest.mark.media
def test_hashes_are_of_the_files_as_gcompris_ships_them() -> None:
    kept = {name: each["sha256"] for name, each in json.loads(OUTLINES.read_text())["photographs"].items()}
    archives = {
        archive: read_rcc(Path(f"/usr/share/gcompris-qt/rcc/{archive}.rcc")) for archive, _ in PHOTO_FOLDERS
    }
    for name, sha256 in kept.items():
        archive, stem = name.split("/")
        (content,) = [
            content
            for path, content in archives[archive].items()
            if path.endswith(f"/{dict(PHOTO_FOLDERS)[archive]}/{stem}.webp")
        ]
        assert hashlib.sha256(content).hexdigest() == sha256, name
