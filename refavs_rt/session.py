"""A loaded model, and a session of it: one camera, the sentences asked about it, and their state."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .bundle import MANIFEST, TOKENIZER, Bundle, BundleError, find_bundle
from .config import MEL_BINS, PATCH_FRAMES, ModelConfig, RunConfig
from .engines import Engine, EngineError, open_engine
from .state import SentenceState, SharedState
from .tokenizer import Tokenizer, TokenizerError

if TYPE_CHECKING:
    from .stream import OnNotice, Result, Source

_log = logging.getLogger(__name__)

LATEST_RUN = Path("runs", "latest")
"""The run folder that the torch engine takes where none is named."""

_RUN_CONFIG = "config.json"
"""What a run folder has, and no bundle."""
_FEATURES_KEPT = 256
"""Sentences whose features a model keeps."""
CLOCK_SLACK_S = 1e-6
"""A frame this little before a tick is on it: timestamps are sums of fractions."""


def load(
    bundle: str | os.PathLike[str] | None = None, *, engine: str = "auto", run: RunConfig | None = None
) -> Model:
    """Load a bundle, or for the torch engine a run folder.

    Args:
        bundle: a folder, or "edge" for the embedded bundle; None takes bundles/latest, else the embedded one. For the torch
            engine a run folder of `python -m train`; None takes runs/latest.
        engine: "auto" or the name of an engine.
        run: how to run it.

    Raises:
        BundleError: the bundle is missing, damaged or of another contract.
        EngineError: the engine cannot run here, or not what is in the folder.
    """
    run = run or RunConfig()
    if engine == "torch":
        return _load_run(LATEST_RUN if bundle is None else Path(bundle), run)
    path = find_bundle(bundle)
    if (path / _RUN_CONFIG).is_file() and not (path / MANIFEST).exists():
        raise EngineError(
            f"{path}: a run folder; export it (refavs-export --checkpoint {path}) or run it with --engine torch"
        )
    opened = Bundle.open(path)
    return Model(opened, open_engine(engine, opened, threads=run.threads), run)


class Weights(Protocol):
    """Where a network comes from: a bundle, or a run folder."""

    @property
    def path(self) -> Path:
        """Its folder."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def sentences(self) -> tuple[int, int]:
        """The smallest and the largest number of sentences that a step takes."""

    def read(self, name: str) -> bytes:
        """The bytes of one of its files."""


