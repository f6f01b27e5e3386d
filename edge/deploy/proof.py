"""Whether a version that is on trial has proved itself (W-6)."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from edge.clock import Clock
from edge.serving.loading import LoadedModel

COMMIT_SECONDS = 600.0  # a version has proved itself after so long without INTERNAL
COMMIT_PREDICTS = 100  # or after so many Predicts


class Verdict(Enum):
    """What a version's Predicts say of it."""

    OPEN = "open"
    GOOD = "good"
    FAILED = "failed"


@dataclass
class _Proof:
    model: LoadedModel
    since: float  # monotonic
    predicted: int = 0  # before that
    failed: int = 0


class Proofs:
    """The versions on trial, by alias; for one thread at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._proofs: dict[str, _Proof] = {}

    def __bool__(self) -> bool:
        return bool(self._proofs)

    def begin(self, name: str, model: LoadedModel) -> None:
        """A model begins to serve."""
        self._proofs[name] = _Proof(model, self._clock.monotonic())

    def look(self, on_trial: Callable[[str], LoadedModel | None]) -> dict[str, Verdict]:
        """The verdict on each; `on_trial` gives what serves under a name and is on trial."""
        found = {}
        for name, proof in list(self._proofs.items()):
            if on_trial(name) is not proof.model:
                del self._proofs[name]
                continue
            found[name] = self._judge(proof)
        return found

    def _judge(self, proof: _Proof) -> Verdict:
        now, predicted = self._clock.monotonic(), proof.model.scheduler.predicted
        failed = proof.model.remarks.failed.counts().get("INTERNAL", 0)
        if failed > proof.failed:
            proof.since, proof.predicted, proof.failed = now, predicted, failed
            return Verdict.FAILED
        if now - proof.since >= COMMIT_SECONDS or predicted - proof.predicted >= COMMIT_PREDICTS:
            return Verdict.GOOD
        return Verdict.OPEN
