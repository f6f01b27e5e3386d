"""What a client's shared-memory segment must be before the agent reads it (P-3). Pure."""

import stat
from typing import NamedTuple

from edge.errors import SharedMemoryError

SHM_DEST = 0o1000  # linux/shm.h: removed, goes away with the last detach
WRITE_OR_EXECUTE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
MAX_SEGMENT_ID = 2**31 - 1  # a shmid is an int


class SegmentStatus(NamedTuple):
    """What shmctl(IPC_STAT) says: size in bytes, mode bits with SHM_DEST, and the bytes that hold owner and mode."""

    size: int
    mode: int
    permissions: bytes


def check_mode(segment_id: int, status: SegmentStatus) -> None:
    """Refuse a segment that anyone may write to or execute.

    Raises:
        SharedMemoryError: with the mode and the one to set.
    """
    if status.mode & WRITE_OR_EXECUTE:
        raise SharedMemoryError(
            f"shared memory segment {segment_id}: its mode is {status.mode & 0o777:04o}, which lets somebody write to or "
            "execute it; set it to 0400 (or 0440, 0444) with shmctl(IPC_SET) before the call"
        )


def check_range(segment_id: int, status: SegmentStatus, offset: int, size: int) -> None:
    """Refuse a range outside the segment; offset and size in bytes.

    Raises:
        SharedMemoryError: with the range and the segment's size.
    """
    if offset > status.size or size > status.size - offset:
        raise SharedMemoryError(
            f"shared memory segment {segment_id}: offset {offset} and size {size} reach past its end; "
            f"it has {status.size} bytes"
        )
