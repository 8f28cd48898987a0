"""Sessions whose loop is the caller's: the same results as a stream of the same pictures and sound."""

from __future__ import annotations

import copy
import itertools
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

from refavs_rt.config import RunConfig
from refavs_rt.ingest import open_source
from refavs_rt.log_mel import log_mel
from refavs_rt.session import Model, load

from .test_stream import TEXTS
from .tiny_bundle import write_tiny_bundle

RATE_HZ, WINDOW = 16_000, 15_600
HELD_BACK_S = 0.002
"""What a resampler gives only with what comes after it."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("push")
    return load(write_tiny_bundle(folder / "tiny").path, run=RunConfig(threads=1, presence_threshold=0.0))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures a second, and sound that no codec has changed."""
    path = tmp_path_factory.mktemp("push-clip") / "clip.mkv"
    inputs = ["-f", "lavfi", "-i", "testsrc2=size=126x90:rate=10:duration=2.2"]
    inputs += ["-f", "lavfi", "-i", f"aevalsrc=0.7*sin(300*(1+t)*t*6.28):d=2.2:s={RATE_HZ}"]
    command = [
        "ffmpeg",
        "-v",
        "error",
        *inputs,
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "pcm_s16le",
    ]
    subprocess.run([*command, str(path)], check=True)
    return path


def sound_of(clip: Path) -> np.ndarray:
    command = ["ffmpeg", "-v", "error", "-i", str(clip), "-f", "s16le", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.int16)


def pieces(sound: np.ndarray, pts_s: list[float]) -> list[np.ndarray]:
    ends = [round(t * RATE_HZ) for t in pts_s]
    silence = np.zeros(RATE_HZ, np.int16)  # before the first picture, as a window of the stream has it
    return [silence, *(sound[begin:end] for begin, end in itertools.pairwise(ends))]


def test_the_results_of_a_stream(model: Model, clip: Path) -> None:
    sound = sound_of(clip)
    with open_source(clip, model.config.image_size) as source:
        frames = [(frame.image, frame.pts_s) for frame in source]
    session, plain = model.session(TEXTS), model.session(TEXTS)
    results = list(model.stream(clip, TEXTS))
    heard = pieces(sound, [pts_s for _, pts_s in frames])
    padded = np.concatenate([np.zeros(2 * WINDOW), sound / 32_768]).astype(np.float32)
    assert len(results) == len(frames)
    for result, (image, pts_s), piece in zip(results, frames, heard, strict=True):
        pushed = session.push(image, piece, pts_s)
        frame = pushed.frame
        assert (pushed.index, pushed.pts_s, pushed.texts) == (result.index, result.pts_s, result.texts)
        assert np.array_equal(pushed.image, result.image)
        # A stream's tensor comes from the planes, and colours that no byte of RGB can hold are not clipped on the way.
        assert np.abs(frame.tensor - result.frame.tensor).mean() < 2 / 128
        end = math.floor((pts_s - HELD_BACK_S) * 100 + 1e-6) * RATE_HZ // 100
        assert frame.audio_end_s == pytest.approx(end / RATE_HZ, abs=1e-6)
        window = padded[end + WINDOW : end + 2 * WINDOW]
        np.testing.assert_allclose(frame.samples, window, atol=2e-3)
        # A resampler that can follow drift lets the last few hundred Hz through a little weaker.
        np.testing.assert_allclose(frame.log_mel, log_mel(window), atol=0.15)
        assert np.abs(frame.log_mel - log_mel(window)).mean() < 0.005
        expected = plain.predict(frame.tensor, frame.log_mel, pts_s)
        np.testing.assert_array_equal(pushed.mask_logits, expected.mask_logits)
        np.testing.assert_array_equal(pushed.presence, expected.presence)
        assert (pushed.masks != result.masks).mean() < 0.02
        assert pushed.latency_ms > 0


def test_sound_of_any_rate_form_and_time(model: Model) -> None:
    """Channels, int16, another rate, and a clock that reads what time.time() does: the same sound each time."""
    image = np.zeros((40, 60, 3), np.uint8)
    t = np.arange(2 * 48_000) / 48_000
    tone = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    forms = {
        "mono": (tone[::3], 16_000),
        "stereo": (np.stack([tone, tone], axis=1), 48_000),
        "int16": (np.round(tone * 32_767).astype(np.int16), 48_000),
        "double": (tone.astype(np.float64), 48_000),
    }
    windows = {}
    for origin_s in (2.0, 1.8e9):
        for name, (audio, rate_hz) in forms.items():
            frame = model.session(TEXTS).push(image, audio, origin_s, rate_hz=rate_hz).frame
            assert frame.audio_missing_samples == 0, name
            assert frame.audio_end_s == pytest.approx(origin_s - 0.01, abs=1e-6)
            assert frame.samples is not None
            windows[name, origin_s] = frame.samples
    for found in windows.values():
        middle = slice(200, -800)  # a resampler holds its last samples back
        np.testing.assert_allclose(found[middle], windows["mono", 2.0][middle], atol=5e-3)
        assert np.abs(found[middle]).max() == pytest.approx(0.5, abs=0.01)


