"""System V shared memory of client processes, attached read-only (P-11).

Attaching costs page faults on every page touched, so attachments are kept. A kept attachment cannot go stale: while it
lives the kernel keeps the segment and its id together, so the id cannot come to mean another segment. Every use asks
the kernel anew (IPC_STAT) for owner, mode and removal, and checks them where they are not what was found good before, or
where that is a while ago, for other clients may be connected by now; a removed segment is detached at once, an unused one by
`sweep`, so that the agent never holds a client's memory for long.
"""

import ctypes
import errno
import mmap
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edge.clock import Clock
from edge.errors import SharedMemoryError
from edge.shm.checks import MAX_SEGMENT_ID, SHM_DEST, SegmentStatus, check_mode, check_range
from edge.shm.peers import Peers
from edge.shm.unwritten import Account, unwritten_bytes, whole_pages
from edge.tensors import READABLE_BEHIND_BYTES, Data, Lent

_IPC_STAT = 2
_SHM_RDONLY = 0o10000
_FAILED = ctypes.c_void_p(-1).value  # of mmap and shmat
_SHMID_DS_BYTES = 112  # struct shmid_ds on 64-bit Linux (asm-generic/shmbuf.h): x86-64 and aarch64 alike
_SHMID_DS = struct.Struct("=20xI24xQ32xQ")  # mode at 20, shm_segsz at 48, shm_nattch at 88
_PERMISSIONS = slice(0, 24)  # struct ipc64_perm as far as the mode: key, owner, creator, mode

KEEP_UNUSED_SECONDS = 2.0
JUDGED_SECONDS = 0.1  # that a check of a segment holds, also for clients that connect meanwhile; it walks all sockets
ATTACH_ATTEMPTS = 4
MAX_KEPT = 64  # segments that stay attached; further ones are attached and detached by each call

_libc = ctypes.CDLL(None, use_errno=True)
_libc.shmat.restype = ctypes.c_void_p
_libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_libc.shmdt.argtypes = (ctypes.c_void_p,)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
# A microsecond's system call on every Predict: giving up the interpreter lock for it would cost far more.
_shmctl = ctypes.PyDLL(None, use_errno=True).shmctl
_shmctl.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


def _refused(segment_id: int, number: int) -> SharedMemoryError:
    if number in (errno.EINVAL, errno.EIDRM):
        return SharedMemoryError(f"shared memory segment {segment_id}: no such segment")
    if number == errno.EACCES:
        return SharedMemoryError(
            f"shared memory segment {segment_id}: not readable by the agent; run both as one user, or give the segment "
            "mode 0440 and the agent's group"
        )
    return SharedMemoryError(
        f"shared memory segment {segment_id}: cannot be attached ({errno.errorcode.get(number, number)})"
    )


def segment_status(segment_id: int) -> SegmentStatus:
    """What the kernel says of a segment now.

    Raises:
        SharedMemoryError: there is none of that id, or the agent may not read it.
    """
    if not 0 <= segment_id <= MAX_SEGMENT_ID:
        raise SharedMemoryError(f"shared memory segment {segment_id}: no such segment")
    buffer = ctypes.create_string_buffer(_SHMID_DS_BYTES)
    if _shmctl(segment_id, _IPC_STAT, buffer) != 0:
        raise _refused(segment_id, ctypes.get_errno())
    mode, size, attached = _SHMID_DS.unpack_from(buffer)
    return SegmentStatus(size, mode & 0xFFFF, buffer.raw[_PERMISSIONS], attached)


_ZEROS_BYTES = whole_pages(READABLE_BEHIND_BYTES)
_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


@dataclass(slots=True)
class Attachment:
    """A segment in the agent's memory."""

    segment_id: int
    address: int
    memory: memoryview
    size: int
    permissions: bytes  # as they were when they were checked
    lendable: bool
    users: int = 0
    used: bool = True  # since the last sweep
    unused_since: float = 0.0
    judged: float = 0.0  # when it was last found good, for all clients that were connected then
    doomed: bool = False
    unwritten: int = 0  # bytes that did not exist when its use began
    making: int = 0  # of them, those that its use may make

    def data(self, offset: int, size: int) -> Data:
        """A part of it, to be used where it is if that can be."""
        memory = self.memory[offset : offset + size]
        return Lent(memory, self.address + offset) if self.lendable else memory


def _attach(segment_id: int, status: SegmentStatus) -> Attachment:
    address = _attach_before_zeros(segment_id, status.size)
    lendable = address is not None
    if address is None:
        address = _libc.shmat(segment_id, None, _SHM_RDONLY)
        if address == _FAILED or address is None:
            raise _refused(segment_id, ctypes.get_errno())
    memory = memoryview((ctypes.c_ubyte * status.size).from_address(address)).cast("B").toreadonly()
    attachment = Attachment(segment_id, address, memory, status.size, status.permissions, lendable)
    # The id may have come to mean another segment just before the attach, smaller or somebody else's; from here on it cannot.
    try:
        now = segment_status(segment_id)
        if (now.size, now.permissions) != (status.size, status.permissions):
            raise SharedMemoryError(f"shared memory segment {segment_id}: it was changed or replaced during the call")
    except BaseException:
        _detach(attachment)
        raise
    return attachment


def _attach_before_zeros(segment_id: int, size: int) -> int | None:
    """Attach a segment where zeros follow, for an engine that is lent its memory may read past its end (`Lent`).

    None where that cannot be done.
    """
    room = whole_pages(size)
    for _ in range(ATTACH_ATTEMPTS):
        address: int | None = _libc.mmap(None, room + _ZEROS_BYTES, mmap.PROT_READ, _ANONYMOUS, -1, 0)
        if address == _FAILED or address is None:
            return None
        _libc.munmap(address, room)
        # Into the gap, and nothing else: it fails where another thread has filled it meanwhile, and where the id has come to
        # mean a segment that is too large for it.
        if _libc.shmat(segment_id, address, _SHM_RDONLY) == address:
            return address
        _libc.munmap(address + room, _ZEROS_BYTES)
    return None


