"""The child's side of trying a model out: `edge.engine.probe` starts it once, `edge.engine.shapes` while it has questions."""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from edge.engine.agreement import check_agreement
from edge.engine.child import Voice, become
from edge.engine.engine import LITERT, LITERT_GPU, DelegateRef, Output, Session, SessionOptions, Shapes
from edge.engine.engines import Engines
from edge.engine.lending import borrowable
from edge.engine.lent_inputs import borrows_well
from edge.engine.model_graph import Graph
from edge.engine.model_reading import facts_of, graph_of
from edge.engine.probe import CLOSING, LENDING, TrialResult
from edge.engine.sample_inputs import SampleInputs
from edge.engine.samples import Sample
from edge.engine.specs import chosen_signature, make_specs
from edge.engine.weights import NEW, SharedWeights
from edge.errors import (
    EdgeError,
    InferenceError,
    MemoryLimitError,
    ModelRefusedError,
    TargetError,
    TensorError,
)
from edge.host import signals, threads
from edge.tensors import DYNAMIC, shape_text
from edge.text import printable


def main(task_text: str) -> int:
    """Try a model out and answer with JSON lines; the last answer counts."""
    signals.unblock()
    task = json.loads(task_text)
    become(task)
    voice = Voice()
    trial = Trial(task, voice)
    try:
        if "serve" in task:
            trial.serve()
        else:
            trial.run()
    except MemoryError:
        voice.say(refusal(MemoryLimitError("the trial of the model ran out of memory")))
    except EdgeError as error:
        voice.say(refusal(error))
    return 0


def options_of(said: dict[str, Any]) -> SessionOptions:
    """The options that a task has as a dict."""
    delegate = said["delegate"]
    if delegate:
        delegate = DelegateRef(delegate[0], tuple(map(tuple, delegate[1])))
    return SessionOptions(**{**said, "borrows": tuple(said["borrows"]), "delegate": delegate})


def refusal(error: EdgeError) -> dict[str, Any]:
    """What tells the agent of an error."""
    return {"refused": type(error).__name__, "reason": str(error)}


