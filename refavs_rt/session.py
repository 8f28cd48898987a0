"""A loaded model, and a session of it: one camera, the sentences asked about it, and their state.

A frame goes through a session in two halves. `Session.see` runs what no sentence changes, and takes a memory tick into the
shared rings; `Session.answer` runs the sentences over what was seen. The second half reads only what the first gave it and
what it alone changes, so one thread may see the next frame while another answers this one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .bundle import MANIFEST, TOKENIZER, Bundle, BundleError, find_bundle
from .config import MEL_BINS, PATCH_FRAMES, SAMPLE_RATE_HZ, ModelConfig, RunConfig
from .engines import Engine, EngineError, open_engine
from .masker import Masker
from .memory_clock import MemoryClock
from .result import Result, SeenFrame
from .sentence_groups import SentenceGroups, together
from .state import SentenceState, SharedState
from .tokenizer import Tokenizer, TokenizerError

if TYPE_CHECKING:
    from .pushed import Pushed
    from .stream import OnNotice, Source

_log = logging.getLogger(__name__)

LATEST_RUN = Path("runs", "latest")
"""The run folder that the torch engine takes where none is named."""

_RUN_CONFIG = "config.json"
"""What a run folder has, and no bundle."""
_FEATURES_KEPT = 256
"""Sentences whose features a model keeps."""


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
        self.turn: contextlib.AbstractContextManager[object] = (
            contextlib.nullcontext() if engine.runs_side_by_side else threading.Lock()
        )
        """Held while the engine runs, and what it returned is fetched, where it does one thing at a time."""
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
            with self.turn:
                read = self.engine.text({"token_ids": token_ids[rows], "token_mask": mask})
                features = {name: np.asarray(x) for name, x in read.items()} | {"token_mask": mask}
            for row, i in enumerate(rows):
                self._features[texts[i]] = {name: x[row] for name, x in features.items()}
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
class Seen:
    """A frame as every sentence sees it: what `Session.see` gives and `Session.answer` takes."""

    feeds: Mapping[str, NDArray[Any]]
    """The rings before the frame, and what the vision and audio graphs made of it, by graph input name."""
    begins_anew: bool
    """Whether a gap lay before it, so that nothing before is remembered."""
    tick: tuple[int, NDArray[np.int64]] | None
    """Of a memory tick, the slot of the rings that took it, and their ages since."""


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
    """Frames in order, in; what each sentence means in them, out.

    The first frame is committed to the memory, and then the first one at or after each 1 / memory_hz seconds from it; frames
    between are provisional and leave no trace. When pts jump back by more than that, the source is taken to have begun again
    and so has the clock; the memory is kept. After a gap of more than `RunConfig.reset_gap_s` the memory begins anew: all that
    it holds is older than what the network was trained to look back on.

    `push` takes what a camera gives; `predict` what the network takes. `see` is for one thread at a time; sentences may come,
    change and go from any thread, and do so between two frames.
    """

    def __init__(self, model: Model, texts: Sequence[str] = ()) -> None:
        self.model = model
        self.texts: list[str] = []
        """The sentences, in the order of every output's first axis."""
        self.overdue = 0
        """Frames of a live source that were given up because they were older than `RunConfig.deadline_s`."""
        self.shared = SharedState.empty(model.config)
        self.sentences = SentenceState(model.config, model.run)
        self._groups = SentenceGroups(model.sentences_at_once)
        self._clock = MemoryClock(model.config.memory_hz)
        self._masker = Masker(model.run)
        self._pushed: Pushed | None = None
        self.between_frames = threading.RLock()
        """Held while sentences run on a frame, and while they come, change and go."""
        if isinstance(texts, str):
            raise TypeError("give a list of sentences, not one string")
        self.add(*texts)

    def __getstate__(self) -> dict[str, Any]:
        """For a deep copy, which goes on by itself as this one does: a lock is not copied."""
        return {**vars(self), "between_frames": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.between_frames = threading.RLock()

    def add(self, *texts: str) -> None:
        """Ask for more sentences from the next frame on. They remember nothing yet, but see the shared ring.

        More than `Model.sentences_at_once` run in groups, each at the price of one step.

        Raises:
            ValueError, TypeError: a sentence cannot be read. Nothing is added then.
            BundleError: the tokenizer or the text graph fails on it.
        """
        if not texts:
            return
        with self.between_frames:
            self.sentences.add(self.model.read(texts))
            self._masker.add(len(texts))
            self.texts += texts

    def change(self, index: int, text: str) -> None:
        """Ask for another sentence in the place of the one at `index`. It remembers nothing yet.

        Raises:
            IndexError: there is none.
            ValueError, TypeError, BundleError: as `add`. Nothing is changed then.
        """
        with self.between_frames:
            self._check_index(index)
            self.sentences.replace(index, {name: x[0] for name, x in self.model.read([text]).items()})
            self._masker.forget(index)
            self.texts[index] = text

    def remove(self, index: int) -> None:
        """Ask no longer for the sentence at `index`; later ones move up.

        Raises:
            IndexError: there is none.
        """
        with self.between_frames:
            self._check_index(index)
            self.sentences.remove(index)
            self._masker.remove(index)
            del self.texts[index]

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self.texts):
            raise IndexError(f"there is no sentence {index}; there are {len(self.texts)}")

    def reset(self) -> None:
        """Forget what was seen and heard; the sentences stay. Not while a stream runs in the session."""
        with self.between_frames:
            self._forget_rings()
            self._forget_sentences()
            self._pushed = None

    def _forget_rings(self) -> None:
        self.shared = SharedState.empty(self.model.config)
        self._clock = MemoryClock(self.model.config.memory_hz)

    def _forget_sentences(self) -> None:
        self.sentences.forget()
        self._masker.forget()

    def push(
        self,
        frame: NDArray[np.uint8],
        audio: NDArray[Any] | None = None,
        t: float | None = None,
        *,
        rate_hz: int = SAMPLE_RATE_HZ,
    ) -> Result:
        """Run one picture of a loop that the caller owns: a robot's camera, OpenCV, an upload.

        Args:
            frame: [H, W, 3] uint8 RGB, of any size.
            audio: the sound since the last push, which ends with this frame: [n] or [n, channels], floats in [-1, 1] or int16.
                The window that the frame gets ends at the last multiple of 10 ms that is 2 ms or more before `t`.
                None: none came. Where none comes for as long as a window, the frame has no sound, which is not silence.
            t: when the frame was captured, in seconds of any clock that goes forward; None: the time since the first push. A time
                before the last one begins the sound anew.
            rate_hz: of `audio`.

        Raises:
            ValueError: an array has another shape or type, or holds NaN or infinity; a time is no finite number.
            BundleError: the model returned NaN or infinity.
        """
        from .pushed import Pushed

        started = time.perf_counter()
        if self._pushed is None:
            self._pushed = Pushed(self.model.config)
        taken = self._pushed.take(frame, audio, t, rate_hz)
        result = self.result(taken, self.see(taken.tensor, taken.log_mel, taken.pts_s))
        return replace(result, latency_ms=(time.perf_counter() - started) * 1e3)

    def predict(
        self, tensor: NDArray[np.float32], log_mel: NDArray[np.float32] | None, pts_s: float
    ) -> Prediction:
        """Run one frame as the network takes it, and commit it if it is a memory tick.

        Args:
            tensor: [3, S, S], normalised RGB.
            log_mel: [96, 64], the sound up to the frame; None where there is no sound at all, which is not silence.
            pts_s: when the frame is, in seconds.

        Raises:
            ValueError: an array has another shape or type, or holds NaN or infinity.
            BundleError: the model returned NaN or infinity.
        """
        return self.answer(self.see(tensor, log_mel, pts_s))

    def see(self, tensor: NDArray[np.float32], log_mel: NDArray[np.float32] | None, pts_s: float) -> Seen:
        """The first half of `predict`: what no sentence changes.

        Raises:
            ValueError: as `predict`. Nothing has changed then.
        """
        config = self.model.config
        has_sound = log_mel is not None
        if log_mel is None:
            log_mel = np.zeros((PATCH_FRAMES, MEL_BINS), np.float32)
        _check("frame", tensor, (3, config.image_size, config.image_size))
        _check("log_mel", log_mel, (PATCH_FRAMES, MEL_BINS))
        if not np.isfinite(pts_s):
            raise ValueError(f"pts_s must be a finite number of seconds, not {pts_s}")

        begins_anew = self._clock.gap_s(pts_s) > self.model.run.reset_gap_s
        if begins_anew:
            self._forget_rings()
        known: dict[str, NDArray[Any]] = self.shared.feeds()
        with self.model.turn:
            present = self.model.engine.vision({**known, "frame": tensor[None]})
            present |= self.model.engine.audio({"log_mel": log_mel[None], "has_sound": np.array([has_sound])})
            tick = None
            if self._clock.advance(pts_s):
                slot = self.shared.commit(present)
                tick = slot, self.shared.ring_age
                _log.debug("%.3f s is a tick: committed to slot %d", pts_s, slot)
        return Seen({**known, **present}, begins_anew, tick)

    def answer(self, seen: Seen) -> Prediction:
        """The second half of `predict`: the sentences over what was seen. Frames come in the order in which they were seen.

        Raises:
            BundleError: as `predict`.
        """
        with self.between_frames:
            if seen.begins_anew:
                self._forget_sentences()
            with self.model.turn:
                groups = [
                    self.model.engine.step({**seen.feeds, **sentences})
                    for sentences in self._groups.of(self.sentences.feeds())
                ]
                step = together(groups) if groups else self._nothing()
                if not np.isfinite(step["mask_logits"].sum() + step["presence"].sum()):
                    raise BundleError(
                        f"{self.model.bundle.path}: the model returned NaN or infinity; export a sound checkpoint"
                    )
                if seen.tick and self.texts:
                    self.sentences.commit(step, *seen.tick)
        return Prediction(step["mask_logits"], step["presence"], seen.tick is not None)

    def result(self, frame: SeenFrame, seen: Seen) -> Result:
        """`answer`, as people are shown it: masks at the frame's own size, of the sentences that something fits.

        Raises:
            BundleError: as `predict`.
        """
        with self.between_frames:
            prediction = self.answer(seen)
            masks = self._masker.masks(prediction.mask_logits, prediction.presence, frame)
            texts = tuple(self.texts)
        return Result(
            index=frame.index,
            pts_s=frame.pts_s,
            frame=frame,
            texts=texts,
            presence=prediction.presence,
            masks=masks,
            mask_logits=prediction.mask_logits,
            latency_ms=0.0,
        )

    def _nothing(self) -> dict[str, NDArray[Any]]:
        """What the step graph returns for no sentence; graphs are not built for an empty axis."""
        size = self.model.config.mask_size
        return {"mask_logits": np.zeros((0, size, size), np.float32), "presence": np.zeros(0, np.float32)}


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
