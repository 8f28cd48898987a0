"""Masks as PNG files in a folder."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from refavs_rt.masks import Mask
from refavs_rt.png import encode_mask
from refavs_rt.sink import SinkError

from .base import Facts, Output

if TYPE_CHECKING:
    from refavs_rt.result import Result

INDEX = "index.jsonl"
_QUEUED_FRAMES = 4
_PERIOD_S = 0.1
"""How long Ctrl-C may wait where the disk is slow."""


@dataclass(frozen=True)
class _Frame:
    index: int
    pts_s: float
    texts: Sequence[str]
    masks: Mask


class MaskFilesOutput(Output):
    """`INDEX_SENTENCE.png` for each frame and sentence: 8 bits, 255 where the mask is.

    INDEX is the frame's, of six digits or more, SENTENCE the sentence's place among the frame's, from 0 on. A line of
    `index.jsonl` follows a frame's files:

        {"index": 12, "pts_s": 0.48, "masks": [{"text": "the dog that barks", "file": "000012_0.png"}]}

    Each file is whole or not there. They are written in a thread of its own: a file as source waits for it, of a live source
    frames are left out and counted.

    Raises:
        SinkError: the folder cannot be made, or holds something.
    """

    def __init__(self, folder: Path, facts: Facts) -> None:
        self._folder = folder
        self._waits = not facts.is_live
        self._index = _begin(folder)
        self.dropped = 0
        """Frames of a live source that there was no time for."""
        self._notices: list[tuple[float, str]] = []
        self._error: BaseException | None = None
        self._frames: queue.Queue[_Frame | None] = queue.Queue(_QUEUED_FRAMES)
        self._thread = threading.Thread(target=self._run, name="refavs-masks", daemon=True)
        self._thread.start()

    @property
    def summary(self) -> str:
        left_out = f", {self.dropped} frames left out" if self.dropped else ""
        return f"wrote {self._folder}{left_out}"

    @property
    def fields(self) -> Mapping[str, str]:
        return {"path": str(self._folder)}

    def write(self, result: Result) -> None:
        self._rethrow()
        frame = _Frame(result.index, result.pts_s, result.texts, result.masks)
        while True:
            try:
                self._frames.put(frame, block=self._waits, timeout=_PERIOD_S)
                return
            except queue.Full:
                if not self._waits:
                    self._drop(frame)
                    return

    def close(self) -> None:
        self._end()
        self._rethrow()

    def abort(self) -> None:
        self._end()  # what went wrong is known

    def take_notices(self) -> list[tuple[float, str]]:
        notices, self._notices = self._notices, []
        return notices

    def _drop(self, frame: _Frame) -> None:
        if not self.dropped:
            self._notices.append((frame.pts_s, f"{self._folder}: the disk is too slow; masks are left out"))
        self.dropped += 1

    def _end(self) -> None:
        if self._thread.is_alive():
            self._frames.put(None)
            self._thread.join()
        try:
            self._index.close()
        except OSError as error:
            self._error = self._error or error

    def _run(self) -> None:
        while (frame := self._frames.get()) is not None:
            if self._error is None:
                try:
                    self._save(frame)
                except BaseException as error:  # whatever it is, whoever writes must hear of it
                    self._error = error

    def _save(self, frame: _Frame) -> None:
        named = []
        for sentence, (text, mask) in enumerate(zip(frame.texts, frame.masks, strict=True)):
            name = f"{frame.index:06d}_{sentence}.png"
            hidden = self._folder / f".{name}.partial"
            hidden.write_bytes(encode_mask(mask))
            os.replace(hidden, self._folder / name)
            named.append({"text": text, "file": name})
        record = {"index": frame.index, "pts_s": round(frame.pts_s, 6), "masks": named}
        self._index.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._index.flush()

    def _rethrow(self) -> None:
        if self._error is not None:
            if isinstance(self._error, OSError):
                raise SinkError(
                    f"{self._folder}: masks cannot be written ({self._error.strerror}); check the disk"
                ) from self._error
            raise self._error


def _begin(folder: Path) -> IO[str]:
    """Make the folder, and its index."""
    try:
        folder.mkdir(exist_ok=True)
        if any(folder.iterdir()):
            raise SinkError(f"{folder}: holds files already; name a new folder for the masks, or empty it")
        return open(folder / INDEX, "w", encoding="utf-8")
    except OSError as error:
        raise SinkError(
            f"{folder}: masks cannot be written there ({error.strerror}); name another folder"
        ) from error
