"""A part of a client's file in the agent's memory, read-only, with zeros behind it."""

import ctypes
import mmap
import os
from dataclasses import dataclass

from edge.shm.unwritten import whole_pages
from edge.tensors import READABLE_BEHIND_BYTES, Lent

_ZEROS_BYTES = whole_pages(READABLE_BEHIND_BYTES)
_ZEROS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_FIXED = 0x10  # MAP_FIXED in asm-generic/mman-common.h; Python has no name for it

_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_munmap = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_memcpy = _libc.memcpy
_memcpy.restype = ctypes.c_void_p
_memcpy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


class LentFile(Lent):
    """Bytes of a client's file, for the length of an inference; as `memory` they are a copy, which is made where it is asked for."""

    __slots__ = ("_size", "over")

    def __init__(self, address: int, size: int) -> None:
        self.address, self._size = address, size
        self.over = False  # it is not to be touched any more

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    @property
    def memory(self) -> memoryview:  # type: ignore[override]
        """A copy, made without the interpreter lock.

        Raises:
            ValueError: the inference is over.
        """
        if self.over:
            raise ValueError("a client's file is read after the inference for which it was lent")
        own = (ctypes.c_ubyte * self._size)()
        _memcpy(own, self.address, self._size)
        return memoryview(own).cast("B").toreadonly()


@dataclass(slots=True, eq=False)
class Mapping:
    """Whole pages of a file from `address` on, `room` bytes; what was asked for begins `lead` bytes later.

    To touch it may need edge.shm.guard.Guard, and never the interpreter lock.
    """

    address: int
    room: int
    lead: int
    fd: int
    end: int  # in the file: as many bytes it must have
    changed: int = 0  # the file's ctime when it was looked at last, in nanoseconds
    users: int = 0  # inferences
    unused_since: float = 0.0
    cut: bool = False  # zeros lie over it

    def lent(self, offset: int, size: int) -> "LentFile":
        """Some of its bytes."""
        return LentFile(self.address + self.lead + offset, size)

    def cover(self) -> bool:
        """Lay zeros over it, for good; false where the system refuses that."""
        covered: bool = _mmap(self.address, self.room, mmap.PROT_READ, _ZEROS | _FIXED, -1, 0) == self.address
        self.cut |= covered
        return covered

    def unmap(self) -> None:
        """Give the addresses back; nobody may use it any more."""
        _munmap(self.address, self.room + _ZEROS_BYTES)


def map_part(fd: int, offset: int, size: int) -> Mapping | None:
    """`size` bytes from `offset` of a file; None where the system refuses that."""
    lead = offset % mmap.PAGESIZE
    room = whole_pages(lead + size)
    address: int | None = _mmap(None, room + _ZEROS_BYTES, mmap.PROT_READ, _ZEROS, -1, 0)
    if address is None or address == _FAILED:
        return None
    # Over the zeros that are there for it: nobody else can have got these addresses meanwhile.
    if _mmap(address, room, mmap.PROT_READ, mmap.MAP_SHARED | _FIXED, fd, offset - lead) != address:
        _munmap(address, room + _ZEROS_BYTES)
        return None
    return Mapping(address, room, lead, fd, offset + size)


def is_written(fd: int, offset: int, size: int) -> bool:
    """Whether a part of a file in memory has all of its pages: to touch one that nobody wrote would make it."""
    try:
        return os.lseek(fd, offset, os.SEEK_HOLE) >= offset + size
    except OSError:  # it ends before this part
        return False
