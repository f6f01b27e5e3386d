"""What a server has under way: whom a further call may replace, and when a stop goes on ([B-8], [X-4])."""

from edge.rpc import status
from edge.rpc.underway import Underway
from edge.rpc.unread import SMALL_UNREAD_SECONDS
from tests.fakes.clock import FakeClock


class Call:
    """A call; `answered` since then."""

    def __init__(self, answered: float = 0.0) -> None:
        self.answered = answered
        self.ended = False

    def cancel(self, code: status.Code, text: str) -> None:
        assert code is status.RESOURCE_EXHAUSTED
        self.ended = True

    def finish(self, code: status.Code, text: str = "") -> None:
        raise NotImplementedError


def of(clock: FakeClock, calls: list[Call]) -> Underway:
    made = Underway(clock, lambda: None)
    made.calls.update(calls)
    return made


def test_the_oldest_unread_answer_makes_a_place() -> None:  # [B-8]
    clock = FakeClock()
    waiting = [Call() for _ in range(4)]
    old, young = Call(clock.monotonic()), Call(clock.monotonic() + SMALL_UNREAD_SECONDS)
    underway = of(clock, [*waiting, young, old])
    assert not underway.end_unread()
    clock.advance(2 * SMALL_UNREAD_SECONDS)
    assert underway.end_unread()
    assert old.ended and not young.ended and underway.calls == {*waiting, young}


def test_where_most_are_unread_none_is_too_young() -> None:  # [B-8]
    clock = FakeClock()
    unread = [Call(clock.monotonic() + i / 1e6) for i in range(3)]
    assert of(clock, [Call(), *unread]).end_unread()
    assert [call.ended for call in unread] == [True, False, False]
    assert not of(clock, [Call()]).end_unread()


def test_a_stop_goes_on_after_the_last_call() -> None:
    closed: list[bool] = []
    call, stream = Call(), Call()
    underway = Underway(FakeClock(), lambda: closed.append(True))
    underway.calls.add(call)
    underway.streams.add(stream)
    underway.requests = 1
    underway.forget(call)
    underway.ending = True
    underway.look()
    underway.forget_stream(stream)
    assert not underway.settled.is_set()  # gRPC may have taken another call
    underway.request_ended()
    assert underway.settled.is_set() and not closed
    underway.close_when_done()
    underway.look()
    assert closed == [True]
