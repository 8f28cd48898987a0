"""The backbone: its published weights recognise what they should, and padding is TensorFlow's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from refavs_rt.config import IMAGENET_MEAN, IMAGENET_STD
from refavs_rt.model.efficientnet import (
    EfficientNetLite0,
    EfficientNetLite0Classifier,
    _SameConv,
    imagenet_state,
)

STAMPS = Path("/usr/share/tuxpaint/stamps")
EXPECTED = {
    "rooster": {7, 8},  # cock, hen
    "violin": {889, 486},  # violin, cello
    "dog": set(range(151, 269)),  # the dogs
}
"""Stamp -> ImageNet classes of which one must come first."""


@pytest.mark.skipif(not STAMPS.is_dir(), reason="needs the Debian package tuxpaint-stamps-default")
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_imagenet_weights_name_the_stamps(name: str) -> None:
    stamp = Image.open(next(STAMPS.rglob(f"{name}.png"))).convert("RGBA")
    stamp.thumbnail((200, 200))
    picture = Image.new("RGB", (224, 224), (124, 116, 104))
    picture.paste(stamp, (12, 12), stamp)
    pixels = (np.asarray(picture, np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    model = EfficientNetLite0Classifier().eval()
    model.load_state_dict(imagenet_state(classifier=True))
    with torch.no_grad():
        logits = model.classify(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None])
    assert int(logits.argmax()) in EXPECTED[name]


def test_maps_have_the_strides_and_channels_that_are_promised() -> None:
    model = EfficientNetLite0().eval()
    with torch.no_grad():
        maps = model(torch.zeros(2, 3, 96, 96))
    assert [tuple(m.shape) for m in maps] == [
        (2, channels, 96 // stride, 96 // stride)
        for channels, stride in zip(EfficientNetLite0.channels, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)])
def test_same_padding_is_tensorflows(kernel: int, stride: int) -> None:
    """SAME: the output has ceil(n / s) positions and the surplus padding goes after the picture."""
    torch.manual_seed(0)
    layer = _SameConv(2, 3, kernel, stride=stride)
    x = torch.randn(1, 2, 16, 16)
    total = max((16 // stride - 1) * stride + kernel - 16, 0)
    padded = functional.pad(x, (total // 2, total - total // 2) * 2)
    torch.testing.assert_close(layer(x), functional.conv2d(padded, layer.weight, stride=stride))
