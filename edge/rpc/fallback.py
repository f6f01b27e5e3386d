"""Serves calls by gRPC's public `grpc.server`, where the loop of `edge.rpc.core` cannot be used or is not wanted.

The same handlers, statuses and limits; what differs is speed, for each call goes through three threads (ADR 7).
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from edge import address
from edge.clock import Clock
from edge.rpc import status
from edge.rpc.calls import FOREVER_SECONDS, Stream, StreamHandler, Unary, answer_of
from edge.stopping import CANCELLED_SECONDS, CONNECTIONS_SECONDS

MAX_THREADS = 128  # threads that serve calls with edge_rpc_server "grpc"; each call holds one
MAX_CONCURRENT_CALLS = 512  # calls at a time with edge_rpc_server "grpc"; further ones are refused
MAX_UNSENT_MESSAGES = 64  # of a stream that its client has not taken, with edge_rpc_server "grpc"


class _Call:
    """One unary call: the `Caller` of edge.serving.caller on a context of grpc."""

    __slots__ = ("_context", "_trailing")

    def __init__(self, context: Any) -> None:
        self._context = context
        self._trailing: tuple[tuple[str, str], ...] = ()

    def time_remaining(self) -> float | None:
        remaining: float | None = self._context.time_remaining()
        return remaining if remaining is not None and remaining < FOREVER_SECONDS else None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        added: bool = self._context.add_callback(callback)
        return added

    def after_answer(self, callback: Callable[[], None]) -> None:
        callback()  # grpc.server tells of the call's end alone, which comes when its client has read the answer

    def metadata(self, key: str) -> str | None:
        given = self._context.invocation_metadata()
        return next((value for name, value in given if name == key and isinstance(value, str)), None)

    def trail(self, key: str, value: str) -> None:
        self._trailing += ((key, value),)
        self._context.set_trailing_metadata(self._trailing)

    def step_aside(self) -> bool:
        """Each call has a thread of its own here."""
        return True


class _Stream:
    """One streaming call: what the handler sends waits here until gRPC's thread takes it."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._changed = threading.Condition()
        self._unsent: deque[bytes] = deque(maxlen=MAX_UNSENT_MESSAGES)
        self._finish: tuple[status.Code, str] | None = None
        self._over = False

    def send(self, message: bytes) -> None:
        with self._changed:
            self._unsent.append(message)
            self._changed.notify()

    def finish(self, code: status.Code, text: str = "") -> None:
        with self._changed:
            self._finish = self._finish or (code, text)
            self._changed.notify()

    def end(self) -> None:
        """The call is over: nothing is sent any more."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def messages(self) -> Iterator[bytes]:
        """What is to be sent, as it comes, until the stream is finished."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unsent or self._finish or self._over)
                if self._over:
                    return
                message = self._unsent.popleft() if self._unsent else None
            if message is None:
                code, text = self._finish or (status.OK, "")
                if code is not status.OK:
                    self._context.abort(code, text)
                return
            yield message


class _Underway:
    """How many calls are under way, and when a stop need not wait for any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def add(self, context: Any) -> None:
        """A call has begun."""
        with self._changed:
            self._count += 1
        if not context.add_callback(self._over):
            self._over()

    def _over(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until there is none."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._count, seconds)


class FallbackServer:
    """The `CallServer` on grpc.server."""

    def __init__(self, options: Mapping[str, int | str], clock: Clock) -> None:
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="rpc")
        self._server = grpc.server(
            self._threads,
            options=tuple(options.items()),
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
        )
        self._methods: dict[str, dict[str, grpc.RpcMethodHandler]] = {}  # by service
        self._streams: set[_Stream] = set()
        self._underway = _Underway()

    def add_unary(self, method: str, handler: Unary) -> None:
        def serve(raw: bytes, context: Any) -> bytes:
            self._underway.add(context)
            message, code, text = answer_of(handler, raw, _Call(context))
            if code is not status.OK:
                context.abort(code, text)
            return message or b""

        self._add(method, grpc.unary_unary_rpc_method_handler(serve))

    def add_stream(self, method: str, make: Callable[[Stream], StreamHandler]) -> None:
        def serve(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            self._underway.add(context)
            stream = _Stream(context)
            handler = make(stream)
            self._streams.add(stream)
            if not context.add_callback(stream.end):
                stream.end()
            reader = threading.Thread(target=_read, args=(requests, handler), name="rpc-stream", daemon=True)
            reader.start()
            try:
                yield from stream.messages()
            finally:
                self._streams.discard(stream)
                handler.closed()

        self._add(method, grpc.stream_stream_rpc_method_handler(serve))

    def _add(self, method: str, handler: grpc.RpcMethodHandler) -> None:
        _, service, name = method.split("/")
        self._methods.setdefault(service, {})[name] = handler

    def listen(self, path: str) -> None:
        for service, methods in self._methods.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        if self._server.add_insecure_port(address.target(path)) == 0:
            raise RuntimeError("the socket cannot be made")

    def listen_tcp(self, where: str, credentials: grpc.ServerCredentials | None = None) -> None:
        if credentials is None:
            port = self._server.add_insecure_port(where)
        else:
            port = self._server.add_secure_port(where, credentials)
        if port == 0:
            raise RuntimeError("the address cannot be listened on")

    def start(self) -> None:
        self._server.start()

    def stop(self, grace_seconds: float) -> None:
        stopped = self._server.stop(grace_seconds)
        for stream in list(self._streams):
            stream.finish(status.UNAVAILABLE, "the agent is stopping")
        # Once no call is under way what is left are connections. gRPC waits for their clients to close them, and some never do.
        if self._underway.wait(grace_seconds):
            stopped = self._server.stop(CONNECTIONS_SECONDS)
        stopped.wait(CONNECTIONS_SECONDS + CANCELLED_SECONDS)
        self._threads.shutdown(wait=False)


def _read(requests: Iterator[bytes], handler: StreamHandler) -> None:
    """Hand the client's messages to the handler, on a thread of the stream's own."""
    try:
        for raw in requests:
            handler.message(raw)
            if not handler.goes_on:
                return
    except Exception:  # noqa: BLE001 - how gRPC says that the call is over; `closed` follows
        return
    handler.half_closed()
