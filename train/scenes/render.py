"""From a plan to pixels: frames and the visible pixels of each object."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

if TYPE_CHECKING:
    from .scene import Scene, SceneObject

_PAD = 2
"""Transparent pixels around a layer, so that its edge is blended and not cut."""


@dataclass(frozen=True)
class Look:
    """How a cut-out is changed before it is shown."""

    flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    feather: float = 0.0
    """Blur of the edge, in pixels of a frame 192 high."""
    shadow: float = 0.0
    """Darkness of its shadow on what lies behind, 0 to 1."""
    shadow_x: float = 0.03
    shadow_y: float = 0.03
    """Where the shadow falls, in units of the frame's smaller side."""


@dataclass(frozen=True)
class Finish:
    """What the lens and the codec do to the whole picture."""

    gain: float = 1.0
    blur: float = 0.0
    """Gaussian, in pixels of a frame 192 high."""
    noise: float = 0.0
    """Standard deviation, of 255."""
    jpeg: int = 0
    """Quality, 0 for none."""
    seed: int = 0


@dataclass(frozen=True)
class _Layer:
    """An object's picture at the largest size at which it is shown, premultiplied, with a transparent border."""

    image: Image.Image
    shadow: Image.Image | None
    scale: float
    """Its size over the size that the motion calls 1, with the camera's zoom in it."""


