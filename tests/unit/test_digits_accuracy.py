"""The committed demo models are as good as the README says, on digits they never saw."""

from pathlib import Path

import numpy as np
import pytest

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter

DATA = Path(__file__).parents[2] / "demo" / "data"
FEWEST_CORRECT = 0.97


@pytest.mark.parametrize("name", ["digits.tflite", "digits_int8.tflite"])
def test_committed_model_reads_held_out_digits(name: str) -> None:
    held_out = np.load(DATA / "held_out.npz")
    engine = Interpreter(model_path=str(DATA / name), num_threads=1)
    engine.allocate_tensors()
    source, sink = engine.get_input_details()[0], engine.get_output_details()[0]
    assert (source["name"], sink["name"]) == ("image", "probabilities")
    right = 0
    for grey, digit in zip(held_out["grey"], held_out["digit"], strict=True):
        if source["dtype"] == np.int8:
            image = (grey.astype(np.int16) - 128).astype(np.int8)
        else:
            image = grey.astype(np.float32) / 255
        engine.set_tensor(source["index"], image[None, ..., None])
        engine.invoke()
        right += int(np.argmax(engine.get_tensor(sink["index"])) == digit)
    assert len(held_out["digit"]) >= 300
    assert right / len(held_out["digit"]) >= FEWEST_CORRECT
