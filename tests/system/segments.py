"""A client's side of shared memory, for tests: System V's, and POSIX'."""

import ctypes
import os
import struct
from itertools import count
from pathlib import Path
from typing import Any

from edge.rpc._generated import agent_pb2 as pb

_libc = ctypes.CDLL(None, use_errno=True)
_libc.shmat.restype = ctypes.c_void_p
_libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_libc.shmdt.argtypes = (ctypes.c_void_p,)
_libc.shmget.argtypes = (ctypes.c_int, ctypes.c_size_t, ctypes.c_int)
IPC_CREAT, IPC_RMID, IPC_SET = 0o1000, 0, 1
SHMID_DS_BYTES, OWNER_OFFSET, MODE_OFFSET = 112, 4, 20


class Segment:
    """A segment of `size` bytes, made with mode 0600, as clients in the field make theirs; removed at the end."""

    def __init__(self, size: int, mode: int = 0o600) -> None:
        self.size = size
        self.id = _libc.shmget(0, size, IPC_CREAT | mode)
        assert self.id >= 0, ctypes.get_errno()
        self.address = _libc.shmat(self.id, None, 0)
        self.removed = False

    def write(self, data: bytes, offset: int = 0) -> "Segment":
        """Put bytes into it."""
        ctypes.memmove(self.address + offset, data, len(data))
        return self

    def read(self) -> bytes:
        """All of its bytes."""
        return ctypes.string_at(self.address, self.size)

    def set_mode(self, mode: int) -> "Segment":
        """Change who may read and write it."""
        # IPC_SET takes the owner and the mode alone; IPC_STAT may not be asked of a segment that one may not read.
        buffer = ctypes.create_string_buffer(SHMID_DS_BYTES)
        buffer[OWNER_OFFSET : OWNER_OFFSET + 8] = struct.pack("=II", os.geteuid(), os.getegid())
        buffer[MODE_OFFSET : MODE_OFFSET + 2] = mode.to_bytes(2, "little")
        assert _libc.shmctl(self.id, IPC_SET, buffer) == 0
        return self

    def mark_removed(self) -> "Segment":
        """Have it removed once nobody has it attached any more; `remove` is still needed."""
        assert _libc.shmctl(self.id, IPC_RMID, None) == 0
        return self

    def remove(self) -> None:
        """Detach from it and remove it."""
        if not self.removed:
            _libc.shmdt(self.address)
            _libc.shmctl(self.id, IPC_RMID, None)
            self.removed = True

    def __enter__(self) -> "Segment":
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def by_segment(segment: Segment, metadata: Any = None, size: int = 0, offset: int = 0) -> Any:
    """A tensor that lies in a segment."""
    handle = pb.SharedMemoryHandle(size=size, offset=offset, segment_id=segment.id)
    return pb.Tensor(tensor_metadata=metadata, shared_memory_handle=handle)


def segments_there() -> set[int]:
    """The segments that exist."""
    rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {int(row.split()[1]) for row in rows}


class ShmFile:
    """A file of `size` bytes in /dev/shm, made as shm_open makes it; removed at the end."""

    _numbers = count()

    def __init__(self, size: int, mode: int = 0o600) -> None:
        self.key = f"/edge-test-{os.getpid()}-{next(self._numbers)}"
        self.path = Path(f"/dev/shm{self.key}")
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.fchmod(fd, mode)
        os.ftruncate(fd, size)
        os.close(fd)

    def write(self, data: bytes, offset: int = 0) -> "ShmFile":
        """Put bytes into it."""
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        return self

    def read(self) -> bytes:
        """All of its bytes."""
        return self.path.read_bytes()

    def __enter__(self) -> "ShmFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.path.unlink(missing_ok=True)
