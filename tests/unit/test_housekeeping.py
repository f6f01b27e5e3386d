"""A duty that fails is done again, and keeps none of the others."""

import logging
import threading

import pytest

from edge.host.housekeeping import keep_house
from tests.fakes.clock import FakeClock


class Seconds(FakeClock):
    """Time passes by itself."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.advance(seconds)
        return event.is_set()


def test_a_duty_that_fails_keeps_none_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    stop, done = threading.Event(), 0

    def fails() -> None:
        raise ValueError("once" if done < 3 else "and again")

    def goes_on() -> None:
        nonlocal done
        done += 1
        if done == 5:
            stop.set()

    with caplog.at_level(logging.ERROR):
        keep_house(Seconds(), stop, [fails, goes_on])
    assert done == 5
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["once", "and again"]
