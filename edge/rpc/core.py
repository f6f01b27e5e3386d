"""Serves calls from gRPC's completion queue, without the thread hand-overs of `grpc.server`.

`grpc.server` takes a unary call through three threads, and each step waits for the interpreter lock: most of what a
small Predict costs. Here the thread that takes a call off the queue also runs it. HTTP/2, flow control and limits stay
gRPC's own. docs/adr/0007-serving-loop.md weighs the use of `cygrpc`, the private binding beneath `grpc.server`; only
this module serves by it.

Theory of operation. One thread at a time has its turn to wait on the queue (edge.rpc.turns). It runs a quick call on the
spot and waits again: no hand-over at all. A call that may take longer first steps aside (`Call.step_aside`): another
thread waits in its place, and the call runs without haste. So the queue is left
alone for no longer than a quick call takes, however slow the others are. A second thread on the queue would be woken for
every event that the first is about to take anyway.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from grpc._cython import cygrpc
from grpc._cython.cygrpc import ReceiveMessageOperation, SendMessageOperation

from edge import address
from edge.clock import Clock
from edge.rpc import calls, status, unread
from edge.rpc.calls import Answer, StreamHandler, Unary
from edge.rpc.private_binding import check_binding
from edge.rpc.receiving import LargeRequests, Receiving
from edge.rpc.turns import Turns
from edge.rpc.underway import Underway
from edge.rpc.unread import Unread
from edge.stopping import CANCELLED_SECONDS, CONNECTIONS_SECONDS, THREADS_SECONDS

log = logging.getLogger(__name__)
check_binding()

MAX_STREAMS = 128  # open at a time, beside the calls; a further one is refused with RESOURCE_EXHAUSTED
MAX_CONCURRENT_CALLS = 512  # beyond it a call is refused with RESOURCE_EXHAUSTED
REQUESTS_AHEAD = 4  # accepted by gRPC before a thread takes them
MAX_UNSENT_MESSAGES = 64  # of one stream
_NO_BOUND = 1 << 62
# One for all calls: nothing of a call is in them, and what gRPC writes into the last is not read.
_METADATA, _OK = cygrpc.SendInitialMetadataOperation((), 0), cygrpc.SendStatusFromServerOperation((), 0, "", 0)
_CLOSE = cygrpc.ReceiveCloseOnServerOperation(0)


class Call:
    """One call; what a handler asks of it is the `Caller` of edge.serving.caller."""

    __slots__ = (
        "_after", "_aside", "_call", "_closing", "_event", "_on_close", "_over", "_served_meanwhile", "_server",
        "_trailing", "_unary", "answered",
    )  # fmt: skip

    def __init__(self, server: "CoreServer", event: Any, unary: Unary) -> None:
        self._server = server
        self._call = event.call
        self._event = event  # what the client said at its beginning
        self._trailing: tuple[tuple[str, str], ...] = ()
        self._unary = unary
        self._closing = self._aside = self._over = False
        self.answered = 0.0  # monotonic, since when the answer waits for the client; 0: there is none yet
        self._on_close: Callable[[], None] | None = None
        self._after: Callable[[], None] | None = None

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where it has none."""
        remaining: float = self._event.call_details.deadline - self._server.clock.now()
        return max(remaining, 0.0) if remaining < calls.FOREVER_SECONDS else None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """See `Caller`."""
        self._on_close = callback
        if not self._closing:
            self._closing = True
            self._call.start_server_batch((_CLOSE,), self._closed)
        return not self._over

    def after_answer(self, callback: Callable[[], None]) -> None:
        """Have `callback` called as soon as the answer is on its way."""
        self._after = callback

    def metadata(self, key: str) -> str | None:
        """See `Caller`; a value that is bytes (a key in -bin) is none."""
        given = self._event.invocation_metadata
        return next((value for name, value in given if name == key and isinstance(value, str)), None)

    def trail(self, key: str, value: str) -> None:
        """See `Caller`."""
        self._trailing += ((key, value),)

    def step_aside(self) -> bool:
        """Let another thread wait for calls: this one may take longer than a quick call. Once is enough."""
        if not self._aside:
            self._aside = True
            self._served_meanwhile: bool = self._server.turns.give_away()
        return self._served_meanwhile

    def cancel(self, code: status.Code, text: str) -> None:
        """End the call, whatever it waits for."""
        self._call.cancel(status.number(code), text)

    def ask(self) -> None:
        """Have gRPC receive the request's message."""
        self._call.start_server_batch((ReceiveMessageOperation(0),), self._received)

    def answer(self, answer: Answer, ended: Callable[[Any], bool] | None = None) -> None:
        """Send the message, if there is one, and the status, and let the call end; `ended` is called then."""
        message, code, text = answer
        if code is status.OK and not self._trailing:
            end = _OK
        else:
            end = cygrpc.SendStatusFromServerOperation(self._trailing, status.number(code), text, 0)
        # gRPC wants to be asked once a call for its close; here that costs no event of its own.
        operations = (_METADATA, end) if self._closing else (_METADATA, end, _CLOSE)
        if message is not None:
            operations = (SendMessageOperation(message, 0), *operations)
        self._call.start_server_batch(operations, ended or self._ended)
        self.answered = self._server.monotonic()

    def _received(self, event: Any) -> bool:
        raw = event.batch_operations[0].message()
        self._server.receiving.done(self, len(raw or b""))
        if raw is None:
            self._server.receiving.dropped += 1
            self.answer((None, status.UNIMPLEMENTED, "the request has no message"))
            return False
        # Nothing is raised from here: the thread must know whether it still has its turn.
        try:
            answer = self._unary(raw, self)
        except Exception as error:
            log.error(calls.FAILED_TEXT, exc_info=error)
            answer = calls.FAILED
        ended = None
        if answer[0] is not None and len(answer[0]) > unread.LARGE_BYTES:  # not quick: it comes before the turn
            answer, ended = self._with_room(answer)
        elif self._aside and self._server.turns.take_back():
            self._aside = False
        try:
            self.answer(answer, ended)
        except Exception as error:
            log.error("a call cannot be answered", exc_info=error)
            (self._server.underway if self._aside else self._server).forget(self)
        self._run_after_answer()
        return self._aside

    def _with_room(self, answer: Answer) -> tuple[Answer, Callable[[Any], bool] | None]:
        """Wait for room beside the large answers that clients have not read yet (B-7).

        Returns the answer to send, a refusal if there is no room, and what to call when it was sent; None: nothing of its own.
        """
        answers, size = self._server.unread, len(answer[0] or b"")
        if answers.full(size):
            self.step_aside()
            if answers.may_wait(size):  # meanwhile the model's instance is free for others
                self._run_after_answer()
        found = answers.take(self, size, in_place=self._after is not None)
        self._run_after_answer()
        if found:
            return answer, self._large_ended
        return (None, status.RESOURCE_EXHAUSTED, "too many answers wait for their clients to read them"), None

    def _run_after_answer(self) -> None:
        """Call what `after_answer` left, once: most of all, give the model's instance back."""
        if (after := self._after) is not None:
            self._after = None
            after()

    def _closed(self, event: Any) -> bool:
        self._over = True  # first: a callback that is added from now on is told by `add_callback`
        if self._on_close is not None:
            self._on_close()
        return False

    def _ended(self, event: Any) -> bool:
        self._server.forget(self)
        return False

    def _large_ended(self, event: Any) -> bool:
        self._server.unread.done(self)
        return self._ended(event)


