"""The deployable folder: manifest.json, the four graphs and the tokenizer.

A file of a bundle is read once: those bytes are hashed and those bytes are loaded. The hashes guard against damage. Against
an enemy, who can write a matching manifest, only a digest kept elsewhere does (`refavs-rt verify BUNDLE --digest`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import ModelConfig
from .contract import FORMAT_VERSION, GRAPHS, contract_hash, graph_specs
from .errors import UserError

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
EMBEDDED = "edge"
"""The name by which the embedded bundle is asked for."""
LATEST = Path("bundles", "latest")
"""Where the newest export of a working folder is found."""
PRECISIONS = ("fp32", "fp16", "int8")
"""Of a bundle's graphs; inputs and outputs are float32 in each."""
LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""What builds and runs engines."""

_MANIFEST_LIMIT_BYTES = 16_000_000
_FILE_LIMIT_BYTES = 16_000_000_000
_MOST_FILES = 1_000
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LARGEST_NUMBER = 2**31 - 1
_LARGEST_SETTING = 1e6
_MOST_LAYERS = 1_000
_MOST_ELEMENTS = 2**28
"""Of any tensor of the contract, for the most sentences: a hundred times what the largest preset has."""


class BundleError(UserError):
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
class EngineRecord:
    """What a manifest says of a TensorRT engine: all that must fit before its bytes are given to the library."""

    file: str
    library: str
    """`tensorrt` or `tensorrt_rtx`."""
    version: str
    """Of the library."""
    capabilities: tuple[int, ...]
    """Compute capabilities it was built for, such as 86 for 8.6."""
    precision: str
    contract_hash: str
    sentences: tuple[int, int]
    """Smallest and largest N."""
    profiles: tuple[tuple[int, int, int], ...]
    """Smallest, best and largest size of the dynamic axis, one row an optimization profile."""
    weights: str = "included"
    """Or `stripped`: loading fills them in from the bundle's graph."""
    hardware_compatible: bool = False
    """Whether it also runs on newer GPUs than it was built for."""
    version_compatible: bool = False
    """Whether later versions of the library run it too."""
    verified: Mapping[str, Any] | None = None
    """The `device` on which its outputs were compared with ONNX Runtime's and the `largest_error`; None: not verified on one."""

    def to_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            name: list(map(list, value))
            if name == "profiles"
            else list(value)
            if isinstance(value, tuple)
            else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, row: Any) -> EngineRecord:
        """Read a manifest's entry.

        Raises:
            ValueError: a field is missing or of another kind; the message names it.
        """
        if not isinstance(row, dict):
            raise ValueError("not a record")
        kinds: dict[str, Callable[[Any], bool]] = {
            "file": _is_text,
            "library": lambda x: x in LIBRARIES,
            "version": _is_text,
            "capabilities": lambda x: _is_row(x) and len(x) > 0,
            "precision": lambda x: x in PRECISIONS,
            "contract_hash": _is_text,
            "sentences": lambda x: _is_row(x, 2) and x[0] <= x[1],
            "profiles": lambda x: (
                isinstance(x, list) and len(x) > 0 and all(_is_row(y, 3) and y[0] <= y[1] <= y[2] for y in x)
            ),
            "weights": lambda x: x in ("included", "stripped"),
            "hardware_compatible": lambda x: isinstance(x, bool),
            "version_compatible": lambda x: isinstance(x, bool),
            "verified": _is_verification,
        }
        for name, fits in kinds.items():
            if name not in row or not fits(row[name]):
                raise ValueError(f"no valid {name}")
        values = {name: row[name] for name in kinds}
        for name in ("capabilities", "sentences"):
            values[name] = tuple(values[name])
        values["profiles"] = tuple(map(tuple, values["profiles"]))
        return cls(**values)


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
        files = bundle.files
        if len(files) > _MOST_FILES:
            raise BundleError(f"{folder / MANIFEST}: lists {len(files)} files; do not use this bundle")
        for name, entry in files.items():
            bundle._check_entry(name, entry)
        for name in (*map(graph_file, GRAPHS), TOKENIZER):
            if name not in files:
                raise BundleError(f"{folder / MANIFEST}: it does not list {name}; export the bundle again")
        bundle._check_description()
        bundle._check_conversion()
        return bundle

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """File name -> its `sha256` and `size`."""
        return dict(self.manifest["files"])

    @property
    def precision(self) -> str:
        """Of the graphs: one of `PRECISIONS`."""
        return str(self.manifest.get("precision", "fp32"))

    @property
    def sentences(self) -> tuple[int, int]:
        """The smallest and the largest number of sentences that a step takes."""
        low, high = self.manifest.get("sentences", (1, self.config.max_sentences))
        return low, high

    @property
    def engines(self) -> dict[str, EngineRecord]:
        """Graph name -> its TensorRT engine, where one was built."""
        return {graph: EngineRecord.from_json(row) for graph, row in self.manifest.get("engines", {}).items()}

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

    def _check_description(self) -> None:
        """What is for people, and what repeats what the rest of the manifest says."""
        file, mend = self.path / MANIFEST, "export the bundle again"
        if self.manifest.get("preset") != self.config.preset:
            raise BundleError(f"{file}: its preset is not its config's, {self.config.preset!r}; {mend}")
        if self.manifest.get("graphs") != {name: graph_file(name) for name in GRAPHS}:
            raise BundleError(f"{file}: its graphs are not {', '.join(map(graph_file, GRAPHS))}; {mend}")
        for name in ("tools", "training", "parity"):
            if not isinstance(self.manifest.get(name), dict):
                raise BundleError(f"{file}: no {name} in it; {mend}")

    def _check_conversion(self) -> None:
        file, mend = self.path / MANIFEST, "export the bundle again"
        if self.manifest.get("precision", "fp32") not in PRECISIONS:
            raise BundleError(
                f"{file}: its precision is none of {', '.join(PRECISIONS)}; update refavs_rt, or {mend}"
            )
        sentences = self.manifest.get("sentences", [1, 1])
        if not _is_row(sentences, 2) or not sentences[0] <= sentences[1] <= self.config.max_sentences:
            raise BundleError(f"{file}: no valid range of sentences; {mend}")
        engines = self.manifest.get("engines", {})
        if not isinstance(engines, dict) or not engines.keys() <= set(GRAPHS):
            raise BundleError(f"{file}: engines of graphs that no bundle has; {mend}")
        for graph, row in engines.items():
            try:
                record = EngineRecord.from_json(row)
            except ValueError as error:
                raise BundleError(f"{file}: the engine of the {graph} graph has {error}; {mend}") from error
            if record.file not in self.files:
                raise BundleError(f"{file}: it does not list {record.file}; {mend}")
            low, high = record.sentences
            if high > self.config.max_sentences:
                raise BundleError(
                    f"{file}: the engine of the {graph} graph is for {low} to {high} sentences, the model for "
                    f"{self.config.max_sentences}; {mend}"
                )

    def _check_entry(self, name: str, entry: Any) -> None:
        if _FILE_NAME.fullmatch(name) is None or name == MANIFEST:
            raise BundleError(
                f"{self.path / MANIFEST}: {_shorten(name)} is not a file of this folder; do not use this bundle"
            )
        if (
            not isinstance(entry, dict)
            or type(entry.get("size")) is not int
            or not isinstance(entry.get("sha256"), str)
        ):
            raise BundleError(
                f"{self.path / MANIFEST}: no size and sha256 for {name}; export the bundle again"
            )
        if not 0 <= entry["size"] <= _FILE_LIMIT_BYTES:
            raise BundleError(f"{self.path / MANIFEST}: no valid size for {name}; export the bundle again")
        status = _status(self.path / name)
        if status.st_size != entry["size"]:
            raise BundleError(
                f"{self.path / name}: damaged ({status.st_size} bytes, not {entry['size']}); copy the bundle again"
            )


