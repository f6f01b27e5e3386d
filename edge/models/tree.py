"""The files of a package where they lie: a folder, or a `.tar.gz` of one. Nothing here is trusted yet.

Only regular files and folders are allowed, and no name leaves the package (L-11). A folder is walked by descriptors, so
that no link put in meanwhile is followed; an archive is read as a stream and never unpacked to disk.
"""

import gzip
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

from edge.errors import PackageError, PackageNotFoundError
from edge.models.manifest import MANIFEST_FILE
from edge.models.signing import safe_name

CHUNK_BYTES = 1 << 20
# The tar reader takes a header's whole body at once; what is larger than this is no header of a package.
MAX_SINGLE_READ_BYTES = 4 << 20


@dataclass(frozen=True)
class PackageLimits:
    """Bounds on a package, whoever signed it."""

    max_files: int = 1000
    max_folders: int = 200
    max_file_bytes: int = 4 << 30
    max_total_bytes: int = 8 << 30


Visit = Callable[[str, int, Iterator[bytes]], None]


class Tree(Protocol):
    """The files of a package."""

    def visit(self, visit: Visit, only: str | None = None) -> None:
        """Call `visit(name, size, chunks)` for every file, or for the one named `only`.

        Raises:
            PackageError: something that a package may not hold, or a broken archive.
        """
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


def local_path(url: str) -> str:
    """The absolute path that a url (plain, or `file://`) names (L-3).

    Raises:
        PackageNotFoundError: it is no local path.
    """
    shown = repr(url[:200])
    path = url
    if "://" in url or url.startswith("file:"):
        try:
            parts = urlsplit(url)
            path = os.fsdecode(unquote_to_bytes(parts.path))
        except (ValueError, UnicodeError):
            raise PackageNotFoundError(f"{shown} is not a url of a local package") from None
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            raise PackageNotFoundError(f"{shown} is not local; expected a path, or file:///path, on this machine")
    if "\0" in path or not path.startswith("/"):
        raise PackageNotFoundError(f"{shown} is not an absolute path")
    return path


def open_tree(url: str, limits: PackageLimits) -> Tree:
    """The package at a url.

    Raises:
        PackageNotFoundError: nothing is there (L-3).
        PackageError: what is there is no package.
    """
    path = local_path(url)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise PackageNotFoundError(f"nothing is at {path[:200]!r}") from None
    except PermissionError:
        raise PackageNotFoundError(f"the agent may not read {path[:200]!r}") from None
    except (OSError, ValueError):
        raise PackageNotFoundError(f"{path[:200]!r} cannot be opened") from None
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        return FolderTree(fd, limits)
    if stat.S_ISREG(mode):
        return ArchiveTree(fd, limits)
    os.close(fd)
    raise PackageError(f"{path[:200]!r} is neither a folder nor a .tar.gz")


class _Count:
    """Keeps a package inside its limits."""

    def __init__(self, limits: PackageLimits) -> None:
        self._limits = limits
        self._files = self._folders = self._bytes = 0

    def folder(self) -> None:
        self._folders += 1
        if self._folders > self._limits.max_folders:
            raise PackageError(f"the package has more than {self._limits.max_folders} folders")

    def file(self, name: str, size: int) -> None:
        self._files += 1
        self._bytes += size
        if self._files > self._limits.max_files:
            raise PackageError(f"the package has more than {self._limits.max_files} files")
        if size > self._limits.max_file_bytes or self._bytes > self._limits.max_total_bytes:
            raise PackageError(f"the package is too large: {name!r} has {size} bytes, of {self._bytes} so far")


