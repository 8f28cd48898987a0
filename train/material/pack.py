"""The pack: one zip file with every picture and sound that scenes are made of, read without any media package.

Entries are stored, not compressed again: `index.json`; pictures and backgrounds as WebP; sounds as 16 kHz mono int16, their
first differences deflated with low and high bytes apart (`encode_sound`).
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import MaterialError

FORMAT = 2
_MEND = "delete it and build it anew, with: python -m train scenes"
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)
"""What zipfile raises for damaged files, a damaged flag or method among the damages."""
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Picture:
    """A cut-out with alpha."""

    entry: str
    width: int
    height: int
    caption: str


@dataclass(frozen=True)
class Recording:
    """A recording, trimmed, its loud parts at a common level."""

    entry: str
    source: str
    """'stamp', 'gcompris', 'bank:timgm' or 'bank:fluidr3'."""
    origin: str
    """The file, or bank and melody, that it comes from."""
    split: Split
    """The only split that may use it, but for classes with no recording of their own in val and test: these use 'train'."""
    seconds: float
    active: tuple[tuple[float, float], ...]
    """Intervals in seconds in which it is to be heard."""
    licence: str


@dataclass(frozen=True)
class Thing:
    """A class with its material."""

    name: str
    aliases: tuple[str, ...]
    kinds: tuple[str, ...]
    verb: str | None
    unseen: bool
    sound_group: str
    """Classes of one group share a recording; else the class's own name."""
    pictures: tuple[Picture, ...]
    recordings: tuple[Recording, ...]
    confusable: tuple[str, ...] = ()
    """Words that someone may wrongly call it by."""

    @property
    def words(self) -> frozenset[str]:
        """Every word or phrase that could be taken to mean it."""
        return frozenset({self.name, *self.aliases, *self.kinds, *self.confusable})


@dataclass(frozen=True)
class Background:
    """A photograph of a place, or for `Pack.ambiences` the sound of one."""

    entry: str
    origin: str
    split: Split
    licence: str


@dataclass(frozen=True)
class Photo:
    """A photograph of an animal or a musician in real surroundings: to measure on, never to train on."""

    entry: str
    origin: str
    sha256: str
    """Of the file that it was made from, in hexadecimal."""
    recording: Recording | None
    licence: str


