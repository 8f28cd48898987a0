"""From a source to results: ingestion drives a session."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .ingest import Ingest, open_source
from .masks import Mask, binary_masks
from .session import Model, Session


@dataclass(frozen=True)
class Result:
    """What was found in one frame for N sentences."""

    index: int
    """Of the frame, from 0 on."""
    pts_s: float
    """When the frame is shown, in seconds of the source."""
    image: NDArray[np.uint8]
    """[H, W, 3], RGB, as the source shows it."""
    texts: tuple[str, ...]
    """The N sentences."""
    presence: NDArray[np.float32]
    """[N], the chance that anything in the frame fits each sentence."""
    masks: Mask
    """[N, H, W]; empty where the presence is below `RunConfig.presence_threshold`."""
    mask_logits: NDArray[np.float32]
    """[N, h, w], before the presence is looked at."""
    latency_ms: float
    """From the frame's leaving the decoder to this result."""


def stream(
    model: Model,
    source: str | os.PathLike[str],
    texts: Sequence[str],
    *,
    max_frames: int | None = None,
    duration_s: float | None = None,
) -> Iterator[Result]:
    """`Model.stream`: sentences and source are checked at once, frames are run as results are asked for."""
    session = model.session(texts)
    return run_session(session, open_for(model, source, max_frames=max_frames, duration_s=duration_s))


def open_for(
    model: Model,
    source: str | os.PathLike[str],
    *,
    max_frames: int | None = None,
    duration_s: float | None = None,
) -> Ingest:
    """Open a source so that its frames are as the model takes them."""
    return open_source(
        source,
        model.config.image_size,
        audio_offset_s=model.config.audio_offset_s,
        max_frames=max_frames,
        duration_s=duration_s,
    )


def run_session(session: Session, source: Ingest) -> Iterator[Result]:
    """Push every frame of an opened source into a session, and close the source at the end."""
    run = session.model.run
    with source:
        for frame in source:
            started = time.perf_counter()
            prediction = session.push(frame.tensor, frame.log_mel, frame.pts_s)
            masks = binary_masks(prediction.mask_logits, frame.image.shape[:2], run.mask_threshold)
            masks[prediction.presence < run.presence_threshold] = False
            yield Result(
                index=frame.index,
                pts_s=frame.pts_s,
                image=frame.image,
                texts=tuple(session.texts),
                presence=prediction.presence,
                masks=masks,
                mask_logits=prediction.mask_logits,
                latency_ms=(time.perf_counter() - started) * 1e3,
            )
