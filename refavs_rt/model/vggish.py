"""VGGish as an audio encoder: log-mel patch -> 128 numbers -> one audio token.

Architecture: Hershey et al. (arXiv 1609.09430) as released with AudioSet. Parameter names are those of the published PyTorch
port (torchvggish), so its state dict loads as it is; `from_tensorflow` maps the names of the released TensorFlow checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from refavs_rt.config import MEL_BINS, PATCH_FRAMES, ModelConfig

EMBEDDING = 128

_POOLINGS = 4
_TENSORFLOW = {
    "features.0": "vggish/conv1",
    "features.3": "vggish/conv2",
    "features.6": "vggish/conv3/conv3_1",
    "features.8": "vggish/conv3/conv3_2",
    "features.11": "vggish/conv4/conv4_1",
    "features.13": "vggish/conv4/conv4_2",
    "embeddings.0": "vggish/fc1/fc1_1",
    "embeddings.2": "vggish/fc1/fc1_2",
    "embeddings.4": "vggish/fc2",
}
"""Layer here -> its scope in the TensorFlow checkpoint."""


class VggishEncoder(nn.Module):
    """One token a patch: frozen VGGish, then the authors' projection: two linear layers, one where `projection_hidden` is 0.

    A frame without a sound track is not a silent one: it gets a learned token of its own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vggish = Vggish(config.audio_channels, config.vggish_hidden).requires_grad_(False)
        self.project = _projection(config.projection_hidden, config.width)
        self.no_sound = nn.Parameter(torch.zeros(config.width))

    def forward(self, log_mel: Tensor, has_sound: Tensor) -> Tensor:
        """Tokens [B, C] of `log_mel` [B, 96, 64]; `has_sound` [B] bool."""
        token = self.project(self.vggish(log_mel))
        return torch.where(has_sound[:, None], token, self.no_sound)


class Vggish(nn.Module):
    """VGGish up to its embedding: six 3 x 3 convolutions, four poolings, three dense layers.

    The head that is taken is `fc2`, 128 numbers, before the PCA and the 8-bit quantisation of the AudioSet release. What follows
    it differs in the wild: nothing in towhee, which the authors of Ref-AVS use, and in today's TensorFlow release; a ReLU in
    torchvggish and in the first release. The weights are the same.

    Args:
        channels: of the four blocks, of which the last two have two convolutions each.
        hidden: width of the first two dense layers.
        final_relu: a ReLU after `fc2`.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int] = (64, 128, 256, 512),
        hidden: int = 4_096,
        *,
        final_relu: bool = False,
    ) -> None:
        super().__init__()
        first, second, third, last = channels
        self.features = nn.Sequential(
            *_convolution(1, first),
            nn.MaxPool2d(2),
            *_convolution(first, second),
            nn.MaxPool2d(2),
            *_convolution(second, third),
            *_convolution(third, third),
            nn.MaxPool2d(2),
            *_convolution(third, last),
            *_convolution(last, last),
            nn.MaxPool2d(2),
        )
        positions = (PATCH_FRAMES >> _POOLINGS) * (MEL_BINS >> _POOLINGS)
        self.embeddings = nn.Sequential(
            nn.Linear(positions * last, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, EMBEDDING),
            *([nn.ReLU()] if final_relu else []),
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        """Embeddings [B, 128] of `log_mel` [B, 96, 64]."""
        maps = self.features(log_mel.unsqueeze(1))
        embedding: Tensor = self.embeddings(
            maps.permute(0, 2, 3, 1).flatten(1)
        )  # TensorFlow's order: channels last
        return embedding


def from_tensorflow(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The variables of the TensorFlow checkpoint under this module's names and in its layout.

    Args:
        arrays: by their names there, such as `vggish/conv3/conv3_1/weights`, with or without `:0` at the end: kernels
            [height, width, in, out], matrices [in, out], biases.

    Returns:
        Kernels [out, in, height, width], matrices [out, in], biases. What is no variable of VGGish keeps its name and layout.
    """
    layers = {scope: layer for layer, scope in _TENSORFLOW.items()}
    state = {}
    for name, value in arrays.items():
        scope, _, kind = name.removesuffix(":0").rpartition("/")
        if scope not in layers or kind not in ("weights", "biases"):
            state[name] = value
        elif kind == "biases":
            state[f"{layers[scope]}.bias"] = value
        else:
            axes = (3, 2, 0, 1) if value.ndim == 4 else tuple(reversed(range(value.ndim)))
            state[f"{layers[scope]}.weight"] = value.permute(axes)
    return state


def is_tensorflow_name(name: str) -> bool:
    """Whether `name` stands below the TensorFlow checkpoint's scope of VGGish."""
    return name.startswith("vggish/")


def _projection(hidden: int, width: int) -> nn.Module:
    if not hidden:
        return nn.Linear(EMBEDDING, width)
    return nn.Sequential(nn.Linear(EMBEDDING, hidden), nn.ReLU(), nn.Linear(hidden, width))


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()
