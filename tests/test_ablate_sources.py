"""Sounding objects: the same picture with one, two and three of them, sentences judged by another's oracle, known mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from refavs_rt.dataset import DataError
from refavs_rt.train.ablate import clips as clips_module
from refavs_rt.train.ablate.bootstrap import compare
from refavs_rt.train.ablate.clips import DiskClips
from refavs_rt.train.ablate.confusion import (
    ITSELF,
    NOTHING,
    Taken,
    alike_notes,
    confusion,
    taken_notes,
)
from refavs_rt.train.ablate.sources import (
    BY_NAME,
    BY_SOUND,
    BY_VERB,
    MARKED,
    OTHER,
    SOUNDING,
    HeardClip,
    heard_clip,
    lies_on,
    only_sounding,
    run,
    with_three_sounds,
)
from refavs_rt.train.material import Pack
from refavs_rt.train.scenes import Expression, Scene, SceneGenerator

from .knowing_predictor import KnowingPredictor, Mask, context_of, no_progress
from .ref_avs_tree import write_tree
from .scene_evidence import GENERAL, Evidence, nouns
from .scene_oracle import judge


@pytest.fixture(autouse=True, scope="module")
def _small_frames() -> Iterator[None]:
    """Frames of scenes are drawn small, which is fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips_module, "FRAME_SIZE", (45, 80))
        yield


def able(pack: Pack, count: int, seed: int = 5) -> list[tuple[Scene, Scene]]:
    """The first scenes in which three can sound, as they are and so."""
    generator = SceneGenerator(pack, "test_s", seed=seed)
    out: list[tuple[Scene, Scene]] = []
    number = 0
    while len(out) < count:
        scene = generator.scene(number)
        number += 1
        whole = with_three_sounds(scene)
        if whole:
            out.append((scene, whole))
    return out


# What is made of a scene


def test_three_sound_and_the_picture_stays(tiny: Pack) -> None:
    for scene, whole in able(tiny, 6):
        voiced = [item for item in whole.objects if item.sounds]
        assert len(voiced) == 3 and len({item.thing.sound_group for item in voiced}) == 3
        for before, after in zip(scene.objects, whole.objects, strict=True):
            assert (before.thing, before.motion, before.look) == (after.thing, after.motion, after.look)
            assert after.voice is None or after.intervals == after.voice.intervals(10)
        assert all(item.voice.recording.split != "val" for item in voiced if item.voice)
        np.testing.assert_array_equal(scene.render([3.0], (24, 32))[0], whole.render([3.0], (24, 32))[0])


def test_fewer_than_three_able_are_refused(tiny: Pack) -> None:
    generator = SceneGenerator(tiny, "test_s", seed=5)
    for number in range(40):
        scene = generator.scene(number)
        groups = {item.thing.sound_group for item in scene.objects if item.thing.recordings}
        assert (with_three_sounds(scene) is None) is (len(groups) < 3)


def test_an_object_sounds_alike_whatever_sounds_beside_it(tiny: Pack) -> None:
    (_, whole), *_ = able(tiny, 1)
    three = [i for i, item in enumerate(whole.objects) if item.sounds]
    for sounding in ([three[0]], three[:2]):
        heard = only_sounding(whole, sounding)
        for i, (stem, alone) in enumerate(zip(whole.stems, heard.stems, strict=True)):
            if i in sounding:  # but for the gain against clipping
                scale = np.abs(alone).max() / np.abs(stem).max()
                assert scale >= 1 and np.allclose(alone, stem * scale, atol=1e-6)
            else:
                assert not alone.any()
        assert [heard.sounding(0, 10)[i] for i in three] == [i in sounding for i in three]


