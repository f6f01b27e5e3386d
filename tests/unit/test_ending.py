"""An inference ends with its call, or when it is stuck, and leaves nothing to the next one (P-19, P-20)."""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from edge.clock import SystemClock
from edge.engine.engine import Session as EngineSession
from edge.engine.engine import SessionOptions
from edge.engine.litert import LitertEngine
from edge.engine.tflite import TfliteEngine
from edge.errors import CallEndedError, DeadlineError, InferenceEndedError, StuckError
from edge.rpc import status
from edge.serving.caller import Nobody
from edge.serving.scheduler import Scheduler, Seat
from tests.data import hard_models
from tests.fakes.engines import litert_is_there
from tests.system.harness import eventually

with_litert = pytest.mark.skipif(not litert_is_there(), reason="no LiteRT library is installed for this platform")

FOR_EVER, SHORT = 0, 3  # steps up to 10
SHAPES = ((1,),)


class At:
    """A clock that a test sets."""

    seconds = 1.0

    def monotonic(self) -> float:
        return self.seconds


class Session:
    """What the scheduler asks of one: whether it is told to end."""

    inputs = outputs = ()
    steady = False
    ending = False

    def __init__(self, *, can_end: bool = True) -> None:
        self.can_end = can_end

    def end(self) -> bool:
        self.ending = self.can_end
        return self.can_end

    def may_run(self) -> None:
        self.ending = False

    def close(self) -> None:
        pass


class Caller(Nobody):
    """A call that a test ends."""

    def __init__(self, remaining: float | None = None, *, over: bool = False) -> None:
        self.remaining, self.over = remaining, over
        self.end: Callable[[], None] = lambda: None

    def time_remaining(self) -> float | None:  # type: ignore[override]
        return self.remaining

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.end = callback
        return not self.over


def scheduler(*sessions: object, clock: At | None = None, keeps_state: bool = False) -> Scheduler:
    return Scheduler(
        "m",
        sessions or (Session(),),  # type: ignore[arg-type]
        queue_calls=4,
        clock=clock or At(),  # type: ignore[arg-type]
        keeps_state=keeps_state,
    )


def seated(target: Scheduler, caller: Caller) -> Seat:
    seat = target.acquire(caller)
    target.end_with(seat, caller)
    return seat


@pytest.mark.parametrize(
    ("remaining", "ran", "error", "code"),
    [
        (None, 2.0, CallEndedError, "CANCELLED"),
        (1.0, 2.0, CallEndedError, "CANCELLED"),
        (0.0, 2.0, DeadlineError, "DEADLINE_EXCEEDED"),
        (0.04, 2.0, DeadlineError, "DEADLINE_EXCEEDED"),  # the client's clock began to run before the agent's
        (0.9, 60.0, DeadlineError, "DEADLINE_EXCEEDED"),  # and a long time is told in few digits
    ],
)
def test_what_a_call_is_told(
    remaining: float | None, ran: float, error: type[Exception], code: str, caplog: pytest.LogCaptureFixture
) -> None:  # [P-19]
    caplog.set_level(logging.INFO, "edge.serving.scheduler")
    clock, session = At(), Session()
    target, caller = scheduler(session, clock=clock), Caller(remaining)
    seat = seated(target, caller)
    clock.seconds += ran
    caller.end()
    assert session.ending
    why = target.why_ended(seat, caller)
    assert type(why) is error and status.name_of(why) == code
    assert f"its inference on model 'm' was ended after {ran:.3g} s" in str(why)
    assert [record.getMessage() for record in caplog.records] == [str(why)]
    assert target.ended.counts() == {
        "cancelled": int(code == "CANCELLED"),
        "deadline": int(code != "CANCELLED"),
        "stuck": 0,
    }
    target.release(seat, done=False)
    assert not session.ending


def test_a_call_that_is_over_before_its_inference_begins() -> None:  # [P-19]
    session = Session()
    target = scheduler(session)
    seat = seated(target, Caller(over=True))
    assert session.ending
    target.release(seat, done=False)
    assert not session.ending


def test_a_call_that_ends_late_touches_no_other() -> None:  # [P-19]
    session = Session()
    target, first, second = scheduler(session), Caller(), Caller()
    target.release(seated(target, first), done=True)
    first.end()
    assert not session.ending
    seat = seated(target, second)
    first.end()
    assert not session.ending
    second.end()
    assert session.ending
    target.release(seat, done=True)  # it was through before it saw that
    assert not session.ending
    seat = seated(target, Caller())
    second.end()
    assert not session.ending
    target.release(seat, done=True)


def test_a_state_that_is_everybodys_is_not_left_half_made() -> None:  # [P-19] [P-16]
    session, caller = Session(), Caller()
    target = scheduler(session, keeps_state=True)
    seat = seated(target, caller)
    caller.end()
    assert not session.ending
    target.release(seat, done=True)


def test_an_inference_that_is_stuck(caplog: pytest.LogCaptureFixture) -> None:  # [P-20]
    clock, session = At(), Session()
    target = scheduler(session, clock=clock, keeps_state=True)
    seat = target.acquire(Caller())
    clock.seconds += 60
    assert target.end_stuck(60) == 0
    assert not session.ending
    clock.seconds += 1
    assert target.end_stuck(60) == 0  # it was told only now
    assert session.ending
    assert [record.getMessage() for record in caplog.records] == [
        "model m: an inference is ended that has been running for 61 s, longer than edge_inference_stuck_seconds (60)"
    ]
    why = target.why_ended(seat, Caller(0.0))
    assert type(why) is StuckError and status.name_of(why) == "DEADLINE_EXCEEDED"
    assert "was ended after 61 s" in str(why) and "edge_inference_stuck_seconds" in str(why)
    clock.seconds += 10
    assert target.end_stuck(60) == 71  # it does not end
    target.release(seat, done=False)
    assert not session.ending and target.end_stuck(60) == 0
    assert target.ended.counts()["stuck"] == 1


