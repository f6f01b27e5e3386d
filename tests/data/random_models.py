"""Random small models with requests for them, some of which no engine can answer."""

import random
from dataclasses import dataclass

import numpy as np

from tests.data.tflite_writer import INT4, Blockwise, Graph, Model, Op, Quantization, i32, u8

Array = np.ndarray
SCALE = Quantization(0.5)


@dataclass(frozen=True)
class Case:
    """A model and requests, each the arrays of all inputs."""

    model: bytes
    requests: list[list[Array]]


def random_case(seed: int) -> Case:
    """The case of a seed, the same every time."""
    return _Maker(random.Random(seed)).case()


class _Maker:
    """One case in the making: `at` is the tensor that the next operator takes, of `shape` and `dtype`."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.model = Model()
        self.graph: Graph = self.model.graph()
        self.names = 0

    def name(self) -> str:
        self.names += 1
        return f"t{self.names}"

    def numbers(self, shape: list[int], dtype: str) -> Array:
        values = [self.choose.randint(-3, 3) for _ in range(int(np.prod(shape, dtype=int)))]
        return np.asarray(values, "float64").reshape(shape).astype(dtype)

    def case(self) -> Case:
        choose = self.choose
        self.dtype = choose.choice(["float32"] * 4 + ["int8", "int32"])
        self.shape = [1, *(choose.randint(1, 6) for _ in range(choose.choice([1, 1, 3])))]
        declared = [-1 if choose.random() < 0.3 else size for size in self.shape]
        self.dynamic = declared != self.shape
        self.dynamic_rows = declared[1:] != self.shape[1:]
        quantization = SCALE if self.dtype == "int8" else None
        source = self.graph.tensor("x", self.dtype, declared, first=self.shape, quantization=quantization)
        fixed = list(self.shape)
        self.at = source
        for _ in range(choose.randint(1, 4)):
            steps = [self.add, self.reshape, self.gather]
            if self.dtype == "float32":
                steps += [self.add_up, self.fully_connected, self.loop, self.recurrent]
                steps += [self.convolve, self.pool, self.transpose_convolve] if len(self.shape) == 4 else []
            elif self.dtype == "int8":
                steps += [self.fully_connected] + ([self.convolve, self.pool] if len(self.shape) == 4 else [])
            choose.choice(steps)()
        if self.dtype == "float32" and choose.random() < 0.3:
            self.where()
        self.graph.ends([source], [self.at])
        dtype = "float32" if self.dtype == "bool" else self.graph_dtype
        requests = [[self.numbers(fixed, dtype)]]
        for _ in range(2 if declared != fixed else 1):
            shape = [choose.randint(0 if choose.random() < 0.1 else 1, 7) if n < 0 else n for n in declared]
            requests.append([self.numbers(shape, dtype)])
        return Case(self.model.to_bytes(), requests)

    @property
    def graph_dtype(self) -> str:
        return {0: "float32", 2: "int32", 9: "int8"}[int(self.graph.tensors[0][1].value)]

    def out(self, shape: list[int], dtype: str | None = None) -> int:
        """The next tensor; its shape is what the file says, which an engine works out anew."""
        quantization = SCALE if (dtype or self.dtype) == "int8" else None
        return self.graph.tensor(
            self.name(), dtype or self.dtype, [max(0, n) for n in shape], quantization=quantization
        )

    def step(self, code: Op, inputs: list[int], shape: list[int], options: object = None, version: int = 1) -> None:
        made = self.out(shape)
        self.graph.op(code, inputs, [made], options, version)  # type: ignore[arg-type]
        self.at, self.shape = made, shape

    def constant(self, data: Array) -> int:
        return self.graph.constant(self.name(), data, SCALE if data.dtype == np.int8 else None)

    def add(self) -> None:
        other = self.constant(self.numbers([self.shape[-1]], self.dtype)) if self.choose.random() < 0.7 else self.at
        self.step(Op.ADD, [self.at, other], self.shape, version=2 if self.dtype == "int8" else 1)

    def add_up(self) -> None:
        axis = self.choose.randrange(len(self.shape))
        axes = self.constant(np.asarray([axis], np.int32))
        shape = [1 if at == axis else n for at, n in enumerate(self.shape)]
        self.step(Op.MEAN, [self.at, axes], shape, {0: u8(1)})

    def reshape(self) -> None:
        size = int(np.prod(self.shape))
        shape = self.choose.choice([[1, size], [-1], [1, size, 1, 1], [size + (self.choose.random() < 0.1)]])
        known = [size if n < 0 else n for n in shape]
        self.step(Op.RESHAPE, [self.at, self.constant(np.asarray(shape, np.int32))], known)

    def gather(self) -> None:
        if self.dtype == "int8":
            return
        axis = self.choose.randrange(len(self.shape))
        beyond = 1 if self.choose.random() < 0.1 else 0
        indices = [self.choose.randrange(max(1, self.shape[axis]) + beyond) for _ in range(self.choose.randint(1, 3))]
        shape = [len(indices) if at == axis else n for at, n in enumerate(self.shape)]
        self.step(Op.GATHER, [self.at, self.constant(np.asarray(indices, np.int32))], shape, {0: i32(axis)})

    def fully_connected(self) -> None:
        if self.dynamic_rows:  # rows that are not as long as the weights: the engine does not look
            return
        wide, out = self.shape[-1], self.choose.randint(1, 5)
        shape = [int(np.prod(self.shape[:-1])), out]
        kind = self.choose.choice(["int8"] if self.dtype == "int8" else ["float32", "float32", "int8", "blocks"])
        version = {"float32": 1, "blocks": 1, "int8": 4 if self.dtype == "int8" else 3}[kind]
        if kind == "blocks":
            wide = self.shape[-1] = wide + wide % 2
            scales = self.constant(np.full((out, 1), 0.5, np.float16))
            packed = np.full((out * wide + 1) // 2, 0x21, np.uint8)
            weights = self.graph.tensor(
                self.name(), INT4, [out, wide], data=packed, quantization=Blockwise(scales, wide)
            )
        else:
            weights = self.constant(self.numbers([out, wide], kind))
        self.step(Op.FULLY_CONNECTED, [self.at, weights, -1], shape, {0: u8(0)}, version)

    def window(self) -> tuple[int, int, int, list[int]]:
        """Padding (0 SAME, 1 VALID), stride, size, and the picture's sides afterwards."""
        padding, stride, size = self.choose.choice([0, 1]), self.choose.choice([1, 1, 2]), self.choose.randint(1, 4)
        sides = [(n - (size - 1 if padding else 0) + stride - 1) // stride for n in self.shape[1:3]]
        return padding, stride, size, sides

    def convolve(self) -> None:
        padding, stride, size, sides = self.window()
        out = self.choose.randint(1, 3)
        weights = self.constant(self.numbers([out, size, size, self.shape[3]], self.dtype))
        bias = self.graph.constant(
            self.name(),
            self.numbers([out], "int32" if self.dtype == "int8" else self.dtype),
            Quantization(0.25) if self.dtype == "int8" else None,
        )
        options = {0: u8(padding), 1: i32(stride), 2: i32(stride), 3: u8(0)}
        version = 3 if self.dtype == "int8" else 1
        self.step(Op.CONV_2D, [self.at, weights, bias], [self.shape[0], *sides, out], options, version)

    def pool(self) -> None:
        padding, stride, size, sides = self.window()
        options = {0: u8(padding), 1: i32(stride), 2: i32(stride), 3: i32(size), 4: i32(size), 5: u8(0)}
        code = self.choose.choice([Op.MAX_POOL_2D, Op.AVERAGE_POOL_2D])
        version = 2 if self.dtype == "int8" else 1
        self.step(code, [self.at], [self.shape[0], *sides, self.shape[3]], options, version)

    def transpose_convolve(self) -> None:
        if self.dynamic:  # the output's shape is a constant: with other inputs engines differ from themselves
            return
        out = self.choose.randint(1, 3)
        shape = [self.shape[0], 2 * self.shape[1], 2 * self.shape[2], out]
        weights = self.constant(self.numbers([out, 2, 2, self.shape[3]], self.dtype))
        inputs = [self.constant(np.asarray(shape, np.int32)), weights, self.at]
        self.step(Op.TRANSPOSE_CONV, inputs, shape, {0: u8(0), 1: i32(2), 2: i32(2)})

    def recurrent(self) -> None:
        if len(self.shape) != 2:
            return
        units = self.choose.randint(1, 3)
        state = self.graph.tensor(self.name(), np.float32, [self.shape[0], units], variable=True)
        shapes = [[units, self.shape[1]], [units, units], [units]]
        weights = [self.constant(self.numbers(shape, "float32")) for shape in shapes]
        self.step(Op.RNN, [self.at, *weights, state], [self.shape[0], units], {0: u8(0)})

    def loop(self) -> None:
        """Adds to itself a few times."""
        again, body = self.model.graph(), self.model.graph()
        rounds = self.choose.randint(0, 3)
        count, value = again.tensor("n", np.int32, [1]), again.tensor("v", np.float32, self.shape)
        more = again.tensor("more", np.bool_, [1])
        again.op(Op.LESS, [count, again.constant("rounds", np.asarray([rounds], np.int32))], [more])
        again.ends([count, value], [more])
        count, value = body.tensor("n", np.int32, [1]), body.tensor("v", np.float32, self.shape)
        to, twice = body.tensor("m", np.int32, [1]), body.tensor("w", np.float32, self.shape)
        body.op(Op.ADD, [count, body.constant("one", np.ones(1, np.int32))], [to])
        body.op(Op.ADD, [value, value], [twice])
        body.ends([count, value], [to, twice])
        last, made = self.graph.tensor(self.name(), np.int32, [1]), self.out(self.shape)
        numbers = {0: i32(len(self.model.graphs) - 2), 1: i32(len(self.model.graphs) - 1)}
        self.graph.op(Op.WHILE, [self.constant(np.zeros(1, np.int32)), self.at], [last, made], numbers)
        self.at = made

    def where(self) -> None:
        zeros, places = self.out(self.shape, "bool"), self.out([1, len(self.shape)], "int64")
        self.graph.op(Op.EQUAL, [self.at, self.constant(np.zeros(1, np.float32))], [zeros])
        self.graph.op(Op.WHERE, [zeros], [places])
        self.at = places
