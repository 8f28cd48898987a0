"""What runs the four graphs of a network: the protocol of all engines.

An engine on a GPU must not carry every tensor over the bus and back, so two things are agreed on:

- *Outputs may stay on the device.* Every output but the step's `mask_logits` and `presence` may be a `Held`: a handle with
  the tensor's shape and dtype, which numpy takes wherever it takes an array. Handed on to the next graph it costs nothing; its
  values are copied to the host when somebody asks for them, and once. A handle outlives the engine's next run.
- *Inputs that cannot change are copied once.* An array that is read-only and its own (`is_constant`) is taken to hold the same
  values for ever, so an engine that is given the same array object again may use the copy it has. `state.py` makes all its
  arrays so: rings and memories stand on the device, and cross the bus once a memory tick, when a commit has replaced them.

What is remembered, and by which rule, stands in `state.py` alone; no engine knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

Arrays = Mapping[str, NDArray[Any]]
"""Arrays, or `Held` tensors, by their name in the contract."""

TO_HOST = ("mask_logits", "presence")
"""Outputs that are arrays in every engine: whoever runs a frame wants them."""


class EngineError(UserError):
    """An engine that was asked for cannot run here; the message says why and what would."""


class Engine(Protocol):
    """The four graphs of one network, ready to run.

    Each method takes the inputs of its graph by name, with the types and shapes of `contract.graph_specs`, and returns its
    outputs by name. Names that are not inputs of the graph are ignored, so that callers may pass all they have. Inputs are
    not written to, and no later run changes an output. Not thread-safe: one thread at a time, but for `runs_side_by_side`.
    """

    name: str
    """As `--engine` takes it."""
    device: str
    """What it runs on, for people."""
    runs_side_by_side: bool
    """Whether one thread may run vision and audio while another runs text and step."""

    def text(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Once a sentence: token ids to text features."""

    def vision(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Once a frame."""

    def audio(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Once a frame."""

    def step(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Once a frame, all sentences together."""


class GraphByName:
    """The protocol's methods for an engine that runs any graph by its name."""

    runs_side_by_side = False

    def _run(self, graph: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        raise NotImplementedError

    def text(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("text", inputs)

    def vision(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("vision", inputs)

    def audio(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("audio", inputs)

    def step(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run("step", inputs)


class Held:
    """An output that is still on the device. `numpy.asarray` gives its values, as a read-only array.

    Args:
        shape, dtype: of the tensor.
        fetch: copies the values to the host; it is called once at most.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], fetch: Callable[[], NDArray[Any]]
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._fetch: Callable[[], NDArray[Any]] | None = fetch
        self._values: NDArray[Any] | None = None

    def fetch(self) -> NDArray[Any]:
        """The values on the host."""
        if self._fetch is not None:
            self._values, self._fetch = self._fetch(), None
            self._values.flags.writeable = False
        assert self._values is not None
        return self._values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        values = self.fetch()
        if dtype is not None and np.dtype(dtype) != values.dtype:
            if copy is False:
                raise ValueError(
                    f"a tensor of {values.dtype} cannot be seen as {np.dtype(dtype)} without a copy"
                )
            return values.astype(dtype)
        return values.copy() if copy else values

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        return self.fetch()[index]


def is_constant(values: object) -> bool:
    """Whether these values are never written again: a read-only array that is no view of another."""
    return isinstance(values, np.ndarray) and not values.flags.writeable and values.base is None
