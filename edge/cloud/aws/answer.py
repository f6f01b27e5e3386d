"""Reading an answer with bounds: `http.client` has none on an answer as a whole, in time, bytes or interim answers."""

import http.client
import io
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge.clock import Clock
from edge.cloud.aws.faults import TransportError, faults
from edge.cloud.retry import Fault

MAX_ANSWER_BYTES = 1 << 16  # of the body of a store's answer that is read whole
MAX_WIRE_BYTES = 4 * MAX_ANSWER_BYTES  # of such an answer in all: interim answers, headers and body
MAX_HEAD_BYTES = 1 << 18  # of an answer that is read in pieces, not counting its content
CHUNK_BYTES = 1 << 16
RATE_SECONDS = 30.0  # of waiting for a peer, over which its rate is measured


@dataclass(frozen=True)
class Patience:
    """How long a peer may take, in seconds: to be reached, without a byte going or coming, and for an answer in all.

    A peer that takes a body slowly has `stall_seconds` for each chunk of it.
    """

    connect_seconds: float = 10.0
    stall_seconds: float = 30.0
    answer_seconds: float = 60.0


@dataclass(frozen=True)
class Bounds:
    """Of an answer that is read in pieces: bytes of content, seconds in all, and the least mean rate over each
    `RATE_SECONDS` of waiting for it (time that the reader spends does not count; 0: none)."""

    max_bytes: int
    seconds: float
    least_bytes_per_second: float = 0.0


class _Lines:
    """A reader that remembers the last line it gave, so that headers that just end can be told from complete ones."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._file.readline(limit)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Bounded(io.RawIOBase):
    """What comes from a socket, bounded in bytes and in time as a whole: each single byte may come in time for ever."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, clock: Clock, patience: Patience) -> None:
        self._sock, self._raw, self._clock, self._stall = sock, raw, clock, patience.stall_seconds
        self._seconds = patience.answer_seconds
        self._ends = clock.monotonic() + self._seconds
        self._left = MAX_WIRE_BYTES
        self._least = 0.0
        self._bytes = 0
        self._since = (0, 0.0)  # bytes and seconds of waiting, since the rate was looked at

    def widen(self, bounds: Bounds) -> None:
        """Take other bounds from here on; the time counts from now."""
        self._seconds, self._least = bounds.seconds, bounds.least_bytes_per_second
        self._ends = self._clock.monotonic() + bounds.seconds
        self._left = 2 * bounds.max_bytes + MAX_HEAD_BYTES  # with the heads of chunks; `Stream` counts the content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._left < 0:
            raise TransportError(Fault.ENDLESS, f"{self._bytes} bytes of it came")
        begun = self._clock.monotonic()
        left = self._ends - begun
        try:
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(min(left, self._stall))
            count = self._raw.readinto(buffer)
        except TimeoutError:
            if left >= self._stall:
                raise
            raise TransportError(Fault.ENDLESS, f"{self._seconds:g} s have passed") from None
        self._bytes += count or 0
        self._left -= count or 0
        if self._least:
            self._look_at_rate(count or 0, self._clock.monotonic() - begun)
        return count

    def _look_at_rate(self, count: int, seconds: float) -> None:
        came, waited = self._since[0] + count, self._since[1] + seconds
        self._since = (came, waited)
        if waited >= RATE_SECONDS:
            self._since = (0, 0.0)
            if came < self._least * waited:
                raise TransportError(Fault.SLOW, f"{came} bytes in {waited:.0f} s")

    def close(self) -> None:
        self._raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    """An answer whose reading is bounded, and whose headers must be whole."""

    def __init__(self, sock: socket.socket, *arguments: Any, clock: Clock, patience: Patience, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._bounded = _Bounded(sock, self.fp.detach(), clock, patience)
        self._lines = _Lines(io.BufferedReader(self._bounded))
        self.fp = self._lines  # type: ignore[assignment]

    def begin(self) -> None:
        """Read status line and headers."""
        super().begin()
        if self._lines.last not in (b"\r\n", b"\n"):
            self.close()
            raise TransportError(Fault.TRUNCATED)

    def widen(self, bounds: Bounds) -> None:
        """Take other bounds for the content."""
        self._bounded.widen(bounds)

    def named(self) -> dict[str, str]:
        """The headers, names in lower case."""
        return {name.lower(): value for name, value in self.getheaders()}


class Stream:
    """An answer that is read in pieces. `length` is what Content-Length says, None where it says nothing."""

    def __init__(self, response: Response, bounds: Bounds) -> None:
        self.status = response.status
        self.headers = response.named()
        self.length: int | None = response.length
        self.whole = response.length == 0  # all of it was read
        self._response = response
        self._bounds = bounds
        response.widen(bounds)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The content, as it comes, at most `chunk_bytes` at a time.

        Raises:
            TransportError: it did not come whole, or is over its bounds.
        """
        came, most = 0, self._bounds.max_bytes
        if self.length is not None and self.length > most:
            raise TransportError(Fault.ENDLESS, f"it has {self.length} bytes, expected at most {most}")
        while not self.whole:
            with faults():
                chunk = self._response.read1(chunk_bytes)
            if not chunk:
                if self._response.length:
                    raise TransportError(Fault.TRUNCATED)
                self.whole = True
                return
            came += len(chunk)
            if came > most:
                raise TransportError(Fault.ENDLESS, f"more than {most} bytes came")
            yield chunk
