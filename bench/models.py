"""Makes the benchmark's models: `python -m bench.models [folder]` (build/bench/models unless told).

    mobilenet_float32.tflite   MobileNetV2's shape, 224x224, random weights: `image` [1, 224, 224, 3], `classes` [1, 1001]
    mobilenet_int8.tflite      the same, quantised with one scale a channel; int8 in and out
    large_input.tflite         `image` float32 [1, 1024, 1024, 3], 12.6 MB, of which `row` is the first row

No TensorFlow, and the same bytes on every run. What such a net answers means nothing; what it costs is what the trained
one costs.
"""

import sys
from pathlib import Path

import numpy as np

from tests.data.tflite_writer import Graph, Model, Op, Quantization, f32, i32, u8

SEED = 224
CLASSES = 1001
# Expansion, channels out, repeats and stride of each stage: table 2 of "MobileNetV2" (arXiv 1801.04381).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM, HEAD = 32, 1280

NO_ACTIVATION, RELU6 = 0, 3
SAME_PADDING = 0

IMAGE = Quantization(1 / 255, -128)
CLIPPED = Quantization(6 / 255, -128)  # after a ReLU6
LINEAR = Quantization(0.08)  # after a bottleneck: about -10..10
PROBABILITY = Quantization(1 / 256, -128)


