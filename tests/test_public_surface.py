"""What users may rely on: the names of the package, and that importing it is light."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import subprocess
import sys

import pytest

import refavs_rt
from refavs_rt import session


def test_names_of_the_package() -> None:
    assert refavs_rt.__all__ == ["Live", "__version__", "load"]
    assert set(refavs_rt.__all__) <= set(dir(refavs_rt))
    assert refavs_rt.load is session.load
    with pytest.raises(AttributeError, match=r"'refavs_rt' has no attribute 'lode'"):
        refavs_rt.lode  # noqa: B018


def test_parameters_of_load_and_stream() -> None:
    assert list(inspect.signature(refavs_rt.load).parameters) == ["bundle", "engine", "run"]
    parameters = list(inspect.signature(session.Model.stream).parameters)
    assert parameters == ["self", "source", "texts", "max_frames", "duration_s", "on_notice"]


def test_version_is_the_installed_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", refavs_rt.__version__)
    assert importlib.metadata.version("refavs-rt") == refavs_rt.__version__


@pytest.mark.parametrize("script", ["refavs-rt", "refavs-export"])
def test_a_console_script_points_at_a_function(script: str) -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=script)
    assert callable(entry.load())


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("refavs_rt", {"onnxruntime", "refavs_rt._ingest", "torch", "numpy"}),
        ("refavs_rt.cli", {"torch", "transformers", "triton"}),
        ("refavs_rt.session", {"torch", "transformers", "triton"}),
        ("refavs_rt.kernels", {"torch", "triton", "onnxruntime", "transformers"}),
        ("refavs_rt.train", {"torch", "onnxruntime", "transformers"}),
        ("refavs_rt.export", {"torch", "onnxruntime", "transformers"}),
        ("refavs_rt.train.cli", {"torch"}),
        ("refavs_rt.export.cli", {"torch"}),
        ("refavs_rt.model.eemc", {"onnxruntime", "refavs_rt._ingest", "transformers"}),
    ],
)
def test_importing_is_light(module: str, unwanted: set[str]) -> None:
    program = f"import {module}, sys; print(*sorted({unwanted!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
