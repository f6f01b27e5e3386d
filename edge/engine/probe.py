"""Trying a model out in a child process before the agent itself loads it.

A truncated or altered model file can crash the engine, and nothing in this process could catch that. The file's structure
is checked first (`edge.engine.model_file`): what a damaged one does to the engine may differ from process to process. Then a
child (`edge.engine.trial`) loads the model, runs it, and reports how much memory that took (L-6, L-7, L-10); if it dies, only
the child does.
"""

import logging
import mmap
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edge.engine.child import Child
from edge.engine.engine import TFLITE, SessionOptions
from edge.engine.model_file import check_model_file
from edge.engine.samples import Sample
from edge.errors import EdgeError, MemoryLimitError, ModelRefusedError, TargetError, UnsupportedModelError

log = logging.getLogger(__name__)

OPENING_SECONDS = 300  # until it runs for the first time
AFTERWARDS_SECONDS = 60  # for what makes calls cheaper, and to end
# Steps of a trial: it tries out whether inputs can be read where they are lent; and the session is closed after that.
LENDING, CLOSING = "lending", "closing"
_REFUSALS: dict[str, type[EdgeError]] = {
    cls.__name__: cls for cls in (ModelRefusedError, TargetError, UnsupportedModelError, MemoryLimitError)
}


class TrialResult(NamedTuple):
    """What was found out.

    `session_bytes`: the memory that one interpreter of the model takes beyond the model file itself. `kind`: the values that it
    runs on (`edge.engine.samples`), empty where it ran on none; `reason` then says why. `allocate`: the shapes it has may be
    laid out. `borrows`: the inputs, by position, that it can read where they are lent. `engine`: which serves it;
    `passed_over`: why one that was tried before does not. `partly`: the GPU has some of its operators, the CPU the rest.
    """

    session_bytes: int
    kind: str = ""
    reason: str = ""
    allocate: bool = True
    borrows: tuple[int, ...] = ()
    engine: str = TFLITE
    passed_over: str = ""
    partly: bool = False


def probe(
    model_fd: int,
    options: SessionOptions,
    sample: Sample,
    *,
    run_seconds: float,
    engines: Sequence[str] = (TFLITE,),
    idle: bool = False,
    go_on: Callable[[], None] = lambda: None,
) -> TrialResult:
    """Try the model out in a child process, an `idle` one if wanted (`Child`), in one engine after another until it runs.

    `go_on` is called now and then; to stop, it raises.

    Raises:
        ModelRefusedError: the runtime refuses it, crashes on it, or an inference takes longer than `run_seconds`.
        TargetError, UnsupportedModelError: as the engine says.
        MemoryLimitError: the system has not enough memory, processes or threads for it.
    """
    check_structure(model_fd)
    kinds = sample.kinds
    endless: list[str] = []
    crash = ""
    lends = True
    while True:
        try:
            task = task_of(model_fd, options, sample, kinds[len(endless) :], engines=engines, lends=lends)
            trial = _Trial(task, descriptors_of(model_fd, sample), idle=idle)
            found = trial.result(run_seconds, go_on)
            return found._replace(passed_over=found.passed_over or crash)
        except _LendingError as error:
            log.warning("inputs of the model cannot be read where they are lent, and are copied: %s", error)
            lends = False
            continue
        except _CrashError as error:
            crash, engines = str(error), engines[1:]
            continue
        except _EndlessError as error:
            endless.append(str(error))
        if len(endless) == len(kinds):
            raise ModelRefusedError(
                f"an inference on {', '.join(endless)} did not end within {run_seconds:g} s each; say runtime.trial_seconds in "
                "the package if it takes longer, or give it a sample to be tried on (package --sample)"
            )
        log.info("an inference on %s did not end within %g s; others are tried", endless[-1], run_seconds)


