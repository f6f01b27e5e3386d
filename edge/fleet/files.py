"""A repository's files, as its operator reads and changes them: in a folder here; `edge.fleet.bucket_files` has buckets."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from edge import durable
from edge.errors import EdgeError
from edge.fleet.source import Got, SourceError

MAX_FILE_BYTES = 16 << 20  # of a repository's file that an operator's command reads


class FleetRepositoryError(EdgeError):
    """The repository cannot be read or changed so."""


class UnreadableFileError(FleetRepositoryError):
    """One file cannot be read; others may be."""


class MissingFileError(UnreadableFileError):
    """There is no such file."""


class ChangedError(FleetRepositoryError):
    """Somebody else has changed the repository in between."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} has been changed by another command meanwhile; what was before is in force, run it again"
        )


@dataclass(frozen=True)
class Entry:
    """A file by its path in the repository, its length in bytes, and when it was written (seconds since the epoch)."""

    path: str
    size: int
    modified: float


class Files(Protocol):
    """Files by their path below the repository. Every method may raise FleetRepositoryError."""

    def at(self, path: str) -> str:
        """A file's name for messages."""
        ...

    def entries(self, under: str) -> Iterator[Entry]:
        """The files whose path begins with `under`, which ends with a slash."""
        ...

    def read(self, path: str, most: int = MAX_FILE_BYTES) -> bytes:
        """A file, whole.

        Raises:
            MissingFileError: there is none.
        """
        ...

    def put(self, path: str, given: bytes | Path) -> None:
        """Write a file, replacing any other; `given` is its bytes, or a file that has them."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Create a file that does not exist yet.

        Raises:
            ChangedError: it is.
        """
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Replace a file, unless it changed since `read`.

        Raises:
            ChangedError: it is another by now.
        """
        ...

    def remove(self, path: str) -> None:
        """Remove a file, if it exists."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


class FolderFiles:
    """The files below a folder. Who changes them has its lock (`edge.client.fleet_lock`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def at(self, path: str) -> str:
        return str(self.folder / path)

    def entries(self, under: str) -> Iterator[Entry]:
        for folder, folders, names in os.walk(self.folder / under):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                try:
                    status = path.lstat()
                except FileNotFoundError:
                    continue
                yield Entry(str(path.relative_to(self.folder)), status.st_size, status.st_mtime)

    def read(self, path: str, most: int = MAX_FILE_BYTES) -> bytes:
        try:
            with durable.reader(self.folder / path) as file:
                data = file.read(most + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise MissingFileError(f"{self.at(path)}: No such file or directory") from None
        except OSError as error:
            raise UnreadableFileError(f"{self.at(path)}: {durable.why(error)}") from None
        if len(data) > most:
            raise UnreadableFileError(f"{self.at(path)} has more than {most} bytes")
        return data

    def put(self, path: str, given: bytes | Path) -> None:
        target = self.folder / path
        with self._told(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(given, bytes):
                durable.write_file(target, given)
            else:
                _copy(given, target)

    def create(self, path: str, data: bytes) -> None:
        if (self.folder / path).exists():
            raise ChangedError(self.at(path))
        self.put(path, data)

    def replace(self, path: str, data: bytes) -> None:
        self.put(path, data)

    def remove(self, path: str) -> None:
        with self._told(path):
            (self.folder / path).unlink(missing_ok=True)

    def close(self) -> None:
        pass

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FleetRepositoryError(f"{error.filename or self.at(path)}: {durable.why(error)}") from None


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(target.name + durable.TEMPORARY)
    try:
        shutil.copyfile(source, temporary)
        durable.fsync_file(temporary)
        durable.rename_all([(temporary, target)])
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


class Reading:
    """Files as a device reads them: a `Source` of small ones."""

    def __init__(self, files: Files) -> None:
        self._files = files

    @contextmanager
    def open(self, path: str, *, most: int, start: int = 0, etag: str = "") -> Iterator[Got]:
        """See `Source`."""
        try:
            data = self._files.read(unquote(path), most)
        except MissingFileError as error:
            raise SourceError(str(error), status=404) from None
        except FleetRepositoryError as error:
            raise SourceError(str(error)) from None
        yield Got(False, "", 0, lambda: iter((data,)))

    def abort(self) -> None:
        """Nothing is under way in another thread."""

    def close(self) -> None:
        """Whoever made the files closes them."""
