"""Small models of the kinds that engines and agents get wrong: state, shapes that do not fit, values that have no answer."""

import numpy as np

from tests.data.tflite_writer import INT4, RESOURCE, Blockwise, Graph, Model, Op, i32, u8

VALID, SAME = 1, 0


def counter(rows: int = 1) -> bytes:
    """`y` is the sum of all `x` so far and their number, float32 [rows, 1]: a recurrent layer that adds 1; -1 is dynamic."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, [rows, 1]), graph.tensor("y", np.float32, [rows, 1])
    weights = [graph.constant(name, np.ones((1, 1), np.float32)) for name in ("w", "r")]
    bias = graph.constant("b", np.ones(1, np.float32))
    state = graph.tensor("h", np.float32, [rows, 1], variable=True)
    graph.op(Op.RNN, [x, *weights, bias, state], [y], {0: u8(0)})
    graph.ends([x], [y])
    return model.to_bytes()


def accumulator() -> bytes:
    """`y` is the sum of all `x` so far, float32 [1], in a resource variable that is set to 0 once."""
    model = Model()
    graph, init = model.graph(), model.graph()

    def handle(of: Graph) -> int:
        made = of.tensor("handle", RESOURCE, [1])
        of.op(Op.VAR_HANDLE, [], [made], {0: "container", 1: "sum"})
        return made

    x, before, y = (graph.tensor(name, np.float32, [1]) for name in ("x", "before", "y"))
    graph.op(Op.CALL_ONCE, [], [], {0: i32(1)})
    variable = handle(graph)
    graph.op(Op.READ_VARIABLE, [variable], [before])
    graph.op(Op.ADD, [x, before], [y])
    graph.op(Op.ASSIGN_VARIABLE, [variable, y], [])
    graph.ends([x], [y])
    init.op(Op.ASSIGN_VARIABLE, [handle(init), init.constant("zero", np.zeros(1, np.float32))], [])
    init.ends([], [])
    return model.to_bytes()


def convolution(side: int) -> bytes:
    """A VALID convolution by 3 x 3 over float32 [1, any, any, 3], which is `side` x `side` until it is told."""
    model = Model()
    graph = model.graph()
    x = graph.tensor("x", np.float32, [1, -1, -1, 3], first=[1, side, side, 3])
    y = graph.tensor("y", np.float32, [1, max(1, side - 2), max(1, side - 2), 2])
    weights, bias = np.ones((2, 3, 3, 3), np.float32), np.zeros(2, np.float32)
    graph.op(
        Op.CONV_2D,
        [x, graph.constant("w", weights), graph.constant("b", bias)],
        [y],
        {0: u8(VALID), 1: i32(1), 2: i32(1), 3: u8(0)},
    )
    graph.ends([x], [y])
    return model.to_bytes()


def transposed_convolution() -> bytes:
    """float32 [any, 8, 8, 4] to [1, 16, 16, 4]: the output's shape is a constant, whatever the batch."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, [-1, 8, 8, 4]), graph.tensor("y", np.float32, [1, 16, 16, 4])
    shape = graph.constant("shape", np.asarray([1, 16, 16, 4], np.int32))
    weights = graph.constant("w", np.ones((4, 2, 2, 4), np.float32))
    graph.op(Op.TRANSPOSE_CONV, [shape, weights, x], [y], {0: u8(SAME), 1: i32(2), 2: i32(2)})
    graph.ends([x], [y])
    return model.to_bytes()


def blockwise(version: int) -> bytes:
    """`y` [1, 16] is half the sum of `x` [1, 64], by weights of 4 bits in blocks of 32; the operator's version is not theirs."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, [1, 64]), graph.tensor("y", np.float32, [1, 16])
    scales = graph.constant("scales", np.full((16, 2), 0.5, np.float16))
    ones = np.full(16 * 64 // 2, 0x11, np.uint8)
    weights = graph.tensor("w", INT4, [16, 64], data=ones, quantization=Blockwise(scales, 32))
    graph.op(Op.FULLY_CONNECTED, [x, weights, -1], [y], {0: u8(0)}, version)
    graph.ends([x], [y])
    return model.to_bytes()


def _some_weights(*shape: int) -> np.ndarray:
    """Whole numbers, half of them 0."""
    numbers = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    return np.where(numbers % 2, 0, numbers)


SPARSE_LAYER = _some_weights(4, 6)
SPARSE_WINDOWS = _some_weights(2, 1, 1, 4)


def sparse_layer() -> bytes:
    """`y` [1, 4] is SPARSE_LAYER by `x` [1, 6], float32: the operator reads the sparse weights itself."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, [1, 6]), graph.tensor("y", np.float32, [1, 4])
    bias = graph.constant("b", np.zeros(4, np.float32))
    graph.op(Op.FULLY_CONNECTED, [x, graph.sparse("w", SPARSE_LAYER), bias], [y], {0: u8(0)}, 8)
    graph.ends([x], [y])
    return model.to_bytes()


