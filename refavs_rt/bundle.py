"""The deployable folder: manifest.json, the four graphs and the tokenizer.

A file of a bundle is read once: those bytes are hashed and those bytes are loaded. The hashes guard against damage. Against
an enemy, who can write a matching manifest, only a digest kept elsewhere does (`refavs-rt verify BUNDLE --digest`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import ModelConfig
from .contract import FORMAT_VERSION, GRAPHS, contract_hash

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
EMBEDDED = "edge"
"""The name by which the embedded bundle is asked for."""
LATEST = Path("bundles", "latest")
"""Where the newest export of a working folder is found."""

_MANIFEST_LIMIT_BYTES = 16_000_000


class BundleError(Exception):
    """A bundle that cannot be used; the message names the file and the mend."""


def graph_file(graph: str) -> str:
    """File name of a graph in a bundle."""
    return f"{graph}.onnx"


def find_bundle(name_or_path: str | os.PathLike[str] | None) -> Path:
    """The folder meant by `--bundle`: a path, "edge" for the embedded one; None for bundles/latest, else the embedded one."""
    if name_or_path is None:
        return LATEST if LATEST.is_dir() else embedded_bundle()
    return embedded_bundle() if name_or_path == EMBEDDED else Path(name_or_path)


def embedded_bundle() -> Path:
    """The folder of the bundle inside the package."""
    return Path(__file__).parent / "assets" / EMBEDDED


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its manifest is checked; each file is checked when it is read."""

    path: Path
    config: ModelConfig
    manifest: dict[str, Any]
    digest: str
    """Hex sha256 of manifest.json, which holds the sha256 of every other file."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read and check the manifest, and that each file it names is there in the right size.

        Raises:
            BundleError: the folder, the manifest or a file is missing, damaged, outside the folder, a link, of a newer form
                or of another contract.
        """
        folder = Path(path)
        if not folder.is_dir() and folder == embedded_bundle():
            raise BundleError(
                f"{folder}: the embedded bundle is missing; install refavs-rt again, or give --bundle"
            )
        if not folder.is_dir():
            raise BundleError(
                f"{folder}: no such bundle folder; give one that refavs-export wrote, or {EMBEDDED!r}"
            )
        data = _read(folder / MANIFEST, _MANIFEST_LIMIT_BYTES)
        manifest = _parse(folder / MANIFEST, data)
        bundle = cls(folder, _config(folder / MANIFEST, manifest), manifest, hashlib.sha256(data).hexdigest())
        for name in bundle.files:
            bundle._check_entry(name)
        for name in (*map(graph_file, GRAPHS), TOKENIZER):
            if name not in bundle.files:
                raise BundleError(f"{folder / MANIFEST}: it does not list {name}; export the bundle again")
        return bundle

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """File name -> its `sha256` and `size`."""
        return dict(self.manifest["files"])

    def read(self, name: str) -> bytes:
        """The checked bytes of a file.

        Raises:
            BundleError: it is not listed, missing, a link or damaged.
        """
        if name not in self.files:
            raise BundleError(f"{self.path / name}: not listed in the bundle's {MANIFEST}")
        expected = self.files[name]
        data = _read(self.path / name, expected["size"])
        if hashlib.sha256(data).hexdigest() != expected["sha256"]:
            raise BundleError(
                f"{self.path / name}: damaged (its sha256 is not the manifest's); copy the bundle again"
            )
        return data

    def _check_entry(self, name: str) -> None:
        entry = self.files[name]
        if name in ("", ".", "..", MANIFEST) or Path(name).name != name or "\\" in name:
            raise BundleError(
                f"{self.path / MANIFEST}: {name!r} is not a file of this folder; do not use this bundle"
            )
        if (
            not isinstance(entry, dict)
            or type(entry.get("size")) is not int
            or not isinstance(entry.get("sha256"), str)
        ):
            raise BundleError(
                f"{self.path / MANIFEST}: no size and sha256 for {name}; export the bundle again"
            )
        status = _status(self.path / name)
        if status.st_size != entry["size"]:
            raise BundleError(
                f"{self.path / name}: damaged ({status.st_size} bytes, not {entry['size']}); copy the bundle again"
            )


