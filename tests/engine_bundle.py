"""The tiny bundle with TensorRT "engines" that `tensorrt_double` runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refavs_rt.bundle import Bundle, EngineRecord, graph_file, write_bundle
from refavs_rt.config import TEST
from refavs_rt.contract import GRAPHS, contract_hash

from .tensorrt_double import engine_bytes
from .tiny_bundle import TRAINING, tiny_files

PROFILES = {
    "text": ((1, 1, 1), (1, 8, 8)),
    "vision": ((1, 1, 1),),
    "audio": ((1, 1, 1),),
    "step": ((1, 1, 1), (1, 8, 8)),
}


def write_engine_bundle(
    folder: Path,
    *,
    record: Mapping[str, Any] | None = None,
    of: Mapping[str, Mapping[str, Any]] | None = None,
    data: Mapping[str, bytes] | None = None,
    wrong: Mapping[str, Mapping[str, Any]] | None = None,
) -> Bundle:
    """Write it.

    Args:
        record: fields of every engine's record that shall be otherwise.
        of: likewise, of one graph's record alone.
        data: graph -> other bytes of its engine's file.
        wrong: graph -> what its engine says of itself, as `engine_bytes` takes it.
    """
    files, engines = tiny_files(), {}
    for graph in GRAPHS:
        known: dict[str, Any] = {
            "file": f"{graph}.engine",
            "library": "tensorrt",
            "version": "10.3.0",
            "capabilities": (86,),
            "precision": "fp32",
            "contract_hash": contract_hash(TEST),
            "sentences": (1, 8),
            "profiles": PROFILES[graph],
            "weights": "included",
            "hardware_compatible": False,
            "version_compatible": False,
            "verified": None,
        }
        known |= {**(record or {}), **(of or {}).get(graph, {})}
        engines[graph] = EngineRecord(**known)
        stripped = known["weights"] == "stripped"
        made = engine_bytes(
            files[graph_file(graph)], known["profiles"], stripped=stripped, **(wrong or {}).get(graph, {})
        )
        files = {**files, known["file"]: (data or {}).get(graph, made)}
    return write_bundle(folder, TEST, files, tools={}, training=TRAINING, parity={}, engines=engines)
