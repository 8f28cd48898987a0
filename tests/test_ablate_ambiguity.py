"""The scale of ambiguity: sentences judged by an oracle that did not make them, and figures that are known beforehand."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from refavs_rt.dataset import DataError, Row
from refavs_rt.train.ablate import clips as clips_module
from refavs_rt.train.ablate.ambiguity import (
    LEVELS_ON_DISK,
    SILENT,
    SOUNDING,
    asked_clip,
    level_of,
    run,
)
from refavs_rt.train.ablate.bootstrap import compare
from refavs_rt.train.ablate.clips import DiskClips
from refavs_rt.train.ablate.ladder import LEVELS, Ladder, ladders
from refavs_rt.train.ablate.observation import ALL
from refavs_rt.train.material import Pack
from refavs_rt.train.scenes import Expression, Scene, SceneGenerator

from .knowing_predictor import KnowingPredictor, context_of, no_progress
from .ref_avs_tree import write_tree
from .scene_evidence import GENERAL, Evidence, meant_by, nouns
from .scene_oracle import judge


@pytest.fixture(autouse=True, scope="module")
def _small_frames() -> Iterator[None]:
    """Frames of scenes are drawn small, which is fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips_module, "FRAME_SIZE", (45, 80))
        yield


REAL_TABLE = Path(__file__).resolve().parents[2] / "shared" / "refavs_metadata.csv"


def faults(scene: Scene, ladder: Ladder) -> list[str]:
    """What the oracle has against a ladder."""
    seen = Evidence(scene)
    thing = scene.objects[ladder.target].thing
    out = []
    for level, e in zip(LEVELS, ladder.sentences, strict=True):
        said = e
        if level == LEVELS[0]:  # that it is there must be true of it among all objects, not of the only dog
            text = e.text.lower().replace(thing.name.lower(), "object")
            said = Expression(text, e.kind, e.target, e.detail)
        words = nouns(e.text, scene)
        reason = judge(said, seen) or judge(Expression(e.text, e.kind, e.target, e.detail), seen)
        if reason:
            out.append(f"{scene.key} {level}: {e.text!r}: {reason}")
        if level in LEVELS[:2]:
            fits = words == [thing.name]
        elif level == LEVELS[2]:
            fits = len(words) == 1 and words[0] in thing.kinds and words[0] != thing.name
        else:
            fits = words[0] in GENERAL and all(meant_by(word, scene) != {ladder.target} for word in words)
        if not fits or e.target != ladder.target:
            out.append(f"{scene.key} {level}: {e.text!r} says {words} of {thing.name!r}")
    if ladder.sounds != seen.sounds(ladder.target):
        out.append(f"{scene.key}: whether {thing.name!r} sounds")
    return out


def judged(pack: Pack, scenes: int, split: str = "test_s") -> tuple[list[str], Counter[str]]:
    generator = SceneGenerator(pack, split, seed=77)
    out: list[str] = []
    count: Counter[str] = Counter()
    for number in range(scenes):
        scene = generator.scene(number)
        for ladder in ladders(scene):
            count[SOUNDING if ladder.sounds else SILENT] += 1
            count[ladder.sentences[3].detail] += 1
            count[ladder.sentences[4].kind] += 1
            out += faults(scene, ladder)
    return out, count


def test_every_level_is_true_of_its_object_alone(tiny: Pack) -> None:
    refused, count = judged(tiny, 90)
    assert not refused, "\n".join(refused[:20])
    assert count[SOUNDING] > 15 and count[SILENT] > 5
    assert min(count[name] for name in ("sound", "verb", "silence", "place", "order")) > 0


@pytest.mark.media
@pytest.mark.parametrize("split", ["test_s", "test_u"])
def test_every_level_is_true_of_its_object_alone_in_real_pictures(pack: Pack, split: str) -> None:
    refused, count = judged(pack, 60, split)
    assert not refused, "\n".join(refused[:20])
    assert count[SOUNDING] > 8 and count[SILENT] > 2


def test_a_ladder_is_the_same_each_time_and_an_oracle_can_refuse_one(tiny: Pack) -> None:
    scene, (ladder, *_) = _first(tiny)
    assert ladders(SceneGenerator(tiny, "test_s", seed=5).scene(scene.key[-1]))[0] == ladder
    other = next(i for i in range(len(scene.objects)) if i != ladder.target)
    wrong = tuple(Expression(e.text, e.kind, other, e.detail) for e in ladder.sentences)
    assert len(faults(scene, Ladder(other, ladder.sounds, wrong))) >= len(LEVELS)


# Figures


def _first(pack: Pack) -> tuple[Scene, list[Ladder]]:
    generator = SceneGenerator(pack, "test_s", seed=5)
    scenes = (generator.scene(number) for number in range(100))
    return next((scene, found) for scene in scenes if (found := ladders(scene)))


