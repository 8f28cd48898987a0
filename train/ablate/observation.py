"""What an experiment is given (`Context`) and what it hands back (`Experiment`)."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from refavs_rt.config import RunConfig

from ..material import Pack
from ..predict import Predictor

T = TypeVar("T")

ALL = "all"
"""The group of all expressions that mean an object."""
NULL = "null"
"""The group of the expressions that nothing fits."""

Matrix = tuple[list[str], list[str], list[list[float]]]
"""Names of rows and columns, and a share for each cell: which class was taken for which."""


@dataclass(frozen=True)
class Observation:
    """One measured expression under one condition."""

    condition: str
    """Such as "noise 10 dB"; conditions keep the order in which they are first seen."""
    group: str
    """Kind of the expression or another series; each has its table and its line or panel of the plot."""
    clip: str
    """The unit of resampling: expressions about one clip are not independent."""
    value: float
    """J of the expression, or whatever the experiment measures."""


@dataclass(frozen=True)
class Experiment:
    """All that was measured, and what must be known to read it."""

    name: str
    """As on the command line."""
    title: str
    measure: str
    """What the values are, for the axis: "J"."""
    axis: str | None
    """Label of a numeric axis along which conditions lie, with lines for groups; None: a panel for each group."""
    baseline: str
    """The condition that the others are compared with, clip by clip where they share clips."""
    observations: list[Observation]
    notes: list[str]
    """Facts for the Markdown, each a line: data, settings, what was left out and why."""
    x: dict[str, float] = field(default_factory=dict)
    """Condition -> its place on the axis; one without a place is drawn as a level line."""
    matrix: Matrix | None = None
    """Drawn beside the plot."""
    baselines: dict[str, str] = field(default_factory=dict)
    """Condition -> its own baseline, where `baseline` would not be the fair comparison."""


class Progress(Protocol):
    """Shows a progress bar while something is iterated over."""

    def __call__(self, items: Iterable[T], total: int, unit: str = "clip") -> Iterator[T]:
        """The items as they are."""


@dataclass(frozen=True)
class Context:
    """What an experiment works with."""

    model: str
    """Bundle or run folder, as given; empty for an experiment that trains its own."""
    predictor: Callable[[RunConfig], Predictor]
    """Opens the model, to be run with these settings.

    Raises:
        BundleError, CheckpointError, EngineError: it cannot be run, or not with these settings.
    """
    data: Path | None
    """A data set in the form of Ref-AVS; None: generated scenes."""
    pack: Callable[[], Pack]
    """Opens the pack of scenes.

    Raises:
        MaterialError: it cannot be had.
    """
    clips: int
    """How many."""
    seed: int
    split: str = "test_s"
    """Of the scenes or of the data set."""
    name: str = ""
    """Of the experiment, for a module that runs several."""
    options: argparse.Namespace = field(default_factory=argparse.Namespace)
    """Values of the flags that the experiment's own `add_arguments` has added."""
