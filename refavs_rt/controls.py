"""What is asked of a session while it runs, from other threads: sentences that come, change and go, and pauses.

A command waits until the session's own thread is between two frames and takes it there (`apply`); whoever gave it waits for
its `Future`. So the session needs no lock, and a sentence takes effect with the next frame.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TypeVar

from .session import Session

_Done = TypeVar("_Done")

_MOST_AT_ONCE = 4
"""Between two frames, so that those who ask much do not hold up the stream."""
_KEPT = 32
"""Sets of sentences that are remembered: more than commands are taken while a result is on its way."""
MOST_SENTENCES = 64
"""In a session that people talk to; eight run at the price of little more than one, and each eight more cost another step."""


@dataclass(frozen=True)
class Sentence:
    """One that is asked for."""

    key: int
    """Its own for as long as the session lasts, whatever comes and goes beside it."""
    text: str
    label: str
    """What people see; the text, unless it was renamed."""


class Controls:
    """Commands for a session. All methods but `apply` may be called from any thread."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._next_key = 0
        self._history: tuple[tuple[Sentence, ...], ...] = (tuple(self._new(text) for text in session.texts),)
        """Newest first; replaced as a whole, since other threads read it."""
        self._paused = False
        self._closed = False

    @property
    def sentences(self) -> tuple[Sentence, ...]:
        """Those of the session, in its order."""
        return self._history[0]

    def sentences_of(self, texts: Sequence[str]) -> tuple[Sentence, ...]:
        """Those of a result, in its order: it may be of before the last commands.

        Args:
            texts: of the result.
        """
        return next(x for x in (*self._history, self._unknown(texts)) if [y.text for y in x] == list(texts))

    @property
    def is_paused(self) -> bool:
        return self._paused

    def add(self, text: str) -> Future[Sentence]:
        """Ask for one more. Its Future raises ValueError for a sentence that cannot be read, and for one too many."""

        def do() -> Sentence:
            if len(self.sentences) >= MOST_SENTENCES:
                raise ValueError(f"there are {MOST_SENTENCES} sentences already; remove one first")
            self._session.add(text)
            sentence = self._new(text)
            self._set((*self.sentences, sentence))
            return sentence

        return self._give(do)

    def change(self, key: int, text: str) -> Future[Sentence]:
        """Ask for another sentence in the place of one; it keeps its key and loses a label of its own."""

        def do() -> Sentence:
            index = self._index(key)
            self._session.change(index, text)
            return self._put(index, Sentence(key, text, text))

        return self._give(do)

    def rename(self, key: int, label: str) -> Future[Sentence]:
        """Show a sentence under another name; it goes on as it is."""

        def do() -> Sentence:
            index = self._index(key)
            return self._put(index, replace(self.sentences[index], label=label))

        return self._give(do)

    def remove(self, key: int) -> Future[None]:
        """Ask no longer for a sentence."""

        def do() -> None:
            index = self._index(key)
            self._session.remove(index)
            self._set(self.sentences[:index] + self.sentences[index + 1 :])

        return self._give(do)

    def pause(self, paused: bool) -> Future[None]:
        """Let frames pass without looking at them, or go on; a file waits. The memory of a live source sees a hole."""

        def do() -> None:
            self._paused = paused

        return self._give(do)

    def apply(self) -> None:
        """Do the first few things that wait to be done. Only for the session's own thread, between two frames."""
        for _ in range(_MOST_AT_ONCE):
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            command()

    def close(self) -> None:
        """The session has ended: what waits, and whatever is asked for from now on, is answered with that."""
        self._closed = True
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            command()

    def _give(self, do: Callable[[], _Done]) -> Future[_Done]:
        future: Future[_Done] = Future()

        def command() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if self._closed:
                    raise ValueError("the stream has ended")
                future.set_result(do())
            except Exception as error:
                future.set_exception(error)
            except BaseException as error:  # Ctrl-C: nobody waits for ever
                future.set_exception(error)
                raise

        if self._closed:
            command()
        else:
            self._commands.put(command)
            if self._closed:  # since it was asked: nobody else takes what came after
                self.close()
        return future

    def _new(self, text: str) -> Sentence:
        self._next_key += 1
        return Sentence(self._next_key, text, text)

    def _index(self, key: int) -> int:
        for index, sentence in enumerate(self.sentences):
            if sentence.key == key:
                return index
        raise ValueError("this sentence has been removed")

    def _put(self, index: int, sentence: Sentence) -> Sentence:
        self._set((*self.sentences[:index], sentence, *self.sentences[index + 1 :]))
        return sentence

    def _set(self, sentences: tuple[Sentence, ...]) -> None:
        self._history = (sentences, *self._history)[:_KEPT]

    def _unknown(self, texts: Sequence[str]) -> tuple[Sentence, ...]:
        """Of somebody who asked the session itself."""
        return tuple(Sentence(index + 1, text, text) for index, text in enumerate(texts))