class Model:
    """A bundle, or a run folder, in an engine. Sessions share it, one thread at a time.

    Raises:
        BundleError: its tokenizer is none.
    """

    def __init__(self, bundle: Weights, engine: Engine, run: RunConfig) -> None:
        self.bundle = bundle
        self.engine = engine
        self.run = run
        try:
            config = bundle.config
            self.tokenizer = Tokenizer(bundle.read(TOKENIZER), config.text_tokens, config.text_vocabulary)
        except TokenizerError as error:
            raise BundleError(f"{bundle.path / TOKENIZER}: {error}; export the bundle again") from error

        self._features: OrderedDict[str, dict[str, NDArray[Any]]] = OrderedDict()

    @property
    def config(self) -> ModelConfig:
        return self.bundle.config

    @property
    def sentences_at_once(self) -> int:
        """How many a step takes; a session runs more of them in groups."""
        return self.bundle.sentences[1]

    def read(self, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        """The token mask and the text graph's outputs of N sentences, each [N, ...]; what was read lately is not read again.

        Raises:
            ValueError, TypeError: a sentence cannot be read.
            BundleError: the tokenizer or the text graph fails on it.
        """
        try:
            token_ids, token_mask = self.tokenizer.encode(texts)
        except TokenizerError as error:
            raise BundleError(f"{self.bundle.path / TOKENIZER}: {error}; export the bundle again") from error
        new = [i for i, text in enumerate(texts) if text not in self._features]
        for first in range(0, len(new), self.sentences_at_once):
            rows = new[first : first + self.sentences_at_once]
            mask = token_mask[rows]
            features = {
                "token_mask": mask,
                **self.engine.text({"token_ids": token_ids[rows], "token_mask": mask}),
            }
            for row, i in enumerate(rows):
                self._features[texts[i]] = {name: np.asarray(x)[row] for name, x in features.items()}
        for text in texts:
            self._features.move_to_end(text)
        found = [self._features[text] for text in texts]
        while len(self._features) > _FEATURES_KEPT:
            self._features.popitem(last=False)
        return {name: np.stack([features[name] for features in found]) for name in found[0]}

    def session(self, texts: Sequence[str] = ()) -> Session:
        """A new session, with nothing remembered, that asks for `texts`."""
        return Session(self, texts)

    def stream(
        self,
        source: Source,
        texts: Sequence[str],
        *,
        max_frames: int | None = None,
        duration_s: float | None = None,
        on_notice: OnNotice | None = None,
    ) -> Iterator[Result]:
        """Segment what each sentence means in the frames of a source.

        Args:
            source: a media file, of which every frame is taken, or `Live`: a camera, of which the newest.
            texts: the sentences.
            max_frames: stop after so many frames.
            duration_s: stop after so many seconds of the source.
            on_notice: called with the time and a line when a live source is lost, comes back, or has no sound.

        Raises:
            ValueError, TypeError: a sentence cannot be read, or there is none.
            IngestError: the source cannot be read.
        """
        if not texts:
            raise ValueError("give at least one sentence")
        from .stream import stream

        return stream(self, source, texts, max_frames=max_frames, duration_s=duration_s, on_notice=on_notice)


@dataclass(frozen=True)
class Prediction:
    """What a frame gave for N sentences."""

    mask_logits: NDArray[np.float32]
    """[N, h, w], at a quarter of the model's image size."""
    presence: NDArray[np.float32]
    """[N], the chance that anything in the frame fits each sentence."""
    is_tick: bool
    """Whether the frame was committed to the memory."""


class Session:
    """Frames in order, in; predictions out.

    The first frame is committed to the memory, and then the first one at or after each 1 / memory_hz seconds from it; frames
    between are provisional and leave no trace. When pts jump back by more than that, the source is taken to have begun again
    and so has the clock; the memory is kept. After a gap of more than `RunConfig.reset_gap_s` the memory begins anew: all that
    it holds is older than what the network was trained to look back on.
    """

    def __init__(self, model: Model, texts: Sequence[str] = ()) -> None:
        self.model = model
        self.texts: list[str] = []
        """The sentences, in the order of every output's first axis."""
        self.shared = SharedState.empty(model.config)
        self.sentences = SentenceState(model.config, model.run)
        self._groups = _Groups(model.sentences_at_once)
        self._clock = _MemoryClock(model.config.memory_hz)
        if isinstance(texts, str):
            raise TypeError("give a list of sentences, not one string")
        self.add(*texts)

    def add(self, *texts: str) -> None:
        """Ask for more sentences from the next frame on. They remember nothing yet, but see the shared ring.

        More than `Model.sentences_at_once` run in groups, each at the price of one step.

        Raises:
            ValueError, TypeError: a sentence cannot be read. Nothing is added then.
            BundleError: the tokenizer or the text graph fails on it.
        """
        if not texts:
            return
        self.sentences.add(self.model.read(texts))
        self.texts += texts

    def change(self, index: int, text: str) -> None:
        """Ask for another sentence in the place of the one at `index`. It remembers nothing yet.

        Raises:
            IndexError: there is none.
            ValueError, TypeError, BundleError: as `add`. Nothing is changed then.
        """
        self._check_index(index)
        self.sentences.replace(index, {name: x[0] for name, x in self.model.read([text]).items()})
        self.texts[index] = text

    def remove(self, index: int) -> None:
        """Ask no longer for the sentence at `index`; later ones move up.

        Raises:
            IndexError: there is none.
        """
        self._check_index(index)
        self.sentences.remove(index)
        del self.texts[index]

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self.texts):
            raise IndexError(f"there is no sentence {index}; there are {len(self.texts)}")

    def reset(self) -> None:
        """Forget what was seen and heard; the sentences stay."""
        self.shared = SharedState.empty(self.model.config)
        self.sentences.forget()
        self._clock = _MemoryClock(self.model.config.memory_hz)

    def push(
        self, frame: NDArray[np.float32], log_mel: NDArray[np.float32] | None, pts_s: float
    ) -> Prediction:
        """Run one frame and commit it if it is a memory tick.

        Args:
            frame: [3, S, S], normalised RGB.
            log_mel: [96, 64], the sound up to the frame; None where there is no sound at all, which is not silence.
            pts_s: when the frame is, in seconds.

        Raises:
            ValueError: an array has another shape or type, or holds NaN or infinity.
            BundleError: the model returned NaN or infinity.
        """
        config, engine = self.model.config, self.model.engine
        has_sound = log_mel is not None
        if log_mel is None:
            log_mel = np.zeros((PATCH_FRAMES, MEL_BINS), np.float32)
        _check("frame", frame, (3, config.image_size, config.image_size))
        _check("log_mel", log_mel, (PATCH_FRAMES, MEL_BINS))
        if not np.isfinite(pts_s):
            raise ValueError(f"pts_s must be a finite number of seconds, not {pts_s}")

        if self._clock.gap_s(pts_s) > self.model.run.reset_gap_s:
            self.reset()
        known: dict[str, NDArray[Any]] = self.shared.feeds()
        present = engine.vision({**known, "frame": frame[None]})
        present |= engine.audio({"log_mel": log_mel[None], "has_sound": np.array([has_sound])})
        groups = [
            engine.step({**known, **sentences, **present})
            for sentences in self._groups.of(self.sentences.feeds())
        ]
        step = _together(groups) if groups else self._nothing()
        if not np.isfinite(step["mask_logits"].sum() + step["presence"].sum()):
            raise BundleError(
                f"{self.model.bundle.path}: the model returned NaN or infinity; export a sound checkpoint"
            )

        is_tick = self._clock.advance(pts_s)
        if is_tick:
            slot = self.shared.commit(present)
            _log.debug("%.3f s is a tick: committed to slot %d", pts_s, slot)
            if self.texts:
                self.sentences.commit(step, slot, self.shared.ring_age)
        return Prediction(step["mask_logits"], step["presence"], is_tick)

    def _nothing(self) -> dict[str, NDArray[Any]]:
        """What the step graph returns for no sentence; graphs are not built for an empty axis."""
        size = self.model.config.mask_size
        return {"mask_logits": np.zeros((0, size, size), np.float32), "presence": np.zeros(0, np.float32)}


