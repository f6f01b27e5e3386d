"""Running a package's self-test in a process of its own, where a wrong or crashing kernel hurts nobody (L-13).

The child (`edge.serving.golden`) opens the model as the agent is about to, adapter included, and runs the cases one by one.
"""

import logging
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.durable import write_all
from edge.engine.child import Child
from edge.engine.engine import SessionOptions
from edge.engine.probe import AFTERWARDS_SECONDS, OPENING_SECONDS, crash_text
from edge.errors import EdgeError, MemoryLimitError, SelfTestError, TargetError, UnsupportedModelError
from edge.package.manifest import Manifest, format_manifest
from edge.package.selftest import Case, GoldenTensor, SelfTest, format_selftest
from edge.serving.failed import FailedCall
from edge.tensors import DType
from edge.text import shown

log = logging.getLogger(__name__)

FLAG = "--self-test"
_REFUSALS: dict[str, type[EdgeError]] = {
    cls.__name__: cls for cls in (SelfTestError, MemoryLimitError, TargetError, UnsupportedModelError)
}


@dataclass(frozen=True)
class Model:
    """A model as it is about to be served; `engine` is what refusals call the runtime."""

    fd: int
    manifest: Manifest
    options: SessionOptions
    engine: str


def run_selftest(
    model: Model,
    selftest: SelfTest,
    data_fd: int,
    *,
    record_fd: int | None = None,
    idle: bool = False,
    go_on: Callable[[], None] = lambda: None,
) -> SelfTest:
    """Run every case; the outputs must be those that it has. Cases without outputs get what the model gives.

    Args:
        data_fd: a file with the tensors' bytes, as in `selftest.bin`.
        record_fd: gets the bytes of the outputs of cases that have none.
        idle: run it when nothing else wants to.
        go_on: called between cases, and now and then; to stop, it raises.

    Raises:
        SelfTestError: an output is another, or the engine fails, crashes or does not end within `runtime.trial_seconds`.
        MemoryLimitError: the system has not enough memory, processes or threads for it.
        TargetError, UnsupportedModelError, ManifestError: the model cannot be opened so.
    """
    with ExitStack() as stack:
        about = {
            "manifest": _file(stack, format_manifest(model.manifest)),
            "selftest": _file(stack, format_selftest(selftest, recorded=record_fd is None)),
            "model": model.fd,
            "data": data_fd,
        }
        if record_fd is not None:
            about["record"] = record_fd
        run = _Run(
            Child({"files": about, "options": model.options._asdict()}, tuple(about.values()), flag=FLAG, idle=idle)
        )
        return replace(selftest, cases=run.cases(model, selftest.cases, go_on))


def answers(model: Model, call: FailedCall, go_on: Callable[[], None]) -> bool:
    """Whether a model gives any answer to a call, run when nothing else wants to.

    Raises:
        EdgeError: as `run_selftest`, for lack of memory; that cannot be known.
    """
    question = SelfTest((Case("a call", call.inputs, ()),))
    with ExitStack() as stack, Path(os.devnull).open("wb") as nowhere:
        data_fd = _file(stack, call.data)
        try:
            run_selftest(model, question, data_fd, record_fd=nowhere.fileno(), idle=True, go_on=go_on)
        except SelfTestError as error:
            log.info("%s %s does not answer either: %s", model.manifest.model_name, model.manifest.model_version, error)
            return False
    return True


def _file(stack: ExitStack, data: bytes) -> int:
    """An anonymous file, for what is too long to be a word of a command."""
    fd = os.memfd_create("selftest", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    write_all(fd, data)
    return fd


class _Run:
    """One child's run."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def cases(self, model: Model, cases: tuple[Case, ...], go_on: Callable[[], None]) -> tuple[Case, ...]:
        done: list[Case] = []
        said: dict[str, Any] | None = {}
        try:
            said = self._child.hear(OPENING_SECONDS, go_on)
            for case in cases:
                if said is None or "ready" not in said:
                    break
                go_on()
                said = self._hear(model, case, go_on)
                if said is None or "refused" in said:
                    break
                done.append(_recorded(case, said["outputs"]))
        except TimeoutError:
            raise SelfTestError(f"opening the model for its self-test took longer than {OPENING_SECONDS} s") from None
        finally:
            ended_by = self._child.end(patience=AFTERWARDS_SECONDS if said is None else 0.0)
        if said is not None and "refused" in said:
            raise _REFUSALS.get(said["refused"], SelfTestError)(str(said["reason"]))
        if len(done) == len(cases):
            return tuple(done)
        if ended_by == signal.SIGKILL:
            raise MemoryLimitError("the system ended the self-test of the model, most likely for lack of memory")
        where = f"on {case_text(cases[len(done)].name)}"
        log.error("the self-test ended %s: %s", where, self._child.last_words)
        if ended_by:
            raise SelfTestError(f"{crash_text(model.engine, ended_by)} {where}")
        raise SelfTestError(f"the runtime fails {where}")

    def _hear(self, model: Model, case: Case, go_on: Callable[[], None]) -> dict[str, Any] | None:
        self._child.ask({"go": True})
        try:
            return self._child.hear(model.manifest.trial_seconds, go_on)
        except TimeoutError:
            raise SelfTestError(
                f"{case_text(case.name)} did not end within {model.manifest.trial_seconds} s; say runtime.trial_seconds in"
                " the package if an inference takes longer"
            ) from None


def case_text(name: str) -> str:
    """A case in the words of a refusal."""
    return f"self-test case {shown(name)}"


def _recorded(case: Case, outputs: list[Any]) -> Case:
    """The case with what the child recorded of it, if it did."""
    found = tuple(GoldenTensor(name, DType(dtype), tuple(shape)) for name, dtype, shape in outputs)
    return replace(case, outputs=found) if found else case
