"""Length: streams whose last ten seconds are the same, and figures that are known beforehand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refavs_rt.config import RunConfig
from refavs_rt.dataset import DataError
from refavs_rt.model.run_folder import CheckpointError
from refavs_rt.train.ablate import clips as clips_module
from refavs_rt.train.ablate.bootstrap import compare
from refavs_rt.train.ablate.clips import DiskClips, EvaluationClip, Sentence
from refavs_rt.train.ablate.length import (
    KINDS,
    LENGTHS_S,
    DiskStreams,
    before_camera_of,
    condition,
    joined,
    run,
    scene_stream,
)
from refavs_rt.train.ablate.observation import ALL, NULL
from refavs_rt.train.material import Pack
from refavs_rt.train.scenes import SceneGenerator
from refavs_rt.train.scenes.motion import Camera

from .knowing_predictor import NOTHING, KnowingPredictor, Mask, context_of, no_progress
from .ref_avs_tree import FRAMES, write_tree


@pytest.fixture(autouse=True, scope="module")
def _small_frames() -> Iterator[None]:
    """Frames of scenes are drawn small, which is fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips_module, "FRAME_SIZE", (45, 80))
        yield


MODES = ("cumulative", "exponential", "window")


@pytest.fixture(scope="module")
def streams(tiny: Pack) -> list[EvaluationClip]:
    """The first six that the experiment makes."""
    scenes = SceneGenerator(tiny, "test_s", seed=5)
    found = (scene_stream(scenes.scene(number), scenes, 32) for number in range(20))
    return list(itertools.islice((stream for stream in found if stream), 6))


# Streams of scenes


def test_a_stream_ends_in_its_scene(tiny: Pack, streams: list[EvaluationClip]) -> None:
    scenes = SceneGenerator(tiny, "test_s", seed=5)
    for stream in streams:
        scene = scenes.scene(int(stream.name.split()[1]))
        assert stream.frames.shape == (90, 32, 32, 3)
        assert stream.samples is not None and stream.samples.shape == (90 * 16_000,)
        np.testing.assert_array_equal(stream.samples[-160_000:], scene.waveform())
        said = {e.text: e for e in scene.expressions()}
        assert 0 < len(stream.sentences) <= len(KINDS)
        for sentence in stream.sentences:
            expression = said[sentence.text]
            assert sentence.kind == expression.kind in KINDS
            assert not {"continuous", "intermittent", "always", "order", "loudness"} & {expression.detail}
            assert sentence.truth.shape == (10, 256, 256)
            assert sentence.truth.any() == (expression.target is not None)
        windows = {stream.frames[start : start + 10].tobytes() for start in range(0, 90, 10)}
        assert len(windows) == 9, "other scenes come before"


def test_what_comes_before_is_seen_by_the_camera_as_it_stands(tiny: Pack) -> None:
    """With nothing in the other scene, its frames are the first one of the scene without its objects."""
    scenes = SceneGenerator(tiny, "test_s", seed=5)
    scene = scenes.scene(0)
    scene = replace(
        scene,
        camera=Camera((0.5, 0.54), (0.5, 0.46), (1.1, 1.15)),
        backdrop=replace(scene.backdrop, kind="gradient", entry=None),
        objects=(),
    )
    other = scenes.scene(1)
    before = before_camera_of(scene, other)
    assert before.objects == other.objects and before.noise == scene.noise
    still = replace(scene.finish, noise=0.0, jpeg=0)
    ahead, _ = replace(before, objects=(), finish=still).render([0.0, 4.0, 9.9], (180, 320))
    seen, _ = replace(scene, finish=still).render([0.0, 9.9], (180, 320))
    first, last = seen.astype(int)
    for frame in ahead:  # but for the resampling: the picture behind a camera that zooms is drawn larger
        assert np.abs(frame - first).mean() < 0.2 * np.abs(frame - last).mean()


# Figures


