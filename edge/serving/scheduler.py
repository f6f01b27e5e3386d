"""Which call runs next on a model: a seat for each instance, and a bounded first-in, first-out queue for them (P-4, P-5, P-10).

An inference is ended with its call (P-19), or when it is stuck (P-20), if the engine can end it. Both the check that it still has its
seat and the return of the seat happen with the lock held, so the inference that takes the seat next is never ended by mistake.
"""

import logging
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import partial
from typing import NamedTuple

from edge.clock import Clock
from edge.engine.engine import Session
from edge.errors import CallEndedError, DeadlineError, EdgeError, ModelGoneError, QueueFullError, StuckError
from edge.histogram import BOUNDS, empty
from edge.serving.caller import Caller
from edge.tally import Tally

log = logging.getLogger(__name__)

QUICK_SECONDS = 0.001  # a call so short runs on the thread that waits for calls (edge.rpc.core)
BRIEF_SECONDS = 0.1  # an inference of a steady model that takes no longer is not ended early
EARLY_SECONDS, EARLY_SHARE = 0.05, 0.02  # clients end a call up to so much before the deadline that they sent


class End(Enum):
    """Why an inference is to end."""

    CALL = "its call has ended"
    STUCK = "it is stuck"


class Seat:
    """An instance as one call has it: its session, and since when the call runs, on the monotonic clock (0: it is idle).

    `end`: its inference was told to end. `turn`: a thing of the call's own, where its end is that of its inference.
    `answered` gives the seat back after an answer, as `Scheduler.release` does.
    """

    __slots__ = ("answered", "end", "session", "since", "turn")

    def __init__(self, session: Session, release: Callable[..., None]) -> None:
        self.session = session
        self.since = 0.0
        self.end: End | None = None
        self.turn: object = None
        self.answered: Callable[[], None] = partial(release, self, done=True)


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

    `quick` says whether the next inference is over within QUICK_SECONDS: the last was, and its input cannot change that;
    `brief` so of BRIEF_SECONDS.
    """

    def __init__(
        self, name: str, sessions: Sequence[Session], *, queue_calls: int, clock: Clock, keeps_state: bool = False
    ) -> None:
        """`keeps_state`: what an inference leaves behind is for all callers, so that it does not end with its own."""
        self._name = name
        self._keeps_state = keeps_state
        self._monotonic = clock.monotonic
        self._queue_calls = queue_calls
        self._lock = threading.Lock()
        self._seats = tuple(Seat(session, self.release) for session in sessions)
        self._idle = list(self._seats)
        self._waiters: deque[_Waiter] = deque()
        self._drained = threading.Event()
        self._steady = all(session.steady for session in sessions)
        self.quick = self.brief = False
        self.closing = False
        self.predicted = 0
        self._failed = self._waited = 0
        self._ran_seconds = self._waited_seconds = 0.0
        self.last = 0.0  # when the last call ended, on the monotonic clock; 0: none has
        self._ran_buckets, self._waited_buckets = empty(), empty()
        self.ended = Tally("cancelled", "deadline", "stuck")  # inferences that were ended, by why

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
            DeadlineError: the caller's deadline passed while it waited (P-5).
            CallEndedError: it went away meanwhile (P-5).
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
            raise self._ended(caller, self._monotonic() - waiter.since, f"while it waited for model {self._name!r}")
        return waiter.seat

    def end_with(self, seat: Seat, caller: Caller) -> None:
        """Have the inference that is to begin on a seat end with its call (P-19), unless it is brief, or its state is everybody's."""
        if self.brief or self._keeps_state:
            return
        turn = seat.turn = object()
        ended = partial(self._call_ended, seat, turn)
        if not caller.add_callback(ended):
            ended()

    def _call_ended(self, seat: Seat, turn: object) -> None:
        with self._lock:
            if seat.turn is turn and seat.end is None and seat.session.end():
                seat.end = End.CALL

    def end_stuck(self, limit_s: float) -> float:
        """Have inferences end that run for longer than so many seconds (P-20).

        Returns how long the oldest of those runs that were told so before, or cannot be; 0 where there is none.
        """
        oldest, told = 0.0, []
        with self._lock:
            now = self._monotonic()
            for seat in self._seats:
                ran = now - seat.since if seat.since else 0.0
                if ran <= limit_s:
                    continue
                if seat.end is not End.STUCK and seat.session.end():
                    seat.end = End.STUCK
                    told.append(ran)
                else:
                    oldest = max(oldest, ran)
        for ran in told:
            log.warning(
                "model %s: an inference is ended that has been running for %.0f s, longer than edge_inference_stuck_seconds (%g)",
                self._name,
                ran,
                limit_s,
            )
        return oldest

    def why_ended(self, seat: Seat, caller: Caller) -> EdgeError:
        """The error of a call whose inference was ended; it is counted, and the log tells of it."""
        ran = self._monotonic() - seat.since
        if seat.end is End.STUCK:
            self.ended.count("stuck")
            return StuckError(
                f"the inference on model {self._name!r} was ended after {ran:.0f} s, longer than this agent lets one run"
                " (edge_inference_stuck_seconds)"
            )
        error = self._ended(caller, ran, f"and its inference on model {self._name!r} was ended after {ran:.3g} s")
        self.ended.count("deadline" if isinstance(error, DeadlineError) else "cancelled")
        log.info("%s", error)
        return error

    def _ended(self, caller: Caller, seconds: float, then: str) -> EdgeError:
        """The error of a call that ended so many seconds after it began to wait, or to run."""
        remaining = caller.time_remaining()
        if remaining is not None and remaining <= EARLY_SECONDS + EARLY_SHARE * seconds:
            return DeadlineError(f"the call's time ran out {then}")
        return CallEndedError(f"the call was cancelled {then}")

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
                self.last = now
                if self._steady:
                    self.quick, self.brief = ran < QUICK_SECONDS, ran < BRIEF_SECONDS
            seat.turn = None
            if seat.end is not None:
                seat.end = None
                seat.session.may_run()
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
                self.last,
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

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiters)

    @property
    def running(self) -> int:
        """Calls in the engine."""
        return len(self._seats) - len(self._idle)
