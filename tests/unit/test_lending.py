"""Inputs that an inference reads where a client has them (ADR 19): which those are, and that it changes no answer (P-9, P-11)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from edge.clock import SystemClock
from edge.engine import engine, lent_inputs, trial
from edge.engine.child import Voice
from edge.engine.engine import SessionOptions
from edge.engine.lending import ALIGNMENT_BYTES, MIN_BYTES, borrowable
from edge.engine.lent_inputs import borrows_well
from edge.engine.litert import LitertEngine
from edge.engine.litert_session import LitertSession
from edge.engine.model_graph import read_graph
from edge.engine.probe import task_of
from edge.engine.samples import MADE_UP, Sample
from edge.errors import InferenceError, MemoryLimitError
from edge.shm.sysv import SegmentReader
from edge.tensors import Data, Lent, byte_count
from tests.data.make_models import add_one, identity
from tests.data.tflite_writer import Model, Op, i32, u8
from tests.fakes.engines import litert_is_there
from tests.system.segments import Segment

needs_litert = pytest.mark.skipif(not litert_is_there(), reason="no LiteRT library is installed for this platform")
LITERT = LitertEngine()
COUNT = MIN_BYTES // 4
SHAPE = (1, COUNT)
RAMP = np.arange(COUNT, dtype=np.float32)


def look_up(*, borrow: bool) -> bytes:
    """`values` are the entries `index` of `table`; one of the two is as large as what is borrowed."""
    model = Model()
    graph = model.graph()
    rows, indices = (COUNT, 1) if borrow else (4, COUNT)
    table, index = graph.tensor("table", np.float32, [rows]), graph.tensor("index", np.int32, [indices])
    values = graph.tensor("values", np.float32, [indices])
    graph.op(Op.GATHER, [table, index], [values], {0: i32(0)})
    graph.ends([table, index], [values])
    return model.to_bytes()


def returned() -> bytes:
    """`y` is `x` + 1, and `x` is an output as well."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, SHAPE), graph.tensor("y", np.float32, SHAPE)
    graph.op(Op.ADD, [x, graph.constant("one", np.float32(1))], [y])
    graph.ends([x], [x, y])
    return model.to_bytes()


def convolution() -> bytes:
    """A vectorised operator, which reads past the end of its input: [1, 64, 64, 1], just four pages."""
    model = Model()
    graph = model.graph()
    x, y = graph.tensor("x", np.float32, [1, 64, 64, 1]), graph.tensor("y", np.float32, [1, 64, 64, 8])
    weights = graph.constant("weights", np.random.default_rng(1).random((8, 3, 3, 1), np.float32))
    bias = graph.constant("bias", np.zeros(8, np.float32))
    graph.op(Op.CONV_2D, [x, weights, bias], [y], {0: u8(0), 1: i32(1), 2: i32(1), 3: u8(0)})
    graph.ends([x], [y])
    return model.to_bytes()


@pytest.fixture
def open_model(tmp_path: Path) -> Any:
    def opened(model: bytes, borrows: tuple[int, ...] = (0,)) -> LitertSession:
        path = tmp_path / "model.tflite"
        path.write_bytes(model)
        return LITERT.open(str(path), SessionOptions(borrows=borrows))

    return opened


Lend = Callable[..., Lent]


@pytest.fixture
def lend() -> Iterator[Lend]:
    """Puts bytes into a segment and lends it, as the agent is lent a client's."""
    reader, attached = SegmentReader(SystemClock()), []

    def lent(segment: Segment, data: bytes, offset: int = 0) -> Lent:
        segment.set_mode(0o600).write(data, offset).set_mode(0o400)
        attached.append(reader.take(segment.id, offset, len(data)))
        memory = attached[-1].data(offset, len(data))
        assert isinstance(memory, Lent)
        return memory

    yield lent
    for attachment in attached:
        reader.give_back(attachment)
    reader.close()


def answer(session: LitertSession, *data: Data) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    outputs = session.run(list(data), tuple(spec.shape for spec in session.inputs))
    return np.frombuffer(bytes(memoryview(outputs[-1])), np.float32)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (add_one(SHAPE), (0,)),
        (add_one((1, COUNT - 1)), ()),  # copied sooner than lent
        (identity("float32", SHAPE), ()),  # a reshape may hand its input on
        (look_up(borrow=True), (0,)),
        (look_up(borrow=False), ()),  # what are indices must not change
        (returned(), ()),
        (convolution(), (0,)),
    ],
    ids=["sum", "small", "reshape", "table", "indices", "returned", "convolution"],
)
def test_inputs_that_may_be_borrowed(model: bytes, expected: tuple[int, ...]) -> None:
    assert borrowable(read_graph(memoryview(model), 0)) == expected


