"""A session against the torch stream, over more ticks than the ring, with sentences that come and go; and its clock."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from refavs_rt.bundle import Bundle, BundleError
from refavs_rt.config import TEST, MemoryMean, RunConfig
from refavs_rt.engines import EngineError
from refavs_rt.model import streaming
from refavs_rt.session import Model, Session, load

from .tiny_bundle import tiny_model, write_tiny_bundle

TEXTS = ["a barking dog", "the silent cello", "a guitar"]
TICKS = 3 * TEST.window_ticks


class Inputs:
    """Random frames and sounds; every fifth frame comes without sound."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(2)
        size = TEST.image_size
        self.frames = rng.normal(size=(count, 3, size, size)).astype(np.float32)
        self.log_mel = rng.normal(size=(count, 96, 64)).astype(np.float32)

    def push(self, session: Session, i: int, pts_s: float) -> Any:
        return session.predict(self.frames[i], self.sound(i), pts_s)

    def sound(self, i: int) -> NDArray[np.float32] | None:
        return None if i % 5 == 3 else self.log_mel[i]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return load(bundle.path, run=RunConfig(threads=1))


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return Inputs(2 * TICKS)


def torch_sentence(model: Model, text: str) -> streaming.Sentence:
    ids, mask = (torch.from_numpy(x)[0] for x in model.tokenizer.encode([text]))
    return streaming.new_sentence(tiny_model(), ids, mask)


@torch.no_grad()
def test_a_session_is_the_torch_stream(model: Model, inputs: Inputs) -> None:
    """Frames at 2 Hz: every other one is a tick. One sentence is added at the 7th frame and one removed at the 20th."""
    network = tiny_model()
    session = model.session(TEXTS[:2])
    rings, sentences = streaming.empty_rings(TEST), [torch_sentence(model, text) for text in TEXTS[:2]]
    for i in range(2 * TICKS):
        if i == 7:
            session.add(TEXTS[2])
            sentences.append(torch_sentence(model, TEXTS[2]))
        if i == 20:
            session.remove(0)
            del sentences[0]
        sound = inputs.sound(i)
        log_mel = torch.zeros(1, 96, 64) if sound is None else torch.from_numpy(sound)[None]
        expected = streaming.step(
            network,
            rings,
            sentences,
            torch.from_numpy(inputs.frames[i : i + 1]),
            log_mel,
            torch.tensor([sound is not None]),
        )
        found = inputs.push(session, i, 4.0 + i / 2)
        assert found.is_tick == (i % 2 == 0)
        if found.is_tick:
            rings, sentences = streaming.commit(rings, sentences, expected.fresh)
        np.testing.assert_allclose(found.presence, expected.presence.numpy(), atol=1e-5)
        scale = max(1.0, float(expected.mask_logits.abs().max()))
        close = np.abs(found.mask_logits - expected.mask_logits.numpy()) <= 1e-4 * scale
        assert close.mean() >= 0.999, f"frame {i}: {close.mean():.5f} of the pixels"
    assert session.texts == TEXTS[1:]
    np.testing.assert_array_equal(session.shared.ring_age, rings.age.numpy())
    np.testing.assert_allclose(session.shared.ring_visual_k, rings.visual_k.numpy(), atol=1e-5)
    for i, sentence in enumerate(sentences):
        assert session.sentences.memory_count[i] == sentence.count
        np.testing.assert_allclose(
            session.sentences.memory_visual[i], sentence.memory_visual.numpy(), atol=1e-5
        )
        np.testing.assert_allclose(
            session.sentences.ring_audio_tokens[i], sentence.ring_audio_tokens.numpy(), atol=1e-5
        )


def test_a_frame_between_ticks_leaves_no_trace(model: Model, inputs: Inputs) -> None:
    plain, busy = model.session(TEXTS), model.session(TEXTS)
    for i in range(6):
        expected = inputs.push(plain, i, float(i))
        found = inputs.push(busy, i, float(i))
        np.testing.assert_array_equal(found.mask_logits, expected.mask_logits)
        for between in (0.1, 0.5, 0.9):
            assert not inputs.push(busy, 10 + i, i + between).is_tick


def test_sentences_do_not_see_each_other(model: Model, inputs: Inputs) -> None:
    together = model.session(TEXTS)
    alone = [model.session([text]) for text in TEXTS]
    for i in range(6):
        found = inputs.push(together, i, float(i))
        for row, session in enumerate(alone):
            np.testing.assert_allclose(
                found.mask_logits[row], inputs.push(session, i, float(i)).mask_logits[0], atol=1e-3
            )


