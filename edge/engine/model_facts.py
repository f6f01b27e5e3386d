"""What a TensorFlow Lite model file says of itself that the engine does not, or only after it has crashed. Pure.

Read after `edge.engine.model_file` has held the file together: every offset that is followed here is one it followed.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from edge.engine.model_file import IDENTIFIER, vtable_of
from edge.errors import ModelRefusedError

# Numbers of BuiltinOperator, TensorType and QuantizationDetails in the public schema.
CALL, CUSTOM, IF, WHILE, CALL_ONCE, ASSIGN_VARIABLE = 31, 32, 118, 119, 129, 144
STABLEHLO_WHILE, STABLEHLO_COMPOSITE, STABLEHLO_CASE = 200, 206, 209
# How long an inference takes may depend on its input where it has one of these.
_BRANCHING = {CALL, CUSTOM, IF, WHILE, CALL_ONCE, STABLEHLO_WHILE, STABLEHLO_COMPOSITE, STABLEHLO_CASE}
_BLOCKWISE = 2
# Which fields of these operators' options name a graph that runs with every inference.
_CALLED_GRAPHS = {CALL: (0,), IF: (0, 1), WHILE: (0, 1)}


class Signature(NamedTuple):
    """A way to call the model: names for the tensors of one of its graphs, by their index in it."""

    key: str
    graph: int
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


class ModelFacts(NamedTuple):
    """`keeps_variables`: it has tensors that keep their value from one inference to the next; `assigning`: the graphs with an
    inference that changes a resource variable; `branching`: those with a loop or a branch.
    """

    custom_operators: tuple[str, ...]
    signatures: tuple[Signature, ...]
    keeps_variables: bool
    assigning: frozenset[int]
    branching: frozenset[int]
    has_blockwise_weights: bool


def read_facts(data: memoryview) -> ModelFacts:
    """The facts of a model file.

    Raises:
        ModelRefusedError: it is damaged, or no model at all (L-7).
    """
    if bytes(data[4:8]) != IDENTIFIER:
        raise ModelRefusedError("the runtime refuses the model file: it is not a TensorFlow Lite model")
    try:
        return _read(data)
    except struct.error:
        raise ModelRefusedError(
            "the runtime refuses the model file: it is damaged (an offset points outside the file)"
        ) from None


def _read(data: memoryview) -> ModelFacts:
    model = root(data)
    operators = operator_codes(model)
    graphs = [_Graph(graph, operators) for graph in model.tables(2)]
    tensors = [tensor for graph in graphs for tensor in graph.tensors]
    details = [detail for tensor in tensors if (detail := tensor.table(4)) is not None]
    return ModelFacts(
        custom_operators=tuple(sorted({name for code, name in operators if code == CUSTOM})),
        signatures=tuple(_signature(one) for one in model.tables(7)),
        keeps_variables=any(tensor.number(5, "B") for tensor in tensors),
        assigning=frozenset(number for number in range(len(graphs)) if _assigns(graphs, number)),
        branching=frozenset(
            number for number, graph in enumerate(graphs) if any(code in _BRANCHING for code, _ in graph.operators)
        ),
        has_blockwise_weights=any(detail.number(4, "B") == _BLOCKWISE for detail in details),
    )


class Table:
    """One table of the file."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._offsets = vtable_of(data, at)

    def _place(self, field: int) -> int | None:
        offset = self._offsets[field] if field < len(self._offsets) else 0
        return self._at + offset if offset else None

    def number(self, field: int, kind: str) -> int:
        """A number, `kind` as in the struct module; 0 where it is not there."""
        place = self._place(field)
        return 0 if place is None else int(struct.unpack_from("<" + kind, self._data, place)[0])

    def _vector(self, field: int) -> tuple[int, int]:
        place = self._place(field)
        if place is None:
            return 0, 0
        start = _offset(self._data, place)
        return start + 4, struct.unpack_from("<I", self._data, start)[0]

    def numbers(self, field: int, kind: str) -> tuple[Any, ...]:
        """A vector of numbers, `kind` as in the struct module; empty where it is not there."""
        start, count = self._vector(field)
        return struct.unpack_from(f"<{count}{kind}", self._data, start)

    def integers(self, field: int) -> tuple[int, ...]:
        """A vector of int32."""
        return self.numbers(field, "i")

    def table(self, field: int) -> "Table | None":
        """A table; None where it is not there."""
        place = self._place(field)
        return None if place is None else Table(self._data, _offset(self._data, place))

    def tables(self, field: int) -> "Iterator[Table]":
        """A vector of tables."""
        start, count = self._vector(field)
        for place in range(start, start + 4 * count, 4):
            yield Table(self._data, _offset(self._data, place))

    def raw(self, field: int) -> bytes:
        """The bytes of a text."""
        start, count = self._vector(field)
        return bytes(self._data[start : start + count])

    def text(self, field: int) -> str:
        """A text, whatever its bytes."""
        return self.raw(field).decode(errors="replace")


class _Graph:
    """A graph's tensors, and its operators by their number in the schema."""

    def __init__(self, graph: Table, codes: list[tuple[int, str]]) -> None:
        self.tensors = list(graph.tables(0))
        self.operators: list[tuple[int, Table]] = []
        for operator in graph.tables(3):
            code = operator.number(0, "I")
            if code < len(codes):
                self.operators.append((codes[code][0], operator))


def root(data: memoryview) -> Table:
    """The model's own table, which leads to all others."""
    return Table(data, _offset(data, 0))


def operator_codes(model: Table) -> list[tuple[int, str]]:
    """The kinds of operators that the model has: each one's number in the schema, and the name of a custom one."""
    return [_operator_code(code) for code in model.tables(1)]


def _offset(data: memoryview, place: int) -> int:
    return place + int(struct.unpack_from("<I", data, place)[0])


def _operator_code(code: Table) -> tuple[int, str]:
    """Its number, which old files have in a field of one byte, and the name of a custom one."""
    return max(code.number(0, "b"), code.number(3, "i")), code.text(1)


def _assigns(graphs: list[_Graph], first: int) -> bool:
    """Whether an inference that begins in a graph assigns to a variable; what is run once only does not count."""
    seen, waiting = set[int](), [first]
    while waiting:
        number = waiting.pop()
        if number in seen or not 0 <= number < len(graphs):
            continue
        seen.add(number)
        for code, operator in graphs[number].operators:
            if code == ASSIGN_VARIABLE:
                return True
            options = operator.table(4) if code in _CALLED_GRAPHS else None
            if options is not None:
                waiting += [options.number(field, "i") for field in _CALLED_GRAPHS[code]]
    return False


def _signature(signature: Table) -> Signature:
    inputs, outputs = (
        tuple((entry.text(0), entry.number(1, "I")) for entry in signature.tables(field)) for field in (0, 1)
    )
    return Signature(signature.text(2), signature.number(4, "I"), inputs, outputs)