@needs_litert
@pytest.mark.parametrize("model", [add_one(SHAPE), convolution()], ids=["sum", "convolution"])
def test_the_answer_is_that_of_copied_inputs(open_model: Any, lend: Lend, model: bytes) -> None:  # [P-9]
    session, copying = open_model(model), open_model(model, ())
    assert (session.borrows, copying.borrows) == ({0}, set())
    size = session.inputs[0].byte_count
    with Segment(size) as segment:  # so that nothing of it lies behind the input
        for seed in range(3):
            data = np.random.default_rng(seed).random(size // 4, np.float32).tobytes()
            expected = answer(copying, data)
            assert np.array_equal(answer(session, lend(segment, data)), expected)
            assert np.array_equal(answer(session, data), expected)
            assert np.array_equal(answer(copying, lend(segment, data)), expected)


@needs_litert
def test_what_is_lent_is_not_copied(open_model: Any, lend: Lend) -> None:
    session = open_model(add_one(SHAPE))
    answer(session, bytes(MIN_BYTES))
    with Segment(MIN_BYTES) as segment:
        answer(session, lend(segment, RAMP.tobytes()))
    assert not any(session._tensors[0].memory)


@needs_litert
@pytest.mark.parametrize("offset", [0, ALIGNMENT_BYTES, 4, 1])
def test_an_input_is_taken_from_anywhere_in_a_segment(  # [P-11]
    open_model: Any, lend: Lend, offset: int
) -> None:
    session = open_model(add_one(SHAPE))
    with Segment(MIN_BYTES + 100) as segment:
        for round_number in range(3):
            data = RAMP + round_number
            assert np.array_equal(answer(session, lend(segment, data.tobytes(), offset)), data + 1)


@needs_litert
def test_nothing_is_borrowed_for_longer_than_an_inference(open_model: Any, lend: Lend) -> None:  # [P-9]
    session = open_model(look_up(borrow=True))
    first = np.zeros(1, np.int32).tobytes()
    with Segment(MIN_BYTES) as segment:
        lent = lend(segment, (RAMP + 7).tobytes())
        assert answer(session, lent, first) == 7
        with pytest.raises(InferenceError):
            answer(session, lent, np.array([COUNT], np.int32).tobytes())
    assert answer(session, (RAMP + 9).tobytes(), first) == 9


@needs_litert
def test_too_little_lent_data_is_refused(open_model: Any) -> None:
    session = open_model(add_one(SHAPE))
    with pytest.raises(InferenceError):
        session.run([Lent(memoryview(b"1234"), 0)], (SHAPE,))
    assert np.array_equal(answer(session, RAMP.tobytes()), RAMP + 1)


@needs_litert
def test_the_trial_compares_lent_and_copied(open_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(session: Any) -> bool:
        data = [bytes(byte_count(spec.dtype, spec.shape)) for spec in session.inputs]
        return borrows_well(session, data, session.run(data, tuple(spec.shape for spec in session.inputs)))

    assert tried(open_model(add_one(SHAPE)))
    assert tried(open_model(look_up(borrow=True)))
    monkeypatch.setattr(lent_inputs, "_read_only", lambda data: bytes(len(data)))
    assert not tried(open_model(add_one(SHAPE)))


@needs_litert
@pytest.mark.parametrize("error", [InferenceError("no"), MemoryLimitError("no"), OSError("no")])
def test_a_failure_while_inputs_are_lent_costs_the_lending_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> bool:
        raise error

    (tmp_path / "model").write_bytes(add_one(SHAPE))
    said: list[Any] = []
    with (tmp_path / "model").open("rb") as file:
        task = task_of(file.fileno(), SessionOptions(), Sample(), MADE_UP, engines=(engine.LITERT,), lends=True)
        assert trial.Trial(task, cast(Voice, SimpleNamespace(say=said.append))).first_that_serves().borrows == (0,)
        monkeypatch.setattr(trial, "borrows_well", fail)
        found = trial.Trial(task, cast(Voice, SimpleNamespace(say=said.append))).first_that_serves()
    assert (found.kind, found.borrows) == ("zeros", ()) and [one["step"] for one in said][-2:] == ["lending", "closing"]
