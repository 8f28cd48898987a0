"""One ONNX graph of a whole frame: vision, audio, step, and what a session remembers between frames, as inputs and outputs.

A server that keeps a sequence's state feeds `next_X` of one frame as `X` of the next, and zeros at the start. The rules are
those of `session.py` (which frames are memory ticks) and `state.py` (what a tick leaves behind), in standard operators without
loops and branches: what is not to change passes a Where. All times are float64, as there. The mean is cumulative, the default of
`RunConfig`.

A frame that a session would refuse (NaN or infinity in it, or in what the network makes of it) changes no state, and the graph
says so: `is_valid` is false.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, numpy_helper
from onnxruntime.transformers.onnx_model import OnnxModel

from refavs_rt.config import ModelConfig
from refavs_rt.contract import TensorSpec, graph_specs
from refavs_rt.memory_clock import CLOCK_SLACK_S

PARTS = ("vision", "audio", "step")
"""The bundle's graphs that the stream graph is made of."""

_REMEMBERED = (
    "memory_audio",
    "memory_count",
    "memory_visual",
    "ring_age",
    "ring_audio_k",
    "ring_audio_tokens",
    "ring_audio_v",
    "ring_visual_k",
    "ring_visual_v",
)
_CLOCK = (
    TensorSpec("clock_last_s", "float64", (1,)),
    TensorSpec("clock_next_tick", "int64", (1,)),
    TensorSpec("clock_start_s", "float64", (1,)),
)
_PTS = TensorSpec("pts_s", "float64", (1,))
_IS_TICK = TensorSpec("is_tick", "bool", (1,))
_IS_VALID = TensorSpec("is_valid", "bool", (1,))


class StreamGraphError(Exception):
    """Graphs that cannot be joined; the message says why."""


@dataclass(frozen=True)
class StreamSpec:
    """What goes in and out of a stream graph, all axes fixed."""

    inputs: tuple[TensorSpec, ...]
    """Given with every frame."""
    outputs: tuple[TensorSpec, ...]
    """Answered to every frame."""
    states: tuple[tuple[TensorSpec, TensorSpec], ...]
    """Input and output of each tensor that is remembered; zeros before the first frame.

    Sorted by name: NVIDIA's server pairs the n-th of the sorted inputs with the n-th of the sorted outputs.
    """


def stream_spec(config: ModelConfig, sentences: int) -> StreamSpec:
    """The stream graph's inputs and outputs for one camera and N = `sentences`."""
    specs = graph_specs(config)
    known = {spec.name: _fixed(spec, sentences) for graph in PARTS for spec in specs[graph].inputs}
    text = ("token_mask", *(spec.name for spec in specs["text"].outputs))
    answers = {spec.name: _fixed(spec, sentences) for spec in specs["step"].outputs}
    states = sorted([*(known[name] for name in _REMEMBERED), *_CLOCK], key=lambda spec: spec.name)
    return StreamSpec(
        inputs=(*(known[name] for name in (*text, "frame", "log_mel", "has_sound")), _PTS),
        outputs=(answers["mask_logits"], answers["presence"], _IS_TICK, _IS_VALID),
        states=tuple((spec, TensorSpec(f"next_{spec.name}", spec.dtype, spec.shape)) for spec in states),
    )


