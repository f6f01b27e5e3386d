"""A call that was chosen and cannot be captured has its answer, and leaves nothing reserved (K)."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge import histogram
from edge.capture.keeper import Chosen, Keeper
from edge.capture.summaries import CallCounts, Watchable
from edge.capture_policy import Policy
from edge.clock import SystemClock
from edge.errors import SpoolFullError
from edge.rpc.watching import Watched, Watching
from edge.tensors import DType, TensorSpec
from tests.fakes.clock import FakeClock

SPEC = TensorSpec("x", DType.FLOAT32, (1, 4), (1, 4))


def watched(outputs: Any = None, calls: Any = None, serves: Any = lambda: True) -> Watchable:
    """The model m, as it is watched."""
    return Watchable("m", "model", "1", [SPEC], [SPEC] if outputs is None else outputs, calls or (lambda: None), serves)


class Captures:
    """What a keeper asks of the captures at a call."""

    def __init__(self) -> None:
        self.promised: list[str] = []

    def promise(self, capture_id: str) -> None:
        self.promised.append(capture_id)

    def break_promise(self, capture_id: str) -> None:
        self.promised.remove(capture_id)


class Caller:
    def __init__(self) -> None:
        self.trailing: list[str] = []

    def metadata(self, key: str) -> str | None:
        return None

    def trail(self, key: str, value: str) -> None:
        self.trailing.append(key)


def test_a_copy_that_fails_leaves_nothing_reserved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    captures: Any = Captures()
    keeper = Keeper(captures, {"m": Policy(every_nth=1, errors=True)}, folder=tmp_path, clock=SystemClock())
    watch = keeper.watch(watched())
    assert watch is not None
    plan: Any = SimpleNamespace(
        shared=(SimpleNamespace(position=0, size=16),),
        encoder=SimpleNamespace(written_bytes=0),
        model=SimpleNamespace(inputs=[SPEC], manifest=SimpleNamespace(model_name="model", model_version="1")),
        shapes=((1, 4),),
    )
    caller: Any = Caller()
    watching = Watching(keeper, SystemClock(), lambda answer: ())
    gone = Watched(plan, b"request", caller, (object(),), 0.0)  # type: ignore[arg-type]
    assert watching.answered(watch, 1, gone, (), b"answer") is None
    assert watching.failed(watch, gone, "INVALID_ARGUMENT") is None
    assert (keeper._queued, keeper._queued_bytes, watch.budget.records) == (0, 0, 0)
    assert not captures.promised and not caller.trailing
    assert caplog.text.count("a call that was chosen is not captured") == 2
    there = Watched(plan, b"request", caller, (bytes(16),), 0.0)
    assert watching.answered(watch, 1, there, (), b"answer") is not None
    assert keeper._queued == 1 and captures.promised and caller.trailing


def keeper_of(folder: Path, policy: Policy, clock: Any = None, summary_seconds: float = 0.0) -> Keeper:
    captures: Any = Captures()
    return Keeper(captures, {"m": policy}, folder=folder, clock=clock or FakeClock(), summary_seconds=summary_seconds)


def test_a_version_has_a_watch_of_its_own(tmp_path: Path) -> None:  # [K-3] [W-8]
    keeper = keeper_of(tmp_path, Policy(every_nth=2, unlike_mean_sigmas=3))
    old, new = [SPEC], [SPEC]  # alike, but of two models
    first = keeper.watch(watched(old))
    assert first is not None and keeper.watch(watched(old)) is first
    assert [first.number(0.0), first.number(0.0)] == [1, 2]
    second = keeper.watch(watched(new))
    assert second is not None and second is not first and keeper.watch(watched(new)) is second
    assert second._triggers is not first._triggers  # its means are of its own outputs
    assert second.number(0.0) == 1  # it counts its own calls
    assert second.budget is first.budget  # what may be kept in a day is the policy's


def test_a_model_that_went_takes_nothing_from_the_one_in_its_place(tmp_path: Path) -> None:  # [K-7] [W-2]
    """A call that was underway at the swap asks for the watch of the old model after the new one has its own."""
    clock = FakeClock()
    keeper = keeper_of(tmp_path, Policy(), clock, summary_seconds=60.0)

    def counts() -> CallCounts:
        return CallCounts({"OK": 5}, 0.0, histogram.empty())

    old, new, serving = [SPEC], [SPEC], [SPEC]
    serving = old
    first = keeper.watch(watched(old, counts, lambda: serving is old))
    serving = new
    keeper.keep_only(lambda: {"m": new})
    second = keeper.watch(watched(new, counts, lambda: serving is new))
    assert first is not None and second is not None and first.collector is not second.collector
    assert keeper.watch(watched(old, counts, lambda: serving is old)) is None
    assert keeper.watch(watched(new, counts, lambda: serving is new)) is second
    told = keeper._summaries.due(clock.monotonic() + 60.0, stopping=False)
    assert [one.content["calls"] for one in told] == [{"OK": 5}, {"OK": 5}]  # each once


def test_captures_that_fail_do_not_spend_the_day(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:  # [K-4]
    keeper = keeper_of(tmp_path, Policy(every_nth=1, records_per_day=3, mib_per_day=1))
    watch = keeper.watch(watched())
    assert watch is not None
    taken: list[Callable[[int], None]] = []

    def fails(request: Any, take: Callable[[int], None]) -> bool:
        taken.append(take)
        take(size)
        raise SpoolFullError("the disk takes no more")

    keeper._captures.submit_promised = fails  # type: ignore[method-assign]
    size = 1000
    for _ in range(4):
        assert keeper.reserve(watch, "id", 10)
        keeper._store(Chosen(watch, "id", 10, lambda: None))  # type: ignore[arg-type, return-value]
        assert not watch.budget.spent
    assert (watch.budget.records, watch.budget.bytes, len(taken)) == (0, 0, 4)
    size = (1 << 20) + 1  # larger than any day
    assert keeper.reserve(watch, "id", 10)
    keeper._store(Chosen(watch, "id", 10, lambda: None))  # type: ignore[arg-type, return-value]
    assert not watch.budget.spent and watch.budget.records == 1  # but it is counted: nobody has it made without end
