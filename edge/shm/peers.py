"""Who may be calling: the processes at the other end of this process's Unix sockets (P-3).

gRPC does not tell from which connection a call came. But the kernel tells who is connected, and so whether any of them could
not have read a segment by itself, or means another one by its number. docs/adr/0024-callers-of-segments.md weighs it.
"""

import ctypes
import os
import socket
import struct
import threading
from pathlib import Path

from edge.shm.checks import FileStatus, Peer, SegmentStatus, check_file_peer, check_peer

_UCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_SO_PEERGROUPS = 59  # asm-generic/socket.h
_MAX_GROUPS = 65_536  # of a process: NGROUPS_MAX in linux/limits.h
_FDS = "/proc/self/fd"
_getsockopt = ctypes.CDLL(None).getsockopt


SHM_FOLDER = "/dev/shm"  # noqa: S108 - where shm_open(3) makes its files


def _shm_folder(process: int | str) -> tuple[int, int] | None:
    """Which folder a process has as /dev/shm; None where it may not be known."""
    try:
        there = os.stat(f"/proc/{process}/root{SHM_FOLDER}")  # noqa: PTH116
    except OSError:
        return None
    return there.st_dev, there.st_ino


def _ipc_namespace(process: int | str) -> str | None:
    """The IPC namespace of a process; None where it may not be known."""
    try:
        return str(Path(f"/proc/{process}/ns/ipc").readlink())
    except OSError:
        return None


_ON_TCP = Peer(0, 0, frozenset(), foreign=False, on_tcp=True)


class Peers:
    """The clients that are connected. Safe to use from any thread."""

    def __init__(self, tcp: str = "") -> None:
        """`tcp`: HOST:PORT, where clients connect too, if they do."""
        self._tcp: tuple[str, int] | None = None
        self._everywhere = False
        if tcp:
            host, _, port = tcp.rpartition(":")
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            packed = socket.inet_pton(family, host.strip("[]"))
            self._tcp = socket.inet_ntop(family, packed), int(port)
            self._everywhere = not any(packed)  # 0.0.0.0 and [::]
        self._lock = threading.Lock()
        self._known: dict[str, Peer | None] = {}  # by the socket's name in /proc/self/fd; None: no client's
        self._namespace = _ipc_namespace("self")
        self._folder = _shm_folder("self")

    def check(self, segment_id: int, status: SegmentStatus) -> None:
        """Refuse a segment that one of the clients could not attach itself.

        Raises:
            SharedMemoryError: with the client, and what to do.
        """
        for peer in self.connected():
            check_peer(segment_id, status, peer)

    def check_file(self, what: str, status: FileStatus, *, writing: bool) -> None:
        """Refuse a file in /dev/shm that one of the clients could not read itself, or write.

        Raises:
            SharedMemoryError: with the client.
        """
        for peer in self.connected():
            check_file_peer(what, status, peer, writing=writing)

    def connected(self) -> list[Peer]:
        """The clients now, without this process itself."""
        with self._lock:
            known, now = self._known, {}
            for fd in os.listdir(_FDS):  # noqa: PTH208 - a path each would take longer than all the rest
                try:
                    name = os.readlink(f"{_FDS}/{fd}")  # noqa: PTH115
                except OSError:
                    continue  # closed meanwhile
                if name.startswith("socket:"):
                    now[name] = known[name] if name in known else self._peer(int(fd))
            self._known = now
            return [peer for peer in now.values() if peer is not None]

    def _on_tcp(self, sock: socket.socket) -> bool:
        """Whether it was accepted from a client on TCP.

        Raises:
            OSError: it listens, or the client has gone.
        """
        if self._tcp is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        host, port = sock.getsockname()[:2]
        sock.getpeername()
        return port == self._tcp[1] and (self._everywhere or host.removeprefix("::ffff:") == self._tcp[0])

    def _peer(self, fd: int) -> Peer | None:
        try:
            sock = socket.socket(fileno=fd)
        except OSError:
            return None  # closed meanwhile
        try:
            # A socket that was accepted has the name of the one that listens; those of clients have none.
            if self._on_tcp(sock):
                return _ON_TCP
            if sock.family != socket.AF_UNIX or not sock.getsockname():
                return None
            sock.getpeername()
            pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            groups = _groups(sock)
        except OSError:
            return None  # it listens, or the client has gone
        finally:
            sock.detach()  # it stays its owner's
        if pid == os.getpid():
            return None
        namespace = _ipc_namespace(pid)
        foreign = None not in (namespace, self._namespace) and namespace != self._namespace
        folder = _shm_folder(pid)
        other_files = None not in (folder, self._folder) and folder != self._folder
        return Peer(pid, uid, groups | {gid}, foreign, other_files=other_files)


def _groups(sock: socket.socket) -> frozenset[int]:
    """The supplementary groups of the other end. Python's own getsockopt has room for 256."""
    found = (ctypes.c_uint32 * _MAX_GROUPS)()
    size = ctypes.c_uint32(ctypes.sizeof(found))
    if _getsockopt(sock.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, found, ctypes.byref(size)) != 0:
        return frozenset()  # a kernel before 4.13
    return frozenset(found[: size.value // ctypes.sizeof(ctypes.c_uint32)])
