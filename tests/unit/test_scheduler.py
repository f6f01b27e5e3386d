"""The queue before a model: bounded, fair, and honest about deadlines (P-4, P-5, P-10, U-2)."""

import threading
from collections.abc import Callable

import pytest

from edge.clock import SystemClock
from edge.errors import CallEndedError, DeadlineError, ModelNotFoundError, QueueFullError
from edge.serving.scheduler import Scheduler
from tests.system.harness import eventually


class Session:
    inputs = outputs = ()
    closed = False
    steady = True

    def run(self, values: object) -> list[object]:
        return []

    def close(self) -> None:
        self.closed = True


class Caller:
    """A call with a deadline that a test can end."""

    def __init__(self, remaining: float | None = None, active: bool = True) -> None:
        self.remaining, self.active = remaining, active
        self.end: Callable[[], None] = lambda: None
        self.waits = threading.Event()

    def time_remaining(self) -> float | None:
        return self.remaining

    def step_aside(self) -> bool:
        """Nobody else is served here."""
        return True

    def after_answer(self, callback: Callable[[], None]) -> None:
        callback()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.end = callback
        self.waits.set()
        return self.active


def scheduler(sessions: int = 1, queue: int = 2) -> Scheduler:
    return Scheduler("m", [Session() for _ in range(sessions)], queue_calls=queue, clock=SystemClock())


class Call(threading.Thread):
    """A call on a thread of its own; it stays in the engine until told."""

    def __init__(self, target: Scheduler, log: list[str], name: str, caller: Caller | None = None) -> None:
        super().__init__(name=name)
        self.target, self.log, self.caller = target, log, caller or Caller()
        self.inside, self.leave = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with self.target.session(self.caller):
                self.log.append(self.name)
                self.inside.set()
                self.leave.wait(30)
        except Exception as error:
            self.error = error

    def waiting(self) -> "Call":
        self.start()
        assert self.caller.waits.wait(30)
        return self

    def running(self) -> "Call":
        self.start()
        assert self.inside.wait(30)
        return self


def test_first_come_first_served() -> None:  # [P-4]
    log: list[str] = []
    target = scheduler()
    first = Call(target, log, "1").running()
    second = Call(target, log, "2").waiting()
    third = Call(target, log, "3").waiting()
    for call in (first, second, third):
        call.leave.set()
        call.join(30)
    assert log == ["1", "2", "3"]
    assert target.predicted == 3


def test_a_full_queue_refuses() -> None:  # [P-4]
    log: list[str] = []
    target = scheduler(queue=1)
    calls = [Call(target, log, "1").running(), Call(target, log, "2").waiting()]
    with pytest.raises(QueueFullError, match="1 calls are running and 1 are waiting"), target.session(Caller()):
        pass
    for call in calls:
        call.leave.set()
        call.join(30)


def test_instances_run_at_the_same_time() -> None:  # [P-10]
    log: list[str] = []
    target = scheduler(sessions=2)
    calls = [Call(target, log, "1").running(), Call(target, log, "2").running()]
    assert target.running == 2
    for call in calls:
        call.leave.set()
        call.join(30)


def test_a_deadline_that_passes_while_waiting_is_not_run() -> None:  # [P-5]
    log: list[str] = []
    target = scheduler()
    first = Call(target, log, "1").running()
    late = Call(target, log, "2", Caller(remaining=0.0)).waiting()
    late.join(30)
    assert isinstance(late.error, DeadlineError)
    assert target.waiting == 0
    first.leave.set()
    first.join(30)
    assert log == ["1"]


def test_a_call_that_went_away_frees_its_place() -> None:  # [P-5]
    log: list[str] = []
    target = scheduler()
    first = Call(target, log, "1").running()
    gone = Call(target, log, "2").waiting()
    gone.caller.end()
    gone.join(30)
    assert isinstance(gone.error, CallEndedError)
    already = Call(target, log, "3", Caller(active=False)).waiting()
    already.join(30)
    assert isinstance(already.error, CallEndedError)
    first.leave.set()
    first.join(30)
    assert log == ["1"]


def test_drain_lets_running_and_waiting_calls_finish() -> None:  # [U-2]
    log: list[str] = []
    target = scheduler()
    first = Call(target, log, "1").running()
    second = Call(target, log, "2").waiting()
    drain = threading.Thread(target=target.drain)
    drain.start()
    eventually(lambda: target.closing, what="it drains")
    first.leave.set()
    assert second.inside.wait(30)
    with pytest.raises(ModelNotFoundError), target.session(Caller()):
        pass
    assert drain.is_alive()
    second.leave.set()
    for thread in (first, second, drain):
        thread.join(30)
    assert log == ["1", "2"]


def test_a_failing_call_gives_its_session_back() -> None:
    target = scheduler()
    with pytest.raises(RuntimeError), target.session(Caller()):
        raise RuntimeError
    with target.session(Caller(), counts=False):
        pass
    assert target.predicted == 0
    with target.session(Caller()):
        assert target.running == 1
    assert target.predicted == 1


class At:
    """A clock that a test sets."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.mark.parametrize("steady", [True, False])
def test_a_model_is_quick_once_it_was_and_its_time_is_steady(steady: bool) -> None:
    clock, session = At(), Session()
    session.steady = steady
    target = Scheduler("m", [session], queue_calls=1, clock=clock)  # type: ignore[arg-type, list-item]
    assert not target.quick
    for took, quick in ((0.0001, True), (0.01, False), (0.0005, True)):
        with target.session(Caller()):
            clock.seconds += took
        assert target.quick is (quick and steady)
