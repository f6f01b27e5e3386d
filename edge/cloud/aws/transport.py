"""One HTTP/1.1 exchange at a time over a kept connection: what went wrong is a `Fault`, redirects are not followed."""

import contextlib
import functools
import http.client
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from edge.clock import Clock
from edge.cloud.aws.answer import MAX_ANSWER_BYTES, Bounds, Patience, Response, Stream
from edge.cloud.aws.dialling import Peer, dial
from edge.cloud.aws.faults import StaleConnectionError, TransportError, faults
from edge.cloud.retry import Fault

IDLE_SECONDS = 15.0  # a connection that rested longer is not trusted
_INTERIM = b"HTTP/1.1 1"  # 100 Continue, which nobody asked for


@dataclass(frozen=True)
class Reply:
    """A whole answer. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Transport:
    """A connection to one peer, opened when needed. One thread exchanges; `abort` may come from another."""

    def __init__(self, peer: Peer, clock: Clock, patience: Patience) -> None:
        self.peer = peer
        self._clock = clock
        self._patience = patience
        self._connection: http.client.HTTPConnection | None = None
        self._opening: socket.socket | None = None
        self._used_at = 0.0
        self._lock = threading.Lock()

    def exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: Iterator[bytes] | None = None
    ) -> Reply:
        """Send a request and read the answer.

        Raises:
            TransportError: there was no whole answer.
            StaleConnectionError: as TransportError, on a connection that had rested: no byte of an answer came.
            Exception: what reading the body raised.
        """
        done = False
        with self._using() as connection:
            try:
                reply, done = self._exchange(connection, method, path, headers, body)
                return reply
            finally:
                if not done:
                    self.close()

    @contextlib.contextmanager
    def stream(self, path: str, headers: Mapping[str, str], bounds: Bounds) -> Iterator[Stream]:
        """GET something that is read in pieces inside of the block; leaving the block early closes the connection.

        Raises:
            TransportError: there was no answer; the pieces raise it too.
            StaleConnectionError: as `exchange`.
        """
        done = False
        with self._using() as connection:
            try:
                with faults():
                    self._begin(connection, "GET", path, headers)
                    connection.endheaders()
                    response = cast(Response, connection.getresponse())
                with contextlib.closing(response):
                    keep, stream = not response.will_close, Stream(response, bounds)
                    yield stream
                    done = keep and stream.whole
            finally:
                if not done:
                    self.close()

    @contextlib.contextmanager
    def _using(self) -> Iterator[http.client.HTTPConnection]:
        """The kept connection, or a new one."""
        if self._connection is not None and self._clock.monotonic() - self._used_at > IDLE_SECONDS:
            self.close()
        kept = self._connection is not None
        try:
            yield self._connection or self._connect()
        except TransportError as error:
            if kept and error.fault is Fault.RESET:
                raise StaleConnectionError(error.fault, error.detail) from error
            raise
        finally:
            self._used_at = self._clock.monotonic()

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.peer.host, self.peer.port)
        connection.auto_open = 0  # a connection that was closed is not opened behind our back
        connection.response_class = functools.partial(Response, clock=self._clock, patience=self._patience)  # type: ignore[assignment]
        try:
            connection.sock = dial(self.peer, self._clock, self._patience, self._opened)
        finally:
            self._opened(None)
        with self._lock:
            self._connection = connection
        return connection

    def _opened(self, sock: socket.socket | None) -> None:
        with self._lock:
            self._opening = sock

    def _begin(
        self, connection: http.client.HTTPConnection, method: str, path: str, headers: Mapping[str, str]
    ) -> None:
        connection.sock.settimeout(self._patience.stall_seconds)  # reading the last answer shortened it
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Iterator[bytes] | None,
    ) -> tuple[Reply, bool]:
        """The reply, and whether the connection can be used again."""
        whole = True
        with faults():
            self._begin(connection, method, path, headers)
        try:
            with faults():
                connection.endheaders()
            for chunk in body or ():
                if self._answered(connection):
                    whole = False
                    break
                with faults():
                    connection.send(chunk)
        except TransportError as error:
            # Whoever refuses a request in the middle of its body says why before closing.
            if error.fault is not Fault.RESET:
                raise
            try:
                reply, _ = self._read(connection)
            except TransportError:
                raise error from None
            return reply, False
        reply, keep = self._read(connection)
        if not whole and reply.status < 300:
            raise TransportError(Fault.NOT_HTTP, "it answered before it had the request")
        return reply, keep and whole

    def _answered(self, connection: http.client.HTTPConnection) -> bool:
        """Whether an answer comes before the body is sent; under TLS readable bytes may be anything."""
        if self.peer.tls is not None or connection.sock is None:
            return False
        poll = select.poll()
        poll.register(connection.sock, select.POLLIN)
        if not poll.poll(0):
            return False
        with contextlib.suppress(OSError):
            return not connection.sock.recv(len(_INTERIM), socket.MSG_PEEK).startswith(_INTERIM)
        return True

    def _read(self, connection: http.client.HTTPConnection) -> tuple[Reply, bool]:
        with faults():
            response = cast(Response, connection.getresponse())
            try:
                body = response.read(MAX_ANSWER_BYTES + 1)
                left = response.length
                keep = not response.will_close
            finally:
                response.close()
        if len(body) > MAX_ANSWER_BYTES:
            return Reply(response.status, response.named(), body[:MAX_ANSWER_BYTES]), False
        if left:
            raise TransportError(Fault.TRUNCATED)
        return Reply(response.status, response.named(), body), keep

    def abort(self) -> None:
        """End an exchange under way; it fails soon, with whatever fault."""
        with self._lock:
            sock = self._connection.sock if self._connection is not None else self._opening
            if sock is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next exchange opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
