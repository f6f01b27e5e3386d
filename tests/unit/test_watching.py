"""A call that was chosen and cannot be captured has its answer, and leaves nothing reserved (K)."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.capture.keeper import Keeper
from edge.capture.summaries import Watchable
from edge.capture_policy import Policy
from edge.clock import SystemClock
from edge.rpc.watching import Watched, Watching
from edge.tensors import DType, TensorSpec

SPEC = TensorSpec("x", DType.FLOAT32, (1, 4), (1, 4))


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
    watch = keeper.watch(Watchable("m", "model", "1", [SPEC], [SPEC], lambda: None))  # type: ignore[arg-type, return-value]
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
