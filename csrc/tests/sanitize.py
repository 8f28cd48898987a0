"""Run csrc's own tests, and the Python tests of sources and sinks, with the sanitizers of GCC: `make sanitize`.

Each sanitizer gets a build of its own in build/sanitize-NAME, with the tests and the extension; reports lie there in reports/.
The last lines say how many tests ran, how many failed, and how many reports there were. Exits with 1 where there is any.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTHON_TESTS = ("tests/test_live.py", "tests/test_ingest.py", "tests/test_sink.py")
REPORT = re.compile(
    r"ERROR: (?:Address|Leak)Sanitizer|WARNING: ThreadSanitizer|ThreadSanitizer:DEADLYSIGNAL|: runtime error: "
)


# "undefined" without alignment and object-size, which double the time to compile, and with what it leaves out: conversions
# of numbers that are too large.
UNDEFINED = (
    "shift,integer-divide-by-zero,unreachable,vla-bound,null,return,signed-integer-overflow,bounds,nonnull-attribute,"
    "returns-nonnull-attribute,bool,enum,vptr,pointer-overflow,builtin,float-cast-overflow"
)


class Sanitizer(NamedTuple):
    """What to build with, and what to tell the sanitizer's library."""

    flags: str
    library: str
    options: dict[str, str]
    of_python: dict[str, str]
    """Options that Python needs besides."""


SANITIZERS = {
    "address": Sanitizer(
        f"address,{UNDEFINED}",
        "libasan.so",
        {
            # Whole stacks: FFmpeg is compiled without frame pointers, and the suppressions name its libraries.
            "ASAN_OPTIONS": "fast_unwind_on_malloc=0:detect_stack_use_after_return=1:strict_string_checks=1",
            "LSAN_OPTIONS": f"suppressions={HERE}/leak.supp:print_suppressions=0",
            "UBSAN_OPTIONS": f"print_stacktrace=1:suppressions={HERE}/undefined.supp",
        },
        # The interpreter keeps what it has until the process ends, whole stacks of all its objects take minutes, and pytest
        # would take the signals of a crash for itself.
        {"ASAN_OPTIONS": "detect_leaks=0:fast_unwind_on_malloc=1:handle_segv=2:handle_sigbus=2"},
    ),
    "thread": Sanitizer(
        "thread",
        "libtsan.so",
        {"TSAN_OPTIONS": f"second_deadlock_stack=1:history_size=4:suppressions={HERE}/thread.supp"},
        # Python and its packages are not compiled with the sanitizer, which then knows nothing of their locks.
        {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1:die_after_fork=0:handle_segv=2"},
    ),
}


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sanitizers", nargs="*", metavar="NAME", help=f"{', '.join(SANITIZERS)}; all if none is named"
    )
    parser.add_argument("--cpp-only", action="store_true", help="leave out the tests in Python")
    arguments = parser.parse_args()
    unknown = set(arguments.sanitizers) - set(SANITIZERS)
    if unknown:
        parser.error(f"{', '.join(unknown)} is not known; there are {', '.join(SANITIZERS)}")
    lines = [run(name, arguments.cpp_only) for name in arguments.sanitizers or SANITIZERS]
    for _, line in lines:
        print(line)
    return 0 if all(good for good, _ in lines) else 1


def run(name: str, cpp_only: bool) -> tuple[bool, str]:
    """Build and test with one sanitizer. Returns whether all was well, and the line that says so."""
    sanitizer = SANITIZERS[name]
    started = time.monotonic()
    build = ROOT / "build" / f"sanitize-{name}"
    reports = build / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    compile_all(build, sanitizer)
    print(f"==> {name}: the tests in C++", flush=True)
    tests, failed = cpp_tests(build, sanitizer, reports)
    if not cpp_only:
        print(f"==> {name}: the tests in Python", flush=True)
        more, more_failed = python_tests(build, sanitizer, reports)
        tests, failed = tests + more, failed + more_failed
    found = sum(len(REPORT.findall(path.read_text(errors="replace"))) for path in reports.iterdir())
    line = f"sanitize {name}: {tests} tests, {failed} failed, {found} reports, {time.monotonic() - started:.0f} s"
    if found:
        line += f" (see {reports.relative_to(ROOT)})"
    return tests > 0 and failed == 0 and found == 0, line