def test_sound_that_is_missing_is_not_silence(model: Model) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    session = model.session(TEXTS)
    assert session.push(image, None, 0.0).frame.log_mel is None
    short = session.push(image, np.zeros(8_000, np.float32), 1.0).frame
    assert short.log_mel is not None and short.audio_missing_samples == pytest.approx(15_600 - 8_000, abs=900)
    late = session.push(image, None, 3.0).frame
    assert late.log_mel is None and late.samples is None and late.audio_end_s is None
    again = session.push(image, np.zeros(16_000, np.float32), 4.0).frame
    assert again.log_mel is not None


def test_a_time_that_goes_back_begins_the_sound_anew(model: Model) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    session = model.session(TEXTS)
    session.push(image, np.ones(16_000, np.float32), 100.0)
    frame = session.push(image, np.zeros(4_000, np.float32), 0.25).frame
    assert frame.audio_missing_samples >= 15_600 - 4_000
    assert frame.samples is not None and np.abs(frame.samples).max() < 1e-3


def test_without_a_time_frames_are_when_they_come(model: Model) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    session = model.session(TEXTS)
    times = [session.push(image).pts_s for _ in range(3)]
    assert times[0] == 0.0 and times == sorted(times) and times[2] > 0.0


def test_pictures_of_any_layout(model: Model) -> None:
    rng = np.random.default_rng(1)
    bgr = rng.integers(0, 256, (41, 63, 3)).astype(np.uint8)
    straight = model.session(TEXTS).push(np.ascontiguousarray(bgr[..., ::-1]), None, 0.0)
    turned = model.session(TEXTS).push(bgr[..., ::-1], None, 0.0)
    assert np.array_equal(straight.mask_logits, turned.mask_logits)
    assert turned.masks.shape == (2, 41, 63)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": np.zeros((4, 4), np.uint8)}, r"an image is uint8 \[H, W, 3\]"),
        ({"frame": np.zeros((4, 4, 3), np.float32)}, r"an image is uint8 \[H, W, 3\]"),
        ({"audio": np.zeros(9, np.int32)}, "audio must be floats in"),
        ({"audio": np.zeros((2, 2, 2), np.float32)}, r"audio must be \[n\]"),
        ({"audio": np.array([0.0, np.nan], np.float32)}, "audio holds NaN"),
        ({"t": float("nan")}, "t must be a finite number"),
        ({"rate_hz": 0}, "rate_hz must be"),
    ],
)
def test_what_is_none_is_refused(model: Model, change: dict[str, object], message: str) -> None:
    session = model.session(TEXTS)
    arguments = {"frame": np.zeros((8, 8, 3), np.uint8), "audio": np.zeros(99, np.float32), "t": 1.0} | change
    with pytest.raises(ValueError, match=message):
        session.push(**arguments)
    assert session.push(np.zeros((8, 8, 3), np.uint8), None, 1.0).index == 0


def test_a_deep_copy_goes_on_by_itself(model: Model) -> None:
    rng = np.random.default_rng(8)
    frames = rng.integers(0, 256, (4, 40, 60, 3)).astype(np.uint8)
    session = model.session(TEXTS)
    session.push(frames[0], None, 0.0)
    copied = copy.deepcopy(session, {id(model): model})
    session.push(frames[1], None, 1.0)
    again, other = copied.push(frames[1], None, 1.0), session.push(frames[2], None, 2.0)
    np.testing.assert_array_equal(copied.push(frames[2], None, 2.0).mask_logits, other.mask_logits)
    copied.add("one more")
    assert len(session.texts) == 2 and again.index == 1


def test_after_a_reset_nothing_of_before_is_heard(model: Model) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    loud, quiet = rng.uniform(-1, 1, WINDOW).astype(np.float32), np.zeros(640, np.float32)
    session, fresh = model.session(TEXTS), model.session(TEXTS)
    session.push(picture, loud, 10.0)
    session.reset()
    found, expected = session.push(picture, quiet, 10.04), fresh.push(picture, quiet, 10.04)
    np.testing.assert_array_equal(found.mask_logits, expected.mask_logits)
    assert (found.frame.log_mel is None) == (expected.frame.log_mel is None)
