"""One interpreter: its inputs and outputs (P-6, P-8, P-9)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.arrays import numpy_dtype
from edge.engine.engine import Session, SessionOptions
from edge.engine.session import MAX_SAID_CHARACTERS, TfliteSession
from edge.engine.tflite import TfliteEngine
from edge.errors import InferenceError
from edge.host.memory import give_back
from tests.data.make_models import add_one, big

DATA = Path(__file__).parents[1] / "data"
DIGITS = Path(__file__).parents[2] / "demo" / "data"
LARGE = (1, 64 * 1024)  # more than is copied with the interpreter's lock held


@pytest.fixture(scope="module")
def engine() -> TfliteEngine:
    return TfliteEngine()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    (tmp_path / "large.tflite").write_bytes(add_one(LARGE))
    return tmp_path / "large.tflite"


def opened(engine: TfliteEngine, path: Path) -> TfliteSession:
    return engine.open(str(path), SessionOptions())


def run(session: Session, *inputs: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> list[Sequence[float]]:
    """The outputs' values; the outputs themselves are gone when it returns."""
    outputs = session.run([array.tobytes() for array in inputs], tuple(array.shape for array in inputs))
    kinds = [numpy_dtype(spec.dtype) for spec in session.outputs]
    return [
        np.frombuffer(bytes(memoryview(output)), kind).tolist() for output, kind in zip(outputs, kinds, strict=True)
    ]


def test_every_inference_has_its_own_input_and_output(engine: TfliteEngine, large: Path) -> None:  # [P-9]
    small, wide = (opened(engine, path) for path in (DATA / "add_one.tflite", large))
    for value in range(5):
        assert run(small, np.full((1, 4), value, np.float32)) == [[value + 1.0] * 4]
        assert run(wide, np.full(LARGE, value, np.float32)) == [[value + 1.0] * LARGE[1]]


def test_a_failed_inference_leaves_the_session_fit_for_the_next(engine: TfliteEngine) -> None:  # [P-6]
    session = opened(engine, DATA / "look_up.tflite")
    for _ in range(3):
        with pytest.raises(InferenceError):
            run(session, np.array([99], np.int32))
        for index in range(4):
            assert run(session, np.array([index], np.int32)) == [[10 + index]]


@pytest.mark.parametrize("size", [0, 1, 15, 17])
def test_too_little_or_too_much_data_is_refused(engine: TfliteEngine, large: Path, size: int) -> None:
    for path, shape in ((DATA / "add_one.tflite", (1, 4)), (large, LARGE)):
        session = opened(engine, path)
        with pytest.raises(InferenceError):
            session.run([bytes(size)], (shape,))
        assert run(session, np.zeros(shape, np.float32)) == [[1.0] * shape[1]]


def test_outputs_of_a_graph_whose_tensors_move(engine: TfliteEngine) -> None:
    session = opened(engine, DATA / "moving.tflite")
    for turn, count in enumerate((1, 1_000_000, 2, 3_000_000, 1)):
        assert run(session, np.full((1, 4), turn, np.float32), np.array([count], np.int32)) == [[turn + 1.0] * 4]


def test_a_dynamic_shape(engine: TfliteEngine) -> None:  # [P-8]
    session = opened(engine, DATA / "dynamic_batch.tflite")
    for rows in (1, 3, 2):
        assert run(session, np.zeros((rows, 4), np.float32)) == [[1.0] * (rows * 4)]


def test_a_scalar(engine: TfliteEngine) -> None:
    session = opened(engine, DATA / "scalar.tflite")
    for value in (1.0, 2.0):
        assert run(session, np.array(value, np.float32)) == [[value + 1.0]]


def test_memory_is_given_back_when_a_session_closes(engine: TfliteEngine, tmp_path: Path) -> None:  # [U-3]
    (tmp_path / "big.tflite").write_bytes(big(64))

    def resident() -> int:
        give_back()  # as after an unload: malloc may have kept a hole of other tests, which is large enough for these tensors
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    for _ in range(4):
        session = opened(engine, tmp_path / "big.tflite")
        run(session, np.zeros(1, np.float32))
        session.close()
        del session
    assert resident() - before < 64 << 20


def test_an_engine_s_words_are_those_of_one_failure_however_often_it_fails(engine: TfliteEngine) -> None:  # [P-6]
    session = opened(engine, DATA / "look_up.tflite")
    interpreter, renewed, words = session._interpreter, 0, set[str]()
    for _ in range(2500):  # 165,000 characters, which the engine says again and again
        with pytest.raises(InferenceError) as raised:
            run(session, np.array([9], np.int32))
        words.add(str(raised.value))
        renewed += session._interpreter is not interpreter
        interpreter = session._interpreter
    assert len(words) == 1
    assert "gather index out of bound" in words.pop()
    assert renewed == 2
    assert session._said_characters <= MAX_SAID_CHARACTERS + 1000
    assert run(session, np.array([1], np.int32))  # it serves
    session.close()
