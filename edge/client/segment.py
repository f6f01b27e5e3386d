"""A client's System V shared-memory segment, in the order that the agent demands (P-3, P-11).

    with Segment(array.nbytes) as segment:
        segment.write(array.data)
        segment.make_read_only(peer_credentials(socket))
        handle = segment.segment_id

Writable only by its owner while it is filled, by nobody afterwards, and removed on leaving the block.
"""

import ctypes
import errno
import os
import struct
from types import TracebackType

IPC_PRIVATE = 0
_IPC_CREAT = 0o1000
_IPC_RMID, _IPC_SET, _IPC_STAT = 0, 1, 2
_SHMAT_FAILED = ctypes.c_void_p(-1).value
_SHMID_DS_BYTES = 256  # struct shmid_ds takes at most 112 on Linux; the rest is room
_PERM = struct.Struct("=IIIII")  # struct ipc_perm from offset 4: uid, gid, cuid, cgid, mode

MODE_WRITING = 0o600
MODE_OWNER_READS = 0o400
MODE_GROUP_READS = 0o440

_libc = ctypes.CDLL(None, use_errno=True)
_libc.shmget.argtypes = (ctypes.c_int, ctypes.c_size_t, ctypes.c_int)
_libc.shmat.restype = ctypes.c_void_p
_libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_libc.shmdt.argtypes = (ctypes.c_void_p,)
_libc.shmctl.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


def _failure(doing: str) -> OSError:
    number = ctypes.get_errno()
    hint = "; the limits are in /proc/sys/kernel/shm*" if number in (errno.ENOSPC, errno.ENOMEM, errno.EINVAL) else ""
    return OSError(number, f"shared memory: {doing}: {os.strerror(number)}{hint}")


class Segment:
    """A new private segment of `size` bytes, mode 0600.

    Raises:
        OSError: the system has no room for it; its limits are in /proc/sys/kernel/shm*.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.segment_id = _libc.shmget(IPC_PRIVATE, max(1, size), _IPC_CREAT | MODE_WRITING)
        if self.segment_id < 0:
            raise _failure(f"making a segment of {size} bytes")
        self._address: int | None = _libc.shmat(self.segment_id, None, 0)
        if self._address in (None, _SHMAT_FAILED):
            error = _failure("attaching the new segment")
            self._address = None
            self.close()
            raise error

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Copies `data`, at most `size` bytes, to the start of the segment.

        Raises:
            ValueError: there is more data than room, or the segment is closed.
        """
        view = memoryview(data)
        if view.nbytes > self.size or self._address is None:
            raise ValueError(f"{view.nbytes} bytes do not go into a segment of {self.size if self._address else 0}")
        memory = memoryview((ctypes.c_ubyte * max(1, self.size)).from_address(self._address)).cast("B")
        memory[: view.nbytes] = view.cast("B") if view.nbytes else b""

    def make_read_only(self, reader: tuple[int, int] | None = None) -> None:
        """Takes every write permission away.

        `reader` is the agent's user and group id: when the agent is another user, the segment gets that group and mode
        0440, otherwise mode 0400.
        """
        status = ctypes.create_string_buffer(_SHMID_DS_BYTES)
        if _libc.shmctl(self.segment_id, _IPC_STAT, status) != 0:
            raise _failure("asking about the segment")
        uid, gid, cuid, cgid, _ = _PERM.unpack_from(status, 4)
        mode = MODE_OWNER_READS
        if reader is not None and reader[0] not in (0, os.geteuid()):
            mode, gid = MODE_GROUP_READS, reader[1]
        _PERM.pack_into(status, 4, uid, gid, cuid, cgid, mode)
        if _libc.shmctl(self.segment_id, _IPC_SET, status) != 0:
            raise _failure(f"setting the segment's mode to {mode:04o}")

    def close(self) -> None:
        """Detaches and removes the segment; the agent may still be reading it."""
        if self._address is not None:
            _libc.shmdt(self._address)
            self._address = None
        if self.segment_id >= 0:
            _libc.shmctl(self.segment_id, _IPC_RMID, None)
            self.segment_id = -1

    def __enter__(self) -> "Segment":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
