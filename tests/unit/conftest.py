"""What tests of captures stand on: a clock that they move, and services that are stopped at the end."""

from collections.abc import Iterator

import pytest

from tests.fakes import captures
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make(clock: FakeClock) -> Iterator[captures.Runs]:
    with captures.Runs(clock) as runs:
        yield runs
