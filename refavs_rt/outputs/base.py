"""What all outputs have in common, and what they are told of the source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from refavs_rt.ingest import Ingest, LiveIngest

from .painting import Painting

if TYPE_CHECKING:
    from refavs_rt.stream import Result


_Own = TypeVar("_Own", bound="Output")


@dataclass(frozen=True)
class Facts:
    """What an output must know before the first result."""

    source: Ingest | LiveIngest
    """Open: its size, rate, sound and counters."""
    painting: Painting

    @classmethod
    def of(cls, source: Ingest | LiveIngest, presence_threshold: float) -> Facts:
        return cls(source, Painting(source.height, source.width, presence_threshold))

    @property
    def is_live(self) -> bool:
        """Whoever is slow costs a live source frames; a file waits."""
        return isinstance(self.source, LiveIngest)


class Output(ABC):
    """Takes each result in turn, from one thread, and ends with `close` or `abort`; a `with` block does that."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know before it begins, one line each."""
        return ()

    @property
    def summary(self) -> str:
        """What became of it, in one line, once it is closed; empty where there is nothing to say."""
        return ""

    @abstractmethod
    def write(self, result: Result) -> None:
        """Add one result."""

    @abstractmethod
    def close(self) -> None:
        """Complete what was written."""

    def abort(self) -> None:
        """The run has failed: leave what was written readable."""
        self.close()

    def take_notices(self) -> list[tuple[float, str]]:
        """What has happened to it since the last call: (on the source's clock, one line)."""
        return []

    def __enter__(self: _Own) -> _Own:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
