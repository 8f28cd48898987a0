"""The scorecard: which frames count, against what is drawn and heard; what each condition exchanges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt.train.ablate import scorecard
from refavs_rt.train.ablate.observation import ALL, NULL, Context, Observation
from refavs_rt.train.ablate.scorecard import (
    ABOUT_SOUND,
    MUTED,
    NOTHING,
    SAID,
    SEEN,
    SHOWN,
    SHOWN_ALIKE,
    SINCE,
    SWAPPED,
    UNSEEN,
    Scored,
    observe,
    scored,
)
from refavs_rt.train.batches import SOUND_KINDS
from refavs_rt.train.cli import main
from refavs_rt.train.material import Pack
from refavs_rt.train.scenes import SceneGenerator

SIZE = 64


@pytest.fixture(scope="module")
def clips(tiny: Pack) -> list[Scored]:
    generator = SceneGenerator(tiny, "test_s", seed=5)
    made = [scored(generator.scene(i), SIZE) for i in range(24)]
    return [clip for clip in made if clip is not None]


class Knowing:
    """Marks the truth of each sentence of a clip, from the first frame on; or what `instead` says."""

    image_size = SIZE

    def __init__(self, clip: Scored, instead: dict[str, NDArray[np.bool_]] | None = None) -> None:
        self.truths = {s.text: s.truth for s in clip.clip.sentences} | (instead or {})
        self.patches: list[NDArray[np.float32] | None] = []

    def predict(
        self, frames: NDArray[np.uint8], patches: NDArray[np.float32] | None, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.patches.append(patches)
        masks = np.stack([np.where(self.truths[text], 9.0, -9.0) for text in texts], axis=1)
        return masks.astype(np.float32), np.full((len(frames), len(texts)), 0.9, np.float32)


def values(found: list[Observation], condition: str, group: str) -> list[float]:
    return [o.value for o in found if (o.condition, o.group) == (condition, group)]


def test_scenes_have_two_objects_or_more(clips: list[Scored], tiny: Pack) -> None:
    assert len(clips) >= 15 and min(len(c.scene.objects) for c in clips) == 2
    generator = SceneGenerator(tiny, "test_s", seed=5)
    alone = next(s for s in map(generator.scene, range(60)) if len(s.objects) == 1)
    assert scored(alone, SIZE) is None


def test_a_network_that_knows_all_has_full_marks(clips: list[Scored]) -> None:
    found = [o for clip in clips for o in observe(Knowing(clip), clip, SEEN)]
    kinds = {e.kind for clip in clips for e in clip.expressions}
    assert {"name", "sound", "place", "null"} <= kinds
    for kind in kinds - {"null"}:
        assert set(values(found, SEEN, kind)) == {1.0}
    assert set(values(found, SEEN, ALL)) == {1.0} == set(values(found, SEEN, NULL))
    assert set(values(found, SEEN, SHOWN)) | set(values(found, SEEN, SHOWN_ALIKE)) == {0.0}
    assert values(found, SEEN, SHOWN)
    objects = sum(e.target is not None for clip in clips for e in clip.expressions)
    counted = [o for o in found if o.condition == SEEN and o.group.endswith(" objects")]
    assert len(counted) == len(values(found, SEEN, ALL)) >= 0.95 * objects
    assert max(values(found, SWAPPED, ALL)) < 0.9  # the mask of another object
    assert np.mean(values(found, SWAPPED, ALL)) < 0.1


def test_what_is_like_something_that_is_there_is_told_apart(tiny: Pack) -> None:
    """A violin where there is a drum kit; of the birds and the rest each is a word for no object of the scene."""
    generator = SceneGenerator(tiny, "test_n", seed=5)
    clips = [clip for i in range(16) if (clip := scored(generator.scene(i), SIZE)) is not None]
    found = [o for clip in clips for o in observe(Knowing(clip), clip, NOTHING)]
    alike = [(clip, e) for clip in clips for e in clip.expressions if e.detail == "alike"]
    assert len(values(found, NOTHING, SHOWN_ALIKE)) == len(alike) > 0
    assert len(values(found, NOTHING, SHOWN)) == sum(len(c.expressions) for c in clips) - len(alike)
    for clip, expression in alike:
        there = {kind for item in clip.scene.objects for kind in item.thing.kinds} - {
            "animal",
            "food",
            "plant",
        }
        named = [thing for thing in tiny.things if thing.name in expression.text.lower() and not thing.unseen]
        assert any(set(thing.kinds) & there for thing in named), expression


def test_a_sentence_about_a_sound_counts_from_its_first_window_on(clips: list[Scored]) -> None:
    """Wrong wherever the object was not yet heard, by the waveform of the object alone: nothing is lost by that. Wrong wherever
    it was heard: J is 0."""
    seen_one = False
    for clip in clips:
        for number, (expression, sentence) in enumerate(
            zip(clip.expressions, clip.clip.sentences, strict=True)
        ):
            target = expression.target
            if target is None or expression.kind not in SOUND_KINDS or not clip.scene.objects[target].sounds:
                continue
            loud = np.abs(clip.scene.stems[target]) > 1e-4
            ticks = len(sentence.truth)
            windows = [loud[i * 16_000 : i * 16_000 + 15_360].sum() > 1_600 for i in range(ticks)]
            clear = [loud[i * 16_000 : i * 16_000 + 15_360].sum() == 0 for i in range(ticks)]
            if not any(windows) or not clear[0]:
                continue
            heard = windows.index(True)
            if not all(clear[:heard]):
                continue  # a window in which it is hardly heard
            late = sentence.truth.copy()
            late[:heard] = ~late[:heard]
            found = list(observe(Knowing(clip, {sentence.text: late}), clip, SEEN))
            before = list(observe(Knowing(clip), clip, SEEN))
            assert [o for o in found if o.condition == SEEN] == [o for o in before if o.condition == SEEN]
            never = list(observe(Knowing(clip, {sentence.text: ~sentence.truth}), clip, SEEN))
            assert min(values(never, SEEN, expression.kind)) == 0.0, number
            seen_one = True
    assert seen_one


def test_frames_are_told_by_the_time_since_the_object_was_heard(clips: list[Scored]) -> None:
    """Its intervals say when it sounds; masks are right in the frames of one group alone."""
    shown = dict.fromkeys(SINCE, 0)
    for clip in clips:
        for expression, sentence in zip(clip.expressions, clip.clip.sentences, strict=True):
            target = expression.target
            if target is None or expression.kind not in SOUND_KINDS or not clip.scene.objects[target].sounds:
                continue
            ticks = len(sentence.truth)
            heard = [clip.scene.sounding(i, i + 0.975)[target] for i in range(ticks)]
            ago: list[int | None] = []
            for i in range(ticks):
                past = [i - j for j in range(i + 1) if heard[j]]
                ago.append(min(past) if past else None)
            of_group = {
                SINCE[0]: [a == 0 for a in ago],
                SINCE[1]: [a in (1, 2) for a in ago],
                SINCE[2]: [a is not None and a >= 3 for a in ago],
            }
            for group, frames in of_group.items():
                right = sentence.truth & np.array(frames)[:, None, None]
                if not right.any():
                    continue
                only = Scored(clip.scene, clip.clip, clip.expressions)
                found = list(observe(Knowing(only, {sentence.text: right}), only, UNSEEN))
                of_this = clip.expressions.index(expression)
                about_sound = [
                    n
                    for n, e in enumerate(clip.expressions)
                    if e.kind in SOUND_KINDS and e.target is not None and clip.scene.objects[e.target].sounds
                ]
                if about_sound == [of_this]:
                    assert values(found, UNSEEN, group) == [1.0]
                    for other in set(SINCE) - {group}:
                        assert set(values(found, UNSEEN, other)) <= {0.0}
                    shown[group] += 1
    assert shown[SINCE[0]] >= 2 and sum(shown.values()) >= 4


def test_anothers_sentence_counts_where_that_one_can_be_known_too(clips: list[Scored]) -> None:
    """Before its own object is heard a sentence means nothing to anyone: what it marks then is not held against it."""
    tried = 0
    for clip in clips:
        means = [n for n, e in enumerate(clip.expressions) if e.target is not None]
        for n in means:
            following = [*range(n + 1, len(clip.expressions)), *range(n)]
            others = [
                m
                for m in following
                if m in means and clip.expressions[m].target != clip.expressions[n].target
            ]
            other = clip.expressions[others[0]] if others else None
            if (
                other is None
                or other.kind not in SOUND_KINDS
                or not clip.scene.objects[other.target or 0].sounds
            ):
                continue
            heard = [clip.scene.sounding(i, i + 0.975)[other.target] for i in range(len(clip.clip.frames))]
            first = heard.index(True) if any(heard) else 0
            truth = clip.clip.sentences[n].truth
            if not truth[:first].any():
                continue
            early = truth.copy()
            early[first:] = False
            predictor = Knowing(clip, {other.text: early})
            found = [o for o in observe(predictor, clip, SEEN) if o.condition == SWAPPED and o.group == ALL]
            untouched = [o for o in observe(Knowing(clip, {other.text: early & False}), clip, SEEN)]
            assert found == [o for o in untouched if o.condition == SWAPPED and o.group == ALL]
            tried += 1
    assert tried >= 2


def test_muted_clips_have_silence_for_sound(clips: list[Scored]) -> None:
    clip = next(c for c in clips if any(e.kind == "sound" and e.target is not None for e in c.expressions))
    predictor = Knowing(clip)
    found = list(observe(predictor, clip, SEEN))
    assert len(predictor.patches) == 2
    assert len(values(found, MUTED, ABOUT_SOUND)) == len(values(found, SEEN, ABOUT_SOUND)) > 0
    heard, muted = predictor.patches
    assert heard is not None and muted is not None
    assert np.ptp(heard) > 1 and np.ptp(muted) == 0
    again = Knowing(clip)
    assert {o.condition for o in observe(again, clip, UNSEEN)} == {UNSEEN} and len(again.patches) == 1


def test_presence_is_held_against_what_is_there(clips: list[Scored]) -> None:
    """Presence 0.9 in every frame: the share there is that of frames whose object is seen and known to be meant."""
    found = [o for clip in clips for o in observe(Knowing(clip), clip, UNSEEN)]
    there = values(found, UNSEEN, SAID[4])
    frames = sum(len(c.clip.frames) * len(c.expressions) for c in clips)
    assert len(there) == frames and not any(values(found, UNSEEN, group) for group in SAID[:4])
    seen = sum(int(s.truth.any(axis=(1, 2)).sum()) for c in clips for s in c.clip.sentences)
    assert 0.8 * seen < sum(there) < seen  # before a sound is heard, nobody knows


def test_the_experiment_measures_all_three_splits(tiny: Pack) -> None:
    class Blank:
        image_size = SIZE

        def predict(self, frames: Any, patches: Any, texts: Any) -> tuple[NDArray[Any], NDArray[Any]]:
            shape = len(frames), len(texts)
            return np.full((*shape, 8, 8), -9.0, np.float32), np.full(shape, 0.9, np.float32)

    context = Context("", lambda _: Blank(), None, lambda: tiny, clips=6, seed=0)
    experiment = scorecard.run(context, lambda items, total, unit="clip": iter(items))
    assert {o.condition for o in experiment.observations} == {SEEN, MUTED, SWAPPED, UNSEEN, NOTHING}
    assert set(values(experiment.observations, SEEN, ALL)) == {0.0}
    assert set(values(experiment.observations, NOTHING, SHOWN)) == {0.0}
    assert set(values(experiment.observations, NOTHING, NULL)) == {1.0}


def test_flags_that_mean_nothing_here_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        "scorecard --data x",
        "photographs --data x",
        "photographs --clips 3",
        "scorecard --split val",
    ):
        with pytest.raises(SystemExit):
            main(["ablate", *command.split()])
        assert "unrecognized arguments" in capsys.readouterr().err
