"""The file of a Unix socket: whether it can be made, made, still there, removed (X-1, X-4, X-11)."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from edge import address
from edge.errors import SocketInUseError

MAX_SOCKET_PATH_BYTES = 107  # of the socket's path: sun_path in sys/un.h, less its terminator
SOCKET_UMASK = 0o117  # the owner and the group may connect
CONNECT_TIMEOUT_SECONDS = 2.0


def claim_socket(path: str, *, replace: bool) -> None:
    """Make sure that `path`, as edge.address has it, is free for a socket (X-1).

    Raises:
        SocketInUseError: it exists and `replace` is false, it is not a socket, or an agent answers on it.
    """
    fault = _claimed(path, replace=replace)
    if fault:
        raise SocketInUseError(f"socket {address.display(path)}: {fault}")


def _claimed(path: str, *, replace: bool) -> str:
    """What keeps `path` from being free; nothing where it is, now."""
    if len(os.fsencode(path)) - address.is_abstract(path) > MAX_SOCKET_PATH_BYTES:
        return f"longer than {MAX_SOCKET_PATH_BYTES} bytes, the most a Unix socket takes"
    if not address.is_abstract(path):
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return "" if Path(path).parent.is_dir() else "its directory does not exist"
        except OSError as error:
            return error.strerror or "it cannot be examined"
        if not stat.S_ISSOCK(mode):
            return "something that is not a socket is there; remove it first"
    try:
        if _answers(path):
            return "another agent answers on it; stop it first"
    except OSError as error:
        return (
            f"it cannot be determined whether an agent answers on it ({error.strerror}); stop its owner, or remove it"
        )
    if address.is_abstract(path):
        return ""
    if not replace:
        return "it exists, left by an agent that is gone; start with -f to remove it"
    Path(path).unlink(missing_ok=True)
    return ""


def _answers(path: str) -> bool:
    """Whether somebody listens.

    Raises:
        OSError: that cannot be told: no permission, or a socket of another kind.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_TIMEOUT_SECONDS)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (BlockingIOError, TimeoutError):
            return True  # more wait for it than it has taken
        return True


class SocketFile:
    """A socket's file, for the length of a server."""

    def __init__(self, path: str, umask: int = SOCKET_UMASK) -> None:
        self._path = path
        self._umask = umask
        self._inode: tuple[int, int] | None = None

    def make(self, listen: Callable[[str], None]) -> None:
        """Have it made. The process has its umask meanwhile: no other thread may make files or folders.

        Raises:
            SocketInUseError: it cannot be made.
        """
        before = os.umask(self._umask)
        try:
            listen(self._path)
        except RuntimeError:
            raise SocketInUseError(f"socket {address.display(self._path)}: it cannot be created there") from None
        finally:
            os.umask(before)
        self._inode = self._inode_there()

    def is_there(self) -> bool:
        """Whether it can still be found under its name."""
        return address.is_abstract(self._path) or self._inode_there() == self._inode

    def remove(self) -> None:
        """Remove it if it is still ours."""
        if self._inode is not None and self._inode_there() == self._inode:
            Path(self._path).unlink(missing_ok=True)

    def _inode_there(self) -> tuple[int, int] | None:
        try:
            there = os.lstat(self._path)
        except (OSError, ValueError):  # the latter: a name without a file
            return None
        return there.st_dev, there.st_ino