def knowing(
    streams: list[EvaluationClip], err: Callable[[str, Mask, int], Mask] | None = None
) -> KnowingPredictor:
    predictor = KnowingPredictor(err) if err else KnowingPredictor()
    for stream in streams:
        assert stream.samples is not None
        for sentence in stream.sentences:
            predictor.tell(stream.frames[-10:], stream.samples[-160_000:], sentence.text, sentence.truth)
    return predictor


def test_the_same_question_is_asked_at_every_length_with_every_mean(
    tiny: Pack, streams: list[EvaluationClip]
) -> None:
    opened: dict[str, KnowingPredictor] = {}
    streams = streams[:3]

    def open_predictor(settings: RunConfig) -> KnowingPredictor:
        return opened.setdefault(settings.memory_mean, knowing(streams))

    experiment = run(context_of(open_predictor, tiny), no_progress)
    assert list(opened) == list(MODES)
    assert {o.value for o in experiment.observations} == {1.0}
    conditions = [condition(mode, length) for mode in MODES for length in LENGTHS_S]
    assert list(dict.fromkeys(o.condition for o in experiment.observations)) == conditions
    assert next(o.group for o in experiment.observations) == ALL
    for name in conditions:
        found = [(o.clip, o.group) for o in experiment.observations if o.condition == name]
        every = [(stream.name, s.kind) for stream in streams for s in stream.sentences]
        meant = [(clip, ALL) for clip, kind in every if kind != NULL]
        assert sorted(found) == sorted([*every, *meant])
    for predictor in opened.values():
        assert [len(frames) for frames, _, _ in predictor.asked] == [10, 30, 60, 90] * 3
        for frames, patches, texts in predictor.asked:
            assert patches is not None and len(patches) == len(frames) and texts
    arrays = [[id(frames) for frames, _, _ in predictor.asked] for predictor in opened.values()]
    assert arrays[0] == arrays[1] == arrays[2], "the means are given the same array, looked at once"


def test_who_forgets_is_lower_than_its_own_beginning(tiny: Pack, streams: list[EvaluationClip]) -> None:
    """The cumulative mean answers nothing from 60 s on; the others do not change."""
    forgetful = knowing(streams, lambda text, mask, ticks: mask if ticks < 60 else NOTHING)
    sure = knowing(streams)

    def open_predictor(settings: RunConfig) -> KnowingPredictor:
        return forgetful if settings.memory_mean == "cumulative" else sure

    experiment = run(context_of(open_predictor, tiny, clips=6), no_progress)
    assert experiment.baselines["window, 90 s"] == "window, 10 s"
    of_all = {c.condition: c for c in compare(experiment, resamples=200) if c.group == ALL}
    for mode in MODES:
        for length in LENGTHS_S:
            forgets = mode == "cumulative" and length >= 60
            c = of_all[condition(mode, length)]
            assert c.estimate.mean == (0.0 if forgets else 1.0)
            same = "baseline" if condition(mode, length) == experiment.baseline else "no difference shown"
            assert c.verdict == ("lower" if forgets else same)
    nulls = [o.value for o in experiment.observations if o.group == NULL]
    assert nulls and set(nulls) == {1.0}, "nothing shown is right where nothing fits"
    note = next(note for note in experiment.notes if "with the window mean" in note)
    assert note.endswith("+1.000 (+1.000 to +1.000)")


def test_a_checkpoint_has_the_cumulative_mean_alone(tiny: Pack, streams: list[EvaluationClip]) -> None:
    predictor = knowing(streams)

    def open_predictor(settings: RunConfig) -> KnowingPredictor:
        if settings.memory_mean != "cumulative":
            raise CheckpointError("through torch the memory is the cumulative mean")
        return predictor

    experiment = run(context_of(open_predictor, tiny, clips=1), no_progress)
    assert {o.condition for o in experiment.observations} == {
        condition("cumulative", length) for length in LENGTHS_S
    }
    assert set(experiment.baselines) == {condition("cumulative", length) for length in LENGTHS_S[1:]}
    assert any("not measured: the means exponential and window" in note for note in experiment.notes)