def write_bundle(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    files: Mapping[str, bytes],
    *,
    tools: Mapping[str, str],
    training: Mapping[str, Any],
    parity: Mapping[str, Any],
    replace: bool = False,
) -> Bundle:
    """Write a bundle as a whole or not at all: into a folder beside it, which is then renamed.

    Args:
        folder: where it shall stand.
        config: the model's shape.
        files: file name -> bytes: the four graphs, the tokenizer and whatever else belongs to it.
        tools: tool name -> version that made the files.
        training: `data`, `licence` and what else is known of how the weights were made.
        parity: what was measured between the graphs and torch.
        replace: take the place of a bundle that stands there.

    Raises:
        BundleError: the folder exists (without `replace`), is no bundle, or a needed file is not given.
    """
    folder = Path(folder)
    for name in (*map(graph_file, GRAPHS), TOKENIZER):
        if name not in files:
            raise BundleError(f"{folder}: a bundle needs {name}")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BundleError(f"{folder}: exists and is no folder; choose another place")
    if folder.exists() and not replace:
        raise BundleError(f"{folder}: exists already; remove it or choose another place")
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder}: holds something that is no bundle; choose another place")

    manifest = {
        "format_version": FORMAT_VERSION,
        "preset": config.preset,
        "config": config.to_json(),
        "contract_hash": contract_hash(config),
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in files.items()
        },
        "graphs": {name: graph_file(name) for name in GRAPHS},
        "tools": dict(tools),
        "training": dict(training),
        "parity": dict(parity),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    new, old = work / "new", work / "old"
    try:
        new.mkdir()
        for name, data in files.items():
            _write(new / name, data)
        _write(new / MANIFEST, (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode())
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(work)
    return Bundle.open(folder)


def _config(file: Path, manifest: dict[str, Any]) -> ModelConfig:
    """The model's shape as the manifest tells it, if this version of refavs_rt can run it."""
    version = manifest.get("format_version")
    if type(version) is not int:
        raise BundleError(f"{file}: no format_version; export the bundle again")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{file}: its format {version} is newer than this refavs_rt knows ({FORMAT_VERSION}); update refavs_rt"
        )
    if not isinstance(manifest.get("config"), dict) or not isinstance(manifest.get("files"), dict):
        raise BundleError(f"{file}: no config or no files in it; export the bundle again")
    try:
        config = ModelConfig.from_json(manifest["config"])
    except ValueError as error:
        raise BundleError(
            f"{file}: {error}; use the refavs_rt that exported it, or export it again"
        ) from error
    if manifest.get("contract_hash") != contract_hash(config):
        raise BundleError(
            f"{file}: made for another contract than this refavs_rt has; export the bundle again"
        )
    return config


def _parse(file: Path, data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except ValueError as error:
        raise BundleError(f"{file}: damaged ({error}); copy the bundle again") from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{file}: not a manifest; copy the bundle again")
    return manifest


def _status(file: Path) -> os.stat_result:
    try:
        status = file.lstat()
    except OSError as error:
        raise BundleError(f"{file}: missing ({error.strerror}); copy the bundle again") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{file}: a link or no file; a bundle's files must lie in it: copy the file itself")
    return status


def _read(file: Path, limit: int) -> bytes:
    """All bytes of a regular file, of `limit` at most; a link is not followed."""
    _status(file)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        reason = "a link" if error.errno == errno.ELOOP else error.strerror
        raise BundleError(f"{file}: cannot be read ({reason}); copy the bundle again") from error
    if len(data) > limit:
        raise BundleError(f"{file}: damaged (longer than {limit} bytes); copy the bundle again")
    return data


def _write(file: Path, data: bytes) -> None:
    with open(file, "xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
