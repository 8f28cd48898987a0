"""What predicts a clip's masks for evaluation: a checkpoint in torch, or a bundle in the engine that ships."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from refavs_rt.config import MEL_BINS, PATCH_FRAMES, RunConfig
from refavs_rt.dataset import DataError
from refavs_rt.engines.base import Arrays, Engine
from refavs_rt.model.eemc import EEMC
from refavs_rt.model.run_folder import TOKENIZER, WEIGHTS, CheckpointError, load_run
from refavs_rt.session import Model, load
from refavs_rt.tokenizer import Tokenizer

from .batches import normalise
from .once import looking_once

Temporal = Literal["band", "full"]


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
    """The averaged weights of a run, all ticks of a clip at once.

    What depends on the frames alone is computed once, as long as the same array of frames comes again, unchanged.
    """

    def __init__(self, run: Path, settings: RunConfig | None = None, *, temporal: Temporal = "band") -> None:
        """Load a run.

        Args:
            settings: how to run it; through torch the memory is the cumulative mean.
            temporal: as in `EEMC.forward_clip`.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the configuration, or another mean is asked for.
        """
        mean = (settings or RunConfig()).memory_mean
        if mean != "cumulative":
            raise CheckpointError(
                f"{run}: through torch the memory is the cumulative mean, not {mean!r}; export the run and give the bundle"
            )
        loaded = load_run(run)
        self.run = run
        self.temporal: Temporal = temporal
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = loaded.model.to(self.device)
        self.image_size = self.model.config.image_size
        self._sight = _Sight(self.model, self.device)
        try:
            self.tokenizer = Tokenizer(loaded.tokenizer, self.model.config.text_tokens)
        except ValueError as error:
            raise CheckpointError(f"{run / TOKENIZER} is damaged: {error}") from error

    def with_temporal(self, temporal: Temporal) -> TorchPredictor:
        """The same run in another temporal mode; both share the weights and what was seen of a clip."""
        out = copy.copy(self)
        out.temporal = temporal
        return out

    @torch.inference_mode()
    def predict(
        self, frames: NDArray[np.uint8], patches: NDArray[np.float32] | None, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        count = len(frames)
        if patches is None:
            heard = torch.zeros(1, count, PATCH_FRAMES, MEL_BINS, device=self.device)
        else:
            heard = torch.from_numpy(patches)[None].to(self.device)
        has_sound = torch.full((1, count), patches is not None, device=self.device)
        model, pictures = self._sight.of(frames)
        masks, presence = [], []
        for group in _groups(texts, self.model.config.max_sentences):
            try:
                ids, mask = (torch.from_numpy(x)[None].to(self.device) for x in self.tokenizer.encode(group))
            except ValueError as error:
                raise DataError(f"{error}; mend it in the table") from error
            out = model.forward_clip(pictures, heard, has_sound, ids, mask, temporal=self.temporal)
            masks.append(out.mask_logits[0].cpu().numpy())
            presence.append(out.presence[0].cpu().numpy())
        logits, present = np.concatenate(masks, axis=1), np.concatenate(presence, axis=1)
        if not (np.isfinite(logits).all() and np.isfinite(present).all()):
            raise CheckpointError(
                f"{self.run / WEIGHTS}: the model returned NaN or infinity; evaluate a sound checkpoint"
            )
        return logits, present


class BundlePredictor:
    """A bundle, streamed frame by frame as users run it; every frame of the data set is a memory tick.

    What depends on the frames alone, or on the sound alone, is computed once, as long as the same array comes again, unchanged.
    """

    def __init__(self, bundle: str, settings: RunConfig | None = None) -> None:
        """Load a bundle, to be run with `settings`.

        Raises:
            BundleError: the bundle is missing, damaged or of another contract.
            EngineError: the engine cannot run here.
        """
        opened = load(bundle, run=settings)
        self._engine = _OnceEngine(opened.engine)
        self.model = Model(opened.bundle, self._engine, opened.run)
        self.image_size = self.model.config.image_size
        self._frames: NDArray[np.uint8] | None = None
        self._patches: NDArray[np.float32] | None = None
        self._pictures: NDArray[np.float32] | None = None

    def predict(
        self, frames: NDArray[np.uint8], patches: NDArray[np.float32] | None, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if frames is not self._frames or self._pictures is None:
            self._engine.forget("vision")
            self._frames, self._pictures = frames, normalise(frames)
        if patches is not self._patches:
            self._engine.forget("audio")
            self._patches = patches
        masks, presence = [], []
        for group in _groups(texts, self.model.bundle.sentences[1]):
            self._engine.rewind()
            try:
                session = self.model.session(group)
            except ValueError as error:
                raise DataError(f"{error}; mend it in the table") from error
            results = [
                session.predict(
                    picture, None if patches is None else patches[i], i / self.model.config.memory_hz
                )
                for i, picture in enumerate(self._pictures)
            ]
            masks.append(np.stack([r.mask_logits for r in results]))
            presence.append(np.stack([r.presence for r in results]))
        return np.concatenate(masks, axis=1), np.concatenate(presence, axis=1)


class _Sight:
    """The network that has looked at a clip, and the clip's frames as it takes them."""

    def __init__(self, model: EEMC, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._seen: tuple[NDArray[np.uint8], EEMC, torch.Tensor] | None = None

    def of(self, frames: NDArray[np.uint8]) -> tuple[EEMC, torch.Tensor]:
        if self._seen is None or self._seen[0] is not frames:
            pictures = torch.from_numpy(normalise(frames))[None].to(self._device)
            self._seen = frames, looking_once(self._model), pictures
        return self._seen[1:]


class _OnceEngine:
    """An engine that runs a clip's frames and sounds once, and answers from what it keeps when they come again in order.

    What the vision graph gives depends on the frames up to then alone, since the ring that it reads does; the audio graph reads
    one patch.
    """

    def __init__(self, engine: Engine) -> None:
        self.name, self.device, self.runs_side_by_side = engine.name, engine.device, False
        self.text, self.step = engine.text, engine.step
        self._engine = engine
        self._kept: dict[str, list[dict[str, NDArray[Any]]]] = {"vision": [], "audio": []}
        self._at = {"vision": 0, "audio": 0}

    def vision(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._next("vision", self._engine.vision, inputs)

    def audio(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._next("audio", self._engine.audio, inputs)

    def rewind(self) -> None:
        """The clip begins again."""
        self._at = dict.fromkeys(self._at, 0)

    def forget(self, graph: str) -> None:
        """Other frames, or other sounds, come next."""
        self._kept[graph] = []

    def _next(
        self, graph: str, run: Callable[[Arrays], dict[str, NDArray[Any]]], inputs: Arrays
    ) -> dict[str, NDArray[Any]]:
        kept, at = self._kept[graph], self._at[graph]
        if at == len(kept):
            kept.append(run(inputs))
        self._at[graph] += 1
        return dict(kept[at])  # the caller's to write names into; the arrays are read alone


def _groups(texts: Sequence[str], most: int) -> list[Sequence[str]]:
    """Sentences that are run together."""
    return [texts[i : i + most] for i in range(0, len(texts), most)]