def check_structure(model_fd: int) -> None:
    """Hold the model file together.

    Raises:
        ModelRefusedError: it is damaged, or no model (L-7).
    """
    size = os.fstat(model_fd).st_size
    if not size:
        raise ModelRefusedError("the runtime refuses the model file: it is empty")
    with mmap.mmap(model_fd, size, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as data:
        check_model_file(data)


def task_of(
    model_fd: int,
    options: SessionOptions,
    sample: Sample,
    kinds: Sequence[str],
    *,
    engines: Sequence[str] = (TFLITE,),
    lends: bool = False,
) -> dict[str, Any]:
    """What a child is told of a model; `lends`: whether to try out lending it inputs."""
    return {
        "fd": model_fd,
        "options": options._asdict(),
        "sample": sample._asdict(),
        "kinds": list(kinds),
        "engines": list(engines),
        "lends": lends,
    }


def descriptors_of(model_fd: int, sample: Sample) -> list[int]:
    """What a child needs to read."""
    return [model_fd] if sample.fd is None else [model_fd, sample.fd]


def crash_text(engine: str, number: int) -> str:
    """A crash of the engine in words; `number` of the signal."""
    name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
    return f"the runtime ({engine}) crashes, {name},"


class _EndlessError(Exception):
    """The kind of values on which an inference did not end in time."""


class _LendingError(Exception):
    """The process ended, or did not go on, where inputs are lent; the text says which."""


class _CrashError(Exception):
    """An engine crashes, and another is there to be tried; the text says how."""


class _Trial:
    """One child's trial of a model."""

    def __init__(self, task: dict[str, Any], descriptors: Sequence[int], *, idle: bool) -> None:
        self._child = Child(task, descriptors, idle=idle)
        self._engine = ""  # what refusals call it
        self._others = False  # are to be tried after it
        self._step = ""  # what it is at: opening, "layout", or a kind of values
        self._lenient = False  # a failure is that of shapes that nobody gave
        self._answer: dict[str, Any] | None = None

    def result(self, run_seconds: float, go_on: Callable[[], None]) -> TrialResult:
        patience = 0.0
        try:
            while (said := self._child.hear(self._seconds(run_seconds), go_on)) is not None:
                if "step" in said:
                    self._step, self._lenient = said["step"], said["lenient"]
                    self._engine, self._others = said.get("engine", self._engine), said.get("others", self._others)
                else:
                    self._answer = said
            patience = AFTERWARDS_SECONDS
        except TimeoutError:
            if self._answer is None and self._step == LENDING:
                raise _LendingError(f"it does not answer within {AFTERWARDS_SECONDS} s") from None
            if self._answer is None and not self._running:
                raise ModelRefusedError(f"opening the model took longer than {OPENING_SECONDS} s") from None
            if self._answer is None:
                raise _EndlessError(self._step) from None
        finally:
            ended_by = self._child.end(patience=patience)
        return self._judge(ended_by)

    @property
    def _running(self) -> bool:
        return self._step not in ("", "layout", LENDING, CLOSING)

    def _seconds(self, run_seconds: float) -> float:
        if self._answer is not None or self._step == LENDING:
            return AFTERWARDS_SECONDS
        return run_seconds if self._running else OPENING_SECONDS

    def _judge(self, ended_by: int) -> TrialResult:
        """The child's last word; how it ended counts only where it has said nothing."""
        answer = self._answer
        if answer is None and self._step == LENDING:
            raise _LendingError(crash_text(self._engine, ended_by) if ended_by else "the trial ended unexpectedly")
        if answer is None and ended_by == signal.SIGKILL:
            raise MemoryLimitError("the system ended the trial of the model, most likely for lack of memory")
        if answer is None and ended_by:
            where = f"on {self._step}" if self._running else "on the model file"
            text = f"{crash_text(self._engine, ended_by)} {where}"
            log.warning("%s: %s", text, self._child.last_words)
            if self._others:
                raise _CrashError(text)
            if self._lenient:
                return TrialResult(0, reason=text, allocate=False)
            raise ModelRefusedError(text)
        if answer is None:
            log.error("the trial of the model ended unexpectedly: %s", self._child.last_words)
            raise ModelRefusedError("the runtime fails on the model file")
        if "refused" in answer:
            raise _REFUSALS[answer["refused"]](str(answer["reason"]))
        return TrialResult(**{**answer, "borrows": tuple(answer["borrows"])})
