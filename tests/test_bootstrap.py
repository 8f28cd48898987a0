"""bootstrap.py: what it reads, what it remembers, and what it says when a step fails."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMPLETE = {"path": sys.executable, "version": (3, 12), "has_headers": True, "has_ensurepip": True}


@pytest.fixture
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bare(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A machine of a user who is not root, with apt-get and nothing else, and no .venv."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apt-get").write_text("#!/bin/sh\nexit 1\n")
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    return bootstrap


def test_pins_are_read_from_the_project(bootstrap: ModuleType) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    names = [
        requirement.split("~")[0].split(">")[0] for requirement in bootstrap._build_requirements(project)
    ]
    assert names == ["scikit-build-core", "pybind11", "cmake", "ninja"]
    assert bootstrap._torch_requirement(project).startswith("torch==2.")
    with pytest.raises(bootstrap.SetupError, match="torch"):
        bootstrap._torch_requirement("[project]")


def test_missing_packages_are_named_in_one_line_to_run(bare: ModuleType) -> None:
    interpreter = bare.Interpreter(**{**COMPLETE, "has_headers": False, "has_ensurepip": False})
    with pytest.raises(bare.SetupError) as failure:
        bare._system_packages(interpreter, "core")
    (line,) = (line for line in str(failure.value).splitlines() if "apt-get" in line)
    assert line.split()[:2] == ["sudo", "apt-get"]
    expected = {
        "g++",
        "pkg-config",
        "libavformat-dev",
        "libswresample-dev",
        "python3.12-dev",
        "python3.12-venv",
    }
    assert expected <= set(line.split())


def test_a_root_whose_apt_fails_is_told_the_same_line(
    bare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(
        bare.SetupError, match=r"(?s)failed \(exit status 1\).*sudo apt-get install .*pkg-config"
    ):
        bare._system_packages(bare.Interpreter(**COMPLETE), "core")


def test_nothing_is_asked_of_a_complete_machine(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_succeeds", lambda *command: True)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert bootstrap._system_packages(bootstrap.Interpreter(**COMPLETE), "core") is False


def test_only_the_fuzzers_ask_for_clang(bare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    known = "".join(f"{name} installed\\n" for name in bare.MEDIA)
    query = Path(os.environ["PATH"]) / "dpkg-query"
    query.write_text(f"#!/bin/sh\nprintf '{known}'\n")
    query.chmod(0o755)
    monkeypatch.setattr(bare, "_missing_for_core", lambda interpreter: [])
    interpreter = bare.Interpreter(**COMPLETE)
    assert bare._system_packages(interpreter, "dev") is False
    with pytest.raises(bare.SetupError, match="apt-get install .* clang-14 libclang-rt-14-dev"):
        bare._system_packages(interpreter, "fuzz")


def test_no_suitable_python_is_said(bare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHON", raising=False)
    with pytest.raises(
        bare.SetupError, match=r"Python 3\.1\d to 3\.14 is needed, and none of python3,.*is one"
    ):
        bare._find_interpreter()
    monkeypatch.setenv("PYTHON", "python9")
    with pytest.raises(bare.SetupError, match="PYTHON=python9 is not one"):
        bare._find_interpreter()


def test_a_python_is_inspected(bootstrap: ModuleType) -> None:
    found = bootstrap._inspect(sys.executable)
    assert found.version == sys.version_info[:2]
    assert bootstrap._inspect("/nowhere/python3") is None


def test_a_broken_environment_is_named(bare: ModuleType) -> None:
    bare.VENV.mkdir()
    with pytest.raises(bare.SetupError, match=r"does not run; remove the folder .*\.venv"):
        bare._own_interpreter()


def test_a_half_made_environment_is_removed(bare: ModuleType) -> None:
    bare.VENV.mkdir()
    bare.VENV.rmdir()
    with pytest.raises(bare.SetupError, match=r"making \.venv with Python 3\.12 failed"):
        bare._virtual_environment(bare.Interpreter("/bin/false", (3, 12), True, True))
    assert not bare.VENV.exists()


def test_a_failed_step_shows_its_end_and_the_mend(
    bootstrap: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "import sys; [print('line', i) for i in range(99)]; print('Downloading it'); sys.exit(3)"
    with pytest.raises(bootstrap.SetupError) as failure:
        bootstrap._run("doing it", [sys.executable, "-c", program], "Do this.")
    message = str(failure.value)
    assert message.startswith("doing it failed (exit status 3)")
    assert "line 98" in message and "line 60" not in message and message.endswith("Do this.")
    assert capsys.readouterr().out == "==> doing it\n    Downloading it\n"


def test_a_stamp_is_fresh_until_what_it_was_made_from_changes(bare: ModuleType) -> None:
    bare.VENV.mkdir()
    assert not bare._Stamp("core", b"a").is_fresh()
    bare._Stamp("core", b"a").write()
    assert bare._Stamp("core", b"a").is_fresh()
    assert not bare._Stamp("core", b"b").is_fresh()
    assert not bare._Stamp("dev", b"a").is_fresh()


def test_sources_change_with_a_byte_or_a_name(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    (tmp_path / "csrc").mkdir()
    source = tmp_path / "csrc" / "a.cpp"
    source.write_text("one")
    seen = [bootstrap._sources()]
    source.write_text("two")
    seen.append(bootstrap._sources())
    source.rename(tmp_path / "csrc" / "b.cpp")
    seen.append(bootstrap._sources())
    (tmp_path / "CMakeLists.txt").write_text("")
    seen.append(bootstrap._sources())
    assert len(set(seen)) == 4


def test_bare_make_says_what_there_is() -> None:
    done = subprocess.run(["make"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert {line.split()[0] for line in done.stdout.splitlines()} >= {
        "demo",
        "dev",
        "test",
        "check",
        "fix",
        "bench",
    }
