"""Writes `.tflite` files from nothing but numpy, so that tests and benchmarks make their models without TensorFlow.

    model = Model()
    graph = model.graph()
    x = graph.tensor("x", np.float32, [1, 4])
    y = graph.tensor("y", np.float32, [1, 4])
    graph.op(ADD, [x, graph.constant("one", np.float32(1))], [y])
    graph.ends([x], [y])
    path.write_bytes(model.to_bytes())

The format is FlatBuffers (flatbuffers.dev/internals) with the tables of TensorFlow Lite's schema.fbs; the numbers below
are that schema's. Files are the same on every run.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
DATA_ALIGNMENT = 16  # bytes; kernels expect weights to start at a multiple of it

STRING, INT4, RESOURCE = "string", "int4", "resource"  # tensor kinds that numpy has no dtype for
_TENSOR_TYPES: dict[object, int] = {
    np.dtype("float32"): 0,
    np.dtype("float16"): 1,
    np.dtype("int32"): 2,
    np.dtype("uint8"): 3,
    np.dtype("int64"): 4,
    STRING: 5,
    np.dtype("bool"): 6,
    np.dtype("int16"): 7,
    np.dtype("complex64"): 8,
    np.dtype("int8"): 9,
    np.dtype("float64"): 10,
    RESOURCE: 13,
    np.dtype("uint64"): 12,
    np.dtype("uint32"): 15,
    np.dtype("uint16"): 16,
    INT4: 17,
}


class Op(IntEnum):
    """The operators that these models use."""

    ADD = 0
    AVERAGE_POOL_2D = 1
    CONV_2D = 3
    DEPTHWISE_CONV_2D = 4
    FULLY_CONNECTED = 9
    MAX_POOL_2D = 17
    MUL = 18
    RESHAPE = 22
    RNN = 24
    SOFTMAX = 25
    CUSTOM = 32
    GATHER = 36
    MEAN = 40
    SUB = 41
    DIV = 42
    LESS = 58
    TRANSPOSE_CONV = 67
    EQUAL = 71
    FILL = 94
    WHERE = 109
    WHILE = 119
    DENSIFY = 124
    BATCH_MATMUL = 126
    CALL_ONCE = 129
    VAR_HANDLE = 142
    READ_VARIABLE = 143
    ASSIGN_VARIABLE = 144


# DimensionType and SparseIndexVector.
_DENSE, _COMPRESSED = 0, 1
_INT32_VECTOR = 1

# The union member of each operator's options table.
_OPTIONS = {
    Op.CONV_2D: 1,
    Op.DEPTHWISE_CONV_2D: 2,
    Op.AVERAGE_POOL_2D: 5,
    Op.MAX_POOL_2D: 5,
    Op.RNN: 6,
    Op.FULLY_CONNECTED: 8,
    Op.SOFTMAX: 9,
    Op.ADD: 11,
    Op.RESHAPE: 17,
    Op.MUL: 21,
    Op.GATHER: 23,
    Op.MEAN: 27,
    Op.SUB: 28,
    Op.DIV: 29,
    Op.LESS: 41,
    Op.TRANSPOSE_CONV: 49,
    Op.EQUAL: 53,
    Op.FILL: 68,
    Op.WHERE: 85,
    Op.WHILE: 93,
    Op.DENSIFY: 99,
    Op.BATCH_MATMUL: 101,
    Op.CALL_ONCE: 103,
    Op.VAR_HANDLE: 111,
    Op.READ_VARIABLE: 112,
    Op.ASSIGN_VARIABLE: 113,
}


@dataclass(frozen=True)
class Number:
    """One number in a table; `kind` as in the struct module."""

    kind: str
    value: float


def u8(value: int) -> Number:
    """An unsigned byte, or a bool."""
    return Number("B", value)


def i32(value: int) -> Number:
    """A signed 32-bit number."""
    return Number("i", value)


def u32(value: int) -> Number:
    """An unsigned 32-bit number."""
    return Number("I", value)


def f32(value: float) -> Number:
    """A 32-bit float."""
    return Number("f", value)


Table = dict[int, Any]  # field number -> Number, text, array, Table, list of Tables


class _Writer:
    """Lays tables out front to back: what refers comes before what it refers to, as offsets are unsigned."""

    def __init__(self) -> None:
        self.out = bytearray()

    def align(self, size: int, shift: int = 0) -> None:
        self.out.extend(bytes(-(len(self.out) + shift) % size))

    def refer(self, place: int, target: int) -> None:
        struct.pack_into("<I", self.out, place, target - place)

    def write(self, thing: Any) -> int:
        if isinstance(thing, dict):
            return self.table(thing)
        if isinstance(thing, (str, bytes)):
            return self.text(thing.encode() if isinstance(thing, str) else thing)
        if isinstance(thing, np.ndarray):
            return self.array(thing)
        return self.tables(thing)

    def table(self, fields: Table) -> int:
        layout: dict[int, int] = {}
        size = 4
        for number, value in fields.items():
            width = struct.calcsize(value.kind) if isinstance(value, Number) else 4
            size += -size % width
            layout[number] = size
            size += width
        self.align(2)
        vtable = len(self.out)
        slots = max(fields, default=-1) + 1
        offsets = [layout.get(number, 0) for number in range(slots)]
        self.out += struct.pack(f"<HH{slots}H", 4 + 2 * slots, size, *offsets)
        self.align(8)
        start = len(self.out)
        self.out += struct.pack("<i", start - vtable) + bytes(size - 4)
        for number, value in fields.items():
            if isinstance(value, Number):
                struct.pack_into("<" + value.kind, self.out, start + layout[number], value.value)
        for number, value in fields.items():
            if not isinstance(value, Number):
                self.refer(start + layout[number], self.write(value))
        return start

    def text(self, value: bytes) -> int:
        self.align(4)
        start = len(self.out)
        self.out += struct.pack("<I", len(value)) + value + b"\0"
        return start

    def array(self, values: np.ndarray) -> int:
        raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
        self.align(DATA_ALIGNMENT if values.itemsize == 1 else max(4, values.itemsize), shift=4)
        start = len(self.out)
        self.out += struct.pack("<I", values.size) + raw
        return start

    def tables(self, things: Sequence[Any]) -> int:
        self.align(4)
        start = len(self.out)
        self.out += struct.pack("<I", len(things)) + bytes(4 * len(things))
        for position, thing in enumerate(things):
            self.refer(start + 4 + 4 * position, self.write(thing))
        return start


@dataclass(frozen=True)
class Quantization:
    """real = scale * (stored - zero_point); several scales: one for each index along `axis`."""

    scale: float | np.ndarray
    zero_point: int = 0
    axis: int = 0

    def table(self) -> Table:
        """As the schema has it."""
        scales = np.atleast_1d(np.asarray(self.scale, np.float32))
        return {2: scales, 3: np.full(scales.shape, self.zero_point, np.int64), 6: i32(self.axis)}


@dataclass(frozen=True)
class Blockwise:
    """Weights in blocks of `size`, whose scales are a tensor of their own."""

    scales: int
    size: int

    def table(self) -> Table:
        """As the schema has it: BlockwiseQuantization is the second of QuantizationDetails."""
        return {4: u8(2), 5: {0: i32(self.scales), 1: i32(-1), 2: i32(self.size)}}


def _sparsity(weights: np.ndarray) -> Table:
    """SparsityParameters of weights whose last dimension is compressed: where each row of its own values starts, and where
    in the row they stand. There is no block_map, as there are no blocks.
    """
    rows = weights.reshape(-1, weights.shape[-1])
    starts = np.concatenate(([0], np.cumsum(np.count_nonzero(rows, axis=1)))).astype(np.int32)
    dense: list[Table] = [{0: u8(_DENSE), 1: i32(size)} for size in weights.shape[:-1]]
    compressed = {0: u8(_COMPRESSED)}
    for number, values in ((2, starts), (4, np.nonzero(rows)[1].astype(np.int32))):
        compressed |= {number: u8(_INT32_VECTOR), number + 1: {0: values}}
    return {0: np.arange(weights.ndim, dtype=np.int32), 2: [*dense, compressed]}


@dataclass
class Graph:
    """One graph of a model; tensors are known by their index."""

    model: "Model"
    tensors: list[Table] = field(default_factory=list)
    operators: list[Table] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def tensor(
        self,
        name: str | bytes,
        dtype: Any,
        shape: Sequence[int],
        *,
        data: np.ndarray | None = None,
        quantization: Quantization | Blockwise | None = None,
        variable: bool = False,
        first: Sequence[int] | None = None,
    ) -> int:
        """Adds a tensor; -1 in `shape` is a dimension that the caller chooses, 1 or as in `first` until then.

        A `variable` one keeps its value from one inference to the next.
        """
        kind = dtype if dtype in (STRING, INT4, RESOURCE) else np.dtype(dtype)
        fixed = np.asarray(first or [1 if n < 0 else n for n in shape], np.int32)
        table: Table = {0: fixed, 1: u8(_TENSOR_TYPES[kind]), 2: u32(self.model.buffer(data)), 3: name, 8: u8(1)}
        if any(n < 0 for n in shape):
            table[7] = np.asarray(shape, np.int32)
        if variable:
            table[5] = u8(1)
        if quantization is not None:
            table[4] = quantization.table()
        self.tensors.append(table)
        return len(self.tensors) - 1

    def constant(self, name: str, data: Any, quantization: Quantization | None = None) -> int:
        """Adds a tensor whose contents are in the file."""
        array = np.asarray(data)
        return self.tensor(name, array.dtype, array.shape, data=array, quantization=quantization)

    def sparse(self, name: str, weights: np.ndarray) -> int:
        """Adds a constant of which the file has only the values that are not 0."""
        tensor = self.tensor(name, weights.dtype, weights.shape, data=weights[weights != 0])
        self.tensors[tensor][6] = _sparsity(weights)
        return tensor

    def op(
        self,
        code: Op,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Table | None = None,
        version: int = 1,
        custom: str = "",
    ) -> None:
        """Adds an operator; `options` are the fields of its options table, `custom` the name of one that is not built in."""
        table: Table = {
            0: u32(self.model.opcode(code, version, custom)),
            1: np.asarray(inputs, np.int32),
            2: np.asarray(outputs, np.int32),
        }
        if code is not Op.CUSTOM:
            table |= {3: u8(_OPTIONS[code]), 4: options or {}}
        self.operators.append(table)

    def ends(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Says which tensors go in and come out."""
        self.inputs, self.outputs = list(inputs), list(outputs)


