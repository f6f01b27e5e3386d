"""Answers that clients have not read: room for others, or none ([B-7])."""

import threading

from edge.clock import SystemClock
from edge.rpc import status
from edge.rpc.unread import UNREAD_SECONDS, Unread
from tests.fakes.clock import FakeClock
from tests.system.harness import eventually


class Call:
    """A call whose end gives its room back, as gRPC's event does."""

    def __init__(self, unread: Unread) -> None:
        self._unread = unread
        self.ended = threading.Event()

    def cancel(self, code: status.Code, text: str) -> None:
        assert code is status.RESOURCE_EXHAUSTED
        self.ended.set()
        threading.Thread(target=self._unread.done, args=(self,)).start()


def test_one_answer_of_any_size_has_room() -> None:
    unread = Unread(FakeClock(), max_bytes=10)
    assert not unread.full(100)
    assert unread.take(Call(unread), 100)
    assert unread.full(1)


def test_room_comes_with_the_reader() -> None:
    unread = Unread(SystemClock(), max_bytes=10, wait_seconds=60)
    first = Call(unread)
    assert unread.take(first, 8)
    waiter = threading.Thread(target=unread.take, args=(Call(unread), 8))
    waiter.start()
    unread.done(first)
    waiter.join(30)
    assert not waiter.is_alive()
    assert unread.full(8)


def test_what_was_not_read_for_long_makes_room() -> None:
    clock = FakeClock()
    unread = Unread(clock, max_bytes=10, wait_seconds=60)
    old = Call(unread)
    assert unread.take(old, 8)
    clock.advance(UNREAD_SECONDS)
    assert unread.take(Call(unread), 8)
    assert old.ended.is_set()


def test_without_room_in_time_it_says_so() -> None:
    unread = Unread(SystemClock(), max_bytes=10, wait_seconds=0)
    young = Call(unread)
    assert unread.take(young, 8)
    assert not unread.take(Call(unread), 8)
    assert not young.ended.is_set()
    unread.done(young)
    unread.done(young)  # an end that was counted already
    assert not unread.full(8)


def test_as_much_waits_as_has_room() -> None:
    unread = Unread(SystemClock(), max_bytes=10, max_waiting_bytes=10, wait_seconds=60)
    first = Call(unread)
    assert unread.take(first, 10)
    waiter = threading.Thread(target=unread.take, args=(Call(unread), 8))
    waiter.start()
    while not unread._waiting:
        threading.Event().wait(0.01)
    assert not unread.take(Call(unread), 8)
    unread.done(first)
    waiter.join(30)
    assert not waiter.is_alive()


def test_where_too_many_wait_those_in_their_place_wait_too() -> None:
    unread = Unread(SystemClock(), max_bytes=10, max_waiting_bytes=8, wait_seconds=60)
    first, second, third = Call(unread), Call(unread), Call(unread)
    assert unread.take(first, 8)
    waiter = threading.Thread(target=unread.take, args=(second, 8))
    waiter.start()
    eventually(lambda: not unread.may_wait(1))
    assert not unread.take(third, 8)
    in_place = threading.Thread(target=unread.take, args=(third, 8), kwargs={"in_place": True})
    in_place.start()
    unread.done(first)
    while waiter.is_alive() or in_place.is_alive():
        waiter.join(0.01)
        in_place.join(0.01)
        for call in (second, third):  # each is read as soon as it has found room
            unread.done(call)
