"""`Frame.tensor` of every kind of pixel format against the definition in float64, from the planes that the ffmpeg tool gives."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from refavs_rt.config import IMAGENET_MEAN, IMAGENET_STD
from refavs_rt.ingest import Frame, open_source, resize_normalize

from .clips import big_buck_bunny, ffmpeg, test_pattern
from .test_preprocess import denormalized, triangle

pytestmark = pytest.mark.media
SIZE = 24
KR_KB = {"bt709": (0.2126, 0.0722), "bt470bg": (0.299, 0.114), "bt2020nc": (0.2627, 0.0593)}
SHARED = {"yuv420p": (2, 2), "yuv422p": (2, 1), "yuv440p": (1, 2), "yuv444p": (1, 1), "nv12": (2, 2)}
"""Pixels across and down that have one sample of colour."""


def write(path: Path, pixels: str, size: str, *more: str) -> None:
    """Two pictures of noise, so that nothing is smooth and much is outside of RGB's range."""
    source = f"nullsrc=size={size}:rate=5,format={pixels},geq=random(1)*255:random(2)*255:random(3)*255"
    if pixels in ("rgb24", "bgr0", "gbrp"):
        source = f"nullsrc=size={size}:rate=5,format=gbrp,geq=r=random(1)*255:g=random(2)*255:b=random(3)*255"
    ffmpeg("-f", "lavfi", "-i", source, "-frames:v", 2, "-pix_fmt", pixels, *more, "-c:v", "rawvideo", path)


def raw(path: Path, pixels: str) -> NDArray[np.uint8]:
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-nostdin",
        "-i",
        str(path),
        "-f",
        "rawvideo",
        "-pix_fmt",
        pixels,
        "-",
    ]
    return np.frombuffer(
        subprocess.run(command, capture_output=True, check=True, timeout=60).stdout, np.uint8
    )


def first(path: Path, size: int = SIZE) -> Frame:
    with open_source(path, size, mean=IMAGENET_MEAN, std=IMAGENET_STD) as source:
        return next(source)


def stretched(picture: NDArray[np.float64], size: int = SIZE) -> NDArray[np.float64]:
    """[H, W, 3] to [S, S, 3], of 0 to 255."""
    down, across = triangle(picture.shape[0], size), triangle(picture.shape[1], size)
    return np.clip(np.einsum("yh,hwc,xw->yxc", down, picture, across, optimize=True), 0, 255)


def rgb(
    y: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8], matrix: str, full: bool
) -> NDArray[np.float64]:
    """[H, W, 3] by the definition of Y'CbCr; may lie outside of 0 to 255."""
    kr, kb = KR_KB[matrix]
    luma = y.astype(float) if full else (y.astype(float) - 16) * 255 / 219
    cb, cr = ((x.astype(float) - 128) * (1 if full else 255 / 224) for x in (u, v))
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    return np.stack([red, (luma - kr * red - kb * blue) / (1 - kr - kb), blue], axis=-1)


def spread(samples: NDArray[np.uint8], pixels: str, height: int, width: int) -> NDArray[np.uint8]:
    across, down = SHARED[pixels]
    return samples.repeat(down, 0).repeat(across, 1)[:height, :width]


