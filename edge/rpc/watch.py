"""Wakes a parked thread when something comes for gRPC while no thread waits for it.

gRPC reads all its sockets by one epoll instance, and an epoll instance can be watched by another: that of the parked
threads. Where it is armed, one of them wakes as soon as a socket has something.

It cannot see what gRPC has taken from its epoll instance and not yet handed out (whoever arms the watch asks gRPC for
that first), nor what other threads of the process take from it (those of gRPC's own, and a client's: the watchdog's). For
their sake it wakes a thread after LONGEST_SECONDS in any case.
"""

import contextlib
import ctypes
import os
import select
import socket
import stat
import struct
from pathlib import Path

LONGEST_SECONDS = 0.02  # from arming the watch until a thread wakes though nothing was seen

_CLOCK_MONOTONIC = 1  # linux/time.h
# The interpreter lock is kept: giving it up would take longer than these calls.
_libc = ctypes.PyDLL(None, use_errno=True)
_timerfd_create = _libc.timerfd_create
_timerfd_settime = _libc.timerfd_settime
_timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
# timerfd_create(2): the interval and the first time, each in seconds and nanoseconds.
_ITIMERSPEC = struct.Struct("@4l")


def epoll_of(path: str) -> int | None:
    """The epoll instance of this process that reads the socket listening at `path`; None where that cannot be told."""
    found = [number for number in _epolls() if any(_listens(member, path) for member in _members(number))]
    return found[0] if len(found) == 1 else None


def _epolls() -> list[int]:
    numbers = []
    for link in Path("/proc/self/fd").glob("*"):
        try:
            if str(link.readlink()) == "anon_inode:[eventpoll]":
                numbers.append(int(link.name))
        except OSError:
            continue  # closed meanwhile
    return numbers


def _members(number: int) -> list[int]:
    """The files in an epoll instance; proc_pid_fdinfo(5) has the format."""
    try:
        lines = Path(f"/proc/self/fdinfo/{number}").read_text().splitlines()
    except OSError:
        return []
    return [int(line.split()[1]) for line in lines if line.startswith("tfd:")]


def _listens(number: int, path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return False
        sock = socket.socket(fileno=number)
        try:
            return sock.family == socket.AF_UNIX and sock.getsockname() in (path, os.fsencode(path))
        finally:
            sock.detach()  # it stays its owner's
    except OSError:
        return False  # closed meanwhile


class Watch:
    """What parked threads wait on; its users see to it that only one of them calls it at a time, except for `wait`."""

    def __init__(self, watched: int | None) -> None:
        """`watched`: the epoll instance to watch, if any; it stays its owner's.

        Raises:
            OSError: the system gives no more files.
        """
        self._watched = watched
        self._armed = False
        self._longest = _ITIMERSPEC.pack(0, 0, 0, int(LONGEST_SECONDS * 1e9))
        with contextlib.ExitStack() as files:
            self._epoll = files.enter_context(select.epoll())
            self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            files.callback(os.close, self._bell)
            self._timer: int = _timerfd_create(_CLOCK_MONOTONIC, os.O_CLOEXEC | os.O_NONBLOCK)
            if self._timer < 0:
                raise OSError(ctypes.get_errno(), "no timer can be made")
            files.callback(os.close, self._timer)
            # Edge-triggered: each ring wakes one thread, and nobody has to read it.
            for number in (self._bell, self._timer):
                self._epoll.register(number, select.EPOLLIN | select.EPOLLET)
            if watched is not None:
                self._epoll.register(watched, 0)
            self._files = files.pop_all()

    def wait(self) -> None:
        """Until there may be something to do; one of those that wait is woken, the last that came."""
        self._epoll.poll(-1, 1)

    def arm(self) -> bool:
        """Wake one thread once something comes; false where that cannot be watched."""
        if self._watched is None:
            return False
        _timerfd_settime(self._timer, 0, self._longest, None)
        try:
            self._epoll.modify(self._watched, select.EPOLLIN | select.EPOLLONESHOT)
        except OSError:
            self._watched = None  # its owner has closed it
            return False
        self._armed = True
        return True

    def disarm(self) -> None:
        """Somebody waits for events again."""
        if self._armed and self._watched is not None:
            self._armed = False
            with contextlib.suppress(OSError):  # its owner may have closed it
                self._epoll.modify(self._watched, 0)

    def ring(self) -> None:
        """Wake one thread."""
        os.eventfd_write(self._bell, 1)

    def ring_all(self) -> None:
        """Wake every thread, those that come later as well."""
        self._epoll.modify(self._bell, select.EPOLLIN)
        self.ring()

    def close(self) -> None:
        """Give its files back; nobody may use it any more. Idempotent."""
        self._files.close()
