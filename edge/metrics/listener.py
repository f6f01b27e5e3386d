"""GET /metrics over HTTP, for a scraper: on a Unix socket, or on a loopback address.

Whoever can connect may be hostile. One thread serves all connections, without ever waiting for one of them. A connection has one
request and a time to bring it and to read the answer; when as many are open as may be, the one that came first is closed for a new
one, so that connections which say nothing keep no scraper out. What comes after the request's head is not read. The text is made
anew once in FRESH_SECONDS at most: to ask more often costs nothing but the sending.
"""

import contextlib
import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from edge.clock import Clock
from edge.metrics.exposition import OPEN_METRICS, PLAIN

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 16  # open to the metrics listener at a time; a further one closes the oldest
MAX_HEAD_BYTES = 8192  # of a request for metrics, line and headers; a longer one is refused
CONNECTION_SECONDS = 5.0  # for sending a request for metrics and reading the answer
FRESH_SECONDS = 0.2
SOCKET_MODE = 0o660  # the owner and the group may connect, as to the agent's own socket
_READ_BYTES = 4096
_BACKLOG = 128
_END = (b"\r\n\r\n", b"\n\n")


class Connection:
    """One client: what it has said, and what it has yet to read."""

    def __init__(self, peer: socket.socket, until: float) -> None:
        self.peer, self.until = peer, until
        self.head = b""
        self.answer: memoryview | None = None


class Listener:
    """Serves `text`, which makes the metrics in one format or the other. `where`: HOST:PORT of a loopback address, or a path."""

    def __init__(self, where: str, text: Callable[[bool], bytes], clock: Clock) -> None:
        """Listen; nobody is answered before `start`.

        Raises:
            OSError: it cannot be listened on.
        """
        self._text = text
        self._clock = clock
        self._path = where if where.startswith("/") else ""
        self._socket = _listening(where)
        self._inode = os.lstat(self._path).st_ino if self._path else 0
        self._connections: dict[socket.socket, Connection] = {}  # the first that came first
        self._texts: dict[bool, tuple[float, bytes]] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._awake, self._wake = socket.socketpair()
        self._selector.register(self._awake, selectors.EVENT_READ)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Answer."""
        self._thread.start()

    def end(self) -> None:
        """Answer nobody any more."""
        self._over.set()
        self._wake.close()

    def stop(self, seconds: float) -> None:
        """End, wait so long for an answer in the making, close everything, and remove the socket if it is still ours."""
        self.end()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        for connection in list(self._connections.values()):
            self._close(connection)
        self._socket.close()
        self._awake.close()
        self._selector.close()
        if self._path:
            with contextlib.suppress(OSError):
                if os.lstat(self._path).st_ino == self._inode:
                    Path(self._path).unlink()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._turn()
            except Exception:
                log.exception("the metrics' listener failed")
                self._clock.wait(self._over, FRESH_SECONDS)

    def _turn(self) -> None:
        first = next(iter(self._connections.values()), None)
        timeout = None if first is None else max(0.0, first.until - self._clock.monotonic())
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._socket:
                self._accept()
            elif connection := self._connections.get(key.fileobj):  # type: ignore[call-overload]
                self._go_on(connection)
        now = self._clock.monotonic()
        for connection in list(self._connections.values()):
            if connection.until > now:
                break
            self._close(connection)

    def _accept(self) -> None:
        try:
            peer, _ = self._socket.accept()
        except OSError:  # it is gone already, or there are no descriptors: to try again at once would be to spin
            self._clock.wait(self._over, FRESH_SECONDS)
            return
        peer.setblocking(False)
        if len(self._connections) >= MAX_CONNECTIONS:
            self._close(next(iter(self._connections.values())))
        connection = Connection(peer, self._clock.monotonic() + CONNECTION_SECONDS)
        self._connections[peer] = connection
        self._selector.register(peer, selectors.EVENT_READ)
        self._go_on(connection)  # a scraper's request is there by now, most often

    def _go_on(self, connection: Connection) -> None:
        """Read or write what can be without waiting."""
        try:
            if connection.answer is None:
                self._read(connection)
            if connection.answer is not None:
                self._write(connection)
        except BlockingIOError:
            return
        except OSError:
            self._close(connection)

    def _read(self, connection: Connection) -> None:
        data = connection.peer.recv(_READ_BYTES)
        if not data:
            self._close(connection)
            return
        connection.head += data
        if any(end in connection.head for end in _END):
            connection.answer = memoryview(answer_to(connection.head, self._fresh))
        elif len(connection.head) > MAX_HEAD_BYTES:
            connection.answer = memoryview(_response("431 Request Header Fields Too Large"))
        if connection.answer is not None:
            self._selector.modify(connection.peer, selectors.EVENT_WRITE)

    def _write(self, connection: Connection) -> None:
        while connection.answer:
            connection.answer = connection.answer[connection.peer.send(connection.answer) :]
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        if self._connections.pop(connection.peer, None) is not None:
            self._selector.unregister(connection.peer)
            connection.peer.close()

    def _fresh(self, open_metrics: bool) -> bytes:
        now = self._clock.monotonic()
        made = self._texts.get(open_metrics)
        if made is None or now - made[0] >= FRESH_SECONDS:
            made = self._texts[open_metrics] = now, self._text(open_metrics)
        return made[1]


def answer_to(head: bytes, text: Callable[[bool], bytes]) -> bytes:
    """The answer to a request's head; `text` gives the metrics, in OpenMetrics or not."""
    line, _, headers = head.partition(b"\n")
    words = line.split()
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _response("400 Bad Request")
    if words[0] not in (b"GET", b"HEAD"):
        return _response("405 Method Not Allowed", b"Allow: GET, HEAD\r\n")
    if words[1].partition(b"?")[0] != b"/metrics":
        return _response("404 Not Found")
    open_metrics = b"application/openmetrics-text" in headers.lower()
    kind = f"Content-Type: {OPEN_METRICS if open_metrics else PLAIN}\r\n".encode()
    return _response("200 OK", kind, text(open_metrics), send_body=words[0] == b"GET")


def _response(status: str, headers: bytes = b"", body: bytes = b"", *, send_body: bool = True) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n".encode()
    return head + headers + b"\r\n" + (body if send_body else b"")


def _listening(where: str) -> socket.socket:
    if where.startswith("/"):
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        host, _, port = where.rpartition(":")
        host = host.strip("[]")
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if where.startswith("/"):
            # Before it has a name: Linux gives its file this mode, less the umask.
            os.fchmod(made.fileno(), SOCKET_MODE)
            made.bind(where)
            _set_mode(where)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, int(port)))
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _set_mode(path: str) -> None:
    """Give the socket what the umask took; where something else has its name by now, the target of a link keeps its mode."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        Path(f"/proc/self/fd/{fd}").chmod(SOCKET_MODE)
    finally:
        os.close(fd)
