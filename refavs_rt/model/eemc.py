"""EEMC (arXiv 2407.10957), whole: one set of weights, run as a clip (training) or as a stream (`step`).

The four graph functions `text`, `vision`, `audio` and `step` take and return tensors in the order of `contract.graph_specs`;
they are what is exported. `forward_clip` computes the same for all ticks of a clip at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from refavs_rt.config import ModelConfig
from refavs_rt.contract import PYRAMID_STRIDES, graph_specs
from refavs_rt.kernels.partial_attention import band_mask
from refavs_rt.kernels.warm_up import warm_up

from .decoder import MaskDecoder, PresenceHead, QueryPrediction
from .encoders import audio_encoder, text_encoder, text_projection, visual_encoder
from .fusion import Integration, Prompting
from .pixel import PixelMemory
from .temporal import Projected, TemporalBranch

TrainedParameters = Literal["preset", "authors"]

_FROZEN = ("backbone.", "text_encoder.")
_FROZEN_PUBLISHED = (
    *_FROZEN,
    "audio_encoder.vggish.",
    "pixel_decoder.",
    "decoder.",
    "queries",
    "query_place",
)
_AUTHORS_TRAIN = ("text_project.", "audio_encoder.project.", "integration.to_decoder.", "prompting.")


@dataclass
class ClipOutput:
    """Predictions for the decoded ticks of a clip."""

    mask_logits: Tensor
    """[B, T, N, h, w]"""
    presence_logits: Tensor
    """[B, T, N]"""
    predictions: list[QueryPrediction]
    """One for each decoder layer and one before them, leading axis B * T."""
    memory: PixelMemory
    """Of the decoded ticks, leading axis B * T."""
    mean_cues: Tensor
    """[B * T, N, E] of the decoder's width: what the sentence, the sound and the picture together say, of the decoded ticks."""
    visual_cues: Tensor
    """[B * T, N, P, E] of the decoder's width: the cues that began as visual tokens, row by row over the picture."""
    audio_tokens: Tensor
    """[B, T_all, C], of all ticks, before any attention."""

    @property
    def presence(self) -> Tensor:
        """[B, T, N] in (0, 1)."""
        return torch.sigmoid(self.presence_logits)


