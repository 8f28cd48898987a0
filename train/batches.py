"""Clips of training: what a step asks for, and generated scenes that answer; several sentences share a pass of the backbone.

Which clips a step sees depends on the seed and the step, not on the number of processes nor on what was drawn before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from refavs_rt.config import IMAGENET_MEAN, IMAGENET_STD, PATCH_SAMPLES, SAMPLE_RATE_HZ
from refavs_rt.log_mel import log_mel

from .loss import Target
from .scenes import Expression, Scene, SceneGenerator

SOUND_KINDS = frozenset({"sound", "order", "loudness", "combination"})
"""Kinds of sentence that, about an object that sounds, mean nothing before it has been heard."""
_WHOLE_CLIP = frozenset({"order", "loudness"})
"""Kinds, and details of null sentences, that only a clip heard from its beginning can decide."""
WINDOW_S = PATCH_SAMPLES / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class BatchConfig:
    """What a batch is made of."""

    image_size: int = 192
    """Side of the pictures, in pixels."""
    late_image_size: int = 256
    """The same from `late_from_step` on."""
    late_from_step: int = 10**9
    """The first step, from 0, of large pictures and long clips."""
    sentences: int = 6
    """Sentences of a clip; they share one pass of the backbone."""
    shapes: tuple[tuple[int, int], ...] = ((2, 9), (2, 9), (3, 6), (3, 6), (8, 2))
    """(ticks, clips) of a batch, drawn evenly; their product is what the backbone sees. Many clips teach names and sounds."""
    late_shapes: tuple[tuple[int, int], ...] = ((2, 8), (3, 6), (5, 3), (10, 2))
    """The same from `late_from_step` on: long clips teach the memory."""
    scale: int = 1
    """Times the clips of a step that the shapes say: as many as there are GPUs keeps each as busy as one alone."""
    decoded_ticks: int = 3
    """Ticks of a clip that are segmented, at most; the others are only remembered."""
    muted: float = 0.08
    """Share of the clips whose sound is replaced by silence; of generated scenes only."""
    no_track: float = 0.04
    """Share of the clips without a sound track; of generated scenes only."""
    dataset_pairing: float = 0.5
    """Share of the clips whose frames are paired with the second of sound that begins at them, as the data set does; the
    others are paired as a live stream does, with the window that ends at the frame."""
    aspects: tuple[float, ...] = (1.0, 4 / 3, 16 / 9)
    """Width to height of the picture before it is stretched to a square; of generated scenes only."""


@dataclass(frozen=True)
class BatchPlan:
    """What all clips of one training step have in common; it depends on the seed and the step alone."""

    size: int
    """Side of the pictures, in pixels."""
    ticks: int
    decode: tuple[int, ...]
    """The decoded ticks, sorted."""
    count: int
    """Clips in the whole step, over all processes."""


def plan_batch(config: BatchConfig, seed: int, step: int) -> BatchPlan:
    """The plan of step number `step`, from 0."""
    rng = np.random.default_rng((seed, step))
    size, shapes = config.image_size, config.shapes
    if step >= config.late_from_step:
        size, shapes = config.late_image_size, config.late_shapes
    ticks, count = shapes[rng.integers(len(shapes))]
    decode = sorted(rng.permutation(ticks)[: config.decoded_ticks].tolist())
    return BatchPlan(size, ticks, tuple(decode), count * config.scale)


def clip_rng(seed: int, step: int, index: int) -> np.random.Generator:
    """The chance of clip `index` of a step: whichever process draws the clip, in whatever order, it is the same clip."""
    return np.random.default_rng(
        (seed, step, index + 1)
    )  # numpy pads with zeros: 0 would be the chance of the plan


@dataclass
class Clip:
    """One clip of a batch, as arrays."""

    name: str
    """Of the scene or of the clip on disk, for messages."""
    frames: NDArray[np.float32]
    log_mel: NDArray[np.float32]
    has_sound: NDArray[np.bool_]
    texts: list[str]
    kinds: list[str]
    masks: NDArray[np.float32]
    presence: NDArray[np.float32]
    names: NDArray[np.int64]
    referents: NDArray[np.int64]
    sounds: NDArray[np.float32]


class ClipSource(Protocol):
    """Where the clips of a training come from."""

    def draw(self, plan: BatchPlan, rng: np.random.Generator) -> Clip:
        """A clip by chance, of the plan's size, ticks and decoded ticks.

        Raises:
            DataError: none can be had.
        """


@dataclass
class Batch:
    """B clips of T ticks with N sentences."""

    frames: Tensor
    """[B, T, 3, S, S] normalised"""
    log_mel: Tensor
    """[B, T, 96, 64]"""
    has_sound: Tensor
    """[B, T] bool"""
    texts: list[list[str]]
    """[B][N]"""
    kinds: list[list[str]]
    decode_ticks: list[int]
    target: Target
    names: list[str]
    """[B], of the clips"""


class SceneClips:
    """Clips of generated scenes."""

    def __init__(self, scenes: SceneGenerator, names: tuple[str, ...], config: BatchConfig) -> None:
        self.scenes = scenes
        self.names = {name: i for i, name in enumerate(names)}
        self.config = config

    def draw(self, plan: BatchPlan, rng: np.random.Generator) -> Clip:
        """A scene by chance, seen and heard at ticks by chance."""
        config = self.config
        scene = self.scenes.scene(int(rng.integers(2**31)))
        dataset_pairing = rng.random() < config.dataset_pairing
        draw = rng.random()
        muted = draw < config.muted
        has_track = not config.muted <= draw < config.muted + config.no_track
        latest_start = max(0.0, scene.seconds - plan.ticks)
        start = 0.0 if rng.random() < 0.5 else float(rng.uniform(0, latest_start))
        times = start + np.arange(plan.ticks, dtype=np.float64)
        if plan.ticks > 1 and rng.random() < 0.3:
            times[-1] -= rng.uniform(0, 0.9)  # a frame between the ticks
        times = np.clip(times + rng.uniform(0, 0.05, plan.ticks), 0, scene.seconds - 1e-3)
        expressions = pick_expressions(scene.expressions(), config.sentences, start > 0, rng)
        aspect = config.aspects[rng.integers(len(config.aspects))]
        window_ends = times + WINDOW_S if dataset_pairing else times
        return make_clip(
            scene,
            times,
            window_ends,
            list(plan.decode),
            expressions,
            self.names,
            size=plan.size,
            aspect=aspect,
            muted=muted,
            has_track=has_track,
        )


def pick_expressions(
    expressions: list[Expression], count: int, starts_late: bool, rng: np.random.Generator
) -> list[Expression]:
    """`count` sentences of a scene, spread over kinds and objects; with repetition where there are too few.

    The order of sounds is known only from the beginning, so a clip that starts late asks for none.
    """
    usable = [e for e in expressions if not (starts_late and {e.kind, e.detail} & _WHOLE_CLIP)] or list(
        expressions
    )
    groups: dict[tuple[str, int | None], list[Expression]] = {}
    for expression in usable:
        groups.setdefault((expression.kind, expression.target), []).append(expression)
    weights = np.array([_KIND_WEIGHT.get(kind, 1.0) for kind, _ in groups])
    keys = list(groups)
    replace = len(keys) < count
    drawn = rng.choice(len(keys), count, replace=replace, p=weights / weights.sum())
    return [groups[keys[i]][rng.integers(len(groups[keys[i]]))] for i in drawn]


_KIND_WEIGHT = {"name": 2.5, "sound": 3.0, "null": 0.8, "motion": 0.4, "loudness": 0.7}
"""How often a kind is drawn, beside 1 for the others: naming and hearing come first."""


def make_clip(
    scene: Scene,
    times: NDArray[np.float64],
    window_ends: NDArray[np.float64],
    decode: list[int],
    expressions: list[Expression],
    names: dict[str, int],
    *,
    size: int,
    aspect: float = 1.0,
    muted: bool = False,
    has_track: bool = True,
) -> Clip:
    """A clip of `scene` at `times` [T] with the sound windows that end at `window_ends` [T], in seconds."""
    frames, visible = scene.render(times, size=(size, round(size * aspect)))
    masks = visible.astype(np.uint8) * np.uint8(255)
    if aspect != 1.0:
        frames = np.stack([_stretch(frame, size) for frame in frames])
        masks = np.stack([[_stretch(mask, size) for mask in row] for row in masks])
    shares = masks.astype(np.float32) / np.float32(255)  # [T, K, S, S]
    audible = np.stack([scene.sounding(end - WINDOW_S, end) for end in window_ends])  # [T, K]
    if muted or not has_track:
        audible = np.zeros_like(audible)
    quarter = _pool(shares[decode], 4)
    sounding = [scene_object.sounds for scene_object in scene.objects]
    clip_masks, presence = _referred(expressions, quarter, audible, sounding, decode)
    classes = [names.get(o.class_name, -2) for o in scene.objects]
    return Clip(
        name=f"scene {scene.key[-1]}",
        frames=normalise(frames),
        log_mel=_patches(scene, window_ends, muted or not has_track),
        has_sound=np.full(len(times), has_track),
        texts=[e.text for e in expressions],
        kinds=[e.kind for e in expressions],
        masks=clip_masks,
        presence=presence,
        names=_name_cells(_pool(shares[decode], 8), classes),
        referents=named_referents(
            [None if e.target is None else classes[e.target] for e in expressions], presence
        ),
        sounds=_sound_shares(audible, classes, len(names), has_track),
    )


def normalise(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[T, S, S, 3] bytes -> [T, 3, S, S] as the network takes it."""
    mean, std = (np.asarray(x, np.float32) for x in (IMAGENET_MEAN, IMAGENET_STD))
    of_byte = (np.arange(256, dtype=np.float32)[:, None] / 255 - mean) / std  # [256, 3]
    out = np.empty((len(frames), 3, *frames.shape[1:3]), np.float32)
    for channel in range(3):
        np.take(of_byte[:, channel], frames[..., channel], out=out[:, channel], mode="clip")
    return out


