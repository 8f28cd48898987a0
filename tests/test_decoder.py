"""The mask decoder, which shares its pixel work between sentences, against Mask2Former's flow that repeats it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from refavs_rt.config import TEST
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.layers import Attention, sine_position


def as_multihead(
    q: nn.Linear, k: nn.Linear, v: nn.Linear, out: nn.Linear, heads: int
) -> nn.MultiheadAttention:
    """torch's own module with the same projections."""
    theirs = nn.MultiheadAttention(
        q.in_features, heads, batch_first=True, dtype=torch.float64, kdim=k.in_features, vdim=v.in_features
    )
    if theirs.in_proj_weight is not None:
        theirs.in_proj_weight.data.copy_(torch.cat([q.weight, k.weight, v.weight]))
    else:
        theirs.q_proj_weight.data.copy_(q.weight)
        theirs.k_proj_weight.data.copy_(k.weight)
        theirs.v_proj_weight.data.copy_(v.weight)
    theirs.in_proj_bias.data.copy_(torch.cat([q.bias, k.bias, v.bias]))
    theirs.out_proj.load_state_dict(out.state_dict())
    return theirs


def plain_decode(model: EEMC, queries: Tensor, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mask2Former's own flow for one frame and one sentence [1, Q, C]: keys are projected in each layer, each mask is made
    whole and then resized to the layer's level, and the answer sums Q whole masks."""
    decoder = model.decoder
    pixels: Any = model.pixel_decoder
    features = pixels.mask_project(pyramid[0])

    def predict(x: Tensor) -> tuple[Tensor, Tensor]:
        x = decoder.norm(x)
        masks = torch.einsum("bqd,bdhw->bqhw", decoder.embedding(x), features)
        return decoder.object(x).softmax(-1)[..., 1], masks

    share, masks = predict(queries)
    for index, layer in enumerate(decoder.layers):
        level = pyramid[3 - index % 3]
        height, width = level.shape[-2:]
        resized = functional.interpolate(masks, size=(height, width), mode="bilinear", align_corners=False)
        hidden = resized.flatten(2).sigmoid() < 0.5
        hidden[hidden.all(dim=-1)] = False
        tokens = level.flatten(2).transpose(1, 2) + pixels.level[index % 3]
        place = pixels.key_place(sine_position(height, width, pixels.key_place.in_features, tokens))
        cross = layer.cross
        theirs = as_multihead(cross.q, _identity(cross.q), _identity(cross.q), cross.out, cross.heads)
        attended, _ = theirs(
            queries + model.query_place,
            pixels.key[index](tokens) + place,
            pixels.value[index](tokens),
            attn_mask=hidden.repeat_interleave(cross.heads, 0),
        )
        x = layer.norm_cross(queries + attended)
        own = layer.self_attention
        y = x + model.query_place
        x = layer.norm_self(x + as_multihead(own.q, own.k, own.v, own.out, own.heads)(y, y, x)[0])
        queries = layer.norm_feed_forward(x + layer.feed_forward(x))
        share, masks = predict(queries)
    return queries, (share[..., None, None] * masks).sum(dim=1)


def _identity(like: nn.Linear) -> nn.Linear:
    layer = nn.Linear(like.in_features, like.out_features, dtype=like.weight.dtype)
    layer.weight.data.copy_(torch.eye(like.in_features))
    layer.bias.data.zero_()
    return layer


def test_shared_form_is_mask2formers_flow() -> None:
    torch.manual_seed(2)
    model = EEMC(dataclasses.replace(TEST, decoder_layers=5)).double().eval()
    sentences = 3
    with torch.no_grad():
        maps = model.backbone(torch.randn(1, 3, 64, 64, dtype=torch.float64))
        pyramid = model.pixel_decoder.pyramid(maps)
        queries = torch.randn(1, sentences, TEST.queries, TEST.decoder_width, dtype=torch.float64)
        memory = model.pixel_decoder(maps)
        last, predictions = model.decoder(queries, model.query_place, memory)
        masks = predictions[-1].mask_logits(memory.mask_features)
        for n in range(sentences):
            plain_last, plain_masks = plain_decode(model, queries[:, n], pyramid)
            torch.testing.assert_close(last[:, n], plain_last, atol=1e-10, rtol=1e-10)
            torch.testing.assert_close(masks[:, n], plain_masks, atol=1e-10, rtol=1e-10)


def test_attention_is_torchs_own() -> None:
    torch.manual_seed(0)
    ours = Attention(12, 3).double()
    theirs = as_multihead(ours.q, ours.k, ours.v, ours.out, 3)
    queries, keys, values = (torch.randn(2, n, 12, dtype=torch.float64) for n in (5, 7, 7))
    seen = torch.rand(2, 7) > 0.4
    seen[:, 0] = True
    expected, _ = theirs(queries, keys, values, key_padding_mask=~seen)
    torch.testing.assert_close(ours(queries, keys, values, seen[:, None]), expected, atol=1e-12, rtol=1e-12)
