"""What a version's calls say of it: the verdicts, while failed calls are given to the version before (W-6)."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge.deploy.proof import COMMIT_PREDICTS, Proofs, Verdict
from edge.errors import MemoryLimitError
from edge.serving.failed import MAX_KEPT_BYTES, MAX_KEPT_CALLS, FailedCall, FailedCalls
from edge.serving.loading import LoadedModel
from edge.serving.remarks import Remarks
from edge.tensors import DType, TensorSpec
from tests.fakes.clock import FakeClock

SPEC = TensorSpec("x", DType.INT32, (2,), (2,))
SHAPES = ((2,),)


def served() -> LoadedModel:
    """As much of a model as its proof looks at."""
    model = SimpleNamespace(name="m", inputs=(SPEC,), remarks=Remarks("m"), scheduler=SimpleNamespace(predicted=0))
    return cast(LoadedModel, model)


class Trial:
    """A version on trial whose failed calls are given to `answers`."""

    def __init__(self, answers: Callable[[str, FailedCall], bool], before: str = "/before") -> None:
        self.model: Any = served()
        self.proofs = Proofs(FakeClock(), answers)
        self.proofs.begin("m", self.model, before)

    def fail(self) -> None:
        calls = self.model.remarks.failed_calls
        if calls is not None:
            calls.keep([b"12345678"], SHAPES)

    def look(self) -> Verdict:
        return self.proofs.look(lambda name: self.model)["m"]

    def join(self) -> None:
        for thread in threading.enumerate():
            if thread.name == "compare m":
                thread.join()


def test_while_a_call_is_looked_into_nothing_is_proved() -> None:  # [W-6]
    asked, answer = [], threading.Event()

    def answers(url: str, call: FailedCall) -> bool:
        asked.append((url, call.data, [(one.name, one.shape) for one in call.inputs]))
        assert answer.wait(30)
        return False

    trial = Trial(answers)
    trial.fail()
    trial.model.scheduler.predicted = COMMIT_PREDICTS
    assert trial.look() is Verdict.OPEN
    trial.fail()
    assert trial.look() is Verdict.OPEN
    assert asked == [("/before", b"12345678", [("x", (2,))])]  # one at a time
    answer.set()
    trial.join()
    trial.look()  # the second is looked into
    trial.join()
    assert trial.look() is Verdict.GOOD
    assert len(asked) == 2


def test_where_the_version_before_answers_the_new_one_is_worse() -> None:  # [W-6]
    trial = Trial(lambda url, call: True)
    trial.fail()
    first = trial.look()
    trial.join()
    assert Verdict.WORSE in (first, trial.look())


def test_what_cannot_be_known_says_nothing(caplog: pytest.LogCaptureFixture) -> None:  # [W-6]
    def answers(url: str, call: FailedCall) -> bool:
        raise MemoryLimitError("there is no memory")

    trial = Trial(answers)
    trial.fail()
    trial.look()
    trial.join()
    trial.model.scheduler.predicted = COMMIT_PREDICTS
    assert trial.look() is Verdict.GOOD
    assert "not given to the version before: there is no memory" in caplog.text


def test_without_a_version_before_nothing_is_kept() -> None:  # [W-6]
    trial = Trial(lambda url, call: True, before="")
    trial.fail()
    assert trial.model.remarks.failed_calls is None
    assert trial.look() is Verdict.OPEN


def test_a_version_that_is_not_on_trial_keeps_nothing() -> None:  # [W-6]
    trial = Trial(lambda url, call: True)
    assert trial.proofs.look(lambda name: None) == {}
    assert trial.model.remarks.failed_calls is None


def test_calls_are_bounded_in_number_and_in_bytes() -> None:  # [W-6]
    calls = FailedCalls((SPEC,))
    calls.keep([bytes(MAX_KEPT_BYTES + 1)], SHAPES)
    assert calls.take() is None
    for _ in range(MAX_KEPT_CALLS):
        calls.keep([memoryview(b"12345678")], SHAPES)
        assert calls.take() is not None
    calls.keep([b"12345678"], SHAPES)
    assert calls.take() is None
