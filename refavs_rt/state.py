"""The state of a stream: what is remembered between frames, in numpy, explicit.

`SharedState` belongs to a camera, `SentenceState` to the sentences asked about it. Nothing else remembers: a deep copy of
the two goes on as the original does. Graph names come from the contract; the fields below carry them.

A frame reads the state (`feeds`) and changes nothing. The arrays that it reads are read-only, and a commit puts new ones in
their places. So an engine that was given an array once may keep its copy of it on the device for as long as it is given the
same array again, which is from one tick to the next, and nothing else says when the copy is out of date.

At a memory tick the runtime commits what the graphs returned:

    ring[oldest slot] := keys and values of the tick,  ages + 1,  the slot's age := 1
    memory := m + w (o - m),  count := count + 1

with o the attended outputs before the output projection, m the memory and w its weight (`memory_weight`):

    cumulative   w = 1 / (count + 1)
    exponential  w = 1 at the first tick, `memory_decay` from then on
    window       w = 1 / (min(count, R) + 1),  m = mean of the last min(count, R) outputs,  R = W - 1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import ModelConfig, RunConfig
from .contract import TensorSpec, graph_specs

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by their name in the contract."""


@dataclass
class SharedState:
    """Rings of a camera's past ticks, which all its sentences read. R = W - 1 slots, the oldest is replaced first."""

    ring_age: NDArray[np.int64]
    """[1, R]: ticks since each slot was written, 1 for the newest; 0 marks an empty slot."""
    ring_visual_k: NDArray[np.float32]
    """[1, R, P, C]"""
    ring_visual_v: NDArray[np.float32]
    ring_audio_k: NDArray[np.float32]
    """[1, R, C]"""
    ring_audio_v: NDArray[np.float32]

    @classmethod
    def empty(cls, config: ModelConfig) -> SharedState:
        """The state before the first frame."""
        specs = _step_inputs(config)
        return cls(**{f.name: _zeros(specs[f.name], 1) for f in fields(cls)})

    def feeds(self) -> dict[str, NDArray[Any]]:
        """The arrays themselves, not copies, by graph input name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def commit(self, produced: Arrays) -> int:
        """Put a tick's keys and values ([1, P, C] and [1, C]) in place of the oldest slot; return the slot."""
        ages = self.ring_age[0]
        empty = ages == 0
        slot = int(np.argmax(empty) if empty.any() else np.argmax(ages))
        for ring in ("ring_visual_k", "ring_visual_v", "ring_audio_k", "ring_audio_v"):
            values = getattr(self, ring).copy()
            values[0, slot] = np.asarray(produced[ring.removeprefix("ring_")])[0]
            setattr(self, ring, _read_only(values))
        aged = np.where(self.ring_age == 0, 0, self.ring_age + 1)
        aged[0, slot] = 1
        self.ring_age = _read_only(aged)
        return slot


