"""Mask2Former's pixel-level module (Swin backbone, deformable pixel decoder) from transformers, as EEMC's visual encoder.

Architecture: Mask2Former (arXiv 2112.01527) over Swin (arXiv 2103.14030). The two modules are transformers' own, under their own
parameter names: `backbone.encoder.*` and `pixel_decoder.decoder.*` are what a published Mask2Former calls
`model.pixel_level_module.encoder.*` and `.decoder.*`. Its mask decoder is ours (`decoder.py`), which computes the same with keys
and values of the pixels taken out of the layers; `mask2former_state` maps the names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from refavs_rt.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from refavs_rt.contract import PYRAMID_STRIDES
from refavs_rt.kernels.deformable_attention import deformable_attention

from .hub import hub_folder
from .load_report import LoadReport
from .pixel import PixelMemory, resized_mask_features

if TYPE_CHECKING:
    from transformers import Mask2FormerConfig

PUBLISHED = "facebook/mask2former-swin-base-ade-semantic"
"""The hub's name of the weights that the paper starts from."""

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
"""What Mask2Former was trained with; a frame reaches every network in one normalisation, and is brought to this one here."""


class SwinBackbone(nn.Module):
    """Maps of strides 4, 8, 16 and 32."""

    scale: Tensor
    shift: Tensor

    def __init__(self, encoder: nn.Module) -> None:
        """`encoder`: transformers' backbone of a pixel-level module."""
        super().__init__()
        self.encoder = encoder
        scale = [ours / theirs for ours, theirs in zip(IMAGENET_STD, _STD, strict=True)]
        shift = [(a - b) / s for a, b, s in zip(IMAGENET_MEAN, _MEAN, _STD, strict=True)]
        self.register_buffer("scale", torch.tensor(scale).reshape(3, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(shift).reshape(3, 1, 1), persistent=False)

    def forward(self, frame: Tensor) -> list[Tensor]:
        """Four maps of `frame` [B, 3, S, S]: [B, c_i, S/s_i, S/s_i]."""
        return list(self.encoder(frame * self.scale + self.shift).feature_maps)


class DeformablePixelDecoder(nn.Module):
    """Mask2Former's pixel decoder with the paper's adapters, and the mask decoder's projections of its maps."""

    def __init__(self, config: ModelConfig, decoder: nn.Module) -> None:
        """`decoder`: transformers' pixel decoder of a pixel-level module; its attentions get adapters here."""
        super().__init__()
        from transformers.models.mask2former.modeling_mask2former import Mask2FormerSinePositionEmbedding

        inner, width = config.pixel_width, config.decoder_width
        self.decoder = decoder
        encoder: Any = decoder.encoder
        for layer in encoder.layers:
            layer.self_attn = _DeformableAttention(layer.self_attn)
        self.position = Mask2FormerSinePositionEmbedding(num_position_features=inner // 2, normalize=True)
        self.level = nn.Parameter(torch.randn(len(PYRAMID_STRIDES), inner) * 0.02)
        self.key = nn.ModuleList(nn.Linear(inner, width) for _ in range(config.decoder_layers))
        self.value = nn.ModuleList(nn.Linear(inner, width) for _ in range(config.decoder_layers))

    def forward(self, maps: list[Tensor]) -> PixelMemory:
        """The pixel memory of the four backbone maps."""
        levels, mask_features = self._decoded(maps)
        places = [self._place(x) for x in levels]
        tokens = [x.flatten(2).transpose(1, 2) + self.level[i] for i, x in enumerate(levels)]
        keys, values = [], []
        for index, (key, value) in enumerate(zip(self.key, self.value, strict=True)):
            level = index % len(tokens)
            keys.append(key(tokens[level] + places[level]))
            values.append(value(tokens[level]))
        sizes = [(x.shape[-2], x.shape[-1]) for x in levels]
        return PixelMemory(keys, values, resized_mask_features(mask_features, sizes), mask_features)

    def _decoded(self, maps: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Maps of strides 32, 16 and 8, and the mask features, by the modules of transformers' decoder.

        Its own `forward` gives the same, but makes tensors of lists at every frame, which a CUDA graph cannot record, and masks
        padding, of which our frames have none.
        """
        theirs: Any = self.decoder
        levels = [project(x) for project, x in zip(theirs.input_projections, reversed(maps), strict=False)]
        sizes = [(x.shape[-2], x.shape[-1]) for x in levels]
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in levels], dim=1)
        level_codes = zip(levels, theirs.level_embed, strict=True)
        positions = torch.cat([self._place(x) + code for x, code in level_codes], dim=1)
        places = _places(sizes, tokens)
        for layer in theirs.encoder.layers:
            tokens = layer(
                tokens,
                None,
                position_embeddings=positions,
                reference_points=places,
                spatial_shapes_list=sizes,
            )[0]
        split = tokens.split([h * w for h, w in sizes], dim=1)
        levels = [x.transpose(1, 2).unflatten(2, size) for x, size in zip(split, sizes, strict=True)]
        finest = levels[-1]
        fine_maps = list(reversed(maps[: theirs.num_fpn_levels]))
        for x, lateral, output in zip(
            fine_maps, theirs.lateral_convolutions, theirs.output_convolutions, strict=True
        ):
            beside = lateral(x)
            above = functional.interpolate(finest, beside.shape[-2:], mode="bilinear", align_corners=False)
            finest = output(beside + above)
        return levels, theirs.mask_projection(finest)

    def _place(self, x: Tensor) -> Tensor:
        """Sine positions of a map [B, D, h, w] as tokens, [1 or B, h * w, D]."""
        return self.position(x.shape, x.device, x.dtype).flatten(2).transpose(1, 2)


def _places(sizes: list[tuple[int, int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (x, y) of the cells of all levels, one after the other, [S, 2] in (0, 1), and the levels' (w, h), [levels, 2].

    Made on the device alone: a CUDA graph cannot record a copy from the host.
    """
    axes = [
        [torch.linspace(0.5, n - 0.5, n, dtype=like.dtype, device=like.device) / n for n in size]
        for size in sizes
    ]
    grids = [torch.meshgrid(y, x, indexing="ij") for y, x in axes]
    centres = torch.cat([torch.stack((x.flatten(), y.flatten()), dim=-1) for y, x in grids])
    sides = torch.cat([like.new_full((1,), side) for h, w in sizes for side in (w, h)])
    return centres, sides.unflatten(0, (-1, 2))


class _DeformableAttention(nn.Module):
    """transformers' module of the same parameters, its chain of samplings in one op, with the paper's adapter."""

    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self.heads, self.levels, self.points = theirs.n_heads, theirs.n_levels, theirs.n_points
        self.sampling_offsets = theirs.sampling_offsets
        self.attention_weights = theirs.attention_weights
        self.value_proj = theirs.value_proj
        self.output_proj = _AdaptedProjection(theirs.output_proj)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        position_embeddings: Tensor,
        reference_points: tuple[Tensor, Tensor],
        spatial_shapes_list: list[tuple[int, int]],
        **_: Any,
    ) -> tuple[Tensor, None]:
        """As transformers' layer calls it: queries and values [B, S, D], and what `_places` gave; no weights are given back."""
        asking = hidden_states + position_embeddings
        value = self.value_proj(encoder_hidden_states)
        shape = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(asking).unflatten(-1, (*shape, 2))
        logits = self.attention_weights(asking).unflatten(-1, shape)
        centres, sides = reference_points
        locations = centres[:, None, None, None] + offsets / sides[:, None]
        sizes = [side for shape in spatial_shapes_list for side in shape]
        sampled = deformable_attention(value.unflatten(-1, (self.heads, -1)), sizes, locations, logits)
        return self.output_proj(sampled), None


class _AdaptedProjection(nn.Linear):
    """y + W_2 relu(W_1 y), y the projection that was there: a bottleneck of a quarter, nothing at first since W_2 starts at 0.

    The authors' adapter stands at the same place, without the sum.
    """

    def __init__(self, projection: nn.Linear) -> None:
        super().__init__(projection.in_features, projection.out_features)
        self.load_state_dict(projection.state_dict())
        width = projection.out_features
        last = nn.Linear(width // 4, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.adapter = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), last)

    def forward(self, input: Tensor) -> Tensor:
        projected = functional.linear(input, self.weight, self.bias)
        return projected + self.adapter(projected)


def pixel_level_modules(config: ModelConfig) -> tuple[SwinBackbone, DeformablePixelDecoder]:
    """Backbone and pixel decoder with random weights, as transformers initialises them.

    Raises:
        ModuleNotFoundError: transformers is not installed; the message says how to get it.
    """
    try:
        from transformers import Mask2FormerModel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a Swin backbone needs transformers: pip install 'refavs-rt[full]'"
        ) from error
    module = Mask2FormerModel(mask2former_config(config)).pixel_level_module
    return SwinBackbone(module.encoder), DeformablePixelDecoder(config, module.decoder)


def mask2former_config(config: ModelConfig) -> Mask2FormerConfig:
    """The configuration of transformers that `config` stands for; attention is eager, which alone can be exported."""
    from transformers import Mask2FormerConfig, SwinConfig

    swin = SwinConfig(
        image_size=config.image_size,
        embed_dim=config.backbone_channels[0],
        depths=list(config.swin_depths),
        num_heads=list(config.swin_heads),
        window_size=config.swin_window,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        drop_path_rate=0.0,
    )
    whole = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=config.pixel_width,
        mask_feature_size=config.pixel_width,
        encoder_layers=config.pixel_layers,
        encoder_feedforward_dim=config.pixel_hidden,
        hidden_dim=config.decoder_width,
        num_attention_heads=config.decoder_heads,
        num_queries=config.queries,
        decoder_layers=config.decoder_layers + 1,  # it counts the prediction before the first layer
        dim_feedforward=config.decoder_hidden,
        dropout=0.0,
        num_labels=1,
    )
    whole._attn_implementation = swin._attn_implementation = "eager"
    return whole


def mask2former_state(config: ModelConfig, source: str) -> tuple[dict[str, Tensor], LoadReport]:
    """The weights of a published Mask2Former under EEMC's names, adapters excepted.

    A class head of another size is reported as mismatched, and its first and last rows are taken: as the authors do, whose object
    is the first class and whose nothing is the last.

    Args:
        source: a hub's name, or a folder in its format.

    Raises:
        WeightsError: there is no such folder and the hub does not give it, or it is damaged.
    """
    from transformers import Mask2FormerForUniversalSegmentation

    head: dict[str, Tensor] = {}
    with hub_folder(source) as folder:
        loaded, info = Mask2FormerForUniversalSegmentation.from_pretrained(
            folder, config=mask2former_config(config), ignore_mismatched_sizes=True, output_loading_info=True
        )
    mismatched = [
        (name, tuple(there), tuple(here))
        for name, there, here in sorted(info["mismatched_keys"])
        if not name.startswith("criterion.")  # of its own loss, not of the network
    ]
    if any(name.startswith("class_predictor.") for name, _, _ in mismatched):
        with hub_folder(source) as folder:
            head = _class_head(folder)
    theirs = {**loaded.state_dict(), **head}
    state: dict[str, Tensor] = {}
    for name, value in theirs.items():
        state |= _ours(name, value)
    # Older files hold Swin's table of relative positions, which is computed now.
    unexpected = sorted(
        name for name in info["unexpected_keys"] if not name.endswith(".relative_position_index")
    )
    return state, LoadReport(
        missing=sorted(info["missing_keys"]), unexpected=unexpected, mismatched=mismatched
    )


_RENAMED = (
    (r"model\.pixel_level_module\.encoder\.(.*)", r"backbone.encoder.\1"),
    (r"model\.pixel_level_module\.decoder\.(.*)", r"pixel_decoder.decoder.\1"),
    (r"model\.transformer_module\.queries_features\.weight", "queries"),
    (r"model\.transformer_module\.queries_embedder\.weight", "query_place"),
    (r"model\.transformer_module\.level_embed\.weight", "pixel_decoder.level"),
    (r"model\.transformer_module\.decoder\.layernorm\.(.*)", r"decoder.norm.\1"),
    (r"(.*)\.mask_predictor\.mask_embedder\.0\.0\.(.*)", r"decoder.embedding.0.\2"),
    (r"(.*)\.mask_predictor\.mask_embedder\.1\.0\.(.*)", r"decoder.embedding.2.\2"),
    (r"(.*)\.mask_predictor\.mask_embedder\.2\.0\.(.*)", r"decoder.embedding.4.\2"),
)
_LAYER = re.compile(r"model\.transformer_module\.decoder\.layers\.(\d+)\.(.*)")
_RENAMED_IN_LAYER = {
    "cross_attn.out_proj": "cross.out",
    "cross_attn_layer_norm": "norm_cross",
    "self_attn.q_proj": "self_attention.q",
    "self_attn.k_proj": "self_attention.k",
    "self_attn.v_proj": "self_attention.v",
    "self_attn.out_proj": "self_attention.out",
    "self_attn_layer_norm": "norm_self",
    "fc1": "feed_forward.0",
    "fc2": "feed_forward.2",
    "final_layer_norm": "norm_feed_forward",
}


def _ours(name: str, value: Tensor) -> dict[str, Tensor]:
    """What a tensor of a published Mask2Former becomes here; nothing for what only its own loss needs."""
    for pattern, renamed in _RENAMED:
        if re.fullmatch(pattern, name):
            return {re.sub(pattern, renamed, name): value}
    if name.startswith("class_predictor."):  # (object, ..., nothing) there, (nothing, object) here
        return {f"decoder.object.{name.rpartition('.')[2]}": torch.stack([value[-1], value[0]])}
    found = _LAYER.fullmatch(name)
    if not found:
        return {}
    layer, inner = found.groups()
    part, _, kind = inner.rpartition(".")
    if inner.startswith("cross_attn.in_proj_"):
        kind = inner.rpartition("_")[2]
        q, k, v = value.chunk(3)
        return {
            f"decoder.layers.{layer}.cross.q.{kind}": q,
            f"pixel_decoder.key.{layer}.{kind}": k,
            f"pixel_decoder.value.{layer}.{kind}": v,
        }
    return {f"decoder.layers.{layer}.{_RENAMED_IN_LAYER[part]}.{kind}": value}


def _class_head(folder: Path) -> dict[str, Tensor]:
    """The class head of its own size, all of whose rows `from_pretrained` drops where the sizes differ."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    own = Mask2FormerForUniversalSegmentation.from_pretrained(
        folder, config=Mask2FormerConfig.from_pretrained(folder)
    )
    return {f"class_predictor.{name}": value for name, value in own.class_predictor.state_dict().items()}
