"""When the next request may go to the store, and how many at a time. For any thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edge.clock import Clock
from edge.cloud.store import StoppedError


class ClosedError(Exception):
    """No further request may go to the store in this round."""


class Gate:
    """While the store answers, lets `width` requests through at a time; after a failure one, until it answers again.

    A store that is out of order is so asked by one connection, as if there were no others. It begins as after a failure:
    what the first answer teaches, the store's time, the region or that keys are old, spares the others a refusal.
    """

    def __init__(self, width: int, clock: Clock, stop: threading.Event) -> None:
        self._width = width
        self._clock = clock
        self._stop = stop
        self._changed = threading.Condition()
        self._inside = 0
        self._well = False
        self._shut = False
        self._opens_at = 0.0  # monotonic: what the store asks all to wait for (Retry-After)

    @property
    def stopped(self) -> bool:
        """Whether `stop` is set."""
        return self._stop.is_set()

    def open(self) -> None:
        """Begin a round."""
        with self._changed:
            self._shut = False

    def shut(self) -> None:
        """End a round early: threads that wait or come get ClosedError."""
        with self._changed:
            self._shut, self._well = True, False
            self._changed.notify_all()

    def wake(self) -> None:
        """Wake waiting threads, which then see that `stop` is set."""
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def passage(self) -> Iterator[None]:
        """Let the calling thread in for one request and its retries.

        Raises:
            ClosedError: the round is over.
            StoppedError: `stop` is set.
        """
        self._enter()
        try:
            self._wait(self._opens_at - self._clock.monotonic())
            yield
        finally:
            self._leave()

    def passed(self) -> None:
        """The store has accepted something."""
        with self._changed:
            self._well = True
            self._changed.notify_all()

    def failed(self, wait: float, of_all: float = 0.0) -> None:
        """Wait `wait` seconds inside before the next try, alone unless the store answers others.

        `of_all`: the seconds for which the store wants to be asked nothing.

        Raises: as `passage`.
        """
        with self._changed:
            self._well = False
            if of_all:
                self._opens_at = max(self._opens_at, self._clock.monotonic() + of_all)
        self._leave()
        self._enter()  # at once, where nobody else is inside
        self._wait(wait)

    def _enter(self) -> None:
        with self._changed:
            self._changed.wait_for(self._may_pass)
            self._inside += 1  # also where it is over: `passage` gives it back

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def _may_pass(self) -> bool:
        return self._shut or self._stop.is_set() or self._inside < (self._width if self._well else 1)

    def _wait(self, seconds: float) -> None:
        if self._stop.is_set() or (seconds > 0 and not self._shut and self._clock.wait(self._stop, seconds)):
            raise StoppedError
        if self._shut:
            raise ClosedError
