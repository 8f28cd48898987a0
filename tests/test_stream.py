"""Streaming a file: frames, times and sound as ffprobe and a plain loop see them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from refavs_rt._ingest import GuidedUpsampler
from refavs_rt.bundle import Bundle
from refavs_rt.config import IMAGENET_MEAN, IMAGENET_STD, RunConfig
from refavs_rt.ingest import IngestError, open_source
from refavs_rt.session import Model, load

from .tiny_bundle import write_tiny_bundle

TEXTS = ["a barking dog", "the silent cello"]
HEIGHT, WIDTH = 90, 126


def make_clip(path: Path, *, seconds: float = 2.2, sound: bool = True) -> Path:
    """A test picture at 10 frames a second, with a rising tone."""
    inputs = ["-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate=10:duration={seconds}"]
    if sound:
        inputs += ["-f", "lavfi", "-i", f"aevalsrc=sin(300*(1+t)*t*6.28):d={seconds}:s=44100"]
    command = ["ffmpeg", "-v", "error", "-y", *inputs, "-c:v", "libx264", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, check=True)
    return path


def frame_times_s(path: Path) -> list[float]:
    command = [
        "ffprobe",
        "-v",
        "error",
        "-select_streams",
        "v",
        "-show_entries",
        "frame=pts_time",
        "-of",
        "json",
        str(path),
    ]
    frames = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["frames"]
    return [float(frame["pts_time"]) for frame in frames]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stream")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return write_tiny_bundle(folder / "tiny")


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return load(bundle.path, run=RunConfig(threads=1))


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return make_clip(folder / "clip.mp4")


def test_every_frame_gives_a_result(model: Model, clip: Path) -> None:
    results = list(model.stream(clip, TEXTS))
    assert [result.index for result in results] == list(range(22))
    np.testing.assert_allclose([result.pts_s for result in results], frame_times_s(clip), atol=1e-3)
    size = model.config.mask_size
    for result in results:
        assert result.texts == tuple(TEXTS)
        assert result.image.shape == (HEIGHT, WIDTH, 3) and result.image.dtype == np.uint8
        assert result.masks.shape == (2, HEIGHT, WIDTH) and result.masks.dtype == np.bool_
        assert result.mask_logits.shape == (2, size, size) and result.mask_logits.dtype == np.float32
        assert result.presence.shape == (2,) and result.presence.dtype == np.float32
        assert result.latency_ms > 0


def test_results_are_a_sessions_on_the_same_frames(model: Model, clip: Path) -> None:
    session = model.session(TEXTS)
    with open_source(clip, model.config.image_size) as source:
        for frame, result in zip(source, model.stream(clip, TEXTS), strict=True):
            assert frame.log_mel is not None
            expected = session.predict(frame.tensor, frame.log_mel, frame.pts_s)
            np.testing.assert_array_equal(result.image, frame.image)
            np.testing.assert_array_equal(result.mask_logits, expected.mask_logits)
            np.testing.assert_array_equal(result.presence, expected.presence)
    assert session.shared.ring_age.max() == 3, "ticks at 0, 1 and 2 s"


def test_masks_are_the_thresholded_logits_at_the_sources_size(
    bundle: Bundle, model: Model, clip: Path
) -> None:
    seen = 0
    gate = float(np.median([result.presence for result in model.stream(clip, TEXTS)]))
    gated = Model(
        bundle,
        model.engine,
        RunConfig(presence_threshold=gate, presence_hysteresis=0.0, align_edges=False, mask_threshold=0.3),
    )
    for result in gated.stream(clip, TEXTS):
        logits = torch.from_numpy(result.mask_logits)[None]
        large = torch.nn.functional.interpolate(logits, (HEIGHT, WIDTH), mode="bilinear", antialias=True)
        share = torch.sigmoid(large[0].double()).numpy()
        for mask, presence, expected in zip(result.masks, result.presence, share, strict=True):
            sure = np.abs(expected - 0.3) > 1e-5
            np.testing.assert_array_equal(mask[sure], ((expected > 0.3) & (presence >= gate))[sure])
            seen += int(mask.any())
    assert 0 < seen < 2 * 22, "the gate lets some through"


def test_masks_take_their_edges_from_the_picture(model: Model, clip: Path) -> None:
    """By default they are those of the guided filter over the very frame."""
    edges = Model(model.bundle, model.engine, RunConfig(presence_threshold=0.0))
    for result in edges.stream(clip, TEXTS, max_frames=3):
        expected = GuidedUpsampler(WIDTH, HEIGHT, model.config.mask_size, 3, 1e-3).run(
            torch.sigmoid(torch.from_numpy(result.mask_logits)).numpy(),
            result.frame.tensor,
            result.image,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            threshold=0.4,
        )
        assert (result.masks != expected).mean() < 0.001
        assert result.masks.any()


def test_a_stream_cut_short_is_the_whole_streams_start(model: Model, clip: Path) -> None:
    whole = list(model.stream(clip, TEXTS))
    for part, count in (
        (model.stream(clip, TEXTS, max_frames=7), 7),
        (model.stream(clip, TEXTS, duration_s=1.05), 11),
    ):
        results = list(part)
        assert len(results) == count
        for result, expected in zip(results, whole, strict=False):
            np.testing.assert_array_equal(result.mask_logits, expected.mask_logits)


def test_two_streams_of_a_model_do_not_mix(model: Model, clip: Path) -> None:
    alone = [result.mask_logits for result in model.stream(clip, TEXTS[:1])]
    pairs = zip(model.stream(clip, TEXTS[:1]), model.stream(clip, TEXTS[1:]), strict=True)
    for (result, _), expected in zip(pairs, alone, strict=True):
        np.testing.assert_array_equal(result.mask_logits, expected)


def test_sound_is_heard_and_may_be_missing(model: Model, clip: Path, folder: Path) -> None:
    mute = make_clip(folder / "mute.mp4", sound=False)
    heard, unheard = list(model.stream(clip, TEXTS)), list(model.stream(mute, TEXTS))
    assert len(heard) == len(unheard)
    np.testing.assert_array_equal(heard[15].image, unheard[15].image)
    assert np.abs(heard[15].mask_logits - unheard[15].mask_logits).max() > 1e-4


def test_leaving_early_closes_the_source(model: Model, clip: Path) -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    before = threads()
    results = model.stream(clip, TEXTS)
    next(results)
    assert threads() > before
    results.close()  # type: ignore[attr-defined]
    until = time.monotonic() + 10
    while threads() > before and time.monotonic() < until:  # a thread that was joined is still on its way out
        time.sleep(0.01)
    assert threads() <= before
    with pytest.raises(StopIteration):
        next(results)


def test_mistakes_are_told_at_once(model: Model, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"nowhere\.mp4"):
        model.stream(tmp_path / "nowhere.mp4", TEXTS)
    (tmp_path / "text.mp4").write_text("this is no video")
    with pytest.raises(IngestError, match=r"text\.mp4"):
        model.stream(tmp_path / "text.mp4", TEXTS)
    with pytest.raises(ValueError, match="at least one sentence"):
        model.stream(clip, [])
    with pytest.raises(TypeError, match="a list of sentences, not one string"):
        model.stream(clip, "a dog")
    with pytest.raises(ValueError, match="must not be empty"):
        model.stream(clip, ["a dog", " "])
    with pytest.raises(ValueError, match="max_frames"):
        model.stream(clip, TEXTS, max_frames=0)
