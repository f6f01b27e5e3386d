"""The thread that seals batches when they are due, and opens the spool when the disk lets it."""

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from edge.clock import Clock

log = logging.getLogger(__name__)

IDLE_TURN_SECONDS = 5.0  # between turns with nothing to do: how often the heartbeat moves
RETRY_FIRST_SECONDS = 1.0
RETRY_MOST_SECONDS = 30.0


class Task(Protocol):
    """What the worker does."""

    def turn(self, *, stopping: bool) -> float:
        """Do all that is due (everything, when stopping); returns the seconds until the next is."""
        ...


def retry_delay(attempts: int) -> float:
    """Seconds to wait after the given number of failures: 1, 2, 4 … 30."""
    return float(min(RETRY_MOST_SECONDS, RETRY_FIRST_SECONDS * 2 ** min(attempts - 1, 10)))


class Worker:
    """Runs a task's turns in a thread of its own, when woken and when due."""

    def __init__(self, task: Task, clock: Clock) -> None:
        self._task = task
        self._clock = clock
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._beat = clock.monotonic()

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="captures", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Take a turn soon."""
        self._wake.set()

    def beat(self) -> None:
        """Note that the worker moves."""
        self._beat = self._clock.monotonic()

    def heartbeat(self) -> float:
        """Monotonic seconds at which the worker last moved."""
        return self._beat

    def stop(self, deadline_s: float) -> bool:
        """Take a last turn and end; false if it has not ended within the deadline."""
        if self._thread is None:
            return True
        self._stopping.set()
        self._wake.set()
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self.beat()
            stopping = self._stopping.is_set()
            self._wake.clear()
            pause = self._guard(self._task.turn, stopping)
            if stopping:
                return
            self.beat()
            if not self._stopping.is_set():
                self._clock.wait(self._wake, min(pause, IDLE_TURN_SECONDS))

    def _guard(self, turn: Callable[..., float], stopping: bool) -> float:
        try:
            return turn(stopping=stopping)
        except Exception:  # a defect in one turn must not end captures for good
            log.exception("a turn of the capture worker failed")
            return RETRY_FIRST_SECONDS
