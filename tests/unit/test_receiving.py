"""What comes in is bounded in number, in time and in bytes (B-3 to B-5)."""

from pathlib import Path

import pytest

from edge.clock import SystemClock
from edge.errors import RequestsFullError
from edge.rpc import status
from edge.rpc.admins import Admins
from edge.rpc.receiving import (
    ASKED_TOGETHER,
    BESIDE_SECONDS,
    INCOMPLETE_SECONDS,
    MAX_INCOMPLETE_CALLS,
    WAIT_SECONDS,
    YOUNG_SECONDS,
    LargeRequests,
    Receiving,
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
def held() -> LargeRequests:
    return LargeRequests(4 * MESSAGE)


@pytest.fixture
def receiving(clock: SetClock, held: LargeRequests) -> Receiving:
    return Receiving(clock, held, max_message_bytes=MESSAGE, max_bytes=2 * MESSAGE)


def begin(receiving: Receiving, count: int) -> list[Beginning]:
    calls = [Beginning() for _ in range(count)]
    for call in calls:
        receiving.begin(call)
    return calls


def test_the_oldest_makes_room(receiving: Receiving) -> None:  # [B-3]
    calls = begin(receiving, MAX_INCOMPLETE_CALLS + 2)
    assert [call.ended is not None for call in calls[:4]] == [True, True, False, False]
    assert calls[0].ended is not None and calls[0].ended[0] is status.RESOURCE_EXHAUSTED
    receiving.done(calls[5])
    (newest,) = begin(receiving, 1)
    assert calls[2].ended is newest.ended is None


def test_what_does_not_come_in_time(receiving: Receiving, clock: SetClock) -> None:  # [B-3]
    (early,) = begin(receiving, 1)
    clock.at += INCOMPLETE_SECONDS / 2
    (late,) = begin(receiving, 1)
    clock.at += INCOMPLETE_SECONDS / 2
    receiving.look()
    assert early.ended == (status.DEADLINE_EXCEEDED, "the request's message did not arrive within 10 s")
    assert late.ended is None


def test_waiting_ends_only_while_something_is_incomplete(receiving: Receiving) -> None:
    assert not receiving.incomplete
    (call,) = begin(receiving, 1)
    assert receiving.incomplete
    receiving.done(call)
    assert not receiving.incomplete


def receive(calls: list[Beginning], size: int) -> None:
    for call in calls:
        call.received = bytes(size)


def test_bytes_beyond_the_bound(receiving: Receiving, clock: SetClock) -> None:  # [B-4]
    calls = begin(receiving, 4)
    receive(calls, MESSAGE // 2 - MIB)
    clock.at += 2 * YOUNG_SECONDS
    receiving.look()
    assert not any(call.ended for call in calls)
    receive(calls, MESSAGE - MIB)
    receiving.look()
    assert [call.ended is not None for call in calls] == [True, True, True, False]
    assert calls[0].ended is not None and "edge_receive_max_mib" in calls[0].ended[1]


def test_what_others_take_is_not_theirs(receiving: Receiving, clock: SetClock, held: LargeRequests) -> None:  # [B-4]
    answered = bytes(3 * MESSAGE)
    calls = begin(receiving, 4)
    held.take(len(answered))
    clock.at += 2 * YOUNG_SECONDS
    receiving.look()  # a large request became complete, and is counted elsewhere
    del answered
    held.give_back(3 * MESSAGE)
    for call in calls[2:]:
        receiving.done(call)
    model = bytes(3 * MESSAGE)
    receiving.look()  # two messages cannot have so much: a model was loaded
    assert not any(call.ended for call in calls)
    assert model


def test_the_newest_are_not_ended_for_bytes(receiving: Receiving, clock: SetClock) -> None:  # [B-4]
    old = begin(receiving, 2)
    clock.at += YOUNG_SECONDS * 0.9
    new = begin(receiving, 3)
    receive(old, MESSAGE)
    receive(new[:1], MIB)
    clock.at += YOUNG_SECONDS * 0.2
    receiving.look()
    assert any(call.ended for call in old)
    assert not any(call.ended for call in new)


def test_the_newest_are_ended_at_half_as_much_again(receiving: Receiving, clock: SetClock) -> None:  # [B-4]
    calls = begin(receiving, 4)
    receive(calls, MESSAGE)
    receiving.look()
    assert [call.ended is not None for call in calls] == [True, True, True, False]


def test_what_comes_while_there_are_too_many_bytes_waits(receiving: Receiving, clock: SetClock) -> None:  # [B-4]
    calls = begin(receiving, 3)
    receive(calls, MESSAGE - MIB)
    receiving.look()
    late = begin(receiving, 2)
    assert [call.asked for call in (*calls, *late)] == [1, 1, 1, 0, 0]
    receive(calls[:1], 0)
    receiving.done(calls[0])
    clock.at += 2 * YOUNG_SECONDS
    receiving.look()
    assert [call.asked for call in late] == [1, 1]
    assert not any(call.ended for call in (*calls, *late))


def test_large_messages_come_a_few_at_a_time(receiving: Receiving, clock: SetClock) -> None:  # [B-4]
    """In the order of their calls; a small one waits for a moment at most, and what waits is not ended for its bytes."""
    coming = begin(receiving, ASKED_TOGETHER)
    receive(coming, 3 * MIB)
    late = begin(receiving, 4)
    assert [call.asked for call in late] == [0] * 4
    coming[0].received = b""
    receiving.done(coming[0], 3 * MIB)
    assert [call.asked for call in late] == [1, 0, 0, 0]
    receive(late[:1], 3 * MIB)
    clock.at += 1.5 * BESIDE_SECONDS
    receiving.look()  # those may be half sent
    assert [call.asked for call in late] == [1, 1, 1, 0]
    receive([*coming[1:], *late[:3]], MESSAGE - MIB)
    receiving.look()
    assert coming[1].ended is not None and late[3].ended is None and not late[3].asked


def test_small_messages_do_not_wait_for_one_another(receiving: Receiving) -> None:  # [B-4]
    calls = begin(receiving, MAX_INCOMPLETE_CALLS)
    assert all(call.asked for call in calls)


def test_one_at_a_time_while_few_have_room_to_be_answered(
    receiving: Receiving, clock: SetClock, held: LargeRequests
) -> None:  # [B-4]
    coming = begin(receiving, ASKED_TOGETHER)
    receive(coming, 3 * MIB)
    late = begin(receiving, 3)
    held.take(3 * MESSAGE)
    for call in coming:
        receive([call], 0)
        receiving.done(call)
    assert [call.asked for call in late] == [1, 0, 0]
    held.give_back(3 * MESSAGE)
    receive(late[:1], MIB)
    receiving.look()
    assert [call.asked for call in late] == [1, 1, 0]


def test_a_small_one_waits_for_a_moment(clock: SetClock) -> None:  # [B-4]
    """Large ones that are young may come all the time; what one more may bring has to have room beside them."""
    receiving = Receiving(clock, LargeRequests(8 * MESSAGE), max_message_bytes=8 * MESSAGE, max_bytes=8 * MESSAGE)
    large = begin(receiving, ASKED_TOGETHER)
    receive(large, 3 * MIB)
    (small,) = begin(receiving, 1)
    assert not small.asked
    clock.at += WAIT_SECONDS
    for call in large:
        del receiving.incomplete[call]
        receiving.incomplete[call] = clock.at
    receive(large, 6 * MIB)
    receiving.look()
    assert not small.asked
    receive(large, 3 * MIB)
    receiving.look()
    assert small.asked


def test_the_sockets_of_an_agent_share_the_bounds(tmp_path: Path) -> None:  # [B-3] [B-4]
    admins = Admins(str(tmp_path / "admin" / "agent.sock"), (), frozenset(), frozenset())
    server = Server(str(tmp_path / "agent.sock"), max_message_bytes=MESSAGE, admins=admins)
    first, second = (door.calls.receiving for door in server._doors)  # type: ignore[attr-defined]
    assert first is second


def test_what_waits_is_asked_for_after_the_last_that_did_not(receiving: Receiving, clock: SetClock) -> None:  # [B-4]
    calls = begin(receiving, 3)
    receive(calls, MESSAGE - MIB)
    receiving.look()
    stays, goes = begin(receiving, 2)
    receiving.done(goes)  # its client has gone
    for call in calls:
        receiving.done(call)
    assert (stays.asked, goes.asked) == (1, 0)
    receiving.done(stays)
    assert not receiving.incomplete


def test_a_call_that_is_ended_before_its_message_is_asked_for(receiving: Receiving, clock: SetClock) -> None:  # [B-3]
    """gRPC must be asked all the same: that it has no message ends the call."""
    calls = begin(receiving, 3)
    receive(calls, MESSAGE - MIB)
    receiving.look()
    late = begin(receiving, MAX_INCOMPLETE_CALLS)
    assert [(call.ended is not None, call.asked) for call in (*calls, *late[:2])] == [(True, 1)] * 3 + [(False, 0)] * 2
    begin(receiving, 1)
    assert late[0].ended is not None and late[0].asked == 1
    assert not late[1].asked


def test_large_requests_that_are_answered() -> None:  # [B-5]
    held = LargeRequests(100)
    held.take(60)
    with pytest.raises(RequestsFullError, match="requests of 60 bytes are being answered; 41 more"):
        held.take(41)
    held.take(40)
    held.give_back(60)
    held.give_back(40)
    held.take(101)  # alone it may have any size that a message may have
