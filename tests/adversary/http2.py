"""HTTP/2 as an attacker speaks it: frames by hand, in any order (RFC 9113, RFC 7541)."""

import select
import socket
import struct
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4  # a setting
CANCEL = 8
PREDICT = "/AWS.SageMaker.Edge.Agent/Predict"
LIST_MODELS = "/AWS.SageMaker.Edge.Agent/ListModels"
WATCH = "/grpc.health.v1.Health/Watch"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def message(size: int, data: bytes = b"") -> bytes:
    """The beginning of a gRPC message that is said to have `size` bytes."""
    return struct.pack(">BI", 0, size) + data


def field(name: str, value: str) -> bytes:
    """A header field: literal, not indexed, not compressed."""
    parts = (name.encode(), value.encode())
    return b"\0" + b"".join(bytes([len(part)]) + part for part in parts)


class Connection:
    """A connection to the agent's socket. What the agent sends is read when there is room to send or `read` is called."""

    def __init__(self, path: str, *, reads: bool = True) -> None:
        """One that does not read gives the agent no room for any answer's message."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._socket.setblocking(False)
        self._unread = self._replies = b""
        self._next = 1
        self._initial = 65535
        self._window = 65535  # of the connection
        self._windows: dict[int, int] = {}
        self.closed = False  # by the agent
        self.answered_pings = 0
        self.ended: set[int] = set()  # streams that the agent has ended
        self.write(PREFACE + frame(SETTINGS, 0, 0, b"" if reads else struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)))

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    @property
    def open_calls(self) -> int:
        """How many calls the agent has not ended."""
        return self._next // 2 - len(self.ended)

    def write(self, data: bytes) -> None:
        """Send bytes as they are; what the agent does not take before it closes the connection is dropped."""
        left, self._replies = memoryview(self._replies + data), b""
        while left and not self.closed:
            readable, writable, _ = select.select([self._socket], [self._socket], [], 60)
            assert readable or writable, "the agent neither reads nor writes"
            if readable:
                self._receive()
            if writable:
                try:
                    left = left[self._socket.send(left) :]
                except BlockingIOError:
                    continue
                except OSError:
                    self.closed = True

    def read(self, seconds: float = 0) -> None:
        """Read what the agent has sent, or sends within `seconds`."""
        if not self.closed and select.select([self._socket], [], [], seconds)[0]:
            self._receive()
        if self._replies:
            self.write(b"")

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            data = b""
        self.closed = self.closed or not data
        self._unread += data
        while len(self._unread) >= 9 and len(self._unread) >= 9 + (size := int.from_bytes(self._unread[:3])):
            kind, flags, stream = struct.unpack_from(">BBI", self._unread, 3)
            payload, self._unread = self._unread[9 : 9 + size], self._unread[9 + size :]
            self._handle(kind, flags, stream, payload)

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            more = int.from_bytes(payload)
            if stream == 0:
                self._window += more
            else:
                self._windows[stream] = self._windows.get(stream, self._initial) + more
        elif kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == INITIAL_WINDOW_SIZE:
                    self._windows = {stream: window + value - self._initial for stream, window in self._windows.items()}
                    self._initial = value
            self._replies += frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and flags & ACK:
            self.answered_pings += 1
        elif kind == PING:
            self._replies += frame(PING, ACK, 0, payload)
        elif kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
            self.ended.add(stream)

    def call(self, method: str = PREDICT, extra: Sequence[tuple[str, str]] = ()) -> tuple[int, bytes]:
        """The number and the HEADERS frame of a new call, not yet sent."""
        number, self._next = self._next, self._next + 2
        self._windows.setdefault(number, self._initial)
        fields = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *extra,
        )
        return number, frame(HEADERS, END_HEADERS, number, b"".join(field(*one) for one in fields))

    def open(self, method: str = PREDICT, extra: Sequence[tuple[str, str]] = ()) -> int:
        """Begin a call; its number."""
        number, headers = self.call(method, extra)
        self.write(headers)
        return number

    def request(self, method: str, data: bytes) -> int:
        """A whole unary call of a small message; its number."""
        number, headers = self.call(method)
        self.write(headers + frame(DATA, END_STREAM, number, message(len(data), data)))
        return number

    def send_data(self, stream: int, data: bytes) -> int:
        """Send as much of a call's data as the agent has room for now; how much that was."""
        self.read()
        size = max(0, min(len(data), self._window, self._windows[stream], 16384))
        if size:
            self._window -= size
            self._windows[stream] -= size
            self.write(frame(DATA, 0, stream, data[:size]))
        return size
