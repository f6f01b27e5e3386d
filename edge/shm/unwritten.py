"""Pages of segments that nobody has written (B-6).

A segment takes no memory until it is written. To read such a page makes it, and the kernel puts it on the reader's account, where
it stays until the segment is removed: clients could fill the agent's memory with segments that cost them nothing. Which pages
those are is not to be known, but how many a segment has is: before a use and after it.
"""

import mmap
from pathlib import Path

from edge.errors import SharedMemoryError

MAX_UNWRITTEN_BYTES = 64 << 20  # of pages never written by clients that reading may allocate, of all segments

_TABLE = Path("/proc/sysvipc/shm")
_ID, _RSS, _SWAP = 1, 14, 15  # columns


def whole_pages(size: int) -> int:
    """The bytes of the pages that so many bytes take."""
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def unwritten_bytes(segment_id: int, size: int) -> int:
    """Of a segment of `size` bytes those whose pages do not exist; 0 where that cannot be told."""
    try:
        rows = _TABLE.read_text().splitlines()[1:]
    except OSError:
        return 0
    for row in rows:
        cells = row.split()
        if int(cells[_ID]) == segment_id and len(cells) > _SWAP:
            return max(0, whole_pages(size) - int(cells[_RSS]) - int(cells[_SWAP]))
    return 0


class Account:
    """The pages that the agent's reading made, by segment."""

    def __init__(self) -> None:
        self._made: dict[int, int] = {}

    def take(self, segment_id: int, size: int) -> None:
        """Count `size` bytes that may be made.

        Raises:
            SharedMemoryError: they would be too many.
        """
        if self._sum() + size > MAX_UNWRITTEN_BYTES:
            known = {int(row.split()[_ID]) for row in _TABLE.read_text().splitlines()[1:]}
            self._made = {known_id: made for known_id, made in self._made.items() if known_id in known}
            if self._sum() + size > MAX_UNWRITTEN_BYTES:
                raise SharedMemoryError(
                    f"shared memory segment {segment_id}: up to {size} bytes of what the call names were never written; the "
                    f"agent makes at most {MAX_UNWRITTEN_BYTES} such bytes of all segments by reading them: write the "
                    "whole segment before the call"
                )
        self._made[segment_id] = self._made.get(segment_id, 0) + size

    def give_back(self, segment_id: int, size: int) -> None:
        """So many of them were not made after all."""
        left = self._made.get(segment_id, 0) - size
        if left > 0:
            self._made[segment_id] = left
        else:
            self._made.pop(segment_id, None)

    def _sum(self) -> int:
        return sum(self._made.values())
