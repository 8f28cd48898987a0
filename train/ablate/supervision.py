"""`supervision`: the dense loss without each of its parts, and with one sentence a clip."""

from __future__ import annotations

from .observation import Context, Experiment, Progress
from .training import SUPERVISION, add_arguments, compare

__all__ = ["add_arguments", "run"]


def run(context: Context, progress: Progress) -> Experiment:
    """Train each variant where it is not trained yet, and evaluate all on the same clips.

    Raises:
        CheckpointError, DataError, MaterialError, TrainingError: a run or the clips cannot be had.
    """
    return compare(
        context,
        progress,
        SUPERVISION,
        "supervision",
        "Supervision: what each part of the dense loss teaches",
        [
            "without-pixel-names, without-sound-names, without-referent-names: no classification of pixels, of sounds, of mean "
            "cues against the names of all objects; without-cue-masks: no coarse mask read off the visual cues; "
            "without-inner-layers: the sentence's mask is judged after the last decoder layer alone; one-sentence: a clip "
            "teaches one sentence, not six, at nearly the same cost"
        ],
    )
