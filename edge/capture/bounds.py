"""The bounds on what waits: in the buffer, before it is durable, and in the spool, before it is uploaded (C-6, R-6)."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from edge import durable
from edge.capture.settings import CaptureSettings
from edge.errors import BufferFullError, SpoolFullError

SPARE_INODES = 32  # on the disk: a batch of a new model and hour takes folders too


class Buffer:
    """Counts captures that are not durable yet. Safe from any thread; sizes in bytes."""

    def __init__(self, max_captures: int, max_bytes: int) -> None:
        self._max_captures = max_captures
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._captures = 0
        self._bytes = 0

    @property
    def captures(self) -> int:
        """Captures that wait."""
        return self._captures

    def is_half_full(self) -> bool:
        """Whether half of the captures or of the bytes are taken."""
        with self._lock:
            return 2 * self._captures >= max(2, self._max_captures) or 2 * self._bytes >= self._max_bytes

    def reserve(self, size: int) -> None:
        """Reserve room for a capture of `size` bytes.

        Raises:
            BufferFullError: naming the bound and its setting.
        """
        with self._lock:
            if size > self._max_bytes:
                raise BufferFullError(f"the capture has {size} bytes; edge_capture_buffer_mib allows {self._max_bytes}")
            if self._captures >= self._max_captures:
                raise BufferFullError(
                    f"{self._captures} captures wait to be written, as many as "
                    "sagemaker_edge_core_capture_data_buffer_size allows"
                )
            if self._bytes + size > self._max_bytes:
                raise BufferFullError(
                    f"{self._bytes} bytes wait to be written, {size} more would pass "
                    f"edge_capture_buffer_mib ({self._max_bytes} bytes)"
                )
            self._captures += 1
            self._bytes += size

    def restore(self, captures: int, size: int) -> None:
        """Count what an earlier run accepted, whatever the bounds."""
        with self._lock:
            self._captures += captures
            self._bytes += size

    def release(self, captures: int, size: int) -> None:
        """Give room back."""
        self.restore(-captures, -size)


@dataclass
class Usage:
    """What the spool holds: bytes, files, and captures that wait for the uploader.

    `captures` is below zero while a batch has been uploaded which the thread that sealed it has not counted yet: the
    buffer still counts it then.
    """

    size: int = 0
    files: int = 0
    captures: int = 0


class Room:
    """Counts what the spool holds against its bounds. Safe from any thread."""

    def __init__(self, settings: CaptureSettings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._lock = threading.Lock()
        self._usage = Usage()

    def reset(self) -> None:
        """Count from nothing."""
        with self._lock:
            self._usage = Usage()

    def usage(self) -> Usage:
        """What is held now."""
        with self._lock:
            usage = self._usage
            return Usage(max(0, usage.size), max(0, usage.files), usage.captures)

    def add(self, size: int = 0, files: int = 0, captures: int = 0) -> None:
        """Count what is there (negative: what went), whatever the bounds.

        A batch may be uploaded and gone before the thread that sealed it has counted it: sums may be negative between.
        """
        with self._lock:
            self._usage.size += size
            self._usage.files += files
            self._usage.captures += captures

    def reserve(self, size: int, files: int) -> None:
        """Reserve room for `size` bytes in `files` files.

        Raises:
            SpoolFullError: naming the bound and its setting.
        """
        try:
            state = os.statvfs(self._folder)
        except OSError as error:
            raise SpoolFullError(f"the spool {self._folder} cannot be used: {durable.why(error)}") from error
        with self._lock:
            reason = self._lack(state, size, files)
            if reason is not None:
                raise SpoolFullError(f"the spool is full: {reason}")
            self._usage.size += size
            self._usage.files += files

    def lacks(self, size: int, files: int) -> bool:
        """Whether there is no room for so much; false where the disk cannot be asked: dropping captures would not help."""
        try:
            state = os.statvfs(self._folder)
        except OSError:
            return False
        with self._lock:
            return self._lack(state, size, files) is not None

    def _lack(self, state: os.statvfs_result, size: int, files: int) -> str | None:
        """Why there is no room, in words."""
        limit, usage = self._settings, self._usage
        if usage.size + size > limit.spool_max_bytes:
            return f"{usage.size} bytes wait, {size} more would pass edge_spool_max_mib ({limit.spool_max_bytes} bytes)"
        if usage.files + files > limit.spool_max_files:
            return f"{usage.files} files wait, {files} more would pass edge_spool_max_files ({limit.spool_max_files})"
        free = state.f_bavail * state.f_frsize
        if free - size < limit.spool_min_free:
            return f"its disk has {free} bytes free, of which edge_spool_min_free_mib keeps {limit.spool_min_free}"
        if state.f_files and state.f_favail < files + SPARE_INODES:  # some file systems have no bound, and say 0
            return f"its disk has {state.f_favail} inodes free, of which {SPARE_INODES} are kept"
        return None
