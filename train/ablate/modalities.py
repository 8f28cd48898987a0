"""`modalities`: the network with cues from one or two of sound, picture and sentence."""

from __future__ import annotations

from .observation import Context, Experiment, Progress
from .training import MODALITIES, add_arguments, compare

__all__ = ["add_arguments", "run"]


def run(context: Context, progress: Progress) -> Experiment:
    """Train each variant where it is not trained yet, and evaluate all on the same clips.

    Raises:
        CheckpointError, DataError, MaterialError, TrainingError: a run or the clips cannot be had.
    """
    return compare(
        context,
        progress,
        MODALITIES,
        "modalities",
        "Modalities: cues from sound, picture and sentence, alone and in pairs",
        [
            "a withheld modality reaches no cue: sound is as without a track, visual tokens are zeros, every sentence is the "
            "same one; the mask decoder sees the pixels in every variant, so without visual cues it can still segment"
        ],
    )