def told(pack: Pack, clips: int, predictor: KnowingPredictor) -> list[tuple[str, Ladder]]:
    """Tell the predictor of the first clips; returns the ladders, each with the name of its clip."""
    generator = SceneGenerator(pack, "test_s", seed=5)
    out: list[tuple[str, Ladder]] = []
    number = 0
    while len({name for name, _ in out}) < clips:
        scene = generator.scene(number)
        number += 1
        asked = asked_clip(scene, 32)
        if asked:
            predictor.learn(asked.clip)
            out += [(asked.name, ladder) for ladder in ladders(scene)]
    return out


def test_who_knows_everything_has_one_at_every_level(tiny: Pack) -> None:
    predictor = KnowingPredictor()
    known = told(tiny, 3, predictor)
    experiment = run(context_of(predictor, tiny), no_progress)
    assert experiment.name == "ambiguity" and experiment.baseline == "1 name"
    assert {o.value for o in experiment.observations} == {1.0}
    for level in LEVELS:
        found = [(o.group, o.clip) for o in experiment.observations if o.condition == level]
        expected = [(g, name) for name, each in known for g in (ALL, SOUNDING if each.sounds else SILENT)]
        assert sorted(found) == sorted(expected)


def test_who_hears_nothing_has_zero_at_that_level_alone(tiny: Pack) -> None:
    """Sentences that speak of sounding are answered with nothing, relations with all that is not the object."""
    deaf = KnowingPredictor()
    known = told(tiny, 6, deaf)
    by_ear = {ladder.sentences[3].text for _, ladder in known}
    related = {ladder.sentences[4].text for _, ladder in known}
    deaf.err = lambda text, mask, ticks: (
        mask & False if text in by_ear else ~mask if text in related else mask
    )
    comparisons = compare(run(context_of(deaf, tiny, clips=6), no_progress), resamples=200)
    means = {c.condition: (c.estimate.mean, c.verdict) for c in comparisons if c.group == ALL}
    assert means == {
        LEVELS[0]: (1.0, "no difference shown"),
        LEVELS[1]: (1.0, "baseline"),
        LEVELS[2]: (1.0, "no difference shown"),
        LEVELS[3]: (0.0, "lower"),
        LEVELS[4]: (0.0, "lower"),
    }


def test_a_pack_without_such_scenes_is_told(tiny: Pack) -> None:
    with pytest.raises(DataError, match="no clip could be evaluated"):
        run(context_of(KnowingPredictor(), tiny, clips=1, split="test_n"), no_progress)


# On disk


def row(uid: str, text: str) -> Row:
    return Row(uid, uid.rsplit("_", 2)[0], "val", "0", text, False, 1)


@pytest.mark.parametrize(
    ("uid", "text", "level"),
    [
        ("a_dog_1", "The dog", 1),
        ("a_dog_1", "dogs.", 1),
        ("a_hair-dryer_1", "the hair dryer.", 1),
        ("a_dog_1", "The dog on the left.", 0),
        ("a_dog_1", "The barking dog.", 0),
        ("a_dog_1", "The hotdog.", 2),
        ("a_dog_1", "The animal with brown fur.", 2),
        ("a_dog_1", "The object making a sound.", 3),
        ("a_guitar_1", "The object being played by the man.", 3),
        ("a_dog_1", "The object making the loudest sound.", 4),
        ("a_dog_1", "The object that didn't make any sound.", 4),
        ("a_dog_1", "The first object to make a sound.", 4),
        ("a_dog_1", "The object behind the sounding cat.", 4),
        ("a_dog_1", "The resting animal.", 2),
        ("a_dog_1", "The object with a longer duration of sound than the cat.", 4),
    ],
)
def test_levels_are_read_from_the_words(uid: str, text: str, level: int) -> None:
    assert level_of(row(uid, text)) == LEVELS_ON_DISK[level]


@pytest.mark.skipif(not REAL_TABLE.exists(), reason="the Ref-AVS table is not here")
def test_the_real_table_has_every_level() -> None:
    with REAL_TABLE.open(newline="", encoding="utf-8-sig") as stream:
        rows = [row(r["uid"], r["exp"]) for r in csv.DictReader(stream) if r["split"] == "test_s"]
    count = Counter(level_of(r) for r in rows if not r.uid.startswith("null_"))
    assert set(count) == set(LEVELS_ON_DISK) and min(count.values()) > 10


def test_on_disk(tmp_path: Path) -> None:
    """Names alone are known there; null twins are not asked for."""
    tree = write_tree(tmp_path, ("val", "val"))
    predictor = KnowingPredictor(lambda text, mask, ticks: mask & text.startswith("The"))
    for clip in DiskClips(tree, "val", 9, 5, 32):
        predictor.learn(clip)
    experiment = run(context_of(predictor, data=tree, clips=9), no_progress)
    assert experiment.baseline == LEVELS_ON_DISK[0]
    assert {(o.condition, o.group) for o in experiment.observations} == {(LEVELS_ON_DISK[1], ALL)}
    assert Counter(o.value for o in experiment.observations) == {1.0: 4, 0.0: 4}
    assert len(predictor.asked) == 2