def test_more_sentences_than_a_step_takes_run_in_groups(model: Model, inputs: Inputs) -> None:
    texts = [f"dog {i}" for i in range(11)]
    together, alone = model.session(texts), [model.session([text]) for text in texts]
    assert len(texts) > model.sentences_at_once
    for i in range(4):
        found = inputs.push(together, i, float(i))
        assert found.presence.shape == (11,)
        for row, session in enumerate(alone):
            wanted = inputs.push(session, i, float(i))
            np.testing.assert_allclose(found.mask_logits[row], wanted.mask_logits[0], atol=1e-3)
        if i == 1:  # one goes from the first group, so that all move up
            together.remove(3)
            del alone[3], texts[3]
            together.add("a late one")
            alone.append(model.session(["a late one"]))
            alone[-1].shared = copy.deepcopy(together.shared)
            alone[-1]._clock = copy.deepcopy(together._clock)
    np.testing.assert_array_equal(together.sentences.memory_count, [4] * 10 + [2])


def test_a_changed_sentence_begins_anew_and_the_others_go_on(model: Model, inputs: Inputs) -> None:
    changed, plain = model.session(TEXTS), model.session(TEXTS)
    for i in range(3):
        inputs.push(changed, i, float(i))
        inputs.push(plain, i, float(i))
    changed.change(1, "a goose")
    plain.add("a goose")
    assert changed.texts == [TEXTS[0], "a goose", TEXTS[2]]
    for i in range(3, 6):
        found, wanted = inputs.push(changed, i, float(i)), inputs.push(plain, i, float(i))
        np.testing.assert_allclose(found.mask_logits, wanted.mask_logits[[0, 3, 2]], atol=1e-4)
        np.testing.assert_allclose(found.presence, wanted.presence[[0, 3, 2]], atol=1e-5)
    np.testing.assert_array_equal(changed.sentences.memory_count, [6, 3, 6])


def test_a_sentence_is_read_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(bundle.path, run=RunConfig(threads=1))
    read: list[int] = []
    text = model.engine.text

    def counting(feeds: Any) -> Any:
        read.append(len(feeds["token_ids"]))
        return text(feeds)

    monkeypatch.setattr(model.engine, "text", counting)
    session = model.session(TEXTS)
    session.remove(0)
    session.add("a goose", TEXTS[0])
    session.change(0, "a goose")
    assert read == [3, 1]
    fresh = load(bundle.path, run=RunConfig(threads=1)).read(["a goose", TEXTS[0]])
    for name, rows in model.read(["a goose", TEXTS[0]]).items():
        np.testing.assert_allclose(rows, fresh[name], atol=1e-5)


def test_sound_silence_and_no_sound_are_three_things(model: Model, inputs: Inputs) -> None:
    silence = np.full((96, 64), np.log(0.01), np.float32)
    heard = []
    for sound in (inputs.log_mel[0], silence, None):
        session = model.session(TEXTS)
        assert session.predict(inputs.frames[0], sound, 0.0).is_tick
        heard.append(session.sentences.ring_audio_tokens.copy())
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(heard[one] - heard[other]).max() > 1e-3


def test_a_session_without_sentences_remembers_for_later_ones(model: Model, inputs: Inputs) -> None:
    early, late, fresh = model.session(), model.session(TEXTS[1:2]), model.session(TEXTS[:1])
    for i in range(5):
        nothing = inputs.push(early, i, float(i))
        inputs.push(late, i, float(i))
    assert nothing.mask_logits.shape == (0, TEST.mask_size, TEST.mask_size) and nothing.presence.shape == (0,)
    early.add(TEXTS[0])
    late.add(TEXTS[0])
    found, expected = inputs.push(early, 5, 5.0), inputs.push(late, 5, 5.0)
    np.testing.assert_allclose(found.mask_logits[0], expected.mask_logits[1], atol=1e-3)
    assert np.abs(found.mask_logits - inputs.push(fresh, 5, 5.0).mask_logits).max() > 1e-3


@pytest.mark.parametrize("mean", ["exponential", "window"])
def test_other_means_run_and_differ_in_time(
    bundle: Bundle, model: Model, inputs: Inputs, mean: MemoryMean
) -> None:
    other = load(bundle.path, run=RunConfig(memory_mean=mean, threads=1)).session(TEXTS)
    cumulative = model.session(TEXTS)
    differ = []
    for i in range(TICKS):
        found, expected = inputs.push(other, i, float(i)), inputs.push(cumulative, i, float(i))
        differ.append(float(np.abs(found.mask_logits - expected.mask_logits).max()))
    assert differ[0] == 0.0 and differ[-1] > 1e-4


