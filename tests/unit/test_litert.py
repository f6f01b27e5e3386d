"""LiteRT by its C interface, held beside the interpreter (P-6, P-8, P-9, L-7)."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.arrays import numpy_dtype
from edge.engine import litert
from edge.engine.engine import Engine, Session, SessionOptions
from edge.engine.lending import ALIGNMENT_BYTES, MIN_BYTES, borrowable
from edge.engine.lent_inputs import borrows_well
from edge.engine.litert import LitertEngine
from edge.engine.litert_session import MAX_LENT_PLACES, LitertSession, cleaned
from edge.engine.model_graph import read_graph
from edge.engine.sample_inputs import values
from edge.engine.samples import MADE_UP
from edge.engine.tflite import TfliteEngine
from edge.errors import InferenceError, ModelRefusedError, TargetError, TensorError, UnsupportedModelError
from edge.host.memory import give_back
from edge.tensors import READABLE_BEHIND_BYTES, Data, Lent
from tests.data import hard_models
from tests.data.make_models import add_one, big
from tests.fakes.engines import litert_is_there

pytestmark = pytest.mark.skipif(not litert_is_there(), reason="no LiteRT library is installed for this platform")

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
SERVED = sorted(
    path
    for folder in (DATA, ROOT / "demo" / "data")
    for path in folder.glob("*.tflite")
    if path.stem not in ("string", "complex64", "name_not_utf8")
)
LITERT, INTERPRETER = LitertEngine(), TfliteEngine()
LARGE = (1, MIN_BYTES)

Opened = Callable[..., LitertSession]
Answers = list[tuple[tuple[int, ...], bytes]]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens a model, by its file or its bytes."""

    def open_model(model: bytes | Path, options: SessionOptions = SessionOptions()) -> LitertSession:  # noqa: B008
        if isinstance(model, bytes):
            (tmp_path / "model.tflite").write_bytes(model)
            model = tmp_path / "model.tflite"
        return LITERT.open(str(model), options)

    return open_model


def answers(session: Session, data: Sequence[Data], shapes: tuple[tuple[int, ...], ...] | None = None) -> Answers:
    """The outputs' shapes and bytes."""
    outputs = session.run(data, shapes or tuple(spec.shape for spec in session.inputs))
    return [(tuple(output.shape), bytes(memoryview(output))) for output in outputs]


def numbers(session: Session, *inputs: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> list[list[float]]:
    """The outputs' values."""
    found = answers(session, [array.tobytes() for array in inputs], tuple(array.shape for array in inputs))
    kinds = [numpy_dtype(spec.dtype) for spec in session.outputs]
    return [np.frombuffer(data, kind).tolist() for (_, data), kind in zip(found, kinds, strict=True)]


def of_some(engine: Engine, path: Path) -> tuple[object, list[Answers]]:
    """What a model is to an engine, and what it answers to made-up values, twice each."""
    session = engine.open(str(path), SessionOptions())
    found = [
        answers(session, [values(spec, spec.shape, kind) for spec in session.inputs]) for kind in MADE_UP for _ in "12"
    ]
    return (session.inputs, session.outputs, session.steady), found


@pytest.mark.parametrize("path", SERVED, ids=lambda path: path.stem)
def test_answers_are_the_interpreter_s_to_the_byte(path: Path) -> None:  # [P-9]
    assert of_some(LITERT, path) == of_some(INTERPRETER, path)


@pytest.mark.parametrize("name", ["string", "complex64", "name_not_utf8"])
def test_what_the_api_cannot_carry_is_said_as_the_interpreter_says_it(name: str) -> None:
    said = set()
    for engine in (LITERT, INTERPRETER):
        with pytest.raises(UnsupportedModelError) as raised:
            engine.open(str(DATA / f"{name}.tflite"), SessionOptions())
        said.add(str(raised.value))
    assert len(said) == 1


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (hard_models.counter(), "LiteRT refuses the model file: unsupported"),
        (hard_models.custom("Nobody"), "cannot take input shapes"),
        (add_one((1,) * 9), r"no tensor of shape \[1, 1, 1, 1, 1, 1, 1, 1, 1\]"),
        (add_one((0, 4)), r"no tensor of shape \[0, 4\]"),
        (b"no model", "it is not a TensorFlow Lite model"),
    ],
    ids=["variable", "custom", "rank 9", "empty", "none"],
)
def test_what_it_does_not_take_is_refused(opened: Opened, model: bytes, words: str) -> None:  # [L-7]
    with pytest.raises(ModelRefusedError, match=words):
        opened(model)


