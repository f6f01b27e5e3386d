"""A graph of a TensorFlow Lite model as its file has it: what goes in and comes out, and what is done with it. Pure.

Read after `edge.engine.model_file` has held the file together, as `edge.engine.model_facts`.
"""

import struct
from typing import NamedTuple

from edge.engine.model_facts import Signature, Table, operator_codes, root
from edge.errors import ModelRefusedError, UnsupportedModelError
from edge.tensors import DType

TEXT = "string"
# TensorType of the public schema.
_DTYPES = {
    0: DType.FLOAT32,
    1: DType.FLOAT16,
    2: DType.INT32,
    3: DType.UINT8,
    4: DType.INT64,
    6: DType.BOOL,
    7: DType.INT16,
    9: DType.INT8,
    10: DType.FLOAT64,
    12: DType.UINT64,
    15: DType.UINT32,
    16: DType.UINT16,
}
_OTHER_TYPES = {5: TEXT, 8: "complex64", 11: "complex128", 13: "resource", 14: "variant", 17: "int4"}


class End(NamedTuple):
    """An input or output; `tensor` is its index among the graph's tensors.

    `dtype` is None where the API has none, as of text; `type_name` says what it is then. A dimension of
    `signature` below 0 is the caller's choice. `scale` is 0 where the tensor has none, or one for each channel.
    """

    tensor: int
    name: str
    dtype: DType | None
    type_name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    scale: float = 0.0
    zero_point: int = 0


class Graph(NamedTuple):
    """One graph; `operators` are the operators' numbers in the schema, each with the tensors that it reads.

    `own_ends`: its inputs and outputs are those that the graph says itself, not other tensors that a signature names.
    """

    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    operators: tuple[tuple[int, tuple[int, ...]], ...]
    own_ends: bool = True


def read_graph(data: memoryview, number: int, signature: Signature | None = None) -> Graph:
    """A graph by its number, or that of a signature; one that is not the model's first has its ends in the signature's order.

    Raises:
        ModelRefusedError: the file is damaged (L-7).
        UnsupportedModelError: an input or output has a name that is not UTF-8.
    """
    try:
        model = root(data)
        codes = operator_codes(model)
        graph = list(model.tables(2))[number]
        tensors = list(graph.tables(0))
        own = [[index for index in graph.integers(field) if index >= 0] for field in (1, 2)]
        ends = own
        if signature is not None and number:
            ends = [[index for _, index in named] for named in (signature.inputs, signature.outputs)]
        inputs, outputs = (tuple(_end(index, tensors[index]) for index in indices) for indices in ends)
        operators = tuple((codes[operator.number(0, "I")][0], operator.integers(1)) for operator in graph.tables(3))
    except (struct.error, IndexError):
        raise ModelRefusedError(
            "the runtime refuses the model file: it is damaged (an index is out of range)"
        ) from None
    except UnicodeDecodeError:
        raise UnsupportedModelError("the model has a tensor whose name is not UTF-8") from None
    return Graph(
        inputs, outputs, operators, {index for one in ends for index in one} <= {index for one in own for index in one}
    )


def _end(index: int, tensor: Table) -> End:
    number = tensor.number(1, "b")
    shape = tensor.integers(0)
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    if (quantization := tensor.table(4)) is not None:
        scales, zero_points = quantization.numbers(2, "f"), quantization.numbers(3, "q")
    one = len(scales) == 1
    return End(
        index,
        tensor.raw(3).decode(),
        _DTYPES.get(number),
        _OTHER_TYPES.get(number, f"number {number}"),
        shape,
        tensor.integers(7) or shape,
        scales[0] if one else 0.0,
        zero_points[0] if one and len(zero_points) == 1 else 0,
    )