def judged(pack: Pack, count: int) -> tuple[list[str], Counter[tuple[int, str]]]:
    refused: list[str] = []
    asked: Counter[tuple[int, str]] = Counter()
    for scene, whole in able(pack, count, seed=78):
        clip = heard_clip(scene, 32)
        assert clip is not None
        for hearing in clip.hearings:
            heard = only_sounding(whole, hearing.sounding)
            seen = Evidence(heard)
            said = {e.text: e for e in heard.expressions()}
            for question in hearing.questions:
                asked[len(hearing.sounding), question.group] += 1
                sentence = {
                    BY_NAME: Expression(question.text, "name", question.target, "name"),
                    BY_VERB: Expression(question.text, "sound", question.target, "verb"),
                    BY_SOUND: Expression(question.text, "sound", question.target, "sound")
                    if len(hearing.sounding) == 1
                    else said.get(question.text),
                }[question.group]
                reason = judge(sentence, seen) if sentence else "nobody said it"
                if question.group != BY_NAME and nouns(question.text, heard)[0] not in GENERAL:
                    reason = "it says what the object is"
                if reason:
                    refused.append(f"{whole.key} {hearing.sounding} {question}: {reason}")
    return refused, asked


def test_sentences_are_true_of_their_object_alone(tiny: Pack) -> None:
    refused, asked = judged(tiny, 6)
    assert not refused, "\n".join(refused[:20])
    for group in (BY_NAME, BY_VERB):
        assert asked[1, group] == asked[2, group] == asked[3, group] > 3
    assert asked[1, BY_SOUND] == 18 and asked[2, BY_SOUND] > 6 and asked[3, BY_SOUND] > 6


@pytest.mark.media
def test_sentences_are_true_of_their_object_alone_in_real_pictures(pack: Pack) -> None:
    refused, asked = judged(pack, 8)
    assert not refused, "\n".join(refused[:20])
    assert asked[1, BY_VERB] == asked[3, BY_VERB] > 3


# Figures


@pytest.fixture(scope="module")
def clips(tiny: Pack) -> list[HeardClip]:
    """The first six that the experiment makes."""
    found = [heard_clip(scene, 32) for scene, _ in able(tiny, 6)]
    return [clip for clip in found if clip is not None]


def test_who_knows_everything_mistakes_nothing(tiny: Pack, clips: list[HeardClip]) -> None:
    predictor, clips = KnowingPredictor(), clips[:3]
    for clip in clips:
        for hearing in clip.hearings:
            for q in hearing.questions:
                predictor.tell(clip.frames, hearing.samples, q.text, clip.truths[q.target])
    experiment = run(context_of(predictor, tiny), no_progress)
    assert experiment.name == "sources" and experiment.baseline == SOUNDING[0] and experiment.matrix is None
    assert {o.value for o in experiment.observations} == {1.0}
    found = Counter((o.condition, o.group, o.clip) for o in experiment.observations)
    assert found == Counter(
        (SOUNDING[len(h.sounding) - 1], q.group, clip.name)
        for clip in clips
        for h in clip.hearings
        for q in h.questions
    )
    texts = [
        sorted(
            (clip.name, q.text)
            for clip in clips
            for h in clip.hearings
            for q in h.questions
            if len(h.sounding) == n and q.group != BY_SOUND
        )
        for n in (1, 2, 3)
    ]
    assert texts[0] == texts[1] == texts[2], "the same is asked at each number"
    assert len(experiment.observations) == sum(len(texts) for *_, texts in predictor.asked)
    seen = {id(frames) for frames, _, _ in predictor.asked}
    assert len(seen) == 3, "what is seen of a clip is given as one array, so that it is looked at once"
    assert any("100% lie on the class that was meant" in note for note in experiment.notes)


