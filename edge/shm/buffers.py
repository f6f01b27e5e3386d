"""The agent's own memory for inputs that are read out of files in /dev/shm.

What a client maps and may cut short must not be mapped here: a page that is gone is SIGBUS. So its bytes are read, and lie here
as an engine may be lent them (`Lent`). A large buffer is kept for a while: its pages need not be made anew by every call.
"""

import ctypes
import mmap
import threading
from dataclasses import dataclass

from edge.clock import Clock
from edge.tensors import READABLE_BEHIND_BYTES, Lent

MAX_KEPT_BYTES = 64 << 20  # of unused buffers that are kept for the next calls
KEEP_UNUSED_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class Buffer:
    """Memory for `room` bytes, at the beginning of a page, with READABLE_BEHIND_BYTES behind."""

    memory: memoryview
    address: int
    room: int
    unused_since: float = 0.0

    def lent(self, size: int) -> Lent:
        """Its first bytes."""
        return Lent(self.memory[:size], self.address)


def _make(size: int) -> Buffer:
    room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, room + READABLE_BEHIND_BYTES)
    # The array keeps the mapping, and the view keeps the array.
    array = (ctypes.c_ubyte * len(pages)).from_buffer(pages)
    return Buffer(memoryview(array).cast("B"), ctypes.addressof(array), room)


class Buffers:
    """Buffers to take and to give back. Safe to use from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._free: list[Buffer] = []

    def take(self, size: int) -> Buffer:
        """One with room for `size` bytes, which may hold what an earlier call had in it."""
        with self._lock:
            fits = (one for one in self._free if size <= one.room <= 2 * size + mmap.PAGESIZE)
            found = min(fits, key=lambda one: one.room, default=None)
            if found is not None:
                self._free.remove(found)
                return found
        return _make(size)

    def give_back(self, buffer: Buffer) -> None:
        """The call is over; the buffer's bytes are another call's from now on."""
        with self._lock:
            if sum(one.room for one in self._free) + buffer.room <= MAX_KEPT_BYTES:
                buffer.unused_since = self._clock.monotonic()
                self._free.append(buffer)

    def sweep(self) -> None:
        """Free what was not used for a while; call it about once a second."""
        if self._free:
            with self._lock:
                now = self._clock.monotonic()
                self._free = [one for one in self._free if now - one.unused_since < KEEP_UNUSED_SECONDS]