def check_place(folder: Path, *, replace: bool = True) -> None:
    """Whether a bundle can be written there: for callers who have much to do before they write one.

    Args:
        folder: where it shall stand.
        replace: whether it may take the place of a bundle that stands there.

    Raises:
        BundleError: the folder exists (without `replace`), or is or holds anything but a bundle.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BundleError(f"{folder}: exists and is no folder; choose another place")
    if folder.exists() and not replace:
        raise BundleError(f"{folder}: exists already; remove it or choose another place")
    if folder.exists() and (foreign := _not_of_a_bundle(folder)):
        raise BundleError(f"{folder}: holds {foreign}, which is of no bundle; choose another place")


def write_bundle(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    files: Mapping[str, bytes],
    *,
    tools: Mapping[str, str],
    training: Mapping[str, Any],
    parity: Mapping[str, Any],
    precision: str = "fp32",
    sentences: tuple[int, int] | None = None,
    engines: Mapping[str, EngineRecord] | None = None,
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
        precision: of the graphs.
        sentences: the smallest and the largest number of sentences that a step takes; None: from one to the model's limit.
        engines: graph name -> what is known of its engine, whose file is among `files`.
        replace: take the place of a bundle that stands there.

    Raises:
        BundleError: the folder exists (without `replace`), holds anything but a bundle, a needed file is not given, or
            what is given makes no bundle that opens.
    """
    folder = Path(folder)
    for name in (*map(graph_file, GRAPHS), TOKENIZER):
        if name not in files:
            raise BundleError(f"{folder}: a bundle needs {name}")
    check_place(folder, replace=replace)

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
        "precision": precision,
        "sentences": list(sentences or (1, config.max_sentences)),
        "engines": {graph: record.to_json() for graph, record in (engines or {}).items()},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    new, old = work / "new", work / "old"
    try:
        new.mkdir()
        for name, data in files.items():
            _write(new / name, data)
        _write(new / MANIFEST, (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode())
        try:
            Bundle.open(new)
        except BundleError as error:
            raise BundleError(str(error).replace(str(new), str(folder))) from error
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


def _not_of_a_bundle(folder: Path) -> str | None:
    """A name in a folder that no bundle put there; None where a bundle is all that it holds, or it is empty."""
    names = {path.name for path in folder.iterdir()}
    files: Any = {}
    if MANIFEST in names:
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
        except (OSError, ValueError):
            return MANIFEST
        files = manifest.get("files") if isinstance(manifest, dict) else None
        if not isinstance(files, dict) or not isinstance(manifest.get("format_version"), int):
            return MANIFEST
    return min(names - {MANIFEST} - set(files), default=None)


def _config(file: Path, manifest: dict[str, Any]) -> ModelConfig:
    """The model's shape as the manifest tells it, if this version of refavs_rt can run it."""
    version = manifest.get("format_version")
    if type(version) is not int or version < 1:
        raise BundleError(f"{file}: no valid format_version; export the bundle again")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{file}: its format {_shorten(version)} is newer than this refavs_rt knows ({FORMAT_VERSION}); "
            f"update refavs_rt, or export the bundle with this one"
        )
    if not isinstance(manifest.get("config"), dict) or not isinstance(manifest.get("files"), dict):
        raise BundleError(f"{file}: no config or no files in it; export the bundle again")
    try:
        config = ModelConfig.from_json(manifest["config"])
        _check_size(config)
    except (ValueError, TypeError, OverflowError) as error:
        raise BundleError(
            f"{file}: {_shorten(error)}; use the refavs_rt that exported it, or export it again"
        ) from error
    if manifest.get("contract_hash") != contract_hash(config):
        raise BundleError(
            f"{file}: made for another contract than this refavs_rt has; export the bundle again"
        )
    return config