class MobileNet:
    """Builds the net layer by layer; `at` is the tensor last made and `shape` its height, width and channels."""

    def __init__(self, *, int8: bool, size: int = 224) -> None:
        """`size`: height and width of the input in pixels, a multiple of 32."""
        self.int8 = int8
        self.random = np.random.default_rng(SEED)
        self.model = Model()
        self.graph: Graph = self.model.graph()
        self.shape = (size, size, 3)
        self.scale = IMAGE
        self.count = 0
        self.at = self.activation("image", self.shape, IMAGE)

    def activation(self, name: str, shape: tuple[int, ...], scale: Quantization) -> int:
        """A tensor that is computed."""
        dtype = np.int8 if self.int8 else np.float32
        return self.graph.tensor(name, dtype, (1, *shape), quantization=scale if self.int8 else None)

    def weights(self, shape: tuple[int, ...], fan_in: int, axis: int) -> list[int]:
        """Random weights and a bias of zeros, with a scale for each index along `axis`."""
        values = self.random.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        bias = np.zeros(shape[axis], np.float32)
        name = f"weights{self.count}"
        if not self.int8:
            return [self.graph.constant(name, values), self.graph.constant(name + "_bias", bias)]
        others = tuple(n for n in range(len(shape)) if n != axis)
        steps = np.abs(values).max(axis=others, keepdims=True) / 127
        stored = np.round(values / steps).astype(np.int8)
        scales = steps.reshape(-1)
        return [
            self.graph.constant(name, stored, Quantization(scales, axis=axis)),
            self.graph.constant(name + "_bias", bias.astype(np.int32), Quantization(scales * self.scale.scale)),
        ]

    def step(
        self, op: Op, weights: list[int], shape: tuple[int, ...], scale: Quantization, options: dict, version: int
    ) -> None:
        """One operator on `at`."""
        self.count += 1
        out = self.activation(f"layer{self.count}", shape, scale)
        self.graph.op(op, [self.at, *weights], [out], options, version if self.int8 else 1)
        self.at, self.shape, self.scale = out, shape, scale

    def conv(self, channels: int, size: int, stride: int, *, linear: bool = False) -> None:
        """A convolution with ReLU6, or without when linear."""
        high, wide, before = self.shape
        weights = self.weights((channels, size, size, before), size * size * before, axis=0)
        options = {0: u8(SAME_PADDING), 1: i32(stride), 2: i32(stride), 3: u8(NO_ACTIVATION if linear else RELU6)}
        shape = (-(-high // stride), -(-wide // stride), channels)
        self.step(Op.CONV_2D, weights, shape, LINEAR if linear else CLIPPED, options, 3)

    def depthwise(self, stride: int) -> None:
        """A 3x3 convolution of each channel alone, with ReLU6."""
        high, wide, channels = self.shape
        weights = self.weights((1, 3, 3, channels), 9, axis=3)
        options = {0: u8(SAME_PADDING), 1: i32(stride), 2: i32(stride), 3: i32(1), 4: u8(RELU6)}
        shape = (-(-high // stride), -(-wide // stride), channels)
        self.step(Op.DEPTHWISE_CONV_2D, weights, shape, CLIPPED, options, 3)

    def bottleneck(self, expansion: int, channels: int, stride: int) -> None:
        """An inverted residual block."""
        start, before = self.at, self.shape
        if expansion > 1:
            self.conv(before[2] * expansion, 1, 1)
        self.depthwise(stride)
        self.conv(channels, 1, 1, linear=True)
        if self.shape == before:
            self.step(Op.ADD, [start], self.shape, LINEAR, {0: u8(NO_ACTIVATION)}, 2)

    def build(self, *, softmax: bool = True) -> bytes:
        """The whole net as a file; without its softmax the output is what the last layer says, in about -10..10."""
        image = self.at
        self.conv(STEM, 3, 2)
        for expansion, channels, repeats, stride in STAGES:
            for repeat in range(repeats):
                self.bottleneck(expansion, channels, stride if repeat == 0 else 1)
        self.conv(HEAD, 1, 1)
        axes = self.graph.constant("axes", np.asarray([1, 2], np.int32))
        self.step(Op.MEAN, [axes], (HEAD,), CLIPPED, {0: u8(0)}, 2)
        self.step(Op.FULLY_CONNECTED, self.dense(), (CLASSES,), LINEAR, {0: u8(NO_ACTIVATION)}, 4)
        if softmax:
            classes = self.activation("classes", (CLASSES,), PROBABILITY)
            self.graph.op(Op.SOFTMAX, [self.at], [classes], {0: f32(1)}, 2 if self.int8 else 1)
            self.at = classes
        self.graph.ends([image], [self.at])
        return self.model.to_bytes()

    def dense(self) -> list[int]:
        """Weights of the last layer, with one scale: older engines take no more for a fully connected layer."""
        weights = self.random.normal(0, np.sqrt(2 / HEAD), (CLASSES, HEAD)).astype(np.float32)
        bias = np.zeros(CLASSES, np.float32)
        if not self.int8:
            return [self.graph.constant("dense", weights), self.graph.constant("dense_bias", bias)]
        step = float(np.abs(weights).max()) / 127
        stored = np.round(weights / step).astype(np.int8)
        return [
            self.graph.constant("dense", stored, Quantization(step)),
            self.graph.constant("dense_bias", bias.astype(np.int32), Quantization(step * float(self.scale.scale))),
        ]


def large_input() -> bytes:
    """`row` [1, 1, 1024, 3] is the first row of `image` [1, 1024, 1024, 3], float32."""
    model = Model()
    graph = model.graph()
    image = graph.tensor("image", np.float32, [1, 1024, 1024, 3])
    row = graph.tensor("row", np.float32, [1, 1, 1024, 3])
    graph.op(Op.GATHER, [image, graph.constant("first", np.zeros(1, np.int32))], [row], {0: i32(1)})
    graph.ends([image], [row])
    return model.to_bytes()


def main() -> int:
    """Writes the models that are not there yet."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("build/bench/models")
    folder.mkdir(parents=True, exist_ok=True)
    makers = {
        "mobilenet_float32.tflite": lambda: MobileNet(int8=False).build(),
        "mobilenet_int8.tflite": lambda: MobileNet(int8=True).build(),
        "large_input.tflite": large_input,
    }
    for name, make in makers.items():
        if not (folder / name).exists():
            (folder / name).write_bytes(make())
    return 0


if __name__ == "__main__":
    sys.exit(main())
