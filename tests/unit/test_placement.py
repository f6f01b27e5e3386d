"""An inference begins on a core where none of the agent's others runs ([P-10])."""

import errno
import os
from collections.abc import Iterator

import pytest

from edge.engine.placement import Placement

ALLOWED = os.sched_getaffinity(0)
pytestmark = pytest.mark.skipif(len(ALLOWED) < 2, reason="this machine has one core")


@pytest.fixture(autouse=True)
def same_cores() -> Iterator[None]:
    """However an inference is placed, its thread may use all its cores afterwards."""
    yield
    left = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ALLOWED)
    assert left == ALLOWED


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """What the threads' cores are set to; it is done as well."""
    made: list[set[int]] = []
    really = os.sched_setaffinity

    def set_cores(pid: int, cores: set[int]) -> None:
        made.append(set(cores))
        really(pid, cores)

    monkeypatch.setattr(os, "sched_setaffinity", set_cores)
    return made


@pytest.fixture
def stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[set[int]]]:
    """The thread stays on one core, whatever is asked; what it is asked."""
    asked: list[set[int]] = []
    with monkeypatch.context() as patch:
        os.sched_setaffinity(0, {min(ALLOWED)})
        patch.setattr(os, "sched_getaffinity", lambda pid: set(ALLOWED))
        patch.setattr(os, "sched_setaffinity", lambda pid, cores: asked.append(cores))
        yield asked
    os.sched_setaffinity(0, ALLOWED)


def test_one_inference_is_left_where_it_is(moves: list[set[int]]) -> None:
    placement = Placement()
    for _ in range(3):
        placement.end(placement.begin())
    assert not moves


def test_a_second_one_is_moved_to_another_core_and_not_kept_there(moves: list[set[int]]) -> None:
    os.sched_setaffinity(0, {min(ALLOWED)})  # held on one core while the first begins, so that both begin there
    placement = Placement()
    first = placement.begin()
    os.sched_setaffinity(0, ALLOWED)
    moves.clear()
    second = placement.begin()
    if moves:
        assert moves == [{second}, ALLOWED]
    assert first == min(ALLOWED) != second


def test_every_core_gets_one_and_those_beyond_stay(moves: list[set[int]]) -> None:
    placement = Placement()
    assert {placement.begin() for _ in ALLOWED} == ALLOWED
    moves.clear()
    assert placement.begin() in ALLOWED
    assert not moves


def test_the_core_that_came_free_last_is_taken_first(stays: list[set[int]]) -> None:
    placement = Placement()
    cores = [placement.begin() for _ in ALLOWED]
    for core in cores[1:]:
        placement.end(core)
    assert placement.begin() == cores[-1]


def test_a_thread_is_moved_within_the_cores_it_may_use(moves: list[set[int]]) -> None:
    core = max(ALLOWED)
    os.sched_setaffinity(0, {core})
    moves.clear()
    try:
        placement = Placement()
        assert [placement.begin() for _ in range(3)] == [core] * 3
        assert not moves
    finally:
        os.sched_setaffinity(0, ALLOWED)


@pytest.mark.parametrize(("number", "tries"), [(errno.EPERM, 1), (errno.EINVAL, len(ALLOWED) - 1)])
def test_where_it_is_forbidden_it_is_tried_once(
    stays: list[set[int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    tries: int,
) -> None:
    """A set of cores that has just been changed is no reason to give up."""

    def refuse(pid: int, cores: set[int]) -> None:
        stays.append(cores)
        raise OSError(number, os.strerror(number))

    placement = Placement()
    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        patch.setattr(os, "sched_setaffinity", refuse)
        for core in [placement.begin() for _ in range(2 * len(ALLOWED))]:
            placement.end(core)
    assert len(stays) == tries
    assert ("not permitted" in caplog.text) == (number == errno.EPERM)
