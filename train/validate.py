"""Validation during training: J by kind of sentence, with sound and muted, on clips that training never draws."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from refavs_rt.config import IMAGENET_MEAN, IMAGENET_STD, PATCH_SAMPLES, RunConfig
from refavs_rt.log_mel import log_mel
from refavs_rt.model.eemc import EEMC

from .batches import WINDOW_S, Clip, make_clip
from .once import looking_once
from .scenes import SceneGenerator
from .sheet import LEGEND, overlay, sheet
from .texts import TextCache

NULL = "null"
"""The kind of the sentences that nothing fits."""
_MUTED_KIND = "sound"
"""The kind that is scored a second time without sound."""
_TICKS = 6
_SHEET = 12
"""Overlays of a kind, at most."""
_LOGIT = float(np.log(RunConfig().mask_threshold / (1 - RunConfig().mask_threshold)))


@dataclass(frozen=True)
class ScoredSample:
    """One sentence about one clip, and how well it was understood."""

    name: str
    """Of the clip."""
    kind: str
    text: str
    J: float
    """Mean over the frames where the object is there; of a null sentence, the share of the clip's pixels that were left alone."""
    frame: NDArray[np.uint8]
    """[S, S, 3]: of the frames that count, the one whose J is the median."""
    shown: NDArray[np.bool_]
    """[h, w]: the mask predicted there."""
    truth: NDArray[np.bool_]
    """[h, w]"""

    @property
    def picture(self) -> NDArray[np.uint8]:
        """[H, W, 3]: the frame with the predicted mask tinted and the truth outlined."""
        return overlay(self.frame, self.shown, self.truth)

    @property
    def heading(self) -> str:
        """The score, the kind and the clip on one line."""
        score = f"{1 - self.J:.1%} shown" if self.kind == NULL else f"J {self.J:.2f}"
        return f"{score} · {self.kind} · {self.name}"


@dataclass(frozen=True)
class ValidationResult:
    """What a validation has shown."""

    scores: dict[str, float]
    """`J_KIND` for each kind of sentence, `J_sound_muted`, `S_null`, `presence_accuracy`; what no clip tells is left out."""
    overlays: dict[str, NDArray[np.uint8]]
    """A sheet [H, W, 3] of pictures for each kind, of the same sentences in each validation."""
    samples: list[ScoredSample]
    """Each sentence that was scored, in the order of the clips."""


def scene_clips(scenes: SceneGenerator, count: int, image_size: int) -> list[Clip]:
    """A fixed set of clips: six ticks, all decoded, eight sentences."""
    return [_scene_clip(scenes, i, image_size) for i in range(count)]


@torch.no_grad()
def validate(
    model: EEMC,
    texts: TextCache,
    clips: Iterable[Clip],
    device: torch.device,
    *,
    temporal: Literal["band", "full"] = "band",
    presence_threshold: float = RunConfig().presence_threshold,
) -> ValidationResult:
    """Mean J by kind over the frames where the object is there and has been heard if it must be, J of sentences about sound
    against the same truth when the sound is muted, S of sentences that nothing fits, and how often the presence is right.

    Args:
        model: in evaluation mode, on `device`.
        texts: features of its sentence encoder.
        clips: with all their ticks decoded; a sentence that a clip has twice counts once.
        temporal: as in `EEMC.forward_clip`.
        presence_threshold: from here on a sentence has a mask at all; 0 for a network whose presence head was not trained.
    """
    silence = log_mel(np.zeros(PATCH_SAMPLES, np.float32))
    values: dict[str, list[float]] = defaultdict(list)
    samples: list[ScoredSample] = []
    for clip in clips:
        once = looking_once(model)
        everything = list(range(len(clip.texts)))
        shown, present = _predict(
            once, texts, clip, clip.log_mel, everything, device, temporal, presence_threshold
        )
        truth, there = clip.masks >= 0.5, clip.presence > 0
        for n in _each_once(clip, truth):
            values["presence_accuracy"].append(float(np.mean(present[:, n] == there[:, n])))
            if clip.kinds[n] == NULL:
                values["S_null"].append(float(np.sqrt(np.mean(shown[:, n]))))
                samples.append(_sample(clip, n, 1 - shown[:, n].mean(axis=(1, 2)), shown, truth))
            elif there[:, n].any():
                iou = np.where(there[:, n], _iou(shown[:, n], truth[:, n]), np.nan)
                values[f"J_{clip.kinds[n]}"].append(float(np.nanmean(iou)))
                samples.append(_sample(clip, n, iou, shown, truth))
        heard = [n for n in _each_once(clip, truth) if clip.kinds[n] == _MUTED_KIND and there[:, n].any()]
        if heard:
            muted = np.broadcast_to(silence, clip.log_mel.shape)
            quiet, _ = _predict(once, texts, clip, muted, heard, device, temporal, presence_threshold)
            for i, n in enumerate(heard):
                iou = _iou(quiet[:, i], truth[:, n])[there[:, n]]
                values[f"J_{_MUTED_KIND}_muted"].append(float(iou.mean()))
    scores = {name: round(float(np.mean(each)), 4) for name, each in sorted(values.items())}
    return ValidationResult(scores, _overlays(samples), samples)