class Pack:
    """A pack in memory. Decoding is lazy and cached; the same pack gives the same arrays."""

    def __init__(self, path: Path, entries: dict[str, bytes]) -> None:
        self.path = path
        self._entries = entries
        try:
            index = json.loads(entries["index.json"])
            found = index["format"]
        except (KeyError, TypeError, ValueError) as error:
            raise MaterialError(f"{path} is not a pack, it has no readable index.json: {_MEND}") from error
        if found != FORMAT:
            raise MaterialError(f"{path} has pack format {found}, this program reads {FORMAT}: {_MEND}")
        try:
            self.things: tuple[Thing, ...] = tuple(_thing(x) for x in index["things"])
            self.backgrounds: tuple[Background, ...] = tuple(Background(**x) for x in index["backgrounds"])
            self.ambiences: tuple[Background, ...] = tuple(Background(**x) for x in index["ambiences"])
            self.photos: tuple[Photo, ...] = tuple(_photo(x) for x in index["photos"])
            self.splits: tuple[Split, ...] = tuple(index["splits"])
            """Those that it has material for."""
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise MaterialError(f"{path} is damaged, its index.json lacks something: {_MEND}") from error
        absent = sorted(set(self._named()) - set(entries))
        if absent:
            raise MaterialError(f"{path} is damaged, it lacks {absent[0]}: {_MEND}")
        self.by_name: dict[str, Thing] = {thing.name: thing for thing in self.things}
        self._pictures: OrderedDict[str, Image.Image] = OrderedDict()
        self._cutouts: OrderedDict[str, list[Image.Image]] = OrderedDict()
        self._sounds: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def digest(self) -> str:
        """Hexadecimal sha256 of all that the pack holds."""
        whole = hashlib.sha256()
        for name, content in sorted(self._entries.items()):
            whole.update(f"{name} {len(content)}\n".encode() + content)
        return whole.hexdigest()

    @classmethod
    def load(cls, path: Path) -> Pack:
        """Read a pack whole into memory.

        Raises:
            MaterialError: the file is missing, damaged, or of another format.
        """
        path = Path(path)
        if not path.exists():
            raise MaterialError(f"{path} is missing; build it with: python -m train scenes --pack {path} ...")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise MaterialError(
                f"{path} cannot be read: {error.strerror}; name a pack, or a new file"
            ) from error
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = {name: archive.read(name) for name in archive.namelist()}
        except _UNREADABLE as error:
            raise MaterialError(f"{path} is damaged ({error}): {_MEND}") from error
        return cls(path, entries)

    def _named(self) -> Iterator[str]:
        """Entries that the index speaks of."""
        for thing in self.things:
            yield from (x.entry for x in thing.pictures)
            yield from (x.entry for x in thing.recordings)
        yield from (x.entry for x in (*self.backgrounds, *self.ambiences))
        yield from (x.entry for x in self.photos)
        yield from (x.recording.entry for x in self.photos if x.recording)

    def __reduce__(self) -> tuple[Any, ...]:
        """Worker processes read the file anew instead of copying what is in memory."""
        return Pack.load, (self.path,)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every class that can be named, in a fixed order."""
        return tuple(thing.name for thing in self.things)

    @property
    def train_class_names(self) -> tuple[str, ...]:
        """The classes that training may show."""
        return tuple(thing.name for thing in self.things if not thing.unseen)

    @property
    def sounding_names(self) -> tuple[str, ...]:
        """The classes with at least one recording."""
        return tuple(thing.name for thing in self.things if thing.recordings)

    def entry(self, name: str) -> bytes:
        """The content of an entry as it is stored."""
        return self._entries[name]

    def picture(self, entry: str) -> Image.Image:
        """The decoded picture of a background or photo, RGB. Not to be changed."""
        image = self._pictures.get(entry)
        if image is None:
            image = Image.open(io.BytesIO(self._entries[entry])).convert("RGB")
            _remember(self._pictures, entry, image, 150)
        return image

    def cutout(self, entry: str, width: int) -> Image.Image:
        """A cut-out with premultiplied alpha (mode RGBa), not to be changed: the whole picture, or, for a `width` of half as
        many pixels and less, the smallest of its halvings that is at least as wide."""
        levels = self._cutouts.get(entry)
        if levels is None:
            levels = [Image.open(io.BytesIO(self._entries[entry])).convert("RGBA").convert("RGBa")]
            while min(levels[-1].size) >= 16:
                levels.append(levels[-1].reduce(2))
            _remember(self._cutouts, entry, levels, 600)
        return next((level for level in reversed(levels) if level.width >= width), levels[0])

    def sound(self, entry: str) -> NDArray[np.float32]:
        """Samples in [-1, 1] at 16 kHz, read-only."""
        samples = self._sounds.get(entry)
        if samples is None:
            samples = decode_sound(self._entries[entry]).astype(np.float32) / np.float32(32768)
            samples.flags.writeable = False
            _remember(self._sounds, entry, samples, 600)
        return samples


def write_pack(
    path: Path,
    things: list[Thing],
    backgrounds: list[Background],
    ambiences: list[Background],
    photos: list[Photo],
    entries: dict[str, bytes],
    splits: Sequence[Split] = ("train", "val", "test"),
) -> None:
    """Write a pack, whole or not at all; `splits` are those that it has material for."""
    index = {
        "format": FORMAT,
        "splits": list(splits),
        "things": [asdict(x) for x in things],
        "backgrounds": [asdict(x) for x in backgrounds],
        "ambiences": [asdict(x) for x in ambiences],
        "photos": [asdict(x) for x in photos],
    }
    partial = path.with_name(f".{path.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {"index.json": json.dumps(index).encode(), **entries}.items():
            archive.writestr(
                zipfile.ZipInfo(name), content
            )  # ZipInfo: no clock in the file, so equal input, equal bytes
    partial.replace(path)


def encode_sound(samples: NDArray[np.int16]) -> bytes:
    """Lossless: first differences mod 2^16, low bytes then high bytes, deflated."""
    differences = np.diff(samples.astype(np.int32), prepend=0).astype(np.uint16)
    planes = np.concatenate([differences & 255, differences >> 8]).astype(np.uint8)
    return zlib.compress(planes.tobytes(), 9)


def decode_sound(content: bytes) -> NDArray[np.int16]:
    """The inverse of `encode_sound`."""
    low, high = np.frombuffer(zlib.decompress(content), np.uint8).reshape(2, -1).astype(np.uint16)
    return np.cumsum(low | (high << 8), dtype=np.uint16).view(np.int16)


def _remember(cache: OrderedDict[str, Any], key: str, value: Any, limit: int) -> None:
    cache[key] = value
    if len(cache) > limit:
        cache.popitem(last=False)


def _recording(values: dict[str, Any]) -> Recording:
    return Recording(**{**values, "active": tuple((a, b) for a, b in values["active"])})


def _thing(values: dict[str, Any]) -> Thing:
    return Thing(
        **{
            **values,
            "aliases": tuple(values["aliases"]),
            "kinds": tuple(values["kinds"]),
            "confusable": tuple(values.get("confusable", ())),
            "pictures": tuple(Picture(**x) for x in values["pictures"]),
            "recordings": tuple(_recording(x) for x in values["recordings"]),
        }
    )


def _photo(values: dict[str, Any]) -> Photo:
    recording = values["recording"]
    return Photo(**{**values, "recording": _recording(recording) if recording else None})
