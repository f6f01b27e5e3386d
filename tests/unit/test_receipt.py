"""What comes in is bounded in number, in time and in bytes (B-3 to B-5)."""

from pathlib import Path

import pytest

from edge.clock import SystemClock
from edge.errors import RequestsFullError
from edge.rpc import status
from edge.rpc.admins import Admins
from edge.rpc.receipt import (
    ASKED_TOGETHER,
    INCOMPLETE_SECONDS,
    MAX_INCOMPLETE_CALLS,
    WAIT_SECONDS,
    YOUNG_SECONDS,
    Held,
    Receipts,
)
from edge.rpc.server import Server

MIB = 1 << 20
MESSAGE = 8 * MIB


class SetClock(SystemClock):
    """A monotonic clock that a test moves."""

    at = 1000.0

    def monotonic(self) -> float:
        return self.at


class Beginning:
    """A call whose message has not come; `received` is what it has on the heap."""

    def __init__(self) -> None:
        self.ended: tuple[status.Code, str] | None = None
        self.received = b""
        self.asked = 0

    def ask(self) -> None:
        self.asked += 1

    def cancel(self, code: status.Code, text: str) -> None:
        self.ended = (code, text)
        self.received = b""


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def held() -> Held:
    return Held(4 * MESSAGE)


@pytest.fixture
def receipts(clock: SetClock, held: Held) -> Receipts:
    return Receipts(clock, held, max_message_bytes=MESSAGE, max_bytes=2 * MESSAGE)


def begin(receipts: Receipts, count: int) -> list[Beginning]:
    calls = [Beginning() for _ in range(count)]
    for call in calls:
        receipts.begin(call)
    return calls


def test_the_oldest_makes_room(receipts: Receipts) -> None:  # [B-3]
    calls = begin(receipts, MAX_INCOMPLETE_CALLS + 2)
    assert [call.ended is not None for call in calls[:4]] == [True, True, False, False]
    assert calls[0].ended is not None and calls[0].ended[0] is status.RESOURCE_EXHAUSTED
    receipts.done(calls[5])
    (newest,) = begin(receipts, 1)
    assert calls[2].ended is newest.ended is None


def test_what_does_not_come_in_time(receipts: Receipts, clock: SetClock) -> None:  # [B-3]
    (early,) = begin(receipts, 1)
    clock.at += INCOMPLETE_SECONDS / 2
    (late,) = begin(receipts, 1)
    clock.at += INCOMPLETE_SECONDS / 2
    receipts.look()
    assert early.ended == (status.DEADLINE_EXCEEDED, "the request's message did not arrive within 10 s")
    assert late.ended is None


def test_waiting_ends_only_while_something_is_incomplete(receipts: Receipts) -> None:
    assert receipts.wake_at() is None
    (call,) = begin(receipts, 1)
    assert receipts.wake_at() is not None
    receipts.done(call)
    assert receipts.wake_at() is None


def receive(calls: list[Beginning], size: int) -> None:
    for call in calls:
        call.received = bytes(size)


