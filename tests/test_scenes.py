"""Scenes: the same for the same seed, each split with its own material, masks disjoint, the sound track the sum of its parts."""

from __future__ import annotations

import csv
import hashlib
import os
import pickle
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from refavs_rt.train.material import Pack
from refavs_rt.train.scenes import SPLITS, Scene, SceneGenerator
from refavs_rt.train.scenes.motion import Camera
from refavs_rt.train.scenes.render import Finish, Look
from refavs_rt.train.scenes.voice import Noise

from .scene_evidence import frame_levels, nouns

RATE = 16000
ROOT = Path(__file__).resolve().parents[1]
REAL_TABLE = ROOT.parent / "shared" / "refavs_metadata.csv"


def _scenes(pack: Pack, split: str, count: int, seed: int = 5, seconds: float = 10) -> list[Scene]:
    generator = SceneGenerator(pack, split, seed=seed, seconds=seconds)
    return [generator.scene(index) for index in range(count)]


def _fingerprint(scene: Scene) -> str:
    digest = hashlib.sha256()
    frames, masks = scene.render([0.0, 3.5], (40, 56))
    for array in (frames, masks, scene.waveform(), *scene.stems):
        digest.update(array.tobytes())
    digest.update(repr(scene.expressions()).encode())
    return digest.hexdigest()


# Determinism


def test_a_scene_depends_on_seed_split_and_number_alone(tiny: Pack) -> None:
    forth = {(split, i): _fingerprint(s) for split in SPLITS for i, s in enumerate(_scenes(tiny, split, 4))}
    again = pickle.loads(pickle.dumps(tiny))  # as a worker process gets it
    for split, i in reversed(forth):
        scene = SceneGenerator(again, split, seed=5).scene(i)
        scene.expressions()
        assert _fingerprint(scene) == forth[split, i]
    assert len(set(forth.values())) == len(forth)
    assert _fingerprint(SceneGenerator(tiny, "train", seed=6).scene(0)) not in forth.values()


def test_a_scene_is_the_same_in_another_process(tiny: Pack, tiny_path: Path) -> None:
    """Python orders a set of strings otherwise in each process."""
    program = (
        "import sys; from pathlib import Path; from refavs_rt.train.material import Pack;"
        "from refavs_rt.train.scenes import SceneGenerator;"
        f"g = SceneGenerator(Pack.load(Path({str(tiny_path)!r})), 'train', seed=5);"
        "print([e for i in range(12) for e in g.scene(i).expressions()])"
    )
    here = str([e for scene in _scenes(tiny, "train", 12) for e in scene.expressions()])
    for hash_seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=ROOT
        )
        assert done.stdout.strip() == here, done.stderr


def test_replace_makes_another_scene(tiny: Pack) -> None:
    """The drawing of one scene is not kept for a copy with other objects."""
    scene = next(s for s in _scenes(tiny, "train", 9) if len(s.objects) == 2)
    before = scene.render([0.0], (40, 56))[1]
    assert replace(scene, objects=scene.objects[:1]).render([0.0], (40, 56))[1].shape[1] == 1
    np.testing.assert_array_equal(scene.render([0.0], (40, 56))[1], before)


@pytest.mark.parametrize("seconds", [1, 2, 2.5, 3, 30])
def test_short_and_long_scenes(tiny: Pack, seconds: float) -> None:
    for split in SPLITS:
        for scene in _scenes(tiny, split, 12, seconds=seconds):
            assert scene.waveform().shape == (round(seconds * RATE),)
            assert all(0 <= a < b <= seconds for item in scene.objects for a, b in item.intervals)
            scene.expressions()


def test_arguments_are_checked(tiny: Pack) -> None:
    with pytest.raises(ValueError, match="unknown split 'test': choose one of train, val"):
        SceneGenerator(tiny, "test", seed=0)
    with pytest.raises(ValueError, match="at least 1 second"):
        SceneGenerator(tiny, "train", seed=0, seconds=0.5)


# What a split may use


