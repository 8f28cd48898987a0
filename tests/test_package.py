"""What is built and installed: the wheel, and how pytest treats benchmarks in a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout. Its extension was compiled by `make dev`, and is not compiled again."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_installs_one_top_level_package(wheel: zipfile.ZipFile) -> None:
    """The distribution `kernels` exists, and transformers imports whatever answers to that name."""
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"refavs_rt"}


@pytest.mark.parametrize("folder", ["kernels", "export", "train"])
def test_the_wheel_holds_the_linked_folders_as_files(wheel: zipfile.ZipFile, folder: str) -> None:
    names = set(wheel.namelist())
    for path in (ROOT / folder).rglob("*.py"):
        name = f"refavs_rt/{path.relative_to(ROOT).as_posix()}"
        assert name in names
        assert wheel.read(name) == path.read_bytes()


def test_the_wheel_holds_the_extension_the_type_marker_and_the_assets(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "refavs_rt/py.typed" in names
    assert any(name.startswith("refavs_rt/_ingest.") and name.endswith(".so") for name in names)
    for path in (ROOT / "refavs_rt" / "assets").rglob("*"):
        assert path.is_dir() or path.relative_to(ROOT).as_posix() in names


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    unwanted = ("__pycache__", "/csrc/", ".cpp", "/tests/", ".git", ".venv", "CMake")
    assert [name for name in wheel.namelist() if any(part in name for part in unwanted)] == []


def test_the_wheel_imports_from_an_empty_folder(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Without the checkout, and without any other package: the top of each part is light."""
    wheel.extractall(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import refavs_rt, refavs_rt.kernels, refavs_rt.export, refavs_rt.train\n"
        "print(refavs_rt.train.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.strip() == str(tmp_path / "refavs_rt" / "train" / "__init__.py"), done.stderr


def test_train_runs_from_the_checkout() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "train", "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: python -m train")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder under the project's pytest configuration, with one test and one benchmark."""
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
        monkeypatch.delenv(name)  # a pytest within one of several processes would take itself for one of them
    for name in ("pyproject.toml", "conftest.py"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    for folder, argument in (("tests", ""), ("benchmarks", "benchmark")):
        (tmp_path / folder).mkdir()
        body = "benchmark(int)" if argument else "pass"
        (tmp_path / folder / "test_it.py").write_text(f"def test_it({argument}):\n    {body}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        ([], "tests/test_it.py"),
        (["--benchmark-only"], "benchmarks/test_it.py"),
        (["."], "tests/test_it.py"),
        (["--benchmark-only", "benchmarks"], "benchmarks/test_it.py"),
    ],
)
def test_pytest_runs_benchmarks_only_when_asked(checkout: Path, arguments: list[str], passed: str) -> None:
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [line for line in done.stdout.splitlines() if "::test_it " in line]
    assert [line.split("::")[0] for line in results if "PASSED" in line] == [passed]


@pytest.mark.parametrize("marker", ["media", "gpu"])
@pytest.mark.parametrize("required", [True, False])
def test_a_missing_device_or_package_skips_or_fails(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, marker: str, required: bool
) -> None:
    lines = ["import pytest", f"pytestmark = pytest.mark.{marker}", "def test_it():", "    pass"]
    (checkout / "tests" / "test_it.py").write_text("\n".join(lines))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv(f"REFAVS_REQUIRE_{marker.upper()}", "1" if required else "0")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=checkout)
    assert ("1 error" if required else "1 skipped") in done.stdout
    assert done.returncode == (1 if required else 0)