def stream_graph(config: ModelConfig, graphs: Mapping[str, bytes], sentences: int) -> bytes:
    """Join a bundle's graphs with the rules of the memory.

    Args:
        config: the bundle's.
        graphs: graph name -> serialised ONNX model, for each of `PARTS`.
        sentences: N.

    Returns:
        A serialised ONNX model with the tensors of `stream_spec`, checked by `onnx.checker`. The same graphs give the same bytes.

    Raises:
        StreamGraphError: the graphs are too large together, or of different operator sets.
    """
    if (size := sum(len(graphs[part]) for part in PARTS)) > onnx.checker.MAXIMUM_PROTOBUF:
        raise StreamGraphError(
            f"the graphs have {size / 1e9:.1f} GB together, an ONNX file holds {onnx.checker.MAXIMUM_PROTOBUF / 1e9:.1f} GB"
        )
    models = {part: onnx.load_from_string(graphs[part]) for part in PARTS}
    spec = stream_spec(config, sentences)
    graph = GraphProto(name="refavs_stream")
    graph.input.extend(map(_value, (*spec.inputs, *(before for before, _ in spec.states))))
    graph.output.extend(map(_value, (*spec.outputs, *(after for _, after in spec.states))))
    for name, values in _constants(config).items():
        graph.initializer.append(numpy_helper.from_array(values, name))
    for part in PARTS:
        # Outer names are the contract's in each graph, so those of equal tensors already agree; inner names must differ.
        inner = models[part].graph
        del inner.value_info[:]  # may name outputs, which would be renamed with it
        onnx.compose.add_prefix_graph(
            inner, f"{part}/", rename_inputs=False, rename_outputs=False, inplace=True
        )
        graph.node.extend(inner.node)
        graph.initializer.extend(inner.initializer)
    graph.node.extend(_nodes(_RULES))
    OnnxModel.graph_topological_sort(graph)
    joined = ModelProto(
        ir_version=max(model.ir_version for model in models.values()),
        producer_name="refavs_rt",
        graph=graph,
        opset_import=_operator_sets(models),
    )
    onnx.checker.check_model(joined, full_check=True)
    return joined.SerializeToString(deterministic=True)


_RULES = """
# Is anything NaN or infinite?
frame_sum = ReduceSum <keepdims = 0> (frame)
log_mel_sum = ReduceSum <keepdims = 0> (log_mel)
sound_sum = Where (has_sound, log_mel_sum, zero_f32)
mask_logits_sum = ReduceSum <keepdims = 0> (mask_logits)
presence_sum = ReduceSum <keepdims = 0> (presence)
all_sum = Sum (frame_sum, sound_sum, mask_logits_sum, presence_sum)
all_size = Abs (all_sum)
is_finite = LessOrEqual (all_size, largest_f32)
pts_size = Abs (pts_s)
is_pts_finite = LessOrEqual (pts_size, largest_f64)
is_valid = And (is_finite, is_pts_finite)

# The clock: the first frame is a tick, then the first one at or after each period from it; it begins anew when pts jump back.
is_first = Equal (clock_next_tick, zero_i64)
earliest_s = Sub (clock_last_s, period_s)
is_jump_back = Less (pts_s, earliest_s)
is_restart = Or (is_first, is_jump_back)
start_s = Where (is_restart, pts_s, clock_start_s)
next_tick = Where (is_restart, zero_i64, clock_next_tick)
elapsed_s = Sub (pts_s, start_s)
elapsed_slack_s = Add (elapsed_s, slack_s)
elapsed_ticks = Mul (elapsed_slack_s, memory_hz)
reached = Cast <to = 7> (elapsed_ticks)
is_due = GreaterOrEqual (reached, next_tick)
is_tick = And (is_due, is_valid)
reached_next = Add (reached, one_i64)
next_clock_start_s = Where (is_valid, start_s, clock_start_s)
next_clock_last_s = Where (is_valid, pts_s, clock_last_s)
next_clock_next_tick = Where (is_tick, reached_next, clock_next_tick)

# The rings: a tick goes into the first empty slot, else into the oldest.
is_empty = Equal (ring_age, zero_i64)
age = Cast <to = 1> (ring_age)
rank = Where (is_empty, largest_f32, age)
slot = ArgMax <axis = 1, keepdims = 1> (rank)
is_slot = Equal (slots, slot)
is_written = And (is_slot, is_tick)
older = Add (ring_age, one_i64)
aged = Where (is_empty, ring_age, older)
tick_age = Where (is_slot, one_i64, aged)
next_ring_age = Where (is_tick, tick_age, ring_age)
is_row_written = Unsqueeze (is_written, axis_2)
is_grid_written = Unsqueeze (is_written, axes_2_3)
row_audio_k = Unsqueeze (audio_k, axis_1)
row_audio_v = Unsqueeze (audio_v, axis_1)
row_audio_token = Unsqueeze (audio_token, axis_1)
grid_visual_k = Unsqueeze (visual_k, axis_1)
grid_visual_v = Unsqueeze (visual_v, axis_1)
next_ring_audio_k = Where (is_row_written, row_audio_k, ring_audio_k)
next_ring_audio_v = Where (is_row_written, row_audio_v, ring_audio_v)
next_ring_audio_tokens = Where (is_row_written, row_audio_token, ring_audio_tokens)
next_ring_visual_k = Where (is_grid_written, grid_visual_k, ring_visual_k)
next_ring_visual_v = Where (is_grid_written, grid_visual_v, ring_visual_v)

# The memories: m + w (o - m) with w = 1 / (count + 1), computed in float64 and rounded.
counted = Cast <to = 11> (memory_count)
counted_next = Add (counted, one_f64)
share = Div (one_f64, counted_next)
memory_weight = Cast <to = 1> (share)
weight_audio = Unsqueeze (memory_weight, axis_1)
weight_visual = Unsqueeze (memory_weight, axes_1_2)
gain_audio = Sub (attended_audio, memory_audio)
gain_visual = Sub (attended_visual, memory_visual)
weighted_audio = Mul (weight_audio, gain_audio)
weighted_visual = Mul (weight_visual, gain_visual)
moved_audio = Add (memory_audio, weighted_audio)
moved_visual = Add (memory_visual, weighted_visual)
next_memory_audio = Where (is_tick, moved_audio, memory_audio)
next_memory_visual = Where (is_tick, moved_visual, memory_visual)
count_next = Add (memory_count, one_i64)
next_memory_count = Where (is_tick, count_next, memory_count)
"""
"""In ONNX's text form; 1, 7 and 11 are float32, int64 and float64. A clock that begins anew always ticks, so between ticks the
next tick stays as it was."""


