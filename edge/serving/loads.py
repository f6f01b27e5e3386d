"""Loads under way: whose each is, when it ends, whose turn it is, and the memory that it was promised (L-6, L-8, L-12).

Packages are verified, and models tried out, several at once, so that one which takes long holds up no other. What follows
goes one at a time, so that each load sees the memory that the one before took; what one has been promised is kept here.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from edge.clock import Clock
from edge.errors import DeadlineError, LoadQueueFullError, StoppingError
from edge.host import memory
from edge.serving.scheduler import Caller

MAX_LOADS = 9  # under way at once
MAX_WAITING = 8  # besides, for the end of another load of the same name
ANSWER_SECONDS = 1.0  # before its deadline, one that waits so is answered
MAX_VERIFYING = 4  # of them, packages read and checked at once
MAX_TRIALS = 3  # and models tried out at once
LOAD_SECONDS = 600.0  # the longest that a load may take until its model is tried out
MIB = 1 << 20


class Load:
    """One load, for as long as its caller wants it."""

    def __init__(self, loads: "Loads", caller: Caller) -> None:
        self._loads = loads
        remaining = caller.time_remaining()
        self._seconds = LOAD_SECONDS if remaining is None else min(LOAD_SECONDS, remaining)
        self._until = loads.clock.monotonic() + self._seconds
        self.claimed_bytes = 0  # promised to it
        self.untaken_bytes = 0  # of these, not known to be taken
        self.gone = False
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
        """Come back if the load is still wanted.

        Raises:
            DeadlineError: its time is over, or its caller has gone away.
            StoppingError: the agent is stopping.
        """
        if self._loads.stopping:
            raise StoppingError("the agent is stopping")
        if self.gone or self.remaining() <= 0:
            raise DeadlineError(f"the load took longer than {self._seconds:.0f} s, or its caller went away")

    def claim(self, what: str, size: int) -> None:
        """Have `size` bytes of memory promised, before they are taken.

        Raises:
            MemoryLimitError: the budget, the system or the control group does not have them.
        """
        with self._loads.changed:
            memory.check(what, size, self._loads.available())
            self.claimed_bytes += size
            self.untaken_bytes += size

    def taken(self) -> None:
        """What was claimed is taken now: the system counts it."""
        self.untaken_bytes = 0


class Loads:
    """The loads under way. Safe to use from any thread."""

    def __init__(self, clock: Clock, budget_bytes: int, reserved: Callable[[], int]) -> None:
        """`budget_bytes` for all models, 0: what the system has; `reserved` gives what the loaded ones take."""
        self.clock = clock
        self.changed = threading.Condition()
        self.stopping = False
        self._budget_bytes = budget_bytes
        self._reserved = reserved
        self._under_way: set[Load] = set()
        self._waiting = 0
        self._verifying, self._trials, self._turn = _Places(MAX_VERIFYING), _Places(MAX_TRIALS), _Places(1)

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
        """Have a load wait until `over`, which `tell` has it look at; false where it cannot, or no longer.

        A caller with a deadline has ANSWER_SECONDS of it left then.
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

    def tell(self) -> None:
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

    def turn(self, load: Load) -> AbstractContextManager[None]:
        """Around the making of a model's sessions: one at a time.

        Raises:
            DeadlineError, StoppingError: as `Load.go_on`, while it waits.
        """
        return self._place(load, self._turn)

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
        """Have every load end soon."""
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
        """Bytes that may be promised; with `changed` held."""
        there = memory.available() - sum(load.untaken_bytes for load in self._under_way)
        if self._budget_bytes:
            claimed = sum(load.claimed_bytes for load in self._under_way)
            there = min(there, self._budget_bytes - self._reserved() - claimed)
        return there


@dataclass
class _Places:
    free: int