def test_bytes_beyond_the_bound(receipts: Receipts, clock: SetClock) -> None:  # [B-4]
    calls = begin(receipts, 4)
    receive(calls, MESSAGE // 2 - MIB)
    clock.at += 2 * YOUNG_SECONDS
    receipts.look()
    assert not any(call.ended for call in calls)
    receive(calls, MESSAGE - MIB)
    receipts.look()
    assert [call.ended is not None for call in calls] == [True, True, True, False]
    assert calls[0].ended is not None and "edge_receive_max_mib" in calls[0].ended[1]


def test_what_others_take_is_not_theirs(receipts: Receipts, clock: SetClock, held: Held) -> None:  # [B-4]
    answered = bytes(3 * MESSAGE)
    calls = begin(receipts, 4)
    held.take(len(answered))
    clock.at += 2 * YOUNG_SECONDS
    receipts.look()  # a large request became complete, and is counted elsewhere
    del answered
    held.give_back(3 * MESSAGE)
    for call in calls[2:]:
        receipts.done(call)
    model = bytes(3 * MESSAGE)
    receipts.look()  # two messages cannot have so much: a model was loaded
    assert not any(call.ended for call in calls)
    assert model


def test_the_newest_are_not_ended_for_bytes(receipts: Receipts, clock: SetClock) -> None:  # [B-4]
    old = begin(receipts, 2)
    clock.at += YOUNG_SECONDS * 0.9
    new = begin(receipts, 3)
    receive(old, MESSAGE)
    receive(new[:1], MIB)
    clock.at += YOUNG_SECONDS * 0.2
    receipts.look()
    assert any(call.ended for call in old)
    assert not any(call.ended for call in new)


def test_the_newest_are_ended_at_half_as_much_again(receipts: Receipts, clock: SetClock) -> None:  # [B-4]
    calls = begin(receipts, 4)
    receive(calls, MESSAGE)
    receipts.look()
    assert [call.ended is not None for call in calls] == [True, True, True, False]


def test_what_comes_while_there_are_too_many_bytes_waits(receipts: Receipts, clock: SetClock) -> None:  # [B-4]
    calls = begin(receipts, 3)
    receive(calls, MESSAGE - MIB)
    receipts.look()
    late = begin(receipts, 2)
    assert [call.asked for call in (*calls, *late)] == [1, 1, 1, 0, 0]
    receive(calls[:1], 0)
    receipts.done(calls[0])
    clock.at += 2 * YOUNG_SECONDS
    receipts.look()
    assert [call.asked for call in late] == [1, 1]
    assert not any(call.ended for call in (*calls, *late))


def test_large_messages_come_a_few_at_a_time(receipts: Receipts, clock: SetClock) -> None:  # [B-4]
    """In the order of their calls; a small one waits for a moment at most, and what waits is not ended for its bytes."""
    coming = begin(receipts, ASKED_TOGETHER)
    receive(coming, 3 * MIB)
    late = begin(receipts, 4)
    assert [call.asked for call in late] == [0] * 4
    coming[0].received = b""
    receipts.done(coming[0], 3 * MIB)
    assert [call.asked for call in late] == [1, 0, 0, 0]
    receive(late[:1], 3 * MIB)
    clock.at += 1.5 * YOUNG_SECONDS
    receipts.look()  # those are not young any more
    assert [call.asked for call in late] == [1, 1, 1, 0]
    receive([*coming[1:], *late[:3]], MESSAGE - MIB)
    receipts.look()
    assert coming[1].ended is not None and late[3].ended is None and not late[3].asked


def test_small_messages_do_not_wait_for_one_another(receipts: Receipts) -> None:  # [B-4]
    calls = begin(receipts, MAX_INCOMPLETE_CALLS)
    assert all(call.asked for call in calls)


def test_a_small_one_waits_for_a_moment(receipts: Receipts, clock: SetClock) -> None:  # [B-4]
    """Large ones that are young may come all the time."""
    receive(begin(receipts, ASKED_TOGETHER), 3 * MIB)
    (small,) = begin(receipts, 1)
    assert not small.asked
    clock.at += WAIT_SECONDS
    for call in receipts._incomplete:
        if call is not small:
            receipts._incomplete[call] = clock.at
    receipts.look()
    assert small.asked


def test_the_sockets_of_an_agent_share_the_bounds(tmp_path: Path) -> None:  # [B-3] [B-4]
    admins = Admins(str(tmp_path / "admin" / "agent.sock"), (), frozenset(), frozenset())
    server = Server(str(tmp_path / "agent.sock"), max_message_bytes=MESSAGE, admins=admins)
    first, second = (door.calls.receipts for door in server._doors)  # type: ignore[attr-defined]
    assert first is second


def test_what_waits_is_asked_for_after_the_last_that_did_not(receipts: Receipts, clock: SetClock) -> None:  # [B-4]
    calls = begin(receipts, 3)
    receive(calls, MESSAGE - MIB)
    receipts.look()
    stays, goes = begin(receipts, 2)
    receipts.done(goes)  # its client has gone
    for call in calls:
        receipts.done(call)
    assert (stays.asked, goes.asked) == (1, 0)
    receipts.done(stays)
    assert receipts.wake_at() is None


def test_a_call_that_is_ended_before_its_message_is_asked_for(receipts: Receipts, clock: SetClock) -> None:  # [B-3]
    """gRPC must be asked all the same: that it has no message ends the call."""
    calls = begin(receipts, 3)
    receive(calls, MESSAGE - MIB)
    receipts.look()
    late = begin(receipts, MAX_INCOMPLETE_CALLS)
    assert [(call.ended is not None, call.asked) for call in (*calls, *late[:2])] == [(True, 1)] * 3 + [(False, 0)] * 2
    begin(receipts, 1)
    assert late[0].ended is not None and late[0].asked == 1
    assert not late[1].asked


def test_large_requests_that_are_answered() -> None:  # [B-5]
    held = Held(100)
    held.take(60)
    with pytest.raises(RequestsFullError, match="requests of 60 bytes are being answered; 41 more"):
        held.take(41)
    held.take(40)
    held.give_back(60)
    held.give_back(40)
    held.take(101)  # alone it may have any size that a message may have
