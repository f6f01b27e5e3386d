"""What a client's shared-memory segment must be before the agent reads it (P-3). Pure."""

import stat
import struct
from typing import NamedTuple

from edge.errors import SharedMemoryError
from edge.text import shown

SHM_DEST = 0o1000  # linux/shm.h: removed, goes away with the last detach
WRITE_OR_EXECUTE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
_OWNERS = struct.Struct("=4x4I")  # struct ipc64_perm: key; owner's user and group, creator's
MAX_SEGMENT_ID = 2**31 - 1  # largest shmid: it is an int
MAX_NAME_BYTES = 255  # of the name of a file in /dev/shm: NAME_MAX in linux/limits.h


class SegmentStatus(NamedTuple):
    """What shmctl(IPC_STAT) says: size in bytes, mode bits with SHM_DEST, the bytes that hold owner and mode, and how many have
    attached it."""

    size: int
    mode: int
    permissions: bytes
    attached: int = 0

    @property
    def users(self) -> tuple[int, int]:
        """Owner and creator."""
        uid, _, cuid, _ = _OWNERS.unpack_from(self.permissions)
        return uid, cuid

    @property
    def groups(self) -> tuple[int, int]:
        """The groups of owner and creator."""
        _, gid, _, cgid = _OWNERS.unpack_from(self.permissions)
        return gid, cgid


class Peer(NamedTuple):
    """A client's process, its user and groups, and whether segments' numbers mean others to it: its IPC namespace is another.

    `other_files`: so do names in /dev/shm, for its own is another. Of a client on TCP nothing is known.
    """

    pid: int
    uid: int
    groups: frozenset[int]
    foreign: bool
    on_tcp: bool = False
    other_files: bool = False


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


def check_peer(segment_id: int, status: SegmentStatus, peer: Peer) -> None:
    """Refuse a segment that a client which may be the caller could not attach itself, as ipc_perm(5) says.

    Raises:
        SharedMemoryError: with the client, and what to do.
    """
    if peer.on_tcp:
        raise SharedMemoryError(
            f"shared memory segment {segment_id}: a client is connected over TCP (edge_listen), of which the agent cannot tell who "
            "it is, nor which client calls; connect every client to the Unix socket"
        )
    if peer.foreign:
        raise SharedMemoryError(
            f"shared memory segment {segment_id}: process {peer.pid}, a client, is in another IPC namespace, where that "
            "number means another segment, and the agent cannot tell which client calls; run every client in the agent's "
            "namespace (containers: --ipc=host)"
        )
    if peer.uid in status.users:
        granted = status.mode & stat.S_IRUSR
    elif peer.groups.intersection(status.groups):
        granted = status.mode & stat.S_IRGRP
    else:
        granted = status.mode & stat.S_IROTH
    if not granted and peer.uid != 0:
        raise SharedMemoryError(
            f"shared memory segment {segment_id}: process {peer.pid}, a client as user {peer.uid}, may not read it, and the "
            "agent cannot tell which client calls; give the segment the group that clients share, and mode 0440"
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


class FileStatus(NamedTuple):
    """What fstat(2) says of a file in /dev/shm: mode bits, owner, group."""

    mode: int
    uid: int
    gid: int


def check_file_peer(what: str, status: FileStatus, peer: Peer, *, writing: bool) -> None:
    """Refuse a file that a client which may be the caller could not read itself, or write; `what` names it in words.

    Raises:
        SharedMemoryError: with the client, and what to do.
    """
    if peer.on_tcp:
        raise SharedMemoryError(
            f"{what}: a client is connected over TCP (edge_listen), of which the agent cannot tell who it is, nor which client "
            "calls; connect every client to the Unix socket"
        )
    if peer.other_files:
        raise SharedMemoryError(
            f"{what}: process {peer.pid}, a client, has another /dev/shm, where that name means another file, and the agent "
            "cannot tell which client calls; let every client have the agent's (containers: --ipc=host)"
        )
    right = 0o2 if writing else 0o4
    if peer.uid == status.uid:
        granted = status.mode >> 6 & right
    elif status.gid in peer.groups:
        granted = status.mode >> 3 & right
    else:
        granted = status.mode & right
    if not granted and peer.uid != 0:
        raise SharedMemoryError(
            f"{what}: process {peer.pid}, a client as user {peer.uid}, may not {'write' if writing else 'read'} it, and the agent "
            "cannot tell which client calls; give the file the group that clients share, and mode 0660"
        )


def file_name(key: str) -> str:
    """The name in /dev/shm that a key of shm_open(3) means.

    Raises:
        SharedMemoryError: it is none.
    """
    name = key.removeprefix("/")
    if not name or "/" in name or "\0" in name or name in (".", "..") or len(name.encode()) > MAX_NAME_BYTES:
        raise SharedMemoryError(
            f"shared memory key {shown(key)}: expected a name as shm_open takes it, 1 to {MAX_NAME_BYTES} bytes with no / but at "
            "its beginning"
        )
    return name