class Renderer:
    """Draws one scene at one size; what does not change from frame to frame is made once."""

    def __init__(self, scene: Scene, size: tuple[int, int]) -> None:
        self.scene = scene
        self.height, self.width = size
        self.unit = min(size)
        zooms = scene.camera.zoom
        self.top_zoom = max(zooms)
        factor = self.top_zoom if scene.camera.moves or self.top_zoom > 1 else 1.0
        self.background = scene.backdrop.picture(
            scene.pack, (round(self.height * factor), round(self.width * factor))
        )
        self.layers = [self._layer(item) for item in scene.objects]

    def draw(self, times_s: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Frames [T, h, w, 3] and masks [T, K, h, w]: pixels of object k that no later object covers."""
        poses = [item.motion.at(times_s) for item in self.scene.objects]
        camera = self.scene.camera.at(times_s)
        frames = np.empty((len(times_s), self.height, self.width, 3), np.uint8)
        masks = np.zeros((len(times_s), len(self.layers), self.height, self.width), bool)
        for i in range(len(times_s)):
            cx, cy, zoom = (float(values[i]) for values in camera)
            frame = self._backdrop(cx, cy, zoom)
            for k, (layer, pose) in enumerate(zip(self.layers, poses, strict=True)):
                x = ((float(pose.x[i]) - cx) * zoom + 0.5) * self.width
                y = ((float(pose.y[i]) - cy) * zoom + 0.5) * self.height
                scale = float(pose.scale[i]) * zoom / layer.scale
                self._paste(frame, masks[i], k, layer, x, y, scale, float(pose.angle[i]))
            frames[i] = self._finish(frame, float(times_s[i]))
        return frames, masks

    def _layer(self, item: SceneObject) -> _Layer:
        look = item.look
        largest = max(1.0, item.motion.growth) * self.top_zoom
        picture = item.picture
        width = max(2, round(item.width * self.unit * largest))
        height = max(2, round(item.height * self.unit * largest))
        image = self.scene.pack.cutout(picture.entry, width).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        if look.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = _recolour(np.asarray(image), look)
        pad = _PAD + round(2 * look.feather * self.unit / 192)
        pixels = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)))
        image = Image.frombuffer("RGBa", pixels.shape[1::-1], pixels.tobytes(), "raw", "RGBa", 0, 1)
        if look.feather:
            image = _blur_premultiplied(image, look.feather * self.unit / 192)
        shadow = None
        if look.shadow:
            alpha = Image.fromarray(np.asarray(image)[..., 3])
            shadow = alpha.filter(ImageFilter.GaussianBlur(0.02 * self.unit))
        return _Layer(image, shadow, largest)

    def _backdrop(self, cx: float, cy: float, zoom: float) -> NDArray[np.uint8]:
        if self.background.size == (self.width, self.height):
            return np.array(self.background)
        w, h = self.background.size
        step_x, step_y = w / self.width / zoom, h / self.height / zoom
        left, top = (cx - 0.5 / zoom) * w, (cy - 0.5 / zoom) * h
        view = self.background.transform(
            (self.width, self.height),
            Image.Transform.AFFINE,
            (step_x, 0, left, 0, step_y, top),
            Image.Resampling.BILINEAR,
        )
        return np.array(view)

    def _paste(
        self,
        frame: NDArray[np.uint8],
        masks: NDArray[np.bool_],
        k: int,
        layer: _Layer,
        x: float,
        y: float,
        scale: float,
        angle: float,
    ) -> None:
        look = self.scene.objects[k].look
        if layer.shadow is not None:
            at = x + look.shadow_x * self.unit, y + look.shadow_y * self.unit
            placed = place(layer.shadow, *at, scale, angle, self.width, self.height)
            if placed is not None:
                area, alpha = placed
                behind = frame[area]
                behind[:] = behind * (1 - look.shadow / 255 * alpha[..., None].astype(np.float32))
        placed = place(layer.image, x, y, scale, angle, self.width, self.height)
        if placed is None:
            return
        area, patch = placed
        behind = frame[area]
        clear = 255 - patch[..., 3:].astype(np.uint16)
        behind[:] = np.minimum(patch[..., :3] + (behind * clear + 127) // 255, 255)
        solid = patch[..., 3] >= 128
        masks[(slice(0, k), *area)] &= ~solid
        masks[(k, *area)] = solid

    def _finish(self, frame: NDArray[np.uint8], time_s: float) -> NDArray[np.uint8]:
        finish = self.scene.finish
        if finish.gain == 1 and not finish.blur and not finish.noise and not finish.jpeg:
            return frame
        image = Image.fromarray(frame)
        if finish.gain != 1:
            table = np.clip(np.arange(256) * finish.gain, 0, 255).astype(np.uint8).tolist()
            image = image.point(table * 3)
        if finish.blur:
            image = image.filter(ImageFilter.GaussianBlur(finish.blur * self.unit / 192))
        if finish.noise:
            rng = np.random.default_rng((finish.seed, round(time_s * 1000)))
            grain = rng.standard_normal((self.height, self.width), np.float32) * finish.noise
            image = Image.fromarray(np.clip(np.asarray(image) + grain[..., None], 0, 255).astype(np.uint8))
        if finish.jpeg:
            packed = io.BytesIO()
            image.save(packed, "JPEG", quality=finish.jpeg)
            image = Image.open(packed)
        return np.asarray(image)


def place(
    layer: Image.Image, x: float, y: float, scale: float, angle: float, width: int, height: int
) -> tuple[tuple[slice, slice], NDArray[np.uint8]] | None:
    """A layer scaled, turned and centred on (x, y) pixels: the part of a `width` x `height` frame that it covers, as slices of
    rows and columns, and its pixels there; None where it lies outside."""
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    w, h = layer.size
    reach_x = (abs(w * cos) + abs(h * sin)) * scale / 2 + 1
    reach_y = (abs(w * sin) + abs(h * cos)) * scale / 2 + 1
    left, right = max(0, int(x - reach_x)), min(width, int(x + reach_x) + 1)
    top, bottom = max(0, int(y - reach_y)), min(height, int(y + reach_y) + 1)
    if left >= right or top >= bottom:
        return None
    a, b, d, e = cos / scale, sin / scale, -sin / scale, cos / scale
    c = w / 2 + a * (left - x) + b * (top - y)
    f = h / 2 + d * (left - x) + e * (top - y)
    patch = layer.transform(
        (right - left, bottom - top), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR
    )
    return (slice(top, bottom), slice(left, right)), np.asarray(patch)


def _recolour(pixels: NDArray[np.uint8], look: Look) -> NDArray[np.uint8]:
    """Brightness, contrast and saturation of premultiplied RGBA [h, w, 4]: linear, so alpha stands for 1."""
    if look.brightness == look.contrast == look.saturation == 1:
        return pixels
    colour, alpha = pixels[..., :3].astype(np.float32), pixels[..., 3:].astype(np.float32)
    grey = colour @ np.array([0.299, 0.587, 0.114], np.float32)
    colour = grey[..., None] + look.saturation * (colour - grey[..., None])
    total = max(float(alpha.sum()), 1.0)
    mean = float(grey.sum()) / total
    changed = (mean * alpha + look.contrast * (colour - mean * alpha)) * look.brightness
    return np.concatenate([np.clip(changed, 0, alpha), alpha], axis=2).astype(np.uint8)


def _blur_premultiplied(image: Image.Image, radius: float) -> Image.Image:
    """Gaussian blur of an RGBa picture; PIL's filter does not take the mode, so it goes through one that it takes."""
    pixels = np.asarray(image)
    blurred = Image.frombuffer("CMYK", image.size, pixels.tobytes(), "raw", "CMYK", 0, 1)
    blurred = blurred.filter(ImageFilter.GaussianBlur(radius))
    return Image.frombuffer("RGBa", image.size, blurred.tobytes(), "raw", "RGBa", 0, 1)
