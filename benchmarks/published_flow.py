"""The flow of the published code (arXiv 2407.10957) over the weights of a network of ours, in torch eager.

For each sentence, over all frames of a clip:

    backbone                 of every frame: its last map gives the visual tokens
    unused decoders          the published code calls its whole network for that; nothing else of it is used
    sentence, sound          their encoders
    cues                     one self-attention over [all sound ; sentence], one over [all visual tokens ; sentence], the cached
                             memory, and for each frame the integration of [A ; aud ; V_t ; vis ; X']
    backbone again           of every frame
    pixel decoder            of every frame
    mask decoder             as Mask2Former writes it: all queries' whole masks after every layer, each resized to the next level

Nothing is kept from one sentence to the next, nor from one clip to the next. The masks are those of
`EEMC.forward_clip(temporal="full")`, whose weights these are. Padding of the sentence is left out, to which the published code
attends; our presence head, which it has not, does not run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from refavs_rt.model.eemc import EEMC
from refavs_rt.model.pixel import PixelMemory
from refavs_rt.model.temporal import TemporalBranch

CLIP_FRAMES = 10
"""Of a clip of Ref-AVS, one a second."""

BACKBONE, UNUSED, SENTENCE, SOUND = "backbone", "unused decoders", "sentence", "sound"
CUES, BACKBONE_AGAIN, PIXELS, MASKS = "cues", "backbone again", "pixel decoder", "mask decoder"
PARTS = (BACKBONE, UNUSED, SENTENCE, SOUND, CUES, BACKBONE_AGAIN, PIXELS, MASKS)
"""Of the flow, in their order."""


@dataclass(frozen=True)
class Clip:
    """Pictures and sound of T ticks."""

    frames: Tensor
    """[T, 3, S, S], normalised."""
    log_mel: Tensor
    """[T, 96, 64]"""
    has_sound: Tensor
    """[T] bool"""

    def ticks(self, first: int, end: int) -> Clip:
        """Those from `first` to before `end`."""
        return Clip(self.frames[first:end], self.log_mel[first:end], self.has_sound[first:end])


@dataclass(frozen=True)
class Outcome:
    """What one sentence gave for a clip."""

    mask_logits: Tensor
    """[T, h, w]"""
    seconds: dict[str, float]
    """What each of `PARTS` took, of all frames together."""


class PublishedFlow:
    """Runs the flow.

    Args:
        model: on the CPU, in evaluation mode, with all its parts.
        frames_at_once: how many frames the visual network takes together.
    """

    def __init__(self, model: EEMC, frames_at_once: int = CLIP_FRAMES) -> None:
        self._model = model
        self._frames_at_once = frames_at_once
        self._heard, self._seen = _attention(model.audio_branch), _attention(model.visual_branch)
        self._seconds: dict[str, float] = {}

    @torch.inference_mode()
    def run(self, clip: Clip, token_ids: Tensor, token_mask: Tensor) -> Outcome:
        """One sentence, `token_ids` and `token_mask` [L], over a clip."""
        self._seconds = dict.fromkeys(PARTS, 0.0)
        tokens = self._tokens(clip.frames)
        cues = self._cues(clip, tokens, token_ids, token_mask)
        masks = []
        for frames, prompt in zip(self._groups(clip.frames), self._groups(cues), strict=True):
            with self._timed(BACKBONE_AGAIN):
                maps = self._model.backbone(frames)
            with self._timed(PIXELS):
                memory = self._model.pixel_decoder(maps)
            with self._timed(MASKS):
                everything = torch.ones(prompt.shape[:2], dtype=torch.bool)
                queries, _ = self._model.prompting(self._model.queries, prompt, everything)
                masks.append(self._decode(queries, memory))
        return Outcome(torch.cat(masks), self._seconds)

    def _tokens(self, frames: Tensor) -> Tensor:
        """[T, P, C], by a run of the whole visual network."""
        tokens = []
        for group in self._groups(frames):
            with self._timed(BACKBONE):
                maps = self._model.backbone(group)
                tokens.append(self._model.visual_tokens(maps))
            with self._timed(UNUSED):
                self._decode(self._model.queries.expand(len(group), -1, -1), self._model.pixel_decoder(maps))
        return torch.cat(tokens)

    def _cues(self, clip: Clip, tokens: Tensor, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """[T, K, E]: what prompts the queries of each frame."""
        model = self._model
        ticks = len(tokens)
        with self._timed(SENTENCE):
            read = model.text_encoder(token_ids[None], token_mask[None])[0, token_mask]
            text = model.text_project(read)
        with self._timed(SOUND):
            sound = model.audio_encoder(clip.log_mel, clip.has_sound)
        with self._timed(CUES):
            audio, text_heard = _attend(self._heard, sound, text)
            visual, text_seen = _attend(self._seen, tokens.flatten(0, 1), text)
            audio = _remember(audio, model.config.beta)
            visual = _remember(visual.unflatten(0, (ticks, -1)), model.config.beta)
            said = (text + text_heard + text_seen) / 3
            now = torch.arange(ticks)
            age = (now[:, None] - now).clamp(0, model.config.window_ticks - 1)
            cues, _ = model.integration(
                audio.expand(ticks, -1, -1),
                age,
                torch.ones(ticks, ticks, dtype=torch.bool),
                visual,
                said.expand(ticks, -1, -1),
                torch.ones(ticks, len(said), dtype=torch.bool),
            )
        return cues

    def _decode(self, queries: Tensor, memory: PixelMemory) -> Tensor:
        """Mask logits [B, h, w] of B frames with their queries [B, Q, E]."""
        decoder = self._model.decoder
        share, masks = self._predict(queries, memory.mask_features)
        for layer, keys, values in zip(decoder.layers, memory.keys, memory.values, strict=True):
            side = int(keys.shape[1] ** 0.5)
            small = functional.interpolate(masks, (side, side), mode="bilinear", align_corners=False)
            logits = small.flatten(2)[:, None]
            queries = layer(queries[:, None], self._model.query_place, keys, values, logits)[:, 0]
            share, masks = self._predict(queries, memory.mask_features)
        return torch.einsum("bq,bqhw->bhw", share, masks)

    def _predict(self, queries: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
        """How far each query holds the object [B, Q], and its whole mask [B, Q, h, w]."""
        decoder = self._model.decoder
        x = decoder.norm(queries)
        masks = torch.einsum("bqd,bdhw->bqhw", decoder.embedding(x), mask_features)
        return decoder.object(x).softmax(dim=-1)[..., 1], masks

    def _groups(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(self._frames_at_once)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - started


def _attention(branch: TemporalBranch) -> nn.MultiheadAttention:
    """torch's own attention with the branch's weights."""
    width, dtype = branch.out.in_features, branch.out.weight.dtype
    attention = nn.MultiheadAttention(width, branch.heads, batch_first=True, dtype=dtype)
    weights = {f"in_proj_{name}": value for name, value in branch.qkv.state_dict().items()}
    weights |= {f"out_proj.{name}": value for name, value in branch.out.state_dict().items()}
    attention.load_state_dict(weights)
    return attention.eval()


def _attend(attention: nn.MultiheadAttention, tokens: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Self-attention over [tokens ; text], in its two parts."""
    whole = torch.cat([tokens, text])[None]
    out, _ = attention(whole, whole, whole, need_weights=False)
    return out[0, : len(tokens)], out[0, len(tokens) :]


def _remember(f: Tensor, beta: float) -> Tensor:
    """(1 + beta) f_t - mean(f_1 .. f_t) of [T, ...]."""
    count = torch.arange(1, len(f) + 1, dtype=f.dtype).reshape(-1, *[1] * (f.dim() - 1))
    return (1 + beta) * f - f.cumsum(dim=0) / count
