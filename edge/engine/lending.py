"""Which inputs an inference may read where they are lent, in a client's memory (docs/adr/0019-borrowed-inputs.md). Pure.

A client may change the memory during the inference, and nobody can prevent it: that may spoil its own answer, but must not
lead the engine astray, as it could where a value is an index or a size, where two passes must agree on it, or where it is
checked first and used later. So an input is lent only to operators that do nothing with a value but calculate with it.
"""

from edge.engine.model_graph import Graph
from edge.tensors import byte_count

ALIGNMENT_BYTES = (
    64  # kDefaultTensorAlignment in tensorflow/lite/util.h, and LiteRT's: what the engine's own tensors have
)
MIN_BYTES = 16 * 1024  # a smaller input is copied sooner than it is borrowed

# Operators of the public schema (BuiltinOperator) that do nothing with a value but calculate with it: at any of their inputs,
# and at their first.
CALCULATE_WITH_ALL = {
    "ADD": 0,
    "CONCATENATION": 2,
    "MUL": 18,
    "SUB": 41,
    "MAXIMUM": 55,
    "MINIMUM": 57,
}
CALCULATE_WITH_FIRST = {
    "AVERAGE_POOL_2D": 1,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 4,
    "DEQUANTIZE": 6,
    "FULLY_CONNECTED": 9,
    "MAX_POOL_2D": 17,
    "RESIZE_BILINEAR": 23,
    "SPACE_TO_DEPTH": 26,
    "PAD": 34,
    "GATHER": 36,
    "TRANSPOSE": 39,
    "MEAN": 40,
    "STRIDED_SLICE": 45,
    "CAST": 53,
    "PADV2": 60,
    "SLICE": 65,
    "RESIZE_NEAREST_NEIGHBOR": 97,
    "QUANTIZE": 114,
}
_ALL, _FIRST = frozenset(CALCULATE_WITH_ALL.values()), frozenset(CALCULATE_WITH_FIRST.values())


def borrowable(graph: Graph) -> tuple[int, ...]:
    """The inputs that may be lent, by position."""
    outputs = {end.tensor for end in graph.outputs}
    return tuple(
        position
        for position, end in enumerate(graph.inputs)
        if end.dtype is not None
        and end.tensor not in outputs
        and byte_count(end.dtype, end.shape) >= MIN_BYTES
        and _only_calculated_with(graph, end.tensor)
    )


def _only_calculated_with(graph: Graph, index: int) -> bool:
    uses = [
        code in _ALL or (code in _FIRST and at == 0)
        for code, inputs in graph.operators
        for at, number in enumerate(inputs)
        if number == index
    ]
    return bool(uses) and all(uses)
