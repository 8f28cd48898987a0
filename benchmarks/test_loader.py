"""Samples a second and core of the loader: a clip of ten frames of 1280 x 720 with sound, and the masks of six sentences
about three objects.

The frames have the spectrum of photographs, so that a JPEG of them is about as large as one of a film; the sound is 44.1 kHz
stereo. The time is that of the processor: what else the machine does is no part of it, nor is the disk.
"""

from __future__ import annotations

import csv
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from refavs_rt.train.batches import Batch, BatchConfig, BatchPlan, clip_rng, collate
from refavs_rt.train.disk_batches import DiskClips, DiskSource

HEIGHT, WIDTH, FRAMES, CLIPS, OBJECTS = 720, 1280, 10, 2, 3
RATE_HZ = 44_100


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("ref-avs"))


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(
    ("size", "decoded", "log_mels"),
    [(384, 10, "computed"), (384, 10, "kept"), (384, 3, "kept"), (256, 3, "kept")],
)
def test_sample(benchmark: Any, tree: Path, size: int, decoded: int, log_mels: str) -> None:
    """`decoded`: ticks whose masks are read. `log_mels`: "kept" in the cache, as from the second epoch on, or "computed"."""
    plan = BatchPlan(size, FRAMES, tuple(range(decoded)), 1)
    clips = clips_of(tree)
    for index in range(6 * CLIPS):  # every clip has been heard at both offsets
        if index == 0 or log_mels == "kept":
            check(sample(clips, plan, index), plan)
    numbers = iter(range(10**6))

    def setup() -> tuple[tuple[DiskClips, BatchPlan, int], dict[str, Any]]:
        return (clips if log_mels == "kept" else clips_of(tree), plan, next(numbers)), {}

    benchmark.pedantic(sample, setup=setup, rounds=11)
    benchmark.extra_info["samples_per_second_and_core"] = 1 / benchmark.stats.stats.median


def clips_of(tree: Path) -> DiskClips:
    return DiskSource(tree).clips(BatchConfig(sentences=6))


def sample(clips: DiskClips, plan: BatchPlan, index: int) -> Batch:
    return collate([clips.draw(plan, clip_rng(0, 0, index))], plan.decode)


def check(batch: Batch, plan: BatchPlan) -> None:
    """No time is taken of a wrong result: the mean colour is right, and each sentence has the share of its ellipse."""
    assert batch.frames.shape == (1, FRAMES, 3, plan.size, plan.size)
    assert abs(float(batch.frames.mean())) < 0.2 and 0.2 < float(batch.frames.std()) < 0.6
    assert batch.has_sound.all() and float(batch.log_mel.std()) > 0.1
    shares = batch.target.masks.mean(dim=(-2, -1))
    assert shares.shape == (1, len(plan.decode), 6)
    areas = [float(ellipse(number, 0).mean()) for number in range(OBJECTS)]
    for share in shares.flatten().tolist():
        assert min(abs(share - area) for area in areas) < 2e-3


def write_tree(folder: Path) -> Path:
    """A data set of `CLIPS` clips, each with `OBJECTS` objects and two sentences about each."""
    rng = np.random.default_rng(0)
    picture = like_a_photograph(rng)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["vid", "uid", "split", "fid", "exp"])
        for clip in (f"clip{number}_0_10000" for number in range(CLIPS)):
            for number in range(OBJECTS):
                for k in (1, 2):
                    writer.writerow([clip, f"{clip}_thing-{number}_{k}", "train", number, f"Thing {number}."])
            frames = folder / "media" / clip / "frames"
            frames.mkdir(parents=True)
            for i in range(FRAMES):
                shifted = np.roll(picture, 40 * i, axis=1)
                Image.fromarray(shifted).save(frames / f"{i}.jpg", quality=90)
            write_sound(frames.parent / "audio.wav", rng)
            for number in range(OBJECTS):
                masks = folder / "gt_mask" / clip / f"fid_{number}"
                masks.mkdir(parents=True)
                for i in range(FRAMES):
                    mask = ellipse(number, i).astype(np.uint8) * 255
                    Image.fromarray(mask).save(masks / f"{i:05d}.png")
    return folder


def like_a_photograph(rng: np.random.Generator) -> NDArray[np.uint8]:
    """[HEIGHT, WIDTH, 3]: noise whose amplitude falls with its frequency, and a little grain."""
    rows, columns = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / WIDTH)
    planes = []
    for _ in range(3):
        spectrum = np.fft.rfft2(rng.standard_normal((HEIGHT, WIDTH))) / frequency**1.4
        plane = np.fft.irfft2(spectrum, (HEIGHT, WIDTH))
        planes.append(127 + 50 * plane / plane.std() + 2 * rng.standard_normal((HEIGHT, WIDTH)))
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)


def ellipse(number: int, frame: int) -> NDArray[np.bool_]:
    """[HEIGHT, WIDTH]: where an object is, wholly inside of the picture; its edge is wavy."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    y, x = (
        (rows - 360) / (140 + 60 * number),
        (columns - 300 - 300 * number - 6 * frame) / (110 + 60 * number),
    )
    inside: NDArray[np.bool_] = y**2 + x**2 + 0.1 * np.sin(rows / 7) < 1
    return inside


def write_sound(path: Path, rng: np.random.Generator) -> None:
    samples = rng.integers(-8_000, 8_000, (FRAMES * RATE_HZ, 2)).astype("<i2")
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(2)
        wav.setsampwidth(2)
        wav.setframerate(RATE_HZ)
        wav.writeframes(samples.tobytes())