@pytest.mark.parametrize("model", [hard_models.fill(), hard_models.where_zero()], ids=["fill", "where"])
def test_an_output_of_unknown_size_fails(opened: Opened, model: bytes) -> None:
    session = opened(model)
    for _ in range(2):
        with pytest.raises(InferenceError, match="was not true"):
            answers(session, [values(spec, spec.shape, "ones") for spec in session.inputs])


def test_shapes_are_chosen_call_by_call(opened: Opened) -> None:  # [P-8]
    session = opened(DATA / "dynamic_batch.tflite")
    for rows in (1, 3, 2, 700, 1):
        assert numbers(session, np.full((rows, 4), rows, np.float32)) == [[rows + 1.0] * (rows * 4)]
        assert session.run([bytes(16 * rows)], ((rows, 4),))[0].shape == (rows, 4)


def test_shapes_that_do_not_fit_leave_the_session_fit_for_others(opened: Opened) -> None:  # [P-8]
    session = opened(hard_models.convolution(1), SessionOptions(allocate=False))
    for side in (2, 5, 1, 0, 4):
        image = np.ones((1, side, side, 3), np.float32)
        if side < 3:
            with pytest.raises(TensorError, match=rf"cannot take input shapes \[1, {side}, {side}, 3\]"):
                numbers(session, image)
        else:
            assert numbers(session, image) == [[27.0] * (2 * (side - 2) ** 2)]


def test_a_failed_inference_leaves_the_session_fit_for_the_next(opened: Opened) -> None:  # [P-6]
    session = opened(DATA / "look_up.tflite")
    said = set()
    for _ in range(300):
        with pytest.raises(InferenceError) as raised:
            numbers(session, np.array([99], np.int32))
        said.add(str(raised.value))
        assert numbers(session, np.array([3], np.int32)) == [[13]]
    assert len(said) == 1  # nothing is carried along
    assert "gather index out of bound" in said.pop().lower()


def test_its_words_come_without_places_in_its_sources() -> None:
    assert (
        cleaned("tflite/kernels/div.cc:262 d != 0 was not true.\nNode 0 failed.\n")
        == "d != 0 was not true.; Node 0 failed."
    )


@pytest.mark.parametrize("size", [0, 1, 15, 17])
def test_too_little_or_too_much_data_is_refused(opened: Opened, size: int) -> None:
    for model, shape in ((add_one((1, 4)), (1, 4)), (add_one(LARGE), LARGE)):
        session = opened(model)
        with pytest.raises(InferenceError):
            session.run([bytes(size)], (shape,))
        assert numbers(session, np.zeros(shape, np.float32)) == [[1.0] * shape[1]]


def test_signatures_are_called_by_their_keys(opened: Opened) -> None:
    model = hard_models.signatures(several=True)
    a, b = np.array([1, 1], np.float32), np.array([5, 7], np.float32)
    assert numbers(opened(model), a, b) == numbers(opened(model, SessionOptions(signature="serve")), a, b) == [[4, 6]]
    twice = opened(model, SessionOptions(signature="twice", signature_names=True))
    assert ([spec.name for spec in twice.inputs], [spec.name for spec in twice.outputs]) == (["value"], ["doubled"])
    assert numbers(twice, b) == [[10, 14]]
    with pytest.raises(UnsupportedModelError, match="no signature 'x'"):
        opened(model, SessionOptions(signature="x"))


def test_an_output_may_be_there_twice_or_be_an_input(opened: Opened) -> None:
    assert numbers(opened(hard_models.same_output_twice()), np.array([1, 2], np.float32)) == [[2, 3], [2, 3]]


