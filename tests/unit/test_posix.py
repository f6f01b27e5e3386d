"""Regions of POSIX shared memory (O-17 to O-20)."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import RegionExistsError, RegionNotFoundError, RegionsFullError, SharedMemoryError
from edge.shm import posix
from edge.shm.buffers import KEEP_UNUSED_SECONDS, MAX_KEPT_BYTES, Buffers
from edge.shm.checks import FileStatus, Peer, check_file_peer, file_name
from edge.shm.posix import MAX_REGION_BYTES, MAX_REGIONS, UNLINKED_SECONDS, Regions
from edge.shm.sysv import JUDGED_SECONDS
from edge.tensors import READABLE_BEHIND_BYTES
from tests.fakes.shm import Listed, SetClock
from tests.system.segments import ShmFile

OWNER, GROUP = 1001, 2001


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def regions(clock: SetClock) -> Iterator[Regions]:
    made = Regions(clock)
    yield made
    made.close()


def peer(uid: int, *groups: int, other_files: bool = False, on_tcp: bool = False) -> Peer:
    return Peer(77, uid, frozenset(groups), foreign=False, on_tcp=on_tcp, other_files=other_files)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def bytes_of(regions: Regions, name: str, offset: int, size: int) -> bytes:
    buffer = regions.read(name, offset, size)
    try:
        lent = buffer.lent(size)
        assert not lent.address % 64
        return bytes(lent.memory)
    finally:
        regions.buffers.give_back(buffer)


def test_a_part_is_read_and_written(regions: Regions) -> None:  # [O-17] [O-20]
    with ShmFile(8192) as file:
        file.write(bytes(range(200)), 4096)
        regions.register("r", file.key, 4096, 1000)
        assert bytes_of(regions, "r", 10, 5) == bytes(range(10, 15))
        regions.write("r", 20, memoryview(b"abc"))
        assert file.read()[4096 + 20 : 4096 + 23] == b"abc"
        assert len(file.read()) == 8192
        for offset, size in ((0, 1001), (996, 5), (2**63, 1)):
            with pytest.raises(SharedMemoryError, match="reach past its end; 1000 bytes are registered"):
                regions.read("r", offset, size)
            with pytest.raises(SharedMemoryError, match="reach past its end"):
                regions.write("r", offset, memoryview(bytes(size)))


def test_names(regions: Regions) -> None:  # [O-17]
    with ShmFile(64) as file:
        regions.register("r", file.key, 0, 64)
        with pytest.raises(RegionExistsError, match="'r' is registered already"):
            regions.register("r", file.key, 0, 64)
        regions.register("s", file.key.removeprefix("/"), 32, 32)
        assert [one.name for one in regions.registered()] == ["r", "s"]
        assert regions.registered("s")[0].offset == 32
        regions.unregister("r")
        regions.unregister("r")
        for use in (regions.registered, lambda name: regions.read(name, 0, 1)):
            with pytest.raises(RegionNotFoundError, match="'r' is registered"):
                use("r")
        regions.unregister()
        assert regions.registered() == []
        for name in ("", "n" * 257):
            with pytest.raises(SharedMemoryError, match="expected a name"):
                regions.register(name, file.key, 0, 64)
        for offset, size in ((0, 0), (0, 65), (65, 1), (2**64 - 1, 2), (1, 2**29)):
            with pytest.raises(SharedMemoryError, match="are no part of it; it has 64 bytes"):
                regions.register("r", file.key, offset, size)


@pytest.mark.parametrize("key", ["", "/", "//a", "/a/b", "/../etc/passwd", "..", ".", "a\0b", "/" + "k" * 256])
def test_keys_that_are_none(key: str) -> None:  # [O-19]
    with pytest.raises(SharedMemoryError, match="expected a name as shm_open takes it"):
        file_name(key)


def test_what_is_no_file_in_memory(regions: Regions, tmp_path: Path) -> None:  # [O-19]
    with ShmFile(64) as file:
        file.path.unlink()
        with pytest.raises(SharedMemoryError, match="cannot be opened in /dev/shm: No such file"):
            regions.register("r", file.key, 0, 64)
        file.path.symlink_to(tmp_path / "target")
        (tmp_path / "target").write_bytes(bytes(64))
        with pytest.raises(SharedMemoryError, match="cannot be opened"):
            regions.register("r", file.key, 0, 64)
        file.path.unlink()
        os.mkfifo(file.path)
        with pytest.raises(SharedMemoryError, match="expected a file in memory"):
            regions.register("r", file.key, 0, 64)
        file.path.unlink()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(file.path))
            with pytest.raises(SharedMemoryError, match="cannot be opened"):
                regions.register("r", file.key, 0, 64)
    assert regions.registered() == []


def test_a_file_on_a_disk(regions: Regions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # [O-19]
    if subprocess.run(["stat", "-f", "-c%T", tmp_path], capture_output=True, text=True, check=True).stdout == "tmpfs\n":
        pytest.skip("the folder of tests is in memory")
    (tmp_path / "f").write_bytes(bytes(64))
    monkeypatch.setattr(posix, "SHM_FOLDER", str(tmp_path))
    with pytest.raises(SharedMemoryError, match="expected a file in memory"):
        regions.register("r", "/f", 0, 64)


def test_one_that_is_cut_short(regions: Regions) -> None:  # [O-20]
    with ShmFile(8192) as file:
        regions.register("r", file.key, 0, 8192)
        assert bytes_of(regions, "r", 0, 8192) == bytes(8192)
        os.truncate(file.path, 4097)
        with pytest.raises(SharedMemoryError, match="it was cut short since it was registered"):
            regions.read("r", 0, 8192)
        with pytest.raises(SharedMemoryError, match="it was cut short"):
            regions.write("r", 4096, memoryview(bytes(8)))
        assert bytes_of(regions, "r", 0, 4097) == bytes(4097)


def test_bounds(regions: Regions) -> None:  # [O-18]
    with ShmFile(MAX_REGION_BYTES + 1) as file:  # nothing is written: it takes no memory
        with pytest.raises(RegionsFullError, match="the most there may be"):
            regions.register("r", file.key, 0, MAX_REGION_BYTES + 1)
        regions.register("r", file.key, 0, MAX_REGION_BYTES)
        with pytest.raises(RegionsFullError, match="its 1 bytes and the"):
            regions.register("s", file.key, 0, 1)
        regions.unregister("r")
        for number in range(MAX_REGIONS):
            regions.register(f"r{number}", file.key, 0, 1)
        with pytest.raises(RegionsFullError, match="128 shared memory regions"):
            regions.register("r", file.key, 0, 1)


def test_one_whose_client_is_gone_is_dropped(regions: Regions, clock: SetClock) -> None:  # [O-18]
    before = descriptors()
    with ShmFile(64) as gone, ShmFile(64) as stays:
        regions.register("r", gone.key, 0, 64)
        regions.register("s", stays.key, 0, 64)
        gone.path.unlink()
        clock.at += UNLINKED_SECONDS / 2
        assert bytes_of(regions, "r", 0, 4) == bytes(4)
        clock.at += UNLINKED_SECONDS / 2
        regions.sweep()
        assert len(regions.registered()) == 2
        clock.at += UNLINKED_SECONDS
        regions.sweep()
        assert [one.name for one in regions.registered()] == ["s"]
    regions.close()
    assert descriptors() == before


@pytest.mark.parametrize(
    ("mode", "caller", "reads", "writes"),
    [
        (0o600, peer(OWNER), True, True),
        (0o400, peer(OWNER), True, False),
        (0o200, peer(OWNER), False, True),
        (0o600, peer(0), True, True),
        (0o660, peer(5, GROUP), True, True),
        (0o640, peer(5, GROUP), True, False),
        (0o606, peer(5, GROUP), False, False),  # the first that fits decides
        (0o066, peer(OWNER, GROUP), False, False),
        (0o606, peer(5, 6), True, True),
        (0o660, peer(5, 6), False, False),
        (0o666, peer(5, other_files=True), False, False),
        (0o666, peer(0, on_tcp=True), False, False),
    ],
)
def test_who_may_do_what(mode: int, caller: Peer, reads: bool, writes: bool) -> None:  # [O-19]
    for writing, allowed in ((False, reads), (True, writes)):
        try:
            check_file_peer("it", FileStatus(mode, OWNER, GROUP), caller, writing=writing)
        except SharedMemoryError:
            assert not allowed
        else:
            assert allowed


def test_every_client_is_judged_anew(clock: SetClock) -> None:  # [O-19]
    peers = Listed()
    regions = Regions(clock, peers)
    with ShmFile(64, 0o600) as file:
        other = peer(os.getuid() + 1)
        peers.clients = [peer(os.getuid()), other]
        with pytest.raises(SharedMemoryError, match=f"process 77, a client as user {other.uid}, may not read it"):
            regions.register("r", file.key, 0, 64)
        file.path.chmod(0o644)
        regions.register("r", file.key, 0, 64)
        with pytest.raises(SharedMemoryError, match="may not write it"):
            regions.write("r", 0, memoryview(b"a"))
        peers.clients = [peer(os.getuid())]
        regions.write("r", 0, memoryview(b"a"))
        peers.clients = [other]
        regions.write("r", 0, memoryview(b"b"))  # for JUDGED_SECONDS
        clock.at += JUDGED_SECONDS
        with pytest.raises(SharedMemoryError, match="may not write it"):
            regions.write("r", 0, memoryview(b"c"))
        assert bytes_of(regions, "r", 0, 1) == b"b"
        file.path.chmod(0o600)  # at once
        with pytest.raises(SharedMemoryError, match="may not read it"):
            regions.read("r", 0, 1)
    regions.close()


def test_one_with_a_list(regions: Regions) -> None:  # [O-19]
    with ShmFile(64) as file:
        # A list of the owner, user 65534, the file's group, the mask and everybody, as linux/posix_acl_xattr.h has it.
        entries = ((1, 6, 0xFFFFFFFF), (2, 4, 65534), (4, 0, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
        acl = (2).to_bytes(4, "little") + b"".join(
            tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + who.to_bytes(4, "little")
            for tag, rights, who in entries
        )
        try:
            os.setxattr(file.path, "system.posix_acl_access", acl)
        except OSError as error:
            pytest.skip(f"/dev/shm takes no access control lists here: {error.strerror}")
        with pytest.raises(SharedMemoryError, match="has an access control list"):
            regions.register("r", file.key, 0, 64)


def test_buffers_are_kept_for_a_while(clock: SetClock) -> None:
    buffers = Buffers(clock)
    first = buffers.take(100_000)
    buffers.give_back(first)
    assert buffers.take(90_000) is first
    assert buffers.take(90_000) is not first
    buffers.give_back(first)
    small = buffers.take(10)
    assert small is not first
    assert bytes(small.memory[small.room : small.room + READABLE_BEHIND_BYTES]) == bytes(READABLE_BEHIND_BYTES)
    clock.at += KEEP_UNUSED_SECONDS
    buffers.sweep()
    assert not buffers._free
    large = [buffers.take(MAX_KEPT_BYTES // 2) for _ in range(3)]
    for one in large:
        buffers.give_back(one)
    assert sum(one.room for one in buffers._free) == MAX_KEPT_BYTES
