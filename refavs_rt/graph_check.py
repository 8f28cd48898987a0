"""What a serialised ONNX graph may hold, checked on its bytes before any library reads them.

ONNX Runtime is written for graphs that its user trusts: one may name files outside the bundle, carry graphs within graphs, or
give a tensor another size than its data have. This reader walks the wire format of protobuf (tag, length, value) by the messages
of onnx.proto and takes only what refavs-export writes. It looks at names, sizes and kinds: tensor data are skipped, not copied.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TypeAlias

import numpy as np

MOST_BYTES = 2**31 - 1
"""Of a graph: protobuf's own limit."""
OPSETS = (13, 40)
"""Versions of ONNX's operators: from the one that gave most of them their present form to what is not there yet."""
IR_VERSIONS = (7, 40)

_LARGEST_AXIS = 2**31 - 1
_MOST_ELEMENTS = 2**31 - 1
"""Of a tensor whose shape is declared."""
_MOST_AXES = 16
_MOST_NUMBERS = 64
"""In an attribute."""
_LEAST = {
    b"dilations": 1,
    b"group": 1,
    b"kernel_shape": 1,
    b"num_outputs": 1,
    b"output_padding": 0,
    b"pads": 0,
    b"strides": 1,
}
"""Attribute -> the smallest number it may hold. ONNX Runtime counts on some of them."""
_MOST_NODES = 100_000
_LONGEST_NAME_BYTES = 10_000
_OWN_DOMAINS = (b"", b"ai.onnx")
_IMPORTED_DOMAINS = (*_OWN_DOMAINS, b"com.microsoft")
"""Quantisers import the last, also where no node is of it."""
_CONTROL_FLOW = (b"If", b"Loop", b"Scan", b"SequenceMap")

_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""TensorProto.DataType -> bytes of an element. No strings, complex numbers or parts of bytes."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types. The two of groups are long out of use."""

Span: TypeAlias = tuple[int, int]
"""Where a value of wire type 2 lies: its first byte, and the one after its last."""
Fields: TypeAlias = dict[int, list[int | Span]]
"""Field number -> its values in order: numbers, and spans of what has a length."""


class GraphError(ValueError):
    """A graph that must not be loaded; the message says what is wrong with it."""


def check_graph(data: bytes) -> None:
    """Whether the bytes are an ONNX graph as refavs-export writes them, as far as that is seen without running it.

    Raises:
        GraphError: the bytes are damaged, or the graph holds what none of ours does: data in other files, subgraphs, functions,
            foreign operators, strings, a tensor whose data have not its size, absurd numbers.
    """
    if not 0 < len(data) <= MOST_BYTES:
        raise GraphError(f"it has {len(data)} bytes")
    try:
        _Reader(data).check_model()
    except IndexError:
        raise GraphError("it ends too early") from None


