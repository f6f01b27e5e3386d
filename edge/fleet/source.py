"""Where a fleet's files come from: a folder here; `edge.fleet.web` has servers. Both bound every file (F-4)."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from edge import durable
from edge.errors import FleetError

CHUNK_BYTES = 1 << 16  # read of a file at a time
METADATA = "metadata/"  # the folder of signed metadata in a repository
TARGETS = "targets/"  # the folder of documents and packages


class SourceError(FleetError):
    """A file did not come whole. `missing`: it is not there; `retry_after`: the server names a time in seconds."""

    def __init__(self, text: str, *, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after

    @property
    def missing(self) -> bool:
        """Whether it is simply not there; a bucket without the right to list says 403."""
        return self.status in (403, 404)


@dataclass(frozen=True)
class Got:
    """An answer: `unchanged` where the etag was that one; `start` where its bytes begin in the file."""

    unchanged: bool
    etag: str
    start: int
    chunks: Callable[[], Iterator[bytes]]


class Source(Protocol):
    """A repository's files, by their path in it. One thread reads; `abort` may come from another."""

    @contextmanager
    def open(self, path: str, *, most: int, start: int = 0, etag: str = "") -> Iterator[Got]:
        """A file from `start` on, or from its beginning where the other side cannot do that; more than `most` bytes are an error.

        Raises:
            SourceError: it does not come.
        """
        ...

    def abort(self) -> None:
        """End what is under way: it fails soon."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


def read(source: Source, path: str, most: int) -> bytes:
    """A small file as a whole.

    Raises:
        SourceError: it does not come, or is larger.
    """
    with source.open(path, most=most) as got:
        return b"".join(got.chunks())


class Folder:
    """A folder or a stick: a repository like any other (F-15)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._aborted = False

    @contextmanager
    def open(self, path: str, *, most: int, start: int = 0, etag: str = "") -> Iterator[Got]:
        """See `Source`. The etag of a small file is that of its bytes: sticks keep no times."""
        place = self._folder / unquote(path)
        with ExitStack() as held:
            with _told(place):
                file = held.enter_context(durable.reader(place))
                size = os.fstat(file.fileno()).st_size
            if size > most:
                raise SourceError(f"{place} has {size} bytes; at most {most} are read")
            start, tag = min(start, size), ""
            if path.endswith("timestamp.json"):
                with _told(place):
                    tag = hashlib.sha256(file.read(most)).hexdigest()
            yield Got(bool(tag) and tag == etag, tag, start, lambda: self._chunks(place, file, start, most))

    def _chunks(self, place: Path, file: BinaryIO, start: int, most: int) -> Iterator[bytes]:
        """A file that grows meanwhile is read no further than `most` bytes."""
        with _told(place):
            file.seek(start)
        left = most - start
        while True:
            if self._aborted:
                raise SourceError("reading was ended")
            with _told(place):
                chunk = file.read(min(CHUNK_BYTES, left + 1))
            if not chunk:
                return
            left -= len(chunk)
            if left < 0:
                raise SourceError(f"{place} has grown; at most {most} bytes are read")
            yield chunk

    def abort(self) -> None:
        self._aborted = True

    def close(self) -> None:
        pass


@contextmanager
def _told(place: Path) -> Iterator[None]:
    """What fails is the reading of that file; whoever takes its bytes tells of his own failures."""
    try:
        yield
    except FileNotFoundError:
        raise SourceError(f"there is no {place}", status=404) from None
    except OSError as error:
        raise SourceError(f"{place} cannot be read: {durable.why(error)}") from None


def folder_of(repository: str) -> Path | None:
    """The folder that a repository is, given as a path or a file:// url; None where it is a server's."""
    parts = urlsplit(repository)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(repository) if repository.startswith("/") else None
