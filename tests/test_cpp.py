"""csrc's own tests, by way of CMake, GoogleTest and ctest: what Python reaches only slowly, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "cpp-tests"


def run(program: str, *arguments: object, timeout_s: float) -> None:
    """Run one of CMake's programs; all that it says ends in the report if it fails."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    path = shutil.which(program, path=beside)
    assert path is not None, f"{program} is not installed (make dev installs it)"
    command = [path, *map(str, arguments)]
    environment = {**os.environ, "PATH": beside}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s,
        check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-20_000:]}"


@pytest.mark.timeout(900)  # the first time it compiles everything
def test_csrc_passes_its_own_tests() -> None:
    if subprocess.run(["pkg-config", "--exists", "gtest"], check=False).returncode != 0:
        if os.environ.get("REFAVS_REQUIRE_MEDIA") == "1":
            pytest.fail("GoogleTest is not installed (make dev installs libgtest-dev)", pytrace=False)
        pytest.skip("GoogleTest is not installed (make dev installs libgtest-dev)")
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two test runs in one checkout, one builds
        run(
            "cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", "-DREFAVS_TESTS=ON", "-DREFAVS_EXTENSION=OFF",
            "-DREFAVS_WERROR=ON", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1", timeout_s=120,
        )  # fmt: skip
        run("cmake", "--build", BUILD, "--target", "refavs_tests", timeout_s=600)
    run("ctest", "--test-dir", BUILD, "--output-on-failure", "--parallel", 2, timeout_s=600)
