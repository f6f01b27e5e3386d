"""Regions of POSIX shared memory that clients registered (O-17 to O-20): files in /dev/shm.

A client may cut its file short at any time, and who touches a mapped page that is gone has SIGBUS. So regions are read and written
by descriptor, which says so, but for an inference that reads a large input where it lies: `lend` maps that, and edge.shm.guard
watches over it. docs/adr/0032-posix-shared-memory.md and 0043-mapped-regions.md weigh it.
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
from edge.shm.guard import Guard
from edge.shm.mapping import LentFile, Mapping, is_written, map_part
from edge.shm.peers import SHM_FOLDER
from edge.shm.sysv import JUDGED_SECONDS, KEEP_UNUSED_SECONDS
from edge.text import shown

MAX_REGIONS = 128  # registered regions; each holds a descriptor
MAX_REGION_BYTES = 1 << 30  # of all registered regions together, for they outlive their clients
MAX_NAME_CHARACTERS = 256  # of a region's name
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
    mapping: Mapping | None = None
    written_blocks: int = 0  # those that the file had when the region had all of its pages

    @property
    def words(self) -> str:
        """What it is called in a refusal."""
        return f"shared memory region {shown(self.name)} ({shown(self.key)})"


@dataclass(slots=True, eq=False)
class Loan:
    """A part of a region that an inference reads where it lies; `end` is where it ends in the file."""

    region: Region
    mapping: Mapping
    lent: LentFile
    end: int


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


def _status(fd: int) -> tuple[os.stat_result, FileStatus]:
    found = os.fstat(fd)
    return found, FileStatus(found.st_mode, found.st_uid, found.st_gid)


class Regions:
    """The regions, by the names that clients gave them, which hold for every client. Safe to use from any thread."""

    def __init__(self, clock: Clock, peers: FilePeers | None = None, guard: Guard | None = None) -> None:
        """Without `peers` nobody is asked who is connected; without a `guard` nothing is mapped."""
        self._clock = clock
        self._peers = peers
        self._guard = guard
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
                found, status = _status(fd)
                there = found.st_size
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
        region, _ = self._begin_use(name, offset, size, writing=False)
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

    def lend(self, name: str, offset: int, size: int, alignment: int) -> Loan | None:
        """`size` bytes from `offset` of a region where they lie, until `take_back`; None where they must be read.

        For an engine alone, which gives up the interpreter lock while it touches them, and wants them at a multiple of `alignment`.

        Raises:
            RegionNotFoundError, SharedMemoryError: as `read`.
        """
        if self._guard is None:
            return None
        region, found = self._begin_use(name, offset, size, writing=False)
        loan = None
        try:
            # Engines read past the end, and so may touch what was cut behind this part.
            whole = region.offset + region.size <= found.st_size
            if whole and not (region.offset + offset) % alignment and _is_written(region, found):
                loan = self._lent(region, offset, size, found.st_ctime_ns)
        finally:
            if loan is None:
                self._end_use(region)
        return loan

    def _lent(self, region: Region, offset: int, size: int, changed: int) -> Loan | None:
        with self._lock:
            mapping = region.mapping
            if mapping is None or mapping.cut:
                made = map_part(region.fd, region.offset, region.size)
                if made is None:
                    return None
                made.changed = changed
                _unmap(mapping)
                mapping = region.mapping = made
            if self._guard is None or not self._guard.begin(mapping):
                return None
            return Loan(region, mapping, mapping.lent(offset, size), region.offset + offset + size)

    def take_back(self, loan: Loan) -> SharedMemoryError | None:
        """The end of a `lend`, and what to say where the file was cut short meanwhile: what was read of it is nothing then."""
        region, mapping = loan.region, loan.mapping
        loan.lent.over = True
        assert self._guard is not None  # noqa: S101 - else nothing was lent
        with self._lock:
            found = os.fstat(region.fd)
            self._guard.end(mapping, found.st_ctime_ns)
            if region.mapping is not mapping:
                _unmap(mapping)
            mapping.unused_since = self._clock.monotonic()
            self._release(region)
        if mapping.cut or found.st_size < loan.end:
            return _cut_short(region, loan.end - loan.lent.size, loan.lent.size)
        return None

    def write(self, name: str, offset: int, data: memoryview) -> None:
        """Put bytes at `offset` of a region.

        Raises:
            RegionNotFoundError, SharedMemoryError: as `read`; or they may not be written by every client.
        """
        region, _ = self._begin_use(name, offset, len(data), writing=True)
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

    def _begin_use(self, name: str, offset: int, size: int, *, writing: bool) -> tuple[Region, os.stat_result]:
        with self._lock:
            region = self._get(name)
            if offset + size > region.size:
                raise SharedMemoryError(
                    f"{region.words}: offset {offset} and size {size} reach past its end; {region.size} bytes are registered"
                )
            found, status = _status(region.fd)
            now = self._clock.monotonic()
            if status != region.status or now - region.judged.get(writing, -JUDGED_SECONDS) >= JUDGED_SECONDS:
                self._judge(region, status, writing=writing)
            start = region.offset + offset
            if start + size > found.st_size:
                raise _cut_short(region, start, size)
            region.users += 1
            region.used = now
            return region, found

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
            self._release(region)

    def _release(self, region: Region) -> None:
        """With the lock held."""
        region.users -= 1
        if region.dropped and not region.users:
            _close(region)

    def _drop(self, region: Region) -> None:
        """With the lock held."""
        del self._regions[region.name]
        region.dropped = True
        if not region.users:
            _close(region)

    def sweep(self) -> None:
        """Drop what nobody can be using any more; call it about once a second."""
        self.buffers.sweep()
        if not self._regions:
            return
        with self._lock:
            now = self._clock.monotonic()
            for region in list(self._regions.values()):
                if region.users:
                    continue
                if region.mapping is not None and now - region.mapping.unused_since >= KEEP_UNUSED_SECONDS:
                    _unmap(region.mapping)
                    region.mapping = None
                if now - region.used < UNLINKED_SECONDS:
                    continue
                with suppress(OSError):
                    if os.fstat(region.fd).st_nlink == 0:
                        self._drop(region)

    def close(self) -> None:
        """Forget all."""
        self.unregister()


def _is_written(region: Region, found: os.stat_result) -> bool:
    """Whether the region has all of its pages; those that nobody wrote would be made by reading, on the agent's account."""
    if not region.written_blocks or found.st_blocks < region.written_blocks:
        region.written_blocks = found.st_blocks if is_written(region.fd, region.offset, region.size) else 0
    return region.written_blocks > 0


def _unmap(mapping: Mapping | None) -> None:
    if mapping is not None and not mapping.users:
        mapping.unmap()


def _close(region: Region) -> None:
    """Of no users."""
    _unmap(region.mapping)
    os.close(region.fd)


def _cut_short(region: Region, start: int, size: int) -> SharedMemoryError:
    return SharedMemoryError(
        f"{region.words}: it was cut short since it was registered: it no longer has the {size} bytes at {start}"
    )
