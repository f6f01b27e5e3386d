"""What clients send: messages that are not complete yet, and large ones while they are answered (B-3 to B-5).

gRPC receives the messages of all its calls at the same time, each up to the size that is allowed, for as long as the client
likes. Here what is incomplete is bounded in number, in time and in bytes, and at a bound the call that has been incomplete
for longest is ended: an honest client's message is complete in the millisecond it begins, however many others are not. While
there are more bytes than the bound, no further message is asked for: gRPC then keeps little of it, and its client waits.

gRPC does not tell how much of a message has come. But it keeps what came on the heap, so the heap is measured: what it
grew by since nothing was incomplete is taken to be theirs.
"""

import math
import threading
from typing import Protocol

from edge.clock import Clock
from edge.errors import RequestsFullError
from edge.host.heap import heap_growth, heap_mark
from edge.rpc import status
from edge.tally import Tally

MAX_INCOMPLETE_CALLS = 256  # calls that wait for their messages; one more ends the oldest
INCOMPLETE_SECONDS = 10.0  # for a message to come, from the beginning of its call
LOOK_SECONDS = 0.01  # between looks at what is incomplete
YOUNG_SECONDS = 0.05  # younger messages are not ended for their bytes: an honest large one is on its way for so long
YOUNG_PART = 1.5  # times the bound; with more than this on their way the young are ended too
LARGE_REQUEST_BYTES = 64 * 1024  # a smaller one is not counted: 512 of them are 32 MiB
_KEPT_PART = 0.75  # of the bound in bytes, once it was passed


class Held:
    """The large requests that are being answered, or wait for it. Safe to use from any thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self.bytes = 0
        self.taken = 0  # requests up to now

    def take(self, size: int) -> None:
        """Count a request until `give_back`.

        Raises:
            RequestsFullError: there is no room for it beside the others.
        """
        with self._lock:
            self.taken += 1
            if self.bytes and self.bytes + size > self._max_bytes:
                raise RequestsFullError(
                    f"requests of {self.bytes} bytes are being answered; {size} more would pass edge_requests_max_mib "
                    f"({self._max_bytes} bytes)"
                )
            self.bytes += size

    def give_back(self, size: int) -> None:
        """The request is answered."""
        with self._lock:
            self.bytes -= size


class Incomplete(Protocol):
    """A call whose message is not complete."""

    def cancel(self, code: status.Code, text: str) -> None:
        """End it."""
        ...

    def ask(self) -> None:
        """Have gRPC receive its message."""
        ...


class Receipts:
    """The bounds on messages that are not complete. For the one thread that handles gRPC's events."""

    def __init__(self, clock: Clock, held: Held, *, max_message_bytes: int, max_bytes: int) -> None:
        """`max_bytes` of all of them; `held`: what is complete, and is on the heap too."""
        self._clock, self._monotonic = clock, clock.monotonic
        self._max_message_bytes = max_message_bytes
        self._max_bytes = max_bytes
        self._held = held
        self._incomplete: dict[Incomplete, float] = {}  # with the time of their beginning, oldest first
        self._not_asked: dict[Incomplete, None] = {}  # the last of them, while there are too many bytes
        self._full = False
        self._due = self._look_at = 0.0  # on the monotonic clock, and in unix seconds
        self.dropped = 0  # messages that were ended, or that gRPC refused
        self.refused = Tally("RESOURCE_EXHAUSTED", "UNIMPLEMENTED")  # calls, before their messages were asked for
        self._mark, self._held_then = heap_mark(), 0  # when nothing was incomplete

    def begin(self, call: Incomplete) -> None:
        """Ask for a message, now or when there is room."""
        now = self._monotonic()
        if now >= self._due:
            self._look(now)
        if len(self._incomplete) >= MAX_INCOMPLETE_CALLS:
            text = f"{MAX_INCOMPLETE_CALLS} calls wait for their messages, and this one has waited longest"
            self._end(next(iter(self._incomplete)), status.RESOURCE_EXHAUSTED, text)
        self._incomplete[call] = now
        if self._full:
            self._not_asked[call] = None
        else:
            call.ask()

    def done(self, call: Incomplete) -> None:
        """It came, or will not."""
        self._incomplete.pop(call, None)
        if self._not_asked:
            self._not_asked.pop(call, None)
            if len(self._not_asked) == len(self._incomplete):
                self._start_anew()
                self._ask(self._monotonic())

    def wake_at(self) -> float | None:
        """Until when the thread may wait for events, in unix seconds, before it looks; None: as long as it likes."""
        return self._look_at if self._incomplete else None

    def look(self) -> None:
        """End what has been incomplete for too long, or has too much."""
        self._look(self._clock.monotonic())

    def _look(self, now: float) -> None:
        self._due, self._look_at = now + LOOK_SECONDS, self._clock.now() + LOOK_SECONDS
        if not self._incomplete:
            self._look_at += YOUNG_SECONDS  # what begins from now on is not ended before
            self._start_anew()
            return
        for call, since in list(self._incomplete.items()):
            if now - since < INCOMPLETE_SECONDS:
                break
            text = f"the request's message did not arrive within {INCOMPLETE_SECONDS:g} s"
            self._end(call, status.DEADLINE_EXCEEDED, text)
        received = heap_growth(self._mark) - (self._held.bytes - self._held_then)
        # Others take memory as well; so many messages cannot have more than this.
        received = min(received, (len(self._incomplete) - len(self._not_asked)) * self._max_message_bytes)
        self._full = received > self._max_bytes
        if self._full:
            self._make_room(now, received)
        elif self._not_asked:
            self._ask(now)

    def _start_anew(self) -> None:
        """No message has come in part."""
        self._full = False
        self._mark, self._held_then = heap_mark(), self._held.bytes

    def _ask(self, now: float) -> None:
        """Ask for what had to wait; it is young from now on."""
        calls, self._not_asked = self._not_asked, {}
        for call in calls:
            self._incomplete.pop(call)
            self._incomplete[call] = now
            call.ask()

    def _make_room(self, now: float, received: int) -> None:
        """End the oldest, on the supposition that each has as much as the others."""
        asked = len(self._incomplete) - len(self._not_asked)
        surplus = math.ceil(asked * (1 - _KEPT_PART * self._max_bytes / received))
        text = (
            f"messages of more than {self._max_bytes} bytes (edge_receive_max_mib) are incomplete, and this one has been so "
            "for longest"
        )
        young = 0.0 if received > YOUNG_PART * self._max_bytes else YOUNG_SECONDS
        for call, since in list(self._incomplete.items())[:surplus]:
            if now - since >= young:
                self._end(call, status.RESOURCE_EXHAUSTED, text)

    def _end(self, call: Incomplete, code: status.Code, text: str) -> None:
        del self._incomplete[call]
        self.dropped += 1
        call.cancel(code, text)
        if call in self._not_asked:
            del self._not_asked[call]
            call.ask()  # it is told that there is no message
