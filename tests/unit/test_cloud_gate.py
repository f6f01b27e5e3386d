"""The gate before the store: one request at a time until it answers, then as many as are wanted; rests are shared."""

import threading
from collections.abc import Callable, Iterator

import pytest

from edge.clock import SystemClock
from edge.cloud.delivery import Delivery
from edge.cloud.gate import ClosedError, Gate
from edge.cloud.retry import Outcome, Verdict
from edge.cloud.store import UPLOAD_GONE, Body, BytesBody, Pace, StoppedError, StoreError
from edge.cloud.trouble import Trouble
from tests.fakes.clock import FakeClock
from tests.system.harness import eventually

WIDTH = 3


class Requests:
    """Requests of threads of their own; each stays inside until it is told how it ends."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.stop = threading.Event()
        self.gate = Gate(WIDTH, self.clock, self.stop)
        self.inside = 0
        self.ended: list[str] = []
        self._orders: list[Callable[[], None]] = []
        self._told = threading.Condition()
        self._threads: list[threading.Thread] = []

    def begin(self, count: int) -> None:
        for _ in range(count):
            self._threads.append(threading.Thread(target=self._run))
            self._threads[-1].start()

    def tell(self, order: Callable[[], None]) -> None:
        """Let one that is inside do something at the gate."""
        with self._told:
            self._orders.append(order)
            self._told.notify()

    def _run(self) -> None:
        try:
            with self.gate.passage():
                while True:
                    with self._told:
                        self.inside += 1
                        self._told.wait_for(lambda: self._orders)
                        self.inside -= 1
                        order = self._orders.pop(0)
                    order()
                    if order == self.gate.passed:
                        break
            self.ended.append("passed")
        except (ClosedError, StoppedError) as error:
            self.ended.append(type(error).__name__)

    def close(self) -> None:
        self.stop.set()
        self.gate.wake()
        for _ in self._threads:
            self.tell(self.gate.passed)
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)


@pytest.fixture
def requests() -> Iterator[Requests]:
    made = Requests()
    made.gate.open()
    yield made
    made.close()


def inside(requests: Requests, count: int) -> None:
    eventually(lambda: requests.inside == count, 10, f"{count} are inside, now {requests.inside}")


def test_one_until_the_store_has_answered(requests: Requests) -> None:
    requests.begin(7)
    inside(requests, 1)
    requests.tell(requests.gate.passed)
    inside(requests, WIDTH)
    requests.tell(requests.gate.passed)
    eventually(lambda: len(requests.ended) == 2, 10, "two have passed")
    inside(requests, WIDTH)
    assert requests.ended == ["passed", "passed"]


def widen(requests: Requests, count: int) -> None:
    """Begin so many that WIDTH of them are inside."""
    requests.begin(count + 1)
    inside(requests, 1)
    requests.tell(requests.gate.passed)
    inside(requests, min(count, WIDTH))


def test_after_a_failure_one_tries(requests: Requests) -> None:
    """The others that fail as well wait for what it finds."""
    widen(requests, WIDTH + 2)
    for _ in range(WIDTH):
        requests.tell(lambda: requests.gate.failed(5.0))
    eventually(lambda: requests.inside == 0, 10, "all have failed")
    requests.clock.advance(5.0)
    inside(requests, 1)
    requests.tell(lambda: requests.gate.failed(6.0))  # it goes on, alone
    inside(requests, 0)
    requests.clock.advance(6.0)
    inside(requests, 1)
    requests.tell(requests.gate.passed)
    eventually(lambda: requests.clock.advance(5.0) or requests.inside == WIDTH, 10, "all go on")


def test_a_rest_that_the_store_asks_for_holds_for_all(requests: Requests) -> None:
    widen(requests, WIDTH + 1)
    requests.tell(lambda: requests.gate.failed(7.0, 7.0))
    inside(requests, WIDTH - 1)
    requests.tell(requests.gate.passed)  # of another, which came in before: it makes room and lets nobody in
    inside(requests, WIDTH - 2)
    requests.clock.advance(7.0)
    inside(requests, WIDTH)


def test_the_end_of_a_round(requests: Requests) -> None:
    widen(requests, WIDTH + 2)
    requests.gate.shut()
    eventually(lambda: requests.ended.count("ClosedError") == 2, 10, "those outside go")
    requests.tell(lambda: requests.gate.failed(3600.0))
    eventually(lambda: requests.ended.count("ClosedError") == 3, 10, "who fails goes at once")
    requests.tell(requests.gate.passed)
    eventually(lambda: requests.ended.count("passed") == 2, 10, "who is inside may end")


def test_stop(requests: Requests) -> None:
    requests.begin(3)
    inside(requests, 1)
    requests.tell(lambda: requests.gate.failed(3600.0))
    inside(requests, 0)
    requests.stop.set()
    requests.gate.wake()
    requests.join()
    assert requests.ended == ["StoppedError"] * 3


def test_a_system_clock_fits() -> None:
    gate = Gate(1, SystemClock(), threading.Event())
    gate.open()
    with gate.passage():
        gate.failed(0.0)
        gate.passed()


class Skipping(FakeClock):
    """Time passes as soon as somebody waits for it."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.advance(seconds)
        return event.is_set()


class Free:
    """A `Pace` that never waits."""

    chunk_bytes = 65536

    def pay(self, count: int) -> None: ...

    def taken(self) -> None: ...


class Forgetful:
    """A store that takes the parts of an object, and knows nothing of its upload when they are to be put together."""

    def __init__(self, most: int) -> None:
        self.puts = 0
        self._most = most

    def put(self, key: str, body: Body, content_type: str, pace: Pace) -> None:
        self.puts += 1
        assert self.puts < self._most, "sent again without end"
        pace.taken()
        raise StoreError(Verdict(Outcome.RETRY_SOON, "its upload is gone"), UPLOAD_GONE)


def test_an_upload_that_is_gone_is_not_begun_without_end() -> None:
    clock = Skipping()
    gate = Gate(1, clock, threading.Event())
    store = Forgetful(most=20)
    delivery = Delivery(store, clock, gate=gate, pace=Free(), trouble=Trouble(clock))
    with pytest.raises(StoreError, match="its upload is gone"):
        delivery._try("key", BytesBody(b"tensor"), "application/octet-stream")
    assert store.puts > 1
