"""A small data set on disk in the form of Ref-AVS, drawn without any media package: coloured discs that beep."""

from __future__ import annotations

import csv
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = {"red-disc": (220, 40, 30), "blue-disc": (30, 60, 220), "green-disc": (40, 190, 60)}
HEIGHT, WIDTH, FRAMES = 45, 80, 10


def write_tree(
    folder: Path, splits: tuple[str, ...] = ("train", "train", "train", "val"), seed: int = 0
) -> Path:
    """One clip for each of `splits`, with two discs, two sentences each, and a clip of a sentence that nothing fits."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, split in enumerate(splits):
        clip = f"clip{number}_0_10000"
        names = [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[:2]]
        centres = [(rng.uniform(0.3, 0.7), 0.25), (rng.uniform(0.3, 0.7), 0.75)]
        masks = [disc(*centre) for centre in centres]
        write_clip(folder, clip, names, masks)
        absent = next(name for name in COLOURS if name not in names)
        for fid, name in enumerate(names):
            word = name.replace("-", " ")
            for k, text in enumerate((f"The {word}.", f"A {word}."), start=1):
                rows.append([clip, f"{clip}_{name}_{k}", split, fid, text])
        write_clip(folder, f"null_c-{clip}", names, masks, truth=False)
        rows.append([clip, f"null_c-{clip}_null_1", split, 0, f"The {absent.replace('-', ' ')}."])
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["vid", "uid", "split", "fid", "exp"])
        writer.writerows(rows)
    return folder


def write_clip(
    folder: Path, clip: str, names: list[str], masks: list[NDArray[np.bool_]], truth: bool = True
) -> None:
    """Frames, sound and the masks of each disc; all masks empty where `truth` is False."""
    frames = folder / "media" / clip / "frames"
    frames.mkdir(parents=True)
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for name, mask in zip(names, masks, strict=True):
        picture[mask] = COLOURS[name]
    for i in range(FRAMES):
        Image.fromarray(picture).save(frames / f"{i}.jpg", quality=95)
    with wave.open(str(folder / "media" / clip / "audio.wav"), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(16_000)
        seconds = np.arange(16_000 * FRAMES) / 16_000
        wav.writeframes((8_000 * np.sin(2 * np.pi * 440 * seconds)).astype("<i2").tobytes())
    for fid, mask in enumerate(masks):
        into = folder / "gt_mask" / clip / f"fid_{fid}"
        into.mkdir(parents=True)
        for i in range(FRAMES):
            Image.fromarray((mask if truth else mask & False).astype(np.uint8) * 255).save(
                into / f"{i:05d}.png"
            )


def disc(y: float, x: float, radius: float = 0.3) -> NDArray[np.bool_]:
    """[HEIGHT, WIDTH], True inside; y, x in frame heights and widths, the radius in heights."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    inside: NDArray[np.bool_] = (rows - y * HEIGHT) ** 2 + (columns - x * WIDTH) ** 2 < (radius * HEIGHT) ** 2
    return inside
