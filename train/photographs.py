"""Real photographs whose objects were outlined by hand: read, cut as a camera would show them, and turned into truths.

The outlines lie in `tests/photographs.json`, in shares of a picture's width and height; the pictures come from the pack, and one
that is not, to the byte, the picture that was outlined is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from refavs_rt.dataset import DataError

from .material import Pack, Photo

OUTLINES = Path("tests/photographs.json")
_FINER = 8
"""Outlines are drawn at so many times the size, then averaged: an edge is where half a pixel is covered."""

Polygon = tuple[tuple[float, float], ...]
"""Corners (x, y) in shares of the picture's width and height, closed by itself."""


@dataclass(frozen=True)
class View:
    """The part of a picture that a camera shows, in shares of its width and height."""

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0

    def of(self, picture: Image.Image, size: int) -> NDArray[np.uint8]:
        """[S, S, 3]: the part, stretched to a square as the network takes it."""
        right, bottom = self.left + self.width, self.top + self.height
        box = (
            self.left * picture.width,
            self.top * picture.height,
            right * picture.width,
            bottom * picture.height,
        )
        return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box))


@dataclass(frozen=True)
class Outline:
    """An object of a photograph."""

    name: str
    polygons: tuple[Polygon, ...]
    """What they cover together is the object."""

    def mask(self, view: View, size: int) -> NDArray[np.bool_]:
        """[S, S] of the part of the picture that `view` shows."""
        fine = size * _FINER
        page = Image.new("1", (fine, fine))
        pen = ImageDraw.Draw(page)
        for polygon in self.polygons:
            pen.polygon(
                [
                    ((x - view.left) / view.width * fine - 0.5, (y - view.top) / view.height * fine - 0.5)
                    for x, y in polygon
                ],
                fill=1,
            )
        cells = np.asarray(page).reshape(size, _FINER, size, _FINER)
        return cells.mean(axis=(1, 3)) >= 0.5


@dataclass(frozen=True)
class Photograph:
    """A photograph and what is to be seen on it."""

    photo: Photo
    outlines: tuple[Outline, ...]
    alike: str = ""
    """A thing that is not there, of a kind with what is."""
    absent: str = ""
    """A thing that is not there, of another kind."""

    @property
    def name(self) -> str:
        """Archive and picture."""
        return self.photo.origin

    def named(self) -> list[int]:
        """Of each name the first object, by its number: it is the one that is asked for."""
        first: dict[str, int] = {}
        for number, outline in enumerate(self.outlines):
            first.setdefault(outline.name, number)
        return list(first.values())

    def truth(self, number: int, views: Sequence[View], size: int) -> NDArray[np.bool_]:
        """[T, S, S] of an object."""
        return np.stack([self.outlines[number].mask(view, size) for view in views])

    def beside(self, number: int, views: Sequence[View], size: int) -> NDArray[np.bool_]:
        """[T, S, S]: where other objects of the same name are, of which a sentence does not tell whether they are meant."""
        name = self.outlines[number].name
        others = [o for i, o in enumerate(self.outlines) if o.name == name and i != number]
        covered = [[o.mask(view, size) for o in others] for view in views]
        return np.stack([np.any([np.zeros((size, size), bool), *masks], axis=0) for masks in covered])


def read_photographs(path: Path, pack: Pack) -> tuple[list[Photograph], dict[str, str]]:
    """The photographs of `pack` that were outlined, and why the others of `path` are left out, by name.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        entries: dict[str, dict[str, object]] = json.loads(path.read_text())["photographs"]
        outlined = {name: _outlined(entry) for name, entry in entries.items()}
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}; it is part of the project's sources"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error!r}); take it from the project's sources again") from error
    photos = {photo.origin: photo for photo in pack.photos}
    found: list[Photograph] = []
    left_out: dict[str, str] = {}
    for name, (sha256, outlines, alike, absent) in outlined.items():
        if name not in photos:
            left_out[name] = "it is not in the pack"
        elif photos[name].sha256 != sha256:
            left_out[name] = "the pack has another picture of that name"
        else:
            found.append(Photograph(photos[name], outlines, alike, absent))
    return found, left_out


def _outlined(entry: dict[str, object]) -> tuple[str, tuple[Outline, ...], str, str]:
    return str(entry["sha256"]), _outlines(entry["objects"]), str(entry["alike"]), str(entry["absent"])


def _outlines(objects: object) -> tuple[Outline, ...]:
    if not isinstance(objects, list) or not objects:
        raise ValueError("a photograph has no objects")
    outlines = tuple(
        Outline(str(o["name"]), tuple(tuple((float(x), float(y)) for x, y in p) for p in o["polygons"]))
        for o in objects
    )
    for outline in outlines:
        corners = [value for polygon in outline.polygons for corner in polygon for value in corner]
        if not outline.polygons or min(len(polygon) for polygon in outline.polygons) < 3:
            raise ValueError(f"an outline of {outline.name!r} has fewer than three corners")
        if not all(0 <= value <= 1 for value in corners):
            raise ValueError(f"an outline of {outline.name!r} leaves the picture")
    return outlines