class _Reader:
    """A walk over the messages. Each method takes the span of one, and each refuses fields that it does not know."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def check_model(self) -> None:
        model = self._fields((0, len(self._data)), "model", _MODEL, once=(1, 2, 3, 4, 5, 6, 7))
        if 7 not in model:
            raise GraphError("it holds no graph")
        version = _number(model, 1)
        if not IR_VERSIONS[0] <= version <= IR_VERSIONS[1]:
            raise GraphError(f"its ir_version is {version}, not {IR_VERSIONS[0]} to {IR_VERSIONS[1]}")
        self._check_opsets(_spans(model, 8))
        self._check_graph(_spans(model, 7)[0])

    def _check_opsets(self, imports: Iterable[Span]) -> None:
        seen = set()
        for span in imports:
            imported = self._fields(span, "opset import", _OPSET, once=(1, 2))
            domain = self._text(imported, 1)
            version = _number(imported, 2)
            if domain not in _IMPORTED_DOMAINS:
                raise GraphError(f"it needs operators of {_show(domain)}")
            if domain in _OWN_DOMAINS and not OPSETS[0] <= version <= OPSETS[1]:
                raise GraphError(f"its opset is {version}, not {OPSETS[0]} to {OPSETS[1]}")
            if domain in seen:
                raise GraphError(f"it imports the operators of {_show(domain)} twice")
            seen.add(domain)
        if not seen & set(_OWN_DOMAINS):
            raise GraphError("it names no opset")

    def _check_graph(self, span: Span) -> None:
        graph = self._fields(span, "graph", _GRAPH, once=(2, 10))
        nodes = _spans(graph, 1)
        if len(nodes) > _MOST_NODES:
            raise GraphError(f"it has {len(nodes)} nodes")
        for node in nodes:
            self._check_node(node)
        for tensor in _spans(graph, 5):
            self._check_tensor(tensor)
        for number in (11, 12, 13):
            for value in _spans(graph, number):
                self._check_value(value)

    def _check_node(self, span: Span) -> None:
        node = self._fields(span, "node", _NODE, once=(3, 4, 6, 7))
        operator, domain = self._text(node, 4), self._text(node, 7)
        if domain not in _OWN_DOMAINS:
            raise GraphError(f"it has the operator {_show(operator)} of {_show(domain)}")
        if operator in _CONTROL_FLOW:
            raise GraphError(f"it has the operator {_show(operator)}, which holds a graph")
        for name in (*_spans(node, 1), *_spans(node, 2)):
            if name[1] - name[0] > _LONGEST_NAME_BYTES:
                raise GraphError("a name in it is too long")
        for attribute in _spans(node, 5):
            self._check_attribute(attribute, operator, len(node.get(2, ())))

    def _check_attribute(self, span: Span, operator: bytes, outputs: int) -> None:
        attribute = self._fields(span, "attribute", _ATTRIBUTE, once=(1, 2, 3, 4, 5, 13, 20))
        for number, what in _NEVER.items():
            if number in attribute:
                raise GraphError(f"an attribute of {_show(operator)} holds {what}")
        kind = _number(attribute, 20)
        if kind not in _VALUES:
            raise GraphError(f"an attribute of {_show(operator)} is of kind {kind}")
        if attribute.keys() & set(_VALUES.values()) - {_VALUES[kind]}:
            raise GraphError(f"an attribute of {_show(operator)} holds another kind than it says")
        if 5 in attribute:
            self._check_tensor(_spans(attribute, 5)[0])
        numbers = [*self._numbers(attribute, 3), *self._numbers(attribute, 8)]
        if not numbers:
            return
        name = self._text(attribute, 1)
        low, high = min(numbers), max(numbers)
        if (
            len(numbers) > _MOST_NUMBERS
            or low < _LEAST.get(name, -_LARGEST_AXIS)
            or high > _LARGEST_AXIS
            or (operator == b"Split" and name == b"num_outputs" and high != outputs)
        ):
            raise GraphError(f"{_show(operator)} cannot have the {_show(name)} {numbers[:_MOST_NUMBERS]}")

    def _check_tensor(self, span: Span) -> None:
        tensor = self._fields(span, "tensor", _TENSOR, once=(2, 8, 9, 12, 14))
        name = self._text(tensor, 8)
        if _number(tensor, 14) != 0 or 13 in tensor:
            raise GraphError(f"the data of {_show(name)} are in another file")
        kind = _number(tensor, 2)
        if kind not in _ITEM_BYTES:
            raise GraphError(f"the tensor {_show(name)} is of kind {kind}")
        elements = _count_elements(self._numbers(tensor, 1), name)
        stored = tensor.keys() & _STORED.keys()
        if len(stored) > 1:
            raise GraphError(f"the tensor {_show(name)} has its data twice")
        number = next(iter(stored), 9)
        if number == 9:
            low, high = _spans(tensor, 9)[0] if 9 in tensor else (0, 0)
            found, wanted, unit = high - low, elements * _ITEM_BYTES[kind], "bytes"
        elif kind in _STORED[number]:
            found, wanted, unit = self._count_stored(tensor[number], _WIDTHS[number]), elements, "elements"
        else:
            raise GraphError(f"the tensor {_show(name)} has its data in a field for another kind")
        if found != wanted:
            raise GraphError(f"the tensor {_show(name)} has {found} {unit} of data, not {wanted}")

    def _check_value(self, span: Span) -> None:
        """An input, an output, or what is known of a tensor between them."""
        value = self._fields(span, "value", _VALUE, once=(1, 2, 3))
        name = self._text(value, 1)
        if 2 not in value:
            return
        kind = self._fields(_spans(value, 2)[0], "type", _TYPE, once=(1, 6))
        if 1 not in kind:
            raise GraphError(f"{_show(name)} is no tensor")
        tensor = self._fields(_spans(kind, 1)[0], "tensor type", _TENSOR_TYPE, once=(1, 2))
        if _number(tensor, 1) not in _ITEM_BYTES:
            raise GraphError(f"the tensor {_show(name)} is of kind {_number(tensor, 1)}")
        if 2 in tensor:
            shape = self._fields(_spans(tensor, 2)[0], "shape", _SHAPE)
            axes = [self._fields(axis, "axis", _AXIS, once=(1, 2, 3)) for axis in _spans(shape, 1)]
            for axis in axes:
                self._text(axis, 2)
            _count_elements([_number(axis, 1) if 1 in axis else 1 for axis in axes], name)

    def _fields(
        self, span: Span, message: str, known: dict[int, Collection[int]], once: Collection[int] = ()
    ) -> Fields:
        """The fields of a message.

        Args:
            span: where it lies.
            message: its name, for errors.
            known: number of each field that it may have -> wire types that the field may come in.
            once: numbers of fields that it may have only one of; of a second, protobuf would make one message with the first.
        """
        data = self._data
        at, end = span
        found: Fields = {}
        while at < end:
            tag = data[at]
            at += 1
            if tag > 127:
                tag, at = self._varint(at - 1)
            number, wire = tag >> 3, tag & 7
            if wire not in known.get(number, ()):
                raise GraphError(f"a {message} in it has a field {number} of wire type {wire}")
            value: int | Span
            if wire == _BYTES:
                length = data[at]
                at += 1
                if length > 127:
                    length, at = self._varint(at - 1)
                value = (at, at + length)
                at += length
            elif wire == _VARINT:
                value = data[at]
                at += 1
                if value > 127:
                    value, at = self._varint(at - 1)
            else:
                value = (at, at + (8 if wire == _FIXED64 else 4))
                at = value[1]
            if number in found:
                if number in once:
                    raise GraphError(f"a {message} in it has the field {number} twice")
                found[number].append(value)
            else:
                found[number] = [value]
        if at != end:
            raise GraphError(f"a {message} in it is cut short")
        return found

    def _varint(self, at: int) -> tuple[int, int]:
        """An unsigned number of up to 64 bits, seven bits a byte, and where the next value begins."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    break
                return value, at
        raise GraphError("a number in it has more than 64 bits")

    def _text(self, fields: Fields, number: int) -> bytes:
        """A name; empty where there is none."""
        if number not in fields:
            return b""
        low, high = _spans(fields, number)[-1]
        if high - low > _LONGEST_NAME_BYTES:
            raise GraphError("a name in it is too long")
        name = self._data[low:high]
        try:
            name.decode()
        except UnicodeDecodeError:
            raise GraphError("a name in it is not text") from None
        return name

    def _numbers(self, fields: Fields, number: int) -> list[int]:
        """Repeated varints, each alone or many in one span."""
        numbers: list[int] = []
        for value in fields.get(number, []):
            if isinstance(value, int):
                numbers.append(_signed(value))
                continue
            at, end = value
            while at < end:
                each, at = self._varint(at)
                numbers.append(_signed(each))
                if len(numbers) > _MOST_NUMBERS:
                    break
            if at != end:
                raise GraphError("a list of numbers in it is damaged")
        return numbers

    def _count_stored(self, values: Iterable[int | Span], width: int) -> int:
        """Elements of a typed data field: `width` bytes each, or varints where it is 0."""
        count = 0
        for value in values:
            if isinstance(value, int):
                count += 1
                continue
            size = value[1] - value[0]
            if width:
                if size % width:
                    raise GraphError("the data of a tensor in it end within an element")
                count += size // width
            elif size:
                ends = np.flatnonzero(np.frombuffer(self._data, np.uint8, count=size, offset=value[0]) < 0x80)
                if not len(ends) or ends[-1] != size - 1 or np.diff(ends, prepend=-1).max() > 10:
                    raise GraphError("the data of a tensor in it end within an element")
                count += len(ends)
        return count