def _constants(config: ModelConfig) -> dict[str, NDArray[np.generic]]:
    return {
        "zero_i64": np.array([0], np.int64),
        "one_i64": np.array([1], np.int64),
        "zero_f32": np.array([0], np.float32),
        "one_f64": np.array([1], np.float64),
        "largest_f32": np.array([np.finfo(np.float32).max]),
        "largest_f64": np.array([np.finfo(np.float64).max]),
        "period_s": np.array([1.0 / config.memory_hz]),
        "memory_hz": np.array([config.memory_hz]),
        "slack_s": np.array([CLOCK_SLACK_S]),
        "slots": np.arange(config.ring_ticks, dtype=np.int64)[None],
        "axis_1": np.array([1], np.int64),
        "axis_2": np.array([2], np.int64),
        "axes_1_2": np.array([1, 2], np.int64),
        "axes_2_3": np.array([2, 3], np.int64),
    }


def _nodes(text: str) -> list[NodeProto]:
    """Nodes from their text form, one a line; each is named after its output."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    nodes = [onnx.parser.parse_node(line) for line in lines]
    for node in nodes:
        node.name = node.output[0]
    return nodes


def _fixed(spec: TensorSpec, sentences: int) -> TensorSpec:
    """`spec` with N sentences and one camera."""
    sizes = {"N": sentences, "B": 1}
    shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape)
    return TensorSpec(spec.name, spec.dtype, shape)


def _value(spec: TensorSpec) -> ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return onnx.helper.make_tensor_value_info(spec.name, kind, spec.shape)


def _operator_sets(models: Mapping[str, ModelProto]) -> list[onnx.OperatorSetIdProto]:
    versions: dict[str, int] = {}
    for part, model in models.items():
        for used in model.opset_import:
            if versions.setdefault(used.domain, used.version) != used.version:
                raise StreamGraphError(
                    f"the {part} graph has version {used.version} of the operator set {used.domain or 'ai.onnx'!r}, another graph"
                    f" {versions[used.domain]}; export the bundle again"
                )
    return [onnx.helper.make_opsetid(domain, version) for domain, version in sorted(versions.items())]
