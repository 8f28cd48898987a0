"""The layer diagram of ARCHITECTURE.md holds: who may import whom, read from the source."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("kernels", "export", "train")
"""Folders at the top that are imported as parts of refavs_rt."""

ALLOWED = {
    "core": {"core", "_ingest"},
    "model": {"model", "core", "kernels"},
    "kernels": {"kernels"},
    "train": {"train", "core", "model", "kernels", "_ingest"},
    "export": {"export", "core", "model", "kernels", "_ingest"},
}
"""Layer -> the layers that it may import."""

CORE_PACKAGES = {
    "numpy",
    "onnxruntime",
    "prometheus_client",
    "shtab",
    "starlette",
    "tokenizers",
    "uvicorn",
    *sys.stdlib_module_names,
}
"""All that the core may import: it runs on a device, where there is no torch."""

OPTIONAL_MODULES = {
    "refavs_rt.dataset": {"PIL", "scipy"},
    "refavs_rt.engines.cuda": {"cuda"},
    "refavs_rt.engines.tensorrt_library": {"tensorrt", "tensorrt_rtx"},
    "refavs_rt.engines.torch": {"model", "torch"},
}
"""Modules of the core that need more, and what: each is imported only by whoever asks for it by name."""


def _sources() -> dict[str, Path]:
    """Module name -> file, for every Python file of the package, each seen once."""
    files = {}
    for folder in ("refavs_rt", *LINKED):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[0] == "refavs_rt" and len(parts) > 1 and parts[1] in LINKED:
                continue
            prefix = () if folder == "refavs_rt" else ("refavs_rt",)
            files[".".join((*prefix, *parts))] = path
    return files


def _layer(module: str) -> str:
    """The layer that a module of ours belongs to."""
    parts = module.split(".")
    named = parts[1] if len(parts) > 1 else ""
    return named if named in (*LINKED, "model", "_ingest") else "core"


def _imported(module: str, source: str) -> set[str]:
    """Dotted names that `module` imports anywhere, in functions too; relative ones made absolute."""
    package = module.removesuffix(".__init__").split(".")
    if not module.endswith(".__init__"):
        package = package[:-1]
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            # `from refavs_rt import train` imports the layer `train`; of deeper names the start says enough.
            names |= {f"{start}.{alias.name}" for alias in node.names} if start == "refavs_rt" else {start}
    return names


def _violations(module: str, source: str) -> list[str]:
    layer = _layer(module)
    extra = OPTIONAL_MODULES.get(module, set())
    found = []
    for name in sorted(_imported(module, source)):
        top = name.split(".")[0]
        if top in LINKED:
            found.append(f"{module} imports {name}: that is refavs_rt.{name}")
        elif top == "refavs_rt":
            if _layer(name) not in ALLOWED[layer] | extra:
                found.append(f"{module} ({layer}) imports {name} ({_layer(name)})")
            if name in OPTIONAL_MODULES and module == "refavs_rt.__init__":
                found.append(f"{module} imports the optional {name}")
        elif layer == "core" and top not in CORE_PACKAGES | extra:
            found.append(f"{module} (core) imports {name}")
    if module.endswith(".__main__") and re.search(r"^\s*from \.", source, re.MULTILINE):
        found.append(f"{module} imports relatively: run as a script it would load every class twice")
    return found


SOURCES = _sources()


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    assert _violations(module, SOURCES[module].read_text()) == []


def test_every_layer_was_looked_at() -> None:
    assert {_layer(module) for module in SOURCES} == set(ALLOWED)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("refavs_rt.train.loop", "import train.loss"),
        ("refavs_rt.train.loop", "from export import parity"),
        ("refavs_rt.model.eemc", "def f():\n    from kernels.x import y"),
        ("refavs_rt.train.loop", "from refavs_rt.export.agreement import compare"),
        ("refavs_rt.train.loop", "from ..export import parity"),
        ("refavs_rt.export.cli", "from refavs_rt import train"),
        ("refavs_rt.kernels.attention", "from refavs_rt.config import EDGE"),
        ("refavs_rt.kernels.attention", "from ..model.eemc import EEMC"),
        ("refavs_rt.session", "from .model.eemc import EEMC"),
        ("refavs_rt.session", "def f():\n    import torch"),
        ("refavs_rt.engines.onnx", "from ..train import loop"),
        ("refavs_rt.engines.__init__", "from ..model import eemc"),
        ("refavs_rt.__init__", "from .engines.torch import TorchEngine"),
        ("refavs_rt.train.__main__", "from .cli import main"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    assert len(_violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "refavs_rt.train.loop",
            "from refavs_rt.model.eemc import EEMC\nimport torch\nfrom .loss import dice",
        ),
        (
            "refavs_rt.engines.onnx",
            "import onnxruntime\nfrom ..contract import GRAPHS\nfrom .base import Engine",
        ),
        ("refavs_rt.engines.torch", "import torch\nfrom ..model.eemc import EEMC"),
        ("refavs_rt.stream", "from . import _ingest\nfrom refavs_rt._ingest import open_file"),
    ],
)
def test_a_right_import_is_not(module: str, source: str) -> None:
    assert _violations(module, source) == []


def test_the_links_are_links_to_the_folders_at_the_top() -> None:
    for name in LINKED:
        link = ROOT / "refavs_rt" / name
        assert link.is_symlink()
        assert link.readlink() == Path("..") / name


def test_only_the_binding_knows_python() -> None:
    knowing = [
        path.name
        for path in sorted((ROOT / "csrc").iterdir())
        if path.suffix in (".h", ".cpp")
        and re.search(r"#include\s*[<\"](pybind11/|Python\.h)", path.read_text())
    ]
    assert knowing == []
    assert "pybind11/" in (ROOT / "csrc" / "python" / "common.h").read_text()
