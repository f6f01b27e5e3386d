"""Memory for tensors as LiteRT wants it: aligned, with room behind each for kernels that read past the end."""

import ctypes
import mmap
from collections.abc import Sequence

from edge.engine.litert_api import ALIGNMENT_BYTES, READ_BEHIND_BYTES
from edge.errors import MemoryLimitError
from edge.tensors import Data, Lent

_libc = ctypes.CDLL(None)  # gives up the interpreter lock
_memcpy = _libc.memcpy
_memcpy.argtypes, _memcpy.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_void_p


class _Buffer(ctypes.Structure):
    """Py_buffer, part of Python's stable interface since 3.11."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("owner", ctypes.c_void_p),
        ("size", ctypes.c_ssize_t),
        ("item_size", ctypes.c_ssize_t),
        ("read_only", ctypes.c_int),
        ("dimensions", ctypes.c_int),
        ("rest", ctypes.c_void_p * 5),
    )


_get = ctypes.pythonapi.PyObject_GetBuffer
_get.argtypes, _get.restype = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int), ctypes.c_int
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes, _release.restype = (ctypes.POINTER(_Buffer),), None


def address_of(data: object) -> int:
    """Where the bytes of an object are that stays as it is while the address is used, writable or not."""
    buffer = _Buffer()
    _get(data, ctypes.byref(buffer), 0)
    address: int = buffer.address or 0
    _release(ctypes.byref(buffer))
    return address


def copy(address: int, size: int, data: Data) -> None:
    """Copy a tensor's bytes without the interpreter lock.

    Raises:
        ValueError: it has another size.
    """
    given = data.size if isinstance(data, Lent) else len(data)
    if given != size:
        raise ValueError(f"got {given} bytes, expected {size}")
    _memcpy(address, data.address if isinstance(data, Lent) else address_of(data), size)


class Arena:
    """Zeroed memory for some tensors."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """
        Raises:
            MemoryLimitError: the system does not give so much.
        """
        self.places: list[int] = []  # each tensor's address
        total = 0
        for size in sizes:
            self.places.append(total)
            total += -(-(size + READ_BEHIND_BYTES) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        try:
            # Private: shared memory is counted as the system's, not as this process's.
            mapped = mmap.mmap(-1, max(total, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError, ValueError):
            raise MemoryLimitError(f"there is no memory for the model's inputs and outputs ({total} bytes)") from None
        memory = memoryview(mapped)
        self.views = [memory[place : place + size] for place, size in zip(self.places, sizes, strict=True)]
        base = address_of(mapped)
        self.places = [base + place for place in self.places]
