"""Both log-mels, the C++ stream and the numpy patch, against the formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt import log_mel as numpy_log_mel
from refavs_rt.ingest import StreamingLogMel, log_mel

TOLERANCE = 1e-4
PATCH = 15_600


def reference(samples: NDArray[np.floating]) -> NDArray[np.float64]:
    """[n] -> [frames, 64], written from Google's vggish/mel_features.py and vggish_params.py, all in float64."""
    samples = samples.astype(np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi / 400 * np.arange(400))
    count = max(0, 1 + (len(samples) - 400) // 160)
    frames = np.stack(
        [samples[160 * k : 160 * k + 400] * window for k in range(count)] or [np.zeros((0, 400))[:0]]
    )
    if count == 0:
        return np.zeros((0, 64))
    basis = np.exp(-2j * np.pi * np.outer(np.arange(400), np.arange(257)) / 512)
    magnitude = np.abs(frames @ basis)

    def mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1127.0 * np.log(1.0 + hertz / 700.0)

    bins = mel(np.linspace(0.0, 8000.0, 257))
    low_hz, high_hz = mel(np.array([125.0, 7500.0]))
    edges = np.linspace(low_hz, high_hz, 66)
    matrix = np.empty((257, 64))
    for i in range(64):
        low, centre, high = edges[i : i + 3]
        lower_slope = (bins - low) / (centre - low)
        upper_slope = (high - bins) / (high - centre)
        matrix[:, i] = np.maximum(0.0, np.minimum(lower_slope, upper_slope))
    matrix[0] = 0.0
    return np.log(magnitude @ matrix + 0.01)


def signals() -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(0)
    t = np.arange(PATCH) / 16_000
    impulse = np.zeros(PATCH)
    impulse[7_777] = 1.0
    return {
        "noise": random.normal(0.0, 0.1, PATCH).astype(np.float32),
        "quiet noise": random.normal(0.0, 1e-5, PATCH).astype(np.float32),
        "loud tone": np.sin(2 * np.pi * 1_000.0 * t).astype(np.float32),
        "two tones": (0.9 * np.sin(2 * np.pi * 440 * t) + 1e-4 * np.sin(2 * np.pi * 6_000 * t)).astype(
            np.float32
        ),
        "impulse": impulse.astype(np.float32),
        "offset": np.full(PATCH, 0.5, np.float32),
        "silence": np.zeros(PATCH, np.float32),
    }


@pytest.mark.parametrize("name", signals())
def test_cpp_equals_the_formula(name: str) -> None:
    samples = signals()[name]
    patch = log_mel(samples)
    assert patch.shape == (96, 64) and patch.dtype == np.float32
    np.testing.assert_allclose(patch, reference(samples), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", signals())
def test_numpy_equals_the_formula(name: str) -> None:
    samples = signals()[name]
    patch = numpy_log_mel.log_mel(samples)
    assert patch.shape == (96, 64) and patch.dtype == np.float32
    np.testing.assert_allclose(patch, reference(samples), rtol=0, atol=TOLERANCE)


def test_numpy_takes_batches_that_are_not_contiguous() -> None:
    batch = np.random.default_rng(1).normal(0.0, 0.1, (PATCH, 2, 3)).astype(np.float32).transpose(2, 1, 0)
    patches = numpy_log_mel.log_mel(batch)
    assert patches.shape == (3, 2, 96, 64)
    np.testing.assert_allclose(patches[2, 1], reference(batch[2, 1]), rtol=0, atol=TOLERANCE)


def test_numpy_refuses_another_length() -> None:
    with pytest.raises(ValueError, match="15600 samples, not 15599"):
        numpy_log_mel.log_mel(np.zeros(PATCH - 1, np.float32))


@pytest.mark.parametrize("length", [0, 1, 399, 400, 559, 560, 16_001])
def test_cpp_takes_any_length(length: int) -> None:
    samples = np.random.default_rng(length).normal(0.0, 0.1, length).astype(np.float32)
    frames = log_mel(samples)
    assert frames.shape == (max(0, 1 + (length - 400) // 160), 64)
    np.testing.assert_allclose(frames, reference(samples), rtol=0, atol=TOLERANCE)


def test_pieces_of_any_length_equal_the_whole() -> None:
    random = np.random.default_rng(2)
    samples = random.normal(0.0, 0.1, 20_011).astype(np.float32)
    cuts = np.sort(random.integers(0, len(samples), 60))  # some pieces empty, some of one sample
    stream = StreamingLogMel()
    frames = [stream.push(piece) for piece in np.split(samples, cuts)]
    assert [len(f) for f in frames] != [0] * len(frames)
    np.testing.assert_array_equal(np.concatenate(frames), log_mel(samples))


def test_cpp_takes_samples_that_are_not_contiguous() -> None:
    samples = np.random.default_rng(3).normal(0.0, 0.1, 3_000).astype(np.float32)
    np.testing.assert_array_equal(log_mel(samples[::3]), log_mel(samples[::3].copy()))


@pytest.mark.parametrize("samples", [np.zeros(400), np.zeros((400, 1), np.float32), np.zeros(400, np.int16)])
def test_cpp_refuses_other_arrays(samples: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match=r"samples are float32 \[n\]"):
        log_mel(samples)
    with pytest.raises(ValueError, match=r"samples are float32 \[n\]"):
        StreamingLogMel().push(samples)
