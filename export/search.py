"""Which layers stay in higher precision: the fewest that keep the masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Layer = TypeVar("Layer")


class PrecisionError(Exception):
    """A precision that does not keep the masks; the message says how far it comes."""


def fewest_kept(
    ranked: Sequence[Layer], agreement: Callable[[Sequence[Layer]], float], bound: float
) -> tuple[list[Layer], float]:
    """The shortest head of a ranking, of one layer or more, that kept in higher precision brings the agreement to a bound.

    The length is doubled until the bound is reached and then halved in between: about 2 log2(n) trials. Agreement need not grow
    with every layer that is kept; what is returned was tried.

    Args:
        ranked: layers, the one that does the most harm first.
        agreement: tries a list of kept layers.
        bound: what is asked for.

    Returns:
        (the layers to keep, the agreement with them).

    Raises:
        PrecisionError: not even keeping all of them reaches it.
    """
    tried: dict[int, float] = {}

    def reaches(count: int) -> bool:
        if count not in tried:
            tried[count] = agreement(ranked[:count])
        return tried[count] >= bound

    low, high = 0, min(1, len(ranked))
    while not reaches(high):
        if high == len(ranked):
            raise PrecisionError(
                f"with {high} layers kept in higher precision the masks agree only to {tried[high]:.4f} (asked for: {bound})"
            )
        low, high = high, min(len(ranked), 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        if reaches(middle):
            high = middle
        else:
            low = middle
    return list(ranked[:high]), tried[high]
