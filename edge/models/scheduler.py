"""Who runs next on a model: its sessions, and a bounded first-come-first-served queue before them (P-4, P-5, P-10)."""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from edge.clock import Clock
from edge.errors import DeadlineError, ModelNotFoundError, QueueFullError
from edge.runtime.engine import Session

QUICK_SECONDS = 0.001


class Caller(Protocol):
    """What the queue asks of a waiting call."""

    def time_remaining(self) -> float | None:
        """Seconds until its deadline; None where it has none."""
        ...

    def step_aside(self) -> None:
        """Say that the call may take a while, so that other calls are not kept waiting by it."""
        ...

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called when the call ends (cancelled, disconnected); false where it has ended already."""
        ...


class _Waiter:
    """A waiting call; `_ready` is held until it is handed a session or gives up."""

    __slots__ = ("gone", "ready", "session")

    def __init__(self) -> None:
        self.ready = threading.Lock()
        self.ready.acquire()
        self.session: Session | None = None
        self.gone = False


class Scheduler:
    """The sessions of one model. Safe to use from any thread."""

    def __init__(self, name: str, sessions: Sequence[Session], *, queue_calls: int, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._queue_calls = queue_calls
        self._lock = threading.Lock()
        self._idle = list(sessions)
        self._sessions = tuple(sessions)
        self._waiters: deque[_Waiter] = deque()
        self._running: dict[Session, float] = {}
        self._closing = False
        self._drained = threading.Event()
        self.predicted = 0
        self._steady = all(session.steady for session in sessions)
        self._last_seconds = math.inf

    @contextmanager
    def session(self, caller: Caller) -> Iterator[Session]:
        """A session for the length of the `with` block.

        Raises:
            ModelNotFoundError, QueueFullError, DeadlineError: as `acquire`.
        """
        session = self.try_acquire() or self.acquire(caller)
        done = False
        try:
            yield session
            done = True
        finally:
            self.release(session, done=done)

    def try_acquire(self) -> Session | None:
        """An idle session, or None where the call has to wait.

        Raises:
            ModelNotFoundError: the model is being unloaded (U-2).
        """
        with self._lock:
            if self._closing:
                raise ModelNotFoundError(f"model {self._name!r} is not loaded")
            if not self._idle:
                return None
            session = self._idle.pop()
            self._running[session] = self._clock.monotonic()
            return session

    def acquire(self, caller: Caller) -> Session:
        """A session, after waiting for its turn.

        Raises:
            ModelNotFoundError: the model is being unloaded (U-2).
            QueueFullError: too many calls wait already (P-4).
            DeadlineError: the caller's deadline passed, or it went away, while waiting (P-5).
        """
        with self._lock:
            if self._closing:
                raise ModelNotFoundError(f"model {self._name!r} is not loaded")
            if self._idle:
                session = self._idle.pop()
                self._running[session] = self._clock.monotonic()
                return session
            if len(self._waiters) >= self._queue_calls:
                raise QueueFullError(
                    f"model {self._name!r} is busy: {len(self._running)} calls are running and {len(self._waiters)} are waiting, the most allowed"
                )
            waiter = _Waiter()
            self._waiters.append(waiter)
        return self._wait(waiter, caller)

    def _wait(self, waiter: _Waiter, caller: Caller) -> Session:
        def give_up() -> None:
            with self._lock:
                if waiter.session is None and not waiter.gone:
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
        # A session may have been handed over just as the time ran out: the call then runs.
        if waiter.session is None:
            raise DeadlineError(f"the call's time ran out while it waited for model {self._name!r}")
        return waiter.session

    def release(self, session: Session, *, done: bool) -> None:
        """Give a session back; `done` where it answered, not failed."""
        with self._lock:
            self.predicted += done
            self._last_seconds = self._clock.monotonic() - self._running[session]
            if self._waiters:
                waiter = self._waiters.popleft()
                waiter.session = session
                self._running[session] = self._clock.monotonic()
                waiter.ready.release()
                return
            del self._running[session]
            self._idle.append(session)
            if self._closing and not self._running:
                self._drained.set()

    def drain(self) -> None:
        """Take no new calls, wait for those that are running or waiting, and close the sessions (U-2, U-3)."""
        with self._lock:
            self._closing = True
            if not self._running:
                self._drained.set()
        self._drained.wait()
        for session in self._sessions:
            session.close()
        self._idle.clear()
        self._sessions = ()

    def oldest_running_seconds(self) -> float:
        """How long the longest inference has been running, in seconds; 0 where none is."""
        now = self._clock.monotonic()
        with self._lock:
            return max((now - since for since in self._running.values()), default=0.0)

    @property
    def quick(self) -> bool:
        """Whether the next inference is over within QUICK_SECONDS: the last was, and its input cannot change that."""
        return self._steady and self._last_seconds < QUICK_SECONDS

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiters)

    @property
    def running(self) -> int:
        """Calls in the engine."""
        return len(self._running)
