"""Runs random models in one of three ways: in the bare engine, as a trial does, as the agent does once it has tried them.

EDGE_ENGINE is the configuration's edge_engine; what is bare is the interpreter.

A process that speaks pickles on its standard streams; it may die of what it runs, which is the point.
"""

import os
import pickle
import sys
import tempfile
from pathlib import Path
from typing import Any

from edge.engine import bare
from edge.engine.engine import SessionOptions
from edge.engine.engines import Engines
from edge.engine.interpreter import ENGINE_ERRORS
from edge.engine.model_file import check_model_file
from edge.engine.probe import TrialResult, task_of
from edge.engine.sample_inputs import SampleInputs
from edge.engine.samples import MADE_UP, Sample
from edge.engine.trial import Trial
from edge.errors import EdgeError, InferenceError

ENGINES = Engines(os.environ.get("EDGE_ENGINE", "auto"))


def bare_engine(path: str, request: list[Any]) -> list[Any] | None:
    """The outputs of a fresh interpreter, or None where it refuses."""
    try:
        interpreter = ENGINES.tflite.prepare().Interpreter(model_path=path, num_threads=1)
        return [(output.shape, output.tobytes()) for output in bare.run(interpreter, request)]
    except ENGINE_ERRORS:
        return None


def one_engine(path: str, requests: list[Any]) -> list[Any]:
    """The outputs of one interpreter for all requests, each anew as far as the engine can."""
    interpreter = ENGINES.tflite.prepare().Interpreter(model_path=path, num_threads=1)
    answers: list[Any] = []
    for request in requests:
        try:
            interpreter.allocate_tensors()
            interpreter.reset_all_variables()
            answers.append([(output.shape, output.tobytes()) for output in bare.run(interpreter, request)])
        except ENGINE_ERRORS:
            answers.append(None)
    return answers


class Silent:
    """Hears how far a trial is, for nobody."""

    def __init__(self, hear: Any) -> None:
        self.say = hear


def try_out(fd: int) -> TrialResult | None:
    """What a trial finds, or None where it refuses the model; how far it is goes to the test."""
    options = SessionOptions()
    trial = Trial(task_of(fd, options, Sample(), MADE_UP, engines=ENGINES.for_model(options)), Silent(tell))
    try:
        return trial.first_that_serves()
    except EdgeError:
        return None


def try_shapes(fd: int, found: TrialResult, shapes: Any) -> bool:
    """Whether a trial of shapes lets them through."""
    options = SessionOptions(engine=found.engine, allocate=found.allocate)
    trial = Trial(task_of(fd, options, Sample(), (found.kind,) if found.kind else MADE_UP), Silent(tell))
    return "refused" not in trial.try_shapes(shapes)


def serve(path: str, found: TrialResult, requests: list[Any]) -> list[Any]:
    """The agent's answers, one session for all."""
    session = ENGINES.open(path, SessionOptions(engine=found.engine, allocate=found.allocate))
    if found.kind:
        SampleInputs(session.inputs, Sample()).run(session, found.kind)
        session.reset()
    answers: list[Any] = []
    for request in requests:
        try:
            outputs = session.run([array.tobytes() for array in request], tuple(array.shape for array in request))
            answers.append([(tuple(output.shape), bytes(memoryview(output))) for output in outputs])  # type: ignore[arg-type]
            del outputs
        except (InferenceError, EdgeError):
            answers.append(None)
    session.close()
    return answers


def tell(something: Any) -> None:
    """One pickle to the test."""
    pickle.dump(something, VOICE)
    VOICE.flush()


def main() -> None:
    """Answer (what, model, arguments) until there are no more."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        while True:
            try:
                what, model, *arguments = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            path.write_bytes(model)
            fd = os.open(path, os.O_RDONLY)
            try:
                if what == "bare":
                    answer: Any = bare_engine(str(path), *arguments)
                elif what == "bare, one after another":
                    answer = one_engine(str(path), *arguments)
                elif what == "try out":
                    check_model_file(memoryview(model))
                    answer = try_out(fd)
                elif what == "try shapes":
                    answer = try_shapes(fd, *arguments)
                else:
                    answer = serve(str(path), *arguments)
            finally:
                os.close(fd)
            tell({"answer": answer})


if __name__ == "__main__":
    VOICE = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    main()