def _count_elements(axes: Collection[int], name: bytes) -> int:
    if len(axes) > _MOST_AXES:
        raise GraphError(f"the tensor {_show(name)} has {len(axes)} axes")
    if any(not 0 <= axis <= _LARGEST_AXIS for axis in axes) or math.prod(axes) > _MOST_ELEMENTS:
        raise GraphError(f"the tensor {_show(name)} has the shape {list(axes)}")
    return math.prod(axes)


def _number(fields: Fields, number: int) -> int:
    """The value of a varint field that stands once; 0 where it is not there, as protobuf has it."""
    value = fields.get(number, [0])[-1]
    assert isinstance(value, int)
    return _signed(value)


def _spans(fields: Fields, number: int) -> list[Span]:
    return [value for value in fields.get(number, []) if not isinstance(value, int)]


def _signed(value: int) -> int:
    """protobuf's int64: two's complement in an unsigned number."""
    return value - (1 << 64) if value >> 63 else value


def _show(name: bytes) -> str:
    """For a message: names in a graph may be of any length, and hold what a terminal obeys."""
    text = name[:80].decode("utf-8", "replace")
    return repr(text if len(name) <= 80 else f"{text}...")


_ONLY_VARINT, _ONLY_BYTES = (_VARINT,), (_BYTES,)