def _check_size(config: ModelConfig) -> None:
    """Whether a model of this shape can be: its numbers are believed before any graph has been seen.

    Raises:
        ValueError: a setting is absurd; it is named.
    """
    for name, value in vars(config).items():
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, str) and not abs(number) <= _LARGEST_SETTING:
                raise ValueError(f"model setting {name!r} cannot be {_shorten(number)}")
    if config.decoder_layers > _MOST_LAYERS:
        raise ValueError(f"model setting 'decoder_layers' cannot be {config.decoder_layers}")
    for graph in graph_specs(config).values():
        for tensor in (*graph.inputs, *graph.outputs):
            sizes = [config.max_sentences if isinstance(axis, str) else axis for axis in tensor.shape]
            if min(sizes) < 0 or math.prod(sizes) > _MOST_ELEMENTS:
                raise ValueError(f"with this config {tensor.name} would have the shape {sizes}")


def _shorten(value: object, limit: int = 200) -> str:
    """For a message: numbers and names in a manifest may be of any length, and hold what a terminal obeys."""
    try:
        text = str(value) if isinstance(value, Exception) else repr(value)
    except ValueError:  # Python prints no whole number of thousands of digits
        return "a number without measure"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _is_row(value: Any, length: int | None = None) -> bool:
    """Whether it is a list of positive whole numbers."""
    return (
        isinstance(value, list)
        and (length is None or len(value) == length)
        and all(type(x) is int and 0 < x <= _LARGEST_NUMBER for x in value)
    )


def _is_verification(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and _is_text(value.get("device"))
        and type(value.get("largest_error")) in (int, float)
        and 0 <= value["largest_error"] <= _LARGEST_NUMBER  # NaN is not
    )


def _parse(file: Path, data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
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
    """All bytes of a regular file, of `limit` at most; a link is not followed, and a pipe is not waited for."""
    _status(file)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            size = os.fstat(descriptor).st_size
            data = stream.read(limit + 1) if size <= limit else b""
    except OSError as error:
        reason = "a link" if error.errno == errno.ELOOP else error.strerror
        raise BundleError(f"{file}: cannot be read ({reason}); copy the bundle again") from error
    if max(size, len(data)) > limit:
        raise BundleError(f"{file}: damaged (longer than {limit} bytes); copy the bundle again")
    return data


def _write(file: Path, data: bytes) -> None:
    with open(file, "xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
