"""One command at a time changes a repository: two that read the same state would each write over the other's."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge import durable
from edge.fleet.files import FleetRepositoryError

LOCK = ".lock"
WAIT_SECONDS = 30.0  # for another command to end
_LOOK_SECONDS = 0.1


@contextmanager
def alone(folder: Path, *, new: bool) -> Iterator[None]:
    """Change a repository while no other command does.

    A folder that is not there is made where it is to be `new`; else there is nothing to lock.

    Raises:
        FleetRepositoryError: another command is at it for too long, or the lock cannot be opened.
    """
    path = folder / LOCK
    if not new and not folder.is_dir():
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = _lock_file(path)
    except OSError as error:
        raise FleetRepositoryError(f"{path}: {durable.why(error)}") from None
    try:
        _wait(fd, folder)
        yield
    finally:
        os.close(fd)  # which unlocks


def _lock_file(path: Path) -> int:
    try:
        return durable.open_regular(path, os.O_RDWR | os.O_CREAT)  # to write: NFS wants it so
    except PermissionError:  # another operator's file
        return durable.open_regular(path)


def _wait(fd: int, folder: Path) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                text = f"another command is changing {folder}, for more than {WAIT_SECONDS:g} s; try again when it has ended"
                raise FleetRepositoryError(text) from None
        except OSError as error:
            raise FleetRepositoryError(f"{folder / LOCK} cannot be locked: {durable.why(error)}") from None
        else:
            return
        time.sleep(_LOOK_SECONDS)