def named_referents(classes: list[int | None], presence: NDArray[np.float32]) -> NDArray[np.int64]:
    """Class index [T', N] of what each sentence means where `presence` [T', N] says it is there, else -1. A class None is that
    of a sentence that nothing fits; -2 is ignored."""
    named = np.array([-1 if c is None else c for c in classes], np.int64)
    return np.where(presence > 0, named, -1)


def collate(clips: Sequence[Clip], decode: Sequence[int], point_seeds: Sequence[int] | None = None) -> Batch:
    """Clips of equal shape, stacked. `point_seeds`: one a clip, for the points that the loss samples; 0 by default."""

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(clip, name) for clip in clips]))

    target = Target(
        masks=stack("masks"),
        presence=stack("presence"),
        names=stack("names"),
        referents=stack("referents"),
        sounds=stack("sounds"),
        point_seeds=torch.tensor(point_seeds or [0] * len(clips), dtype=torch.int64),
    )
    return Batch(
        frames=stack("frames"),
        log_mel=stack("log_mel"),
        has_sound=stack("has_sound"),
        texts=[clip.texts for clip in clips],
        kinds=[clip.kinds for clip in clips],
        decode_ticks=list(decode),
        target=target,
        names=[clip.name for clip in clips],
    )


def _referred(
    expressions: list[Expression],
    masks: NDArray[np.float32],
    audible: NDArray[np.bool_],
    sounding: list[bool],
    decode: list[int],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Masks [T', N, h, w] and presence [T', N] of the sentences at the decoded ticks.

    A sentence about sound means nothing until its object has been heard in the clip.
    """
    out = np.zeros((len(decode), len(expressions), *masks.shape[-2:]), np.float32)
    for n, expression in enumerate(expressions):
        if expression.target is None:
            continue
        for i, tick in enumerate(decode):
            waits = expression.kind in SOUND_KINDS and sounding[expression.target]
            if waits and not audible[: tick + 1, expression.target].any():
                continue
            out[i, n] = masks[i, expression.target]
    presence = (out.max(axis=(-2, -1), initial=0) >= 0.5).astype(np.float32)
    return out * presence[..., None, None], presence


def _patches(scene: Scene, ends: NDArray[np.float64], silent: bool) -> NDArray[np.float32]:
    windows = np.zeros((len(ends), PATCH_SAMPLES), np.float32)
    if not silent:
        wave = scene.waveform()
        for row, end in zip(windows, ends, strict=True):
            stop = math.floor(end * 100 + 1e-6) * (SAMPLE_RATE_HZ // 100)  # the last 10 ms hop, as live
            start = stop - PATCH_SAMPLES
            inside = wave[max(start, 0) : max(stop, 0)]
            offset = max(0, -start)
            row[offset : offset + len(inside)] = inside
    return log_mel(windows)


def _name_cells(shares: NDArray[np.float32], names: list[int]) -> NDArray[np.int64]:
    """Class index [T, H, W] of each cell: -1 background, -2 where a cell is mixed."""
    total = shares.sum(axis=1)
    best = shares.argmax(axis=1)
    labels = np.array(names, np.int64)[best]
    labels[total < 0.6] = -2
    labels[total < 0.05] = -1
    return labels


def _sound_shares(
    audible: NDArray[np.bool_], names: list[int], count: int, has_track: bool
) -> NDArray[np.float32]:
    """Share [T, count + 1] of each class in each tick's sound; the last column is silence."""
    out = np.zeros((len(audible), count + 1), np.float32)
    if has_track:
        for row, heard in zip(out, audible, strict=True):
            for name, sounds in zip(names, heard, strict=True):
                if sounds and name >= 0:
                    row[name] = 1
            if not heard.any():
                row[count] = 1
            row /= max(row.sum(), 1)
    return out


def _stretch(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))


def _pool(masks: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Mean over cells of `factor` x `factor` pixels."""
    height, width = masks.shape[-2:]
    cells = masks.reshape(*masks.shape[:-2], height // factor, factor, width // factor, factor)
    return cells.mean(axis=(-3, -1))
