"""Writing the folder of `import-weights`, which training starts from (`starting_weights.py`).

FOLDER/NAME.safetensors   one for each imported part: vggish, efficientnet, mask2former, text
FOLDER/tokenizer.json     of the text encoder
FOLDER/imported.json      of each part: source, sha256, licence, and what became of its names
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from refavs_rt.model.hub import WeightsError

from .import_weights import ImportedPart
from .tensor_file import write_tensors

IMPORTED = "imported.json"


def write_imported(folder: Path, parts: Iterable[ImportedPart]) -> list[Path]:
    """Write parts into `folder`, made where it is not there; other parts in it stay. Returns the files written.

    Raises:
        WeightsError: the `imported.json` that is there is damaged, or the disk is full.
    """
    entries = _read_entries(folder / IMPORTED)
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, bytes | dict[str, Tensor]] = {}
    for part in parts:
        contents[f"{part.part}.safetensors"] = part.state
        contents |= part.beside
        entries[part.part] = part.to_json()
    contents[IMPORTED] = (json.dumps(entries, indent=2) + "\n").encode()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".import-") as temporary:
        for name, content in contents.items():
            if isinstance(content, bytes):
                (Path(temporary) / name).write_bytes(content)
            else:
                _save(content, Path(temporary) / name)
        for name in contents:  # only when all are on the disk
            os.replace(Path(temporary) / name, folder / name)
    return [folder / name for name in contents]


def _read_entries(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text())
    except ValueError as error:
        raise WeightsError(f"{path} is damaged ({error}); delete it and import again") from error
    if not isinstance(entries, dict):
        raise WeightsError(f"{path} is damaged: not a JSON object; delete it and import again")
    return entries


def _save(state: dict[str, Tensor], path: Path) -> None:
    try:
        write_tensors(path, {n: v.float() if v.is_floating_point() else v for n, v in state.items()})
    except SafetensorError as error:
        raise WeightsError(f"{path.parent.parent / path.name} cannot be written ({error})") from error
