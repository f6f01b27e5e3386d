"""A small HTTP/1.1 server that ends cleanly, whatever its clients hold open."""

import contextlib
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STEP_SECONDS = 10.0  # of a handler, so that no test hangs


class Handler(BaseHTTPRequestHandler):
    """Answers; `self.server.owner` is whoever started the server."""

    protocol_version = "HTTP/1.1"
    timeout = STEP_SECONDS
    disable_nagle_algorithm = True

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send a whole answer; headers may replace Date, Content-Length and Connection."""
        given = {
            "Date": self.date_time_string(self.server.owner.now()),  # type: ignore[attr-defined]
            "Content-Length": str(len(body)),
            **(headers or {}),
        }
        self.send_response_only(status)
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        """Break the connection with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 32
    owner: Any

    def __init__(self, port: int, handler: type[Handler], tls: ssl.SSLContext | None) -> None:
        self.tls = tls
        self.connections: set[socket.socket] = set()
        self.guard = threading.Lock()
        super().__init__(("127.0.0.1", port), handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(STEP_SECONDS)
        sock = self.tls.wrap_socket(request, server_side=True) if self.tls else request
        with self.guard:
            self.connections.add(sock)
        try:
            super().finish_request(sock, client_address)
        finally:
            with self.guard:
                self.connections.discard(sock)
            sock.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Web:
    """A server on 127.0.0.1; subclasses are the `owner` that their handler asks."""

    handler: type[Handler]

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        self.closing = threading.Event()

    def now(self) -> float:
        """Unix seconds of its clock."""
        raise NotImplementedError

    def start(self) -> "Web":
        """Serve, on the same port each time."""
        self.closing.clear()
        self._server = _Server(self.port, self.handler, self._tls)
        self._server.owner = self
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="web")
        self._thread.start()
        return self

    def close(self) -> None:
        """End, with all connections."""
        if self._server is None or self._thread is None:
            return
        self.closing.set()
        self._server.shutdown()
        with self._server.guard:
            for connection in self._server.connections:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()
        self._server = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self._tls else 'http'}://{'localhost' if self._tls else '127.0.0.1'}:{self.port}"


def server_context(certificate: Any, key: Any, client_ca: Any = None) -> ssl.SSLContext:
    """TLS for a server; with `client_ca`, clients need a certificate from it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context
