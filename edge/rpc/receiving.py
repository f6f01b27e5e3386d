"""Receiving requests: bounds on messages that are incomplete, and on large requests that are being answered (B-3 to B-5).

By itself gRPC receives the messages of all calls at once, each up to the largest size, for as long as the clients take. Here
incomplete messages are bounded in number, time and bytes. At a bound the call that has been incomplete for longest is ended: an honest
client's message is complete within a millisecond of its begin. While there are more bytes than the bound, gRPC is not asked for
further messages: it then buffers little of them, and their clients wait. While large messages come, a few are asked for at a time,
in the order of their calls.

gRPC does not tell how much of a message has arrived, but buffers it on the heap. So the heap is measured: its growth since no message
was incomplete is counted as theirs.
"""

import math
import threading
from typing import Protocol

from edge.clock import Clock
from edge.errors import RequestsFullError
from edge.host.heap import heap_free, heap_growth, heap_mark
from edge.host.memory import give_back, keep_large_blocks
from edge.rpc import status
from edge.tally import Tally

MAX_INCOMPLETE_CALLS = 256  # calls whose messages are incomplete; one more ends the oldest
INCOMPLETE_SECONDS = 10.0  # from the begin of a call until its message is complete
LOOK_SECONDS = 0.01  # between checks of the incomplete messages
YOUNG_SECONDS = 0.05  # younger messages are not ended for their bytes: an honest large one is on its way for so long
ASKED_TOGETHER = 2  # messages, while large ones come
BESIDE_SECONDS = 0.1  # one that takes longer does not count among them: others need not wait for it
WAIT_SECONDS = 0.1  # a message that has waited so long is asked for besides: it may be a small one,
BESIDES_PART = 0.125  # while less than this part of the bound is on its way
YOUNG_PART = 1.5  # times the bound; with more than this on their way the young are ended too
LARGE_REQUEST_BYTES = 64 * 1024  # a smaller one is not counted: 512 of them are 32 MiB
NOTICED_BYTES = 4 << 20  # of incomplete messages: large ones come
ROOM_BYTES = 16 << 20  # for incomplete messages, however many bytes of others are being answered
TRIM_BYTES = 16 << 20  # of freed memory that malloc keeps while several large messages come
LULL_SECONDS = 0.05  # between large messages; more still come
CROWDED_SECONDS = 1.0  # after the last that had to wait
TRIM_SECONDS = 0.05  # between looks at that
_KEPT_PART = 0.75  # of the bound in bytes, once it was passed
_MEASURE_SECONDS = 0.001  # a measure of the heap is this good
_CALL_BYTES = 16 * 1024  # what a call takes on the heap, about; more is of its message


