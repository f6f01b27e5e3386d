"""A bad link: a TCP proxy on loopback that takes its time, breaks, and counts."""

import contextlib
import socket
import struct
import threading
import time
from queue import SimpleQueue

_PIECE = 1 << 16
_LINGER = struct.pack("ii", 1, 0)  # ends with a reset


class Link:
    """Leads to 127.0.0.1:`port`. What is sent arrives `delay` seconds later, both ways together; each connection breaks
    once `breaks_after` bytes were sent to the server over it (0: never). `sent` counts bytes to the server."""

    def __init__(self, port: int, *, delay: float = 0.0, breaks_after: int = 0) -> None:
        self._to = port
        self._delay = delay / 2
        self._breaks_after = breaks_after
        self.sent = self.broken = self.connections = 0
        self._lock = threading.Lock()
        self._passing = threading.Condition(self._lock)
        self._dropped = 0  # connections, from the first on
        self._most = 1 << 62  # bytes to the server, until `let_pass`
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=32)
        self.port = self._listener.getsockname()[1]
        self._closing = False
        self._begin(self._accept)

    @property
    def url(self) -> str:
        """Its address for HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def let_pass(self, more: int | None) -> None:
        """Let so many bytes more to the server, and hold what comes then; None: all."""
        with self._passing:
            self._most = 1 << 62 if more is None else self.sent + more
            self._passing.notify_all()

    def drop(self) -> None:
        """End the connections that there are, with what is held of them."""
        with self._passing:
            self._dropped = self.connections
            self._passing.notify_all()

    def close(self) -> None:
        """End it, with all connections."""
        self._closing = True
        self.let_pass(None)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:  # `_accept` looks at `_closing` under it
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()

    def _begin(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="link")  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to), 10)
            except OSError:
                client.close()
                continue
            self.connections += 1
            server.settimeout(None)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets.update((client, server))
                if self._closing:  # `close` has seen those that there were
                    for one in (client, server):
                        with contextlib.suppress(OSError):
                            one.shutdown(socket.SHUT_RDWR)
            for source, target, up in ((client, server, True), (server, client, False)):
                pieces: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
                ended = threading.Event()  # nothing more is delivered
                self._begin(self._receive, source, pieces, ended)
                self._begin(self._deliver, source, target, pieces, ended, self.connections if up else 0)

    def _receive(
        self, source: socket.socket, pieces: "SimpleQueue[tuple[float, bytes]]", ended: threading.Event
    ) -> None:
        piece = b"x"
        while piece:
            try:
                piece = source.recv(_PIECE)
            except OSError:
                piece = b""
            while piece and pieces.qsize() > 64 and not ended.wait(0.001):
                pass
            pieces.put((time.monotonic() + self._delay, piece))

    def _deliver(
        self,
        source: socket.socket,
        target: socket.socket,
        pieces: "SimpleQueue[tuple[float, bytes]]",
        ended: threading.Event,
        number: int,
    ) -> None:
        passed, up = 0, number > 0
        while True:
            due, piece = pieces.get()
            if not piece:
                break
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            if up:
                with self._passing:
                    self._passing.wait_for(lambda: self.sent < self._most or number <= self._dropped)
                    if number <= self._dropped:
                        break
            try:
                target.sendall(piece)
            except OSError:
                break
            if up:
                passed += len(piece)
                with self._lock:
                    self.sent += len(piece)
                if self._breaks_after and passed >= self._breaks_after:
                    self.broken += 1
                    for one in (source, target):
                        with contextlib.suppress(OSError):
                            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
                    break
        ended.set()
        for one in (source, target):  # the other direction sees it, and ends too
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            mine = [one for one in (source, target) if one in self._sockets]
            self._sockets.difference_update(mine)
        for one in mine:
            one.close()
