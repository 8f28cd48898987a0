"""Backgrounds: crops of real photographs, and pictures made from noise, gradients and simple rooms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ..material import Pack

BackdropKind = Literal["photo", "gradient", "noise", "room", "tiles", "field", "lights"]
PROCEDURAL: tuple[BackdropKind, ...] = ("gradient", "noise", "room", "tiles", "field", "lights")


@dataclass(frozen=True)
class Backdrop:
    """What lies behind the objects."""

    kind: BackdropKind
    entry: str | None
    """The photograph's entry in the pack, None for a made one."""
    origin: str
    """Where the photograph comes from, or the kind of a made one."""
    seed: int
    crop: float = 1.0
    """Share of the photograph's largest fitting crop that is taken."""
    at_x: float = 0.5
    at_y: float = 0.5
    """Where in what is left over the crop lies, 0 to 1."""
    flip: bool = False
    gain: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: float = 0.0
    """Gaussian blur in hundredths of the picture's smaller side."""

    def picture(self, pack: Pack, size: tuple[int, int]) -> Image.Image:
        """RGB picture of `size` (height, width)."""
        height, width = size
        if self.entry is not None:
            image = self._crop(pack.picture(self.entry), height, width)
        else:
            image = _procedural(self.kind, height, width, np.random.default_rng(self.seed))
        if self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.blur:
            image = image.filter(ImageFilter.GaussianBlur(self.blur * min(size) / 100))
        ramp = np.arange(256)
        table = [np.clip(ramp * self.gain * tint, 0, 255).astype(np.uint8) for tint in self.tint]
        return image.point(np.concatenate(table).tolist())

    def _crop(self, photo: Image.Image, height: int, width: int) -> Image.Image:
        scale = min(photo.width / width, photo.height / height) * self.crop
        w, h = width * scale, height * scale
        left, top = (photo.width - w) * self.at_x, (photo.height - h) * self.at_y
        return photo.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))


