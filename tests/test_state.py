"""The numpy state against float64 formulas over the whole history, for more ticks than the ring holds."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from refavs_rt.config import TEST, MemoryMean, RunConfig
from refavs_rt.contract import graph_specs
from refavs_rt.state import SentenceState, SharedState

TICKS = 3 * TEST.window_ticks + 2
ADDED_AT = (0, 0, 5)
RING = TEST.ring_ticks


class History:
    """Random graph outputs of each tick, kept whole in float64."""

    def __init__(self, sentences: int) -> None:
        rng = np.random.default_rng(7)
        tokens, width = TEST.visual_tokens, TEST.width
        self.shared = [
            {
                **{f"visual_{part}": rng.normal(size=(1, tokens, width)) for part in "kv"},
                **{f"audio_{part}": rng.normal(size=(1, width)) for part in "kv"},
            }
            for _ in range(TICKS)
        ]
        self.own = [
            {
                "attended_visual": rng.normal(size=(sentences, tokens, width)) + 3,
                "attended_audio": rng.normal(size=(sentences, width)) + 3,
                "audio_token": rng.normal(size=(sentences, width)),
            }
            for _ in range(TICKS)
        ]

    def mean(
        self, name: str, sentence: int, first: int, end: int, run: RunConfig
    ) -> NDArray[np.float64] | float:
        """The mean of a sentence's outputs of the ticks `first` .. `end` - 1, by its definition."""
        values = [self.own[tick][name][sentence] for tick in range(first, end)]
        if not values:
            return 0.0
        if run.memory_mean == "window":
            return np.mean(values[-RING:], axis=0)
        if run.memory_mean == "cumulative":
            return np.mean(values, axis=0)
        decay, steps = run.memory_decay, len(values) - 1
        weights = [(1 - decay) ** steps] + [decay * (1 - decay) ** (steps - i) for i in range(1, steps + 1)]
        return np.tensordot(weights, values, 1)


def text_of(sentences: int, value: float = 0.0) -> dict[str, NDArray[Any]]:
    specs = graph_specs(TEST)
    wanted = {spec.name: spec for spec in specs["text"].outputs}
    wanted["token_mask"] = specs["text"].inputs[1]
    return {
        name: np.full((sentences, *spec.shape[1:]), value, dtype=spec.dtype) for name, spec in wanted.items()
    }


def float32(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def test_shared_ring_holds_the_newest_ticks_and_their_ages() -> None:
    history = History(0)
    state = SharedState.empty(TEST)
    assert not state.ring_age.any()
    for tick in range(TICKS):
        state.commit(float32(history.shared[tick]))
        assert not any(array.flags.writeable for array in state.feeds().values()), (
            "an engine may keep its copy"
        )
        held = {tick - age + 1: slot for slot, age in enumerate(state.ring_age[0]) if age}
        assert sorted(held) == list(range(max(0, tick + 1 - RING), tick + 1))
        for when, slot in held.items():
            for name in ("visual_k", "visual_v", "audio_k", "audio_v"):
                expected = history.shared[when][name][0].astype(np.float32)
                np.testing.assert_array_equal(state.feeds()[f"ring_{name}"][0, slot], expected)


@pytest.mark.parametrize("mean", ["cumulative", "exponential", "window"])
def test_memory_is_its_formula_over_the_history(mean: MemoryMean) -> None:
    run = RunConfig(memory_mean=mean, memory_decay=0.3)
    history = History(len(ADDED_AT))
    shared, state = SharedState.empty(TEST), SentenceState(TEST, run)
    for tick in range(TICKS):
        state.add(text_of(ADDED_AT.count(tick)))
        alive = len(state)
        feeds = state.feeds()
        for i in range(alive):
            count = tick - ADDED_AT[i]
            assert feeds["memory_count"][i] == count
            # What the graph forms of them, m + w (o - m), is the mean with the present output in it.
            weight = feeds["memory_weight"][i].astype(np.float64)
            for name in ("visual", "audio"):
                past = history.mean(f"attended_{name}", i, ADDED_AT[i], tick, run)
                np.testing.assert_allclose(feeds[f"memory_{name}"][i], past, atol=2e-5)
                if mean != "window" or count < RING:
                    now = history.mean(f"attended_{name}", i, ADDED_AT[i], tick + 1, run)
                    o = history.own[tick][f"attended_{name}"][i]
                    np.testing.assert_allclose(past + weight * (o - past), now, atol=1e-6)
            if mean == "window":
                assert weight == pytest.approx(1 / (min(count, RING) + 1))
        slot = shared.commit(float32(history.shared[tick]))
        state.commit(
            {name: values[:alive] for name, values in float32(history.own[tick]).items()},
            slot,
            shared.ring_age,
        )
    for i, start in enumerate(ADDED_AT):
        for slot, age in enumerate(shared.ring_age[0]):
            assert age <= TICKS - start
            expected = history.own[TICKS - age]["audio_token"][i].astype(np.float32)
            np.testing.assert_array_equal(state.ring_audio_tokens[i, slot], expected)


@pytest.mark.parametrize("mean", ["cumulative", "exponential", "window"])
def test_removing_a_sentence_leaves_the_others_as_if_alone(mean: MemoryMean) -> None:
    run = RunConfig(memory_mean=mean)
    history = History(3)
    shared = SharedState.empty(TEST)
    both, alone = SentenceState(TEST, run), SentenceState(TEST, run)
    both.add(
        {
            name: np.concatenate([a, b, c])
            for (name, a), b, c in zip(
                text_of(1, 0).items(), text_of(1, 2).values(), text_of(1, 3).values(), strict=True
            )
        }
    )
    alone.add(text_of(1, 0))
    alone.add(text_of(1, 3))
    for tick in range(TICKS):
        slot = shared.commit(float32(history.shared[tick]))
        own = float32(history.own[tick])
        rest = {name: values[[0, 2]] for name, values in own.items()}
        if tick == TICKS - 3:
            both.remove(1)
        both.commit(own if len(both) == 3 else rest, slot, shared.ring_age)
        alone.commit(rest, slot, shared.ring_age)
    assert len(both) == 2
    for name, values in alone.feeds().items():
        np.testing.assert_array_equal(both.feeds()[name], values, err_msg=name)


def test_a_restored_state_goes_on_as_the_original() -> None:
    history = History(1)
    shared, state = SharedState.empty(TEST), SentenceState(TEST, RunConfig(memory_mean="window"))
    state.add(text_of(1))
    pairs = [(shared, state)]
    for tick in range(TICKS):
        if tick == 6:
            pairs.append(copy.deepcopy(pairs[0]))
        for one_shared, one_state in pairs:
            slot = one_shared.commit(float32(history.shared[tick]))
            one_state.commit(float32(history.own[tick]), slot, one_shared.ring_age)
    for name, values in (shared.feeds() | state.feeds()).items():
        np.testing.assert_array_equal((pairs[1][0].feeds() | pairs[1][1].feeds())[name], values, err_msg=name)


def test_feeds_fill_the_step_graphs_state_inputs() -> None:
    state = SentenceState(TEST, RunConfig())
    state.add(text_of(2))
    feeds = SharedState.empty(TEST).feeds() | state.feeds()
    produced = {spec.name for graph in ("vision", "audio") for spec in graph_specs(TEST)[graph].outputs}
    for spec in graph_specs(TEST)["step"].inputs:
        if spec.name not in produced:
            shape = tuple(2 if axis == "N" else axis for axis in spec.shape)
            assert (feeds[spec.name].shape, feeds[spec.name].dtype) == (shape, np.dtype(spec.dtype)), (
                spec.name
            )