class _Groups:
    """Arrays of N sentences in groups of as many as a step takes. A group of an array that has not changed is the same array, so
    that an engine may keep its copy of it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._cut: dict[str, tuple[NDArray[Any], list[NDArray[Any]]]] = {}

    def of(self, feeds: Mapping[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
        count = len(next(iter(feeds.values())))
        if count <= self._size:
            if count:
                yield dict(feeds)
            return
        for name, whole in feeds.items():
            if name not in self._cut or self._cut[name][0] is not whole:
                self._cut[name] = (whole, [whole[i : i + self._size] for i in range(0, count, self._size)])
        for i in range(-(-count // self._size)):
            yield {name: self._cut[name][1][i] for name in feeds}


def _together(groups: Sequence[Mapping[str, NDArray[Any]]]) -> Mapping[str, NDArray[Any]]:
    if len(groups) == 1:
        return groups[0]
    return {name: np.concatenate([np.asarray(group[name]) for group in groups]) for name in groups[0]}


class _MemoryClock:
    """Says which frames are memory ticks: the first at or after start + k / memory_hz, for each k from 0."""

    def __init__(self, memory_hz: float) -> None:
        self._memory_hz = memory_hz
        self._start_s: float | None = None
        self._last_s = 0.0
        self._next_tick = 0

    def gap_s(self, pts_s: float) -> float:
        """Seconds since the last frame; 0 before the first."""
        return 0.0 if self._start_s is None else pts_s - self._last_s

    def advance(self, pts_s: float) -> bool:
        if self._start_s is None or pts_s < self._last_s - 1.0 / self._memory_hz:
            self._start_s, self._next_tick = pts_s, 0
        self._last_s = pts_s
        reached = int((pts_s - self._start_s + CLOCK_SLACK_S) * self._memory_hz)
        if reached < self._next_tick:
            return False
        self._next_tick = reached + 1
        return True


def _load_run(path: Path, run: RunConfig) -> Model:
    if (path / MANIFEST).is_file() and not (path / _RUN_CONFIG).exists():
        raise EngineError(
            f"{path}: a bundle; the torch engine runs a run folder of python -m train, such as {LATEST_RUN}"
        )
    try:
        from .engines.torch import open_run
    except ImportError as error:
        raise EngineError(
            f"the torch engine needs packages that are missing ({error}); install them: pip install 'refavs-rt[train]'"
        ) from error
    opened, engine = open_run(path, threads=run.threads)
    return Model(opened, engine, run)


def _check(name: str, values: NDArray[Any], shape: tuple[int, ...]) -> None:
    if values.shape != shape or values.dtype != np.float32:
        raise ValueError(f"{name} must be float32 {list(shape)}, not {values.dtype} {list(values.shape)}")
    if not np.isfinite(values.sum()):
        raise ValueError(f"{name} holds NaN or infinity")
