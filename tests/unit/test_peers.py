"""Who may be calling, and whether each of them could read a segment by itself (P-3)."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import SharedMemoryError
from edge.shm.checks import Peer, SegmentStatus, check_peer
from edge.shm.peers import Peers

OWNER, CREATOR, GROUP, CREATOR_GROUP = 1001, 1002, 2001, 2002


def segment(mode: int) -> SegmentStatus:
    return SegmentStatus(4096, mode, struct.pack("=6I", 0, OWNER, GROUP, CREATOR, CREATOR_GROUP, mode))


def peer(uid: int, *groups: int, foreign: bool = False) -> Peer:
    return Peer(77, uid, frozenset(groups), foreign)


def test_nobody_knows_who_is_on_tcp() -> None:  # [X-13] [P-3]
    with pytest.raises(SharedMemoryError, match="connected over TCP"):
        check_peer(1, segment(0o444), Peer(0, 0, frozenset(), foreign=False, on_tcp=True))


@pytest.mark.parametrize(
    ("mode", "caller"),
    [
        (0o400, peer(OWNER, 5)),
        (0o400, peer(CREATOR, 5)),
        (0o400, peer(0)),
        (0o440, peer(5, 6, GROUP)),
        (0o440, peer(5, CREATOR_GROUP)),
        (0o444, peer(5, 6)),
    ],
)
def test_those_who_may_read_a_segment(mode: int, caller: Peer) -> None:  # [P-3]
    check_peer(1, segment(mode), caller)


@pytest.mark.parametrize(
    ("mode", "caller"),
    [
        (0o400, peer(5, GROUP)),
        (0o440, peer(5, 6)),
        (0o044, peer(OWNER, GROUP)),  # the first that fits decides, as for files
        (0o404, peer(5, GROUP)),
    ],
)
def test_those_who_may_not(mode: int, caller: Peer) -> None:  # [P-3]
    with pytest.raises(SharedMemoryError, match=f"process 77, a client as user {caller.uid}, may not read it.*0440"):
        check_peer(1, segment(mode), caller)


def test_one_who_means_another_segment() -> None:  # [P-3]
    with pytest.raises(SharedMemoryError, match=r"process 77, a client, is in another IPC namespace.*--ipc=host"):
        check_peer(1, segment(0o444), peer(0, foreign=True))


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        yield sock


CONNECT = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()"


def test_the_clients_that_are_connected(listener: socket.socket) -> None:
    peers = Peers()
    before = peers.connected()
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            assert peers.connected() == before  # this process itself
    client = subprocess.Popen([sys.executable, "-c", CONNECT, listener.getsockname()], stdin=subprocess.PIPE)
    accepted, _ = listener.accept()
    with accepted:
        (found,) = [one for one in peers.connected() if one not in before]
        assert (found.pid, found.uid, found.foreign) == (client.pid, os.getuid(), False)
        assert found.groups == {os.getgid(), *os.getgroups()}
        assert found in peers.connected()
    client.communicate()
    assert peers.connected() == before


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: to be in many groups")
def test_a_client_in_very_many_groups(listener: socket.socket) -> None:  # [P-3]
    groups = set(range(3000, 4000))
    code = f"import os; os.setgroups(range({min(groups)}, {max(groups) + 1})); {CONNECT}"
    client = subprocess.Popen([sys.executable, "-c", code, listener.getsockname()], stdin=subprocess.PIPE)
    accepted, _ = listener.accept()
    with accepted:
        (found,) = [one for one in Peers().connected() if one.pid == client.pid]
        assert found.groups == groups | {os.getgid()}
    client.communicate()
