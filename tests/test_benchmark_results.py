"""Figures are kept as each benchmark ends, and what a commit has measured is not measured again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import results as module
from benchmarks.full import follow, start
from benchmarks.results import ROOT, Results, commit, summary


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def checkout(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("1")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def test_the_commit_and_whether_it_is_changed(tmp_path: Path) -> None:
    assert commit(tmp_path) == ("", True)
    root = checkout(tmp_path / "code")
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert commit(root) == (head.stdout.strip(), False)
    for written in ("benchmarks/results/here/results.json", "docs/benchmarks.md"):
        (root / written).parent.mkdir(parents=True, exist_ok=True)
        (root / written).write_text("figures")
    assert not commit(root)[1]
    (root / "code.py").write_text("2")
    assert commit(root)[1]


def test_what_is_there_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = {"name": "CPU", "cores": 2}
    monkeypatch.setattr(module, "commit", lambda: ("a", False))
    kept = Results(tmp_path, described)
    kept.add("one", [1.0], {"sentences": 1})
    assert Results(tmp_path, described).has("one") and not Results(tmp_path, described).has("two")
    assert Results(tmp_path, described).benchmarks["one"]["info"] == {"sentences": 1}
    for state in (("b", False), ("a", True), ("", True)):
        monkeypatch.setattr(module, "commit", lambda state=state: state)
        assert not Results(tmp_path, described).has("one")


def test_summary() -> None:
    rounds = [0.1 * i for i in range(1, 22)]
    found = summary(rounds)
    assert found == pytest.approx(
        {"median": np.median(rounds), "p95": np.quantile(rounds, 0.95), "min": 0.1, "rounds": 21}
    )


def test_a_benchmark_is_kept_as_pytest_benchmark_has_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "benchmarks/test_stages.py", "--benchmark-only", "-q"]
    command += ["-k", "test_masks", "--benchmark-max-time=0.05", "--benchmark-min-rounds=3"]
    command += ["--benchmark-json", str(tmp_path / "theirs.json"), f"--save-results={tmp_path / 'ours'}"]
    # pytest-xdist says in the environment that this is one of its processes; benchmarks would not run then.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "ours").glob("*/results.json")
    ours = json.loads(path.read_text())["benchmarks"]
    theirs = {
        row["name"]: row["stats"] for row in json.loads((tmp_path / "theirs.json").read_text())["benchmarks"]
    }
    assert ours.keys() == {f"test_stages.py::{name}" for name in theirs} and len(ours) == 2
    for name, stats in theirs.items():
        mine = ours[f"test_stages.py::{name}"]["seconds"]
        assert mine["median"] == pytest.approx(stats["median"])
        assert mine["min"] == pytest.approx(stats["min"]) and mine["rounds"] == stats["rounds"]


def test_what_runs_in_the_background_is_shown_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import time\nfor i in range(3): print(i, flush=True); time.sleep(0.1)\nprint('end')"
    process = start([sys.executable, "-c", script], log)
    until = time.monotonic() + 60
    shown = "".join(follow(log, lambda: process.poll() is None and time.monotonic() < until))
    assert shown == "0\n1\n2\nend\n" and process.returncode == 0
