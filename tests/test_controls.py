"""Commands for a session from other threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from refavs_rt.config import RunConfig
from refavs_rt.controls import MOST_SENTENCES, Controls
from refavs_rt.session import Model, Session, load

from .tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").path, run=RunConfig(threads=1))


@pytest.fixture
def session(model: Model) -> Session:
    return model.session(["a dog", "a cat"])


@pytest.fixture
def controls(session: Session) -> Iterator[Controls]:
    yield Controls(session)


def seen(controls: Controls) -> list[tuple[int, str, str]]:
    return [(s.key, s.text, s.label) for s in controls.sentences]


def test_nothing_happens_before_the_session_takes_it(session: Session, controls: Controls) -> None:
    future = controls.add("a bell")
    assert not future.done() and session.texts == ["a dog", "a cat"]
    controls.apply()
    assert future.result(0).key == 3 and session.texts == ["a dog", "a cat", "a bell"]


def test_keys_stay_whatever_comes_and_goes(session: Session, controls: Controls) -> None:
    futures: list[Future[Any]] = [
        controls.remove(1),
        controls.add("a bell"),
        controls.change(2, "a fox"),
        controls.rename(3, "Ding"),
    ]
    controls.apply()
    assert [future.exception(0) for future in futures] == [None] * 4
    assert seen(controls) == [(2, "a fox", "a fox"), (3, "a bell", "Ding")]
    assert session.texts == ["a fox", "a bell"]
    controls.change(3, "a drum")
    controls.apply()
    assert seen(controls)[1] == (3, "a drum", "a drum"), "a name was of the sentence that has gone"


def test_what_cannot_be_done_is_told_to_who_asked(session: Session, controls: Controls) -> None:
    futures: list[Future[Any]] = [
        controls.add(" "),
        controls.change(9, "a fox"),
        controls.remove(9),
        controls.rename(9, "x"),
    ]
    controls.apply()
    messages = [str(future.exception(0)) for future in futures]
    assert "must not be empty" in messages[0] and messages[1:] == ["this sentence has been removed"] * 3
    assert seen(controls) == [(1, "a dog", "a dog"), (2, "a cat", "a cat")] and session.texts == [
        "a dog",
        "a cat",
    ]


def test_a_result_of_before_a_command_has_the_sentences_of_then(controls: Controls) -> None:
    before = controls.sentences
    controls.change(1, "a fox")
    controls.remove(2)
    controls.add("a dog")
    controls.rename(1, "Reynard")
    controls.apply()
    assert controls.sentences_of(("a dog", "a cat")) == before
    assert [(s.key, s.label) for s in controls.sentences_of(("a fox", "a cat"))] == [
        (1, "a fox"),
        (2, "a cat"),
    ]
    assert controls.sentences_of(["a fox", "a dog"]) == controls.sentences
    assert [s.text for s in controls.sentences_of(["who", "ever"])] == ["who", "ever"]


def test_a_command_that_comes_while_all_ends_is_answered(
    controls: Controls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`close` falls between the question whether it is closed and the command's coming into the queue."""
    put = controls._commands.put

    class Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(commands, name)

        def put(self, command: Any) -> None:
            controls.close()
            put(command)

    commands = controls._commands
    monkeypatch.setattr(controls, "_commands", Late())
    with pytest.raises(ValueError, match="the stream has ended"):
        controls.add("a bell").result(1)


def test_there_is_an_end_to_sentences(controls: Controls) -> None:
    futures = [controls.add("a dog") for _ in range(MOST_SENTENCES)]
    for _ in range(MOST_SENTENCES):  # a few between two frames
        controls.apply()
    assert [future.exception(0) is None for future in futures].count(True) == MOST_SENTENCES - 2
    assert "64 sentences already" in str(futures[-1].exception(0))


def test_what_was_given_up_is_not_done(session: Session, controls: Controls) -> None:
    future = controls.add("a bell")
    assert future.cancel()
    controls.apply()
    assert session.texts == ["a dog", "a cat"]


def test_any_thread_may_ask(session: Session, controls: Controls) -> None:
    answers: list[int] = []

    def ask() -> None:
        answers.append(controls.add("a bell").result(20).key)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        controls.apply()
    assert sorted(answers) == list(range(3, 11)) and len(session.texts) == 10
