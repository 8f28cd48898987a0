"""A bundle as a model repository of NVIDIA's Triton Inference Server.

    refavs_text      token ids -> text features; stateless, on the CPU, its answers cached
    refavs_stream    a frame with its sound, and text features -> masks; a sequence, whose state the server keeps
    refavs           both in one request (an ensemble): token ids, frame and sound -> masks

A sequence is one camera with N sentences. `docs/serving.md` says how to serve and to ask it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from refavs_rt.bundle import TOKENIZER, Bundle, graph_file
from refavs_rt.contract import TensorSpec, graph_specs

from .stateful import PARTS, StreamGraphError, StreamSpec, stream_graph, stream_spec

TEXT, STREAM, ENSEMBLE = "refavs_text", "refavs_stream", "refavs"
"""Names of the models."""

_TYPES = {"bool": "TYPE_BOOL", "float32": "TYPE_FP32", "float64": "TYPE_FP64", "int64": "TYPE_INT64"}
"""numpy's names -> the server's."""
_CONFIG = "config.pbtxt"
_VERSION = "1"
_MOST_SEQUENCES = 32
"""Cameras that one instance has in turn; those beyond wait for one to end."""
_IDLE_LIMIT_S = 60
"""A sequence that is silent for so long is forgotten."""


class RepositoryError(Exception):
    """A model repository that cannot be written; the message says why."""


def write_triton_repo(bundle: Bundle, folder: Path, *, sentences: int = 1) -> Path:
    """Write a model repository, as a whole or not at all.

    Args:
        bundle: its graphs are taken as they are, whatever their precision.
        folder: where it shall stand; it must not exist, or be empty.
        sentences: N of every sequence. Text features and state have fixed shapes in the repository.

    Returns:
        `folder`.

    Raises:
        RepositoryError: the folder is taken, N is not one that the bundle takes, or its graphs cannot be joined.
        BundleError: a file of the bundle is damaged.
    """
    low, high = bundle.sentences
    if not low <= sentences <= high:
        raise RepositoryError(f"{sentences} sentences: the bundle {bundle.path} takes {low} to {high}")
    check_free(folder)
    try:
        files = _files(bundle, sentences)
    except StreamGraphError as error:
        raise RepositoryError(f"{bundle.path}: {error}") from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    new = work / "new"
    try:
        for name, data in files.items():
            file = new / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        (new / ENSEMBLE / _VERSION).mkdir()  # an ensemble has no file, but a version
        new.rename(folder)
    finally:
        shutil.rmtree(work)
    return folder


def check_free(folder: Path) -> None:
    """Raise RepositoryError unless the folder does not exist or is empty."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise RepositoryError(f"{folder}: exists and is no folder; choose another place")
    if folder.exists() and any(folder.iterdir()):
        raise RepositoryError(f"{folder}: exists and is not empty; remove it or choose another place")


def _files(bundle: Bundle, sentences: int) -> dict[str, bytes]:
    """Path in the repository -> content."""
    spec = stream_spec(bundle.config, sentences)
    graphs = {part: bundle.read(graph_file(part)) for part in PARTS}
    files = {
        f"{TEXT}/{_CONFIG}": _text_config(bundle).encode(),
        f"{TEXT}/{_VERSION}/model.onnx": bundle.read(graph_file("text")),
        f"{STREAM}/{_CONFIG}": _stream_config(spec).encode(),
        f"{STREAM}/{_VERSION}/model.onnx": stream_graph(bundle.config, graphs, sentences),
        f"{ENSEMBLE}/{_CONFIG}": _ensemble_config(bundle, spec, sentences).encode(),
    }
    documents = [name for name in bundle.files if name.endswith(".md")]
    return files | {name: bundle.read(name) for name in (TOKENIZER, *documents)}