def test_a_checkpoint_that_cannot_be_opened_is_told(tiny: Pack) -> None:
    def open_predictor(settings: RunConfig) -> KnowingPredictor:
        raise CheckpointError("runs/x is not a run folder")

    with pytest.raises(CheckpointError, match="not a run folder"):
        run(context_of(open_predictor, tiny), no_progress)


# On disk


def test_streams_on_disk_hold_the_clips_before(tmp_path: Path) -> None:
    """By wrapping around the first clips have others before them too; a clip never comes before itself or its twin."""
    tree = write_tree(tmp_path, ("val",) * 11)
    clips = list(DiskClips(tree, "val", 11, 5, 32))
    own = {clip.frames.tobytes(): clip.name for clip in clips}
    assert len(own) == 11
    streams = list(DiskStreams(DiskClips(tree, "val", 11, 5, 32)))
    assert [stream.name for stream in streams] == [clip.name for clip in clips]
    names = list(dict.fromkeys(clip.name for clip in clips))
    for stream, clip in zip(streams, clips, strict=True):
        assert stream.frames.shape == (90, 32, 32, 3)
        assert [s.text for s in stream.sentences] == [s.text for s in clip.sentences]
        parts = [own[stream.frames[i : i + FRAMES].tobytes()] for i in range(0, 90, FRAMES)]
        at = names.index(clip.name)
        assert parts == [names[(at + k) % 11] for k in range(-8, 1)]
        assert stream.samples is not None and len(stream.samples) == 90 * 16_000


def test_few_clips_come_again_and_one_alone_is_refused(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, ("val", "val"))
    for stream in DiskStreams(DiskClips(tree, "val", 2, 5, 32)):
        parts = {stream.frames[i : i + FRAMES].tobytes() for i in range(0, 80, FRAMES)}
        assert len(parts) == 1 and stream.frames[-FRAMES:].tobytes() not in parts
    with pytest.raises(DataError, match="give two clips or more"):
        list(DiskStreams(DiskClips(tree, "val", 1, 5, 32)))


def clip_of(ticks: int, colour: int, samples: np.ndarray | None) -> EvaluationClip:
    truth = np.zeros((ticks, 256, 256), bool)
    frames = np.full((ticks, 4, 4, 3), colour, np.uint8)
    return EvaluationClip(f"c{colour}", frames, samples, (Sentence("The x.", None, truth),))


def test_tracks_are_cut_and_filled_to_the_frames() -> None:
    """A track that is too long or too short, or none, moves no sound to another second."""
    long = np.repeat([0.5, 0.5, 0.5, 0.75], 16_000).astype(np.float32)
    short = np.full(16_000, 0.25, np.float32)
    end = clip_of(2, 9, np.full(30_000, 1.0, np.float32))
    stream = joined([clip_of(3, 1, long), clip_of(2, 2, short), clip_of(1, 3, None)], end)
    assert stream.frames[:, 0, 0, 0].tolist() == [1, 1, 1, 2, 2, 3, 9, 9]
    assert stream.samples is not None
    seconds = stream.samples.reshape(8, 16_000)
    assert [x.tolist() for x in (seconds.min(axis=1), seconds.max(axis=1))] == [
        [0.5, 0.5, 0.5, 0.25, 0, 0, 1, 0],
        [0.5, 0.5, 0.5, 0.25, 0, 0, 1, 1],
    ]
    assert joined([clip_of(3, 1, long)], replace(end, samples=None)).samples is None


def test_on_disk(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, ("val",) * 3)
    predictor = KnowingPredictor()
    for clip in DiskClips(tree, "val", 3, 5, 32):
        predictor.learn(clip)
    experiment = run(context_of(predictor, data=tree, clips=3), no_progress)
    assert {o.value for o in experiment.observations} == {1.0}
    count = {g: sum(o.group == g for o in experiment.observations) for g in (ALL, NULL)}
    assert count == {ALL: 3 * 4 * 12, NULL: 3 * 12}
