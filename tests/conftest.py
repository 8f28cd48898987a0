"""What all tests share: one thread, a folder, the packs of pictures and sounds, and where kernels run.

Imports of the training package stand in the fixtures: the kernels' tests run where its libraries are not installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from .shared import VARIABLE

if TYPE_CHECKING:
    from refavs_rt.train.material import Pack

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined, so before any is imported

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that share a tiny network wait for each other; on a machine that does other work, for minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the programs that tests start
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def shared_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """pytest's own folder of this run, of which each of several processes has a part; pytest removes it some runs later."""
    # The mark of such a process; of its environment nothing is, which programs that it starts have too.
    if hasattr(request.config, "workerinput"):
        os.environ[VARIABLE] = str(tmp_path_factory.getbasetemp().parent)


@pytest.fixture(scope="session")
def kernel_device() -> torch.device:
    """Where kernels are tested: a GPU, or the CPU in Triton's interpreter."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def pack() -> Pack:
    """The real pack, built once from the media packages, and anew when its sources change; for tests marked `media`."""
    from refavs_rt.train.material import Pack, build_pack

    digest = hashlib.sha256()
    for source in sorted((_ROOT / "train/material").glob("*.py")):
        digest.update(source.read_bytes())
    path = _ROOT / f"build/test-scenes-{digest.hexdigest()[:16]}.pack"
    path.parent.mkdir(exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes one builds, the others wait
        if not path.exists():
            for old in path.parent.glob("test-scenes-*.pack"):
                old.unlink()
            build_pack(path, progress=lambda done, total: None)
    return Pack.load(path)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of plain shapes and tones, made without any media package."""
    from .tiny_pack import write_tiny_pack

    return write_tiny_pack(tmp_path_factory.mktemp("tiny") / "tiny.pack")


@pytest.fixture(scope="session")
def tiny(tiny_path: Path) -> Pack:
    from refavs_rt.train.material import Pack

    return Pack.load(tiny_path)
