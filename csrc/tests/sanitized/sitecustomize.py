"""Read by every Python that csrc/tests/sanitize.py starts: it takes the extension that was built with a sanitizer.

A sanitizer's library must be in a process first, so it is preloaded; but only Python and what Python starts of itself shall have
it, not ffmpeg and other programs of the tests.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "refavs_rt._ingest":
            return None
        return importlib.util.spec_from_file_location(name, os.environ["REFAVS_SANITIZED_EXTENSION"])


os.environ.pop("LD_PRELOAD", None)
sys.executable = os.environ["REFAVS_SANITIZED_PYTHON"]
sys.meta_path.insert(0, _Finder())
