"""Regions of POSIX shared memory that clients registered (O-17 to O-20): files in /dev/shm, read and written by descriptor.

Nothing of them is mapped: a client may cut its file short at any time, and who touches a page that is gone has SIGBUS. To read
one that was cut short says so. docs/adr/0032-posix-shared-memory.md weighs it.
"""

import ctypes
import os
import stat
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from edge.access import has_list
from edge.clock import Clock
from edge.durable import why
from edge.errors import RegionExistsError, RegionNotFoundError, RegionsFullError, SharedMemoryError
from edge.shm.buffers import Buffer, Buffers
from edge.shm.checks import FileStatus, file_name
from edge.shm.peers import SHM_FOLDER
from edge.shm.sysv import JUDGED_SECONDS
from edge.text import shown

MAX_REGIONS = 128  # each holds a descriptor
MAX_REGION_BYTES = 1 << 30  # of all regions together: they keep memory of clients that are gone
MAX_NAME_CHARACTERS = 256  # of a region
UNLINKED_SECONDS = 60.0  # without use, until a region whose file was removed is dropped: its client is gone

_TMPFS = 0x01021994  # linux/magic.h
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_STATFS = struct.Struct("=q")  # struct statfs begins with f_type, on x86-64 and aarch64 alike
_STATFS_ROOM = 256
_libc = ctypes.CDLL(None, use_errno=True)


class FilePeers(Protocol):
    """What is asked of the clients that are connected."""

    def check_file(self, what: str, status: FileStatus, *, writing: bool) -> None:
        """Raises SharedMemoryError where one of them could not read the file itself, or write it."""
        ...


@dataclass(slots=True, eq=False)
class Region:
    """A registered part of a file; `offset` and `size` in bytes."""

    name: str
    key: str
    offset: int
    size: int
    fd: int
    writable: bool  # by the agent
    status: FileStatus
    used: float  # when, last
    judged: dict[bool, float] = field(default_factory=dict)  # when all clients could read (False), write (True) it
    users: int = 0
    dropped: bool = False

    @property
    def words(self) -> str:
        """What it is called in a refusal."""
        return f"shared memory region {shown(self.name)} ({shown(self.key)})"


def _open(key: str) -> tuple[int, bool]:
    """A descriptor of a file in /dev/shm, and whether it can be written by.

    Raises:
        SharedMemoryError: there is none that is a region's.
    """
    name, what = file_name(key), f"shared memory key {shown(key)}"
    for mode in (os.O_RDWR, os.O_RDONLY):
        try:
            fd = os.open(f"{SHM_FOLDER}/{name}", mode | _OPEN)
        except PermissionError:
            continue
        except OSError as error:
            raise SharedMemoryError(f"{what}: it cannot be opened in {SHM_FOLDER}: {why(error)}") from None
        try:
            _check_kind(fd, what)
        except BaseException:
            os.close(fd)
            raise
        return fd, mode == os.O_RDWR
    raise SharedMemoryError(
        f"{what}: not readable by the agent; run both as one user, or give the file the agent's group and mode 0660"
    )


def _check_kind(fd: int, what: str) -> None:
    buffer = ctypes.create_string_buffer(_STATFS_ROOM)
    on_tmpfs = _libc.fstatfs(fd, buffer) == 0 and _STATFS.unpack_from(buffer)[0] == _TMPFS
    if not stat.S_ISREG(os.fstat(fd).st_mode) or not on_tmpfs:
        raise SharedMemoryError(f"{what}: expected a file in memory, made by shm_open")


def _status(fd: int) -> tuple[int, FileStatus]:
    found = os.fstat(fd)
    return found.st_size, FileStatus(found.st_mode, found.st_uid, found.st_gid)


