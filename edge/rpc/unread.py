"""Answers that clients have not read yet (B-7): bounded in bytes, for gRPC keeps them for as long as a client likes.

An answer for which there is no room waits a moment: an honest client reads one in milliseconds. Where too many wait already it
keeps its place in the model meanwhile, so that no more are made; one that has no such place is refused. One that was not read for
a second makes room for others.
"""

import threading
from typing import Protocol

from edge.clock import Clock
from edge.rpc import status

LARGE_BYTES = 256 * 1024  # of an answer; smaller ones are not counted, for 512 of them are bounded
MAX_UNREAD_BYTES = 32 << 20  # of large answers that clients have not read, together; a larger one is sent alone
MAX_WAITING_BYTES = 32 << 20  # of large answers that wait for that room; a single larger one may wait alone
UNREAD_SECONDS = 1.0  # after which a large answer may be ended where its room is needed
SMALL_UNREAD_SECONDS = 0.05  # and any call's answer where its place among the calls is
WAIT_SECONDS = 2.0  # for room
TEXT = "the answer was not read, and others needed the room"


class Answered(Protocol):
    """A call whose answer is on its way."""

    def cancel(self, code: status.Code, text: str) -> None:
        """End it."""
        ...


class Unread:
    """The large answers on their way. Safe to use from any thread."""

    def __init__(
        self,
        clock: Clock,
        max_bytes: int = MAX_UNREAD_BYTES,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._clock = clock
        self._max_bytes, self._max_waiting_bytes = max_bytes, max_waiting_bytes
        self._wait_seconds = wait_seconds
        self._changed = threading.Condition()
        self._answers: dict[Answered, tuple[float, int]] = {}  # since when, and bytes; oldest first
        self._bytes = self._waiting = 0

    def full(self, size: int) -> bool:
        """Whether an answer of so many bytes has to wait for room."""
        return bool(self._bytes) and self._bytes + size > self._max_bytes

    def may_wait(self, size: int) -> bool:
        """Whether one more may wait for room."""
        return not self._waiting or self._waiting + size <= self._max_waiting_bytes

    def take(self, call: Answered, size: int, *, in_place: bool = False) -> bool:
        """Count an answer until `done`, once there is room; false where there is none in time, or too many wait.

        `in_place`: the call keeps others from making answers meanwhile, so that it may wait beside any number.
        """
        with self._changed:
            if self.full(size) and not ((in_place or self.may_wait(size)) and self._wait(size)):
                return False
            self._answers[call] = self._clock.monotonic(), size
            self._bytes += size
            return True

    def _wait(self, size: int) -> bool:
        """With the lock held: until there is room, and whether there is."""
        self._waiting += size
        try:
            deadline = self._clock.monotonic() + self._wait_seconds
            while self.full(size) and (now := self._clock.monotonic()) < deadline:
                self._end_old(now)
                self._changed.wait(min(deadline - now, UNREAD_SECONDS / 4))
            return not self.full(size)
        finally:
            self._waiting -= size

    def done(self, call: Answered) -> None:
        """It was read, or its call is over."""
        with self._changed:
            _, size = self._answers.pop(call, (0.0, 0))
            if size:
                self._bytes -= size
                self._changed.notify_all()

    def _end_old(self, now: float) -> None:
        for call, (since, _) in self._answers.items():
            if now - since < UNREAD_SECONDS:
                return
            call.cancel(status.RESOURCE_EXHAUSTED, TEXT)
