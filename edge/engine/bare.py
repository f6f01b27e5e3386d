"""A model in the bare engine, in a process of its own: what `package --check` compares the agent's answers with."""

import json
from contextlib import suppress
from typing import Any

import numpy as np

from edge.engine.interpreter import ENGINE_ERRORS
from edge.engine.tflite import TfliteEngine

FLAG = "--bare-model"


def main(task_text: str) -> int:
    """One inference by a fresh interpreter; the exit code is 0 whatever the engine says.

    The inputs are a .npz file with arrays by position, `0`, `1`, ...; the outputs go into one beside it the same way. Inputs
    that the engine refuses have none.
    """
    task = json.loads(task_text)
    interpreter = TfliteEngine().prepare().Interpreter(model_path=task["model"], num_threads=task["threads"])
    with np.load(task["inputs"], allow_pickle=False) as arrays:
        inputs = [arrays[str(position)] for position in range(len(arrays.files))]
    with suppress(*ENGINE_ERRORS):
        outputs = run(interpreter, inputs)
        np.savez(answer_of(task["inputs"]), **{str(position): output for position, output in enumerate(outputs)})
    return 0


def answer_of(file: str) -> str:
    """Where the outputs for a file of inputs go."""
    return file.removesuffix(".npz") + "-out.npz"


def run(interpreter: Any, inputs: list[Any]) -> list[Any]:
    """The outputs for arrays as inputs, in their shapes; raises what the bindings raise."""
    details = interpreter.get_input_details()
    if any(list(detail["shape"]) != list(array.shape) for detail, array in zip(details, inputs, strict=True)):
        for detail, array in zip(details, inputs, strict=True):
            interpreter.resize_tensor_input(int(detail["index"]), array.shape)
    interpreter.allocate_tensors()
    for detail, array in zip(details, inputs, strict=True):
        if array.size:
            interpreter.set_tensor(int(detail["index"]), array)
    interpreter.invoke()
    outputs = []
    for detail in interpreter.get_output_details():  # anew: the shapes are those of this inference
        empty = 0 in detail["shape"]
        outputs.append(
            np.empty(detail["shape"], detail["dtype"]) if empty else interpreter.get_tensor(int(detail["index"]))
        )
    return outputs
