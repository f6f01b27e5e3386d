"""What holds for clients' memory of both kinds: System V segments, and files in /dev/shm."""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.clock import SystemClock
from edge.engine.litert_memory import copy
from edge.errors import SharedMemoryError
from edge.shm.checks import Peer
from edge.shm.guard import Guard
from edge.shm.posix import Regions
from edge.shm.sysv import JUDGED_SECONDS, KEEP_UNUSED_SECONDS, SegmentReader
from edge.tensors import READABLE_BEHIND_BYTES, Lent
from tests.fakes.shm import Listed, SetClock
from tests.system.segments import Segment, ShmFile

SIZE = 2 * READABLE_BEHIND_BYTES
SOMEBODY = Peer(77, 65534, frozenset(), foreign=False)


def mappings(*, of_all: bool = False) -> int:
    """How many mappings of clients' memory this process has, the test's own among them; or of all."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(of_all or "/SYSV" in line or "/edge-test-" in line for line in lines)


class Segments:
    """System V's."""

    def __init__(self, clock: SetClock, peers: Listed) -> None:
        self.reader = SegmentReader(clock, peers)
        self.sweep, self.close = self.reader.sweep, self.reader.close

    def make(self) -> Segment:
        return Segment(SIZE).write(b"\xff" * SIZE).set_mode(0o400)

    @contextmanager
    def lent(self, made: Any, offset: int = 0, size: int = SIZE) -> Iterator[Lent]:
        attachment = self.reader.take(made.id, offset, size)
        try:
            found = attachment.data(offset, size)
            assert isinstance(found, Lent)
            yield found
        finally:
            self.reader.give_back(attachment)


class Files:
    """Of POSIX shared memory."""

    def __init__(self, clock: SetClock, peers: Listed) -> None:
        self.guard = Guard(SystemClock())
        self.regions = Regions(clock, peers, self.guard)
        self.sweep = self.regions.sweep

    def make(self) -> ShmFile:
        made = ShmFile(SIZE).write(b"\xff" * SIZE)
        self.regions.register(made.key, made.key, 0, SIZE)
        return made

    @contextmanager
    def lent(self, made: Any, offset: int = 0, size: int = SIZE) -> Iterator[Lent]:
        loan = self.regions.lend(made.key, offset, size, 64)
        assert loan is not None
        try:
            yield loan.lent
        finally:
            assert self.regions.take_back(loan) is None

    def close(self) -> None:
        self.regions.close()
        self.guard.close()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def peers() -> Listed:
    return Listed()


@pytest.fixture(params=[Segments, Files])
def kind(request: pytest.FixtureRequest, clock: SetClock, peers: Listed) -> Iterator[Any]:
    made = request.param(clock, peers)
    yield made
    made.close()


def read(kind: Any, made: Any, offset: int = 0, size: int = 4) -> bytes:
    """What an engine would find there."""
    with kind.lent(made, offset, size) as lent:
        own = ctypes.create_string_buffer(lent.size)
        copy(ctypes.addressof(own), lent.size, lent)
        return own.raw


def test_it_is_what_is_there_now(kind: Any) -> None:  # [P-11] [O-20]
    with kind.make() as made:
        made.write(b"abcd", 64)
        assert read(kind, made, 64) == b"abcd"
        before = mappings()
        made.write(b"ABCD", 64)
        assert read(kind, made, 64) == b"ABCD"
        with kind.lent(made) as lent:
            assert bytes(lent.memory) == b"\xff" * 64 + b"ABCD" + b"\xff" * (SIZE - 68)
        assert mappings() == before, "one is kept"
        kind.close()


def test_a_client_that_comes_later_is_judged_soon(kind: Any, clock: SetClock, peers: Listed) -> None:  # [P-3] [O-19]
    with kind.make() as made:
        read(kind, made)
        peers.clients = [SOMEBODY]
        with kind.lent(made):  # its owner goes on using it
            clock.at += JUDGED_SECONDS * 1.01
            for _ in range(2):
                with pytest.raises(SharedMemoryError, match="process 77, a client as user 65534, may not read it"):
                    read(kind, made)
        peers.clients = []
        before = mappings()
        read(kind, made)
        assert mappings() == before, "it is kept all the while"
        kind.close()


def test_the_clients_are_not_looked_up_for_every_use(kind: Any, clock: SetClock, peers: Listed) -> None:  # [P-3] [O-19]
    with kind.make() as made:
        for _ in range(100):
            read(kind, made)
            clock.at += JUDGED_SECONDS / 10
        assert 5 <= peers.asked <= 11
        kind.close()


def test_an_unused_one_goes_after_a_while(kind: Any, clock: SetClock) -> None:  # [P-11]
    before = mappings()
    with kind.make() as made:
        client = mappings() - before  # what the test itself has of it
        read(kind, made)
        there = mappings()
        assert there > before + client
        kind.sweep()
        for _ in range(3):
            clock.at += KEEP_UNUSED_SECONDS - 0.5
            kind.sweep()
            assert mappings() == there
            read(kind, made)
            kind.sweep()
        clock.at += KEEP_UNUSED_SECONDS
        kind.sweep()
        assert mappings() < there
        kind.close()


def test_zeros_follow(kind: Any) -> None:  # [P-11]
    with kind.make() as made:
        with kind.lent(made) as lent:
            room = SIZE + READABLE_BEHIND_BYTES
            own = ctypes.create_string_buffer(room)
            ctypes.memmove(own, lent.address, room)
            assert own.raw == b"\xff" * SIZE + bytes(READABLE_BEHIND_BYTES)
        kind.close()


def test_threads_share_one(kind: Any) -> None:
    with kind.make() as made:
        made.write(b"abcd")
        read(kind, made)
        before, seen = mappings(), list[bytes]()
        uses: list[Callable[[], None]] = [lambda: seen.extend(read(kind, made) for _ in range(200))] * 4
        threads = [threading.Thread(target=use) for use in uses]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [b"abcd"] * 800
        assert mappings() == before
        kind.close()


def test_all_memory_is_given_back(kind: Any, clock: SetClock) -> None:
    with kind.make() as made:
        read(kind, made)
        clock.at += KEEP_UNUSED_SECONDS
        kind.sweep()
        clock.at += KEEP_UNUSED_SECONDS
        kind.sweep()
        before = mappings(of_all=True)
        for _ in range(20):
            read(kind, made)
            for _ in range(2):
                kind.sweep()
                clock.at += KEEP_UNUSED_SECONDS
            kind.sweep()
        assert mappings(of_all=True) == before
        kind.close()
