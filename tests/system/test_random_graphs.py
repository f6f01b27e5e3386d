"""Random small graphs with random requests: the agent answers as the bare engine does, refuses where that fails, and lives.

Where the bare engine contradicts itself, for it made its answer of memory that nobody wrote, either answer will do, and
so will a refusal where an input is empty.

RANDOM_GRAPHS says how many (2,000), RANDOM_GRAPHS_SEED where they start. A failure names its seed.
"""

import importlib.util
import itertools
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from edge.engine.probe import TrialResult
from tests.data.random_models import Case, random_case
from tests.system.harness import ROOT, from_source

COUNT = int(os.environ.get("RANDOM_GRAPHS", "2000"))
FIRST = int(os.environ.get("RANDOM_GRAPHS_SEED", "0"))
LANES = 2


class Died(Exception):
    """A worker's end; the text is the step that it was at."""


class Worker:
    """A process that runs models one way, made anew when it has died."""

    def __init__(self, **environment: str) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.lenient = False

    def ask(self, *question: Any) -> Any:
        """Its answer.

        Raises:
            Died: it ended.
        """
        if self._process is None:
            words = [sys.executable, "-m", "tests.fakes.graph_worker"]
            self._process = subprocess.Popen(
                words,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | self._environment,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self.lenient = False
        try:
            pickle.dump(question, self._process.stdin)
            self._process.stdin.flush()
            while "answer" not in (said := pickle.load(self._process.stdout)):
                self.lenient = said.get("lenient", False)
            return said["answer"]
        except (EOFError, OSError, pickle.UnpicklingError):
            self.close()
            raise Died from None

    def close(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]


def _has_empty(request: list[Any]) -> bool:
    return any(array.size == 0 for array in request)


class Lane:
    """The three ways side by side."""

    def __init__(self) -> None:
        self.bare, self.trial, self.agent = Worker(), Worker(), Worker()
        # glibc fills what it gives and takes with these: an answer that differs between the two is made of it.
        self.filled = [Worker(MALLOC_PERTURB_=filling) for filling in ("85", "170")]

    def check(self, seed: int) -> str:
        """What is wrong with the case of a seed; empty where nothing is."""
        case = random_case(seed)
        expected = [self._bare(case, request) for request in case.requests]
        found = self._tried(case)
        if found is None:
            return f"seed {seed}: refused, and the engine answers" if any(isinstance(e, list) for e in expected) else ""
        through = [at for at, request in enumerate(case.requests) if self._goes_through(case, found, request)]
        try:
            answers = self.agent.ask("serve", case.model, found, [case.requests[at] for at in through])
        except Died:
            return f"seed {seed}: the agent would have died"
        given = dict(zip(through, answers, strict=True))
        for at, wanted in enumerate(expected):
            refused = given.get(at) is None
            # What operators make of an empty input is often memory that nobody wrote, which the trial of its shape may notice.
            if wanted == given.get(at) or (refused and (wanted == "died" or _has_empty(case.requests[at]))):
                continue
            if not self._contradicts_itself(case, at, given.get(at), through):
                return f"seed {seed}, request {at}: the engine says {str(wanted)[:80]}, the agent {str(given.get(at))[:80]}"
        return ""

    def _contradicts_itself(self, case: Case, at: int, given: Any, through: list[int]) -> bool:
        """Whether the engine has no one answer: it makes it of memory that nobody wrote, or of the requests before."""
        one, other = (self._bare(case, case.requests[at], worker) for worker in self.filled)
        if one != other:
            return True
        before = [case.requests[0], *(case.requests[number] for number in through if number <= at)]
        try:
            return bool(self.bare.ask("bare, one after another", case.model, before)[-1] == given)
        except Died:
            return False

    def _bare(self, case: Case, request: list[Any], worker: Worker | None = None) -> Any:
        try:
            return (worker or self.bare).ask("bare", case.model, request)
        except Died:
            return "died"

    def _tried(self, case: Case) -> TrialResult | None:
        try:
            found: TrialResult | None = self.trial.ask("try out", case.model)
            return found
        except Died:
            return TrialResult(0, allocate=False) if self.trial.lenient else None

    def _goes_through(self, case: Case, found: TrialResult, request: list[Any]) -> bool:
        shapes = tuple(array.shape for array in request)
        own = shapes == tuple(array.shape for array in case.requests[0])
        if own and found.allocate and found.kind:
            return True
        try:
            return bool(self.trial.ask("try shapes", case.model, found, shapes))
        except Died:
            return False

    def close(self) -> None:
        for worker in (self.bare, self.trial, self.agent, *self.filled):
            worker.close()


@pytest.mark.skipif(not from_source(), reason="the parts are run from the sources")
@pytest.mark.skipif(
    not importlib.util.find_spec("ai_edge_litert"), reason="needs ai_edge_litert: others round int8 otherwise"
)
def test_random_graphs_are_served_as_the_engine_serves_them() -> None:  # [L-7] [L-10] [P-6] [P-13] [P-14] [P-15]
    seeds = itertools.count(FIRST)

    def run(_: int) -> list[str]:
        lane, wrong = Lane(), []
        try:
            while (seed := next(seeds)) < FIRST + COUNT:
                if fault := lane.check(seed):
                    wrong.append(fault)
        finally:
            lane.close()
        return wrong

    with ThreadPoolExecutor(LANES) as lanes:
        wrong = [fault for faults in lanes.map(run, range(LANES)) for fault in faults]
    assert not wrong, "\n".join(wrong[:20])
