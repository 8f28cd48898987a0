"""Building the pack from the installed media packages, once."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from refavs_rt.config import SAMPLE_RATE_HZ

from .backdrops import BACKDROPS, PHOTO_FOLDERS
from .bank import INSTRUMENTS, render_instrument
from .catalogue import ThingClass, catalogue
from .catalogue_table import (
    AMBIENCES,
    FARM_RECORDINGS,
    HELD_OUT_STAMP_SOUNDS,
    INSTRUMENT_RECORDINGS,
    MORE_RECORDINGS,
    SHARED_SOUND,
)
from .errors import MaterialError
from .pack import Background, Photo, Picture, Recording, Split, Thing, encode_sound, write_pack
from .rcc import read_rcc
from .waves import active_intervals, level, trim

APT_LINE = (
    "apt-get install --no-install-recommends ffmpeg tuxpaint-stamps-default gcompris-qt-data "
    "fluidsynth timgm6mb-soundfont fluid-soundfont-gm"
)
STAMPS = Path("/usr/share/tuxpaint/stamps")
GCOMPRIS = Path("/usr/share/gcompris-qt/rcc")
SOUNDFONTS = Path("/usr/share/sounds/sf2")
_BANKS = (("bank:timgm", "TimGM6mb.sf2", "GPL-2+"), ("bank:fluidr3", "FluidR3_GM.sf2", "MIT"))

_PICTURE_SIDE = 320
_BACKGROUND_SIDE = 720
_PHOTO_SIDE = 480
_LONGEST_S = 10.0
_MELODY_S = 8.0
_TRAIN_MELODIES: tuple[Split, ...] = ("train",) * 6
_HELD_OUT_MELODIES: tuple[Split, ...] = ("val", "test", "test")
_LICENCE_STAMPS = "GPL-2+ (tuxpaint-stamps-default)"
_LICENCE_GCOMPRIS = "GPL-3+ (gcompris-qt-data)"

Progress = Callable[[int, int], None]


def build_pack(
    path: Path,
    *,
    stamps: Path = STAMPS,
    gcompris: Path = GCOMPRIS,
    soundfonts: Path = SOUNDFONTS,
    progress: Progress | None = None,
) -> Path:
    """Read the media packages and write the pack to `path`; takes a minute or two.

    Args:
        path: the file to write; its folder is made.
        stamps, gcompris, soundfonts: where the Debian packages install their files.
        progress: called with (done, total); by default a line on stderr.

    Returns:
        `path`.

    Raises:
        MaterialError: a package or program is missing; the message has the apt line.
    """
    path = Path(path)
    _require(stamps, gcompris, soundfonts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return _Builder(stamps, gcompris, soundfonts, progress or _print_progress).build(path)


def _require(stamps: Path, gcompris: Path, soundfonts: Path) -> None:
    needed = {
        "tuxpaint-stamps-default": stamps / "animals/mammals/dogs/dog.png",
        "gcompris-qt-data": gcompris / "explore_monuments.rcc",
        "timgm6mb-soundfont": soundfonts / "TimGM6mb.sf2",
        "fluid-soundfont-gm": soundfonts / "FluidR3_GM.sf2",
    }
    missing = [package for package, file in needed.items() if not file.is_file()]
    for program in ("ffmpeg", "fluidsynth"):
        try:
            subprocess.run(
                [program, "-version" if program == "ffmpeg" else "--version"], capture_output=True, check=True
            )
        except (FileNotFoundError, subprocess.CalledProcessError):
            missing.append(program)
    if missing:
        raise MaterialError(
            f"the media packages are not installed (missing: {', '.join(missing)}); run: {APT_LINE}"
        )


class _Builder:
    """Gathers entries while it goes through the packages."""

    def __init__(self, stamps: Path, gcompris: Path, soundfonts: Path, progress: Progress) -> None:
        self.stamps = stamps
        self.gcompris = gcompris
        self.soundfonts = soundfonts
        self.progress = progress
        self.entries: dict[str, bytes] = {}
        self.archives: dict[str, dict[str, bytes]] = {}

    def build(self, path: Path) -> Path:
        classes = catalogue()
        total = len(classes) + 3
        melodies = self._melodies()
        things = []
        for done, thing in enumerate(classes):
            things.append(self._thing(thing, melodies.get(thing.name, [])))
            self.progress(done + 1, total)
        backgrounds = list(self._backgrounds())
        self.progress(total - 2, total)
        ambiences = list(self._ambiences())
        self.progress(total - 1, total)
        photos = list(self._photos())
        write_pack(path, things, backgrounds, ambiences, photos, self.entries)
        self.progress(total, total)
        return path

    def _thing(self, thing: ThingClass, melodies: list[Recording]) -> Thing:
        group = next((sorted(g)[0] for g in SHARED_SOUND if thing.name in g), thing.name)
        return Thing(
            name=thing.name,
            aliases=thing.aliases,
            kinds=thing.kinds,
            verb=thing.verb,
            unseen=thing.unseen,
            sound_group=group,
            pictures=tuple(self._cutout(stamp) for stamp in thing.stamps),
            recordings=(*self._recordings(thing), *melodies),
            confusable=thing.confusable,
        )

    def _cutout(self, stamp: str) -> Picture:
        """The stamp, cropped to what is not transparent."""
        image = Image.open(self.stamps / f"{stamp}.png").convert("RGBA")
        alpha = np.asarray(image)[..., 3]
        rows, columns = np.flatnonzero((alpha > 24).any(axis=1)), np.flatnonzero((alpha > 24).any(axis=0))
        image = image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
        image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE), Image.Resampling.LANCZOS)
        note = self.stamps / f"{stamp}.txt"
        caption = note.read_text("utf-8", errors="replace").splitlines()[0].strip() if note.is_file() else ""
        entry = self._store(f"pictures/{stamp}.webp", _webp(image, 90))
        return Picture(entry, image.width, image.height, caption)

    def _recordings(self, thing: ThingClass) -> Iterator[Recording]:
        for stamp in thing.voiced:
            split: Split = "test" if stamp in HELD_OUT_STAMP_SOUNDS else "train"
            samples = decode_audio((self.stamps / f"{stamp}.ogg").read_bytes())
            yield self._recording(samples, "stamp", stamp, split, _LICENCE_STAMPS)
        held = [("explore_farm_animals", FARM_RECORDINGS), ("instruments", INSTRUMENT_RECORDINGS)]
        for archive, table in held:
            if thing.name in table:
                name = table[thing.name]
                yield self._gcompris_recording(archive, name, "test")
        for name in MORE_RECORDINGS.get(thing.name, ()):
            yield self._gcompris_recording("memory-sound", name, "train")

    def _gcompris_recording(self, archive: str, name: str, split: Split) -> Recording:
        content = self._resource(archive, f"/{name}.ogg")
        return self._recording(
            decode_audio(content), "gcompris", f"{archive}/{name}", split, _LICENCE_GCOMPRIS
        )

    def _melodies(self) -> dict[str, list[Recording]]:
        """Class -> renderings of both banks; two fluidsynths at a time, since each reads its bank anew."""
        jobs: list[tuple[str, str, Path, int, Split, str]] = []
        for source, file, licence in _BANKS:
            splits = _TRAIN_MELODIES if source == "bank:timgm" else _HELD_OUT_MELODIES
            for name in INSTRUMENTS:
                for k, split in enumerate(splits):
                    seed = k if source == "bank:timgm" else 100 + k
                    jobs.append((name, source, self.soundfonts / file, seed, split, licence))
        with ThreadPoolExecutor(2) as pool:
            sounds = list(pool.map(lambda job: render_instrument(job[2], job[0], job[3], _MELODY_S), jobs))
        out: dict[str, list[Recording]] = {}
        for (name, source, bank, seed, split, licence), samples in zip(jobs, sounds, strict=True):
            origin = f"{bank.stem}/{name}-{seed}"
            out.setdefault(name, []).append(
                self._recording(samples, source, origin, split, f"{licence} ({bank.stem})")
            )
        return out

    def _recording(
        self, samples: NDArray[np.int16], source: str, origin: str, split: Split, licence: str
    ) -> Recording:
        try:
            samples = level(trim(samples)[: round(_LONGEST_S * SAMPLE_RATE_HZ)])
        except ValueError as error:
            raise MaterialError(f"{origin}: {error}") from error
        entry = self._store(f"sounds/{source.replace(':', '-')}/{origin}.snd", encode_sound(samples))
        active = tuple(active_intervals(samples))
        return Recording(entry, source, origin, split, len(samples) / SAMPLE_RATE_HZ, active, licence)

    def _backgrounds(self) -> Iterator[Background]:
        for archive, name, split in BACKDROPS:
            image = Image.open(io.BytesIO(self._resource(archive, f"/{name}.webp"))).convert("RGB")
            image.thumbnail((_BACKGROUND_SIDE, _BACKGROUND_SIDE), Image.Resampling.LANCZOS)
            entry = self._store(f"backgrounds/{archive}/{name}.webp", _webp(image, 85))
            yield Background(entry, f"{archive}/{name}", split, _LICENCE_GCOMPRIS)

    def _ambiences(self) -> Iterator[Background]:
        for archive, names in AMBIENCES.items():
            for name, split in names.items():
                suffix = "ogg" if archive == "memory-sound" else "wav"
                samples = level(trim(decode_audio(self._resource(archive, f"/{name}.{suffix}"))))
                samples = samples[: round(_LONGEST_S * SAMPLE_RATE_HZ)]
                entry = self._store(f"ambiences/{name}.snd", encode_sound(samples))
                yield Background(entry, f"{archive}/{name}", _split(split), _LICENCE_GCOMPRIS)

    def _photos(self) -> Iterator[Photo]:
        for archive, folder in PHOTO_FOLDERS:
            resources = self._archive(archive)
            for name in sorted(resources):
                if f"/{folder}/" not in name or not name.endswith(".webp"):
                    continue
                image = Image.open(io.BytesIO(resources[name])).convert("RGB")
                if min(image.size) < 200:
                    continue
                image.thumbnail((_PHOTO_SIDE, _PHOTO_SIDE), Image.Resampling.LANCZOS)
                stem = Path(name).stem
                entry = self._store(f"photos/{archive}/{stem}.webp", _webp(image, 82))
                sound = resources.get(name.removesuffix(".webp") + ".ogg")
                recording = None
                if sound is not None:
                    samples = decode_audio(sound)
                    recording = self._recording(
                        samples, "gcompris", f"{archive}/{stem}-photo", "test", _LICENCE_GCOMPRIS
                    )
                sha256 = hashlib.sha256(resources[name]).hexdigest()
                yield Photo(entry, f"{archive}/{stem}", sha256, recording, _LICENCE_GCOMPRIS)

    def _resource(self, archive: str, suffix: str) -> bytes:
        resources = self._archive(archive)
        found = sorted(name for name in resources if name.endswith(suffix))
        if not found:
            raise MaterialError(
                f"{archive}.rcc has no {suffix}; this version of gcompris-qt-data is not known"
            )
        return resources[found[0]]

    def _archive(self, name: str) -> dict[str, bytes]:
        if name not in self.archives:
            self.archives[name] = read_rcc(self.gcompris / f"{name}.rcc")
        return self.archives[name]

    def _store(self, entry: str, content: bytes) -> str:
        self.entries[entry] = content
        return entry


def decode_audio(content: bytes) -> NDArray[np.int16]:
    """16 kHz mono samples of an audio file, through the ffmpeg program.

    Raises:
        MaterialError: ffmpeg is missing, or cannot read the file.
    """
    command = ["ffmpeg", "-v", "error", "-i", "-", "-ac", "1", "-ar", str(SAMPLE_RATE_HZ), "-f", "s16le", "-"]
    try:
        done = subprocess.run(command, input=content, capture_output=True, check=True, timeout=120)
    except FileNotFoundError as error:
        raise MaterialError("ffmpeg is missing; install it with: apt-get install ffmpeg") from error
    except subprocess.CalledProcessError as error:
        raise MaterialError(
            f"ffmpeg cannot read a sound: {error.stderr.decode(errors='replace')[-200:]}"
        ) from error
    return np.frombuffer(done.stdout, np.int16)


def _webp(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()


def _split(name: str) -> Split:
    if name not in ("train", "val", "test"):
        raise ValueError(f"unknown split {name!r}")
    return name  # type: ignore[return-value]


def _print_progress(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\rpack: {done}/{total}", end=end, file=sys.stderr, flush=True)