@dataclass
class SentenceState:
    """What is kept for N sentences, stacked in the order in which they were added."""

    config: ModelConfig
    run: RunConfig
    text: dict[str, NDArray[Any]] = field(init=False)
    """The token mask and the text graph's outputs, each [N, ...]: constant from `add` on."""
    memory_visual: NDArray[np.float32] = field(init=False)
    """[N, P, C]: m of the visual positions."""
    memory_audio: NDArray[np.float32] = field(init=False)
    """[N, C]: m of the audio token."""
    memory_count: NDArray[np.int64] = field(init=False)
    """[N]: ticks committed since each sentence was added."""
    ring_audio_tokens: NDArray[np.float32] = field(init=False)
    """[N, R, C]: attended audio, slot by slot beside the shared ring."""
    window_visual: NDArray[np.float32] = field(init=False)
    """[N, R, P, C]: the past outputs that a window mean needs; no slots with the other means."""
    window_audio: NDArray[np.float32] = field(init=False)
    """[N, R, C], likewise."""

    def __post_init__(self) -> None:
        specs = _step_inputs(self.config)
        constant = ("token_mask", *(spec.name for spec in graph_specs(self.config)["text"].outputs))
        self.text = {name: _zeros(specs[name], 0) for name in constant}
        for name in ("memory_visual", "memory_audio", "memory_count", "ring_audio_tokens"):
            setattr(self, name, _zeros(specs[name], 0))
        slots = self.config.ring_ticks if self.run.memory_mean == "window" else 0
        for name in ("visual", "audio"):
            memory = getattr(self, f"memory_{name}")
            setattr(self, f"window_{name}", _read_only(np.zeros((0, slots, *memory.shape[1:]), memory.dtype)))

    def __len__(self) -> int:
        return len(self.memory_count)

    def add(self, text: Arrays) -> None:
        """Append sentences with nothing remembered.

        Args:
            text: `token_mask` and the text graph's outputs of the new sentences, each [n, ...].
        """
        new = len(text["token_mask"])
        self.text = {
            name: _read_only(np.concatenate([old, np.asarray(text[name])])) for name, old in self.text.items()
        }
        for name in _REMEMBERED:
            old = getattr(self, name)
            setattr(self, name, _read_only(np.concatenate([old, np.zeros((new, *old.shape[1:]), old.dtype)])))

    def remove(self, index: int) -> None:
        """Forget the sentence at `index`; later ones move up."""
        self.text = {name: _read_only(np.delete(old, index, axis=0)) for name, old in self.text.items()}
        for name in _REMEMBERED:
            setattr(self, name, _read_only(np.delete(getattr(self, name), index, axis=0)))

    def replace(self, index: int, text: Arrays) -> None:
        """Another sentence in the place of the one at `index`, with nothing remembered.

        Args:
            text: as `add` takes it, of one sentence.
        """
        self.text = {name: _with_row(old, index, text[name]) for name, old in self.text.items()}
        for name in _REMEMBERED:
            setattr(self, name, _with_row(getattr(self, name), index, 0))

    def forget(self) -> None:
        """Every sentence remembers nothing, as when it was added."""
        for name in _REMEMBERED:
            setattr(self, name, _read_only(np.zeros_like(getattr(self, name))))

    @property
    def memory_weight(self) -> NDArray[np.float32]:
        """[N]: w, the weight of the present output in the mean."""
        count = self.memory_count
        if self.run.memory_mean == "exponential":
            weight = np.where(count == 0, 1.0, self.run.memory_decay)
        elif self.run.memory_mean == "window":
            weight = 1.0 / (np.minimum(count, self.config.ring_ticks) + 1)
        else:
            weight = 1.0 / (count + 1)
        return weight.astype(np.float32)

    def feeds(self) -> dict[str, NDArray[Any]]:
        """Every per-sentence input of the step graph, by name; the arrays themselves, not copies."""
        kept = ("memory_visual", "memory_audio", "memory_count", "ring_audio_tokens", "memory_weight")
        return {**self.text, **{name: getattr(self, name) for name in kept}}

    def commit(self, produced: Arrays, slot: int, ring_age: NDArray[np.int64]) -> None:
        """Take a tick into the memory of every sentence.

        Args:
            produced: the step graph's outputs.
            slot: where the shared ring took the same tick.
            ring_age: [1, R], the shared ring's ages after that.
        """
        tokens, visual, audio = (
            np.asarray(produced[name]) for name in ("audio_token", "attended_visual", "attended_audio")
        )
        self.ring_audio_tokens = _with_slot(self.ring_audio_tokens, slot, tokens)
        if self.run.memory_mean == "window":
            self.memory_count = _read_only(self.memory_count + 1)
            self.window_visual = _with_slot(self.window_visual, slot, visual)
            self.window_audio = _with_slot(self.window_audio, slot, audio)
            seen = (ring_age >= 1) & (ring_age <= self.memory_count[:, None])  # [N, R]
            share = (seen / seen.sum(axis=1, keepdims=True)).astype(np.float32)
            self.memory_visual = _read_only(np.einsum("nr,nrpc->npc", share, self.window_visual))
            self.memory_audio = _read_only(np.einsum("nr,nrc->nc", share, self.window_audio))
            return
        weight = self.memory_weight
        self.memory_visual = _read_only(
            self.memory_visual + weight[:, None, None] * (visual - self.memory_visual)
        )
        self.memory_audio = _read_only(self.memory_audio + weight[:, None] * (audio - self.memory_audio))
        self.memory_count = _read_only(self.memory_count + 1)


_REMEMBERED = (
    "memory_visual",
    "memory_audio",
    "memory_count",
    "ring_audio_tokens",
    "window_visual",
    "window_audio",
)


def _step_inputs(config: ModelConfig) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in graph_specs(config)["step"].inputs}


def _zeros(spec: TensorSpec, dynamic: int) -> NDArray[Any]:
    """An array of `spec` with its dynamic axes of length `dynamic`."""
    return _read_only(
        np.zeros([dynamic if isinstance(axis, str) else axis for axis in spec.shape], spec.dtype)
    )


def _with_row(rows: NDArray[Any], index: int, values: Any) -> NDArray[Any]:
    """[N, ...] with other values in one row."""
    changed = rows.copy()
    changed[index] = values
    return _read_only(changed)


def _with_slot(rings: NDArray[Any], slot: int, values: NDArray[Any]) -> NDArray[Any]:
    """[N, R, ...] with [N, ...] in one slot."""
    changed = rings.copy()
    changed[:, slot] = values
    return _read_only(changed)


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    values.flags.writeable = False
    return values