def compile_all(build: Path, sanitizer: Sanitizer) -> None:
    """Build the tests and the extension."""
    import pybind11

    print(f"==> {build.relative_to(ROOT)}: compiling", flush=True)
    configure = [
        tool("cmake"), "-S", str(ROOT), "-B", str(build), "-G", "Ninja", "-DCMAKE_CXX_COMPILER=g++", "-DCMAKE_BUILD_TYPE=None",
        "-DCMAKE_CXX_FLAGS=-O1", "-DREFAVS_TESTS=ON", f"-DREFAVS_SANITIZE={sanitizer.flags}",
        "-DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}",
    ]  # fmt: skip
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL, env=environment)
    subprocess.run(
        [tool("cmake"), "--build", str(build)], check=True, stdout=subprocess.DEVNULL, env=environment
    )


def cpp_tests(build: Path, sanitizer: Sanitizer, reports: Path) -> tuple[int, int]:
    """Run the tests in C++. Returns how many ran and how many failed."""
    results = reports.parent / "cpp.xml"
    results.unlink(missing_ok=True)
    command = [*fixed_addresses(), str(build / "csrc/tests/refavs_tests"), f"--gtest_output=xml:{results}"]
    with (reports / "cpp").open("w") as output:
        done = subprocess.run(
            command, env={**os.environ, **options(sanitizer, reports)}, stdout=output, stderr=output, cwd=ROOT
        )
    return count(results, done.returncode)


def python_tests(build: Path, sanitizer: Sanitizer, reports: Path) -> tuple[int, int]:
    """Run the tests in Python, with the extension of this build. Returns how many ran and how many failed.

    Some of them race with a clock, which a sanitizer on a busy machine may lose, so what fails is run once more.
    """
    (extension,) = build.glob("_ingest.*.so")
    libraries = [library(sanitizer.library), library("libstdc++.so")]
    starter = build / "python"
    starter.write_text(f'#!/bin/sh\nLD_PRELOAD="{" ".join(libraries)}" exec {sys.executable} "$@"\n')
    starter.chmod(0o755)
    environment = {
        **os.environ,
        **options(sanitizer, reports, sanitizer.of_python),
        "PYTHONPATH": str(HERE / "sanitized"),
        "PYTHONMALLOC": "malloc",
        "REFAVS_SANITIZED_EXTENSION": str(extension),
        "REFAVS_SANITIZED_PYTHON": str(starter),
    }

    def pytest(name: str, *tests: str) -> tuple[int, int, list[str]]:
        results = build / f"{name}.xml"
        results.unlink(missing_ok=True)
        # What the undefined-behaviour sanitizer has to say it writes to descriptor 2, which pytest must leave alone.
        command = [
            *fixed_addresses(), str(starter), "-m", "pytest", "-q", "--capture=sys", "-p", "no:cacheprovider",
            f"--junitxml={results}", *tests,
        ]  # fmt: skip
        with (reports / name).open("w") as errors:
            done = subprocess.run(command, env=environment, stderr=errors, cwd=ROOT)
        return *count(results, done.returncode), failures(results)

    tests, failed, names = pytest("python", *PYTHON_TESTS)
    if failed and len(names) == failed:
        print(f"==> once more: {', '.join(names)}", flush=True)
        _, failed, _ = pytest("python-again", *names)
    return tests, failed


def failures(results: Path) -> list[str]:
    """The tests that failed, as pytest names them."""
    if not results.exists():
        return []
    return [
        f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        for case in ElementTree.parse(results).iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]


def options(sanitizer: Sanitizer, reports: Path, more: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a sanitizer's library."""
    result = {}
    for variable, listed in sanitizer.options.items():
        parts = [
            listed,
            (more or {}).get(variable, ""),
            f"log_path={reports}/{variable.split('_')[0].lower()}",
        ]
        result[variable] = ":".join(filter(None, parts))
    return result


def count(results: Path, status: int) -> tuple[int, int]:
    """Tests that ran and that failed, from a JUnit file; a program that ended badly otherwise counts as one that failed."""
    if not results.exists():
        return 0, 1
    tests = skipped = failed = 0
    for suite in ElementTree.parse(results).iter("testsuite"):
        tests += int(suite.get("tests", 0))
        skipped += int(suite.get("skipped", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    return tests - skipped, failed if failed or status == 0 else 1


def fixed_addresses() -> list[str]:
    """What starts a program without random addresses: newer kernels have more of them than GCC 12's thread sanitizer takes."""
    prefix = ["setarch", "-R"]
    return prefix if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0 else []


def library(name: str) -> str:
    """The path of one of the compiler's libraries."""
    path = subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if path == name:
        sys.exit(f"error: {name} is missing; it comes with g++")
    return os.path.realpath(path)


def tool(name: str) -> str:
    """CMake is in the environment, or on this machine."""
    beside = Path(sys.executable).parent / name
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        sys.exit(f"error: {name} is not installed; `make dev` installs it")
    return path


if __name__ == "__main__":
    sys.exit(main())
