"""More sentences than a step takes at once, in groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class SentenceGroups:
    """Arrays of N sentences in groups of as many as a step takes. A group of an array that has not changed is the same array, so
    that an engine may keep its copy of it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._cut: dict[str, tuple[NDArray[Any], list[NDArray[Any]]]] = {}

    def of(self, feeds: Mapping[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
        count = len(next(iter(feeds.values())))
        if count <= self._size:
            if count:
                yield dict(feeds)
            return
        for name, whole in feeds.items():
            if name not in self._cut or self._cut[name][0] is not whole:
                self._cut[name] = (whole, [whole[i : i + self._size] for i in range(0, count, self._size)])
        for i in range(-(-count // self._size)):
            yield {name: self._cut[name][1][i] for name in feeds}


def together(groups: Sequence[Mapping[str, NDArray[Any]]]) -> Mapping[str, NDArray[Any]]:
    if len(groups) == 1:
        return groups[0]
    return {name: np.concatenate([np.asarray(group[name]) for group in groups]) for name in groups[0]}
