"""What a Predict leaves behind when it fails after the inference (P-6)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.clock import SystemClock
from edge.engine.engine import SessionOptions
from edge.engine.tflite import TfliteEngine
from edge.errors import ModelNotFoundError, QueueFullError
from edge.rpc._generated import agent_pb2 as pb
from edge.rpc.codec import ResponseEncoder
from edge.rpc.plans import Plan
from edge.rpc.servicer import Servicer
from edge.serving.binding import InputBinder
from edge.serving.remarks import Remarks
from edge.serving.scheduler import Scheduler
from edge.shm.sysv import SegmentReader

DATA = Path(__file__).parents[1] / "data"


class Caller:
    def time_remaining(self) -> float | None:
        return None

    def step_aside(self) -> bool:
        """Nobody else is served here."""
        return True

    def after_answer(self, callback: Callable[[], None]) -> None:
        callback()

    def add_callback(self, callback: object) -> bool:
        return True


@pytest.fixture
def servicer() -> Iterator[Servicer]:
    session = TfliteEngine().open(str(DATA / "dynamic_batch.tflite"), SessionOptions())
    scheduler = Scheduler("m", [session], queue_calls=1, clock=SystemClock())
    model = SimpleNamespace(
        name="m",
        binder=InputBinder(session.inputs),
        inputs=session.inputs,
        outputs=session.outputs,
        scheduler=scheduler,
        remarks=Remarks("m"),
        shape_trials=None,
    )

    class Models:
        def on_gone(self, callback: object) -> None:
            """None goes here."""

        def get(self, name: str) -> Any:
            if name != "m" or scheduler.closing:
                raise ModelNotFoundError(name)
            return model

    reader = SegmentReader(SystemClock())
    made: Any = Servicer(Models(), None, reader, models=None, max_message_bytes=1 << 20, describe=dict, regions=None)  # type: ignore[arg-type]
    made.scheduler = scheduler
    yield made
    scheduler.drain()
    reader.close()


def request(rows: int) -> bytes:
    metadata = pb.TensorMetadata(name="x", data_type=pb.FLOAT32, shape=(rows, 4))
    return pb.PredictRequest(
        name="m", tensors=[pb.Tensor(tensor_metadata=metadata, byte_data=bytes(16 * rows))]
    ).SerializeToString()


def test_no_call_waits_for_a_model_on_the_last_thread(servicer: Servicer) -> None:  # [P-5]
    class Last(Caller):
        def step_aside(self) -> bool:
            return False

    scheduler: Scheduler = servicer.scheduler  # type: ignore[attr-defined]
    seat = scheduler.acquire(Caller())
    with pytest.raises(QueueFullError, match="no thread is left"):
        servicer.predict(request(1), Last())
    assert not scheduler.waiting
    scheduler.release(seat, done=None)
    assert servicer.predict(request(1), Last())


def test_an_answer_that_cannot_be_built_costs_the_next_call_nothing(
    servicer: Servicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: object, outputs: Any) -> bytes:
        held = [memoryview(output) for output in outputs]
        raise MemoryError(len(held))

    with monkeypatch.context() as patch:
        patch.setattr(ResponseEncoder, "encode", fails)
        with pytest.raises(MemoryError) as kept:
            servicer.predict(request(3), Caller())
    # The error, and with it its traceback, is alive while others call.
    for rows in (3, 1, 2):
        answer = pb.PredictResponse.FromString(servicer.predict(request(rows), Caller()))
        assert list(answer.tensors[0].tensor_metadata.shape) == [rows, 4]
    assert kept.value.args == (1,)


def test_a_request_that_cannot_be_read_costs_the_next_call_nothing(
    servicer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: object, raw: bytes) -> Any:
        raise MemoryError

    for quick in (False, True):
        servicer.scheduler.quick = quick
        with monkeypatch.context() as patch:
            patch.setattr(Plan, "data", fails)
            with pytest.raises(MemoryError):
                servicer.predict(request(1), Caller())
        assert servicer.predict(request(1), Caller())


def test_a_model_that_goes_is_gone_for_known_requests_too(servicer: Any) -> None:  # [U-2]
    for _ in range(2):
        servicer.predict(request(1), Caller())
    servicer.scheduler.close()
    with pytest.raises(ModelNotFoundError):
        servicer.predict(request(1), Caller())
