"""Whether a version that is on trial has proved itself (W-6)."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from edge.clock import Clock
from edge.errors import EdgeError
from edge.serving.failed import FailedCall, FailedCalls
from edge.serving.loading import LoadedModel

log = logging.getLogger(__name__)

COMMIT_SECONDS = 600.0  # a version has proved itself after so long without a fault
COMMIT_PREDICTS = 100  # or after so many Predicts


class Verdict(Enum):
    """What a version's Predicts say of it; of one that has failed, why."""

    OPEN = ""
    GOOD = "it has proved itself"
    FAILED = "a Predict ended with INTERNAL"
    WORSE = "the runtime fails on a call that the version before answers"


@dataclass
class _Proof:
    model: LoadedModel
    since: float  # monotonic
    before: str = ""  # the url of the version before; empty where there is none
    predicted: int = 0  # before that
    failed: int = 0
    comparing: bool = False  # a call that the runtime failed on is given to the version before
    worse: bool = False  # which answered it
    fault: Verdict | None = None  # FAILED or WORSE, from then on


class Proofs:
    """The versions on trial, by alias; for one thread at a time, but for the threads that compare."""

    def __init__(self, clock: Clock, answers: Callable[[str, FailedCall], bool]) -> None:
        """`answers` says whether the model of the package at a url answers a call."""
        self._clock = clock
        self._answers = answers
        self._proofs: dict[str, _Proof] = {}

    def __bool__(self) -> bool:
        return bool(self._proofs)

    def begin(self, name: str, model: LoadedModel, before: str = "") -> None:
        """A model begins to serve; `before` is the url of the one that it is compared with, if any."""
        self._proofs[name] = _Proof(model, self._clock.monotonic(), before)
        if before:
            model.remarks.failed_calls = FailedCalls(model.inputs)

    def look(self, on_trial: Callable[[str], LoadedModel | None]) -> dict[str, Verdict]:
        """The verdict on each; `on_trial` gives what serves under a name and is on trial."""
        found = {}
        for name, proof in list(self._proofs.items()):
            if on_trial(name) is not proof.model:
                proof.model.remarks.failed_calls = None
                del self._proofs[name]
                continue
            self._compare(proof)
            found[name] = self._judge(proof)
        return found

    def begin_anew(self, name: str) -> None:
        """A version that has failed stays, as there is none before it: from now on it is tried anew."""
        proof = self._proofs[name]
        proof.since, proof.fault, proof.worse = self._clock.monotonic(), None, False
        proof.predicted = proof.model.scheduler.predicted
        proof.failed = proof.model.remarks.failed.counts().get("INTERNAL", 0)

    def _compare(self, proof: _Proof) -> None:
        """Have a call that the runtime failed on given to the version before; one at a time."""
        calls = proof.model.remarks.failed_calls
        if calls is None or proof.comparing or (call := calls.take()) is None:
            return

        def compare() -> None:
            try:
                proof.worse |= self._answers(proof.before, call)
            except (EdgeError, OSError) as error:
                log.warning("model %s: a failed call is not given to the version before: %s", proof.model.name, error)
            finally:
                proof.comparing = False

        proof.comparing = True
        try:
            threading.Thread(target=compare, name=f"compare {proof.model.name}", daemon=True).start()
        except RuntimeError:  # the system gives no thread
            proof.comparing = False

    def _judge(self, proof: _Proof) -> Verdict:
        comparing = proof.comparing  # before `worse`, which is said before it ends
        now, predicted = self._clock.monotonic(), proof.model.scheduler.predicted
        failed = proof.model.remarks.failed.counts().get("INTERNAL", 0)
        if proof.fault is None and (failed > proof.failed or proof.worse):
            proof.fault = Verdict.FAILED if failed > proof.failed else Verdict.WORSE
        if proof.fault is not None:
            return proof.fault
        if comparing:
            return Verdict.OPEN
        if now - proof.since >= COMMIT_SECONDS or predicted - proof.predicted >= COMMIT_PREDICTS:
            return Verdict.GOOD
        return Verdict.OPEN