class Model:
    """A `.tflite` file in the making; its first graph is the one that runs."""

    def __init__(self) -> None:
        self.graphs: list[Graph] = []
        self.opcodes: list[tuple[Op, int, str]] = []
        self.signatures: list[Table] = []
        self.buffers: list[Table] = [{}]  # buffer 0 is "no contents", by convention

    def graph(self) -> Graph:
        """A new graph."""
        self.graphs.append(Graph(self))
        return self.graphs[-1]

    def buffer(self, data: np.ndarray | None) -> int:
        """The number of a buffer that holds `data`."""
        if data is None:
            return 0
        raw = np.frombuffer(data.astype(data.dtype.newbyteorder("<")).tobytes(), np.uint8)
        self.buffers.append({0: raw})
        return len(self.buffers) - 1

    def opcode(self, code: Op, version: int, custom: str = "") -> int:
        """The number of an operator in the model's list."""
        if (code, version, custom) not in self.opcodes:
            self.opcodes.append((code, version, custom))
        return self.opcodes.index((code, version, custom))

    def signature(self, key: str, graph: Graph, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        """Adds a signature: names for tensors of a graph."""
        ends = [[{0: name, 1: u32(index)} for name, index in tensors.items()] for tensors in (inputs, outputs)]
        self.signatures.append(
            {0: ends[0], 1: ends[1], 2: key, 4: u32([one is graph for one in self.graphs].index(True))}
        )

    def to_bytes(self) -> bytes:
        """The file."""
        root: Table = {
            0: u32(SCHEMA_VERSION),
            1: [
                {0: u8(min(code, 127)), 2: i32(version), 3: i32(code)} | ({1: custom} if custom else {})
                for code, version, custom in self.opcodes
            ],
            2: [
                {
                    0: graph.tensors,
                    1: np.asarray(graph.inputs, np.int32),
                    2: np.asarray(graph.outputs, np.int32),
                    3: graph.operators,
                    4: "main" if graph is self.graphs[0] else f"part{number}",
                }
                for number, graph in enumerate(self.graphs)
            ],
            3: "made by tests/data/tflite_writer.py",
            4: self.buffers,
        }
        if self.signatures:
            root[7] = self.signatures
        writer = _Writer()
        writer.out += bytes(4) + FILE_IDENTIFIER
        writer.refer(0, writer.write(root))
        writer.align(DATA_ALIGNMENT)
        return bytes(writer.out)
