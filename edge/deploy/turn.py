"""One change of declared models after the other, each as long as its caller waits."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge.errors import DeadlineError, StoppingError
from edge.serving.caller import Caller


@contextmanager
def held(lock: threading.Lock, caller: Caller) -> Iterator[None]:
    """The lock, as soon as the caller can have it.

    Raises:
        DeadlineError: not in time.
    """
    left = caller.time_remaining()
    if not lock.acquire(timeout=-1 if left is None else min(max(0.0, left), threading.TIMEOUT_MAX)):
        raise DeadlineError("another change of declared models has not ended in time")
    try:
        yield
    finally:
        lock.release()


def in_time(caller: Caller, stopping: Callable[[], bool]) -> Callable[[], None]:
    """A function that raises once the caller or the agent has ended."""

    def go_on() -> None:
        if stopping():
            raise StoppingError("the agent is stopping")
        left = caller.time_remaining()
        if left is not None and left <= 0:
            raise DeadlineError("the caller's deadline passed")

    return go_on
