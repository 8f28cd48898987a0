"""`components`: the network without its cached memory, its modality tokens, its prompt attention, and without all three."""

from __future__ import annotations

from .observation import Context, Experiment, Progress
from .training import COMPONENTS, add_arguments, compare

__all__ = ["add_arguments", "run"]


def run(context: Context, progress: Progress) -> Experiment:
    """Train each variant where it is not trained yet, and evaluate all on the same clips.

    Raises:
        CheckpointError, DataError, MaterialError, TrainingError: a run or the clips cannot be had.
    """
    return compare(
        context,
        progress,
        COMPONENTS,
        "components",
        "Components: cached memory, modality tokens, prompt attention",
        [
            "without-memory: f' = f; without-tokens: no aud and vis among the cues; without-attention: the queries get the gated "
            "mean of the cues alone"
        ],
    )
