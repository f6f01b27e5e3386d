"""Makes the small models that tests use: `python -m tests.data.make_models` writes them beside this file.

Tests that need another size or name call the functions here.
"""

import sys
from pathlib import Path

import numpy as np

from tests.data.tflite_writer import STRING, Graph, Model, Op, i32, u8

HERE = Path(__file__).parent
DTYPES = (
    "uint8",
    "int8",
    "bool",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
)


def _reshape(graph: Graph, source: int, sink: int, shape: list[int]) -> None:
    graph.op(Op.RESHAPE, [source, graph.constant("shape", np.asarray(shape, np.int32))], [sink])


def identity(
    dtype: str, shape: tuple[int, ...] = (1, 4), *, source: str | bytes = "x", sink: str | bytes = "y"
) -> bytes:
    """`y` is `x`; any dtype of the API, and complex64, which it has not."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor(source, dtype, shape), graph.tensor(sink, dtype, shape)
    _reshape(graph, x, y, list(shape))
    graph.ends([x], [y])
    return model.to_bytes()


def string() -> bytes:
    """`y` is `x`, [1] text, which the API cannot carry."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", STRING, [1]), graph.tensor("y", STRING, [1])
    graph.op(Op.GATHER, [x, graph.constant("first", np.zeros(1, np.int32))], [y], {0: i32(0)})
    graph.ends([x], [y])
    return model.to_bytes()


def add_one(shape: tuple[int, ...] = (1, 4), amount: float = 1) -> bytes:
    """`y` is `x` + `amount`, float32; -1 in `shape` is dynamic, () a scalar."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, shape), graph.tensor("y", np.float32, shape)
    graph.op(Op.ADD, [x, graph.constant("one", np.float32(amount))], [y])
    graph.ends([x], [y])
    return model.to_bytes()


def two_by_two(left: str | bytes = "left", right: str | bytes = "right") -> bytes:
    """`sum` is `left` + `right` and `difference` is `left` - `right`, each float32 [2, 3]."""
    model = Model()
    graph = model.graph()
    a, b = graph.tensor(left, np.float32, [2, 3]), graph.tensor(right, np.float32, [2, 3])
    total, difference = graph.tensor("sum", np.float32, [2, 3]), graph.tensor("difference", np.float32, [2, 3])
    graph.op(Op.ADD, [a, b], [total])
    graph.op(Op.SUB, [a, b], [difference])
    graph.ends([a, b], [total, difference])
    return model.to_bytes()


def mixed_types() -> bytes:
    """`float_out` is `float_in` + 1, float32 [1, 3]; `int_out` is `int_in` + 1, int32 [2]."""
    model = Model()
    graph = model.graph()
    a, b = graph.tensor("float_in", np.float32, [1, 3]), graph.tensor("int_in", np.int32, [2])
    c, d = graph.tensor("float_out", np.float32, [1, 3]), graph.tensor("int_out", np.int32, [2])
    graph.op(Op.ADD, [a, graph.constant("one", np.float32(1))], [c])
    graph.op(Op.ADD, [b, graph.constant("one_int", np.int32(1))], [d])
    graph.ends([a, b], [c, d])
    return model.to_bytes()


def colour_mean() -> bytes:
    """`mean` [1, 3] is the mean colour of `picture`, float32 [1, any, any, 3]."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("picture", np.float32, [1, -1, -1, 3]), graph.tensor("mean", np.float32, [1, 3])
    graph.op(Op.MEAN, [x, graph.constant("axes", np.asarray([1, 2], np.int32))], [y], {0: u8(0)})
    graph.ends([x], [y])
    return model.to_bytes()


def mean_of(shape: tuple[int, int, int, int]) -> bytes:
    """`y` [1, channels] is the mean of `x`, float32 of a picture's shape."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, shape), graph.tensor("y", np.float32, [1, shape[-1]])
    graph.op(Op.MEAN, [x, graph.constant("axes", np.asarray([1, 2], np.int32))], [y], {0: u8(0)})
    graph.ends([x], [y])
    return model.to_bytes()


def look_up(entries: int = 4) -> bytes:
    """`value` [1] is entry `index` of so many (10, 11, ...), int32; another index fails in the engine."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("index", np.int32, [1]), graph.tensor("value", np.int32, [1])
    graph.op(Op.GATHER, [graph.constant("table", np.arange(10, 10 + entries, dtype=np.int32)), x], [y], {0: i32(0)})
    graph.ends([x], [y])
    return model.to_bytes()


