"""Validation during training: J by kind of sentence, with sound and muted, on clips that training never draws."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from refavs_rt.config import PATCH_SAMPLES, RunConfig
from refavs_rt.log_mel import log_mel
from refavs_rt.model.eemc import EEMC

from .batches import WINDOW_S, Clip, collate, make_clip
from .scenes import SceneGenerator
from .texts import TextCache

_TICKS = 6
_LOGIT = float(np.log(RunConfig().mask_threshold / (1 - RunConfig().mask_threshold)))
_PRESENCE = RunConfig().presence_threshold
_TINTS = np.array([[230, 159, 0], [86, 180, 233], [0, 158, 115], [204, 121, 167]], np.float32)


def scene_clips(scenes: SceneGenerator, count: int, image_size: int) -> list[Clip]:
    """A fixed set of clips: six ticks, all decoded, eight sentences."""
    return [_scene_clip(scenes, i, image_size) for i in range(count)]


@torch.no_grad()
def validate(
    model: EEMC, texts: TextCache, clips: Sequence[Clip], device: torch.device
) -> tuple[dict[str, float], NDArray[np.uint8]]:
    """Mean J by kind (`J_name`, ...) over the frames where the object is there and has been heard if it must be,
    `J_sound_muted` against the truth with sound, `S_null`, `presence_accuracy`; and a picture [H, W, 3] of overlays.

    `clips` holds at least one.
    """
    silence = log_mel(np.zeros(PATCH_SAMPLES, np.float32))
    scores: dict[str, list[float]] = defaultdict(list)
    tiles: list[NDArray[np.uint8]] = []
    for clip in clips:
        muted = replace(clip, log_mel=np.broadcast_to(silence, clip.log_mel.shape))
        logits, presence = _predict(model, texts, clip, device)
        quiet, quiet_presence = _predict(model, texts, muted, device)
        shown = (logits > _LOGIT) & (presence >= _PRESENCE)[..., None, None]
        quiet_shown = (quiet > _LOGIT) & (quiet_presence >= _PRESENCE)[..., None, None]
        truth = clip.masks >= 0.5
        for n, kind in enumerate(clip.kinds):
            scores["presence_accuracy"].append(
                float(np.mean((presence[:, n] >= _PRESENCE) == (clip.presence[:, n] > 0)))
            )
            if kind == "null":
                scores["S_null"].append(float(np.sqrt(np.mean(shown[:, n]))))
                continue
            heard = clip.presence[:, n] > 0
            if not heard.any():
                continue
            scores[f"J_{kind}"].append(_iou(shown[heard, n], truth[heard, n]))
            if kind == "sound":
                scores["J_sound_muted"].append(_iou(quiet_shown[heard, n], truth[heard, n]))
        if len(tiles) < 12:
            tiles.append(_tile(clip, logits, presence))
    rows = [np.concatenate(tiles[i : i + 4], axis=1) for i in range(0, len(tiles) // 4 * 4, 4)]
    picture = np.concatenate(rows) if rows else tiles[0]
    return {name: round(float(np.mean(values)), 4) for name, values in sorted(scores.items())}, picture


def _scene_clip(scenes: SceneGenerator, index: int, image_size: int) -> Clip:
    rng = np.random.default_rng((7, index))
    scene = scenes.scene(index)
    expressions = scene.expressions()
    chosen = [expressions[i] for i in rng.permutation(len(expressions))[:8]]
    chosen += [chosen[0]] * (8 - len(chosen))
    times = np.arange(_TICKS, dtype=np.float64)
    ticks = list(range(_TICKS))
    return make_clip(scene, times, times + WINDOW_S, ticks, chosen, {}, size=image_size, aspect=16 / 9)


def _predict(
    model: EEMC, texts: TextCache, clip: Clip, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    batch = collate([clip], list(range(len(clip.frames))))
    ids, mask, hidden = (x.to(device) for x in texts(batch.texts))
    frames, log_mel, has_sound = (x.to(device) for x in (batch.frames, batch.log_mel, batch.has_sound))
    out = model.forward_clip(frames, log_mel, has_sound, ids, mask, text_hidden=hidden)
    return out.mask_logits[0].float().cpu().numpy(), out.presence[0].float().cpu().numpy()


def _iou(shown: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Mean over frames of intersection over union, [T, h, w]."""
    union = (shown | truth).sum(axis=(1, 2))
    both = (shown & truth).sum(axis=(1, 2))
    return float(np.mean(np.where(union > 0, both / np.maximum(union, 1), 1.0)))


def _tile(clip: Clip, logits: NDArray[np.float32], presence: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The last frame with the masks of the first four sentences."""
    frame = clip.frames[-1].transpose(1, 2, 0)
    frame = (frame - frame.min()) / max(float(np.ptp(frame)), 1e-6) * 255
    scale = frame.shape[0] // logits.shape[-1]
    for n in range(min(4, logits.shape[1])):
        shown = np.kron(logits[-1, n] > _LOGIT, np.ones((scale, scale), bool)) & (
            presence[-1, n] >= _PRESENCE
        )
        frame[shown] = 0.5 * frame[shown] + 0.5 * _TINTS[n]
    return frame.astype(np.uint8)
