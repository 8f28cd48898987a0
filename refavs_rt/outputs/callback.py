"""Results and painted frames to a function of yours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from refavs_rt.render import Image
from refavs_rt.stream import OnNotice, Source, open_for, run_session

from .base import Facts, Output

if TYPE_CHECKING:
    from refavs_rt.result import Result
    from refavs_rt.session import Model

OnResult = Callable[["Result", Image], None]
"""Takes a result and its frame [H, W, 3] RGB, painted and read-only."""


class CallbackOutput(Output):
    """Calls a function with each result and its painted frame; what it raises ends the run."""

    def __init__(self, on_result: OnResult, facts: Facts) -> None:
        self._on_result = on_result
        self._painting = facts.painting

    def write(self, result: Result) -> None:
        self._on_result(result, self._painting.of(result))

    def close(self) -> None:
        pass


def watch(
    model: Model,
    source: Source,
    texts: Sequence[str],
    on_result: OnResult,
    *,
    max_frames: int | None = None,
    duration_s: float | None = None,
    on_notice: OnNotice | None = None,
) -> None:
    """Call `on_result` for every frame of a file, or for the newest of a live source, until it ends.

    Args:
        model, source, texts, max_frames, duration_s, on_notice: as `Model.stream` takes them.
        on_result: is called on this thread; while it works, a file waits and a live source drops frames.

    Raises:
        As `Model.stream`, and what `on_result` raises.
    """
    session = model.session(texts)
    opened = open_for(model, source, max_frames=max_frames, duration_s=duration_s)
    with CallbackOutput(on_result, Facts.of(opened, model.run.presence_threshold)) as output:
        for result in run_session(session, opened, on_notice):
            output.write(result)
