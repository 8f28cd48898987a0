"""`make gpu`: on a machine with a GPU and no network, are the kernels right there, and how fast are they?

Needs PyTorch, Triton, transformers, NumPy and pytest, in the versions that a plain CUDA image has; installs nothing. Three
stages: the kernels' tests on the device; every op beside the reference's operators, torch's fused attention and torch's
compiler; a frame of `edge` and of `full`. Figures are written after each, so a run that is cut off loses only what it had not
measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TESTS = (
    "on_gpu", "memory_step", "memory_clip", "prompt_attention", "masked_attention", "deformable_attention", "dispatch",
    "warm_up",
)  # fmt: skip
"""tests/test_kernels_*.py that run on a device; the others compile without one."""


def main() -> int:
    """Run the command line; returns 1 where a test fails or no op could be measured."""
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), metavar="DIR")
    parser.add_argument(
        "--stages", default="tests,ops,network", metavar="A,B", help="default: tests,ops,network"
    )
    parser.add_argument(
        "--compile", default="ops,network", metavar="A,B", help="stages that try torch.compile"
    )
    parser.add_argument("--presets", default="edge,full", metavar="A,B", help="networks to measure")
    parser.add_argument(
        "--seconds", type=float, default=450.0, help="compilations stop to be tried near the end of these"
    )
    args = parser.parse_args()
    begun = time.monotonic()

    def left() -> float:
        return float(args.seconds) - (time.monotonic() - begun)

    def time_for(stage: str, seconds: float, later: int) -> bool:
        return stage in args.compile.split(",") and left() > seconds + 70 * later

    import torch

    if not torch.cuda.is_available():
        print("error: no CUDA device: `make kernels-aot` is what can be checked without one", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine()}
    stages = args.stages.split(",")
    for stage in stages:
        later = len(stages) - 1 - stages.index(stage)
        if stage == "tests":
            results["tests"] = run_tests(args.out, left() - 60 * later)
            write(results, args.out)
        elif stage == "ops":
            from .ops import measure_ops

            collect(measure_ops(partial(time_for, stage, 20.0, later), say), results, "ops", args.out)
        elif stage == "network":
            from .network import measure_networks

            networks = measure_networks(args.presets.split(","), partial(time_for, stage, later=later), say)
            collect(networks, results, "network", args.out)
        else:
            print(f"error: no stage {stage!r}; there are tests, ops and network", file=sys.stderr)
            return 2
    say(f"{time.monotonic() - begun:.0f} s; results in {args.out}")
    failed = results.get("tests", {}).get("failed", 0)
    return 1 if failed or ("ops" in stages and not results.get("ops")) else 0


def machine() -> dict[str, Any]:
    """What the figures belong to, with the bandwidth of a large copy."""
    import torch
    import triton

    from refavs_rt.kernels.timing import median_ms

    properties = torch.cuda.get_device_properties(0)
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    milliseconds = median_ms(lambda: target.copy_(source))
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True
    ).stdout.strip()
    return {
        "device": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "driver": driver,
        "copy_bytes_per_s": 2 * source.numel() * 4 / (milliseconds / 1e3),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cpu_count": os.cpu_count(),
    }


def run_tests(out: Path, seconds: float) -> dict[str, Any]:
    """The kernels' tests, in several processes where pytest-xdist is there: most of their time is compilation."""
    command = [sys.executable, "-m", "pytest", "-c", "benchmarks/gpu/pytest.ini", "--rootdir", "."]
    command += ["-v", "--tb=short", "-m", "not kernels_all"]
    command += [f"tests/test_kernels_{name}.py" for name in TESTS]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(max(1, min(14, (os.cpu_count() or 2) - 2)))]
    environment = {**os.environ, "REFAVS_REQUIRE_GPU": "1", "PYTHONPATH": str(ROOT)}
    log = out / "tests.log"
    begun = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            code = process.wait(max(30.0, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # so that it says what it knows
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            code = 124
    lines = log.read_text().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    for line in failed[:40]:
        say(line[:300])
    summary = lines[-1] if lines else ""
    say(summary)
    return {
        "code": code,
        "failed": len(failed) or int(code != 0),
        "summary": summary,
        "seconds": round(time.monotonic() - begun, 1),
    }


def collect(figures: Iterable[Any], results: dict[str, Any], stage: str, out: Path) -> None:
    """Take all of them into the results, written out as they come."""
    found: list[dict[str, Any]] = []
    results[stage] = found
    for one in figures:
        found.append(dataclasses.asdict(one))
        write(results, out)


def write(results: dict[str, Any], out: Path) -> None:
    """Figures as JSON, and as tables in Markdown."""
    from .report import markdown

    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "results.md").write_text(markdown(results))


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
