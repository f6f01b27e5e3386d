"""The files of a package as they stand in a folder or in a `.tar.gz`, read so that no path can lead out of it (L-11)."""

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from edge.errors import PackageError
from edge.models.bundle import check_path
from edge.models.limits import PackageLimits
from edge.models.manifest import MANIFEST_FILE, SIGNATURE_FILE
from edge.models.tar import Member, TarReader
from edge.text import shown

CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclass(frozen=True)
class PackageFile:
    """A file of a package: its path within, its size in bytes as announced, and its data, to be read once and now."""

    path: str
    size: int
    chunks: Iterator[bytes]


class Contents(Protocol):
    """What a package holds. Its methods raise PackageError for whatever a package may not have."""

    def head(self) -> dict[str, bytes]:
        """The manifest and the signature, by file name, where they are there."""
        ...

    def files(self) -> Iterator[PackageFile]:
        """All files, each path once."""
        ...


def open_contents(fd: int, limits: PackageLimits) -> Contents:
    """The contents of an open folder or archive; `fd` stays the caller's.

    Raises:
        PackageError: it is neither.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        return FolderContents(fd, limits)
    if stat.S_ISREG(mode) and os.pread(fd, 2, 0) == GZIP_MAGIC:
        return ArchiveContents(fd, limits)
    raise PackageError("a package is a folder, or a .tar.gz of one; this is neither")


def open_without_surprise(path: str, *, dir_fd: int | None = None, follow: bool = False) -> int:
    """Open a file or folder for reading; a device or pipe is never opened, only looked at.

    Raises:
        OSError: as open(2).
        PackageError: it is neither file nor folder.
    """
    flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    looked_at = os.open(path, flags, dir_fd=dir_fd)
    try:
        kind = stat.S_IFMT(os.fstat(looked_at).st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise PackageError(f"{shown(path)} is {_KINDS.get(kind, 'neither a file nor a folder')} (L-11)")
        return os.open(f"/proc/self/fd/{looked_at}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(looked_at)


class FolderContents:
    """A package that is a folder; every step goes from an open folder to an entry of it, and follows no link."""

    def __init__(self, fd: int, limits: PackageLimits) -> None:
        self._fd = fd
        self._limits = limits

    def head(self) -> dict[str, bytes]:
        """As `Contents.head`."""
        found = {}
        for name, most in _head_limits(self._limits).items():
            try:
                fd = open_without_surprise(name, dir_fd=self._fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise PackageError(f"{name} cannot be read: {error.strerror}") from error
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise PackageError(f"{name} is not a file")
                found[name] = b"".join(_read_file(fd, name, most))
            finally:
                os.close(fd)
        return found

    def files(self) -> Iterator[PackageFile]:
        """As `Contents.files`."""
        counter = _Counter(self._limits)
        yield from self._walk(self._fd, "", counter)

    def _walk(self, folder: int, prefix: str, counter: "_Counter") -> Iterator[PackageFile]:
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            raise PackageError(f"the folder {shown(prefix or '.')} cannot be read: {error.strerror}") from error
        for name in names:
            path = prefix + name
            counter.entry(path)
            try:
                fd = open_without_surprise(name, dir_fd=folder)
            except OSError as error:
                raise PackageError(f"{shown(path)} cannot be read: {error.strerror}") from error
            try:
                found = os.fstat(fd)
                if stat.S_ISDIR(found.st_mode):
                    yield from self._walk(fd, path + "/", counter)
                else:
                    counter.file(path, found.st_size)
                    yield PackageFile(path, found.st_size, _read_file(fd, path, self._limits.max_file_bytes))
            finally:
                os.close(fd)


class ArchiveContents:
    """A package that is a `.tar.gz`, of the files themselves or of one folder that holds them. Nothing is unpacked."""

    def __init__(self, fd: int, limits: PackageLimits) -> None:
        self._fd = fd
        self._limits = limits
        self._top: str | None = None  # the folder in the archive that is the package, "" or ending in "/"

    def head(self) -> dict[str, bytes]:
        """As `Contents.head`; reads on until it has both, which in our archives are the first two."""
        most = _head_limits(self._limits)
        found: dict[str, bytes] = {}
        for member, reader in self._members():
            top, _, name = member.path.rpartition("/")
            if name not in most or member.is_folder or "/" in top or name in found:
                continue
            if self._top is None:
                self._top = top and top + "/"
            if member.path != self._top + name:
                continue
            if member.size > most[name]:
                raise PackageError(f"{name} is larger than {most[name]} bytes")
            found[name] = b"".join(reader.chunks())
            if len(found) == len(most):
                break
        return found

    def files(self) -> Iterator[PackageFile]:
        """As `Contents.files`."""
        counter = _Counter(self._limits)
        seen: set[str] = set()
        top = self._top or ""
        for member, reader in self._members():
            if member.is_folder and (member.path + "/" == top or not member.path):
                continue
            if not member.path.startswith(top):
                raise PackageError(f"the archive holds {shown(member.path)} outside the package's folder {shown(top)}")
            path = member.path.removeprefix(top)
            counter.entry(path)
            if path in seen:
                raise PackageError(f"the archive holds {shown(path)} twice")
            seen.add(path)
            if not member.is_folder:
                counter.file(path, member.size)
                yield PackageFile(path, member.size, reader.chunks())

    def _members(self) -> Iterator[tuple[Member, TarReader]]:
        os.lseek(self._fd, 0, os.SEEK_SET)
        packed_bytes = os.fstat(self._fd).st_size
        limit = max(self._limits.free_unpacked_bytes, packed_bytes * self._limits.max_unpack_ratio)
        with open(self._fd, "rb", closefd=False) as file, gzip.GzipFile(fileobj=file) as stream:
            unpack = _Unpacker(stream, min(limit, self._limits.max_total_bytes))
            reader = TarReader(unpack.read)
            for member in reader:
                path = member.path.removeprefix("./")
                path = "" if path == "." else path
                if path and (fault := check_path(path)):
                    raise PackageError(f"the archive's member {shown(member.path)} {fault} (L-11)")
                yield Member(path, member.size, member.is_folder), reader
            # To the last byte, so that gzip's checksum is looked at.
            while data := unpack.read(CHUNK_BYTES):
                if data.strip(b"\0"):
                    raise PackageError("the archive goes on after its end")


class _Unpacker:
    """A gzip stream of at most so many bytes."""

    def __init__(self, stream: gzip.GzipFile, most: int) -> None:
        self._stream = stream
        self._left = most
        self._most = most

    def read(self, size: int) -> bytes:
        """1 to `size` bytes, none at the end."""
        try:
            data = self._stream.read(min(size, CHUNK_BYTES))
        except (EOFError, zlib.error, OSError) as error:
            raise PackageError("the archive is cut short or damaged: gzip cannot unpack it") from error
        self._left -= len(data)
        if self._left < 0:
            raise PackageError(f"the archive unpacks to more than {self._most} bytes, the most allowed for its size")
        return data


class _Counter:
    """Holds a walk to the limits."""

    def __init__(self, limits: PackageLimits) -> None:
        self._limits = limits
        self._entries = 0
        self._bytes = 0

    def entry(self, path: str) -> None:
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise PackageError(f"the package holds more than {self._limits.max_entries} files and folders")
        if fault := check_path(path):
            raise PackageError(f"the package's path {shown(path)} {fault} (L-11)")

    def file(self, path: str, size: int) -> None:
        if size > self._limits.max_file_bytes:
            raise PackageError(f"{shown(path)} is larger than {self._limits.max_file_bytes} bytes")
        self._bytes += size
        if self._bytes > self._limits.max_total_bytes:
            raise PackageError(f"the package is larger than {self._limits.max_total_bytes} bytes")


def _head_limits(limits: PackageLimits) -> dict[str, int]:
    return {MANIFEST_FILE: limits.max_manifest_bytes, SIGNATURE_FILE: limits.max_signature_bytes}


def _read_file(fd: int, path: str, most: int) -> Iterator[bytes]:
    """Data of a file, at most `most` bytes, however it grows meanwhile."""
    total = 0
    while True:
        try:
            data = os.read(fd, CHUNK_BYTES)
        except OSError as error:
            raise PackageError(f"{shown(path)} cannot be read: {error.strerror}") from error
        total += len(data)
        if total > most:
            raise PackageError(f"{shown(path)} is larger than {most} bytes")
        if not data:
            return
        yield data
