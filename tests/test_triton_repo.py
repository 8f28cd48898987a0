"""The model repository: its configurations against the server's own schema and the graphs, and the server played from request to
request, whose answers must be those of a session of ours."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from refavs_rt.bundle import TOKENIZER, Bundle, BundleError, embedded_bundle, graph_file, write_bundle
from refavs_rt.config import TEST, RunConfig
from refavs_rt.export import stateful
from refavs_rt.export.half import to_half
from refavs_rt.export.material import demo_clip
from refavs_rt.export.stateful import PARTS, StreamGraphError, stream_graph, stream_spec
from refavs_rt.export.triton_repo import ENSEMBLE, STREAM, TEXT, RepositoryError, write_triton_repo
from refavs_rt.ingest import open_source
from refavs_rt.session import Model, Session, load

from .tiny_bundle import TRAINING, tiny_files, write_tiny_bundle

Values = dict[str, NDArray[Any]]

TEXTS = ["a barking dog", "the silent cello"]
OTHERS = ["a guitar", "a barking cat"]
FRAMES = 40
DTYPES = {"TYPE_BOOL": np.bool_, "TYPE_FP32": np.float32, "TYPE_FP64": np.float64, "TYPE_INT64": np.int64}
ROOT = Path(__file__).resolve().parents[1]


def read_config(file: Path) -> Any:
    """A config.pbtxt by the server's schema, which refuses unknown fields and values."""
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(file.read_text(), model_config_pb2.ModelConfig())


def type_name(kind: int) -> str:
    from tritonclient.grpc import model_config_pb2

    return model_config_pb2.DataType.Name(kind)