def test_who_is_confused_by_others_takes_the_first_sounding_object(
    tiny: Pack, clips: list[HeardClip]
) -> None:
    """Sentences that are not names are answered with the first sounding object, which with one or two is the one meant."""
    confused = KnowingPredictor()
    expected: list[float] = []
    pairs: list[tuple[str, str, frozenset[str]]] = []
    for clip in clips:
        for hearing in clip.hearings:
            for q in hearing.questions:
                lying = q.target if q.group == BY_NAME else hearing.sounding[0]
                shown, truth = clip.truths[lying], clip.truths[q.target]
                confused.tell(clip.frames, hearing.samples, q.text, shown)
                if q.group != BY_NAME:
                    family = [FAMILIES[name] for name in clip.classes]
                    others = [i for i, name in enumerate(clip.classes) if name != clip.classes[q.target]]
                    taken_for = ITSELF if lying == q.target else family[lying]
                    pairs.append((family[q.target], taken_for, frozenset(family[i] for i in others)))
                if q.group == BY_SOUND and len(hearing.sounding) == 3:
                    iou = (shown & truth).sum(axis=(1, 2)) / (shown | truth).sum(axis=(1, 2))
                    expected.append(float(iou.mean()))
    experiment = run(context_of(confused, tiny, clips=6), no_progress)
    found = [o.value for o in experiment.observations if (o.condition, o.group) == (SOUNDING[2], BY_SOUND)]
    assert sorted(found) == pytest.approx(sorted(expected), abs=1e-9)
    assert min(expected) < 0.5 < max(expected)
    by = {(c.condition, c.group): c for c in compare(experiment, resamples=300)}
    for group in (BY_NAME, BY_VERB, BY_SOUND):
        assert by[SOUNDING[1], group].verdict == "no difference shown"
    assert by[SOUNDING[2], BY_NAME].verdict == "no difference shown"
    assert by[SOUNDING[2], BY_SOUND].verdict == by[SOUNDING[2], BY_VERB].verdict == "lower"
    assert experiment.matrix is not None
    rows, columns, shares = experiment.matrix
    assert (columns[0], columns[-1]) == (ITSELF, NOTHING) and set(columns[1:-1]) <= set(FAMILIES.values())
    for row, of_row in zip(rows, shares, strict=True):
        of_family = [pair for pair in pairs if f"{pair[0]} (" == row[: len(pair[0]) + 2]]
        assert row.endswith(f" ({len(of_family)})")
        for column, share in zip(columns, of_row, strict=True):
            asked = [p for p in of_family if column in (ITSELF, NOTHING, *p[2])]
            count = sum(p[1] == column for p in asked)
            assert share == pytest.approx(count / len(asked) if asked else np.nan, nan_ok=True)


FAMILIES = {
    **dict.fromkeys(("dog", "cow"), "other animal"),
    **dict.fromkeys(("seagull", "hen"), "bird"),
    **dict.fromkeys(("violin", "drum kit"), "instrument"),
    **dict.fromkeys(("kettle", "car", "lemon", "scissors"), "other thing"),
}


def test_a_pack_without_such_scenes_is_told(tiny: Pack) -> None:
    with pytest.raises(DataError, match="no clip could be evaluated"):
        run(context_of(KnowingPredictor(), tiny, clips=1, split="test_u"), no_progress)


# What a mask lies on


def _boxes(*columns: tuple[int, int]) -> list[Mask]:
    out = []
    for start, end in columns:
        mask = np.zeros((3, 8, 20), bool)
        mask[:, :, start:end] = True
        out.append(mask)
    return out


@pytest.mark.parametrize(
    ("shown", "taken"),
    [
        ((0, 6), 0),
        ((6, 12), 1),
        ((4, 9), 1),
        ((0, 20), None),
        ((12, 20), None),
        ((3, 3), None),
        ((8, 16), 1),
        ((8, 17), None),
    ],
)
def test_what_a_mask_lies_on(shown: tuple[int, int], taken: int | None) -> None:
    """Objects from column 0 to 6 and from 6 to 12; there is nothing from 12 to 20."""
    (mask,) = _boxes(shown)
    assert lies_on(mask, _boxes((0, 6), (6, 12))) == taken


CLASSES, VERBS = ("hen", "cow", "bull", "car"), ("cluck", "moo", "bellow", None)
WIDER = ("bird", "cattle", "cattle", "vehicle")


def taken(meant: int, lying: int | None, times: int, clip: str = "a") -> list[Taken]:
    return [Taken(clip, meant, lying, CLASSES, WIDER, VERBS, (0, 1))] * times


