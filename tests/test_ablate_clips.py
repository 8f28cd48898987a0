"""Clips to evaluate on: generated scenes and a data set on disk in one form, and the score of a sentence against the formula."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt.config import RunConfig
from refavs_rt.dataset import DataError
from refavs_rt.log_mel import log_mel
from refavs_rt.train.ablate.clips import (
    FRAME_SIZE,
    SENTENCES,
    DiskClips,
    EvaluationClip,
    GeneratedClips,
    Sentence,
    choose_sentences,
    measure,
    observe,
    open_clips,
    score,
    told,
)
from refavs_rt.train.ablate.observation import ALL, NULL, Context, Observation
from refavs_rt.train.material import Pack
from refavs_rt.train.scenes import Expression, SceneGenerator
from refavs_rt.train.scenes.writer import write_dataset

from .test_evaluate import resized

SIZE = 64


def no_progress(items: Iterable[Any], total: int, unit: str = "clip") -> Iterator[Any]:
    return iter(items)


@pytest.fixture(scope="module")
def tree(tiny: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("set") / "small"
    options = {"clips": 4, "seed": 5, "split": "test_s", "seconds": 3, "size": FRAME_SIZE}
    return write_dataset(out, tiny, progress=lambda done, total: None, **options)


def context(tiny: Pack, data: Path | None = None, **more: Any) -> Context:
    def no_model(settings: RunConfig) -> Any:
        raise AssertionError("no model is wanted")

    values = {"clips": 4, "seed": 5, **more}
    return Context("", no_model, data, lambda: tiny, **values)


def test_scenes_in_memory_are_those_on_disk(tiny: Pack, tree: Path) -> None:
    """Frames but for the JPEG, sound but for its 16 bits, and the truth of each object to the pixel."""
    scenes = SceneGenerator(tiny, "test_s", seed=5, seconds=3)
    made = list(GeneratedClips(scenes, 4, SIZE))
    stored = [
        clip for clip in DiskClips(tree, "test_s", 4, 0, SIZE) if any(s.kind != NULL for s in clip.sentences)
    ]
    assert len(made) == len(stored) == 4
    targets = 0
    for number, (mine, theirs) in enumerate(zip(made, stored, strict=True)):
        assert mine.name == f"scene {number}" and theirs.name.startswith(f"scene-5-test-s-0000{number}")
        assert mine.frames.shape == theirs.frames.shape == (3, SIZE, SIZE, 3)
        assert np.abs(mine.frames.astype(int) - theirs.frames).mean() < 2
        assert mine.samples is not None and theirs.samples is not None
        np.testing.assert_allclose(mine.samples, theirs.samples, atol=1 / 32_000)
        known = {s.truth.tobytes() for s in theirs.sentences if s.kind != NULL}
        for sentence in mine.sentences:
            assert sentence.truth.shape == (3, 256, 256)
            assert sentence.truth.any() is np.bool_(sentence.kind != NULL)
            targets += sentence.truth.tobytes() in known
    assert targets >= 8


def test_scenes_are_the_same_each_time(tiny: Pack) -> None:
    clips = open_clips(context(tiny, clips=2), SIZE)
    first, again = list(clips), list(clips)
    assert len(clips) == 2 and clips.skipped == {}
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.frames, two.frames)
        assert [s.text for s in one.sentences] == [s.text for s in two.sentences]
        assert 0 < len(one.sentences) <= SENTENCES
    other = next(iter(open_clips(context(tiny, clips=1, seed=6), SIZE)))
    assert [s.text for s in other.sentences] != [s.text for s in first[0].sentences]
    tracks = clips.tracks("scene 0")
    assert len(tracks) > 4 and all(track.any() for track in tracks)
    for track in tracks:
        assert all(clip.samples is not None and np.abs(clip.samples - track).max() > 0.01 for clip in first)


def test_one_sentence_of_each_kind_before_a_second() -> None:
    expressions = [
        Expression(f"{kind} {i}", kind, 0) for kind in ("name", "sound", "place") for i in range(9)
    ]
    for k in range(20):
        chosen = choose_sentences(expressions, (k,), 5)
        assert len({e.kind for e in chosen[:3]}) == 3 and len({e.text for e in chosen}) == 5
        assert max(sum(e.kind == kind for e in chosen) for kind in ("name", "sound", "place")) == 2
    assert len({tuple(choose_sentences(expressions, (k,), 5)) for k in range(20)}) > 15
    assert len(choose_sentences(expressions, (0,), 99)) == 27 and choose_sentences([], (0,)) == []


class Known:
    """Answers with logits and presence that the test has drawn."""

    image_size = SIZE

    def __init__(self, sentences: int, ticks: int) -> None:
        rng = np.random.default_rng(0)
        self.logits = rng.normal(0, 2, (ticks, sentences, 16, 16)).astype(np.float32)
        self.presence = rng.permutation(np.linspace(0.2, 0.8, ticks * sentences)).reshape(ticks, sentences)
        self.patches: NDArray[np.float32] | None = None

    def predict(self, frames: Any, patches: Any, texts: Any) -> Any:
        self.patches = patches
        return self.logits, self.presence.astype(np.float32)


def example(ticks: int = 5) -> EvaluationClip:
    rng = np.random.default_rng(1)
    truths = [rng.random((ticks, 256, 256)) < share for share in (0.3, 0.6, 0.0)]
    truths[0][2] = False
    sentences = (
        Sentence("a", "name", truths[0]),
        Sentence("b", None, truths[1]),
        Sentence("c", NULL, truths[2]),
    )
    frames = np.zeros((ticks, SIZE, SIZE, 3), np.uint8)
    return EvaluationClip(
        "clip", frames, rng.normal(0, 0.1, 16_000 * ticks - 77).astype(np.float32), sentences
    )


def test_score_is_the_formula() -> None:
    clip = example()
    predictor = Known(3, 5)
    found = score(predictor, clip)
    for n, sentence in enumerate(clip.sentences):
        values = []
        for t in range(5):
            share = 1 / (1 + np.exp(-resized(predictor.logits[t, n])))
            mask = (share > 0.4) & (predictor.presence[t, n] >= 0.5)
            truth = sentence.truth[t]
            both, either = float((mask & truth).sum()), float((mask | truth).sum())
            values.append(both / either if truth.any() else 1 - float(mask.sum()) / 65_536)
        assert found[n] == pytest.approx(sum(values) / 5, abs=2e-4)


def test_sound_is_paired_as_the_data_set_does() -> None:
    """Frame i with the window that begins at second i; no track is none."""
    clip, predictor = example(), Known(3, 5)
    score(predictor, clip)
    assert predictor.patches is not None and clip.samples is not None
    for i in range(5):
        window = np.zeros(15_600, np.float32)
        part = clip.samples[16_000 * i : 16_000 * i + 15_600]
        window[: len(part)] = part
        np.testing.assert_array_equal(predictor.patches[i], log_mel(window))
    score(predictor, dataclasses.replace(clip, samples=None))
    assert predictor.patches is None


def test_groups_of_observations() -> None:
    """Of its kind, and of all if it means an object; a data set without kinds has the one group alone."""
    clip, predictor = example(), Known(3, 5)
    values = score(predictor, clip).tolist()
    assert observe(predictor, clip, "as it is") == [
        Observation("as it is", ALL, "clip", values[0]),
        Observation("as it is", "name", "clip", values[0]),
        Observation("as it is", ALL, "clip", values[1]),
        Observation("as it is", NULL, "clip", values[2]),
    ]


def test_clips_on_disk_are_drawn_with_their_null_twins(tiny: Pack, tree: Path) -> None:
    """One name for all that was made of a clip, and a muted twin is silent."""
    for seed, count in ((0, 2), (1, 2), (0, 4)):
        clips = open_clips(context(tiny, tree, clips=count, seed=seed), SIZE)
        found = list(clips)
        assert len(found) == len(clips) and len({clip.name for clip in found}) == count
        assert not any(clip.name.startswith("null_") for clip in found)
        assert f"{count} of 4 clips of the split test_s of the data set small" in clips.note
        assert str(tree.parent) not in clips.note
    drawn = {
        frozenset(c.name for c in open_clips(context(tiny, tree, clips=2, seed=s), SIZE)) for s in range(8)
    }
    assert len(drawn) > 2
    with pytest.raises(DataError, match="no rows of split 'test_u'"):
        open_clips(context(tiny, tree, split="test_u"), SIZE)


def test_sound_of_other_clips(tiny: Pack, tree: Path) -> None:
    clips = open_clips(context(tiny, tree), SIZE)
    sounding = {c.name: c.samples for c in clips if c.samples is not None and c.samples.any()}
    for name, samples in sounding.items():
        tracks = clips.tracks(name)
        assert len(tracks) == len(sounding) - 1
        assert all(track.any() and not np.array_equal(track, samples) for track in tracks)


def test_what_cannot_be_read_is_skipped_and_told(tiny: Pack, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    write_dataset(
        broken, tiny, clips=2, seed=5, split="test_s", seconds=2, size=(40, 40), progress=lambda d, t: None
    )
    clips = DiskClips(broken, "test_s", 2, 0, SIZE)
    names = list(dict.fromkeys(clip.name for clip in clips))
    frame = broken / "media" / names[0] / "frames" / "0.jpg"
    frame.unlink()  # a null twin's frames are links to it
    frame.write_bytes(b"none")
    observations = measure(clips, no_progress, lambda clip: [Observation("c", ALL, clip.name, 1.0)])
    assert {o.clip for o in observations} >= {names[1]} and list(clips.skipped) == [names[0]]
    assert any("1 clips could not be read; the first: scene-5-test-s" in note for note in told(clips))
    assert clips.note in told(clips)

    def refuse(clip: EvaluationClip) -> list[Observation]:
        raise DataError(f"{clip.name} has no word to read")

    with pytest.raises(DataError, match="no clip could be evaluated; the last fault: .* no word to read"):
        measure(DiskClips(broken, "test_s", 2, 0, SIZE), no_progress, refuse)