@pytest.mark.media
def test_splits_share_neither_recordings_nor_backgrounds_nor_unseen_classes(pack: Pack) -> None:
    kinds = {"train": "train", "val": "val", "test_s": "test", "test_u": "test", "test_n": "test"}
    split_of = {x.entry: x.split for x in (*pack.backgrounds, *pack.ambiences)}
    classes: dict[str, set[str]] = {}
    sounds: dict[str, set[str]] = {}
    for split in SPLITS:
        scenes = _scenes(pack, split, 120)
        items = [item for scene in scenes for item in scene.objects]
        classes[split] = {item.class_name for item in items}
        sounds[split] = {item.voice.recording.entry for item in items if item.voice}
        behind = {s.backdrop.entry for s in scenes} | {s.noise.entry for s in scenes}
        assert {split_of[entry] for entry in behind if entry} == {kinds[split]}
        for item in items:
            if not item.voice or split == "test_u":
                continue
            own = [r for r in item.thing.recordings if r.split == kinds[split]]
            assert item.voice.recording in (own or [r for r in item.thing.recordings if r.split == "train"])
            assert item.other_recording == bool(own and split != "train")
    assert not classes["test_u"] & (classes["train"] | classes["val"] | classes["test_s"] | classes["test_n"])
    assert not sounds["test_u"] & (sounds["train"] | sounds["val"] | sounds["test_s"] | sounds["test_n"])
    assert len(classes["train"]) > 80 and len(classes["test_u"]) > 20
    everyone = {t.name for t in pack.things}
    assert classes["test_u"] <= {t.name for t in pack.things if t.unseen} and classes["train"] < everyone


@pytest.mark.media
def test_two_that_share_a_recording_never_sound_together(pack: Pack) -> None:
    for scene in _scenes(pack, "train", 150, seed=8):
        groups = [item.thing.sound_group for item in scene.objects if item.sounds]
        assert len(groups) == len(set(groups))


# Pictures


@pytest.mark.parametrize("size", [(97, 61), (33, 201), (32, 32), (61, 109)])
def test_masks_are_disjoint_at_odd_sizes(tiny: Pack, size: tuple[int, int]) -> None:
    for scene in _scenes(tiny, "train", 10):
        frames, masks = scene.render([0.0, 4.25, 9.0], size)
        assert frames.shape == (3, *size, 3) and frames.dtype == np.uint8
        assert masks.shape == (3, len(scene.objects), *size) and masks.dtype == bool
        assert masks.sum(axis=1).max() <= 1
        assert masks.any(axis=(2, 3)).all()


def test_a_mask_is_where_the_picture_changes(tiny: Pack) -> None:
    """With nothing done to the picture, an object's mask is the set of pixels that differ from the bare background."""
    checked = 0
    for scene in _scenes(tiny, "train", 20):
        plain = replace(scene, finish=Finish(), camera=Camera())
        for item in plain.objects:
            alone = replace(plain, objects=(replace(item, look=Look()),))
            frames, masks = alone.render([0.0], (90, 160))
            bare, _ = replace(plain, objects=()).render([0.0], (90, 160))
            changed = np.abs(frames[0].astype(int) - bare[0]).max(axis=2) > 0
            assert not (masks[0, 0] & ~changed).sum() > 0.02 * masks[0, 0].sum()
            outside = changed & ~masks[0, 0]
            assert not (outside & ~_grown(masks[0, 0], 2)).any()  # its soft edge at most
            checked += 1
    assert checked > 30


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    padded = np.pad(mask, by)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * by + 1, 2 * by + 1))
    return np.asarray(windows.any(axis=(2, 3)))


def test_the_nearer_object_covers_the_farther(tiny: Pack) -> None:
    scene = next(s for s in _scenes(tiny, "train", 30) if len(s.objects) > 1)
    far, near = (replace(item, motion=replace(item.motion, x=0.5, y=0.5)) for item in scene.objects[:2])
    _, alone = replace(scene, objects=(near,)).render([0.0], (64, 64))
    _, both = replace(scene, objects=(far, near)).render([0.0], (64, 64))
    np.testing.assert_array_equal(both[0, 1], alone[0, 0])
    assert not (both[0, 0] & alone[0, 0]).any()


# Sound


@pytest.mark.media
def test_the_track_is_the_sum_of_its_parts_and_never_clips(pack: Pack) -> None:
    for split in SPLITS:
        for scene in _scenes(pack, split, 20):
            wave, stems = scene.waveform(), scene.stems
            assert wave.dtype == np.float32 and np.abs(wave).max() < 1
            rest = wave.astype(np.float64) - np.sum(stems, axis=0, dtype=np.float64)
            noise = scene.noise.wave(pack, scene.seconds).astype(np.float64)
            if scene.noise.kind == "none":
                assert np.abs(rest).max() < 1e-6
                continue
            gain = float(rest @ noise / (noise @ noise))  # made softer together with the stems, if at all
            assert 0 < gain < 1 + 1e-6
            np.testing.assert_allclose(rest, gain * noise, atol=2e-6)


