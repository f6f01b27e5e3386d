"""The child's side of trying a model out: `edge.engine.probe` starts it once, `edge.engine.shapes` while it has questions."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edge.engine.agreement import check_agreement
from edge.engine.child import Voice, become
from edge.engine.engine import LITERT_GPU, TFLITE, DelegateRef, Session, SessionOptions, Shapes
from edge.engine.engines import Engines
from edge.engine.lending import borrowable
from edge.engine.lent_inputs import borrows_well
from edge.engine.model_reading import graph_of
from edge.engine.probe import ProbeResult
from edge.engine.sample_inputs import SampleInputs
from edge.engine.samples import Sample
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
        delegate = DelegateRef(delegate["path"], tuple(map(tuple, delegate["options"])))
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
        self._engines = Engines()

    def run(self) -> None:
        """The whole trial.

        Raises:
            EdgeError: what refuses the model.
        """
        threads.make_sure_of(self._options.threads)
        answer, inputs = self.first_that_serves()
        self._voice.say(asdict(answer))
        # What follows only makes calls cheaper: whatever becomes of it, the answer stands.
        if not answer.kind or not answer.allocate or self._options.delegate is not None or self._options.signature:
            return
        if answer.engine == LITERT_GPU:
            return
        if answer.engine == TFLITE:
            if not self._serves_in_place(inputs, answer.kind):
                return
            answer = replace(answer, in_place=True)
            self._voice.say(asdict(answer))
        borrows = borrowable(graph_of(self._path))
        lending = replace(self._options, in_place=answer.in_place, borrows=borrows)
        if borrows and borrows_well(self._engines.open(self._path, lending), frozenset(borrows)):
            self._voice.say(asdict(replace(answer, borrows=borrows)))

    def first_that_serves(self) -> tuple[ProbeResult, SampleInputs]:
        """The first run, in the first engine that the model runs in, else in the last.

        Raises:
            EdgeError: what refuses the model.
        """
        refusal = ""
        for name in self._names[:-1]:
            try:
                answer, inputs = self._run_in(name)
                if answer.kind:
                    return replace(answer, passed_over=refusal), inputs
                refusal = answer.reason
            except (ModelRefusedError, TargetError, InferenceError) as error:
                refusal = str(error)
        answer, inputs = self._run_in(self._names[-1])
        return replace(answer, passed_over=refusal), inputs

    def _run_in(self, name: str) -> tuple[ProbeResult, SampleInputs]:
        self._options = replace(self._options, engine=name)
        self._say_engine(name)
        self._engines.prepare(name)
        self._say_engine(name)  # now known for certain
        answer, inputs = self.first_run()
        if name == LITERT_GPU and answer.kind:
            check_agreement(self._engines, self._path, self._options, inputs, self._kinds)
            answer = replace(answer, partly=self._partly())
        return answer, inputs

    def _partly(self) -> bool:
        session = self._engines.gpu.open(self._path, self._options)
        try:
            return not session.compiled.fully_accelerated()
        finally:
            session.close()

    def _say_engine(self, name: str) -> None:
        others = name != self._names[-1]
        self._voice.say({"step": "", "lenient": False, "engine": self._engines.describe(name), "others": others})

    def first_run(self) -> tuple[ProbeResult, SampleInputs]:
        """Open the model and run it on the first values that it accepts.

        Raises:
            EdgeError: what refuses the model.
        """
        session: Session = self._engines.open(self._path, replace(self._options, allocate=False))
        inputs = SampleInputs(session.inputs, self._sample)
        own = inputs.shapes == tuple(spec.shape for spec in session.inputs)
        lenient = not self._sample.given and any(DYNAMIC in spec.signature for spec in session.inputs)
        session.close()
        self._voice.say({"step": "layout", "lenient": lenient})
        before = _private_bytes()
        try:
            session = self._engines.open(self._path, replace(self._options, allocate=own))
        except ModelRefusedError as error:
            if not lenient:
                raise
            return ProbeResult(0, reason=str(error), allocate=False, engine=self._options.engine), inputs
        kind, reason = self._run_on_some(session, inputs, lenient=lenient)
        if not kind and self._sample.fd is not None:
            raise ModelRefusedError(f"the first inference fails on the package's sample: {reason}")
        size = max(0, _private_bytes() - before)
        session.close()
        return ProbeResult(size, kind, reason, allocate=own, engine=self._options.engine), inputs

    def _run_on_some(self, session: Session, inputs: SampleInputs, *, lenient: bool) -> tuple[str, str]:
        """The first kind of values that the model runs on, or none and why."""
        reason = ""
        for kind in self._kinds:
            self._voice.say({"step": kind, "lenient": lenient})
            try:
                inputs.run(session, kind)
                return kind, ""
            except InferenceError as error:
                reason = _first_line(error)
            except TensorError as error:
                raise ModelRefusedError(f"{error}, those of the package's sample") from None
        return "", f"an inference on {', '.join(self._kinds)} fails: {reason}"

    def _serves_in_place(self, inputs: SampleInputs, kind: str) -> bool:
        """Whether the model's tensors stay in place, by what is known of its graph and by trying it."""
        if not self._engines.tflite.stays_in_place(self._path):
            return False
        session = self._engines.tflite.open(self._path, replace(self._options, in_place=True))
        for _ in range(2):
            inputs.run(session, kind)
        return session.is_in_place()

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
            for options in (replace(self._options, allocate=False), self._options):
                before = _private_bytes()
                sessions.append(self._engines.open(self._path, options))
                outcomes.append(self._outcome(sessions[-1], shapes))
                size = max(0, _private_bytes() - before)
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
                return kind, inputs.run(session, kind, shapes)
            except InferenceError:
                continue  # that may be the values' fault
        return "", ()


def _first_line(error: Exception) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0])


def _private_bytes() -> int:
    """This process's anonymous memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
