"""A repository's files in a bucket of S3, or of a store that speaks its API.

Objects appear whole or not at all, and no lock is needed: new metadata is stored on the condition that nobody has stored a
file of that name, timestamp.json on the condition that it is the one that was read (If-None-Match, If-Match). Of two
commands at once one is refused. A store that ignores conditions leaves the look before the first of them
(`FleetRepository.write`), and a moment after it.
"""

import contextlib
import io
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from edge.clock import Clock
from edge.cloud.aws.reading import S3Reader
from edge.cloud.aws.s3 import S3Store
from edge.cloud.retry import next_try
from edge.cloud.store import Bandwidth, Body, BytesBody, StoreError, Throttle
from edge.fleet.change import TIMESTAMP
from edge.fleet.files import MAX_FILE_BYTES, ChangedError, Entry, FleetRepositoryError, MissingFileError

_CHANGED = {"PreconditionFailed", "412"}
_UNKNOWN = {"NotImplemented", "501"}  # from a store that has no conditions
_MISSING = {"NoSuchKey", "404"}
_EVEN_CHANCE = 0.5  # of the jitter: one operator is no crowd
_FRESH = {"cache-control": "max-age=60"}  # of timestamp.json, for caches between the bucket and the boards
Got = TypeVar("Got")


class BucketFiles:
    """The objects of a bucket whose keys begin with a prefix. One thread uses it."""

    def __init__(self, store: S3Store, reader: S3Reader, prefix: str, clock: Clock) -> None:
        self._store = store
        self._reader = reader
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._clock = clock
        self._pace = Throttle(Bandwidth(0, clock), threading.Event())
        self._etags: dict[str, str] = {}  # of what was read
        self._notes: tempfile.TemporaryDirectory[str] | None = None

    def at(self, path: str) -> str:
        """As `Files`."""
        return self._store.uri(self._prefix + path)

    def entries(self, under: str) -> Iterator[Entry]:
        """As `Files`."""
        try:
            for one in self._reader.objects(self._prefix + under):
                yield Entry(one.key.removeprefix(self._prefix), one.size, one.modified)
        except StoreError as error:
            raise FleetRepositoryError(f"{self.at(under)}: {error}") from None

    def read(self, path: str, most: int = MAX_FILE_BYTES) -> bytes:
        """As `Files`."""
        file = io.BytesIO()
        try:
            self._etags[path] = self._reader.get(self._prefix + path, file, most)
        except StoreError as error:
            kind = MissingFileError if error.code in _MISSING else FleetRepositoryError
            raise kind(f"{self.at(path)}: {error}") from None
        return file.getvalue()

    def put(self, path: str, given: bytes | Path) -> None:
        """As `Files`."""
        with self._told(path):
            if isinstance(given, bytes):
                self._again(lambda: self._put(path, BytesBody(given)))
                return
            if self._notes is None:  # of parts that are stored: a broken link costs the one under way
                self._notes = tempfile.TemporaryDirectory(prefix="fleet-")
                self._store.keep_notes_in(Path(self._notes.name))
            body = Body(given, given.stat().st_size)
            try:
                self._again(lambda: self._put(path, body))
            except BaseException:
                self._store.forget(self._prefix + path)
                with contextlib.suppress(StoreError):
                    self._store.tidy(self._pace)
                raise

    def create(self, path: str, data: bytes) -> None:
        """As `Files`."""
        self._conditional(path, data, {"if-none-match": "*"})

    def replace(self, path: str, data: bytes) -> None:
        """As `Files`."""
        etag = self._etags.get(path, "")
        self._conditional(path, data, {"if-match": etag} if etag else {})

    def remove(self, path: str) -> None:
        """As `Files`."""
        with self._told(path):
            self._again(lambda: self._store.remove(self._prefix + path, self._pace))

    def close(self) -> None:
        """As `Files`."""
        self._store.close()
        self._reader.close()
        if self._notes is not None:
            self._notes.cleanup()

    def _put(self, path: str, body: Body, more: Mapping[str, str] | None = None) -> None:
        kind = "application/json" if path.endswith(".json") else "application/gzip"
        self._store.put(self._prefix + path, body, kind, self._pace, more)

    def _conditional(self, path: str, data: bytes, condition: Mapping[str, str]) -> None:
        more = dict(_FRESH) if path.endswith(TIMESTAMP) else {}
        with self._told(path):
            try:
                self._again(lambda: self._put(path, BytesBody(data), {**more, **condition}))
            except StoreError as error:
                if error.code in _UNKNOWN and condition:
                    self._again(lambda: self._put(path, BytesBody(data), more))
                elif error.code not in _CHANGED:
                    raise
                elif self.read(path) != data:  # it is what an earlier try has stored, whose answer was lost
                    raise ChangedError(self.at(path)) from None

    def _again(self, act: Callable[[], Got]) -> Got:
        """Do it, and again where a moment's fault was in the way."""
        tries = 0
        while True:
            tries += 1
            try:
                return act()
            except StoreError as error:
                delay = next_try(error.verdict, tries, _EVEN_CHANCE)
                if delay is None:
                    raise
                self._clock.wait(threading.Event(), delay)

    @contextlib.contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            raise FleetRepositoryError(f"{self.at(path)}: {error}") from None
        except OSError as error:
            raise FleetRepositoryError(f"{error.filename or self.at(path)}: {error.strerror or error}") from None
