"""What an engineer wants to know of a run, as `-v` says it."""

from __future__ import annotations

import logging

from .bundle import Bundle
from .ingest import Ingest, LiveIngest
from .session import Model


def log_model(log: logging.Logger, model: Model) -> None:
    """The network: where it is from, what it is, what runs it."""
    bundle, run = model.bundle, model.run
    if isinstance(bundle, Bundle):
        log.info("digest %s, precision %s", bundle.digest, bundle.precision)
    log.info(
        "input %d x %d, %d sentences a step, memory %g Hz over %d ticks",
        model.config.image_size,
        model.config.image_size,
        model.sentences_at_once,
        model.config.memory_hz,
        model.config.window_ticks,
    )
    log.info(
        "masks above %g, of sentences with a presence of %g or more; memory mean %s, begun anew after a hole of %g s",
        run.mask_threshold,
        run.presence_threshold,
        run.memory_mean,
        run.reset_gap_s,
    )


def log_source(log: logging.Logger, source: Ingest | LiveIngest) -> None:
    """The source as it was opened."""
    live = "live, the newest frame" if isinstance(source, LiveIngest) else "every frame"
    sound = "sound" if source.has_audio else "no sound"
    log.info(
        "%s: %d x %d at %.4g fps, %s, %s; %s",
        source.path,
        source.width,
        source.height,
        source.frame_rate,
        source.video_codec,
        sound,
        live,
    )
