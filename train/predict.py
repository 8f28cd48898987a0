"""What predicts a clip's masks for evaluation: a checkpoint in torch, or a bundle in the engine that ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from refavs_rt.model.run_folder import load_run
from refavs_rt.session import Model, load
from refavs_rt.tokenizer import Tokenizer

from .batches import normalise

_GROUP = 8
"""Sentences that are run together."""


class Predictor(Protocol):
    """Predicts all ticks of a clip."""

    image_size: int
    """Side of the frames it takes."""

    def predict(
        self, frames: NDArray[np.uint8], patches: NDArray[np.float32] | None, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mask logits [T, N, h, w] and presence [T, N] of `frames` [T, S, S, 3] and `patches` [T, 96, 64] (None: no track)."""


class TorchPredictor:
    """The averaged weights of a run, all ticks of a clip at once."""

    def __init__(self, run: Path) -> None:
        loaded = load_run(run)
        self.model = loaded.model
        self.image_size = self.model.config.image_size
        self.tokenizer = Tokenizer(loaded.tokenizer, self.model.config.text_tokens)

    @torch.inference_mode()
    def predict(
        self, frames: NDArray[np.uint8], patches: NDArray[np.float32] | None, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        count = len(frames)
        has_sound = torch.full((1, count), patches is not None)
        log_mel = torch.zeros(1, count, 96, 64) if patches is None else torch.from_numpy(patches)[None]
        pictures = torch.from_numpy(normalise(frames))[None]
        masks, presence = [], []
        for start in range(0, len(texts), _GROUP):
            ids, mask = (
                torch.from_numpy(x)[None] for x in self.tokenizer.encode(texts[start : start + _GROUP])
            )
            out = self.model.forward_clip(pictures, log_mel, has_sound, ids, mask)
            masks.append(out.mask_logits[0].numpy())
            presence.append(out.presence[0].numpy())
        return np.concatenate(masks, axis=1), np.concatenate(presence, axis=1)


class BundlePredictor:
    """A bundle, streamed frame by frame as users run it; every frame of the data set is a memory tick."""

    def __init__(self, bundle: str) -> None:
        self.model: Model = load(bundle)
        self.image_size = self.model.config.image_size

    def predict(
        self, frames: NDArray[np.uint8], patches: NDArray[np.float32] | None, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        pictures = normalise(frames)
        masks, presence = [], []
        for start in range(0, len(texts), _GROUP):
            session = self.model.session(texts[start : start + _GROUP])
            results = [
                session.push(
                    picture, None if patches is None else patches[i], i / self.model.config.memory_hz
                )
                for i, picture in enumerate(pictures)
            ]
            masks.append(np.stack([r.mask_logits for r in results]))
            presence.append(np.stack([r.presence for r in results]))
        return np.concatenate(masks, axis=1), np.concatenate(presence, axis=1)
