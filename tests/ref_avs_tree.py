"""Small data sets on disk in the form of Ref-AVS, drawn without any media package: coloured discs that beep; and clips for rows
of the real table."""

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


def write_clips_of(table: Path, folder: Path, clips: int = 1, size: tuple[int, int] = (46, 81)) -> list[str]:
    """The real table, as a link, and the first `clips` clips of each of its splits, of odd sizes and sounds; returns their names.

    Where the object `fid` is in a frame is told by `box`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").symlink_to(table)
    objects: dict[str, dict[str, set[str]]] = {}
    for line in table.read_text("utf-8").splitlines()[1:]:
        _, uid, split, fid, _ = line.split(",", 4)
        objects.setdefault(split, {}).setdefault(uid.rsplit("_", 2)[0], set()).add(fid)
    written: list[str] = []
    for split, of_split in objects.items():
        for clip in list(of_split)[: clips if split != "TODO" else 0]:
            height, width = size[0] + 2 * len(written), size[1] + 6 * len(written)
            fids = sorted(of_split[clip], key=int)
            frames = folder / "media" / clip / "frames"
            frames.mkdir(parents=True)
            for i in range(FRAMES):
                picture = np.full((height, width, 3), 20 * i, np.uint8)
                for fid in fids:
                    picture[box(int(fid), i, height, width)] = (255, 20 * int(fid), 0)
                Image.fromarray(picture).save(frames / f"{i}.jpg", quality=95)
            rate, channels = ((16_000, 1), (44_100, 2), (48_000, 1))[len(written) % 3]
            write_tone(frames.parent / "audio.wav", rate=rate, channels=channels)
            for fid in fids:
                write_masks(folder, clip, fid, [box(int(fid), i, height, width) for i in range(FRAMES)])
            written.append(clip)
    return written


def box(fid: int, frame: int, height: int, width: int) -> NDArray[np.bool_]:
    """[height, width]: object `fid` in a frame of `write_clips_of`."""
    mask = np.zeros((height, width), bool)
    top, left = 3 + fid % 5 * 5, 5 + frame + fid % 7 * 7
    mask[top : top + 17, left : left + 23] = True
    return mask


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
    write_tone(folder / "media" / clip / "audio.wav")
    for fid, mask in enumerate(masks):
        write_masks(folder, clip, str(fid), [mask if truth else mask & False] * FRAMES)


def write_masks(folder: Path, clip: str, fid: str, masks: list[NDArray[np.bool_]]) -> None:
    """White on black, one picture a frame."""
    into = folder / "gt_mask" / clip / f"fid_{fid}"
    into.mkdir(parents=True)
    for i, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(into / f"{i:05d}.png")


def write_tone(
    path: Path, seconds: float = FRAMES, rate: int = 16_000, channels: int = 1, hertz: float = 440
) -> None:
    """16-bit sound, the same in all channels."""
    times = np.arange(round(rate * seconds)) / rate
    samples = np.repeat((8_000 * np.sin(2 * np.pi * hertz * times)).astype("<i2"), channels)
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(channels)
        wav.setsampwidth(2)
        wav.setframerate(rate)
        wav.writeframes(samples.tobytes())


def disc(y: float, x: float, radius: float = 0.3) -> NDArray[np.bool_]:
    """[HEIGHT, WIDTH], True inside; y, x in frame heights and widths, the radius in heights."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    inside: NDArray[np.bool_] = (rows - y * HEIGHT) ** 2 + (columns - x * WIDTH) ** 2 < (radius * HEIGHT) ** 2
    return inside
