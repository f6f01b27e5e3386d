"""The lock file of a spool: one agent uses a spool at a time, and knows when the spool is not the one that it took."""

import contextlib
import fcntl
import os
from pathlib import Path

from edge.errors import ConfigError


class SpoolLock:
    """The file at `path`, held from `take` to `release`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def take(self) -> None:
        """Hold the lock; nothing where it is held already.

        Raises:
            ConfigError: another agent holds it.
            OSError: the file cannot be made.
        """
        if self._fd is not None:
            return
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ConfigError(
                f"another agent uses the spool {self._path.parent}; give each agent its own edge_spool_path"
            ) from None
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def lost(self) -> bool:
        """Whether its name is another file's by now, or nobody's: removed, replaced, a file system mounted over it or gone."""
        if self._fd is None:
            return False
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._fd))
        except OSError:
            return True

    def release(self) -> None:
        """Let go of it."""
        fd, self._fd = self._fd, None  # also where it fails the number is free, and may be another file's at once
        if fd is not None:
            with contextlib.suppress(OSError):  # nothing was written
                os.close(fd)
