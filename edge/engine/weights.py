"""A model's weights as XNNPACK packs them, in a file in memory that the model's sessions share."""

import fcntl
import os

NEW = "new"  # in place of a path: a file that the session makes for itself, as a trial's does
_FUTURE_WRITE = getattr(fcntl, "F_SEAL_FUTURE_WRITE", 0x10)  # linux/fcntl.h, from Linux 5.1 on


def path_of(fd: int) -> str:
    """The path by which XNNPACK opens the file."""
    return f"/proc/self/fd/{fd}"


def opened(path: str) -> int:
    """A descriptor of a session's own for the file at `path`, or for a new one where that is NEW."""
    return _made() if path == NEW else os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _made() -> int:
    return os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


class SharedWeights:
    """The file of one model, while its sessions are opened. Each keeps it for itself, so that it goes with the last of them."""

    def __init__(self) -> None:
        self._fd = _made()
        self.path = path_of(self._fd)

    def size(self) -> int:
        """The bytes of memory that it takes."""
        return os.fstat(self._fd).st_blocks * 512

    def seal(self) -> bool:
        """Have it stay as it is, once the first session has run; False where XNNPACK did not fill it.

        All sessions calculate with what is in it: one that made it anew would change it, or cut it short, under the others.
        """
        if os.fstat(self._fd).st_size == 0:
            return False
        lasting = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        try:
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, lasting | _FUTURE_WRITE)
        except OSError:
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, lasting)
        return True

    def close(self) -> None:
        """Drop this descriptor of it."""
        os.close(self._fd)