class Stream(Call):
    """A call with any number of messages both ways."""

    __slots__ = ("_finish", "_handler", "_lock", "_sending", "_started", "_unsent")

    def __init__(self, server: "CoreServer", event: Any, make: Callable[[calls.Stream], StreamHandler]) -> None:
        super().__init__(server, event, calls.not_unary)
        self._lock = threading.Lock()
        self._unsent: deque[bytes] = deque()
        self._finish: Answer | None = None
        self._started = self._sending = False
        self._handler = make(self)
        self.add_callback(self._handler.closed)

    def send(self, message: bytes) -> None:
        """Send a message; what the client does not take in time is dropped, oldest first."""
        with self._lock:
            self._unsent.append(message)
            if len(self._unsent) > MAX_UNSENT_MESSAGES:
                self._unsent.popleft()
            self._send_next()

    def finish(self, code: status.Code, text: str = "") -> None:
        """End the call once everything is sent."""
        with self._lock:
            if self._finish is None:
                self._finish = (None, code, text)
            self._send_next()

    def _send_next(self) -> None:
        """With the lock held: start what may be sent now; gRPC takes one message at a time."""
        if self._sending or self._over:
            return
        operations = []
        if not self._started:
            self._started = True
            operations.append(_METADATA)
        if self._unsent:
            operations.append(cygrpc.SendMessageOperation(self._unsent.popleft(), 0))
        elif self._finish is not None:
            self._over = True
            _, code, text = self._finish
            operations.append(cygrpc.SendStatusFromServerOperation((), status.number(code), text, 0))
        if operations:
            self._sending = True
            self._call.start_server_batch(tuple(operations), self._sent)

    def _sent(self, event: Any) -> bool:
        with self._lock:
            self._sending = False
            if not event.success:
                self._over = True
            self._send_next()
        return False

    def _received(self, event: Any) -> bool:
        self._server.receiving.done(self)
        raw = event.batch_operations[0].message()
        if raw is None:
            self._handler.half_closed()
        else:
            self._handler.message(raw)
            if self._handler.goes_on:
                self._server.receiving.begin(self)
        return False

    def _closed(self, event: Any) -> bool:
        with self._lock:
            self._over = True
        super()._closed(event)
        self._server.receiving.done(self)  # it may not have been asked for yet
        self._server.underway.forget_stream(self)
        return False


