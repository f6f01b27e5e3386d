"""Who runs next on a model: its sessions, and a bounded first-come-first-served queue before them (P-4, P-5, P-10)."""

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from edge.clock import Clock
from edge.engine.engine import Session
from edge.errors import DeadlineError, ModelGoneError, QueueFullError
from edge.histogram import BOUNDS, empty

QUICK_SECONDS = 0.001


class Caller(Protocol):
    """What the queue asks of a waiting call."""

    def time_remaining(self) -> float | None:
        """Seconds until its deadline; None where it has none."""
        ...

    def step_aside(self) -> bool:
        """Say that the call may take a while, so that other calls are not kept waiting by it; false where they are."""
        ...

    def after_answer(self, callback: Callable[[], None]) -> None:
        """Have `callback` called by this thread as soon as the answer is on its way, or cannot be sent; at most one."""
        ...

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called when the call ends (cancelled, disconnected); false where it has ended already."""
        ...

    def metadata(self, key: str) -> str | None:
        """The first value of a key in the call's metadata; None where it has none."""
        ...

    def trail(self, key: str, value: str) -> None:
        """Send a key and its value after the answer, whatever that is; before it is given."""
        ...


class Nobody:
    """A caller that waits for ever."""

    def time_remaining(self) -> None:
        """There is no deadline."""

    def step_aside(self) -> bool:
        """Nobody is kept waiting."""
        return True

    def after_answer(self, callback: Callable[[], None]) -> None:
        """There is no answer."""
        callback()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """It does not end."""
        return True

    def metadata(self, key: str) -> None:
        """There is none."""

    def trail(self, key: str, value: str) -> None:
        """There is no answer."""


class Seat:
    """A place for one call on a model: a session, and since when it runs on the monotonic clock (0: it is idle)."""

    __slots__ = ("session", "since")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.since = 0.0