@pytest.mark.parametrize(
    ("memory_hz", "pts", "ticks"),
    [
        (1.0, [7.3, 7.4, 8.2, 8.31, 8.4, 9.3, 9.31], [7.3, 8.31, 9.3]),
        (1.0, [0, 0.1, 5.5, 5.6, 6.0, 6.1], [0, 5.5, 6.0]),  # a gap is one tick, and the raster stays
        (2.0, [0, 0.4, 0.5, 0.9, 1.0], [0, 0.5, 1.0]),
        (1.0, [1 / 3 + k for k in range(12)], [1 / 3 + k for k in range(12)]),  # sums of fractions
        (1.0, [100.0, 100.5, 101.0, 0.0, 0.5, 1.0], [100.0, 101.0, 0.0, 1.0]),  # the source began again
        (1.0, [10.0, 9.96, 10.04, 11.0], [10.0, 11.0]),  # a small step back
    ],
)
def test_memory_ticks(
    bundle: Bundle, model: Model, inputs: Inputs, memory_hz: float, pts: list[float], ticks: list[float]
) -> None:
    config = replace(TEST, memory_hz=memory_hz)
    timed = Model(replace(bundle, config=config), model.engine, model.run)
    session = timed.session()
    assert [t for t in pts if inputs.push(session, 0, t).is_tick] == ticks


def test_after_a_hole_longer_than_the_memory_reaches_nothing_is_remembered(
    bundle: Bundle, model: Model, inputs: Inputs
) -> None:
    session, fresh = (
        Model(bundle, model.engine, RunConfig(reset_gap_s=6.0)).session(TEXTS) for _ in range(2)
    )
    for i in range(4):
        inputs.push(session, i, float(i))
    remembered = inputs.push(session, 5, 9.0)  # a hole of six seconds is not more than that
    assert remembered.is_tick and session.sentences.memory_count.tolist() == [5] * len(TEXTS)
    for i in range(6, 9):  # and one that is
        found, expected = inputs.push(session, i, 10.0 + i), inputs.push(fresh, i, 10.0 + i)
        assert found.is_tick and expected.is_tick
        np.testing.assert_array_equal(found.mask_logits, expected.mask_logits)
        np.testing.assert_array_equal(found.presence, expected.presence)
    assert session.sentences.memory_count.tolist() == [3] * len(TEXTS)
    np.testing.assert_array_equal(session.shared.ring_age, fresh.shared.ring_age)


def test_wrong_arrays_are_refused(model: Model, inputs: Inputs) -> None:
    session = model.session(TEXTS[:1])
    frame, patch = inputs.frames[0], inputs.log_mel[0]
    for damaged in (np.nan, np.inf):
        with pytest.raises(ValueError, match="frame holds NaN or infinity"):
            session.predict(np.where(frame == frame[0, 0, 0], damaged, frame).astype(np.float32), patch, 0.0)
        with pytest.raises(ValueError, match="log_mel holds NaN or infinity"):
            session.predict(frame, np.where(patch == patch[3, 3], damaged, patch).astype(np.float32), 0.0)
        with pytest.raises(ValueError, match="pts_s must be a finite number"):
            session.predict(frame, patch, damaged)
    with pytest.raises(ValueError, match=r"frame must be float32 \[3, 64, 64\], not float64 \[3, 64, 64\]"):
        session.predict(frame.astype(np.float64), patch, 0.0)
    with pytest.raises(ValueError, match=r"log_mel must be float32 \[96, 64\], not float32 \[64, 96\]"):
        session.predict(frame, patch.T, 0.0)
    assert not session.shared.ring_age.any()
    assert session.predict(frame, patch, 0.0).is_tick


def test_a_model_that_returns_nan_is_refused(model: Model, bundle: Bundle, inputs: Inputs) -> None:
    class Broken:
        name, device, runs_side_by_side = "broken", "none", False
        text, vision, audio = model.engine.text, model.engine.vision, model.engine.audio

        def step(self, given: Any) -> Any:
            outputs = model.engine.step(given)
            outputs["mask_logits"][0, 3, 3] = np.nan
            return outputs

    session = Model(bundle, Broken(), RunConfig()).session(TEXTS)
    with pytest.raises(BundleError, match="returned NaN"):
        inputs.push(session, 0, 0.0)
    assert not session.sentences.memory_count.any()


def test_sentences_that_cannot_be_read_change_nothing(model: Model) -> None:
    session = model.session(TEXTS[:1])
    with pytest.raises(ValueError, match="must not be empty"):
        session.add("a dog", "")
    with pytest.raises(TypeError, match="must be a str"):
        session.add(3)
    with pytest.raises(ValueError, match="must not be empty"):
        session.change(0, "")
    with pytest.raises(IndexError, match="no sentence 1; there are 1"):
        session.change(1, "a dog")
    with pytest.raises(IndexError, match="no sentence 1; there are 1"):
        session.remove(1)
    with pytest.raises(IndexError):
        session.remove(-1)
    assert session.texts == TEXTS[:1] and len(session.sentences) == 1


def test_load_names_what_is_wrong(tmp_path: Any, bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no such bundle folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(EngineError, match="no engine 'tpu'"):
        load(bundle.path, engine="tpu")
