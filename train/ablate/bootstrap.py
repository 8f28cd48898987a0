"""Means with 95% intervals, and differences to a baseline, by resampling clips.

Expressions of one clip share its pictures, sounds and objects, so clips are drawn with replacement, each with all its expressions
(a cluster bootstrap). With s_c the sum and n_c the number of the values of clip c, and w_c how often it was drawn,

    mean = sum_c w_c s_c / sum_c w_c n_c

and the interval runs from the 2.5th to the 97.5th percentile of that. A difference is taken between the means of two conditions
over the clips that both have, drawn together; where they share none, each is drawn for itself. All in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .observation import ALL, NULL, Experiment, Observation

RESAMPLES = 10_000
FEWEST_CLIPS = 6
"""With fewer clips no interval is given: five lie on one side of a true 0 by chance once in sixteen times."""
_CHUNK = 1 << 20
"""Clips that are drawn at once, over all resamples."""
_PERCENTILES = (2.5, 97.5)

Verdict = Literal["baseline", "lower", "higher", "no difference shown", "too few clips", "not compared"]


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two, and its 95% interval."""

    mean: float
    low: float | None
    """None, as `high`: of too few clips."""
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """What one condition has shown for one group."""

    condition: str
    group: str
    expressions: int
    clips: int
    estimate: Estimate
    difference: Estimate | None
    """To the baseline; None where there is nothing to compare with."""
    verdict: Verdict


def compare(experiment: Experiment, seed: int = 0, resamples: int = RESAMPLES) -> list[Comparison]:
    """Every condition in every group, in the order in which they are first seen, but all expressions that mean an object first
    and those that nothing fits last."""
    cells: dict[str, dict[str, list[Observation]]] = {}
    conditions = dict.fromkeys(o.condition for o in experiment.observations)
    for observation in experiment.observations:
        cells.setdefault(observation.group, {}).setdefault(observation.condition, []).append(observation)
    out = []
    for group in sorted(cells, key=lambda group: (group == NULL) - (group == ALL)):
        by_condition = cells[group]
        for condition in conditions:
            if condition in by_condition:
                baseline = experiment.baselines.get(condition, experiment.baseline)
                against = None if condition == baseline else by_condition.get(baseline, [])
                out.append(_compare(condition, group, by_condition[condition], against, seed, resamples))
    return out


def mean_estimate(observations: Sequence[Observation], seed: int, resamples: int = RESAMPLES) -> Estimate:
    """The mean of some observations."""
    columns = np.stack(_by_clip(observations, _clips(observations)))
    return _estimate(lambda s, n: s / n, [columns], seed, resamples)


def difference_estimate(
    observations: Sequence[Observation],
    baseline: Sequence[Observation],
    seed: int,
    resamples: int = RESAMPLES,
) -> Estimate:
    """The mean of some observations less that of others, over the clips that both have; over all where they share none."""
    clips, base_clips = _clips(observations), _clips(baseline)
    known = set(base_clips)
    shared = [clip for clip in clips if clip in known]
    own = np.stack(_by_clip(observations, shared or clips))
    base = np.stack(_by_clip(baseline, shared or base_clips))
    parts = [np.concatenate([own, base])] if shared else [own, base]
    return _estimate(lambda s, n, base_s, base_n: s / n - base_s / base_n, parts, seed, resamples)


def _compare(
    condition: str,
    group: str,
    observations: list[Observation],
    baseline: list[Observation] | None,
    seed: int,
    resamples: int,
) -> Comparison:
    """`baseline`: None for the baseline itself, empty where the group has none."""
    difference = difference_estimate(observations, baseline, seed, resamples) if baseline else None
    return Comparison(
        condition,
        group,
        len(observations),
        len(_clips(observations)),
        mean_estimate(observations, seed, resamples),
        difference,
        "baseline" if baseline is None else _verdict(difference),
    )


def _verdict(difference: Estimate | None) -> Verdict:
    if difference is None:
        return "not compared"
    if difference.low is None or difference.high is None:
        return "too few clips"
    if difference.high < 0:
        return "lower"
    return "higher" if difference.low > 0 else "no difference shown"


def _estimate(
    statistic: Callable[..., NDArray[np.float64]],
    parts: Sequence[NDArray[np.float64]],
    seed: int,
    resamples: int,
) -> Estimate:
    """A statistic of the sums of columns [M, K], those of one part over clips that are drawn together."""
    mean = float(statistic(*np.concatenate([part.sum(axis=1) for part in parts])))
    if min(part.shape[1] for part in parts) < FEWEST_CLIPS:
        return Estimate(mean, None, None)
    draws = [_draw(part, seed + i, resamples) for i, part in enumerate(parts)]
    low, high = np.percentile(statistic(*np.concatenate(draws)), _PERCENTILES)
    return Estimate(mean, float(low), float(high))


def _clips(observations: Sequence[Observation]) -> list[str]:
    return list(dict.fromkeys(o.clip for o in observations))


def _by_clip(
    observations: Sequence[Observation], clips: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number [K] of the values of each of `clips`."""
    place = {clip: i for i, clip in enumerate(clips)}
    chosen = [o for o in observations if o.clip in place]
    at = np.array([place[o.clip] for o in chosen], np.int64)
    values = np.array([o.value for o in chosen], np.float64)
    sums, counts = np.bincount(at, values, len(clips)), np.bincount(at, minlength=len(clips))
    return sums.astype(np.float64), counts.astype(np.float64)


def _draw(columns: NDArray[np.float64], seed: int, resamples: int) -> NDArray[np.float64]:
    """The sums [M, R] of the columns [M, K] over K clips drawn with replacement, R times."""
    rng = np.random.default_rng(seed)
    clips = columns.shape[1]
    out = np.empty((len(columns), resamples))
    step = max(1, _CHUNK // clips)
    for start in range(0, resamples, step):
        drawn = rng.integers(clips, size=(min(step, resamples - start), clips))
        out[:, start : start + step] = columns[:, drawn].sum(axis=-1)
    return out