class Trial:
    """One model, as the task describes it."""

    def __init__(self, task: dict[str, Any], voice: Voice) -> None:
        self._options = options_of(task["options"])
        shapes = tuple((name, tuple(shape)) for name, shape in task["sample"]["shapes"])
        self._sample = Sample(shapes, task["sample"]["fd"])
        self._kinds: list[str] = task["kinds"]
        self._path = f"/proc/self/fd/{task['fd']}"
        self._voice = voice
        self._names: list[str] = task["engines"]
        self._lends: bool = task["lends"]
        self._engines = Engines()

    def run(self) -> None:
        """The whole trial.

        Raises:
            EdgeError: what refuses the model.
        """
        threads.make_sure_of(self._options.threads)
        self._voice.say(self.first_that_serves()._asdict())

    def first_that_serves(self) -> TrialResult:
        """The first run, in the first engine that the model runs in, else in the last.

        Raises:
            EdgeError: what refuses the model.
        """
        refusal = ""
        for name in self._names[:-1]:
            try:
                answer = self._run_in(name)
                if answer.kind:
                    return answer._replace(passed_over=refusal)
                refusal = answer.reason
            except (ModelRefusedError, TargetError, InferenceError) as error:
                refusal = str(error)
        return self._run_in(self._names[-1])._replace(passed_over=refusal)

    def _run_in(self, name: str) -> TrialResult:
        self._options = self._options._replace(engine=name)
        self._say_engine(name)
        self._engines.prepare(name)
        self._say_engine(name)  # now known for certain
        answer, inputs = self.first_run()
        if name == LITERT_GPU and answer.kind:
            check_agreement(self._engines, self._path, self._options, inputs, self._kinds)
            answer = answer._replace(partly=self._partly())
        return answer

    def _partly(self) -> bool:
        session = self._engines.gpu.open(self._path, self._options)
        try:
            return not session.compiled.fully_accelerated()
        finally:
            session.close()

    def _say_engine(self, name: str) -> None:
        others = name != self._names[-1]
        self._voice.say({"step": "", "lenient": False, "engine": self._engines.describe(name), "others": others})

    def first_run(self) -> tuple[TrialResult, SampleInputs]:
        """Open the model and run it on the first values that it accepts.

        Raises:
            EdgeError: what refuses the model.
        """
        facts = facts_of(self._path)
        graph = graph_of(self._path, chosen_signature(self._options, facts))
        specs, _ = make_specs(graph.inputs, graph.outputs, self._options, facts)
        inputs = SampleInputs(specs, self._sample)
        own = inputs.shapes == tuple(spec.shape for spec in specs)
        lenient = not self._sample.given and any(DYNAMIC in spec.signature for spec in specs)
        if lenient:  # what fails once the engine has taken the file is the fault of shapes that nobody gave
            self._engines.open(self._path, self._options._replace(allocate=False)).close()
        self._voice.say({"step": "layout", "lenient": lenient})
        with _Measured(self._options) as measured:
            try:
                session = self._engines.open(
                    self._path, measured.options._replace(allocate=own, borrows=self._borrowable(graph) if own else ())
                )
            except ModelRefusedError as error:
                if not lenient:
                    raise
                return TrialResult(0, reason=str(error), allocate=False, engine=self._options.engine), inputs
            kind, reason, outputs = self._run_on_some(session, inputs, lenient=lenient)
            if not kind and self._sample.fd is not None:
                raise ModelRefusedError(f"the first inference fails on the package's sample: {reason}")
            size = measured.size()
        borrows: tuple[int, ...] = ()
        if kind and session.borrows:
            self._voice.say({"step": LENDING, "lenient": False})
            with suppress(EdgeError, MemoryError, OSError):  # inputs are copied then
                if borrows_well(session, inputs.data(kind), outputs):
                    borrows = tuple(sorted(session.borrows))
            self._voice.say({"step": CLOSING, "lenient": False})
        session.close()  # an engine that wrote past the end of its memory dies here at the latest
        return TrialResult(size, kind, reason, allocate=own, borrows=borrows, engine=self._options.engine), inputs

    def _borrowable(self, graph: Graph) -> tuple[int, ...]:
        """The inputs to try lending with."""
        return (
            borrowable(graph) if self._lends and self._options.engine == LITERT and not self._options.signature else ()
        )

    def _run_on_some(
        self, session: Session, inputs: SampleInputs, *, lenient: bool
    ) -> tuple[str, str, Sequence[Output]]:
        """The first kind of values that the model runs on, or none and why; and the outputs."""
        reason = ""
        for kind in self._kinds:
            self._voice.say({"step": kind, "lenient": lenient})
            try:
                return kind, "", inputs.run(session, kind)
            except InferenceError as error:
                reason = _first_line(error)
            except TensorError as error:
                raise ModelRefusedError(f"{error}, those of the package's sample") from None
        return "", f"an inference on {', '.join(self._kinds)} fails: {reason}", ()

    def serve(self) -> None:
        """Try shapes, one question after another, for as long as the agent lets it."""
        threads.make_sure_of(self._options.threads)
        self._engines.prepare(self._options.engine)
        self._voice.say({"ready": True})
        for line in sys.stdin.buffer:
            self._voice.say(self.try_shapes(tuple(map(tuple, json.loads(line)["shapes"]))))

    def try_shapes(self, shapes: Shapes) -> dict[str, Any]:
        """Run some shapes; the answer has the memory that took, or the refusal."""
        # One that was laid out otherwise before, as the agent's are, must do as one that never was: a delegate that took the
        # graph by its own shapes may not look at others, and answers with what is in the memory.
        sessions: list[Session] = []
        outcomes = []
        size = 0
        try:
            for options in (self._options._replace(allocate=False), self._options):
                with _Measured(options) as measured:
                    sessions.append(self._engines.open(self._path, measured.options))
                    outcomes.append(self._outcome(sessions[-1], shapes))
                    size = measured.size()
        except TensorError as error:
            return refusal(error)
        if outcomes[0] != outcomes[1]:
            wanted = ", ".join(map(shape_text, shapes))
            return refusal(
                TensorError(f"the model cannot take input shapes {wanted}: the engine contradicts itself on them")
            )
        for session in sessions:
            session.close()  # an engine that wrote past the end of its memory dies here at the latest
        return {"bytes": size}

    def _outcome(self, session: Session, shapes: Shapes) -> tuple[str, Shapes]:
        """The first kind of values that the model runs on in these shapes, if there is one, and the outputs' shapes."""
        inputs = SampleInputs(session.inputs, self._sample)
        for kind in self._kinds:
            try:
                return kind, tuple(tuple(output.shape) for output in inputs.run(session, kind, shapes))
            except InferenceError:
                continue  # that may be the values' fault
        return "", ()


def _first_line(error: Exception) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0])


class _Measured:
    """What a session takes, from before it is opened; `options` are those to open it with.

    The memory of packed weights is no process's own: where the session is to have a file for them, this is it.
    """

    def __init__(self, options: SessionOptions) -> None:
        self._weights = SharedWeights() if options.weights == NEW else None
        self.options = options._replace(weights=self._weights.path) if self._weights is not None else options
        self._before = _private_bytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._weights is not None:  # the session keeps the file for itself
            self._weights.close()

    def size(self) -> int:
        """The bytes up to now."""
        return max(0, _private_bytes() - self._before) + (self._weights.size() if self._weights is not None else 0)


def _private_bytes() -> int:
    """This process's anonymous memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