class EEMC(nn.Module):
    """Expression-enhancing multimodal cues: referring audio-visual segmentation, streaming."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        visual = visual_encoder(config)
        self.backbone, self.visual_tokens, self.pixel_decoder = visual.backbone, visual.tokens, visual.pixels
        self.text_encoder = text_encoder(config)
        self.text_project = text_projection(config)
        self.audio_encoder = audio_encoder(config)
        self.audio_branch = TemporalBranch(config.width, config.heads, config.beta, config.cached_memory)
        self.visual_branch = TemporalBranch(config.width, config.heads, config.beta, config.cached_memory)
        self.integration = Integration(config)
        self.prompting = Prompting(config)
        self.decoder = MaskDecoder(config)
        self.presence_head = PresenceHead(config)
        self.queries = nn.Parameter(torch.randn(config.queries, config.decoder_width) * 0.5)
        self.query_place = nn.Parameter(torch.randn(config.queries, config.decoder_width) * 0.5)

    def trained_parameters(self, choice: TrainedParameters = "preset") -> set[str]:
        """Names of the parameters that train.

        Args:
            choice: "preset": all but what was trained before: the backbone and the sentence encoder and, beside a Swin backbone,
                VGGish, the pixel decoder without its adapters, and the mask decoder without its class head. "authors": what the
                published code trains, which leaves its attentions at their random start: the projections of text, sound and
                cues, the adapters, the prompting.

        Raises:
            ValueError: "authors" is asked of a network without the paper's encoders.
        """
        published = self.config.backbone == "swin"
        if choice == "authors" and not published:
            raise ValueError(
                f"the authors' choice of parameters fits the preset full, not {self.config.preset}"
            )
        names = [name for name, _ in self.named_parameters()]
        if choice == "authors":
            return {n for n in names if n.startswith(_AUTHORS_TRAIN) or ".adapter." in n}
        frozen = _FROZEN_PUBLISHED if published else _FROZEN
        return {
            n
            for n in names
            if not n.startswith(frozen) or ".adapter." in n or n.startswith("decoder.object.")
        }

    # The four graphs

    def warm_up(self) -> None:
        """Compile the kernels that a stream of this network can meet, so that no frame and no later sentence waits for them."""
        parameter = next(self.parameters())
        warm_up(self.config, parameter.device, parameter.dtype)

    def text(self, token_ids: Tensor, token_mask: Tensor) -> tuple[Tensor, ...]:
        """Once a sentence: features and projections, as the contract's `text`."""
        return self.project_text(self.text_encoder(token_ids, token_mask))

    def project_text(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """The trained half of `text`, from the frozen encoder's features [N, L, text_width]."""
        text = self.text_project(hidden if self.config.text_cues else torch.zeros_like(hidden))
        audio, visual = self.audio_branch.project(text), self.visual_branch.project(text)
        return text, _stack(audio), _stack(visual)

    def vision(self, frame: Tensor, ring_k: Tensor, ring_v: Tensor, ring_age: Tensor) -> tuple[Tensor, ...]:
        """Once a frame: all that no sentence changes, as the contract's `vision`."""
        maps = self.backbone(frame)
        present = self.visual_branch.project(self._look(maps))
        attended, lse = self.visual_branch.ring_partial(
            present, Projected(ring_k, ring_k, ring_v), ring_age > 0
        )
        memory = self.pixel_decoder(maps)
        pixels = [x for pair in zip(memory.keys, memory.values, strict=True) for x in pair]
        return (
            present.q,
            present.k,
            present.v,
            attended,
            lse,
            *pixels,
            *memory.level_mask_features,
            memory.mask_features,
        )

    def audio(self, log_mel: Tensor, has_sound: Tensor) -> tuple[Tensor, ...]:
        """Once a frame: the audio token's projections, as the contract's `audio`."""
        present = self.audio_branch.project(self._hear(log_mel, has_sound))
        return present.q, present.k, present.v

    def step(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One frame for N sentences, as the contract's `step`: inputs and outputs in its order."""
        specs = graph_specs(self.config)["step"].inputs
        given = dict(zip((spec.name for spec in specs), inputs, strict=True))
        text_mask, seen = self._readable(given["token_mask"]), given["ring_age"] > 0
        weight = given["memory_weight"]

        audio = Projected(*(given[f"audio_{part}"][:, None] for part in "qkv"))
        audio_ring = Projected(*(given[f"ring_audio_{part}"][:, :, None] for part in "kkv"))
        text_audio = Projected(*given["text_audio_qkv"].unbind(1))
        mean = given["memory_audio"][:, None]
        heard = self.audio_branch.step(audio, None, audio_ring, seen, text_audio, text_mask, mean, weight)

        visual = Projected(*(given[f"visual_{part}"] for part in "qkv"))
        visual_ring = Projected(*(given[f"ring_visual_{part}"] for part in "kkv"))
        text_visual = Projected(*given["text_visual_qkv"].unbind(1))
        partial = given["visual_attended"], given["visual_lse"]
        looked = self.visual_branch.step(
            visual, partial, visual_ring, seen, text_visual, text_mask, given["memory_visual"], weight
        )

        text = (given["text"] + heard.text + looked.text) / 3
        ages = given["ring_age"]
        known = (ages > 0) & (ages <= given["memory_count"][:, None])
        window = torch.cat([given["ring_audio_tokens"], heard.remembered], dim=1)
        window_age = torch.cat([ages, torch.zeros_like(ages[:, :1])], dim=1)
        window_seen = torch.cat([known, torch.ones_like(known[:, :1])], dim=1)
        memory = self._pixel_memory(given)
        predictions, presence, _, _ = self._segment(
            window[None],
            window_age[None],
            window_seen[None],
            looked.remembered[None],
            text[None],
            text_mask[None],
            memory,
        )
        masks = predictions[-1].mask_logits(memory.mask_features)
        return (
            masks[0],
            torch.sigmoid(presence[0]),
            looked.attended,
            heard.attended[:, 0],
            heard.remembered[:, 0],
        )

    # Clips

    def forward_clip(
        self,
        frames: Tensor,
        log_mel: Tensor,
        has_sound: Tensor,
        token_ids: Tensor,
        token_mask: Tensor,
        *,
        added_at: Tensor | None = None,
        temporal: Literal["band", "full"] = "band",
        decode_ticks: Sequence[int] | None = None,
        text_hidden: Tensor | None = None,
    ) -> ClipOutput:
        """All ticks of B clips with N sentences each.

        Args:
            frames: [B, T, 3, S, S], RGB, normalised.
            log_mel: [B, T, 96, 64].
            has_sound: [B, T] bool, False where there is no sound track.
            token_ids: [B, N, L] int64.
            token_mask: [B, N, L] bool.
            added_at: [B, N] int, the tick at which each sentence was given; outputs before it mean nothing.
            temporal: "band": a tick sees the last W ticks, as a stream does. "full": every tick sees the whole clip, and is
                prompted with the audio of the whole clip, as in the paper.
            decode_ticks: ticks to segment, all by default.
            text_hidden: the frozen encoder's features [B, N, L, text_width], where the caller keeps them.
        """
        batch, ticks = frames.shape[:2]
        sentences = token_ids.shape[1]
        if added_at is None:
            added_at = torch.zeros(batch, sentences, dtype=torch.int64, device=frames.device)
        decode = list(range(ticks)) if decode_ticks is None else list(decode_ticks)
        if text_hidden is None:
            text_hidden = self.text_encoder(token_ids.flatten(0, 1), token_mask.flatten(0, 1))
        else:
            text_hidden = text_hidden.flatten(0, 1)
        text, *qkvs = (x.unflatten(0, (batch, sentences)) for x in self.project_text(text_hidden))
        text_audio, text_visual = (Projected(*qkv.unbind(2)) for qkv in qkvs)

        token_mask = self._readable(token_mask)

        maps = self.backbone(frames.flatten(0, 1))
        visual = self.visual_branch.project(self._look(maps).unflatten(0, (batch, ticks)))
        audio_tokens = self._hear(log_mel.flatten(0, 1), has_sound.flatten())
        audio_tokens = audio_tokens.unflatten(0, (batch, ticks))
        audio = self.audio_branch.project(audio_tokens[:, :, None])

        window = self.config.window_ticks
        band = band_mask(ticks, window if temporal == "band" else ticks, frames.device)
        seen = band if temporal == "band" else torch.ones_like(band)
        heard = self.audio_branch.clip(audio, text_audio, token_mask, seen, added_at)
        looked = self.visual_branch.clip(visual, text_visual, token_mask, seen, added_at)
        text_now = (text[:, :, None] + heard.text + looked.text) / 3  # [B, N, T, L, C]

        chosen = torch.tensor(decode, device=frames.device)
        if temporal == "band":
            slots = chosen[:, None] - torch.arange(
                window, device=frames.device
            )  # [T', W]: the tick of each slot
        else:
            slots = torch.arange(ticks, device=frames.device).expand(len(decode), -1)
        age = (chosen[:, None] - slots).clamp(0, window - 1)
        window_audio = heard.remembered[:, :, slots.clamp(min=0), 0]  # [B, N, T', W, C]
        window_seen = slots[None, None] >= added_at[:, :, None, None]
        window_seen = window_seen & (slots >= 0)

        def by_frame(x: Tensor) -> Tensor:
            """[B, N, T', ...] -> [B * T', N, ...]"""
            return x.transpose(1, 2).flatten(0, 1)

        picked = [m.unflatten(0, (batch, ticks))[:, chosen].flatten(0, 1) for m in maps]
        memory = self.pixel_decoder(picked)
        predictions, presence, mean_cues, visual_cues = self._segment(
            by_frame(window_audio),
            by_frame(age.expand(batch, sentences, -1, -1)),
            by_frame(window_seen),
            by_frame(looked.remembered[:, :, chosen]),
            by_frame(text_now[:, :, chosen]),
            by_frame(token_mask[:, :, None].expand(-1, -1, len(decode), -1)),
            memory,
        )
        masks = predictions[-1].mask_logits(memory.mask_features)
        return ClipOutput(
            masks.unflatten(0, (batch, len(decode))),
            presence.unflatten(0, (batch, len(decode))),
            predictions,
            memory,
            mean_cues,
            visual_cues,
            audio_tokens,
        )

    def _segment(
        self,
        audio: Tensor,
        age: Tensor,
        audio_seen: Tensor,
        visual: Tensor,
        text: Tensor,
        text_mask: Tensor,
        memory: PixelMemory,
    ) -> tuple[list[QueryPrediction], Tensor, Tensor, Tensor]:
        """Integration, prompting, decoding of B frames with N sentences each (inputs [B, N, ...])."""
        frames, sentences = audio.shape[:2]
        cues, mask = self.integration(
            audio.flatten(0, 1),
            age.flatten(0, 1),
            audio_seen.flatten(0, 1),
            visual.flatten(0, 1),
            text.flatten(0, 1),
            text_mask.flatten(0, 1),
        )
        queries, mean_cue = self.prompting(self.queries, cues, mask)
        queries = queries.unflatten(0, (frames, sentences))
        queries, predictions = self.decoder(queries, self.query_place, memory)
        mean_cue, visual_cues = (
            x.unflatten(0, (frames, sentences))
            for x in (mean_cue, self.integration.visual_part(cues, audio.shape[2], visual.shape[2]))
        )
        presence = self.presence_head(mean_cue, queries, predictions[-1].object_share())
        return predictions, presence, mean_cue, visual_cues

    # What an ablation withholds from the cues

    def _hear(self, log_mel: Tensor, has_sound: Tensor) -> Tensor:
        """Audio tokens [B, C]; without audio cues, all of them that of a frame without a sound track."""
        return self.audio_encoder(log_mel, has_sound & self.config.audio_cues)

    def _look(self, maps: list[Tensor]) -> Tensor:
        """Visual tokens [B, P, C]; without visual cues, zeros."""
        tokens = self.visual_tokens(maps)
        return tokens if self.config.visual_cues else torch.zeros_like(tokens)

    def _readable(self, token_mask: Tensor) -> Tensor:
        """The sentence's mask [..., L]; without text cues only the first slot, whose features are zeros."""
        if self.config.text_cues:
            return token_mask
        return token_mask & (torch.arange(token_mask.shape[-1], device=token_mask.device) == 0)

    def _pixel_memory(self, given: dict[str, Tensor]) -> PixelMemory:
        layers = range(self.config.decoder_layers)
        levels = range(len(PYRAMID_STRIDES))
        return PixelMemory(
            [given[f"pixel_k_{i}"] for i in layers],
            [given[f"pixel_v_{i}"] for i in layers],
            [given[f"mask_features_{i}"] for i in levels],
            given["mask_features"],
        )


def _stack(projected: Projected) -> Tensor:
    """[N, 3, L, C]"""
    return torch.stack([projected.q, projected.k, projected.v], dim=1)
