"""A damaged bundle is refused or runs as the contract says; it never crashes, hangs or raises anything else.

Two thousand seeded cases run in one child process, in two kinds:

    damaged   bytes of a file, or fields of the manifest that are checked: always a BundleError
    matching  bytes and fields of graphs, tokenizer and manifest, sizes and hashes made to fit: a BundleError, or two frames whose
              outputs are what the contract says

The child says each case before it runs it, so a crash names its own. One case alone, from the repository's root:

    python -m tests.test_bundle_fuzz FOLDER KIND SEED FIRST COUNT       FOLDER holds a bundle that `write_fuzz_bundle` wrote
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refavs_rt.bundle import MANIFEST, TOKENIZER, Bundle, BundleError, EngineRecord, graph_file, write_bundle
from refavs_rt.config import TEST, RunConfig
from refavs_rt.contract import GRAPHS, contract_hash

from .mutations import change_bytes, change_graph, structure

ROOT = Path(__file__).resolve().parents[1]
CASES = 1_000
SEED = 9
CASE_LIMIT_S = 20
MEMORY_LIMIT_BYTES = 2**30
"""Address space that a case may take beyond what the libraries have."""
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "dog", "cello", "silent", "bark", "##ing", "##s", "left"]
SENTENCES = ["the barking dog", "silent cellos"]


@pytest.mark.parametrize("kind", ["damaged", "matching"])
def test_no_change_is_believed(tmp_path: Path, kind: str) -> None:
    write_fuzz_bundle(tmp_path / "bundle")
    words = [str(tmp_path / "bundle"), kind, str(SEED), "0", str(CASES)]
    run = subprocess.run(
        [sys.executable, "-m", "tests.test_bundle_fuzz", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    last = run.stdout.splitlines()[-1:]
    assert run.returncode == 0, f"exit code {run.returncode} after {last}\n{run.stderr[-4000:]}"
    assert last[0].startswith(f"{CASES} cases: "), last
    if kind == "matching":  # the changes are small enough that some of them run
        assert 50 < int(last[0].split()[2]) < CASES - 50, last


def write_fuzz_bundle(folder: Path) -> Bundle:
    """The `test` preset with a small tokenizer, so that changes meet its structure, and a record of an engine."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    from .tiny_bundle import TRAINING, tiny_files

    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(WORDS[:4])
    files = {**tiny_files(), TOKENIZER: tokenizer.to_str().encode(), "step.engine": b"no engine" * 10}
    record = EngineRecord(
        file="step.engine",
        library="tensorrt",
        version="10.3.0",
        capabilities=(87,),
        precision="fp32",
        contract_hash=contract_hash(TEST),
        sentences=(1, 8),
        profiles=((1, 1, 1), (1, 8, 8)),
        verified={"device": "none", "largest_error": 1e-5},
    )
    return write_bundle(folder, TEST, files, tools={}, training=TRAINING, parity={}, engines={"step": record})