@pytest.mark.parametrize("size", ["67x45", "20x90", "640x358"])
@pytest.mark.parametrize("pixels", SHARED)
def test_planes_of_luma_and_colour(pixels: str, size: str, tmp_path: Path) -> None:
    path = tmp_path / "noise.nut"
    write(path, pixels, size)
    width, height = map(int, size.split("x"))
    across, down = SHARED[pixels]
    w, h = -(-width // across), -(-height // down)
    planes = raw(path, pixels)[: height * width + 2 * h * w]
    y, colour = planes[: height * width].reshape(height, width), planes[height * width :]
    if pixels == "nv12":
        u, v = (colour.reshape(h, w, 2)[..., i] for i in (0, 1))
    else:
        u, v = colour.reshape(2, h, w)
    u, v = (spread(x, pixels, height, width) for x in (u, v))
    expected = stretched(rgb(y, u, v, "bt470bg", full=False))
    np.testing.assert_allclose(denormalized(first(path).tensor), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", KR_KB)
def test_a_frame_names_its_matrix_and_range(matrix: str, full: bool, tmp_path: Path) -> None:
    path = tmp_path / "noise.nut"
    write(path, "yuv444p", "40x30")
    named = tmp_path / "named.mkv"
    flags = ["-colorspace", matrix, "-color_range", "pc" if full else "tv"]
    ffmpeg("-i", path, "-c:v", "ffv1", *flags, named)
    y, u, v = raw(named, "yuv444p")[: 3 * 30 * 40].reshape(3, 30, 40)
    expected = stretched(rgb(y, u, v, matrix, full))
    np.testing.assert_allclose(denormalized(first(named).tensor), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("pixels", ["yuyv422", "uyvy422"])
def test_packed_formats_of_cameras(pixels: str, tmp_path: Path) -> None:
    path = tmp_path / "noise.nut"
    write(path, pixels, "66x45")
    packed = raw(path, pixels)[: 45 * 66 * 2].reshape(45, 33, 4)
    order = [0, 2, 1, 3] if pixels == "yuyv422" else [1, 3, 0, 2]
    y = packed[..., order[:2]].reshape(45, 66)
    u, v = (packed[..., i].repeat(2, 1) for i in order[2:])
    expected = stretched(rgb(y, u, v, "bt470bg", full=False))
    np.testing.assert_allclose(denormalized(first(path).tensor), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("pixels", ["rgb24", "bgr0", "gbrp", "gray"])
def test_formats_without_colour_differences_equal_the_picture(pixels: str, tmp_path: Path) -> None:
    path = tmp_path / "noise.nut"
    write(path, pixels, "67x45")
    frame = first(path)
    np.testing.assert_allclose(frame.tensor, resize_normalize(frame.image, SIZE), rtol=0, atol=1e-5)


@pytest.mark.parametrize("codec", ["yuv420p10le", "pal8", "yuv410p"])
def test_other_formats_are_the_picture_s(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "other.nut"
    ffmpeg(*test_pattern("64x48", "5", 0.4), "-pix_fmt", codec, "-c:v", "rawvideo", path)
    frame = first(path)
    np.testing.assert_array_equal(frame.tensor, resize_normalize(frame.image, SIZE))


def test_a_film_is_its_picture_but_for_rounding() -> None:
    """FFmpeg's conversion to bytes is in 16 bits and rounds down: about a byte on average."""
    with open_source(big_buck_bunny(), 256, mean=(0, 0, 0), std=(1, 1, 1), max_frames=41) as source:
        frame = list(source)[40]
    difference = 255 * (frame.tensor - resize_normalize(frame.image, 256, mean=(0, 0, 0), std=(1, 1, 1)))
    assert 0 < difference.mean() < 1.5 and np.quantile(np.abs(difference), 0.999) < 3


def test_into_the_callers_memory(tmp_path: Path) -> None:
    path = tmp_path / "noise.nut"
    write(path, "yuv420p", "67x45")
    wanted = first(path).tensor
    array = np.empty((3, SIZE, SIZE), np.float32)
    shared = torch.zeros(2, 3, SIZE, SIZE)
    frame = first(path)
    frame.write_tensor(array)  # before the tensor is made
    frame.write_tensor(shared[1])
    np.testing.assert_array_equal(array, wanted)
    np.testing.assert_array_equal(shared[1].numpy(), wanted)
    assert not shared[0].any()
    assert frame.tensor is frame.tensor
    array[:] = 0
    frame.write_tensor(array)  # and after
    np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((3, SIZE, SIZE)), ValueError, r"float32 \[3, 24, 24\] without gaps, not float64"),
        (np.empty((3, SIZE, SIZE + 1), np.float32), ValueError, r"not float32 \(3, 24, 25\)"),
        (np.empty((3, SIZE, 2 * SIZE), np.float32)[..., ::2], ValueError, "without gaps"),
        (np.broadcast_to(np.float32(0), (3, SIZE, SIZE)), ValueError, "without gaps"),
        (torch.empty(3, SIZE, SIZE, dtype=torch.float16), ValueError, "not float16"),
        ([0.0] * 3 * SIZE * SIZE, TypeError, "numpy array or what has __dlpack__, not list"),
    ],
)
def test_memory_that_does_not_fit_is_refused(
    out: object, error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "noise.nut"
    write(path, "yuv420p", "67x45")
    frame = first(path)
    with pytest.raises(error, match=message):
        frame.write_tensor(out)
    frame.tensor.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        frame.write_tensor(frame.tensor)


def test_frames_outlive_their_source_and_convert_in_any_thread(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    ffmpeg(*test_pattern("320x180", "25", 1.0), "-c:v", "libx264", path)
    expected = [(frame.image.copy(), frame.tensor.copy()) for frame in open_source(path, SIZE)]
    with open_source(path, SIZE) as source:
        frames = list(source)
    found: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32]]] = {}

    def convert(some: list[Frame]) -> None:
        for frame in some:
            found[frame.index] = (frame.image, frame.tensor)

    threads = [threading.Thread(target=convert, args=(frames[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, (image, tensor) in enumerate(expected):
        np.testing.assert_array_equal(found[index][0], image)
        np.testing.assert_array_equal(found[index][1], tensor)
