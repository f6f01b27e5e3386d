"""What a net answers is the same on every machine: int8 to the byte, float32 within TOLERANCE.

A binary's answers are compared with the x86-64 binary's. A change of engine may change these: run this file against that
binary with NUMERICS_WRITE=1 then, and look at the difference. Run from source, where another release of the engine may
be installed, the agent answers what that engine does.
"""

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from bench.engine import interpreter_package, pattern
from bench.models import CLASSES, MobileNet
from tests.system.harness import Client, array_of, from_source, tensor_of

SIZE = 32
TOLERANCE = 1e-5  # of the largest output; stated in docs/performance.md
EXPECTED = Path(__file__).resolve().parents[1] / "data" / "numerics.json"
WRITE = "NUMERICS_WRITE" in os.environ and not from_source()


def net(dtype: Any) -> bytes:
    """A MobileNetV2 with random weights that ends before its softmax."""
    return MobileNet(int8=dtype is np.int8, size=SIZE).build(softmax=False)


def answer_of(client: Client, signer: Any, folder: Path, dtype: Any) -> "np.ndarray[Any, Any]":
    """What the agent's net says of a test pattern: [1, CLASSES]."""
    name = np.dtype(dtype).name
    file = folder / f"{name}.tflite"
    file.write_bytes(net(dtype))
    client.load(signer.package(file, name, "--threads", "1"), name)
    (answer,) = client.predict(name, [tensor_of(pattern((1, SIZE, SIZE, 3), dtype, 0), "image")])
    found = array_of(answer)
    assert found.shape == (1, CLASSES) and len(set(found.ravel().tolist())) > 50  # it says something
    if WRITE:
        known = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
        known[name] = base64.b64encode(found.tobytes()).decode()
        EXPECTED.write_text(json.dumps(known, indent=0) + "\n")
    return found


def expected(dtype: Any) -> "np.ndarray[Any, Any]":
    """What the x86-64 binary answers, or from source the engine that is installed: [1, CLASSES]."""
    if not from_source():
        text = json.loads(EXPECTED.read_text())[np.dtype(dtype).name]
        return np.frombuffer(base64.b64decode(text), dtype).reshape(1, CLASSES)
    _, module = interpreter_package()
    interpreter = module.Interpreter(model_content=net(dtype), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pattern((1, SIZE, SIZE, 3), dtype, 0))
    interpreter.invoke()
    answer: np.ndarray[Any, Any] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return answer


def test_float_answers_are_the_same_everywhere(client: Client, signer: Any, tmp_path: Path) -> None:
    found, known = answer_of(client, signer, tmp_path, np.float32), expected(np.float32)
    assert np.abs(found - known).max() <= TOLERANCE * np.abs(known).max()


def test_int8_answers_are_the_same_everywhere(client: Client, signer: Any, tmp_path: Path) -> None:
    found, known = answer_of(client, signer, tmp_path, np.int8), expected(np.int8)
    assert np.array_equal(found, known)