class CoreServer:
    """The `CallServer` on gRPC's completion queue."""

    def __init__(self, options: Mapping[str, int | str], clock: Clock, receiving: Receiving | None = None) -> None:
        """`receiving`: the bounds on messages that are not complete; without it those of a number and of time alone."""
        self.clock, self.monotonic = clock, clock.monotonic
        self.unread = Unread(clock)
        self.receiving = receiving or Receiving(
            clock, LargeRequests(_NO_BOUND), max_message_bytes=0, max_bytes=_NO_BOUND
        )
        self._core = cygrpc.Server(tuple(options.items()), False)
        self._queue = cygrpc.CompletionQueue()
        self._core.register_completion_queue(self._queue)
        self._unary: dict[bytes, Unary] = {}
        self._streams: dict[bytes, Callable[[calls.Stream], StreamHandler]] = {}
        # The queue's end ends the threads; a call that began another operation on it then would end the process.
        self.underway = Underway(clock, self._queue.shutdown)
        self._stopped = threading.Event()
        self._owed = False  # a request for a call, to be made when one has ended
        self.turns = Turns(self._poll, name="rpc")

    def add_unary(self, method: str, handler: Unary) -> None:
        """See `CallServer`."""
        self._unary[method.encode()] = handler

    def add_stream(self, method: str, make: Callable[[calls.Stream], StreamHandler]) -> None:
        """See `CallServer`."""
        self._streams[method.encode()] = make

    def listen(self, path: str) -> None:
        """See `CallServer`."""
        if self._core.add_http2_port(address.target(path).encode()) == 0:
            raise RuntimeError("the socket cannot be made")

    def listen_tcp(self, where: str, credentials: grpc.ServerCredentials | None = None) -> None:
        """See `CallServer`."""
        given = () if credentials is None else (credentials._credentials,)
        if self._core.add_http2_port(where.encode(), *given) == 0:
            raise RuntimeError("the address cannot be listened on")

    def start(self) -> None:
        """See `CallServer`."""
        self._core.start()
        for _ in range(REQUESTS_AHEAD):
            self.underway.requests += 1
            self._request_call()
        self.turns.start()

    def stop(self, grace_seconds: float) -> None:
        """See `CallServer`."""
        if not self.turns.threads:
            self._core.destroy()
            return
        self.underway.ending = True
        self._core.shutdown(self._queue, self._shut_down)
        for stream in list(self.underway.streams):
            stream.finish(status.UNAVAILABLE, "the agent is stopping")
        self.underway.look()
        # Once no call is under way what is left are connections. gRPC waits for their clients to close them, and some never do.
        if not (self.underway.settled.wait(grace_seconds) and self._stopped.wait(CONNECTIONS_SECONDS)):
            self._core.cancel_all_calls()
            self._stopped.wait(CANCELLED_SECONDS)
        # The core is not destroyed: gRPC would wait for all its threads, for ever for those that the system did not give it.
        self.underway.close_when_done()
        self.turns.join(THREADS_SECONDS, self.clock)  # one that is stuck in a call is left behind

    def _shut_down(self, event: Any) -> bool:
        self._stopped.set()
        self.underway.settled.set()
        return False

    def _poll(self) -> bool:
        """Handle events until the turn is given away (false) or the queue is closed (true).

        An event's tag is the method that handles it, and says whether it gave the turn away.
        """
        queue, receiving = self._queue, self.receiving
        while True:
            event = queue.poll(receiving.look_at if receiving.incomplete else None)
            tag = event.tag
            if tag is None:
                if event.completion_type != cygrpc.CompletionType.queue_timeout:
                    return True
                receiving.look()
                continue
            try:
                if tag(event):
                    return False
            except Exception as error:
                # gRPC's state is its own; a fault in handling one event must not end the thread.
                log.error("an event of a call cannot be handled", exc_info=error)
            # Kept over the next poll, the event would keep the call's memory.
            event = tag = None

    def _request_call(self) -> None:
        if self.underway.ending:
            self.underway.request_ended()
        else:
            self._core.request_call(self._queue, self._queue, self._requested)

    def _requested(self, event: Any) -> bool:
        if not event.success:  # the server is stopping
            self.underway.request_ended()
            return False
        method: bytes = event.call_details.method
        unary, underway = self._unary.get(method), self.underway
        try:
            if unary is not None and (len(underway.calls) < MAX_CONCURRENT_CALLS or underway.end_unread()):
                call = Call(self, event, unary)
                underway.calls.add(call)
                self.receiving.begin(call)
            elif unary is not None:
                self._refuse(event, status.RESOURCE_EXHAUSTED, f"{MAX_CONCURRENT_CALLS} calls are under way already")
            elif method in self._streams and len(underway.streams) >= MAX_STREAMS:
                self._refuse(event, status.RESOURCE_EXHAUSTED, f"{MAX_STREAMS} streams are open already")
            elif method in self._streams:
                stream = Stream(self, event, self._streams[method])
                underway.streams.add(stream)
                self.receiving.begin(stream)
            else:
                self._refuse(event, status.UNIMPLEMENTED, "this agent has no such method")
        finally:  # the client waits: what asks gRPC for the next call comes after its answer, or with the next call
            if unary is None or self._owed:
                self._request_call()
            else:
                self._owed = True
        return False

    def forget(self, call: Call) -> None:
        """The call is over; for the thread that has its turn."""
        self.underway.forget(call)
        if self._owed:
            self._owed = False
            self._request_call()

    def _refuse(self, event: Any, code: status.Code, text: str) -> None:
        self.receiving.refused.count(code.name)
        Call(self, event, calls.not_unary).answer((None, code, text))
