"""Trains the demo model on scikit-learn's digits and writes everything under demo/data.

A development tool: `pip install .[train]`, then `python -m demo.train`. What it writes is committed, so that neither
the demo nor the tests need TensorFlow. With TensorFlow 2.17 on x86-64 the files come out byte for byte.

    digits.tflite        float32, input `image` [1, 8, 8, 1] in 0..1 (1 is ink), output `probabilities` [1, 10]
    digits_int8.tflite   the same in int8: `image` holds grey - 128 for grey in 0..255
    held_out.npz         what it never saw: `grey` uint8 [360, 8, 8] in 0..255, `digit` uint8 [360]
    pictures/            twenty of those as 32x32 BMP, light on dark; the file name starts with the true digit
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from edge.client import bmp

DATA = Path(__file__).parent / "data"
SEED = 20
EPOCHS = 60
BATCH = 32
PICTURES_PER_DIGIT = 2
PICTURE_SCALE = 4  # 8x8 digits become 32x32 pictures
FEWEST_CORRECT = 0.97

Variables = dict[str, tf.Variable]


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Grey pictures uint8 [n, 8, 8] in 0..255 and their digits: to train with, and held out (a fifth, stratified)."""
    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    train_x, held_x, train_y, held_y = train_test_split(
        grey, bunch.target.astype(np.uint8), test_size=0.2, random_state=SEED, stratify=bunch.target
    )
    return train_x, train_y, held_x, held_y


def make_variables() -> Variables:
    """Fresh weights: two 3x3 convolutions and two dense layers, 12,554 numbers in all."""
    start = tf.keras.initializers.HeNormal(seed=SEED)
    shapes = {"conv1": (3, 3, 1, 12), "conv2": (3, 3, 12, 16), "dense1": (4 * 4 * 16, 40), "dense2": (40, 10)}
    variables: Variables = {}
    for name, shape in shapes.items():
        variables[name + "/w"] = tf.Variable(start(shape), name=name)
        variables[name + "/b"] = tf.Variable(tf.zeros(shape[-1]), name=name + "_bias")
    return variables


def logits(v: Variables, image: tf.Tensor, keep: float = 1.0) -> tf.Tensor:
    """Scores [n, 10] of pictures [n, 8, 8, 1] in 0..1."""
    x = tf.nn.relu(tf.nn.conv2d(image, v["conv1/w"], 1, "SAME") + v["conv1/b"])
    x = tf.nn.relu(tf.nn.conv2d(x, v["conv2/w"], 1, "SAME") + v["conv2/b"])
    x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    x = tf.reshape(x, [-1, 4 * 4 * 16])
    x = tf.nn.relu(tf.matmul(x, v["dense1/w"]) + v["dense1/b"])
    if keep < 1.0:
        x = tf.nn.dropout(x, 1 - keep)
    return tf.matmul(x, v["dense2/w"]) + v["dense2/b"]


def shifted(batch: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The batch, each picture moved by up to one pixel each way; what moves out is lost, paper moves in."""
    moved = np.zeros_like(batch)
    for one, (down, right) in enumerate(random.integers(-1, 2, (len(batch), 2))):
        source = batch[one, max(0, -down) : 8 - max(0, down), max(0, -right) : 8 - max(0, right)]
        moved[one, max(0, down) : 8 + min(0, down), max(0, right) : 8 + min(0, right)] = source
    return moved


def train(x: np.ndarray, y: np.ndarray) -> Variables:
    """Weights fitted to the pictures, the same on each run."""
    tf.random.set_seed(SEED)
    random = np.random.default_rng(SEED)
    variables = make_variables()
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(3e-3, steps))
    weights = list(variables.values())

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            scores = logits(variables, images, keep=0.7)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores))
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    for _ in range(EPOCHS):
        order = random.permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            pick = order[start : start + BATCH]
            images = shifted(x[pick], random)[..., None].astype(np.float32) / 255
            step(tf.constant(images), tf.constant(y[pick].astype(np.int32)))
    return variables


def convert(variables: Variables, samples: np.ndarray | None) -> bytes:
    """The `.tflite` file: float32, or full int8 when sample pictures [n, 8, 8] to measure ranges with are given."""
    frozen = {name: tf.constant(variable.numpy()) for name, variable in variables.items()}

    @tf.function(input_signature=[tf.TensorSpec([1, 8, 8, 1], tf.float32, name="image")])
    def network(image: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(logits(frozen, image))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()])
    if samples is not None:

        def representative() -> Iterator[list[np.ndarray]]:
            for sample in samples:
                yield [sample[None, ..., None].astype(np.float32) / 255]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    return renamed(converter.convert())


def renamed(model: bytes) -> bytes:
    """The model with its input named `image` and its output `probabilities`, as documented above."""
    tree: schema.ModelT = flatbuffer_utils.convert_bytearray_to_object(model)
    graph = tree.subgraphs[0]
    graph.tensors[graph.inputs[0]].name = b"image"
    graph.tensors[graph.outputs[0]].name = b"probabilities"
    return bytes(flatbuffer_utils.convert_object_to_bytearray(tree))


def accuracy(model: bytes, x: np.ndarray, y: np.ndarray) -> float:
    """The share of pictures that the model gets right."""
    engine = tf.lite.Interpreter(model_content=model)
    engine.allocate_tensors()
    source, sink = engine.get_input_details()[0], engine.get_output_details()[0]
    right = 0
    for grey, digit in zip(x, y, strict=True):
        if source["dtype"] == np.int8:
            image = (grey.astype(np.int16) - 128).astype(np.int8)
        else:
            image = grey.astype(np.float32) / 255
        engine.set_tensor(source["index"], image[None, ..., None])
        engine.invoke()
        right += int(np.argmax(engine.get_tensor(sink["index"])) == digit)
    return right / len(y)


def main() -> int:
    """Trains, checks and writes; 1 when a model is not good enough."""
    train_x, train_y, held_x, held_y = digits()
    variables = train(train_x, train_y)
    for name, samples in (("digits.tflite", None), ("digits_int8.tflite", train_x)):
        model = convert(variables, samples)
        score = accuracy(model, held_x, held_y)
        print(f"{name}: {len(model)} bytes, {score:.2%} of {len(held_y)} held-out digits right")
        if score < FEWEST_CORRECT:
            print(f"That is less than {FEWEST_CORRECT:.0%}: not written.", file=sys.stderr)
            return 1
        (DATA / name).write_bytes(model)
    np.savez_compressed(DATA / "held_out.npz", grey=held_x, digit=held_y)
    (DATA / "pictures").mkdir(exist_ok=True)
    for old in (DATA / "pictures").glob("*.bmp"):
        old.unlink()
    for digit in range(10):
        for number, index in enumerate(np.flatnonzero(held_y == digit)[:PICTURES_PER_DIGIT]):
            big = held_x[index].repeat(PICTURE_SCALE, 0).repeat(PICTURE_SCALE, 1)
            (DATA / "pictures" / f"{digit}_{'ab'[number]}.bmp").write_bytes(bmp.encode(big))
    return 0


if __name__ == "__main__":
    sys.exit(main())
