"""The seam between uploads and whoever stores objects: what a store does, and which one a configuration asks for."""

import hashlib
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge import durable
from edge.clock import Clock
from edge.cloud.retry import Verdict

CHUNK_BYTES = 1 << 16  # held of a body at a time

UPLOAD_GONE = "NoSuchUpload"  # the code of an error: what was stored in parts does not count any more


class StoreError(Exception):
    """A store did not take an object; `verdict` says what to do, `code` is the store's own word or, for
    want of one, the status; empty where there was no answer."""

    def __init__(self, verdict: Verdict, code: str = "") -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict
        self.code = code


class StoppedError(Exception):
    """The upload is to end now."""


@dataclass(frozen=True)
class Digest:
    """SHA-256 in lower-case hex, and CRC-32, of a body."""

    sha256: str
    crc32: int


class Body:
    """The bytes of an object: a file, or ranges of it as (offset, length), read a chunk at a time.

    Reading raises OSError; a file that became shorter gives fewer bytes than `size`.
    """

    def __init__(self, path: Path, size: int, ranges: Sequence[tuple[int, int]] | None = None) -> None:
        self.path = path
        self.ranges = [(0, size)] if ranges is None else list(ranges)
        self.size = sum(length for _, length in self.ranges)

    def part(self, offset: int, size: int) -> "Body":
        """`size` of its bytes from `offset`, or fewer where it ends."""
        ranges = []
        for start, length in self.ranges:
            skipped = min(offset, length)
            taken = min(size, length - skipped)
            if taken:
                ranges.append((start + skipped, taken))
            offset, size = offset - skipped, size - taken
        return Body(self.path, self.size, ranges)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The bytes, at most `chunk_bytes` at a time."""
        fd = durable.open_regular(self.path)
        try:
            for start, length in self.ranges:
                at, end = start, start + length
                while at < end:
                    chunk = os.pread(fd, min(chunk_bytes, end - at), at)
                    if not chunk:
                        return
                    at += len(chunk)
                    yield chunk
        finally:
            os.close(fd)

    def digest(self) -> Digest:
        """Read it all.

        Raises:
            OSError: it cannot be read, or is shorter than `size`.
        """
        sha256, crc32, size = hashlib.sha256(), 0, 0
        for chunk in self.chunks():
            sha256.update(chunk)
            crc32 = zlib.crc32(chunk, crc32)
            size += len(chunk)
        if size != self.size:
            raise OSError(f"{self.path.name} has {size} bytes, expected {self.size}")
        return Digest(sha256.hexdigest(), crc32)


class BytesBody(Body):
    """A body that is held."""

    def __init__(self, data: bytes) -> None:
        super().__init__(Path(), len(data))
        self._data = data

    def part(self, offset: int, size: int) -> "BytesBody":
        """As `Body`."""
        return BytesBody(self._data[offset : offset + size])

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """As `Body`."""
        return (self._data[at : at + chunk_bytes] for at in range(0, self.size, chunk_bytes))


class Pace(Protocol):
    """Holds an upload back to a bandwidth, and hears how it gets on."""

    chunk_bytes: int

    def pay(self, count: int) -> None:
        """Wait until `count` more bytes may be sent.

        Raises:
            StoppedError: the upload is to end.
        """
        ...

    def taken(self) -> None:
        """The store has taken a part of the object, and keeps it for when the object is put again."""
        ...


class Bandwidth:
    """At most `bytes_per_second` (0: no limit) of all who share it, evenly. For any thread."""

    def __init__(self, bytes_per_second: int, clock: Clock) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock.monotonic()
        # Chunks a quarter of a second apart: a store would take a longer silence for a stall.
        self.chunk_bytes = min(CHUNK_BYTES, max(256, bytes_per_second // 4)) if bytes_per_second else CHUNK_BYTES

    def pay(self, count: int, stop: threading.Event) -> None:
        """Wait until `count` more bytes may be sent or taken.

        Raises:
            StoppedError: `stop` is set.
        """
        if self._rate:
            with self._lock:  # each gets a time of its own, in the order of asking
                now = self._clock.monotonic()
                at = max(self._free_at, now)
                self._free_at = at + count / self._rate
            if at > now:
                self._clock.wait(stop, at - now)
        if stop.is_set():
            raise StoppedError


class Throttle:
    """A share of a bandwidth, until `stop` is set. A `Pace`."""

    def __init__(self, bandwidth: Bandwidth, stop: threading.Event) -> None:
        self._bandwidth = bandwidth
        self._stop = stop
        self.chunk_bytes = bandwidth.chunk_bytes

    def pay(self, count: int) -> None:
        """Wait until `count` more bytes may be sent.

        Raises:
            StoppedError: the upload is to end.
        """
        self._bandwidth.pay(count, self._stop)

    def taken(self) -> None:
        """Nothing to do."""


class ObjectStore(Protocol):
    """Where objects go. For any thread, but an object is put by one at a time."""

    def keep_notes_in(self, folder: Path) -> None:
        """Where to keep what must be known after a restart; called before the first `put`. The folder need not be there."""
        ...

    def put(self, key: str, body: Body, content_type: str, pace: Pace) -> None:
        """Store an object, whole or not at all; returns once the store has acknowledged it.

        Raises:
            StoreError: it is not stored, or nobody knows whether it is; a repetition does no harm.
            StoppedError: `pace` said so.
            OSError: the body cannot be read.
        """
        ...

    def forget(self, key: str) -> None:
        """An object will not be put again, though it is not stored."""
        ...

    def tidy(self, pace: Pace) -> None:
        """Give back what the store keeps of objects that will not be put again, because they are forgotten or their file
        is gone. For when nothing is under way.

        Raises:
            StoreError: some of it is still there.
            StoppedError: `pace` said so.
        """
        ...

    def check(self) -> None:
        """Look for what would stop every upload and can be seen from here.

        Raises:
            StoreError: with what to do about it.
        """
        ...

    def abort(self) -> None:
        """End what is under way: a call of `put` fails soon."""
        ...

    def close(self) -> None:
        """Close connections; the next `put` opens new ones."""
        ...

    def uri(self, key: str) -> str:
        """How records refer to an object."""
        ...
