"""Feed damaged files, odd addresses and broken times into csrc, with Clang's libFuzzer: `make fuzz`.

Each fuzzer begins with tests/corpus/NAME and what earlier runs kept in build/fuzz/corpus/NAME. Where one finds something, the
input is left in build/fuzz/found: mend what it shows, and put it into tests/corpus/NAME, which `make test` replays. FFmpeg's own
libraries are as the system has them, so the fuzzers see how far they come in csrc only. Exits with 1 where anything was found.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "fuzz"
CORPUS = ROOT / "tests" / "corpus"


class Fuzzer(NamedTuple):
    """What a fuzzer may take."""

    share: float  # of the time
    longest: int  # bytes of an input
    patience_s: int  # for one input
    memory_mb: int


FUZZERS = {
    "address": Fuzzer(share=0.15, longest=300, patience_s=5, memory_mb=1024),
    "sound": Fuzzer(share=0.25, longest=400, patience_s=25, memory_mb=2560),
    "demuxer": Fuzzer(share=0.6, longest=32_768, patience_s=25, memory_mb=2560),
}


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "fuzzers", nargs="*", metavar="NAME", help=f"{', '.join(FUZZERS)}; all if none is named"
    )
    parser.add_argument(
        "--seconds", type=int, default=300, help="for all of them together, without compiling"
    )
    arguments = parser.parse_args()
    names = arguments.fuzzers or list(FUZZERS)
    unknown = set(names) - set(FUZZERS)
    if unknown:
        parser.error(f"{', '.join(unknown)} is not known; there are {', '.join(FUZZERS)}")
    compile_all()
    whole = sum(FUZZERS[name].share for name in names)
    lines = [run(name, round(arguments.seconds * FUZZERS[name].share / whole)) for name in names]
    for _, line in lines:
        print(line)
    return 0 if all(good for good, _ in lines) else 1


def compile_all() -> None:
    """Build the fuzzers, with the address and undefined-behaviour sanitizers."""
    print("==> build/fuzz: compiling", flush=True)
    compiler = next(filter(None, map(shutil.which, ("clang++-14", "clang++"))), None)
    if compiler is None:
        sys.exit("error: clang++ is not installed; `make fuzz` installs it")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    cmake = shutil.which("cmake", path=path)
    if cmake is None:
        sys.exit("error: cmake is not installed; `make dev` installs it")
    configure = [
        cmake, "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={compiler}",
        "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1", "-DREFAVS_FUZZ=ON", "-DREFAVS_EXTENSION=OFF",
        "-DREFAVS_SANITIZE=fuzzer-no-link,address,undefined,float-cast-overflow",
    ]  # fmt: skip
    environment = {**os.environ, "PATH": path}
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL, env=environment)
    subprocess.run([cmake, "--build", str(BUILD)], check=True, stdout=subprocess.DEVNULL, env=environment)


def run(name: str, seconds: int) -> tuple[bool, str]:
    """Run one fuzzer. Returns whether it found nothing, and the line that says so."""
    fuzzer = FUZZERS[name]
    kept, found, log = BUILD / "corpus" / name, BUILD / "found", BUILD / f"{name}.log"
    for folder in (kept, found):
        folder.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    command = [
        str(BUILD / "csrc" / "tests" / f"fuzz_{name}"), f"-max_total_time={seconds}", f"-max_len={fuzzer.longest}",
        f"-timeout={fuzzer.patience_s}", f"-rss_limit_mb={fuzzer.memory_mb}", "-print_final_stats=1",
        f"-artifact_prefix={found}/{name}-", str(kept), str(CORPUS / name),
    ]  # fmt: skip
    print(f"==> {name}: {seconds} s", flush=True)
    started = time.monotonic()
    environment = {
        **os.environ,
        "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1",
        "LSAN_OPTIONS": f"suppressions={Path(__file__).parent}/leak.supp:print_suppressions=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=output, env=environment, cwd=BUILD)
    took = time.monotonic() - started
    runs = [
        line.split()[-1] for line in log.read_text(errors="replace").splitlines() if "executed_units" in line
    ]
    new = sorted(path.name for path in set(found.iterdir()) - before)
    line = f"fuzz {name}: {runs[0] if runs else 0} inputs, {len(new)} found, {took:.0f} s"
    if new:
        line += f" (build/fuzz/found/{', '.join(new)}; see build/fuzz/{name}.log)"
    elif done.returncode != 0:
        line += f" (it ended with status {done.returncode}; see build/fuzz/{name}.log)"
    return done.returncode == 0 and not new, line


if __name__ == "__main__":
    sys.exit(main())