def _detach(attachment: Attachment) -> None:
    _libc.shmdt(attachment.address)
    if attachment.lendable:
        _libc.munmap(attachment.address + whole_pages(attachment.size), _ZEROS_BYTES)


class SegmentReader:
    """Read-only access to clients' segments; safe to use from any thread."""

    def __init__(self, clock: Clock, peers: Peers | None = None) -> None:
        """`peers`: who may be calling; None where all callers are this process itself."""
        self._clock = clock
        self._peers = peers
        self._lock = threading.Lock()
        self._account = Account()
        self._kept: dict[int, Attachment] = {}
        self._status = ctypes.create_string_buffer(_SHMID_DS_BYTES)

    @contextmanager
    def view(self, segment_id: int, offset: int, size: int) -> Iterator[memoryview]:
        """`size` bytes from `offset` of a segment, for the length of the `with` block only.

        Raises, on entry:
            SharedMemoryError: no such segment, not readable, writable or executable by anyone, or out of range (P-3).
        """
        attachment = self.take(segment_id, offset, size)
        try:
            yield attachment.memory[offset : offset + size]
        finally:
            self.give_back(attachment)

    def take(self, segment_id: int, offset: int, size: int) -> Attachment:
        """Check a segment and attach it where it is not attached yet; each `take` needs its `give_back`.

        Raises:
            SharedMemoryError: as `view`.
        """
        with self._lock:
            now = self._clock.monotonic()
            attachment = self._kept.get(segment_id)
            if (
                attachment is None
                or now - attachment.judged > JUDGED_SECONDS
                or not self._unchanged(segment_id, attachment)
                or offset + size > attachment.size
            ):
                attachment = self._checked(segment_id, offset, size)
                attachment.judged = now
            attachment.users += 1
            attachment.used = True
            try:
                if attachment.unwritten:
                    self._expect_to_make(attachment, size)
            except SharedMemoryError:
                self._end_use(attachment)
                raise
            return attachment

    def _expect_to_make(self, attachment: Attachment, size: int) -> None:
        """Count the pages that a use of `size` bytes may make by reading them."""
        segment_id = attachment.segment_id
        if not attachment.making:
            attachment.unwritten = unwritten_bytes(segment_id, attachment.size)
        most = min(attachment.unwritten - attachment.making, whole_pages(size) + mmap.PAGESIZE)
        self._account.take(segment_id, most)
        attachment.making += most

    def _unchanged(self, segment_id: int, attachment: Attachment) -> bool:
        """Whether owner and mode still are what was found good; the size of a segment never changes."""
        status = self._status
        return _shmctl(segment_id, _IPC_STAT, status) == 0 and status.raw[_PERMISSIONS] == attachment.permissions

    def _checked(self, segment_id: int, offset: int, size: int) -> Attachment:
        status = segment_status(segment_id)
        check_mode(segment_id, status)
        check_range(segment_id, status, offset, size)
        if self._peers is not None:
            self._peers.check(segment_id, status)
        removed = bool(status.mode & SHM_DEST)
        attachment = self._kept.get(segment_id)
        if attachment is not None and removed and status.attached <= 1:
            # It is there for the agent's sake alone.
            attachment.users, attachment.doomed = attachment.users + 1, True
            self._end_use(attachment)
            raise _refused(segment_id, errno.EIDRM)
        if attachment is not None:
            attachment.permissions = status.permissions
            attachment.doomed = attachment.doomed or removed
            return attachment
        attachment = _attach(segment_id, status)
        attachment.unwritten = unwritten_bytes(segment_id, status.size)
        if removed or len(self._kept) >= MAX_KEPT:
            attachment.doomed = True
        else:
            self._kept[segment_id] = attachment
        return attachment

    def give_back(self, attachment: Attachment) -> None:
        """The end of a use that `take` began; its bytes may be gone from now on."""
        with self._lock:
            self._end_use(attachment)

    def _end_use(self, attachment: Attachment) -> None:
        attachment.users -= 1
        if attachment.users:
            return
        if attachment.making:
            left = unwritten_bytes(attachment.segment_id, attachment.size)
            made = min(attachment.making, max(0, attachment.unwritten - left))
            self._account.give_back(attachment.segment_id, attachment.making - made)
            attachment.making, attachment.unwritten = 0, left
        if attachment.doomed:
            if self._kept.get(attachment.segment_id) is attachment:
                del self._kept[attachment.segment_id]
            _detach(attachment)

    def sweep(self) -> None:
        """Detach what is unused or removed; call it about once a second."""
        now = self._clock.monotonic()
        with self._lock:
            for segment_id, attachment in list(self._kept.items()):
                if attachment.used or attachment.users:
                    attachment.used, attachment.unused_since = False, now
                if attachment.users:
                    continue
                if now - attachment.unused_since >= KEEP_UNUSED_SECONDS or _removed(segment_id):
                    del self._kept[segment_id]
                    _detach(attachment)

    def close(self) -> None:
        """Detach everything that no call is using."""
        with self._lock:
            for segment_id, attachment in list(self._kept.items()):
                attachment.doomed = True
                if not attachment.users:
                    del self._kept[segment_id]
                    _detach(attachment)

    @property
    def kept(self) -> int:
        """How many attachments are kept."""
        return len(self._kept)


def _removed(segment_id: int) -> bool:
    try:
        return bool(segment_status(segment_id).mode & SHM_DEST)
    except SharedMemoryError:
        return True