def sparse_convolution() -> bytes:
    """`y` [1, 2, 2, 2] is the convolution of `x` [1, 2, 2, 4] by SPARSE_WINDOWS, float32, which DENSIFY makes dense."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, [1, 2, 2, 4]), graph.tensor("y", np.float32, [1, 2, 2, 2])
    dense = graph.tensor("dense", np.float32, SPARSE_WINDOWS.shape)
    graph.op(Op.DENSIFY, [graph.sparse("w", SPARSE_WINDOWS)], [dense])
    options = {0: u8(VALID), 1: i32(1), 2: i32(1), 3: u8(0)}
    graph.op(Op.CONV_2D, [x, dense, graph.constant("b", np.zeros(2, np.float32))], [y], options)
    graph.ends([x], [y])
    return model.to_bytes()


def fill(value: float = 7) -> bytes:
    """`y` is `n` times the value, float32 [n]; `n` is int32 [1]. Of zeros it is empty."""
    model = Model()
    graph = model.graph()
    n, y = graph.tensor("n", np.int32, [1]), graph.tensor("y", np.float32, [1])
    graph.op(Op.FILL, [n, graph.constant("v", np.float32(value))], [y])
    graph.ends([n], [y])
    return model.to_bytes()


def division(less: int | None = None) -> bytes:
    """`q` is `n` / `d`, int32 [1]: zeros have no answer. With `less`, that much is taken from `d` first."""
    model = Model()
    graph = model.graph()
    n, d, q = (graph.tensor(name, np.int32, [1]) for name in ("n", "d", "q"))
    divisor = d
    if less is not None:
        divisor = graph.tensor("divisor", np.int32, [1])
        graph.op(Op.SUB, [d, graph.constant("less", np.asarray([less], np.int32))], [divisor])
    graph.op(Op.DIV, [n, divisor], [q])
    graph.ends([n, d], [q])
    return model.to_bytes()


def where_zero() -> bytes:
    """`y`, int64 [any, 1], are the places of the zeros in `x`, float32 [4]."""
    model = Model()
    graph = model.graph()
    x, zeros = graph.tensor("x", np.float32, [4]), graph.tensor("zeros", np.bool_, [4])
    y = graph.tensor("y", np.int64, [1, 1])
    graph.op(Op.EQUAL, [x, graph.constant("zero", np.float32(0))], [zeros])
    graph.op(Op.WHERE, [zeros], [y])
    graph.ends([x], [y])
    return model.to_bytes()


def endless_on_zeros() -> bytes:
    """`done`, int32 [1]: steps of `step` until 10 is reached, so that 0 goes on for ever."""
    model = Model()
    main, again, body = model.graph(), model.graph(), model.graph()
    step, done, last = (main.tensor(name, np.int32, [1]) for name in ("step", "done", "last"))
    main.op(Op.WHILE, [main.constant("zero", np.zeros(1, np.int32)), step], [done, last], {0: i32(1), 1: i32(2)})
    main.ends([step], [done])
    at, by = (again.tensor(name, np.int32, [1]) for name in ("at", "by"))
    more = again.tensor("more", np.bool_, [1])
    again.op(Op.LESS, [at, again.constant("ten", np.asarray([10], np.int32))], [more])
    again.ends([at, by], [more])
    at, by, to = (body.tensor(name, np.int32, [1]) for name in ("at", "by", "to"))
    body.op(Op.ADD, [at, by], [to])
    body.ends([at, by], [to, by])
    return model.to_bytes()


def doubling() -> bytes:
    """`y` is 8 times `x`, float32 [1]: doubled until it is, in a loop."""
    model = Model()
    main, again, body = model.graph(), model.graph(), model.graph()
    x, start, y, count = (main.tensor(name, np.float32, [1]) for name in ("x", "start", "y", "count"))
    main.op(Op.ADD, [x, main.constant("zero", np.zeros(1, np.float32))], [start])
    main.op(Op.WHILE, [main.constant("none", np.zeros(1, np.float32)), start], [count, y], {0: i32(1), 1: i32(2)})
    main.ends([x], [y])
    at, by = (again.tensor(name, np.float32, [1]) for name in ("at", "by"))
    more = again.tensor("more", np.bool_, [1])
    again.op(Op.LESS, [at, again.constant("three", np.full(1, 3, np.float32))], [more])
    again.ends([at, by], [more])
    at, by, to, twice = (body.tensor(name, np.float32, [1]) for name in ("at", "by", "to", "twice"))
    body.op(Op.ADD, [at, body.constant("one", np.ones(1, np.float32))], [to])
    body.op(Op.ADD, [by, by], [twice])
    body.ends([at, by], [to, twice])
    return model.to_bytes()


def no_names() -> bytes:
    """Two inputs float32 [2] without a name; `y` is the first less the second."""
    model = Model()
    graph = model.graph()
    a, b, y = (graph.tensor(name, np.float32, [2]) for name in ("", "", "y"))
    graph.op(Op.SUB, [a, b], [y])
    graph.ends([a, b], [y])
    return model.to_bytes()


def same_output_twice() -> bytes:
    """`y` is `x` + 1, float32 [2], and comes out twice."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, [2]), graph.tensor("y", np.float32, [2])
    graph.op(Op.ADD, [x, graph.constant("one", np.float32(1))], [y])
    graph.ends([x], [y, y])
    return model.to_bytes()


def custom(name: str) -> bytes:
    """An operator that no runtime has built in."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, [1]), graph.tensor("y", np.float32, [1])
    graph.op(Op.CUSTOM, [x], [y], custom=name)
    graph.ends([x], [y])
    return model.to_bytes()


def signatures(*, several: bool) -> bytes:
    """`serve`: `b` - `a` by the tensors first:0, second:0 and out:0, float32 [2]; `several`: and `twice`, on a graph of its own."""
    model = Model()
    graph = model.graph()
    first, second, out = (graph.tensor(name, np.float32, [2]) for name in ("first:0", "second:0", "out:0"))
    graph.op(Op.SUB, [second, first], [out])
    graph.ends([first, second], [out])
    model.signature("serve", graph, {"b": second, "a": first}, {"difference": out})
    if several:
        other = model.graph()
        x, y = other.tensor("x:0", np.float32, [-1]), other.tensor("y:0", np.float32, [-1])
        other.op(Op.ADD, [x, x], [y])
        other.ends([x], [y])
        model.signature("twice", other, {"value": x}, {"doubled": y})
    return model.to_bytes()
