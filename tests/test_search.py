"""The fewest layers that stay in higher precision."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from refavs_rt.export.search import PrecisionError, fewest_kept


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 8, 9, 63, 100])
def test_the_shortest_head_that_reaches_the_bound(needed: int) -> None:
    trials: list[int] = []

    def agreement(kept: Sequence[int]) -> float:
        trials.append(len(kept))
        assert list(kept) == list(range(len(kept))), "a head of the ranking"
        return 0.9 + 0.001 * len(kept)

    kept, reached = fewest_kept(range(100), agreement, 0.9 + 0.001 * needed - 1e-9)
    assert kept == list(range(needed))
    assert reached == pytest.approx(0.9 + 0.001 * needed)
    assert len(trials) == len(set(trials)), "nothing is tried twice"
    assert len(trials) <= 2 * 7 + 1


def test_what_is_returned_was_tried_where_more_layers_are_worse() -> None:
    found = {1: 0.5, 2: 0.98, 4: 0.6, 8: 0.99}
    kept, reached = fewest_kept(range(8), lambda layers: found.get(len(layers), 0.0), 0.97)
    assert (len(kept), reached) == (2, 0.98)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_bound_out_of_reach_is_said(count: int) -> None:
    with pytest.raises(PrecisionError, match=r"agree only to 0\.8000 \(asked for: 0\.97\)"):
        fewest_kept(range(count), lambda kept: 0.8, 0.97)
