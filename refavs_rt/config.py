"""Every constant of the product, once: what a model is (`ModelConfig`) and how it is run (`RunConfig`).

The presets are values of these frozen dataclasses; a bundle's manifest stores the `ModelConfig` it was exported with.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

MemoryMean = Literal["cumulative", "exponential", "window"]

IMAGENET_MEAN = (127 / 255, 127 / 255, 127 / 255)
IMAGENET_STD = (128 / 255, 128 / 255, 128 / 255)
"""Normalisation of RGB in [0, 1] that EfficientNet-Lite was trained with: (x - 127) / 128 of bytes."""

SAMPLE_RATE_HZ = 16_000
"""Sound reaches the model as 16 kHz mono."""
PATCH_SAMPLES = 15_600
"""Samples under one log-mel patch: 96 frames of 400 samples, 160 apart."""
PATCH_FRAMES = 96
MEL_BINS = 64
HOP_SAMPLES = 160


@dataclass(frozen=True)
class ModelConfig:
    """The shape of one EEMC network.

    Symbols as in the docs: C = `width`, W = `window_ticks`, L = `text_tokens`, S = `image_size`,
    P = (S / 32)^2 visual tokens.
    """

    preset: str = "edge"
    image_size: int = 256
    """S: side of the square input in pixels, a multiple of 32."""
    width: int = 192
    """C: width of the temporal, integration and decoder transformers."""
    heads: int = 6
    window_ticks: int = 10
    """W: ticks that one tick sees, itself included. The ring holds the W - 1 past ones."""
    text_tokens: int = 25
    """L: tokens of a sentence, padding included; longer sentences are cut with a warning."""
    beta: float = 1.0
    """Weight of the present in the cached memory: (1 + beta) f_t - mean(f_1 .. f_t)."""
    integration_layers: int = 2
    integration_hidden: int = 256
    """Hidden width of the integration transformer's feed-forward blocks."""
    cue_positions: bool = True
    """Whether cues carry learned codes of their age and place, which the paper has not: without them the order of sounds and
    the side of the picture are lost."""
    projection_hidden: int = 0
    """Hidden width of the projections of text and sound to C and of the cues to the decoder; 0: text has one linear layer and
    a norm, the cues' hidden width is C."""
    pixel_width: int = 96
    """Channels of the pixel decoder's maps and of the mask features."""
    pixel_layers: int = 6
    """Layers of deformable attention in Mask2Former's pixel decoder."""
    pixel_hidden: int = 1_024
    """Hidden width of those layers."""
    queries: int = 8
    decoder_width: int = 192
    """Width of the prompted queries and of the mask decoder."""
    prompt_heads: int = 6
    """Heads of the attention of the queries to the cues."""
    decoder_heads: int = 6
    decoder_layers: int = 3
    decoder_hidden: int = 384
    decoder_activation: Literal["gelu", "relu"] = "gelu"
    backbone: Literal["efficientnet_lite0", "swin", "tiny"] = "efficientnet_lite0"
    """"swin": Mask2Former's pixel-level module, with its own pixel decoder."""
    backbone_channels: tuple[int, int, int, int] = (24, 40, 112, 1280)
    """Channels of the backbone's maps at strides 4, 8, 16 and 32."""
    swin_depths: tuple[int, int, int, int] = (2, 2, 18, 2)
    """Blocks of each stage of a Swin backbone."""
    swin_heads: tuple[int, int, int, int] = (4, 8, 16, 32)
    swin_window: int = 12
    """Side of a Swin attention window in patches."""
    audio_encoder: Literal["cnn", "vggish"] = "cnn"
    audio_channels: tuple[int, int, int, int] = (32, 64, 128, 256)
    """Channels of the four blocks of the audio CNN, or of VGGish."""
    vggish_hidden: int = 4_096
    """Width of VGGish's two hidden dense layers."""
    text_encoder: Literal["minilm", "roberta"] = "minilm"
    text_vocabulary: int = 30_522
    text_width: int = 384
    text_layers: int = 6
    text_heads: int = 12
    text_hidden: int = 1_536
    text_positions: int = 512
    cached_memory: bool = True
    """Whether attended sound and picture pass the cached memory; without it f'_t = f_t."""
    modality_tokens: bool = True
    """Whether the cues hold the tokens `aud` and `vis`."""
    prompt_attention: bool = True
    """Whether the queries attend to the cues; without it only the gated mean of the cues reaches them."""
    audio_cues: bool = True
    """Whether sound reaches the cues; without it every frame is one without a sound track."""
    visual_cues: bool = True
    """Whether the picture reaches the cues; the mask decoder sees the pixels in any case."""
    text_cues: bool = True
    """Whether the sentence reaches the cues; without it every sentence is the same one."""
    audio_offset_s: float = 0.0
    """Where a frame's sound window ends, in seconds after the frame: 0 live. Training also samples the data set's pairing,
    the second of sound that begins at the frame (an end 0.975 s after it)."""
    memory_hz: float = 1.0
    """Memory ticks a second, as trained."""
    max_sentences: int = 8
    """Upper end of the range of N for which engines are built and tested."""

    def __post_init__(self) -> None:
        if self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32, not {self.image_size}")
        for width, heads in (
            ("width", "heads"),
            ("decoder_width", "prompt_heads"),
            ("decoder_width", "decoder_heads"),
            ("text_width", "text_heads"),
        ):
            if getattr(self, heads) < 1 or getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"{width} {getattr(self, width)} is not a multiple of {heads} {getattr(self, heads)}"
                )
        for name in (
            "image_size",
            "window_ticks",
            "text_tokens",
            "queries",
            "decoder_layers",
            "max_sentences",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not 0 < self.memory_hz < math.inf:
            raise ValueError(f"memory_hz must be above 0, not {self.memory_hz}")
        if self.backbone == "swin" and self.pixel_width != self.decoder_width:
            raise ValueError(
                f"with a swin backbone pixel_width must be decoder_width {self.decoder_width}, not {self.pixel_width}"
            )

    @property
    def mask_size(self) -> int:
        """h = w of the mask logits: a quarter of the image."""
        return self.image_size // 4

    @property
    def visual_tokens(self) -> int:
        """P: visual tokens of a frame."""
        return (self.image_size // 32) ** 2

    @property
    def ring_ticks(self) -> int:
        """Past ticks that the ring holds: W - 1, since the frame at hand is the last of the window."""
        return self.window_ticks - 1

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest; `from_json` takes them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelConfig:
        """Read what `to_json` wrote.

        Raises:
            ValueError: a field is unknown or of the wrong kind; it is named.
        """
        fields = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ValueError(f"unknown model setting {unknown[0]!r}")
        clean: dict[str, Any] = {}
        for name, value in values.items():
            default = fields[name].default
            if isinstance(default, tuple):
                if (
                    not isinstance(value, (list, tuple))
                    or len(value) != len(default)
                    or any(type(v) is not int for v in value)
                ):
                    raise ValueError(
                        f"model setting {name!r} must be a list of {len(default)} whole numbers, not {value!r}"
                    )
                value = tuple(value)
            elif isinstance(default, float) and type(value) in (int, float):
                value = float(value)
            elif type(value) is not type(default):
                raise ValueError(f"model setting {name!r} must be a {type(default).__name__}, not {value!r}")
            clean[name] = value
        return cls(**clean)


ENGINES = ("auto", "onnx", "onnx-cuda", "onnx-tensorrt", "tensorrt", "torch")
"""What `--engine` takes. `torch` runs a run folder, the others run a bundle."""


@dataclass(frozen=True)
class RunConfig:
    """How a model is run; none of it changes the weights or the graphs."""

    memory_mean: MemoryMean = "cumulative"
    """The running mean of the cached memory: over all ticks, exponential (`memory_decay`), or over the last W ticks."""
    memory_decay: float = 0.1
    """Weight of the newest tick in the exponential mean, which starts at its first value."""
    mask_threshold: float = 0.4
    """A pixel belongs to the mask where sigmoid(logit) is above this (the paper's evaluation threshold)."""
    presence_threshold: float = 0.5
    """A sentence has a mask from where its presence is at least this,"""
    presence_hysteresis: float = 0.1
    """until it falls below that by more than this."""
    align_edges: bool = True
    """Whether masks get their edges from the picture, rather than from a smooth resize alone."""
    mask_smoothing_s: float = 0.0
    """Masks are an exponential mean over about so many seconds, where the camera stands still; 0: of each frame alone."""
    deadline_s: float = math.inf
    """A frame of a live source that is older than this is not worth its work, and is given up."""
    reset_gap_s: float = 10.0
    """A hole of more than this between two frames begins the memory anew; by default, what the ring of ticks spans."""
    threads: int = 0
    """Threads of the engine; 0 lets it choose."""


EDGE = ModelConfig()

FULL = ModelConfig(
    preset="full",
    image_size=384,
    width=1_024,
    heads=8,
    integration_layers=1,
    integration_hidden=2_048,
    cue_positions=False,
    projection_hidden=2_048,
    pixel_width=256,
    queries=100,
    decoder_width=256,
    prompt_heads=4,
    decoder_heads=8,
    decoder_layers=9,
    decoder_hidden=2_048,
    decoder_activation="relu",
    backbone="swin",
    backbone_channels=(128, 256, 512, 1_024),
    audio_encoder="vggish",
    audio_channels=(64, 128, 256, 512),
    text_encoder="roberta",
    text_vocabulary=50_265,
    text_width=768,
    text_hidden=3_072,
    text_positions=514,
)
"""The paper's network: Mask2Former with Swin-B (`facebook/mask2former-swin-base-ade-semantic`), DistilRoBERTa
(`distilbert/distilroberta-base`) and VGGish."""

TEST = ModelConfig(
    preset="test",
    image_size=64,
    width=16,
    heads=2,
    window_ticks=4,
    text_tokens=6,
    integration_layers=1,
    integration_hidden=16,
    pixel_width=8,
    queries=3,
    decoder_width=16,
    prompt_heads=2,
    decoder_heads=2,
    decoder_layers=3,
    decoder_hidden=16,
    backbone="tiny",
    backbone_channels=(4, 6, 8, 8),
    audio_channels=(4, 4, 8, 8),
    text_vocabulary=30_522,
    text_width=8,
    text_layers=1,
    text_heads=2,
    text_hidden=16,
    text_positions=32,
)
"""A network of a few thousand parameters beside its word table, for unit tests."""

PRESETS = {"edge": EDGE, "full": FULL, "test": TEST}
