"""What runs the four graphs of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by their name in the contract."""


class EngineError(Exception):
    """An engine that was asked for cannot run here; the message says why and what would."""


class Engine(Protocol):
    """The four graphs of one bundle, ready to run.

    Each method takes the inputs of its graph by name, with the types and shapes of `contract.graph_specs`, and returns its
    outputs by name. Names that are not inputs of the graph are ignored, so that callers may pass all they have. Inputs are
    not written to, and outputs are the caller's. Not thread-safe: one thread at a time.
    """

    name: str
    """As `--engine` takes it."""
    device: str
    """What it runs on, for people."""

    def text(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Once a sentence: token ids to text features."""

    def vision(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Once a frame."""

    def audio(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Once a frame."""

    def step(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Once a frame, all sentences together."""