def fractal(
    height: int, width: int, rng: np.random.Generator, coarse: int = 3, octaves: int = 4
) -> NDArray[np.float32]:
    """Smooth noise in about [0, 1], [height, width]: random grids of `coarse`, 2 `coarse`, ... cells, each half as strong."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cells = coarse << octave
        grid = Image.fromarray(rng.random((cells + 1, cells + 1), np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) * 0.5**octave
    return np.clip(total / (2 - 0.5 ** (octaves - 1)), 0, 1)


def _procedural(kind: str, height: int, width: int, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(np.clip(_MAKERS[kind](height, width, rng), 0, 255).astype(np.uint8))


def _colour(rng: np.random.Generator, low: float = 20, high: float = 235) -> NDArray[np.float32]:
    """A colour of any lightness, mostly not very saturated: [3]."""
    grey = rng.uniform(low, high)
    return np.clip(grey + rng.normal(0, 30, 3), 0, 255).astype(np.float32)


def _mix(share: NDArray[np.float32], a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return a + share[..., None] * (b - a)


def _gradient(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5) + 0.5
    picture = _mix(np.clip(ramp, 0, 1).astype(np.float32), _colour(rng), _colour(rng))
    return picture + rng.uniform(0, 40) * (fractal(height, width, rng)[..., None] - 0.5)


def _noise(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    share = fractal(height, width, rng, int(rng.integers(2, 9)), int(rng.integers(3, 6)))
    share = np.clip((share - 0.5) * rng.uniform(1, 4) + 0.5, 0, 1).astype(np.float32)
    picture = _mix(share, _colour(rng), _colour(rng))
    if rng.random() < 0.5:
        picture += rng.uniform(5, 25) * rng.standard_normal((height, width, 1), np.float32)
    return picture


def _room(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A wall and a floor, perhaps with a skirting board, a window and boards."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    horizon = rng.uniform(0.5, 0.8) + rng.normal(0, 0.03) * (x - 0.5)
    shade = fractal(height, width, rng, 2, 4)
    wall = _mix(shade, _colour(rng, 90), _colour(rng, 90)) * (1 - 0.25 * np.abs(x - rng.random())[..., None])
    if rng.random() < 0.4:
        stripes = np.floor(x * rng.integers(6, 24)).astype(int) % 2
        wall = wall + (stripes[..., None] - 0.5) * rng.uniform(6, 30)
    if rng.random() < 0.4:
        left, top = rng.uniform(0, 0.7), rng.uniform(0.05, 0.2)
        inside = (
            (x > left) & (x < left + rng.uniform(0.15, 0.4)) & (y > top) & (y < top + rng.uniform(0.2, 0.35))
        )
        wall[inside] = _colour(rng, 60, 255)
    depth = np.clip((y - horizon) / np.maximum(1 - horizon, 1e-3), 0, 1)
    floor = _mix(fractal(height, width, rng, 4, 5), _colour(rng, 30, 190), _colour(rng, 30, 190))
    if rng.random() < 0.5:
        boards = np.floor((x - 0.5) / (0.3 + depth) * rng.integers(5, 14)).astype(int) % 2
        floor = floor + (boards[..., None] - 0.5) * rng.uniform(5, 25)
    picture: NDArray[np.float32] = np.where((y > horizon)[..., None], floor, wall)
    edge = np.abs(y - horizon) < 0.012
    picture[edge] = picture[edge] * rng.uniform(0.4, 1.3)
    return picture


def _tiles(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / min(height, width)
    angle, count = rng.uniform(-0.3, 0.3), rng.integers(3, 14)
    u = (np.cos(angle) * x + np.sin(angle) * y) * count
    v = (np.cos(angle) * y - np.sin(angle) * x) * count * rng.choice([1, 1, 0.3])
    if rng.random() < 0.5:
        u = u + 0.5 * (np.floor(v) % 2)
    check = ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)
    picture = _mix(check * rng.uniform(0.1, 1), _colour(rng), _colour(rng))
    gap = rng.uniform(0.02, 0.08)
    picture[((u % 1) < gap) | ((v % 1) < gap)] = _colour(rng)
    return picture * (0.75 + 0.5 * fractal(height, width, rng, 2, 5)[..., None])


def _field(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Sky over ground, with hills between them."""
    y = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j][0].astype(np.float32)
    blue = np.array([rng.uniform(60, 200), rng.uniform(120, 210), rng.uniform(160, 250)], np.float32)
    sky = _mix(y, blue, np.full(3, rng.uniform(170, 245), np.float32))
    clouds = np.clip((fractal(height, width, rng, 3, 5) - 0.5) * 4, 0, 1)[..., None] * rng.uniform(0, 0.8)
    sky = sky * (1 - clouds) + 245 * clouds
    line = rng.uniform(0.3, 0.6) + 0.15 * (fractal(1, width, rng, 3, 3)[0] - 0.5)
    green = np.array([rng.uniform(50, 170), rng.uniform(80, 180), rng.uniform(30, 110)], np.float32)
    ground = green * (0.5 + fractal(height, width, rng, 12, 4)[..., None]) * (0.8 + 0.4 * y[..., None])
    ground = ground + rng.uniform(0, 18) * rng.standard_normal((height, width, 1), np.float32)
    return np.where((y > line)[..., None], ground, sky).astype(np.float32)


def _lights(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Out-of-focus discs over a dark or light ground."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / min(height, width)
    picture = _mix(fractal(height, width, rng, 2, 3), _colour(rng, 10, 120), _colour(rng, 10, 160))
    for _ in range(rng.integers(4, 16)):
        radius, cx, cy = rng.uniform(0.02, 0.14), rng.uniform(0, x.max()), rng.uniform(0, y.max())
        disc = np.clip((radius - np.hypot(x - cx, y - cy)) * 60, 0, 1)[..., None] * rng.uniform(0.15, 0.7)
        picture = picture * (1 - disc) + _colour(rng, 90, 255) * disc
    return picture.astype(np.float32)


_MAKERS = {
    "gradient": _gradient,
    "noise": _noise,
    "room": _room,
    "tiles": _tiles,
    "field": _field,
    "lights": _lights,
}
