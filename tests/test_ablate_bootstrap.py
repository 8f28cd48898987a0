"""Intervals against scipy's bootstrap and the formulas of large samples; verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from refavs_rt.train.ablate import bootstrap
from refavs_rt.train.ablate.bootstrap import Estimate, compare, difference_estimate, mean_estimate
from refavs_rt.train.ablate.observation import ALL, NULL, Experiment, Observation

Clusters = list[list[float]]


def clusters(rng: np.random.Generator, clips: int, shift: float = 0.0) -> Clusters:
    """Values of clips that have 1 to 7 of them and a level of their own."""
    return [
        (shift + rng.normal(0.6, 0.2) + rng.normal(0, 0.1, rng.integers(1, 8))).tolist() for _ in range(clips)
    ]


def observed(values: Clusters, condition: str = "a", names: Sequence[str] | None = None) -> list[Observation]:
    names = names or [f"clip {i}" for i in range(len(values))]
    found = [
        Observation(condition, ALL, name, x)
        for name, of_clip in zip(names, values, strict=True)
        for x in of_clip
    ]
    return [found[i] for i in np.random.default_rng(1).permutation(len(found))]  # their order means nothing


def sums(values: Clusters) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array([math.fsum(x) for x in values]), np.array([float(len(x)) for x in values])


def close(found: Estimate, low: float, high: float, share: float) -> None:
    """Both ends within `share` of the interval's width."""
    assert found.low is not None and found.high is not None
    width = high - low
    assert found.low == pytest.approx(low, abs=share * width)
    assert found.high == pytest.approx(high, abs=share * width)


@pytest.mark.parametrize("clips", [6, 31])
def test_mean_is_scipys(clips: int) -> None:
    """Clips are drawn, not expressions: with 1 to 7 a clip these intervals differ."""
    values = clusters(np.random.default_rng(clips), clips)
    found = mean_estimate(observed(values), seed=3)
    theirs = stats.bootstrap(
        sums(values),
        lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(0),
        vectorized=True,
    ).confidence_interval
    flat = [x for of_clip in values for x in of_clip]
    assert found.mean == pytest.approx(math.fsum(flat) / len(flat), rel=1e-12)
    close(found, theirs.low, theirs.high, 0.04)


def test_paired_difference_is_scipys() -> None:
    """Both conditions have the same clips, one of them fewer expressions; a clip that only one has does not count."""
    rng = np.random.default_rng(5)
    values = clusters(rng, 23)
    worse = [[x - 0.05 + rng.normal(0, 0.02) for x in of_clip[: rng.integers(1, 8)]] for of_clip in values]
    lone = observed([[0.99, 0.98]], "b", ["another clip"])
    found = difference_estimate(observed(worse, "b") + lone, observed(values), seed=0)
    theirs = stats.bootstrap(
        (*sums(worse), *sums(values)),
        lambda s, n, t, m, axis: s.sum(axis=axis) / n.sum(axis=axis) - t.sum(axis=axis) / m.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(1),
        vectorized=True,
    ).confidence_interval
    close(found, theirs.low, theirs.high, 0.04)


def test_intervals_of_large_samples_are_the_formulas() -> None:
    """mean +- 1.96 sqrt(sum (s_c - mean n_c)^2) / sum n_c, the linearised variance of a ratio; alone, paired, and apart."""
    rng = np.random.default_rng(2)
    values = clusters(rng, 700)
    other = [[x + 0.3 + rng.normal(0, 0.01) for x in of_clip] for of_clip in values]

    def spread(v: Clusters) -> tuple[float, NDArray[np.float64]]:
        s, n = sums(v)
        mean = float(s.sum() / n.sum())
        return mean, (s - mean * n) / n.sum()

    (mean, terms), (other_mean, other_terms) = spread(values), spread(other)

    def check(found: Estimate, centre: float, error: float) -> None:
        assert found.mean == pytest.approx(centre, rel=1e-9)
        close(found, centre - 1.96 * error, centre + 1.96 * error, 0.05)

    own, base = observed(other, "b"), observed(values)
    apart = observed(other, "b", [f"other clip {i}" for i in range(len(other))])
    check(mean_estimate(base, 0), mean, float(np.linalg.norm(terms)))
    paired, independent = (
        float(np.linalg.norm(other_terms - terms)),
        float(np.hypot(np.linalg.norm(terms), np.linalg.norm(other_terms))),
    )
    assert paired < 0.1 * independent
    check(difference_estimate(own, base, 0), other_mean - mean, paired)
    check(difference_estimate(apart, base, 0), other_mean - mean, independent)


def test_what_is_drawn_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = observed(clusters(np.random.default_rng(0), 9))
    whole = mean_estimate(values, 4, resamples=1001)
    monkeypatch.setattr(bootstrap, "_CHUNK", 64)
    assert mean_estimate(values, 4, resamples=1001) == whole
    assert mean_estimate(values, 5, resamples=1001) != whole


def experiment(observations: list[Observation], **more: dict[str, str]) -> Experiment:
    return Experiment("x", "X", "J", None, "a", observations, [], **more)


def test_verdicts() -> None:
    """Against the baseline within each group, clip by clip: a shift of 0.02 is shown among clips that differ by 0.2."""
    rng = np.random.default_rng(7)
    levels = rng.uniform(0.2, 0.8, 40)
    observations = []
    for condition, shift in (("a", 0.0), ("b", -0.02), ("c", 0.02), ("d", 0.0)):
        for i, level in enumerate(levels):
            observations.append(Observation(condition, "g", f"{i}", level + shift + rng.normal(0, 0.01)))
    observations += [Observation(c, NULL, f"{i}", 0.5 + i / 10) for i in range(5) for c in ("a", "b")]
    observations += [Observation("b", "only b", f"{i}", 0.5) for i in range(8)]
    observations += [Observation(c, ALL, f"{i}", 0.0) for i in range(8) for c in ("b", "a")]
    rows = compare(experiment(observations), resamples=2000)
    assert [(r.group, r.condition, r.verdict, r.expressions, r.clips) for r in rows] == [
        (ALL, "a", "baseline", 8, 8),
        (ALL, "b", "no difference shown", 8, 8),
        ("g", "a", "baseline", 40, 40),
        ("g", "b", "lower", 40, 40),
        ("g", "c", "higher", 40, 40),
        ("g", "d", "no difference shown", 40, 40),
        ("only b", "b", "not compared", 8, 8),
        (NULL, "a", "baseline", 5, 5),
        (NULL, "b", "too few clips", 5, 5),
    ]
    by_name = {(r.group, r.condition): r for r in rows}
    assert by_name["g", "b"].difference is not None and by_name["g", "a"].difference is None
    assert by_name[NULL, "b"].estimate == Estimate(pytest.approx(0.7), None, None)
    assert by_name[ALL, "b"].difference == Estimate(0.0, 0.0, 0.0)


def test_a_condition_can_have_its_own_baseline() -> None:
    values = {"a": 0.1, "b": 0.5, "c": 0.7}
    observations = [Observation(c, ALL, f"{i}", v) for c, v in values.items() for i in range(6)]
    rows = compare(experiment(observations, baselines={"c": "b"}), resamples=50)
    assert [r.difference.mean for r in rows if r.difference] == pytest.approx([0.4, 0.2])
