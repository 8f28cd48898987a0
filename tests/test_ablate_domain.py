"""Scenes under four conditions: what is exchanged, and that all else stays; on plain shapes and tones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from refavs_rt.train.ablate import domain
from refavs_rt.train.ablate.domain import BASELINE, CONDITIONS, Four, Fours, exchanged
from refavs_rt.train.material import Pack
from refavs_rt.train.material.pack import decode_sound, encode_sound
from refavs_rt.train.scenes import SceneGenerator

from .scene_evidence import Evidence
from .scene_oracle import judge


@pytest.fixture(autouse=True, scope="module")
def _few_scenes() -> Iterator[None]:
    """Nearly every scene of plain shapes will do, so few are looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain, "_SCENES_A_CLIP", 2)
        yield


@pytest.fixture(scope="module")
def fours(tiny: Pack) -> list[Four]:
    return list(Fours(tiny, 3, 4))


def test_they_are_found_and_the_same_each_time(tiny: Pack, fours: list[Four]) -> None:
    again = Fours(tiny, 3, 4)
    assert len(again) == len(fours) == 4
    assert [(f.name, f.expressions) for f in again] == [(f.name, f.expressions) for f in fours]
    assert [f.name for f in fours] == [f"scene {f.scenes[BASELINE].key[-1]}" for f in fours]
    assert len({f.name for f in fours}) == 4


def test_only_background_and_recordings_are_exchanged(tiny: Pack, fours: list[Four]) -> None:
    """Trained ones are of the split train in the pack, others of test; what plays is the class's own."""
    photos = {b.entry: b.split for b in tiny.backgrounds}
    for four in fours:
        assert list(four.scenes) == list(CONDITIONS)
        first = four.scenes[BASELINE]
        for condition, (other_background, other_recording) in CONDITIONS.items():
            scene = four.scenes[condition]
            assert photos[scene.backdrop.entry or ""] == ("test" if other_background else "train")
            same = dataclasses.replace(
                scene.backdrop, entry=first.backdrop.entry, origin=first.backdrop.origin
            )
            assert same == first.backdrop
            assert (scene.camera, scene.finish, scene.noise) == (first.camera, first.finish, first.noise)
            for item, before in zip(scene.objects, first.objects, strict=True):
                assert (item.thing, item.picture, item.motion, item.look, item.height, item.width) == (
                    before.thing,
                    before.picture,
                    before.motion,
                    before.look,
                    before.height,
                    before.width,
                )
                assert (item.voice is None) is (before.voice is None)
                if item.voice and before.voice:
                    assert item.voice.recording in item.thing.recordings
                    assert item.voice.recording.split == ("test" if other_recording else "train")
                    assert item.other_recording is other_recording
                    assert item.voice.gain_db == before.voice.gain_db
                    assert item.voice.plays[0].start_s == before.voice.plays[0].start_s
                    assert item.voice.speed == before.voice.speed
        assert any(item.sounds for item in first.objects)


def test_clips_share_what_they_have_in_common(fours: list[Four]) -> None:
    """The same array of frames before the same background, so that it is looked at once; truths and sound likewise."""
    for four in fours[:2]:
        clips = dict(four.clips(64))
        first, sound, background, both = (clips[c] for c in CONDITIONS)
        assert first.frames is sound.frames and background.frames is both.frames
        assert np.abs(first.frames.astype(int) - background.frames).max() > 20
        assert first.samples is not None and sound.samples is not None
        np.testing.assert_array_equal(first.samples, background.samples)
        np.testing.assert_array_equal(sound.samples, both.samples)
        assert np.abs(first.samples - sound.samples).max() > 0.01
        for clip in clips.values():
            assert clip.name == four.name and clip.frames.shape == (10, 64, 64, 3)
            for mine, theirs in zip(clip.sentences, first.sentences, strict=True):
                assert (mine.text, mine.kind) == (theirs.text, theirs.kind)
                np.testing.assert_array_equal(mine.truth, theirs.truth)
        assert any(s.truth.any() for s in first.sentences)


def halting(tiny: Pack) -> Pack:
    """The pack, but that recordings which training never plays fall silent after 0.3 s."""
    entries = dict(tiny._entries)
    things = []
    for thing in tiny.things:
        recordings = []
        for recording in thing.recordings:
            if recording.split == "test":
                samples = decode_sound(entries[recording.entry]).copy()
                samples[4800:] = 0
                entries[recording.entry] = encode_sound(samples)
                recording = dataclasses.replace(recording, active=((0.0, 0.3),))
            recordings.append(recording)
        things.append(dataclasses.replace(thing, recordings=tuple(recordings)))
    pack = Pack(tiny.path, entries)
    pack.things = tuple(things)
    return pack


def test_what_is_asked_is_true_under_all_conditions(tiny: Pack) -> None:
    """Where other recordings have pauses, not all that was true stays so."""
    kinds = set()
    lost = 0
    for four in Fours(halting(tiny), 3, 8):
        assert four.expressions
        seen = {c: Evidence(four.scenes[c]) for c in (BASELINE, "other recording")}
        for expression in four.expressions:
            for condition, evidence in seen.items():
                assert judge(expression, evidence) is None, (four.name, condition, expression)
            kinds.add(expression.kind)
        first = four.scenes[BASELINE].expressions()
        lost += sum(judge(e, seen["other recording"]) is not None for e in first)
    assert len(kinds) > 4 and lost > 3


def test_scenes_that_cannot_be_exchanged(tiny: Pack) -> None:
    """A class without a recording of one of the two kinds, no photograph of one kind, no sound at all."""
    generator = SceneGenerator(tiny, "test_s", seed=3)
    scenes = [generator.scene(i) for i in range(30)]
    silent = [s for s in scenes if not any(item.voice for item in s.objects)]
    assert silent and not any(exchanged(s) for s in silent)
    scene = next(s for s in scenes if exchanged(s))
    poor = Pack.load(tiny.path)
    poor.backgrounds = tuple(b for b in poor.backgrounds if b.split != "test")
    assert not exchanged(dataclasses.replace(scene, pack=poor))
    for split in ("train", "test"):
        objects = tuple(
            dataclasses.replace(
                item,
                thing=dataclasses.replace(
                    item.thing, recordings=tuple(r for r in item.thing.recordings if r.split != split)
                ),
            )
            for item in scene.objects
        )
        assert not exchanged(dataclasses.replace(scene, objects=objects))