def moving() -> bytes:
    """`y` is `x` + 1, float32 [1, 4]; beside it, for nobody, `count` ones are made and added to themselves.

    How many is known in the inference only, so that what comes after is laid out anew in the middle of it. All of `y` is
    laid out before.
    """
    model = Model()
    graph = model.graph()
    x, count = graph.tensor("x", np.float32, [1, 4]), graph.tensor("count", np.int32, [1])
    y, ones, twos = (
        graph.tensor(name, np.float32, shape) for name, shape in (("y", [1, 4]), ("ones", [1]), ("twos", [1]))
    )
    graph.op(Op.ADD, [x, graph.constant("one", np.float32(1))], [y])
    graph.op(Op.FILL, [count, graph.constant("each", np.float32(1))], [ones])
    graph.op(Op.ADD, [ones, ones], [twos])
    graph.ends([x, count], [y])
    return model.to_bytes()


def slow(size: int = 128) -> bytes:
    """`done` is `rounds`, int32 [1], after as many products of two `size` x `size` matrices; 0 rounds are quick.

    With 128, a round takes about 25 microseconds on an x86-64 core of 2020, so `rounds` sets how long a call takes.
    """
    model = Model()
    main, again, body = model.graph(), model.graph(), model.graph()

    def state(graph: Graph) -> list[int]:
        return [
            graph.tensor("count", np.int32, [1]),
            graph.tensor("limit", np.int32, [1]),
            graph.tensor("matrix", np.float32, [1, size, size]),
        ]

    rounds, done = main.tensor("rounds", np.int32, [1]), main.tensor("done", np.int32, [1])
    limit, matrix = main.tensor("last_limit", np.int32, [1]), main.tensor("last_matrix", np.float32, [1, size, size])
    start = main.tensor("start", np.float32, [1, size, size])
    main.op(
        Op.FILL,
        [
            main.constant("matrix_shape", np.asarray([1, size, size], np.int32)),
            main.constant("each", np.float32(1 / size)),
        ],
        [start],
    )
    main.op(
        Op.WHILE,
        [main.constant("zero", np.zeros(1, np.int32)), rounds, start],
        [done, limit, matrix],
        {0: i32(1), 1: i32(2)},
    )
    main.ends([rounds], [done])

    inside = state(again)
    more = again.tensor("more", np.bool_, [1])
    again.op(Op.LESS, inside[:2], [more])
    again.ends(inside, [more])

    inside = state(body)
    count, product = body.tensor("next_count", np.int32, [1]), body.tensor("product", np.float32, [1, size, size])
    body.op(Op.ADD, [inside[0], body.constant("one", np.ones(1, np.int32))], [count])
    body.op(Op.BATCH_MATMUL, [inside[2], inside[2]], [product])
    body.ends(inside, [count, inside[1], product])
    return model.to_bytes()


def big(mebibytes: int) -> bytes:
    """`y` is `x` + 1, float32 [1], by way of a tensor that takes so many MiB of working memory; a small file."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, [1]), graph.tensor("y", np.float32, [1])
    wide = [mebibytes, 256, 1024]
    ones, shifted = graph.tensor("ones", np.float32, wide), graph.tensor("shifted", np.float32, wide)
    shape = graph.constant("wide", np.asarray(wide, np.int32))
    graph.op(Op.FILL, [shape, graph.constant("one", np.float32(1))], [ones])
    graph.op(Op.ADD, [ones, x], [shifted])
    rows = graph.tensor("rows", np.float32, [mebibytes])
    graph.op(Op.MEAN, [shifted, graph.constant("axes", np.asarray([1, 2], np.int32))], [rows])
    graph.op(Op.MEAN, [rows, graph.constant("axis", np.asarray([0], np.int32))], [y], {0: u8(1)})
    graph.ends([x], [y])
    return model.to_bytes()


def heavy(mebibytes: int) -> bytes:
    """`y` [1, 256 * mebibytes] of `x` [1, 1024], float32, by weights that take so many MiB of the file."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, [1, 1024]), graph.tensor("y", np.float32, [1, 256 * mebibytes])
    weights = np.full((256 * mebibytes, 1024), 0.5, np.float32)
    graph.op(Op.FULLY_CONNECTED, [x, graph.constant("weights", weights), -1], [y], {0: u8(0)})
    graph.ends([x], [y])
    return model.to_bytes()


def models() -> dict[str, bytes]:
    """Every committed model, by file name."""
    made = {f"identity_{dtype}": identity(dtype) for dtype in DTYPES}
    made |= {
        "add_one": add_one(),
        "scalar": add_one(()),
        "dynamic_batch": add_one((-1, 4)),
        "dynamic_picture": colour_mean(),
        "two_by_two": two_by_two(),
        "mixed_types": mixed_types(),
        "look_up": look_up(),
        "moving": moving(),
        "slow": slow(),
        "string": string(),
        "complex64": identity("complex64"),
        "same_names": two_by_two("x", "x"),
        "name_not_utf8": identity("float32", source=b"x\xff\xfe"),
        "name_empty": identity("float32", source=""),
    }
    return {f"{name}.tflite": model for name, model in made.items()}


def main() -> int:
    """Writes them all."""
    for name, model in models().items():
        (HERE / name).write_bytes(model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