def main(folder: str, kind: str, seed: int, first: int, count: int) -> int:
    """The child: run cases in order; returns how many of them went wrong."""
    originals = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    work = Path(folder).with_name("case")
    _remember_sessions(originals)
    _run(Path(folder))  # loads the libraries, and shows that the bundle is sound
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_LIMIT_BYTES,) * 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever library it is in
    wrong = ran = 0
    for index in range(first, first + count):
        draw = np.random.default_rng([seed, ["damaged", "matching"].index(kind), index])
        shutil.rmtree(work, ignore_errors=True)
        what = (_write_damaged if kind == "damaged" else _write_matching)(work, originals, draw)
        print(f"{kind} {index}: {what}", flush=True)
        signal.alarm(CASE_LIMIT_S)
        try:
            _run(work, all_files=kind == "damaged")
        except BundleError:
            continue
        except BaseException:  # a library's panic is no Exception
            wrong += 1
            print(f"{kind} {index}: {what}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            continue
        finally:
            signal.alarm(0)
        ran += 1
        if kind == "damaged":
            wrong += 1
            print(f"{kind} {index}: {what}: not refused", file=sys.stderr, flush=True)
    print(f"{count} cases: {ran} ran, {wrong} wrong")
    return wrong


def _remember_sessions(originals: dict[str, bytes]) -> None:
    """Graphs that are as they were need not be opened a thousand times."""
    from refavs_rt.engines import onnx as engine

    opened, make = {}, engine._session

    def remembered(data: bytes, threads: int, provider: str) -> Any:
        if data not in originals.values():
            return make(data, threads, provider)
        if data not in opened:
            opened[data] = make(data, threads, provider)
        return opened[data]

    engine._session = remembered


def _run(folder: Path, *, all_files: bool = False) -> None:
    """Two frames with two sentences, the outputs as the contract says."""
    from refavs_rt.session import load

    if all_files:
        bundle = Bundle.open(folder)
        for name in bundle.files:
            bundle.read(name)
    model = load(folder, engine="onnx", run=RunConfig(threads=1))
    config = model.config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a sentence that is cut
        session = model.session(SENTENCES[: model.bundle.sentences[1]])
    draw = np.random.default_rng(0)
    for pts_s in (0.0, 0.04):
        frame = draw.normal(size=(3, config.image_size, config.image_size)).astype(np.float32)
        found = session.predict(frame, draw.normal(size=(96, 64)).astype(np.float32), pts_s)
        size = config.image_size // 4
        assert found.mask_logits.shape == (len(session.texts), size, size)
        assert found.presence.shape == (len(session.texts),)
        assert found.mask_logits.dtype == found.presence.dtype == np.float32
        assert np.isfinite(found.mask_logits).all() and np.isfinite(found.presence).all()


def _write_damaged(folder: Path, originals: dict[str, bytes], draw: np.random.Generator) -> str:
    files = dict(originals)
    if draw.random() < 0.35:
        name = str(draw.choice([name for name in files if name != MANIFEST]))
        files[name], what = change_bytes(files[name], np.arange(len(files[name])), draw)
        _write(folder, files)
        return f"{name}: {what}"
    if draw.random() < 0.15:
        name = str(draw.choice(list(files)))
        _write(folder, files)
        return f"{name}: {_replace(folder / name, draw)}"
    if draw.random() < 0.1:
        whole = files[MANIFEST]
        changes: list[tuple[str, bytes]] = [
            ("cut", whole[: int(draw.integers(len(whole) - 2))]),
            ("bytes before it", bytes(draw.integers(128, 256, 3, dtype=np.uint8)) + whole),
            ("more after it", whole + b"{"),
            ("a deep one", b"[" * 100_000),
            ("a deep field", whole.replace(b"{", b'{"deep": ' + b"[" * 200_000, 1)),
            ("a long number", whole.replace(b'"format_version": 1', b'"format_version": 1' + b"0" * 5_000)),
        ]
        what, files[MANIFEST] = changes[int(draw.integers(len(changes)))]
        _write(folder, files)
        return f"{MANIFEST}: {what}"
    manifest = json.loads(files[MANIFEST])
    what = _break_field(manifest, draw)
    files[MANIFEST] = json.dumps(manifest).encode()
    _write(folder, files)
    return f"{MANIFEST}: {what}"


def _replace(file: Path, draw: np.random.Generator) -> str:
    """Something else in the place of a file."""
    kind = str(
        draw.choice(["nothing", "a link", "a link to nothing", "a link to itself", "a folder", "a pipe"])
    )
    moved = file.rename(file.with_name("moved"))
    if kind == "a link":
        file.symlink_to(moved)
    elif kind == "a link to nothing":
        file.symlink_to("/nonexistent/file")
    elif kind == "a link to itself":
        file.symlink_to(file.name)
    elif kind == "a folder":
        file.mkdir()
    elif kind == "a pipe":
        os.mkfifo(file)
    return f"{kind} in its place"


CONTRACT_SETTINGS = [
    "image_size",
    "width",
    "heads",
    "window_ticks",
    "text_tokens",
    "decoder_width",
    "pixel_width",
]
"""Settings of a config without which it is another contract's."""
FREE_TEXTS = {
    ("engines", "step", "version"),
    ("engines", "step", "contract_hash"),
    ("engines", "step", "verified", "device"),
}
"""Fields that may be any text, as far as opening the bundle goes."""
MAY_BE_MISSING = {
    ("precision",),
    ("sentences",),
    ("engines",),
    ("engines", "step"),
    ("engines", "step", "profiles", 0),
    ("engines", "step", "profiles", 1),
}
NAMES = [
    "../x",
    "/etc/hostname",
    "a/b",
    "..",
    ".",
    "",
    "a\\b",
    MANIFEST,
    "a\0b",
    "\ud800",
    "x" * 300,
    "\x1b[2J",
    "-x",
    "é",
]
HUGE = [2**31, 2**63, 10**19, 10**400, 1e300, 1e999, -(10**9), -(10**400), float("nan")]
KINDS: list[Any] = [None, True, "x", 7, 1.5, [], [1], {}, {"a": 1}]


def _break_field(manifest: dict[str, Any], draw: np.random.Generator) -> str:
    """Change a field so that no sound bundle has it."""

    def one_of(values: list[Any]) -> Any:
        return values[int(draw.integers(len(values)))]

    action = str(draw.choice(["delete", "retype", "huge", "text", "name", "unknown setting", "row"]))
    paths = _paths(manifest)
    if action == "delete":
        settings = {("config", name) for name in CONTRACT_SETTINGS}
        path = one_of([p for p in paths if p not in MAY_BE_MISSING and (p[0] != "config" or p in settings)])
        del _parent(manifest, path)[path[-1]]
        return f"{path} deleted"
    if action == "retype":
        path = one_of(paths)
        old = _parent(manifest, path)[path[-1]]
        same = (bool, int, float) if isinstance(old, (int, float)) and path[0] == "config" else type(old)
        new = one_of([value for value in KINDS if not isinstance(value, same)])
    elif action == "huge":
        path = one_of([p for p in paths if type(_parent(manifest, p)[p[-1]]) in (int, float)])
        new = one_of(HUGE)
    elif action == "text":
        known = [p for p in paths if (p not in FREE_TEXTS and p[0] != "config") or p == ("config", "preset")]
        path = one_of([p for p in known if isinstance(_parent(manifest, p)[p[-1]], str)])
        old = _parent(manifest, path)[path[-1]]
        new = one_of(["", "x" * 100_000, old[:-1], old + "x", old.upper() + " ", "../" + old, "\ud800"])
    elif action == "name":
        old_name, new = one_of(list(manifest["files"])), one_of(NAMES)
        files = manifest["files"]
        files[new] = files[old_name] if draw.random() < 0.5 else files.pop(old_name)
        return f"files: {new!r} for {old_name}"
    elif action == "unknown setting":
        path = ("config", one_of(["", "colour", "x" * 100_000, "\ud800", "__class__", "__init__"]))
        new = one_of(KINDS)
    else:
        path = one_of([("sentences",), ("engines", "step", "sentences"), ("engines", "step", "profiles")])
        new = one_of(
            [
                [],
                [0, 1],
                [2, 1],
                [-1, 8],
                [1],
                [1, 2, 3],
                ["a", 1],
                [1, 10**20],
                [[1, 2]],
                [None, None],
                [[2, 1, 1]],
            ]
        )
    _parent(manifest, path)[path[-1]] = new
    return f"{path}: {str(new)[:100]!r}"


def _paths(value: Any, start: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every field of a manifest, but what is inside of what is for people."""
    found = []
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        path = (*start, name)
        found.append(path)
        if isinstance(inner, (dict, list)) and name not in ("tools", "training", "parity"):
            found += _paths(inner, path)
    return found


def _parent(value: Any, path: tuple[Any, ...]) -> Any:
    for name in path[:-1]:
        value = value[name]
    return value


def _write_matching(folder: Path, originals: dict[str, bytes], draw: np.random.Generator) -> str:
    files = dict(originals)
    manifest = json.loads(files[MANIFEST])
    place = draw.random()
    if place < 0.1:
        what = _change_setting(manifest, draw)
    elif place < 0.2:
        name = TOKENIZER
        files[name], what = _change_tokenizer(files[name], draw)
    else:
        name = graph_file(str(draw.choice(GRAPHS)))
        if draw.random() < 0.4:
            places = structure(files[name]) if draw.random() < 0.8 else np.arange(len(files[name]))
            files[name], what = change_bytes(files[name], places, draw)
        else:
            files[name], what = change_graph(files[name], draw)
        what = f"{name}: {what}"
    for name, entry in manifest["files"].items():
        entry.update(size=len(files[name]), sha256=hashlib.sha256(files[name]).hexdigest())
    files[MANIFEST] = json.dumps(manifest).encode()
    _write(folder, files)
    return what


def _change_setting(manifest: dict[str, Any], draw: np.random.Generator) -> str:
    """A setting of another value of the same kind; the contract's hash is made to fit where there is one."""
    from refavs_rt.config import ModelConfig

    config = manifest["config"]
    name = str(draw.choice([x for x, value in config.items() if not isinstance(value, (str, list))]))
    if isinstance(config[name], bool):
        config[name] = not config[name]
    else:
        factor = float(draw.choice([0, 0.5, 2, 3, 1e3, 1e6, -1]))
        config[name] = type(config[name])(config[name] * factor)
    if abs(config["decoder_layers"]) < 10_000:
        try:
            manifest["contract_hash"] = contract_hash(ModelConfig.from_json(config))
        except (ValueError, TypeError):
            pass
    return f"config: {name} = {config[name]}"


def _change_tokenizer(data: bytes, draw: np.random.Generator) -> tuple[bytes, str]:
    if draw.random() < 0.5:
        changed, what = change_bytes(data, np.arange(len(data)), draw)
        return changed, f"{TOKENIZER}: {what}"
    tokenizer = json.loads(data)
    paths = _paths(tokenizer)
    path = paths[int(draw.integers(len(paths)))]
    new = [*KINDS, -1, 10**6, 2**32, 1e300, "[UNK]", "\ud800"][int(draw.integers(len(KINDS) + 6))]
    if draw.random() < 0.3:
        del _parent(tokenizer, path)[path[-1]]
        return json.dumps(tokenizer).encode(), f"{TOKENIZER}: {path} deleted"
    _parent(tokenizer, path)[path[-1]] = new
    return json.dumps(tokenizer).encode(), f"{TOKENIZER}: {path} = {new!r}"


def _write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))))
