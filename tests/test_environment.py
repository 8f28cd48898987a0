"""What a training ran with: the commit that git says, and nothing that names the machine."""

from __future__ import annotations

import getpass
import json
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from refavs_rt.train.environment import environment, git_state


def git(folder: Path, *arguments: str) -> str:
    """What git prints in `folder`, with a name of its own."""
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "inner").mkdir(parents=True)
    (folder / "code.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("runs/\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_the_commit_is_what_git_says(checkout: Path) -> None:
    assert environment(checkout)["git"] == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize("name", ["code.py", "new.py"])
def test_a_changed_or_unknown_file_makes_it_dirty(checkout: Path, name: str) -> None:
    (checkout / name).write_text("x = 2\n")
    assert git_state(checkout) == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": True}


def test_what_git_ignores_does_not(checkout: Path) -> None:
    (checkout / "runs").mkdir()
    (checkout / "runs" / "loss.jsonl").write_text("{}\n")
    state = git_state(checkout)
    assert state and not state["dirty"]


def test_a_package_inside_someone_elses_checkout_has_no_commit(checkout: Path) -> None:
    assert git_state(checkout / "inner") is None


def test_git_is_not_misled_by_a_hook(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that git itself starts finds GIT_DIR of another checkout in its environment."""
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    state = git_state(checkout)
    monkeypatch.undo()
    assert state == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}


def test_without_git_there_is_no_commit(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment(tmp_path)["git"] is None  # no checkout
    assert environment(tmp_path / "nowhere")["git"] is None
    git(tmp_path, "init", "-q", "empty")
    assert git_state(tmp_path / "empty") is None  # no commit yet
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(checkout) is None  # no program


def test_versions_and_hardware_are_those_of_this_process() -> None:
    found = environment()
    assert found["packages"]["torch"] == torch.__version__
    assert found["packages"]["numpy"] == np.__version__
    assert found["python"] == platform.python_version()
    assert found["cpu"]["cores"] == len(os.sched_getaffinity(0))
    assert found["cpu"]["torch_threads"] == torch.get_num_threads()
    assert 0.1 < found["cpu"]["memory_gib"] < 1e5 and found["cpu"]["name"]
    assert len(found["gpus"]) == torch.cuda.device_count()


def test_it_is_json_and_names_no_machine() -> None:
    text = json.dumps(environment())
    assert json.loads(text) == environment()
    for secret in (platform.node(), str(Path.home()), os.getcwd(), getpass.getuser()):
        assert f'"{secret}"' not in text and not (len(secret) > 4 and secret in text), secret