def test_one_that_does_not_end_with_its_call_is_stuck_as_well() -> None:  # [P-20]
    clock, session = At(), Session()
    target, caller = scheduler(session, clock=clock), Caller()
    seat = seated(target, caller)
    caller.end()
    clock.seconds += 61
    assert target.end_stuck(60) == 0
    clock.seconds += 1
    assert target.end_stuck(60) == 62
    target.release(seat, done=False)


def test_an_engine_that_cannot_end_an_inference() -> None:  # [P-19] [P-20]
    clock, session = At(), Session(can_end=False)
    target, caller = scheduler(session, clock=clock), Caller()
    seat = seated(target, caller)
    caller.end()
    clock.seconds += 61
    assert target.end_stuck(60) == 61
    target.release(seat, done=True)


@pytest.mark.parametrize("steady", [True, False])
def test_who_is_left_to_end_by_himself(steady: bool) -> None:  # [P-19]
    clock, session = At(), Session()
    session.steady = steady
    target = scheduler(session, clock=clock)
    last = 1.0  # seconds, of the inference before
    for took in (0.05, 0.2, 0.05):
        caller = Caller()
        seat = seated(target, caller)
        caller.end()
        assert session.ending is (last > 0.1 or not steady)
        clock.seconds += took
        target.release(seat, done=True)
        last = took


# --- with the engine ---------------------------------------------------------


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[EngineSession]:
    """A model that goes on for ever on 0."""
    path = tmp_path / "endless.tflite"
    path.write_bytes(hard_models.endless_on_zeros())
    session = LitertEngine().open(str(path), SessionOptions())
    yield session
    session.close()


def run(session: EngineSession, step: int) -> int:
    (output,) = session.run([np.asarray([step], np.int32).tobytes()], SHAPES)
    return int(np.frombuffer(memoryview(output), np.int32)[0])


@with_litert
def test_a_loop_is_ended_and_the_session_answers_as_before(endless: EngineSession, tmp_path: Path) -> None:  # [P-19]
    bare = TfliteEngine().open(str(tmp_path / "endless.tflite"), SessionOptions())
    right = [run(bare, step) for step in range(1, 12)]

    def end_soon() -> None:
        begun = time.process_time()
        eventually(lambda: time.process_time() > begun + 0.02, what="the loop has begun")
        endless.end()

    for turn in range(5):
        ender = threading.Thread(target=end_soon)
        ender.start()
        with pytest.raises(InferenceEndedError):
            run(endless, FOR_EVER)
        ender.join(30)
        with pytest.raises(InferenceEndedError):  # until it may run again
            run(endless, SHORT)
        endless.may_run()
        assert [run(endless, step) for step in range(1, 12)] == right, turn
    bare.close()


@with_litert
def test_an_inference_that_ends_just_as_its_call_does(endless: EngineSession) -> None:  # [P-19]
    """Calls end at any moment of their inferences, and later: nothing but their own inferences ever notices."""
    target = Scheduler("m", [endless], queue_calls=1, clock=SystemClock())
    begun = SimpleQueue[
        Callable[[], None] | None
    ]()  # not looked at again and again: that would keep the interpreter lock
    past: deque[Callable[[], None]] = deque(maxlen=4)

    def end_them() -> None:
        while (end := begun.get()) is not None:
            end()
            past.append(end)
            for one in past:
                one()

    ender = threading.Thread(target=end_them)
    ender.start()
    ended = 0
    try:
        for number in itertools.count():
            if number > 3000 and ended:
                break
            caller = Caller()
            seat = target.acquire(caller)
            lives = number % 2  # its call does not end, while those before it do
            if not lives:
                target.end_with(seat, caller)
                begun.put(caller.end)
            try:
                assert run(endless, 1) == 10
            except InferenceEndedError:
                assert not lives, f"call {number} was ended by another"
                ended += 1
            finally:
                target.release(seat, done=True)
    finally:
        begun.put(None)
        ender.join(30)
    assert run(endless, SHORT) == 12


@with_litert
def test_what_is_kept_starts_anew(tmp_path: Path) -> None:  # [P-16] [P-20]
    path = tmp_path / "sum.tflite"
    path.write_bytes(hard_models.accumulator())
    session = LitertEngine().open(str(path), SessionOptions(keeps_state=True))

    def add(value: float) -> float:
        (output,) = session.run([np.asarray([value], np.float32).tobytes()], SHAPES)
        return float(np.frombuffer(memoryview(output), np.float32)[0])

    assert [add(1), add(2)] == [1, 3]
    session.end()
    with pytest.raises(InferenceEndedError):
        add(4)
    session.may_run()
    assert [add(1), add(2)] == [1, 3]
    session.close()


def test_the_interpreter_cannot(tmp_path: Path) -> None:
    path = tmp_path / "endless.tflite"
    path.write_bytes(hard_models.endless_on_zeros())
    session = TfliteEngine().open(str(path), SessionOptions())
    assert not session.end()
    session.may_run()
    assert run(session, SHORT) == 12
    session.close()