@pytest.mark.media
def test_a_sound_is_silent_before_it_begins_and_heard_when_it_is_said_to_be(pack: Pack) -> None:
    for scene in _scenes(pack, "train", 60):
        heard = scene.sounding(0, scene.seconds)
        for k, item in enumerate(scene.objects):
            stem = scene.stems[k]
            assert bool(stem.any()) == bool(heard[k]) == item.sounds
            if not item.voice:
                continue
            begin = item.voice.plays[0].start_s
            assert item.intervals[0][0] >= begin - 1e-9
            assert not stem[: int(begin * RATE) - 1].any()
            levels = frame_levels(stem)
            loud = np.flatnonzero(levels > 0.5 * levels.max()) / 50
            for start in loud.tolist():  # somewhere around its loudest frames
                assert scene.sounding(start - 0.25, start + 0.27)[k]
            for second in range(10):
                if not stem[second * RATE : (second + 1) * RATE].any():
                    assert not scene.sounding(second, second + 1)[k]


def test_noise_has_its_level(tiny: Pack) -> None:
    for kind in ("white", "pink", "brown"):
        wave = Noise(kind, -40.0, None, 3).wave(tiny, 4).astype(np.float64)
        assert 10 * np.log10(np.mean(wave**2)) == pytest.approx(-40, abs=0.01)
        spectrum = np.abs(np.fft.rfft(wave)) ** 2
        slope = 10 * np.log10(
            spectrum[4000:8000].mean() / spectrum[16000:32000].mean()
        )  # 2 octaves: 1-2 kHz, 4-8 kHz
        assert slope == pytest.approx({"white": 0, "pink": 6, "brown": 12}[kind], abs=1.5)


# The grammar


def _form(text: str, words: set[str]) -> str:
    """The text with each word for a thing as `_`."""
    return _any_of(frozenset(words)).sub("_", text.lower().strip().rstrip("."))


@lru_cache(maxsize=4096)
def _any_of(words: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b")


_PEOPLE = re.compile(
    r"\b(man|woman|men|women|boy|girl|person|people|baby|kid|child|human|sing|singing|speak\w*|talk\w*|rhythm|play\w*|hold\w*|"
    r"held|wear\w*|having|front|behind|valume)\b"
)
"""Sentences that no scene can have: people, what they do, depth, rhythm."""
_REAL_WORDS = "piano sitar saxophone ukulele guzheng marimba tabla pipa drum guitar violin cello object instrument".split()


@pytest.mark.media
@pytest.mark.skipif(not REAL_TABLE.exists(), reason="the table of Ref-AVS is not here")
def test_the_grammar_reads_like_the_table(pack: Pack) -> None:
    with REAL_TABLE.open(newline="", encoding="utf-8") as stream:
        real = [row["exp"] for row in csv.DictReader(stream)]
    made: Counter[str] = Counter()
    things: set[str] = set()
    for scene in _scenes(pack, "train", 200, seed=11):
        for expression in scene.expressions():
            made[expression.text] += 1
            things.update(nouns(expression.text, scene))
    forms = {_form(text, things) for text in made}
    common = Counter(_form(t, set(_REAL_WORDS)) for t in real if "object" in t.lower())
    common = Counter({f: n for f, n in common.items() if n >= 30 and not _PEOPLE.search(f)})
    assert len(common) >= 15
    covered = sum(n for form, n in common.items() if form in forms)
    assert covered > 0.9 * common.total(), [form for form in common if form not in forms]

    known = {word for text in real for word in re.findall(r"[a-z']+", text.lower())}
    used: Counter[str] = Counter()
    for text, n in made.items():
        for word in re.findall(r"[a-z']+", _form(text, things)):
            used[word] += n
    strange = {word: n for word, n in used.items() if word not in known}
    assert sum(strange.values()) < 0.05 * used.total(), strange
    lengths = np.array([len(text.split()) for text in made.elements()])
    real_lengths = np.array([len(text.split()) for text in real])
    assert abs(lengths.mean() - real_lengths.mean()) < 3 and lengths.max() <= real_lengths.max()


@pytest.mark.media
def test_a_meaning_has_several_wordings(pack: Pack) -> None:
    wordings: dict[str, set[str]] = {}
    for scene in _scenes(pack, "train", 150, seed=12):
        for expression in scene.expressions():
            form = _form(expression.text, set(nouns(expression.text, scene)))
            wordings.setdefault(expression.detail, set()).add(form)
    for detail in (
        "name",
        "sound",
        "silence",
        "first",
        "last",
        "loudest",
        "softest",
        "side",
        "beside",
        "moving",
    ):
        assert len(wordings[detail]) >= 4, detail
