"""What holds for tests and benchmarks alike: benchmarks run only when asked for, and a missing device or package is said."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

_MEDIA_FOLDERS = ("/usr/share/tuxpaint/stamps", "/usr/share/gcompris-qt")
_MEDIA_PROGRAMS = ("fluidsynth", "ffmpeg", "ffprobe")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Bare `pytest` skips benchmarks, and what takes long: the kernels' tests in every combination, and `make bench-full`.

    Not by --benchmark-skip in the configuration file: `pytest --benchmark-only` would then be refused as a contradiction.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what runs in its background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    asked_for = ("benchmark_only", "benchmark_enable", "benchmark_disable")
    if not any(config.getoption(name, False) for name in asked_for):
        config.option.benchmark_skip = True
    if not config.option.markexpr:
        config.option.markexpr = "not kernels_all and not bench_full"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here, or fail where the environment says that it must be able to."""
    if item.get_closest_marker("media") and (missing := _missing_media()):
        _skip_or_fail("REFAVS_REQUIRE_MEDIA", f"not installed: {', '.join(missing)} (make dev installs them)")
    if item.get_closest_marker("gpu") and not _has_gpu():
        _skip_or_fail("REFAVS_REQUIRE_GPU", "no CUDA device")


def _skip_or_fail(variable: str, reason: str) -> None:
    if os.environ.get(variable) == "1":
        pytest.fail(f"{reason}, and {variable}=1 says that this machine has it", pytrace=False)
    pytest.skip(reason)


def _missing_media() -> list[str]:
    folders = [folder for folder in _MEDIA_FOLDERS if not os.path.isdir(folder)]
    return folders + [program for program in _MEDIA_PROGRAMS if shutil.which(program) is None]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