class Regions:
    """The regions, by the names that clients gave them, which hold for every client. Safe to use from any thread."""

    def __init__(self, clock: Clock, peers: FilePeers | None = None) -> None:
        """Without `peers` nobody is asked who is connected."""
        self._clock = clock
        self._peers = peers
        self._lock = threading.Lock()
        self._regions: dict[str, Region] = {}
        self.buffers = Buffers(clock)

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Make a part of the file that a key of shm_open(3) means usable by a name.

        Raises:
            SharedMemoryError: it may not be read by every client, or is no such part.
            RegionExistsError, RegionsFullError: there is no room for it.
        """
        if not 0 < len(name) <= MAX_NAME_CHARACTERS:
            raise SharedMemoryError(
                f"shared memory region {shown(name)}: expected a name of 1 to {MAX_NAME_CHARACTERS} characters"
            )
        with self._lock:
            self._check_room(name, size)
            fd, writable = _open(key)
            try:
                there, status = _status(fd)
                region = Region(name, key, offset, size, fd, writable, status, self._clock.monotonic())
                self._judge(region, status, writing=False)
                if not size or offset > there or size > there - offset:
                    raise SharedMemoryError(
                        f"{region.words}: offset {offset} and size {size} are no part of it; it has {there} bytes"
                    )
            except BaseException:
                os.close(fd)
                raise
            self._regions[name] = region

    def _check_room(self, name: str, size: int) -> None:
        if name in self._regions:
            raise RegionExistsError(f"shared memory region {shown(name)} is registered already; unregister it first")
        if len(self._regions) >= MAX_REGIONS:
            raise RegionsFullError(f"{MAX_REGIONS} shared memory regions are registered already, the most there may be")
        taken = sum(region.size for region in self._regions.values())
        if taken + size > MAX_REGION_BYTES:
            raise RegionsFullError(
                f"shared memory region {shown(name)}: its {size} bytes and the {taken} of those that are registered are more than "
                f"{MAX_REGION_BYTES}, the most there may be"
            )

    def unregister(self, name: str = "") -> None:
        """Forget a region, or without a name all of them; one that is not there is no fault."""
        with self._lock:
            for found in [name] if name else list(self._regions):
                if region := self._regions.get(found):
                    self._drop(region)

    def registered(self, name: str = "") -> list[Region]:
        """A region, or without a name all of them.

        Raises:
            RegionNotFoundError: there is none of that name.
        """
        if not name:
            return list(self._regions.values())
        return [self._get(name)]

    def read(self, name: str, offset: int, size: int) -> Buffer:
        """`size` bytes from `offset` of a region, in a buffer to be given back to `buffers`.

        Raises:
            RegionNotFoundError: there is none of that name.
            SharedMemoryError: they are not in it, not there any more, or may not be read by every client.
        """
        region = self._begin_use(name, offset, size, writing=False)
        try:
            buffer = self.buffers.take(size)
            done, start = 0, region.offset + offset
            while done < size:
                got = os.preadv(region.fd, [buffer.memory[done:size]], start + done)
                if not got:
                    self.buffers.give_back(buffer)
                    raise _cut_short(region, start, size)
                done += got
            return buffer
        finally:
            self._end_use(region)

    def write(self, name: str, offset: int, data: memoryview) -> None:
        """Put bytes at `offset` of a region.

        Raises:
            RegionNotFoundError, SharedMemoryError: as `read`; or they may not be written by every client.
        """
        region = self._begin_use(name, offset, len(data), writing=True)
        try:
            # A file that is cut short from here on is made as long again as it was registered; that is its client's own doing.
            done = 0
            while done < len(data):
                done += os.pwritev(region.fd, [data[done:]], region.offset + offset + done)
        except OSError as error:
            raise SharedMemoryError(f"{region.words}: it cannot be written: {why(error)}") from None
        finally:
            self._end_use(region)

    def _get(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise RegionNotFoundError(f"no shared memory region {shown(name)} is registered")
        return region

    def _begin_use(self, name: str, offset: int, size: int, *, writing: bool) -> Region:
        with self._lock:
            region = self._get(name)
            if offset + size > region.size:
                raise SharedMemoryError(
                    f"{region.words}: offset {offset} and size {size} reach past its end; {region.size} bytes are registered"
                )
            there, status = _status(region.fd)
            now = self._clock.monotonic()
            if status != region.status or now - region.judged.get(writing, -JUDGED_SECONDS) >= JUDGED_SECONDS:
                self._judge(region, status, writing=writing)
            start = region.offset + offset
            if start + size > there:
                raise _cut_short(region, start, size)
            region.users += 1
            region.used = now
            return region

    def _judge(self, region: Region, status: FileStatus, *, writing: bool) -> None:
        if has_list(region.fd):
            raise SharedMemoryError(
                f"{region.words}: the file has an access control list, by which the agent does not judge; take it away (setfacl -b)"
            )
        if writing and not region.writable:
            raise SharedMemoryError(
                f"{region.words}: not writable by the agent; run both as one user, or give the file the agent's group and mode 0660 "
                "before it is registered"
            )
        if self._peers is not None:
            self._peers.check_file(region.words, status, writing=writing)
        if status != region.status:
            region.status, region.judged = status, {}
        region.judged[writing] = self._clock.monotonic()

    def _end_use(self, region: Region) -> None:
        with self._lock:
            region.users -= 1
            if region.dropped and not region.users:
                os.close(region.fd)

    def _drop(self, region: Region) -> None:
        """With the lock held."""
        del self._regions[region.name]
        region.dropped = True
        if not region.users:
            os.close(region.fd)

    def sweep(self) -> None:
        """Drop what nobody can be using any more; call it about once a second."""
        self.buffers.sweep()
        if not self._regions:
            return
        with self._lock:
            now = self._clock.monotonic()
            for region in list(self._regions.values()):
                if region.users or now - region.used < UNLINKED_SECONDS:
                    continue
                with suppress(OSError):
                    if os.fstat(region.fd).st_nlink == 0:
                        self._drop(region)

    def close(self) -> None:
        """Forget all."""
        self.unregister()


def _cut_short(region: Region, start: int, size: int) -> SharedMemoryError:
    return SharedMemoryError(
        f"{region.words}: it was cut short since it was registered: it no longer has the {size} bytes at {start}"
    )