def _message(*, varints: Iterable[int] = (), spans: Iterable[int] = ()) -> dict[int, Collection[int]]:
    return {**dict.fromkeys(varints, _ONLY_VARINT), **dict.fromkeys(spans, _ONLY_BYTES)}


# The messages of onnx.proto, without the fields that no graph of ours has: functions (25 of a model), training (20), devices
# (26; 10 of a node), sparse initialisers (15 of a graph), overloads (8 of a node), segments (3 of a tensor) and strings (6).
_MODEL = _message(varints=(1, 5), spans=(2, 3, 4, 6, 7, 8, 14))
_OPSET = _message(varints=(2,), spans=(1,))
_GRAPH = _message(spans=(1, 2, 5, 10, 11, 12, 13, 16))
_NODE = _message(spans=(1, 2, 3, 4, 5, 6, 7, 9))
_ATTRIBUTE = _message(varints=(3, 20), spans=(1, 4, 5, 6, 9, 10, 11, 13, 14, 15, 21, 22, 23)) | {
    2: (_FIXED32,),
    7: (_FIXED32, _BYTES),
    8: (_VARINT, _BYTES),
}
_NEVER = {
    6: "a graph",
    9: "strings",
    10: "tensors",
    11: "graphs",
    14: "a type",
    15: "types",
    21: "a reference",
    22: "a sparse tensor",
    23: "sparse tensors",
}
"""Fields of an attribute that are known and refused."""
_VALUES = {1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8}
"""AttributeProto.AttributeType -> the field that holds such a value."""
_TENSOR = _message(varints=(2, 14), spans=(8, 9, 12, 13, 16)) | {
    1: (_VARINT, _BYTES),
    4: (_FIXED32, _BYTES),
    5: (_VARINT, _BYTES),
    7: (_VARINT, _BYTES),
    10: (_FIXED64, _BYTES),
    11: (_VARINT, _BYTES),
}
_STORED: dict[int, Collection[int]] = {
    4: (1,),
    5: (2, 3, 4, 5, 6, 9, 10, 16),
    7: (7,),
    9: tuple(_ITEM_BYTES),
    10: (11,),
    11: (12, 13),
}
"""Field of a tensor with data -> the DataTypes that it is for."""
_WIDTHS = {4: 4, 5: 0, 7: 0, 10: 8, 11: 0}
"""Field of a tensor with typed data -> bytes of an element; 0 for varints."""
_VALUE = _message(spans=(1, 2, 3, 4))
_TYPE = _message(spans=(1, 6))
_TENSOR_TYPE = _message(varints=(1,), spans=(2,))
_SHAPE = _message(spans=(1,))
_AXIS = _message(varints=(1,), spans=(2, 3))