def test_the_matrix_counts_what_was_taken_for_what() -> None:
    """Cows are right in 4 of 8 sentences, bulls taken for them in 3; the one about the bull is answered with the hen."""
    every = [*taken(1, 2, 3), *taken(1, 1, 4), *taken(1, None, 1), *taken(0, 0, 5), *taken(2, 0, 1)]
    columns = [ITSELF, "cattle", "bird", NOTHING]
    assert confusion(every) == (["cattle (9)"], columns, [[4 / 9, 3 / 9, 1 / 9, 1 / 9]])
    every += taken(0, 3, 5)
    matrix = confusion(every)
    assert matrix is not None
    assert matrix[:2] == (["bird (10)", "cattle (9)"], [ITSELF, "vehicle", "cattle", "bird", NOTHING])
    np.testing.assert_allclose(matrix[2], [[0.5, 0.5, 0, np.nan, 0], [4 / 9, 0, 3 / 9, 1 / 9, 1 / 9]])
    assert confusion(taken(0, 0, 5)) is None and confusion([]) is None and taken_notes([]) == []
    notes = taken_notes(every)
    assert "of 19 masks" in notes[0] and "47% lie on the class that was meant, 47% on another" in notes[0]
    assert notes[1] == (
        "taken in most clips: car for hen (5 sentences, 1 clip); bull for cow (3 sentences, 1 clip); "
        "hen for bull (1 sentence, 1 clip)"
    )
    two = taken_notes([*every, *taken(2, 0, 1, "b")])[1]
    assert two.startswith("taken in most clips: hen for bull (2 sentences, 2 clips); car for hen (5"), two


def test_the_matrix_holds_what_is_mistaken_most_often() -> None:
    names = tuple(f"class {i:02d}" for i in range(20))
    every = [
        Taken("a", i, (i + 1) % 20, names, names, (None,) * 20, ()) for i in range(20) for _ in range(20 - i)
    ]
    matrix = confusion(every)
    assert matrix is not None
    rows, columns, shares = matrix
    assert rows == [f"class {i:02d} ({20 - i})" for i in range(12)]
    assert columns == [ITSELF, *names[1:13], NOTHING]
    for i, of_row in enumerate(shares):
        wanted = [1.0 * (column == f"class {i + 1:02d}") for column in columns]
        if i:
            wanted[i] = np.nan  # its own class is no other
        np.testing.assert_array_equal(of_row, wanted)
    assert alike_notes(every, 0) == []


def test_alike_sounds_are_counted_apart() -> None:
    """A cow's moo and a bull's bellow may go by one word; a car's sound has none, so it is left out."""
    (note,) = alike_notes([*taken(1, 2, 3), *taken(1, 1, 1), *taken(1, 0, 1)], 0)
    assert "one that sounds too and is of another sound in 20.0% (of 5 pairs)" in note
    assert "one that is silent and is of a like sound in 60.0% (of 5 pairs)" in note
    assert "car" not in note and note.count("pairs)") == 2


# On disk


def test_on_disk(tmp_path: Path) -> None:
    """Two marked objects a clip; who always answers the red disc is told so."""
    tree = write_tree(tmp_path, ("val",) * 6)
    predictor = KnowingPredictor()
    for clip in DiskClips(tree, "val", 9, 5, 32):
        masks = {s.text.lower().rstrip(".").split(" ", 1)[1]: s.truth for s in clip.sentences}
        for sentence in clip.sentences:
            predictor.tell(clip.frames, clip.samples, sentence.text, masks.get("red disc", sentence.truth))
    experiment = run(context_of(predictor, data=tree, clips=9), no_progress)
    assert experiment.baseline == MARKED[1], "the fewest that some clip has"
    assert {(o.condition, o.group) for o in experiment.observations} == {(MARKED[1], BY_NAME)}
    assert len(experiment.observations) == 24 and {o.value for o in experiment.observations} == {0.0, 1.0}
    assert experiment.matrix is None, "no sentence was about sound"
    (tree / "rows.jsonl").write_text(
        "".join(
            f'{{"uid": "{clip}_{name}_{k}", "kind": "{"sound" if k == 1 else "place"}"}}\n'
            for clip in (f"clip{n}_0_10000" for n in range(6))
            for name in ("red-disc", "blue-disc", "green-disc")
            for k in (1, 2)
        )
    )
    experiment = run(context_of(predictor, data=tree, clips=9), no_progress)
    groups = Counter(o.group for o in experiment.observations)
    assert groups == {BY_SOUND: 12, OTHER: 12}
    assert experiment.matrix is not None
    rows, columns, shares = experiment.matrix
    wrong = ["blue disc", "green disc"]
    assert sorted(row.rpartition(" (")[0] for row in rows) == wrong
    assert columns == [ITSELF, "red disc", NOTHING] and all(of_row[1:] == [1.0, 0.0] for of_row in shares)
    assert any("mask stands in for it" in note for note in experiment.notes)
