"""What a server of calls has under way, and when there is nothing left that its stop would have to wait for.

gRPC's own end of a stop is that of the last connection, which an idle client may keep open for as long as it likes. Here it
is that of the last call: gRPC has taken no new ones since the stop began once each request for one has come back.
"""

import threading
from collections.abc import Callable
from typing import Protocol

from edge.clock import Clock
from edge.rpc import status, unread
from edge.rpc.unread import SMALL_UNREAD_SECONDS


class Call(Protocol):
    """A call; `answered` is the monotonic time of its answer, 0 while there is none."""

    answered: float

    def cancel(self, code: status.Code, text: str) -> None:
        """End it."""
        ...


class Stream(Call, Protocol):
    """A call with any number of messages both ways."""

    def finish(self, code: status.Code, text: str = "") -> None:
        """End it once everything is sent."""
        ...


class Underway:
    """The calls and streams of one server. Its sets are for the thread that handles gRPC's events, the rest for any."""

    def __init__(self, clock: Clock, close: Callable[[], None]) -> None:
        """`close`: called once, when nothing is under way after `close_when_done`."""
        self._clock = clock
        self._close = close
        self.calls: set[Call] = set()
        self.streams: set[Stream] = set()
        self.requests = 0  # for calls, that gRPC has not answered
        self.ending = False  # the stop has begun
        self._closing = False
        self._lock = threading.Lock()
        self.settled = threading.Event()  # nothing is under way, and nothing comes any more

    def request_ended(self) -> None:
        """gRPC has answered a request for a call, and is not asked again."""
        self.requests -= 1
        self.look()

    def forget(self, call: Call) -> None:
        """The call is over."""
        self.calls.discard(call)
        if self.ending:
            self.look()

    def forget_stream(self, stream: Stream) -> None:
        """The stream is over."""
        self.streams.discard(stream)
        if self.ending:
            self.look()

    def look(self) -> None:
        """See whether the stop goes on: after it has begun, and whenever something is over since then."""
        with self._lock:
            if self.calls or self.streams or not self.ending:
                return
            if not self.requests:
                self.settled.set()
            if not self._closing:
                return
            self._closing = False
        self._close()

    def close_when_done(self) -> None:
        """Have it closed as soon as nothing is under way."""
        with self._lock:
            self._closing = True
        self.look()

    def end_unread(self) -> bool:
        """Make a place: end the call whose answer its client has not read for longest.

        False where none is that old, unless most calls wait for their clients: clients that read are through in a moment.
        """
        answered = sorted((call for call in list(self.calls) if call.answered), key=lambda call: call.answered)
        if not answered:
            return False
        call = answered[0]
        if 2 * len(answered) < len(self.calls) and self._clock.monotonic() - call.answered < SMALL_UNREAD_SECONDS:
            return False
        call.cancel(status.RESOURCE_EXHAUSTED, unread.TEXT)
        self.calls.discard(call)
        return True