def test_what_a_model_keeps_is_forgotten_on_reset(opened: Opened) -> None:
    session = opened(hard_models.accumulator(), SessionOptions(keeps_state=True))
    one = np.ones(1, np.float32)
    assert [numbers(session, one) for _ in range(3)] == [[[1]], [[2]], [[3]]]
    session.reset()
    assert [numbers(session, one) for _ in range(2)] == [[[1]], [[2]]]


def lent(data: bytes, offset: int = 0) -> Lent:
    """Bytes at an offset from an aligned place, in memory that lives as long as the process."""
    block = np.zeros(len(data) + READABLE_BEHIND_BYTES + ALIGNMENT_BYTES, np.uint8)
    _KEPT.append(block)
    start = -block.ctypes.data % ALIGNMENT_BYTES + offset
    memory = block[start : start + len(data)]
    memory[:] = np.frombuffer(data, np.uint8)
    return Lent(memory.data, memory.ctypes.data)


_KEPT: list[object] = []


def test_a_lent_input_is_read_where_it_is(opened: Opened) -> None:  # ADR 19
    model = add_one(LARGE)
    assert borrowable(read_graph(memoryview(model), 0)) == (0,)
    session = opened(model, SessionOptions(borrows=(0,)))
    zeros = bytes(4 * LARGE[1])
    assert session.borrows == {0} and borrows_well(session, [zeros], session.run([zeros], (LARGE,)))
    for turn in range(2 * MAX_LENT_PLACES):  # more places than are remembered
        data = np.full(LARGE, turn, np.float32)
        for offset in (0, 4):  # the second is copied
            assert numbers_of(session, lent(data.tobytes(), offset)) == [turn + 1.0] * LARGE[1]
        assert numbers_of(session, zeros) == [1.0] * LARGE[1]
    with pytest.raises(InferenceError):
        session.run([lent(bytes(64))], (LARGE,))
    _KEPT.clear()


def numbers_of(session: Session, data: Data) -> list[float]:
    ((_, answer),) = answers(session, [data])
    return np.frombuffer(answer, np.float32).tolist()


def test_an_input_is_lent_only_where_the_trial_said_so(opened: Opened) -> None:
    assert not opened(add_one(LARGE)).borrows


def test_memory_is_given_back_when_a_session_closes(opened: Opened) -> None:  # [U-3]
    model = big(64)

    def resident() -> int:
        give_back()  # as after an unload: malloc may have kept a hole of other tests, which is large enough for these tensors
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    for _ in range(4):
        session = opened(model)
        numbers(session, np.zeros(1, np.float32))
        session.close()
        session.close()
    assert resident() - before < 64 << 20


def test_a_session_that_nobody_closed_is_closed(opened: Opened) -> None:
    session = opened(add_one())
    compiled = session.compiled
    del session
    assert not compiled.handle


def test_it_needs_no_numpy() -> None:
    code = (
        "import sys; from edge.engine.engines import Engines; from edge.engine.engine import SessionOptions as O;"
        "from edge.engine.sample_inputs import SampleInputs; from edge.engine.samples import Sample;"
        "e = Engines('litert'); e.prepare(); s = e.open(sys.argv[1], O(engine='litert'));"
        "SampleInputs(s.inputs, Sample()).run(s, 'ones'); print('numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(DATA / "add_one.tflite")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("library", "release", "words"),
    [
        ("nowhere.so", "2.3.0", r"nowhere.so\) is not installed; ai-edge-litert 2.3 has it"),
        (litert.LIBRARY, "2.1.5", "is of ai-edge-litert 2.1.5; this agent needs 2.3"),
        (litert.LIBRARY, "2.30.0", "is of ai-edge-litert 2.30.0; this agent needs 2.3"),
        (litert.LIBRARY, "", "is of ai-edge-litert unknown"),
        ("interpreter.py", "2.3.0", "cannot be loaded: .*interpreter.py"),
    ],
)
def test_a_library_that_is_not_the_one_is_not_used(  # [L-5]
    monkeypatch: pytest.MonkeyPatch, library: str, release: str, words: str
) -> None:
    monkeypatch.setattr(litert, "LIBRARY", library)
    monkeypatch.setattr(litert, "_installed", lambda: release)
    with pytest.raises(TargetError, match=words):
        LitertEngine().prepare()
