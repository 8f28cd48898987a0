"""What predicts a clip's masks for evaluation: a checkpoint in torch, or a bundle in the engine that ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from refavs_rt.config import MEL_BINS, PATCH_FRAMES, ModelConfig
from refavs_rt.model.run_folder import TOKENIZER, WEIGHTS, CheckpointError, load_run
from refavs_rt.session import Model, load
from refavs_rt.tokenizer import Tokenizer

from .batches import normalise
from .data import DataError


class Predictor(Protocol):
    """Predicts all ticks of a clip."""

    image_size: int
    """Side of the frames it takes."""

    def predict(
        self, frames: NDArray[np.uint8], patches: NDArray[np.float32] | None, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mask logits [T, N, h, w] and presence [T, N] of `frames` [T, S, S, 3] and `patches` [T, 96, 64] (None: no track).

        Raises:
            DataError: a sentence cannot be read.
            BundleError, CheckpointError: the model returned NaN or infinity.
        """


class TorchPredictor:
    """The averaged weights of a run, all ticks of a clip at once."""

    def __init__(self, run: Path) -> None:
        """Load a run.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the configuration.
        """
        loaded = load_run(run)
        self.run = run
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = loaded.model.to(self.device)
        self.image_size = self.model.config.image_size
        try:
            self.tokenizer = Tokenizer(loaded.tokenizer, self.model.config.text_tokens)
        except ValueError as error:
            raise CheckpointError(f"{run / TOKENIZER} is damaged: {error}") from error

    @torch.inference_mode()
    def predict(
        self, frames: NDArray[np.uint8], patches: NDArray[np.float32] | None, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        count = len(frames)
        if patches is None:
            heard = torch.zeros(1, count, PATCH_FRAMES, MEL_BINS, device=self.device)
        else:
            heard = self._put(patches)
        has_sound = torch.full((1, count), patches is not None, device=self.device)
        pictures = self._put(normalise(frames))
        masks, presence = [], []
        for group in _groups(texts, self.model.config):
            try:
                ids, mask = (self._put(x) for x in self.tokenizer.encode(group))
            except ValueError as error:
                raise DataError(f"{error}; mend it in the table") from error
            out = self.model.forward_clip(pictures, heard, has_sound, ids, mask)
            masks.append(out.mask_logits[0].cpu().numpy())
            presence.append(out.presence[0].cpu().numpy())
        logits, present = np.concatenate(masks, axis=1), np.concatenate(presence, axis=1)
        if not (np.isfinite(logits).all() and np.isfinite(present).all()):
            raise CheckpointError(
                f"{self.run / WEIGHTS}: the model returned NaN or infinity; evaluate a sound checkpoint"
            )
        return logits, present

    def _put(self, values: NDArray[Any]) -> torch.Tensor:
        """On the device, as a batch of one."""
        return torch.from_numpy(values)[None].to(self.device)


class BundlePredictor:
    """A bundle, streamed frame by frame as users run it; every frame of the data set is a memory tick."""

    def __init__(self, bundle: str) -> None:
        """Load a bundle.

        Raises:
            BundleError: the bundle is missing, damaged or of another contract.
            EngineError: the engine cannot run here.
        """
        self.model: Model = load(bundle)
        self.image_size = self.model.config.image_size

    def predict(
        self, frames: NDArray[np.uint8], patches: NDArray[np.float32] | None, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        pictures = normalise(frames)
        masks, presence = [], []
        for group in _groups(texts, self.model.config):
            try:
                session = self.model.session(group)
            except ValueError as error:
                raise DataError(f"{error}; mend it in the table") from error
            results = [
                session.push(
                    picture, None if patches is None else patches[i], i / self.model.config.memory_hz
                )
                for i, picture in enumerate(pictures)
            ]
            masks.append(np.stack([r.mask_logits for r in results]))
            presence.append(np.stack([r.presence for r in results]))
        return np.concatenate(masks, axis=1), np.concatenate(presence, axis=1)


def _groups(texts: Sequence[str], config: ModelConfig) -> list[Sequence[str]]:
    """Sentences that are run together."""
    return [texts[i : i + config.max_sentences] for i in range(0, len(texts), config.max_sentences)]