class _Waiter:
    """A waiting call; `ready` is held until it is handed a seat or gives up."""

    __slots__ = ("gone", "ready", "seat", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.ready = threading.Lock()
        self.ready.acquire()
        self.seat: Seat | None = None
        self.gone = False


class Counts(NamedTuple):
    """Calls on a model since it was loaded: those that it answered, that failed in it, and that had to wait for it.

    Seconds are those that calls had an instance, or waited; in buckets of edge.histogram too. `last`: when the last one ended,
    on the monotonic clock; 0: none.
    """

    answered: int
    answered_seconds: float
    failed: int
    waited: int
    waited_seconds: float
    last: float
    answered_buckets: tuple[int, ...]
    waited_buckets: tuple[int, ...]


class Scheduler:
    """The sessions of one model. Safe to use from any thread.

    `quick` says whether the next inference is over within QUICK_SECONDS: the last was, and its input cannot change that.
    """

    def __init__(self, name: str, sessions: Sequence[Session], *, queue_calls: int, clock: Clock) -> None:
        self._name = name
        self._monotonic = clock.monotonic
        self._queue_calls = queue_calls
        self._lock = threading.Lock()
        self._seats = tuple(Seat(session) for session in sessions)
        self._idle = list(self._seats)
        self._waiters: deque[_Waiter] = deque()
        self._drained = threading.Event()
        self._steady = all(session.steady for session in sessions)
        self.quick = False
        self.closing = False
        self.predicted = 0
        self._failed = self._waited = 0
        self._ran_seconds = self._waited_seconds = self._last = 0.0
        self._ran_buckets, self._waited_buckets = empty(), empty()

    @contextmanager
    def session(self, caller: Caller, *, counts: bool = True) -> Iterator[Session]:
        """A session for the length of the `with` block, which `counts` as an inference or not.

        Raises:
            ModelGoneError, QueueFullError, DeadlineError: as `acquire`.
        """
        seat = self.try_acquire() or self.acquire(caller)
        done = False
        try:
            yield seat.session
            done = True
        finally:
            self.release(seat, done=done if counts else None)

    def try_acquire(self) -> Seat | None:
        """An idle session's seat, or None where the call has to wait.

        Raises:
            ModelGoneError: the model is being unloaded (U-2), or was replaced (W-2).
        """
        with self._lock:
            if self.closing:
                raise ModelGoneError.of(self._name)
            if not self._idle:
                return None
            seat = self._idle.pop()
            seat.since = self._monotonic()
            return seat

    def acquire(self, caller: Caller) -> Seat:
        """A seat, after waiting for its turn.

        Raises:
            ModelGoneError: the model is being unloaded (U-2), or was replaced (W-2).
            QueueFullError: too many calls wait already (P-4).
            DeadlineError: the caller's deadline passed, or it went away, while waiting (P-5).
        """
        with self._lock:
            if self.closing:
                raise ModelGoneError.of(self._name)
            if self._idle:
                seat = self._idle.pop()
                seat.since = self._monotonic()
                return seat
            if len(self._waiters) >= self._queue_calls:
                raise QueueFullError(
                    f"model {self._name!r} is busy: {self.running} calls are running and {len(self._waiters)} are waiting, the most allowed"
                )
            waiter = _Waiter(self._monotonic())
            self._waiters.append(waiter)
        return self._wait(waiter, caller)

    def _wait(self, waiter: _Waiter, caller: Caller) -> Seat:
        def give_up() -> None:
            with self._lock:
                if waiter.seat is None and not waiter.gone:
                    waiter.gone = True
                    self._waiters.remove(waiter)
                    waiter.ready.release()

        remaining = caller.time_remaining()
        if not caller.add_callback(give_up):
            give_up()
        waited = waiter.ready.acquire(
            timeout=-1 if remaining is None else min(max(remaining, 0.0), threading.TIMEOUT_MAX)
        )
        if not waited:
            give_up()
        # A seat may have been handed over just as the time ran out: the call then runs.
        if waiter.seat is None:
            raise DeadlineError(f"the call's time ran out while it waited for model {self._name!r}")
        return waiter.seat

    def release(self, seat: Seat, *, done: bool | None) -> None:
        """Give a seat back; `done` where its session answered, not failed, and None where nothing was inferred."""
        now = self._monotonic()
        with self._lock:
            ran = now - seat.since
            if done:
                self.predicted += 1
                self._ran_seconds += ran
                self._ran_buckets[bisect_left(BOUNDS, ran)] += 1
            elif done is False:
                self._failed += 1
            if done is not None:
                self._last = now
                self.quick = self._steady and ran < QUICK_SECONDS
            if self._waiters:
                waiter = self._waiters.popleft()
                self._waited += 1
                waited = now - waiter.since
                self._waited_seconds += waited
                self._waited_buckets[bisect_left(BOUNDS, waited)] += 1
                waiter.seat = seat
                seat.since = now
                waiter.ready.release()
                return
            seat.since = 0.0
            self._idle.append(seat)
            if self.closing and not self.running:
                self._drained.set()

    def counts(self) -> Counts:
        """What was counted until now."""
        with self._lock:
            return Counts(
                self.predicted,
                self._ran_seconds,
                self._failed,
                self._waited,
                self._waited_seconds,
                self._last,
                tuple(self._ran_buckets),
                tuple(self._waited_buckets),
            )

    def close(self) -> None:
        """Take no new calls (U-2)."""
        with self._lock:
            self.closing = True

    def drain(self) -> None:
        """Take no new calls, wait for those that are running or waiting, and close the sessions (U-2, U-3)."""
        self.close()
        with self._lock:
            if not self.running:
                self._drained.set()
        self._drained.wait()
        for seat in self._seats:
            seat.session.close()
        self._idle.clear()
        self._seats = ()

    def oldest_running_seconds(self) -> float:
        """How long the longest inference has been running, in seconds; 0 where none is."""
        now = self._monotonic()
        return max((now - since for seat in self._seats if (since := seat.since)), default=0.0)

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiters)

    @property
    def running(self) -> int:
        """Calls in the engine."""
        return len(self._seats) - len(self._idle)
