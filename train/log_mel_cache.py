"""Log-mel patches of clips, computed once a clip and offset: kept in memory up to a bound, and in a folder where one is given."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refavs_rt.config import MEL_BINS, PATCH_FRAMES
from refavs_rt.dataset import DataError, log_mel_patches, read_sound

_FORMAT = 1
"""Of the files; to be raised with every change of what a patch is."""


class LogMelCache:
    """Patches by sound file, count and offset; a file of another size or time of change is another file.

    Every process has its own in memory; the folder is shared, also between data sets, and can be deleted at any time.
    """

    def __init__(self, folder: Path | None = None, memory_bytes: int = 128 * 2**20) -> None:
        self.folder = folder
        self.memory_bytes = memory_bytes
        self._known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._bytes = 0
        self._can_write = folder is not None

    def patches(self, sound: Path, count: int, offset_s: float) -> tuple[NDArray[np.float32], bool]:
        """Log-mel patches [count, 96, 64] of the windows that end `offset_s` after each second, read-only, and whether there
        is a file: without one they are silent.

        Raises:
            DataError: the file cannot be read as sound.
        """
        try:
            status = sound.stat()
        except FileNotFoundError:
            return np.broadcast_to(_silent_patch(), (count, PATCH_FRAMES, MEL_BINS)), False
        except OSError as error:
            raise DataError(f"{sound} cannot be read: {error}") from error
        # Named by the clip's folder, not by its whole path, so that a data set can move.
        key = (_FORMAT, os.fsencode(sound.parent.name), status.st_size, status.st_mtime_ns, count, offset_s)
        name = hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
        known = self._known.get(name)
        if known is None:
            known = self._read(name, count)
            if known is None:
                known = log_mel_patches(read_sound(sound), count, offset_s)
                self._write(name, known)
            known.setflags(write=False)
            self._keep(name, known)
        else:
            self._known.move_to_end(name)
        return known, True

    def _keep(self, name: str, patches: NDArray[np.float32]) -> None:
        """In memory; what was asked for longest ago makes room."""
        self._known[name] = patches
        self._bytes += patches.nbytes
        while self._bytes > self.memory_bytes:
            _, oldest = self._known.popitem(last=False)
            self._bytes -= oldest.nbytes

    def _read(self, name: str, count: int) -> NDArray[np.float32] | None:
        """What the folder has; a file that is cut is computed anew."""
        if self.folder is None:
            return None
        try:
            content = (self.folder / f"{name}.f32").read_bytes()
        except OSError:
            return None
        shape = (count, PATCH_FRAMES, MEL_BINS)
        is_whole = len(content) == 4 * math.prod(shape)
        return np.frombuffer(content, "<f4").reshape(shape) if is_whole else None

    def _write(self, name: str, patches: NDArray[np.float32]) -> None:
        """In one move: other processes read and write the same folder. Where it cannot be written, training goes on without."""
        if self.folder is None or not self._can_write:
            return
        partial = self.folder / f".{name}.{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(patches.astype("<f4").tobytes())
            partial.replace(self.folder / f"{name}.f32")
        except OSError as error:
            self._can_write = False
            print(f"note: log-mels are no longer kept in {self.folder}: {error}", file=sys.stderr)
            with contextlib.suppress(OSError):
                partial.unlink()


@functools.cache
def _silent_patch() -> NDArray[np.float32]:
    """[96, 64]"""
    return log_mel_patches(None, 1, 0.0)[0]