class FolderTree:
    """A package in a folder."""

    def __init__(self, fd: int, limits: PackageLimits) -> None:
        self._fd = fd
        self._limits = limits

    def visit(self, visit: Visit, only: str | None = None) -> None:
        """See `Tree.visit`."""
        try:
            self._walk(self._fd, "", visit, only, _Count(self._limits))
        except OSError as error:
            raise PackageError(f"the package cannot be read: {error.strerror}") from None

    def _walk(self, folder: int, prefix: str, visit: Visit, only: str | None, count: _Count) -> None:
        count.folder()
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            full = prefix + name
            if not safe_name(full):
                raise PackageError(f"the package holds {full[:200]!r}, a name that is not allowed")
            kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISDIR(kind):
                with _opened(name, folder, os.O_DIRECTORY) as fd:
                    self._walk(fd, full + "/", visit, only, count)
            elif not stat.S_ISREG(kind):
                raise PackageError(f"the package holds {full[:200]!r}, which is neither a file nor a folder")
            elif only in (None, full):
                with _opened(name, folder, os.O_NONBLOCK) as fd:
                    opened = os.fstat(fd)
                    if not stat.S_ISREG(opened.st_mode):
                        raise PackageError(f"the package's {full[:200]!r} changed while it was read")
                    count.file(full, opened.st_size)
                    visit(full, opened.st_size, _chunks(fd, self._limits.max_file_bytes))

    def close(self) -> None:
        """See `Tree.close`."""
        os.close(self._fd)


@contextmanager
def _opened(name: str, folder: int, flags: int) -> Iterator[int]:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def _chunks(fd: int, most: int) -> Iterator[bytes]:
    read = 0
    while chunk := os.read(fd, CHUNK_BYTES):
        read += len(chunk)
        if read > most:
            raise PackageError("a file of the package grew while it was read")
        yield chunk


class _Bounded:
    """The unpacked stream of an archive, in bounded steps and to a bounded end."""

    def __init__(self, raw: BinaryIO, most: int) -> None:
        self._raw = raw
        self._most = most

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_SINGLE_READ_BYTES:
            raise tarfile.TarError("a header is too large")
        data = self._raw.read(size)
        self._check()
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and offset > self._most:
            raise tarfile.TarError("the archive is too large")
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def _check(self) -> None:
        if self._raw.tell() > self._most:
            raise tarfile.TarError("the archive is too large")


class ArchiveTree:
    """A package in a `.tar.gz`, at its top or in one folder."""

    def __init__(self, fd: int, limits: PackageLimits) -> None:
        self._file = os.fdopen(fd, "rb")
        self._limits = limits
        self._prefix: str | None = None

    def visit(self, visit: Visit, only: str | None = None) -> None:
        """See `Tree.visit`."""
        try:
            if self._prefix is None:
                self._prefix = _common_prefix([name for name, _, _ in self._members()])
            for name, member, archive in self._members():
                inside = name.removeprefix(self._prefix)
                if only not in (None, inside):
                    continue
                body = archive.extractfile(member)
                if body is None:
                    raise PackageError(f"the package holds {name[:200]!r}, which is not a file")
                visit(inside, member.size, iter(lambda body=body: body.read(CHUNK_BYTES), b""))  # type: ignore[misc]
        except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise PackageError(f"the package is not a whole .tar.gz: {reason[:200]}") from None

    def _members(self) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
        count, seen = _Count(self._limits), set()
        self._file.seek(0)
        # Headers and padding come on top of the files' own bytes.
        most = self._limits.max_total_bytes + self._limits.max_files * 4096
        with gzip.GzipFile(fileobj=self._file) as unpacked:
            bounded: BinaryIO = _Bounded(unpacked, most)  # type: ignore[assignment,arg-type]
            with tarfile.TarFile(fileobj=bounded, mode="r", encoding="utf-8", errors="strict") as archive:
                while (member := archive.next()) is not None:
                    name = member.name.removeprefix("./").rstrip("/")
                    if member.isdir() and name in ("", "."):
                        continue
                    if not safe_name(name):
                        raise PackageError(f"the package holds {name[:200]!r}, a name that is not allowed")
                    if member.isdir():
                        count.folder()
                        continue
                    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
                        raise PackageError(f"the package holds {name[:200]!r}, which is neither a file nor a folder")
                    count.file(name, member.size)
                    if name in seen:
                        raise PackageError(f"the package holds {name[:200]!r} twice")
                    seen.add(name)
                    yield name, member, archive

    def close(self) -> None:
        """See `Tree.close`."""
        self._file.close()


def _common_prefix(names: list[str]) -> str:
    """The one folder that everything is in, with its slash; empty where the package is at the top."""
    if MANIFEST_FILE in names or not names:
        return ""
    first = names[0].partition("/")[0] + "/"
    return first if all(name.startswith(first) for name in names) else ""
