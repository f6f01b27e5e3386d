"""Loads in progress: their callers and deadlines, how many may do a step at once, and the memory they claimed (L-6, L-8, L-12).

Packages are verified, and models tried out, several at once, so that a slow load does not hold up the others. Instances are
opened by one load at a time, so that each sees the memory that the one before it took.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from edge.clock import Clock
from edge.errors import DeadlineError, LoadQueueFullError, StoppingError
from edge.host import memory
from edge.serving.caller import Caller

MAX_LOADS = 9  # loads in progress
MAX_WAITING = 8  # loads that wait for another load of the same name
ANSWER_SECONDS = 1.0  # of its deadline that are left to a call which waited in vain
MAX_VERIFYING = 4  # packages being read and verified at a time
MAX_TRIALS = 3  # models being tried out at a time
LOAD_SECONDS = 600.0  # the longest that a load may take, up to the end of the trial
REST_SECONDS = 0.1  # between two steps of a swap, while calls come
CALLS_SECONDS = 1.0  # calls come, if the last one ended less than that ago
MIB = 1 << 20


class Load:
    """One load, for as long as its caller wants it."""

    def __init__(self, loads: "Loads", caller: Caller) -> None:
        self._loads = loads
        remaining = caller.time_remaining()
        self._seconds = LOAD_SECONDS if remaining is None else min(LOAD_SECONDS, remaining)
        self._until = loads.clock.monotonic() + self._seconds
        self.claimed_bytes = 0
        self.untaken_bytes = 0  # claimed, and not allocated as far as is known
        self.gone = False  # the caller is
        if not caller.add_callback(self._leave):
            self._leave()

    def _leave(self) -> None:
        with self._loads.changed:
            self.gone = True
            self._loads.changed.notify_all()

    def remaining(self) -> float:
        """Seconds until it must end."""
        return self._until - self._loads.clock.monotonic()

    def go_on(self) -> None:
        """Return if the load is still wanted, else raise; called between the steps of a load, and during long ones.

        Raises:
            DeadlineError: its time is over, or its caller has gone away.
            StoppingError: the agent is stopping.
        """
        if self._loads.stopping:
            raise StoppingError("the agent is stopping")
        if self.gone or self.remaining() <= 0:
            raise DeadlineError(f"the load took longer than {self._seconds:.0f} s, or its caller went away")

    def rest(self) -> None:
        """As `go_on`, and while calls come, not at once: between the steps of a load that can wait (W-1).

        Each step holds up the calls of its time by a few milliseconds, for it needs the interpreter lock as they do. Rests keep
        those few among all calls, however many models are swapped one after the other.
        """
        with self._loads.changed:
            if self._loads.calls_come():
                seconds = min(REST_SECONDS, self.remaining() / 100)
                self._loads.changed.wait_for(lambda: self.gone or self._loads.stopping, seconds)
        self.go_on()

    def claim_memory(self, what: str, size: int) -> None:
        """Claim `size` bytes of memory, before they are allocated; `what` they are for is part of a refusal.

        Raises:
            MemoryLimitError: the budget, the system or the control group does not have them.
        """
        with self._loads.changed:
            memory.check(what, size, self._loads.available())
            self.claimed_bytes += size
            self.untaken_bytes += size

    def memory_taken(self) -> None:
        """What was claimed is allocated by now: the system counts it."""
        self.untaken_bytes = 0


class Loads:
    """The loads under way. Safe to use from any thread."""

    def __init__(
        self, clock: Clock, budget_bytes: int, reserved: Callable[[], int], last_call: Callable[[], float] = lambda: 0.0
    ) -> None:
        """`budget_bytes` for all models, 0: what the system has; `reserved` gives what the loaded ones take.

        `last_call` gives when the last call on any of them ended, on the monotonic clock; 0: none has.
        """
        self.clock = clock
        self.changed = threading.Condition()
        self.stopping = False
        self._budget_bytes = budget_bytes
        self._reserved = reserved
        self._last_call = last_call
        self._under_way: set[Load] = set()
        self._waiting = 0
        self._verifying, self._trials, self._opening = _Places(MAX_VERIFYING), _Places(MAX_TRIALS), _Places(1)

    def calls_come(self) -> bool:
        """Whether the loaded models are being called."""
        last = self._last_call()
        return last > 0 and self.clock.monotonic() - last < CALLS_SECONDS

    @contextmanager
    def begin(self, load: Load) -> Iterator[Load]:
        """The load is under way for the length of the `with` block.

        Raises:
            LoadQueueFullError: too many are under way.
        """
        with self.changed:
            if len(self._under_way) >= MAX_LOADS:
                raise LoadQueueFullError(f"{MAX_LOADS} models are being loaded already; try again when one is done")
            self._under_way.add(load)
        try:
            yield load
        finally:
            with self.changed:
                self._under_way.discard(load)

    def wait(self, load: Load, over: Callable[[], bool]) -> bool:
        """Wait until `over` is true, which is checked at every `notify`; false if the load cannot wait, or no longer.

        Of a caller's deadline ANSWER_SECONDS are left then.
        """
        with self.changed:
            if self._waiting >= MAX_WAITING:
                return False
            self._waiting += 1
            try:
                while not over():
                    left = load.remaining() - ANSWER_SECONDS
                    if left <= 0 or load.gone or self.stopping:
                        return False
                    self.changed.wait(left)
                return True
            finally:
                self._waiting -= 1

    def notify(self) -> None:
        """Something that a load may wait for has changed."""
        with self.changed:
            self.changed.notify_all()

    def verifying(self, load: Load) -> AbstractContextManager[None]:
        """Around the check of a package: MAX_VERIFYING go at once.

        Raises:
            DeadlineError, StoppingError: as `Load.go_on`, while it waits.
        """
        return self._place(load, self._verifying)

    def trial(self, load: Load) -> AbstractContextManager[None]:
        """Around the trial of a model: MAX_TRIALS go at once.

        Raises:
            DeadlineError, StoppingError: as `Load.go_on`, while it waits.
        """
        return self._place(load, self._trials)

    def opening(self, load: Load) -> AbstractContextManager[None]:
        """Around the opening of a model's instances: one model at a time.

        Raises:
            DeadlineError, StoppingError: as `Load.go_on`, while it waits.
        """
        return self._place(load, self._opening)

    @contextmanager
    def _place(self, load: Load, places: "_Places") -> Iterator[None]:
        with self.changed:
            load.go_on()
            while not places.free:
                self.changed.wait(max(0.0, load.remaining()))
                load.go_on()
            places.free -= 1
        try:
            yield
        finally:
            with self.changed:
                places.free += 1
                self.changed.notify_all()

    def stop(self) -> None:
        """End every load at its next `go_on`, and let none wait."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()

    def check_room(self, what: str, size: int) -> None:
        """Whether a model that is loaded may take `size` bytes more.

        Raises:
            MemoryLimitError: it may not.
        """
        with self.changed:
            memory.check(what, size, self.available())

    def available(self) -> int:
        """Bytes that may be claimed; with `changed` held."""
        there = memory.available() - sum(load.untaken_bytes for load in self._under_way)
        if self._budget_bytes:
            claimed = sum(load.claimed_bytes for load in self._under_way)
            there = min(there, self._budget_bytes - self._reserved() - claimed)
        return there


@dataclass
class _Places:
    free: int
