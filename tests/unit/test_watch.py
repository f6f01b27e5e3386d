"""What wakes a parked thread: real epoll instances, and gRPC's own."""

import errno
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.clock import SystemClock
from edge.rpc import watch as watch_module
from edge.rpc.core import CoreServer
from edge.rpc.watch import Watch, epoll_of
from tests.fakes import descriptors

TIMEOUT_SECONDS = 30


class Sleepers:
    """Threads that wait on a watch, and a count of their wakings."""

    def __init__(self, watch: Watch, count: int = 1) -> None:
        self._watch = watch
        self._over = False
        self.woken = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while True:
            self._watch.wait()
            if self._over:
                return
            self.woken.release()

    def wakes(self) -> bool:
        return self.woken.acquire(timeout=TIMEOUT_SECONDS)

    def end(self) -> None:
        self._over = True
        self._watch.ring_all()
        for thread in self._threads:
            thread.join(TIMEOUT_SECONDS)
            assert not thread.is_alive()
        self._watch.close()


class Events:
    """An epoll instance as gRPC has it, with a pipe in it."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self._read, self._write = os.pipe()
        self.epoll.register(self._read, select.EPOLLIN | select.EPOLLET)

    def come(self) -> None:
        os.write(self._write, b"x")

    def take(self) -> None:
        assert self.epoll.poll(TIMEOUT_SECONDS)

    def close(self) -> None:
        self.epoll.close()
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def events() -> Iterator[Events]:
    made = Events()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "LONGEST_SECONDS", 1000)


def test_an_armed_watch_wakes_one_thread_once(events: Events) -> None:
    watch = Watch(events.epoll.fileno())
    sleepers = Sleepers(watch, 3)
    assert watch.arm()
    for _ in range(3):
        events.come()
    assert sleepers.wakes()
    events.take()
    sleepers.end()
    assert not sleepers.woken.acquire(blocking=False)


def test_it_sees_what_came_before_it_was_armed(events: Events) -> None:
    watch = Watch(events.epoll.fileno())
    sleepers = Sleepers(watch)
    events.come()
    assert watch.arm()
    assert sleepers.wakes()
    sleepers.end()


def test_what_somebody_else_takes_wakes_nobody(events: Events) -> None:
    watch = Watch(events.epoll.fileno())
    sleepers = Sleepers(watch)
    for _ in range(3):
        assert watch.arm()
        watch.disarm()
        events.come()
        events.take()
        watch.ring()
        assert sleepers.wakes()
    sleepers.end()
    assert not sleepers.woken.acquire(blocking=False)


def test_each_ring_wakes_one(events: Events) -> None:
    sleepers = Sleepers(Watch(None), 3)
    for _ in range(5):
        sleepers._watch.ring()
        assert sleepers.wakes()
    sleepers.end()
    assert not sleepers.woken.acquire(blocking=False)


def test_it_wakes_in_the_end(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "LONGEST_SECONDS", 0.001)
    watch = Watch(events.epoll.fileno())
    sleepers = Sleepers(watch)
    for _ in range(3):
        assert watch.arm()
        assert sleepers.wakes()
    sleepers.end()


def test_what_its_owner_has_closed_cannot_be_watched(events: Events) -> None:
    watch = Watch(events.epoll.fileno())
    assert watch.arm()
    events.epoll.close()
    watch.disarm()
    assert not watch.arm()
    watch.close()


def test_nothing_to_watch() -> None:
    watch = Watch(None)
    assert not watch.arm()
    watch.disarm()
    watch.close()


@pytest.mark.parametrize("free", range(3))
def test_no_files_left(free: int) -> None:
    with descriptors.left(free), pytest.raises(OSError) as caught:
        Watch(None)
    assert caught.value.errno == errno.EMFILE


def test_the_epoll_instance_of_a_server_is_found(tmp_path: Path) -> None:
    server, path = CoreServer({}, SystemClock()), str(tmp_path / "core.sock")
    assert epoll_of(path) is None
    server.listen(path)
    found = epoll_of(path)
    assert found is not None
    assert str(Path(f"/proc/self/fd/{found}").readlink()) == "anon_inode:[eventpoll]"
    assert epoll_of(str(tmp_path / "other.sock")) is None
    server.start()
    server.stop(0)


def test_looking_for_it_opens_nothing(tmp_path: Path) -> None:
    server, path = CoreServer({}, SystemClock()), str(tmp_path / "core.sock")
    server.listen(path)
    found = epoll_of(path)
    # As another server of this process has it: gRPC's instance is then itself a member of one, and no socket.
    watch = Watch(found)
    before = descriptors.numbers()
    assert [epoll_of(path) for _ in range(3)] == [found] * 3
    assert not descriptors.numbers() - before  # what a test before left may go meanwhile
    watch.close()
    server.start()
    server.stop(0)