class LargeRequests:
    """Counts the bytes of large requests from their arrival to their answer. Safe to use from any thread."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
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
            if self.bytes and self.bytes + size > self.max_bytes:
                raise RequestsFullError(
                    f"requests of {self.bytes} bytes are being answered; {size} more would pass edge_requests_max_mib "
                    f"({self.max_bytes} bytes)"
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


class Receiving:
    """The bounds on messages that are not complete. Safe to use from any thread: all sockets of an agent share them."""

    def __init__(self, clock: Clock, held: LargeRequests, *, max_message_bytes: int, max_bytes: int) -> None:
        """`max_bytes` of all of them; `held`: what is complete, and is on the heap too."""
        self._clock, self._monotonic = clock, clock.monotonic
        self._max_message_bytes = max_message_bytes
        self._max_bytes = max_bytes
        self._held = held
        self._lock = threading.Lock()
        self.incomplete: dict[Incomplete, float] = {}  # with the time of their beginning, oldest first
        self._not_asked: dict[Incomplete, None] = {}  # those of them that have to wait, oldest first
        self._full = self._crowded = False
        self._trimmed, self._crowded_at = 0.0, -math.inf
        self._due = self.look_at = 0.0  # on the monotonic clock, and in unix seconds
        self.dropped = 0  # messages that were ended, or that gRPC refused
        self.refused = Tally("RESOURCE_EXHAUSTED", "UNIMPLEMENTED")  # calls, before their messages were asked for
        self._mark, self._held_then = heap_mark(), 0  # when nothing was incomplete
        self._received, self._measured = 0, 0.0  # bytes, and when that was

    def begin(self, call: Incomplete) -> None:
        """Ask for a message, now or when there is room."""
        now = self._monotonic()
        with self._lock:
            if now >= self._due:
                self._look(now)
            if len(self.incomplete) >= MAX_INCOMPLETE_CALLS:
                text = f"{MAX_INCOMPLETE_CALLS} calls wait for their messages, and this one has waited longest"
                self._end(next(iter(self.incomplete)), status.RESOURCE_EXHAUSTED, text)
            self.incomplete[call] = now
            several = len(self.incomplete) > ASKED_TOGETHER
            if self._full or (several and self._places(now) < 0 and self._large_ones_come(now)):
                self._not_asked[call] = None
            else:
                call.ask()

    def done(self, call: Incomplete, size: int = 0) -> None:
        """It came, with so many bytes that will be held, or will not."""
        with self._lock:
            self.incomplete.pop(call, None)
            if self._not_asked:
                self._not_asked.pop(call, None)
                if not self._asked:
                    self._start_anew(size)
                if not self._full:
                    self._ask(self._monotonic())

    def look(self) -> None:
        """End what has been incomplete for too long, or has too much."""
        with self._lock:
            self._look(self._monotonic())

    @property
    def crowded(self) -> bool:
        """Whether several large messages come at a time, or did a moment ago."""
        return self._monotonic() - self._crowded_at <= CROWDED_SECONDS

    @property
    def _asked(self) -> int:
        """How many messages gRPC receives."""
        return len(self.incomplete) - len(self._not_asked)

    def _look(self, now: float) -> None:
        self._due, self.look_at = now + LOOK_SECONDS, self._clock.now() + LOOK_SECONDS
        if self._crowded and now - self._crowded_at > CROWDED_SECONDS:
            self._crowded = False
            keep_large_blocks(keep=True)
        if not self.incomplete:
            self.look_at += YOUNG_SECONDS  # what begins from now on is not ended before
            self._start_anew()
            return
        for call, since in list(self.incomplete.items()):
            if now - since < INCOMPLETE_SECONDS:
                break
            text = f"the request's message did not arrive within {INCOMPLETE_SECONDS:g} s"
            self._end(call, status.DEADLINE_EXCEEDED, text)
        self._measure(now)
        most = self._most(now)
        self._full = self._received > most
        if self._crowded and now - self._trimmed > TRIM_SECONDS and heap_free() > TRIM_BYTES:
            self._trimmed = now
            give_back()
        if self._full:
            self._make_room(now, most)
        elif self._not_asked:
            self._ask(now, late=self._received <= BESIDES_PART * most)

    def _most(self, now: float) -> int:
        """The bytes that there is room for now: those of one message of any size, or of several beside what is being answered."""
        several = 0
        for call, since in self.incomplete.items():
            if now - since < LOOK_SECONDS or several > 1:
                break
            several += call not in self._not_asked
        if several <= 1:
            return max(self._max_bytes, self._max_message_bytes)
        together = max(self._max_bytes, self._held.max_bytes)
        return min(self._max_bytes, max(together - self._held.bytes, ROOM_BYTES))

    def _measure(self, now: float) -> None:
        received = heap_growth(self._mark) - (self._held.bytes - self._held_then)
        # Others take memory as well; so many messages cannot have more than this.
        self._received, self._measured = min(received, self._asked * self._max_message_bytes), now

    def _large_ones_come(self, now: float) -> bool:
        """Whether there is more than calls alone take, or was a moment ago: the bytes that a call may send ahead are enough to tell.

        While several come malloc keeps no large blocks of theirs.
        """
        if now - self._measured > _MEASURE_SECONDS:
            self._measure(now)
        if self._received > len(self.incomplete) * _CALL_BYTES + NOTICED_BYTES:
            self._crowded_at = now
            if not self._crowded:
                self._crowded = True
                keep_large_blocks(keep=False)
        return now - self._crowded_at <= LULL_SECONDS

    def _start_anew(self, size: int = 0) -> None:
        """No message has come in part; `size` bytes of one that is complete are not held yet."""
        self._full = False
        self._mark, self._held_then = heap_mark(), self._held.bytes + size * (size >= LARGE_REQUEST_BYTES)
        self._received = 0

    def _places(self, now: float) -> int:
        """How many more may be asked for while large messages come: one at a time when few more have room to be answered."""
        places = ASKED_TOGETHER if self._held.bytes <= self._held.max_bytes // 2 else 1
        for call in reversed(self.incomplete):
            if places < 0 or now - self.incomplete[call] >= BESIDE_SECONDS:
                break
            places -= call not in self._not_asked
        return places

    def _ask(self, now: float, *, late: bool = False) -> None:
        """Ask for what had to wait, for a few where large messages come; they are young from now on.

        `late`: for one that has waited for long besides.
        """
        places = self._places(now) if self._large_ones_come(now) else len(self._not_asked)
        if late and places <= 0 and now - self.incomplete[next(iter(self._not_asked))] >= WAIT_SECONDS:
            places = 1
        for call in list(self._not_asked)[: max(places, 0)]:
            del self._not_asked[call]
            del self.incomplete[call]
            self.incomplete[call] = now
            call.ask()

    def _make_room(self, now: float, most: int) -> None:
        """End the oldest, on the supposition that each has as much as the others."""
        received = self._received
        surplus = math.ceil(self._asked * (1 - _KEPT_PART * most / received))
        text = (
            f"messages of more than {most} bytes are incomplete beside those that are being answered (edge_receive_max_mib, "
            "edge_requests_max_mib), and this one has been so for longest"
        )
        young = 0.0 if received > YOUNG_PART * most else YOUNG_SECONDS
        asked = [(call, since) for call, since in self.incomplete.items() if call not in self._not_asked]
        for call, since in asked[:surplus]:
            if now - since >= young:
                self._end(call, status.RESOURCE_EXHAUSTED, text)

    def _end(self, call: Incomplete, code: status.Code, text: str) -> None:
        del self.incomplete[call]
        self.dropped += 1
        call.cancel(code, text)
        if call in self._not_asked:
            del self._not_asked[call]
            call.ask()  # it is told that there is no message
