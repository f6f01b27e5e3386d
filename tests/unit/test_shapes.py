"""The process that new shapes are tried in: how long it stays, and that nothing of it is left (P-13)."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edge.engine.engine import SessionOptions
from edge.engine.shapes import IDLE_SECONDS, ShapeTrials
from tests.data.make_models import add_one
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def trials(tmp_path: Path, clock: FakeClock) -> Iterator[ShapeTrials]:
    """Those of a model that takes any number of rows of four."""
    (tmp_path / "model.tflite").write_bytes(add_one((-1, 4)))
    with (tmp_path / "model.tflite").open("rb") as file:
        made = ShapeTrials(
            "m",
            file.fileno(),
            SessionOptions(),
            "zeros",
            run_seconds=60,
            engine="an engine 1.0",
            session_bytes=0,
            instances=1,
            check_room=lambda what, size: None,
            clock=clock,
        )
    yield made
    made.close()


@pytest.fixture
def others() -> set[psutil.Process]:
    """The children that this process has already."""
    return {*psutil.Process().children()}


def run(trials: ShapeTrials, rows: int) -> None:
    trials.check(((rows, 4),), rows * 16)


def test_the_process_stays_while_new_shapes_come(
    trials: ShapeTrials, clock: FakeClock, others: set[psutil.Process]
) -> None:  # [P-13]
    run(trials, 2)
    child = {*psutil.Process().children()} - others
    for rows in range(3, 6):
        clock.advance(IDLE_SECONDS - 1)
        trials.end_idle_child()
        run(trials, rows)
    assert len(child) == 1 and {*psutil.Process().children()} - others == child


def test_nothing_is_left_of_the_process_when_no_more_come(
    trials: ShapeTrials, clock: FakeClock, others: set[psutil.Process]
) -> None:  # [P-13]
    """No zombie either; shapes that come later are tried in another."""
    trials.end_idle_child()
    for rows in (2, 3):
        run(trials, rows)
        clock.advance(IDLE_SECONDS)
        trials.end_idle_child()
        assert {*psutil.Process().children()} <= others


def test_a_process_that_something_else_has_ended_says_nothing_of_a_shape(
    trials: ShapeTrials, others: set[psutil.Process]
) -> None:  # [P-13]
    """As the system does where memory is short: it is forgotten in the next turn, or by the next shapes."""
    for rows, in_turn in ((2, True), (3, False)):
        run(trials, rows)
        (child,) = {*psutil.Process().children()} - others
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        if in_turn:
            trials.end_idle_child()
            assert {*psutil.Process().children()} <= others
    run(trials, 4)
    assert trials.known(((4, 4),))
