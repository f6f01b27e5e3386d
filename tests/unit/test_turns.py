"""The threads of the serving loop: who waits, who works, who ends."""

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from edge.clock import SystemClock
from edge.rpc import turns as turns_module
from edge.rpc.turns import MAX_PARKED, Turns
from tests.system.harness import eventually

TIMEOUT_SECONDS = 30


class Loop:
    """Events that are jobs; None is the end of all. Each job is done after its thread gave its turn up."""

    def __init__(self) -> None:
        self.events: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.waiting: list[str] = []
        self.most_waiting = 0
        self.turns = Turns(self._wait, name="loop")

    def _wait(self) -> bool:
        self.waiting.append(threading.current_thread().name)
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        job = self.events.get()
        self.waiting.remove(threading.current_thread().name)
        if job is None:
            self.put(None)
            return True
        self.turns.give_away()
        job()
        return False

    def put(self, job: Callable[[], None] | None) -> None:
        self.events.put(job)

    def start(self) -> None:
        self.turns.start()

    def settled(self, threads: int) -> bool:
        """Whether so many threads are left, one of which waits."""
        return len(self.turns.threads) == threads and len(self.waiting) == 1

    def end(self) -> None:
        self.put(None)
        self.turns.join(TIMEOUT_SECONDS, SystemClock())
        assert not any(thread.is_alive() for thread in self.turns.threads)


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    made.start()
    yield made
    made.end()


class Blocking:
    """A job that lasts until it is let go."""

    def __init__(self) -> None:
        self.inside, self.leave = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.inside.set()
        assert self.leave.wait(TIMEOUT_SECONDS)


def begin(loop: Loop, count: int) -> list[Blocking]:
    jobs = [Blocking() for _ in range(count)]
    for job in jobs:
        loop.put(job)
        assert job.inside.wait(TIMEOUT_SECONDS)
    return jobs


def test_one_waits_while_others_work(loop: Loop) -> None:
    jobs = begin(loop, 3)
    eventually(lambda: loop.settled(4), what="a fourth thread waits")
    for job in jobs:
        job.leave.set()
    assert loop.most_waiting == 1


def test_threads_of_a_burst_end(loop: Loop) -> None:
    for job in begin(loop, 3 * MAX_PARKED):
        job.leave.set()
    eventually(lambda: loop.settled(1 + MAX_PARKED), what="the threads that are too many end")


def test_parked_threads_are_used_again(loop: Loop) -> None:
    for _ in range(50):
        (job,) = begin(loop, 1)
        job.leave.set()
    eventually(lambda: len(loop.waiting) == 1, what="one waits")
    # A thread may still be on its way to park when the next job comes, but not every time.
    assert int(loop.waiting[0].removeprefix("loop-")) < 25
    assert loop.most_waiting == 1


def test_with_all_threads_busy_the_first_that_is_done_waits(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "MAX_THREADS", 2)
    first, second = begin(loop, 2)
    third = Blocking()
    loop.put(third)
    assert loop.waiting == []
    second.leave.set()
    assert third.inside.wait(TIMEOUT_SECONDS)
    for job in (first, third):
        job.leave.set()
    eventually(lambda: loop.settled(2), what="one waits again")


def test_where_the_system_gives_no_thread_the_first_that_is_done_waits(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        (first,) = begin(loop, 1)
    second = Blocking()
    loop.put(second)
    assert loop.waiting == []
    first.leave.set()
    assert second.inside.wait(TIMEOUT_SECONDS)
    second.leave.set()
    eventually(lambda: loop.settled(2), what="one waits again")


def test_the_end_reaches_every_thread(loop: Loop) -> None:
    busy, done = begin(loop, 2)
    done.leave.set()
    loop.put(None)
    eventually(lambda: not loop.waiting, what="nobody waits")
    busy.leave.set()
    loop.end()
