"""The files of a package as they stand in a folder or in a `.tar.gz`, read so that no path can lead out of it (L-11)."""

import errno
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from edge.errors import EdgeError, MemoryLimitError, PackageError
from edge.package.bundle import check_path
from edge.package.limits import PackageLimits
from edge.package.manifest import MANIFEST_FILE, SIGNATURE_FILE
from edge.package.tar import Member, TarReader
from edge.text import shown

CHUNK_BYTES = 1 << 20
PACKED_CHUNK_BYTES, UNPACKED_CHUNK_BYTES = 1 << 16, 1 << 18
GZIP_MAGIC = b"\x1f\x8b"
LOST_AND_FOUND = "lost+found"  # mkfs makes it, root's alone, at the top of ext2 to ext4
_GZIP_WINDOW = 31  # zlib's number for gzip's own header and checksum
_NOTHING_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
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
    """The files of a package. Its methods raise PackageError for anything that a package may not contain."""

    def head(self) -> dict[str, bytes]:
        """The manifest and the signature, by file name, where they are there."""
        ...

    def files(self) -> Iterator[PackageFile]:
        """All files, each path once."""
        ...


def open_contents(fd: int, limits: PackageLimits, go_on: Callable[[], None] = lambda: None) -> Contents:
    """The contents of an open folder or archive; `fd` stays the caller's.

    Args:
        fd: of the folder or archive.
        limits: bounds on what is read.
        go_on: called again and again while something is read; to stop it, it raises.

    Raises:
        PackageError: it is neither.
        OSError: it cannot be read.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        return FolderContents(fd, limits, go_on)
    if stat.S_ISREG(mode) and os.pread(fd, 2, 0) == GZIP_MAGIC:
        return ArchiveContents(fd, limits, go_on)
    raise PackageError("a package is a folder, or a .tar.gz of one; this is neither")


def cannot_read(what: str, error: OSError) -> EdgeError:
    """The error for a file of a package that the agent may not read."""
    if error.errno in _NOTHING_LEFT:
        return MemoryLimitError(f"{what} cannot be read now: {error.strerror}")
    if error.errno == errno.EAGAIN:
        return PackageError(f"{what} cannot be read: another process holds a lease on it (fcntl(2)); try again later")
    return PackageError(f"{what} cannot be read: {error.strerror}")


def into_only_folder(fd: int) -> int:
    """The folder in the open folder `fd`, where that holds nothing else: an archive with a top folder was unpacked into it.

    Returns `fd` itself, or in its place the inner one, open.

    Raises:
        PackageError: the inner one cannot be opened.
    """
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        return fd
    with os.scandir(fd) as entries:
        names = [entry.name for entry in islice(entries, 2)]
    if len(names) != 1 or not stat.S_ISDIR(os.stat(names[0], dir_fd=fd, follow_symlinks=False).st_mode):
        return fd
    try:
        inner = open_without_surprise(names[0], dir_fd=fd)
    except OSError as error:
        raise cannot_read(f"the folder {shown(names[0])}", error) from error
    os.close(fd)
    return inner


def open_without_surprise(path: str, *, dir_fd: int | None = None, follow: bool = False) -> int:
    """Open a file or folder for reading; a device or pipe is never opened, only looked at, and a lease is not waited for.

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
        return os.open(f"/proc/self/fd/{looked_at}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(looked_at)


class FolderContents:
    """A package that is a folder; every step goes from an open folder to an entry of it, and follows no link."""

    def __init__(self, fd: int, limits: PackageLimits, go_on: Callable[[], None]) -> None:
        self._fd = fd
        self._limits = limits
        self._go_on = go_on

    def head(self) -> dict[str, bytes]:
        """As `Contents.head`."""
        found = {}
        for name, most in _head_limits(self._limits).items():
            try:
                fd = open_without_surprise(name, dir_fd=self._fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise cannot_read(name, error) from error
            try:
                state = os.fstat(fd)
                if not stat.S_ISREG(state.st_mode):
                    raise PackageError(f"{name} is not a file")
                if state.st_size > most:
                    raise PackageError(f"{name} is larger than {most} bytes")
                found[name] = b"".join(self._read_file(fd, name, state.st_size))
            finally:
                os.close(fd)
        return found

    def files(self) -> Iterator[PackageFile]:
        """As `Contents.files`."""
        counter = _Counter(self._limits)
        yield from self._walk(self._fd, "", counter)

    def _walk(self, folder: int, prefix: str, counter: "_Counter") -> Iterator[PackageFile]:
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in islice(entries, self._limits.max_entries + 1))
        except OSError as error:
            raise cannot_read(f"the folder {shown(prefix or '.')}", error) from error
        for name in names:
            path = prefix + name
            counter.entry(path)
            self._go_on()
            try:
                fd = open_without_surprise(name, dir_fd=folder)
            except OSError as error:
                if path == LOST_AND_FOUND and error.errno == errno.EACCES and _is_roots_folder(path, folder):
                    continue
                raise cannot_read(shown(path), error) from error
            try:
                found = os.fstat(fd)
                if stat.S_ISDIR(found.st_mode):
                    yield from self._walk(fd, path + "/", counter)
                else:
                    counter.file(path, found.st_size)
                    yield PackageFile(path, found.st_size, self._read_file(fd, path, found.st_size))
            finally:
                os.close(fd)

    def _read_file(self, fd: int, path: str, size: int) -> Iterator[bytes]:
        """Data of a file, `size` bytes and no more, however it grows meanwhile."""
        left = size
        while True:
            self._go_on()
            try:
                data = os.read(fd, CHUNK_BYTES)
            except OSError as error:
                raise cannot_read(shown(path), error) from error
            left -= len(data)
            if left < 0:
                raise PackageError(f"{shown(path)} grew while it was read: it had {size} bytes")
            if not data:
                return
            yield data


class ArchiveContents:
    """A package that is a `.tar.gz`, of the files themselves or of one folder that holds them. Nothing is unpacked."""

    def __init__(self, fd: int, limits: PackageLimits, go_on: Callable[[], None]) -> None:
        self._fd = fd
        self._limits = limits
        self._go_on = go_on
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
            if path in seen:
                raise PackageError(f"the archive holds {shown(path)} twice")
            seen.add(path)
            if not member.is_folder:
                counter.file(path, member.size)
                yield PackageFile(path, member.size, reader.chunks())

    def _members(self) -> Iterator[tuple[Member, TarReader]]:
        """Every member of the archive: of the first as of all, no more than a package may have."""
        packed_bytes = os.fstat(self._fd).st_size
        limit = max(self._limits.free_unpacked_bytes, packed_bytes * self._limits.max_unpack_ratio)
        unpack = _Unpacker(self._fd, packed_bytes, min(limit, self._limits.max_total_bytes), self._go_on)
        reader = TarReader(unpack.read)
        for number, member in enumerate(reader, 1):
            self._go_on()
            if number > self._limits.max_entries + 1:  # its own folder, which means nothing, may be one
                raise _too_many(self._limits)
            path = member.path.removeprefix("./")
            path = "" if path == "." else path
            if path and (fault := check_path(path)):
                raise PackageError(f"the archive's member {shown(member.path)} {fault} (L-11)")
            yield Member(path, member.size, member.is_folder), reader
        # To the last byte, so that gzip's checksum is looked at.
        while data := unpack.read(CHUNK_BYTES):
            if data.strip(b"\0"):
                raise PackageError("the archive has data after its end")


class _Unpacker:
    """The content of a gzip file, at most so many bytes; of the file, the bytes that it had at first."""

    def __init__(self, fd: int, packed: int, most: int, go_on: Callable[[], None]) -> None:
        self._fd = fd
        self._at, self._packed = 0, packed
        self._left = self._most = most
        self._go_on = go_on
        self._stream = zlib.decompressobj(_GZIP_WINDOW)
        self._input = self._ready = b""
        self._taken = 0  # of what is ready

    def read(self, size: int) -> bytes:
        """1 to `size` bytes, none at the end."""
        if self._taken == len(self._ready):
            self._ready, self._taken = self._unpack(), 0
        data = self._ready[self._taken : self._taken + size]
        self._taken += len(data)
        return data

    def _unpack(self) -> bytes:
        """Some of the content; none at the end."""
        while True:
            self._go_on()
            if not self._input:
                self._input = self._more()
            if self._stream.eof:
                self._input = self._input.lstrip(b"\0")  # what fills up the blocks of a tape
                if not self._input:
                    if self._at == self._packed:
                        return b""
                    continue
                self._stream = zlib.decompressobj(_GZIP_WINDOW)
            elif not self._input:
                raise PackageError("the archive is cut short or damaged: gzip cannot unpack it")
            try:
                data = self._stream.decompress(self._input, UNPACKED_CHUNK_BYTES)
            except zlib.error as error:
                raise PackageError("the archive is cut short or damaged: gzip cannot unpack it") from error
            self._input = self._stream.unconsumed_tail or self._stream.unused_data
            self._left -= len(data)
            if self._left < 0:
                raise PackageError(
                    f"the archive unpacks to more than {self._most} bytes, the most allowed for its size"
                )
            if data:
                return data

    def _more(self) -> bytes:
        try:
            data = os.pread(self._fd, min(PACKED_CHUNK_BYTES, self._packed - self._at), self._at)
        except OSError as error:
            raise cannot_read("the archive", error) from error
        self._at += len(data)
        if not data:
            self._packed = self._at  # cut short meanwhile
        return data


class _Counter:
    """Counts files and bytes against the limits."""

    def __init__(self, limits: PackageLimits) -> None:
        self._limits = limits
        self._entries = 0
        self._bytes = 0

    def entry(self, path: str) -> None:
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise _too_many(self._limits)
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


def _too_many(limits: PackageLimits) -> PackageError:
    return PackageError(f"the package holds more than {limits.max_entries} files and folders")


def _is_roots_folder(name: str, folder: int) -> bool:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0