def _text_config(bundle: Bundle) -> str:
    spec = graph_specs(bundle.config)["text"]
    return f"""\
# An ensemble asks for the same sentences with every frame; a server that was started with --cache-config keeps the answers. It
# keeps only what lies in the host's memory, and once a sentence is not worth a GPU.
name: "{TEXT}"
backend: "onnxruntime"
max_batch_size: 0
{_tensors("input", spec.inputs)}
{_tensors("output", spec.outputs)}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
response_cache {{ enable: true }}
"""


def _stream_config(spec: StreamSpec) -> str:
    states = ",\n".join(_state(before, after) for before, after in spec.states)
    return f"""\
# The first axis of the state is N sentences, not cameras, so frames of several cameras are not batched: max_batch_size is 0.
# With that the direct strategy has one sequence an instance; the oldest one lets many take turns.
# No control inputs: a state of zeros marks the first frame, and a slot without a frame is not run.
name: "{STREAM}"
backend: "onnxruntime"
max_batch_size: 0
{_tensors("input", spec.inputs)}
{_tensors("output", spec.outputs)}
sequence_batching {{
  max_sequence_idle_microseconds: {_IDLE_LIMIT_S * 1_000_000}
  oldest {{ max_candidate_sequences: {_MOST_SEQUENCES} }}
  state [
{states}
  ]
}}
"""


def _ensemble_config(bundle: Bundle, spec: StreamSpec, sentences: int) -> str:
    text = graph_specs(bundle.config)["text"]
    tokens = [_with_sentences(tensor, sentences) for tensor in text.inputs]
    known = {tensor.name for tensor in (*text.inputs, *text.outputs)}
    given = [tensor for tensor in spec.inputs if tensor.name not in known]
    stated = {
        "audio_offset_s": repr(bundle.config.audio_offset_s),
        "bundle_sha256": bundle.digest,
        "precision": bundle.precision,
        "preset": bundle.config.preset,
    }
    steps = ",\n".join((_step(TEXT, text.inputs, text.outputs), _step(STREAM, spec.inputs, spec.outputs)))
    return f"""\
# A request's sequence id, start and end go on to the models of the ensemble; refavs_text does not look at them.
name: "{ENSEMBLE}"
platform: "ensemble"
max_batch_size: 0
{_tensors("input", [*tokens, *given])}
{_tensors("output", spec.outputs)}
ensemble_scheduling {{
  step [
{steps}
  ]
}}
{_parameters(stated)}
"""


def _tensors(field: str, specs: Iterable[TensorSpec]) -> str:
    rows = ",\n".join(
        f'  {{ name: "{spec.name}" data_type: {_TYPES[spec.dtype]} dims: {_dims(spec)} }}' for spec in specs
    )
    return f"{field} [\n{rows}\n]"


def _state(before: TensorSpec, after: TensorSpec) -> str:
    kind = f"data_type: {_TYPES[before.dtype]} dims: {_dims(before)}"
    zeros = f'initial_state {{ name: "zeros" {kind} zero_data: true }}'
    return f'    {{ input_name: "{before.name}" output_name: "{after.name}" {kind} {zeros} }}'


def _step(model: str, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> str:
    maps = [
        f'      {field} {{ key: "{spec.name}" value: "{spec.name}" }}'
        for field, specs in (("input_map", inputs), ("output_map", outputs))
        for spec in specs
    ]
    return "\n".join(["    {", f'      model_name: "{model}"', "      model_version: -1", *maps, "    }"])


def _parameters(values: Mapping[str, str]) -> str:
    return "\n".join(
        f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}' for key, value in values.items()
    )


def _dims(spec: TensorSpec) -> str:
    """Sizes of the axes, -1 for one that stays dynamic."""
    return str([axis if isinstance(axis, int) else -1 for axis in spec.shape])


def _with_sentences(spec: TensorSpec, sentences: int) -> TensorSpec:
    shape = tuple(axis if isinstance(axis, int) else sentences for axis in spec.shape)
    return TensorSpec(spec.name, spec.dtype, shape)
