"""The process in which a model is tried, where it must not be in the way of those that serve (W-1)."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.engine import child
from edge.engine.child import Child
from edge.errors import StoppingError

NEVER_SECONDS = 60.0
ANSWERS = 'read line; echo "{\\"heard\\": true}"'


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Child]]:
    """Starts a shell script in place of the program; it is ended after the test."""
    program, made = tmp_path / "child", list[Child]()
    monkeypatch.setattr(child, "self_command", lambda: [str(program)])

    def begin(script: str, *, idle: bool) -> Child:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(stat.S_IRWXU)
        made.append(Child({}, [], idle=idle))
        return made[-1]

    yield begin
    for one in made:
        one.end()


@pytest.mark.parametrize(("idle", "policy"), [(True, os.SCHED_IDLE), (False, os.SCHED_OTHER)])
def test_an_idle_one_is_scheduled_so(start: Callable[..., Child], idle: bool, policy: int) -> None:  # [W-1]
    made = start(ANSWERS, idle=idle)
    assert os.sched_getscheduler(made._process.pid) == policy


def test_a_sandbox_that_forbids_it_forbids_no_trial(
    start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:  # [W-1]
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    made = start(ANSWERS, idle=True)
    made.ask({})
    assert made.hear(NEVER_SECONDS) == {"heard": True}


def test_what_it_waits_for_a_core_does_not_count(
    start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:  # [W-1]
    """It is asked when its time is over: it answers in the time that it is given more."""
    made = start(ANSWERS, idle=True)

    def kept_waiting() -> float:
        made.ask({})
        return NEVER_SECONDS

    monkeypatch.setattr(made, "_kept_waiting", kept_waiting)
    monkeypatch.setattr(child, "MAX_WAITS", 6000)
    assert made.hear(0.01) == {"heard": True}


def test_its_threads_are_not_looked_at_before(start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would have to forget their files in /proc as it ends."""
    made = start(ANSWERS, idle=True)
    monkeypatch.setattr(made, "_kept_waiting", lambda: pytest.fail("its time is not over"))
    made.ask({})
    assert made.hear(NEVER_SECONDS) == {"heard": True}


def test_there_is_an_end_to_it(start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch) -> None:  # [W-1]
    made, waited = start(ANSWERS, idle=True), iter(range(0, 1 << 30, 1 << 20))
    monkeypatch.setattr(made, "_kept_waiting", lambda: float(next(waited)))
    with pytest.raises(TimeoutError):
        made.hear(0.01)


@pytest.mark.parametrize("idle", [True, False])
def test_one_that_sleeps_is_given_no_more(start: Callable[..., Child], idle: bool) -> None:  # [W-1]
    with pytest.raises(TimeoutError):
        start("exec sleep 600", idle=idle).hear(0.01)


def test_only_an_idle_one_is_given_more(start: Callable[..., Child]) -> None:
    made = start("while :; do :; done", idle=False)
    with pytest.raises(TimeoutError):
        made.hear(0.1)
    assert made._kept_waiting() == 0.0


@pytest.mark.parametrize("idle", [True, False])
def test_who_waits_for_it_may_give_up(
    start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch, idle: bool
) -> None:  # [L-12]
    def go_on() -> None:
        raise StoppingError("the agent is stopping")

    monkeypatch.setattr(child, "LOOK_SECONDS", 0.01)
    with pytest.raises(StoppingError):
        start("exec sleep 600", idle=idle).hear(NEVER_SECONDS, go_on)