def open_graph(data: bytes | Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    content = data if isinstance(data, bytes) else data.read_bytes()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class RefusedError(Exception):
    """What the server answers with an error."""


@dataclass
class Server:
    """Plays the server: what its documentation says of model repositories, ensembles, sequences and implicit state."""

    folder: Path
    configs: dict[str, Any] = field(default_factory=dict)
    sessions: dict[str, ort.InferenceSession] = field(default_factory=dict)
    states: dict[tuple[str, Any], Values] = field(default_factory=dict)
    runs: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for file in sorted(self.folder.glob("*/config.pbtxt")):
            config = read_config(file)
            assert config.name == file.parent.name
            version = max((x for x in file.parent.iterdir() if x.name.isdigit()), key=lambda x: int(x.name))
            self.configs[config.name] = config
            if config.platform != "ensemble":
                self.sessions[config.name] = open_graph(version / "model.onnx")

    def infer(
        self, model: str, inputs: Values, sequence: Any = 0, start: bool = False, end: bool = False
    ) -> Values:
        config = self.configs[model]
        check_inputs(config, inputs)
        if config.platform == "ensemble":
            return self._infer_ensemble(config, inputs, sequence, start, end)
        if config.HasField("sequence_batching"):
            return self._infer_sequence(config, inputs, sequence, start, end)
        return self._run(model, inputs, [x.name for x in config.output])

    def _infer_ensemble(self, config: Any, inputs: Values, *sequence: Any) -> Values:
        known, steps = dict(inputs), list(config.ensemble_scheduling.step)
        while ready := [step for step in steps if set(step.input_map.values()) <= set(known)]:
            for step in ready:
                given = {name: known[tensor] for name, tensor in step.input_map.items()}
                answers = self.infer(step.model_name, given, *sequence)
                known |= {tensor: answers[name] for name, tensor in step.output_map.items()}
                steps.remove(step)
        assert not steps, "a step never gets its inputs"
        return {output.name: known[output.name] for output in config.output}

    def _infer_sequence(self, config: Any, inputs: Values, sequence: Any, start: bool, end: bool) -> Values:
        states, key = config.sequence_batching.state, (config.name, sequence)
        if not sequence:
            raise RefusedError("must specify a non-zero or non-empty correlation ID")
        if start:
            self.states[key] = {}
            for state in states:
                (initial,) = state.initial_state
                assert initial.zero_data and initial.name and initial.dims == state.dims
                assert initial.data_type == state.data_type
                self.states[key][state.input_name] = zeros(state)
        if key not in self.states:
            raise RefusedError("must specify the START flag on the first request of the sequence")
        # The server keeps inputs and outputs of states in maps sorted by name, and pairs the n-th of one with the other's n-th.
        befores, afters = sorted(x.input_name for x in states), sorted(x.output_name for x in states)
        names = [*(x.name for x in config.output), *afters]
        answers = self._run(config.name, {**inputs, **self.states[key]}, names)
        for before, after in zip(befores, afters, strict=True):
            self.states[key][before] = answers.pop(after)
        if end:
            del self.states[key]
        return answers

    def _run(self, model: str, inputs: Values, names: Sequence[str]) -> Values:
        self.runs[model] += 1
        return dict(zip(names, self.sessions[model].run(list(names), inputs), strict=True))


def check_inputs(config: Any, inputs: Values) -> None:
    wanted = {x.name: x for x in config.input}
    if inputs.keys() != wanted.keys():
        raise RefusedError(f"inputs {sorted(inputs)}, not {sorted(wanted)}")
    for name, value in inputs.items():
        fits = len(value.shape) == len(wanted[name].dims) and all(
            size in (-1, axis) for size, axis in zip(wanted[name].dims, value.shape, strict=True)
        )
        if not fits or value.dtype != DTYPES[type_name(wanted[name].data_type)]:
            raise RefusedError(f"{name} is {value.dtype} {value.shape}")


def zeros(state: Any) -> NDArray[Any]:
    return np.zeros(list(state.dims), DTYPES[type_name(state.data_type)])


@dataclass
class Moment:
    """A frame as a client has it."""

    frame: NDArray[np.float32]
    log_mel: NDArray[np.float32] | None
    pts_s: float


def read_clip(size: int, count: int) -> list[Moment]:
    with open_source(demo_clip()[0], size, max_frames=count) as source:
        return [Moment(frame.tensor, frame.log_mel, frame.pts_s) for frame in source]


def request(model: Model, texts: Sequence[str], moment: Moment) -> Values:
    """What a client sends. Where there is no sound, anything may stand in its place."""
    ids, mask = model.tokenizer.encode(texts)
    no_sound = np.full((96, 64), np.nan, np.float32)
    return {
        "token_ids": ids,
        "token_mask": mask,
        "frame": moment.frame[None],
        "log_mel": (no_sound if moment.log_mel is None else moment.log_mel)[None],
        "has_sound": np.array([moment.log_mel is not None]),
        "pts_s": np.array([moment.pts_s]),
    }


def difference(answer: Values, session: Session, moment: Moment) -> float:
    """Largest difference of an answer from the session's, in shares of the largest logit; infinite where a tick is not one."""
    expected = session.predict(moment.frame, moment.log_mel, moment.pts_s)
    if bool(answer["is_tick"][0]) != expected.is_tick or not answer["is_valid"][0]:
        return float("inf")
    scale = max(1.0, float(np.abs(expected.mask_logits).max()))
    return max(
        float(np.abs(answer["mask_logits"] - expected.mask_logits).max()) / scale,
        float(np.abs(answer["presence"] - expected.presence).max()),
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return load(bundle.path, run=RunConfig(threads=1))


@pytest.fixture(scope="module")
def repository(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_triton_repo(bundle, tmp_path_factory.mktemp("served") / "models", sentences=2)


@pytest.fixture(scope="module")
def moments() -> list[Moment]:
    """Frames of the demo clip 0.35 s apart, so that the ring fills three times and most frames are no tick; some without sound,
    one a little early, and from the 30th on the source begins again."""
    found = read_clip(TEST.image_size, FRAMES)
    for i, moment in enumerate(found):
        moment.pts_s = 7.2 + 0.35 * i - (9.0 if i >= 30 else 0.0) - (0.4 if i == 11 else 0.0)
        if i % 7 == 3:
            moment.log_mel = None
    return found


def test_forty_frames_are_a_sessions(repository: Path, model: Model, moments: list[Moment]) -> None:
    """Two cameras take turns, the second one with other sentences and every other frame."""
    server = Server(repository)
    sessions = {"hall": model.session(TEXTS), 17: model.session(OTHERS)}
    ticks = Counter[Any]()
    for i, moment in enumerate(moments):
        for camera, texts, step in (("hall", TEXTS, 1), (17, OTHERS, 2)):
            if i % step == 0:
                answer = server.infer(ENSEMBLE, request(model, texts, moment), camera, start=i == 0)
                assert difference(answer, sessions[camera], moment) < 1e-5, f"camera {camera}, frame {i}"
                ticks[camera] += int(answer["is_tick"][0])
    assert TEST.ring_ticks * 3 < ticks["hall"] < FRAMES / 2
    assert sum(x.log_mel is None for x in moments) > 4
    state = server.states[STREAM, "hall"]
    for name, value in {**sessions["hall"].shared.feeds(), **sessions["hall"].sentences.feeds()}.items():
        if name in state:
            np.testing.assert_allclose(state[name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("ArgMax <axis = 1, keepdims = 1> (rank)", "ArgMin <axis = 1, keepdims = 1> (rank)"),
        ("Where (is_empty, largest_f32, age)", "Where (is_empty, zero_f32, age)"),
        ("tick_age = Where (is_slot, one_i64, aged)", "tick_age = Where (is_slot, zero_i64, aged)"),
        ("next_ring_audio_v = Where (is_row_written, row_audio_v", "next_ring_audio_v = Where (is_row_written, row_audio_k"),
        ("is_written = And (is_slot, is_tick)", "is_written = And (is_slot, is_valid)"),
        ("next_memory_audio = Where (is_tick", "next_memory_audio = Where (is_valid"),
        ("next_memory_visual = Where (is_tick, moved_visual", "next_memory_visual = Where (is_tick, attended_visual"),
        ("share = Div (one_f64, counted_next)", "share = Div (one_f64, one_f64)"),
        ("count_next = Add (memory_count, one_i64)", "count_next = Add (memory_count, zero_i64)"),
        ("is_restart = Or (is_first, is_jump_back)", "is_restart = Or (is_first, is_first)"),
        ("is_restart = Or (is_first, is_jump_back)", "is_restart = Or (is_jump_back, is_jump_back)"),
        ("reached_next = Add (reached, one_i64)", "reached_next = Add (next_tick, one_i64)"),
        ("earliest_s = Sub (clock_last_s, period_s)", "earliest_s = Sub (clock_last_s, slack_s)"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_seen(
    bundle: Bundle,
    model: Model,
    moments: list[Moment],
    rule: str,
    broken: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the comparison above is worth: with one rule changed, some frame differs."""
    assert stateful._RULES.count(rule) == 1
    monkeypatch.setattr(stateful, "_RULES", stateful._RULES.replace(rule, broken))
    server = Server(write_triton_repo(bundle, tmp_path / "models", sentences=2))
    session = model.session(TEXTS)
    worst = max(
        difference(server.infer(ENSEMBLE, request(model, TEXTS, moment), 1, start=i == 0), session, moment)
        for i, moment in enumerate(with_a_gap(moments))
    )
    assert worst > 1e-4


def with_a_gap(moments: list[Moment]) -> Iterator[Moment]:
    """The frames, of which some are lost."""
    return (moment for i, moment in enumerate(moments) if not 15 <= i < 23)


@pytest.mark.parametrize("memory_hz", [1.0, 3.0, 0.7])
def test_ticks_are_a_sessions_whatever_the_times(bundle: Bundle, model: Model, memory_hz: float) -> None:
    config = replace(TEST, memory_hz=memory_hz)
    files = tiny_files()
    graph = open_graph(stream_graph(config, {part: files[graph_file(part)] for part in PARTS}, 1))
    session = Model(replace(bundle, config=config), model.engine, model.run).session(TEXTS[:1])
    state = {
        spec.name: np.zeros([*map(int, spec.shape)], spec.dtype) for spec, _ in stream_spec(config, 1).states
    }
    rng = np.random.default_rng(5)
    raster = [100 + (k // 3 + (-0.5e-6, -2e-6, 0.0)[k % 3]) / memory_hz for k in range(45)]
    walk = list(np.cumsum(rng.normal(0.2, 0.5, 60) / memory_hz) - 3)
    noise = np.zeros((3, 64, 64), np.float32)
    given = {**session.sentences.text, "frame": noise[None], "log_mel": np.zeros((1, 96, 64), np.float32)}
    found, expected = [], []
    for pts_s in [*raster, *walk, -1e9, 0.0, 1e9]:
        feeds = {**given, **state, "has_sound": np.array([False]), "pts_s": np.array([pts_s])}
        names = ["is_tick", *(f"next_{name}" for name in state)]
        is_tick, *values = graph.run(names, feeds)
        state = dict(zip(state, values, strict=True))
        found.append(bool(is_tick[0]))
        expected.append(session.predict(noise, None, pts_s).is_tick)
    assert found == expected
    assert 20 < sum(found) < len(found) - 20


@pytest.mark.parametrize(
    ("name", "damaged"), [("frame", np.nan), ("log_mel", -np.inf), ("pts_s", np.nan), ("pts_s", np.inf)]
)
def test_a_frame_that_a_session_refuses_leaves_no_trace(
    repository: Path, model: Model, moments: list[Moment], name: str, damaged: float
) -> None:
    server, session = Server(repository), model.session(TEXTS)
    for i, moment in enumerate(moments[:9:2]):
        if i in (0, 2):
            broken = {key: value.copy() for key, value in request(model, TEXTS, moments[0]).items()}
            broken[name][..., -1] = damaged
            answer = server.infer(ENSEMBLE, broken, 5, start=i == 0)
            assert not answer["is_valid"][0] and not answer["is_tick"][0]
        answer = server.infer(ENSEMBLE, request(model, TEXTS, moment), 5)
        assert difference(answer, session, moment) < 1e-5


def test_the_embedded_bundle(tmp_path: Path) -> None:
    bundle = Bundle.open(embedded_bundle())
    folder = write_triton_repo(bundle, tmp_path / "models", sentences=2)
    model, server = load(bundle.path, run=RunConfig(threads=1)), Server(folder)
    texts = demo_clip()[1]
    session = model.session(texts)
    for i, moment in enumerate(read_clip(model.config.image_size, 5)):
        moment.pts_s *= 20
        answer = server.infer(ENSEMBLE, request(model, texts, moment), 1, start=i == 0)
        assert difference(answer, session, moment) < 1e-5
        assert answer["mask_logits"].shape == (2, 64, 64)


def test_a_bundle_in_float16(tmp_path: Path, moments: list[Moment]) -> None:
    """Its graphs are used as they are; what goes in and out stays float32. Between graphs that are joined ONNX Runtime leaves out
    a rounding to float16, so masks differ by one or two of its steps."""
    files = tiny_files()
    files = files | {graph_file(name): to_half(files[graph_file(name)]) for name in ("vision", "step")}
    bundle = write_bundle(
        tmp_path / "half", TEST, files, tools={}, training=TRAINING, parity={}, precision="fp16"
    )
    server = Server(write_triton_repo(bundle, tmp_path / "models"))
    assert server.configs[ENSEMBLE].parameters["precision"].string_value == "fp16"
    model = load(bundle.path, run=RunConfig(threads=1))
    session = model.session(TEXTS[:1])
    for i, moment in enumerate(moments[:12]):
        answer = server.infer(ENSEMBLE, request(model, TEXTS[:1], moment), 1, start=i == 0)
        assert answer["mask_logits"].dtype == np.float32
        assert difference(answer, session, moment) < 5e-3


def test_files_stand_where_the_server_expects_them(repository: Path, bundle: Bundle) -> None:
    found = sorted(str(path.relative_to(repository)) for path in repository.rglob("*"))
    assert found == [
        "refavs", "refavs/1", "refavs/config.pbtxt",
        "refavs_stream", "refavs_stream/1", "refavs_stream/1/model.onnx", "refavs_stream/config.pbtxt",
        "refavs_text", "refavs_text/1", "refavs_text/1/model.onnx", "refavs_text/config.pbtxt",
        TOKENIZER,
    ]  # fmt: skip
    assert (repository / TOKENIZER).read_bytes() == bundle.read(TOKENIZER)
    assert (repository / "refavs_text/1/model.onnx").read_bytes() == bundle.read("text.onnx")


@pytest.mark.parametrize("name", [TEXT, STREAM])
def test_a_config_names_the_graphs_own_tensors(repository: Path, name: str) -> None:
    config = read_config(repository / name / "config.pbtxt")
    graph = onnx.load(repository / name / "1/model.onnx").graph
    states = config.sequence_batching.state
    inputs = {x.name: x for x in config.input} | {x.input_name: x for x in states}
    outputs = {x.name: x for x in config.output} | {x.output_name: x for x in states}
    for described, tensors in ((inputs, graph.input), (outputs, graph.output)):
        assert described.keys() == {tensor.name for tensor in tensors}
        for tensor in tensors:
            kind = tensor.type.tensor_type
            dims = [-1 if size.dim_param else size.dim_value for size in kind.shape.dim]
            assert list(described[tensor.name].dims) == dims
            stated = DTYPES[type_name(described[tensor.name].data_type)]
            assert stated == onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    assert config.backend == "onnxruntime" and config.max_batch_size == 0


def test_states_are_paired_by_sorted_names_too(repository: Path) -> None:
    """The server takes the n-th of the sorted outputs for the n-th of the sorted inputs."""
    config = read_config(repository / STREAM / "config.pbtxt")
    pairs = {x.input_name: x.output_name for x in config.sequence_batching.state}
    assert len(pairs) == 12
    assert [pairs[name] for name in sorted(pairs)] == sorted(pairs.values())
    assert config.sequence_batching.WhichOneof("strategy_choice") == "oldest"
    assert not config.HasField("response_cache"), "the server refuses a cache for sequences"


def test_the_ensemble_maps_every_tensor_once_and_alike(repository: Path) -> None:
    """As the server checks an ensemble when it loads it."""
    configs = {file.parent.name: read_config(file) for file in repository.glob("*/config.pbtxt")}
    ensemble = configs[ENSEMBLE]
    tensors = {x.name: (x.data_type, list(x.dims)) for x in (*ensemble.input, *ensemble.output)}
    produced = {x.name for x in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        inner = configs[step.model_name]
        assert step.input_map.keys() == {x.name for x in inner.input}
        assert step.output_map.keys() <= {x.name for x in inner.output}
        for mapping, described in ((step.input_map, inner.input), (step.output_map, inner.output)):
            for tensor in described:
                kind, dims = tensors.setdefault(mapping[tensor.name], (tensor.data_type, list(tensor.dims)))
                assert kind == tensor.data_type and len(dims) == len(tensor.dims)
                assert all(a == b or -1 in (a, b) for a, b in zip(dims, tensor.dims, strict=True))
        assert len(set(step.output_map.values())) == len(step.output_map)
        assert not produced & set(step.output_map.values())
        produced |= set(step.output_map.values())
    assert {x.name for x in ensemble.output} <= produced
    assert not ensemble.instance_group, "the server refuses instances of an ensemble"


def test_the_text_is_cached_and_on_the_host(repository: Path) -> None:
    config = read_config(repository / TEXT / "config.pbtxt")
    (group,) = config.instance_group
    assert config.response_cache.enable and group.kind == group.KIND_CPU and group.count == 1


def test_a_sequence_must_be_begun_and_is_over_at_its_end(
    repository: Path, model: Model, moments: list[Moment]
) -> None:
    server = Server(repository)
    given = request(model, TEXTS, moments[0])
    with pytest.raises(RefusedError, match="START flag"):
        server.infer(ENSEMBLE, given, 3)
    first = server.infer(ENSEMBLE, given, 3, start=True)
    later = server.infer(ENSEMBLE, request(model, TEXTS, moments[8]), 3, end=True)
    assert np.abs(first["mask_logits"] - later["mask_logits"]).max() > 1e-3
    with pytest.raises(RefusedError, match="START flag"):
        server.infer(ENSEMBLE, given, 3)
    again = server.infer(ENSEMBLE, given, 3, start=True)
    np.testing.assert_array_equal(again["mask_logits"], first["mask_logits"])


def test_the_same_bundle_gives_the_same_bytes(repository: Path, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    again = write_triton_repo(bundle, tmp_path / "empty", sentences=2)
    for file in repository.rglob("*"):
        if file.is_file():
            assert (again / file.relative_to(repository)).read_bytes() == file.read_bytes()


def test_a_folder_that_is_taken_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "note.txt").write_text("mine")
    with pytest.raises(RepositoryError, match=f"{taken}: exists and is not empty; remove it"):
        write_triton_repo(bundle, taken)
    with pytest.raises(RepositoryError, match=r"note\.txt: exists and is no folder"):
        write_triton_repo(bundle, taken / "note.txt")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RepositoryError, match="link: exists and is no folder"):
        write_triton_repo(bundle, tmp_path / "link")
    assert [x.name for x in taken.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("sentences", [0, -1, 9])
def test_a_number_of_sentences_that_the_bundle_does_not_take(
    bundle: Bundle, tmp_path: Path, sentences: int
) -> None:
    with pytest.raises(RepositoryError, match=f"^{sentences} sentences: the bundle .* takes 1 to 8$"):
        write_triton_repo(bundle, tmp_path / "models", sentences=sentences)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_repository_that_could_not_be_written(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full_disk(self: Path, data: bytes) -> int:
        written.append(self)
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(self))
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_triton_repo(bundle, tmp_path / "models")
    assert len(written) == 4 and not list(tmp_path.iterdir())


def test_a_damaged_bundle_gives_no_repository(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    damaged = Bundle.open(copy)
    content = bytearray((copy / "audio.onnx").read_bytes())
    content[100] ^= 1
    (copy / "audio.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"audio\.onnx: damaged"):
        write_triton_repo(damaged, tmp_path / "models")
    assert [x.name for x in tmp_path.iterdir()] == ["copy"]


def test_nodes_that_are_not_in_order_are_put_in_order() -> None:
    """A quantiser appends its nodes at the end."""
    graphs = {part: tiny_files()[graph_file(part)] for part in PARTS}
    mixed = {}
    for part, data in graphs.items():
        proto = onnx.load_from_string(data)
        nodes = list(proto.graph.node)[::-1]
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
        mixed[part] = proto.SerializeToString()
    found, expected = (open_graph(stream_graph(TEST, of, 1)) for of in (mixed, graphs))
    rng = np.random.default_rng(8)
    spec = stream_spec(TEST, 1)
    feeds = {
        x.name: rng.integers(0, 2, x.shape).astype(x.dtype)
        for x in (*spec.inputs, *(before for before, _ in spec.states))
    }
    names = [x.name for x in expected.get_outputs()]
    for name, value, wanted in zip(names, found.run(names, feeds), expected.run(names, feeds), strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-5, err_msg=name)


def test_graphs_that_do_not_join(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = {part: tiny_files()[graph_file(part)] for part in PARTS}
    other = onnx.load_from_string(graphs["audio"])
    other.opset_import[0].version = 17
    with pytest.raises(StreamGraphError, match=r"audio graph has version 17 .* 'ai\.onnx', another graph 18"):
        stream_graph(TEST, graphs | {"audio": other.SerializeToString()}, 1)
    monkeypatch.setattr(onnx.checker, "MAXIMUM_PROTOBUF", 1000)
    with pytest.raises(RepositoryError, match="tiny: the graphs have 0.0 GB together"):
        write_triton_repo(bundle, tmp_path / "models")
    assert not list(tmp_path.iterdir())
    with pytest.raises(StreamGraphError, match="an ONNX file holds 0.0 GB"):
        stream_graph(TEST, graphs, 1)


def test_torch_is_not_needed(bundle: Bundle, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; from refavs_rt.bundle import Bundle\n"
        "from refavs_rt.export.triton_repo import write_triton_repo\n"
        "write_triton_repo(Bundle.open(sys.argv[1]), Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, bundle.path, tmp_path / "models"], check=True)
    assert (tmp_path / "models/refavs_stream/1/model.onnx").is_file()


def test_the_client_of_the_documentation(repository: Path, model: Model) -> None:
    """Its code as it stands there, over gRPC, against what the package itself streams, its masks made larger alone."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/serving.md").read_text(), re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "client"}
    exec(compile(code, "docs/serving.md", "exec"), namespace)
    clip, texts = demo_clip()[0], ["Bells.", "A dog."]
    server = Server(repository)
    with listening(server) as url:
        found = list(namespace["segment"](url, repository / TOKENIZER, clip, texts, max_frames=30))
        with pytest.raises(ValueError, match="takes 2 sentences"):
            next(namespace["segment"](url, repository / TOKENIZER, clip, texts[:1]))
    plain = replace(model.run, align_edges=False, presence_hysteresis=0.0)
    expected = list(Model(model.bundle, model.engine, plain).stream(clip, texts, max_frames=30))
    assert len(found) == len(expected) == 30 and not server.states, "the sequence was ended"
    for (pts_s, presence, masks), result in zip(found, expected, strict=True):
        assert pts_s == result.pts_s
        np.testing.assert_allclose(presence, result.presence, atol=1e-5)
        assert masks.shape == result.masks.shape and (masks != result.masks).mean() < 1e-3


class listening:  # noqa: N801
    """Serves a played server over gRPC on a free port, as the client library speaks it."""

    def __init__(self, server: Server) -> None:
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        class Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
            def ModelConfig(self, asked: Any, context: Any) -> Any:  # noqa: N802
                return service_pb2.ModelConfigResponse(config=server.configs[asked.name])

            def ModelInfer(self, asked: Any, context: Any) -> Any:  # noqa: N802
                answers = server.infer(asked.model_name, read_inputs(server, asked), *read_flags(asked))
                reply = service_pb2.ModelInferResponse(model_name=asked.model_name)
                for name, values in answers.items():
                    described = {x.name: x for x in server.configs[asked.model_name].output}[name]
                    kind = type_name(described.data_type).removeprefix("TYPE_")
                    reply.outputs.add(name=name, datatype=kind, shape=values.shape)
                    reply.raw_output_contents.append(values.tobytes())
                return reply

        self._grpc = grpc.server(futures.ThreadPoolExecutor(1))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), self._grpc)
        self._port = self._grpc.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> str:
        self._grpc.start()
        return f"127.0.0.1:{self._port}"

    def __exit__(self, *error: object) -> None:
        self._grpc.stop(None).wait()


def read_inputs(server: Server, asked: Any) -> Values:
    wanted: Mapping[str, Any] = {x.name: x for x in server.configs[asked.model_name].input}
    return {
        tensor.name: np.frombuffer(raw, DTYPES[type_name(wanted[tensor.name].data_type)]).reshape(
            tensor.shape
        )
        for tensor, raw in zip(asked.inputs, asked.raw_input_contents, strict=True)
    }


def read_flags(asked: Any) -> tuple[Any, bool, bool]:
    sequence = asked.parameters["sequence_id"]
    identity = sequence.string_param or sequence.int64_param
    return (
        identity,
        asked.parameters["sequence_start"].bool_param,
        asked.parameters["sequence_end"].bool_param,
    )
