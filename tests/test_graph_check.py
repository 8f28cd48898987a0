"""The reader of ONNX graphs against onnx's own: what it takes, what it refuses, and that it never raises anything else."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from refavs_rt.bundle import Bundle, embedded_bundle, graph_file
from refavs_rt.contract import GRAPHS
from refavs_rt.graph_check import IR_VERSIONS, OPSETS, GraphError, check_graph

from .tiny_bundle import tiny_files


def small_model() -> ModelProto:
    """Two nodes, constants of some types, typed and raw, and one attribute of each kind that is taken."""
    nodes = [
        helper.make_node(
            "Conv", ["x", "weight"], ["y"], name="first", auto_pad="VALID", strides=[1, 1], group=1
        ),
        helper.make_node("LeakyRelu", ["y"], ["z"], name="second", alpha=0.5),
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros((2, 3), np.int64))),
        helper.make_node("Constant", [], ["d"], value_floats=[1.0, 2.0]),
    ]
    constants = [
        numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "weight"),
        numpy_helper.from_array(np.zeros((3, 0), np.float32), "empty"),
        numpy_helper.from_array(np.float16(1.5), "scalar"),
        helper.make_tensor("typed floats", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("typed long", TensorProto.INT64, [4], [1, -1, 2**40, 300]),
        helper.make_tensor("typed bytes", TensorProto.INT8, [2], [-128, 127]),
        helper.make_tensor("typed doubles", TensorProto.DOUBLE, [2], [0.5, 1e300]),
        helper.make_tensor("typed unsigned", TensorProto.UINT64, [1], [2**63]),
    ]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "main",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 2, 8, 8])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
        producer_name="test",
    )


def test_what_onnx_writes_is_taken() -> None:
    model = small_model()
    onnx.checker.check_model(model, full_check=True)
    check_graph(model.SerializeToString())


@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_of_the_exporter_are_taken(graph: str) -> None:
    check_graph(tiny_files()[graph_file(graph)])


def test_the_embedded_graphs_are_taken_at_once() -> None:
    bundle = Bundle.open(embedded_bundle())
    graphs = [bundle.read(graph_file(graph)) for graph in GRAPHS]
    taken_s = []
    for _ in range(3):
        start = time.process_time()
        for data in graphs:
            check_graph(data)
        taken_s.append(time.process_time() - start)
    assert min(taken_s) < 0.5, "48 MB are read, it seems, and not skipped"


def external(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def external_place_only(model: ModelProto) -> None:
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "weights.bin"


def external_in_an_attribute(model: ModelProto) -> None:
    model.graph.node[2].attribute[0].t.data_location = TensorProto.EXTERNAL


def subgraph(model: ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute("then_branch", body))


def subgraphs(model: ModelProto) -> None:
    attribute = model.graph.node[0].attribute.add()
    attribute.name, attribute.type = "bodies", AttributeProto.GRAPHS
    attribute.graphs.add().name = "body"


def control_flow(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Loop"


def function(model: ModelProto) -> None:
    model.functions.add().name = "Conv"


def foreign_operator(model: ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"


def foreign_opset(model: ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))


def same_opset_twice(model: ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("", 17))


def no_opset(model: ModelProto) -> None:
    del model.opset_import[0]


def training(model: ModelProto) -> None:
    model.training_info.add()


def sparse(model: ModelProto) -> None:
    model.graph.sparse_initializer.add().dims.append(3)


def strings(model: ModelProto) -> None:
    words = model.graph.initializer.add(name="words", dims=[1], data_type=TensorProto.STRING)
    words.string_data.append(b"x")


def string_attribute_list(model: ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("words", ["a", "b"]))


def sequence_input(model: ModelProto) -> None:
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT


def negative_dim(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -2


def too_much_data(model: ModelProto) -> None:
    model.graph.initializer[0].raw_data += b"\0\0\0\0"


def too_little_data(model: ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-1]


def no_data(model: ModelProto) -> None:
    model.graph.initializer[0].ClearField("raw_data")


def data_twice(model: ModelProto) -> None:
    model.graph.initializer[0].float_data.extend([0.0] * 6)


def other_data_field(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.int64_data.extend([1] * 6)


def overflowing_dims(model: ModelProto) -> None:
    """2^64 elements, which is 0 to a computer that does not look."""
    tensor = model.graph.initializer[0]
    tensor.dims[:] = [2**16, 2**16, 2**16, 2**16]
    tensor.raw_data = b""


def empty_beside_a_huge_dim(model: ModelProto) -> None:
    model.graph.initializer[1].dims[0] = 2**62


def many_axes(model: ModelProto) -> None:
    model.graph.initializer[0].dims.extend([1] * 1_000)


def few_typed(model: ModelProto) -> None:
    model.graph.initializer[4].int64_data.pop()


def many_typed(model: ModelProto) -> None:
    model.graph.initializer[5].int32_data.append(1)


def unknown_kind(model: ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def huge_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**40


def huge_input_as_a_product(model: ModelProto) -> None:
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 2**20


def negative_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = -1


def attribute_of_two_kinds(model: ModelProto) -> None:
    model.graph.node[1].attribute[0].i = 1


def attribute_of_no_kind(model: ModelProto) -> None:
    model.graph.node[1].attribute[0].type = AttributeProto.UNDEFINED


def no_group(model: ModelProto) -> None:
    next(x for x in model.graph.node[0].attribute if x.name == "group").i = 0


def long_operator(model: ModelProto) -> None:
    model.graph.node[0].op_type = "x" * 20_000


def old_opset(model: ModelProto) -> None:
    model.opset_import[0].version = OPSETS[0] - 1


def new_opset(model: ModelProto) -> None:
    model.opset_import[0].version = OPSETS[1] + 1


def negative_opset(model: ModelProto) -> None:
    model.opset_import[0].version = -18


def old_form(model: ModelProto) -> None:
    model.ir_version = 2


def no_graph(model: ModelProto) -> None:
    model.ClearField("graph")


def long_name(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "x" * 1_000_000


def split(model: ModelProto) -> None:
    """Over this one ONNX Runtime 1.32 ends the process."""
    model.graph.node.append(helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=1))


def no_stride(model: ModelProto) -> None:
    next(x for x in model.graph.node[0].attribute if x.name == "strides").ints[:] = [1, 0]


def negative_pads(model: ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("pads", [0, 0, -1, 0]))


def huge_attribute(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Softmax", ["x"], ["s"], axis=-(2**40)))


def long_attribute(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Transpose", ["x"], ["t"], perm=list(range(65))))


def reference(model: ModelProto) -> None:
    model.graph.node[1].attribute[0].ref_attr_name = "outer"


def huge_between(model: ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2**40]))


def foreign_kind(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.COMPLEX64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (split, r"'Split' cannot have the 'num_outputs' \[1\]"),
        (no_stride, r"'Conv' cannot have the 'strides' \[1, 0\]"),
        (negative_pads, r"'Conv' cannot have the 'pads' \[0, 0, -1, 0\]"),
        (huge_attribute, r"'Softmax' cannot have the 'axis' \[-1099511627776\]"),
        (long_attribute, "'Transpose' cannot have the 'perm'"),
        (reference, "attribute of 'LeakyRelu' holds a reference"),
        (huge_between, r"'y' has the shape \[1, 1099511627776\]"),
        (foreign_kind, "'x' is of kind 14"),
        (external, "data of 'weight' are in another file"),
        (external_place_only, "data of 'weight' are in another file"),
        (external_in_an_attribute, "are in another file"),
        (subgraph, "attribute of 'Conv' holds a graph"),
        (subgraphs, "attribute of 'Conv' holds graphs"),
        (control_flow, "operator 'Loop', which holds a graph"),
        (function, "field 25"),
        (foreign_operator, "operator 'Conv' of 'com.microsoft'"),
        (foreign_opset, "needs operators of 'ai.onnx.ml'"),
        (same_opset_twice, "twice"),
        (no_opset, "no opset"),
        (training, "field 20"),
        (sparse, "field 15"),
        (strings, "field 6"),
        (string_attribute_list, "attribute of 'Conv' holds strings"),
        (sequence_input, "a type in it has a field 4"),
        (negative_dim, r"'weight' has the shape \[-2, 3, 1, 1\]"),
        (too_much_data, "'weight' has 28 bytes of data, not 24"),
        (too_little_data, "'weight' has 23 bytes of data, not 24"),
        (no_data, "'weight' has 0 bytes of data, not 24"),
        (data_twice, "'weight' has its data twice"),
        (other_data_field, "'weight' has its data in a field for another kind"),
        (overflowing_dims, r"'weight' has the shape \[65536, 65536, 65536, 65536\]"),
        (empty_beside_a_huge_dim, r"'empty' has the shape \[4611686018427387904, 0\]"),
        (many_axes, "axes"),
        (few_typed, "'typed long' has 3 elements of data, not 4"),
        (many_typed, "'typed bytes' has 3 elements of data, not 2"),
        (unknown_kind, "'weight' is of kind 99"),
        (huge_input, "'x' has the shape"),
        (huge_input_as_a_product, "'x' has the shape"),
        (negative_input, "'x' has the shape"),
        (attribute_of_two_kinds, "'LeakyRelu' holds another kind than it says"),
        (attribute_of_no_kind, "'LeakyRelu' is of kind 0"),
        (no_group, r"'Conv' cannot have the 'group' \[0\]"),
        (long_operator, "a name in it is too long"),
        (old_opset, f"its opset is {OPSETS[0] - 1}"),
        (new_opset, f"its opset is {OPSETS[1] + 1}"),
        (negative_opset, "its opset is -18"),
        (old_form, "its ir_version is 2"),
        (no_graph, "holds no graph"),
        (long_name, "a name in it is too long"),
    ],
)
def test_what_no_graph_of_ours_holds_is_refused(change: Callable[[ModelProto], None], message: str) -> None:
    model = small_model()
    change(model)
    with pytest.raises(GraphError, match=message):
        check_graph(model.SerializeToString())


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("form", IR_VERSIONS)
def test_all_versions_between_the_bounds_are_taken(opset: int, form: int) -> None:
    model = small_model()
    model.opset_import[0].version, model.ir_version = opset, form
    check_graph(model.SerializeToString())


def test_every_truncation_is_refused() -> None:
    """Wherever a model is cut, its opset is gone at the least: protobuf writes it behind the graph."""
    model = small_model()
    del model.opset_import[1]
    data = model.SerializeToString()
    check_graph(data)
    for length in range(len(data)):
        with pytest.raises(GraphError):
            check_graph(data[:length])


def test_flipped_bits_are_refused_or_agree_with_onnx() -> None:
    """Of what is taken tensors have the data that their shape says, for onnx as well. It reads notes, which are skipped here."""
    data = small_model().SerializeToString()
    taken = 0
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            try:
                check_graph(bytes(changed))
                model = onnx.load_from_string(bytes(changed))
            except (GraphError, DecodeError):
                continue
            taken += 1
            for tensor in model.graph.initializer:
                assert numpy_helper.to_array(tensor).shape == tuple(tensor.dims)
            assert not model.functions and all(not node.domain for node in model.graph.node)
    assert taken > len(data), "names and values may change"


def wire(number: int, kind: int, content: bytes) -> bytes:
    """A field as it is written; `content` is its value, or after its length the bytes of it."""
    tag = number << 3 | kind
    return (bytes([tag]) if tag < 128 else bytes([tag & 0x7F | 0x80, tag >> 7])) + content


def spanned(number: int, content: bytes) -> bytes:
    length = len(content)
    parts = [length >> shift & 0x7F for shift in range(0, max(1, length.bit_length()), 7)]
    return wire(number, 2, bytes([*(part | 0x80 for part in parts[:-1]), parts[-1]]) + content)


HEAD = wire(1, 0, b"\x0a") + spanned(8, wire(2, 0, b"\x12"))
"""ir_version 10, opset 18."""


def test_the_smallest_graph_is_taken() -> None:
    check_graph(HEAD + spanned(7, b""))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has 0 bytes"),
        (b"\x1c\x00\x00\x00ORTM" + bytes(32), "wire type 4"),  # ONNX Runtime's own format
        (HEAD + spanned(7, b"") + b"\xff" * 11, "more than 64 bits"),
        (HEAD + wire(5, 0, b"\x80" * 10 + b"\x01") + spanned(7, b""), "more than 64 bits"),
        (HEAD + wire(5, 0, b"\xff" * 9 + b"\x7f") + spanned(7, b""), "more than 64 bits"),
        (HEAD + wire(7, 2, b"\x05"), "cut short"),
        (HEAD + wire(7, 2, b"\xff" * 9 + b"\x01"), "cut short|too early"),
        (HEAD + spanned(7, b"") + spanned(7, b""), "field 7 twice"),
        (HEAD + wire(1, 0, b"\x0a") + spanned(7, b""), "field 1 twice"),
        (HEAD + wire(7, 3, wire(7, 4, b"")), "field 7 of wire type 3"),
        (HEAD + b"\x0b" * 100_000, "wire type 3"),
        (HEAD + wire(7, 0, b"\x01"), "field 7 of wire type 0"),
        (HEAD + wire(7, 5, b"\0\0\0\0"), "field 7 of wire type 5"),
        (HEAD + spanned(7, b"") + wire(0, 0, b"\x01"), "field 0"),
        (HEAD + spanned(7, b"") + spanned(9, b""), "field 9"),
        (HEAD + spanned(7, spanned(1, spanned(4, b"Add")[:-1])), "cut short"),
        (HEAD + spanned(7, spanned(11, spanned(1, b"\xff\xfe"))), "not text"),
        (HEAD + spanned(7, spanned(11, spanned(2, spanned(6, b"x")))), "is no tensor"),
        (HEAD + spanned(7, spanned(1, b"") * 100_001), "it has 100001 nodes"),
    ],
)
def test_damaged_wire_data_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        check_graph(data)


def tensor(content: bytes) -> bytes:
    """A graph of one initialiser."""
    return HEAD + spanned(7, spanned(5, content))


FLOAT = wire(2, 0, b"\x01")


def test_tensors_that_protobuf_joins_of_two_are_refused() -> None:
    """Axes may come one by one or together; what may be there once only is refused the second time."""
    one_by_one = wire(1, 0, b"\x01") + wire(1, 0, b"\x02")
    check_graph(tensor(one_by_one + FLOAT + spanned(9, bytes(8))))
    check_graph(tensor(spanned(1, b"\x01\x02") + FLOAT + spanned(9, bytes(8))))
    for content, message in [
        (one_by_one + FLOAT + spanned(9, bytes(8)) + spanned(9, bytes(8)), "field 9 twice"),
        (one_by_one + FLOAT + FLOAT + spanned(9, bytes(8)), "field 2 twice"),
        (spanned(1, b"\x01") + spanned(1, b"\x03") + FLOAT + spanned(9, bytes(8)), "8 bytes of data, not 12"),
        (spanned(1, b"\x01\x82") + FLOAT + spanned(9, bytes(8)), "damaged|more than 64|too early"),
        (spanned(1, b"\x02") + FLOAT + spanned(4, bytes(7)), "within an element"),
        (spanned(1, b"\x02") + wire(2, 0, b"\x07") + spanned(7, b"\x01\x80"), "within an element"),
        (spanned(1, b"\x01") + wire(2, 0, b"\x07") + spanned(7, b"\x80" * 11 + b"\x01"), "within an element"),
        (spanned(1, b"\x02") + FLOAT + wire(14, 0, b"\x01") + spanned(9, bytes(8)), "another file"),
    ]:
        with pytest.raises(GraphError, match=message):
            check_graph(tensor(content))


def node(content: bytes) -> bytes:
    """A graph of one node."""
    return HEAD + spanned(7, spanned(1, content))


def attribute(content: bytes) -> bytes:
    return node(spanned(5, spanned(1, b"alpha") + content))


def value(content: bytes) -> bytes:
    """A graph of one input."""
    return HEAD + spanned(7, spanned(11, content))


def of_type(content: bytes) -> bytes:
    """A graph of one input, whose tensor type is given."""
    return value(spanned(1, b"x") + spanned(2, spanned(1, content)))


INT, STRING, TENSOR = (wire(20, 0, bytes([kind])) for kind in (2, 3, 4))
SCALAR = FLOAT + spanned(9, bytes(4))
ONE = wire(1, 0, b"\x01")
"""A float, or an axis of length one."""


@pytest.mark.parametrize(
    ("wrap", "field", "rest"),
    [
        (lambda x: wire(1, 0, b"\x0a") + spanned(8, x) + spanned(7, b""), wire(2, 0, b"\x12"), b""),
        (lambda x: HEAD + spanned(7, x), spanned(2, b"main"), b""),
        (node, spanned(3, b"name"), b""),
        (node, spanned(4, b"Add"), b""),
        (node, spanned(7, b"ai.onnx"), b""),
        (attribute, wire(2, 5, bytes(4)), wire(20, 0, b"\x01")),
        (attribute, wire(3, 0, b"\x01"), INT),
        (attribute, spanned(4, b"x"), STRING),
        (attribute, spanned(5, SCALAR), TENSOR),
        (attribute, INT, b""),
        (tensor, spanned(8, b"name"), SCALAR),
        (tensor, wire(14, 0, b"\x00"), SCALAR),
        (value, spanned(1, b"x"), b""),
        (value, spanned(2, spanned(1, ONE)), b""),
        (lambda x: value(spanned(2, x)), spanned(1, ONE), b""),
        (of_type, ONE, b""),
        (of_type, spanned(2, b""), ONE),
        (lambda x: of_type(ONE + spanned(2, spanned(1, x))), ONE, b""),
    ],
)
def test_what_protobuf_would_join_or_overwrite_is_refused(
    wrap: Callable[[bytes], bytes], field: bytes, rest: bytes
) -> None:
    check_graph(wrap(field + rest))
    with pytest.raises(GraphError, match="twice"):
        check_graph(wrap(field + field + rest))


def test_messages_are_of_one_short_line() -> None:
    model = small_model()
    model.graph.initializer[0].name = "\x1b[2J\n" * 1_000
    model.graph.initializer[0].dims[0] = -1
    with pytest.raises(GraphError) as caught:
        check_graph(model.SerializeToString())
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700
