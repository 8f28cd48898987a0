"""What was measured, by machine: `benchmarks/results/MACHINE/results.json`, written anew after each benchmark.

    {"machine": {...}, "benchmarks": {"test_stages.py::test_step[8]": {"commit", "dirty", "versions", "seconds", "info"}}}

`seconds` has the median, the 95th percentile, the smallest and the number of rounds of what the benchmark's own clock took;
`info` is what the benchmark says besides: `extra_info` of pytest-benchmark.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refavs_rt.train.environment import environment

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FILE = "results.json"

_PACKAGES = ("onnxruntime", "torch", "transformers", "numpy")
_WRITTEN = (":!benchmarks/results", ":!docs")
"""What a run writes itself: it makes no checkout another one."""


def machine() -> dict[str, Any]:
    """The processor, and what it can use."""
    found = environment(ROOT)
    return {**found["cpu"], "platform": found["platform"], "python": found["python"]} | {
        "name": re.sub(r"\((R|TM|tm)\)", "", found["cpu"]["name"])
    }


def folder_name(described: Mapping[str, Any]) -> str:
    """Of a machine's results: its processor and cores, in small letters."""
    words = re.sub(r"[^a-z0-9.]+", "-", str(described["name"]).lower()).strip("-")
    return f"{words}-{described['cores']}-cores"


def commit(root: Path = ROOT) -> tuple[str, bool]:
    """The commit, and whether the checkout differs from it; ("", True) outside of one."""
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=20
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", ".", *_WRITTEN))
        )
    except (OSError, subprocess.SubprocessError):
        return "", True
    return head, bool(changes)


def versions() -> dict[str, str]:
    """Of what runs the networks, where it is installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Of the rounds of a benchmark."""
    return {
        "median": float(np.median(seconds)),
        "p95": float(np.quantile(seconds, 0.95)),
        "min": float(min(seconds)),
        "rounds": len(seconds),
    }


class Results:
    """The results of one machine.

    Args:
        folder: of all machines.
        described: the machine; None: this one.
    """

    def __init__(self, folder: Path = RESULTS, described: Mapping[str, Any] | None = None) -> None:
        self._described = machine() if described is None else dict(described)
        self.path = folder / folder_name(self._described) / FILE
        self.benchmarks: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            self.benchmarks = json.loads(self.path.read_text())["benchmarks"]
        self._commit, self._dirty = commit()

    def has(self, name: str) -> bool:
        """Whether this benchmark was measured at this very commit."""
        found = self.benchmarks.get(name, {"dirty": True})
        return not self._dirty and not found["dirty"] and found["commit"] == self._commit

    def add(self, name: str, seconds: Sequence[float], info: Mapping[str, Any]) -> None:
        """Keep one, in the file too, which is replaced in one move."""
        self.benchmarks[name] = {
            "commit": self._commit,
            "dirty": self._dirty,
            "versions": versions(),
            "seconds": summary(seconds),
            "info": dict(info),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = {"machine": self._described, "benchmarks": dict(sorted(self.benchmarks.items()))}
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(whole, indent=1) + "\n")
        os.replace(partial, self.path)