def spread(samples: list[ScoredSample]) -> list[ScoredSample]:
    """The first of each clip, then the second of each, and so on."""
    seen: dict[str, int] = defaultdict(int)
    turns = []
    for sample in samples:
        turns.append(seen[sample.name])
        seen[sample.name] += 1
    return [samples[i] for i in np.argsort(turns, kind="stable")]


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
    model: EEMC,
    texts: TextCache,
    clip: Clip,
    patches: NDArray[np.float32],
    sentences: list[int],
    device: torch.device,
    temporal: Literal["band", "full"],
    presence_threshold: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks [T, N, h, w], empty where nothing is said to fit, and presence [T, N] of some sentences of a clip."""
    dtype = next(model.parameters()).dtype
    frames, log_mels = (torch.from_numpy(np.array(x))[None].to(device, dtype) for x in (clip.frames, patches))
    has_sound = torch.from_numpy(clip.has_sound)[None].to(device)
    ids, mask, hidden = (x.to(device) for x in texts([[clip.texts[n] for n in sentences]]))
    out = model.forward_clip(
        frames, log_mels, has_sound, ids, mask, temporal=temporal, text_hidden=hidden.to(dtype)
    )
    present = (out.presence[0] >= presence_threshold).cpu().numpy()
    return (out.mask_logits[0] > _LOGIT).cpu().numpy() & present[..., None, None], present


def _each_once(clip: Clip, truth: NDArray[np.bool_]) -> list[int]:
    """The sentences of a clip, those without a second one that says and means the same."""
    first = {(text, truth[:, n].tobytes()): n for n, text in reversed(list(enumerate(clip.texts)))}
    return sorted(first.values())


def _iou(shown: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Intersection over union [T] of masks [T, h, w]; 1 where both are empty."""
    union = (shown | truth).sum(axis=(1, 2))
    both = (shown & truth).sum(axis=(1, 2))
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def _sample(
    clip: Clip, n: int, scores: NDArray[np.float64], shown: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> ScoredSample:
    """`scores` [T] of sentence `n`, NaN in frames that do not count."""
    counted = np.flatnonzero(~np.isnan(scores))
    tick = counted[np.argsort(scores[counted], kind="stable")[(len(counted) - 1) // 2]]
    return ScoredSample(
        name=clip.name,
        kind=clip.kinds[n],
        text=clip.texts[n],
        J=float(np.nanmean(scores)),
        frame=_as_bytes(clip.frames[tick]),
        shown=shown[tick, n].copy(),
        truth=truth[tick, n].copy(),
    )


def _as_bytes(frame: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[3, S, S] as the network takes it -> [S, S, 3] as people do."""
    mean, std = (np.asarray(x, np.float32) for x in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (frame.transpose(1, 2, 0) * std + mean) * 255
    return pixels.round().clip(0, 255).astype(np.uint8)


def _overlays(samples: list[ScoredSample]) -> dict[str, NDArray[np.uint8]]:
    kinds: dict[str, list[ScoredSample]] = defaultdict(list)
    for sample in samples:
        kinds[sample.kind].append(sample)
    return {
        kind: sheet([(s.picture, s.heading, s.text) for s in spread(of_kind)[:_SHEET]], f"{kind}    {LEGEND}")
        for kind, of_kind in sorted(kinds.items())
    }
