"""The child's side of a self-test: `edge.serving.selftest` starts it, and lets it run one case after another (L-13)."""

import json
import mmap
import os
import sys
from typing import Any

import numpy as np

from edge.arrays import numpy_dtype
from edge.durable import write_all
from edge.engine.child import Voice, become
from edge.engine.engine import Session
from edge.engine.engines import Engines
from edge.engine.trial import options_of, refusal
from edge.errors import EdgeError, InferenceError, MemoryLimitError, ModelRefusedError, SelfTestError, TensorError
from edge.host import signals, threads
from edge.package.manifest import parse_manifest
from edge.package.selftest import Case, GoldenTensor, parse_selftest
from edge.serving.binding import InputBinder, TensorArgument
from edge.serving.opening import adapted
from edge.serving.selftest import case_text
from edge.tensors import DType, positions, shape_text
from edge.text import printable, shown

Array = np.ndarray[Any, Any]


def main(task_text: str) -> int:
    """Run a self-test and answer with JSON lines, one a case."""
    signals.unblock()
    task = json.loads(task_text)
    become(task)
    voice = Voice()
    try:
        _run(task, voice)
    except MemoryError:
        voice.say(refusal(MemoryLimitError("the self-test ran out of memory")))
    except SelfTestError as error:
        voice.say(refusal(error))
    except ModelRefusedError as error:
        voice.say(refusal(SelfTestError(str(error))))
    except EdgeError as error:
        voice.say(refusal(error))
    return 0


def _run(task: dict[str, Any], voice: Voice) -> None:
    files, options = task["files"], options_of(task["options"])
    record = files.get("record")
    manifest = parse_manifest(_read(files["manifest"]))
    data = _mapped(files["data"])
    selftest = parse_selftest(_read(files["selftest"]), len(data), recorded=record is None)
    threads.make_sure_of(options.threads)
    (session,) = adapted([Engines().open(f"/proc/self/fd/{files['model']}", options)], manifest)
    golden = _Golden(session, data)
    voice.say({"ready": True})
    for case, _ in zip(selftest.cases, sys.stdin.buffer, strict=False):
        if manifest.state == "keep":
            session.reset()
        voice.say({"ready": True, "outputs": golden.run(case, record)})


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _mapped(fd: int) -> memoryview:
    size = os.fstat(fd).st_size
    return memoryview(mmap.mmap(fd, size, prot=mmap.PROT_READ)) if size else memoryview(b"")


class _Golden:
    """The cases on one session; `data` are the tensors' bytes, in the order in which cases are run."""

    def __init__(self, session: Session, data: memoryview) -> None:
        self._session = session
        self._data = data
        self._at = 0
        self._binder = InputBinder(session.inputs, strict=True)
        self._outputs = positions(session.outputs)

    def run(self, case: Case, record: int | None) -> list[tuple[str, int, tuple[int, ...]]]:
        """Run one; without outputs it is recorded, and what they are is returned.

        Raises:
            SelfTestError: an output is not what it must be, or there is none.
        """
        where = case_text(case.name)
        try:
            bound = self._binder.bind(
                [TensorArgument(one.name, int(one.dtype), one.shape, self._take(one)) for one in case.inputs]
            )
            outputs = self._session.run([one.data for one in bound], tuple(one.shape for one in bound))  # type: ignore[misc]
        except TensorError as error:
            raise SelfTestError(f"{where}: {error}") from None
        except InferenceError as error:
            raise SelfTestError(f"{where}: the runtime fails: {printable(str(error))}") from None
        if record is not None and not case.outputs:
            for output in outputs:
                write_all(record, memoryview(output).tobytes())
            specs = zip(self._session.outputs, outputs, strict=True)
            return [(spec.name, int(spec.dtype), tuple(output.shape)) for spec, output in specs]
        for golden in case.outputs:
            self._compare(where, golden, outputs)
        return []

    def _take(self, tensor: GoldenTensor) -> memoryview:
        """The bytes of the next tensor."""
        self._at += tensor.byte_count
        return self._data[self._at - tensor.byte_count : self._at]

    def _compare(self, where: str, golden: GoldenTensor, outputs: Any) -> None:
        at = self._outputs.get(golden.name)
        if at is None:
            names = ", ".join(shown(spec.name) for spec in self._session.outputs)
            raise SelfTestError(f"{where}: the model has no output {shown(golden.name)}; its outputs are {names}")
        spec, output = self._session.outputs[at], outputs[at]
        is_, should = (spec.dtype, tuple(output.shape)), (golden.dtype, golden.shape)
        if is_ != should:
            raise SelfTestError(
                f"{where}: output {shown(golden.name)} is {_kind(*is_)}, and should be {_kind(*should)}"
            )
        found, expected = (
            np.frombuffer(data, numpy_dtype(golden.dtype)).reshape(golden.shape) if golden.byte_count else None
            for data in (memoryview(output).tobytes(), self._take(golden))
        )
        if found is not None and expected is not None and (fault := difference(found, expected, golden)):
            raise SelfTestError(f"{where}: output {shown(golden.name)} {fault}")


def _kind(dtype: DType, shape: tuple[int, ...]) -> str:
    return f"{dtype.name} {shape_text(shape)}"


def difference(found: Array, expected: Array, tolerance: GoldenTensor) -> str:
    """What is wrong with an output, in words; empty where every element is within the tolerance.

    A NaN is equal to a NaN, and infinity to itself alone.
    """
    with np.errstate(all="ignore"):
        wrong = ~((found == expected) | ((found != found) & (expected != expected)))  # noqa: PLR0124 - NaN
        is_, should = found[wrong].astype(np.float64), expected[wrong].astype(np.float64)
        off = np.abs(is_ - should)
        if found.dtype.kind in "iu":
            off = np.maximum(off, 1)  # those of 64 bits may have become equal
        allowed = np.where(np.isfinite(should), tolerance.absolute + tolerance.relative * np.abs(should), 0.0)
        beyond = ~(off <= allowed)
    if not beyond.any():
        return ""
    places = np.argwhere(wrong)[beyond]
    worst = int(np.nan_to_num(off - allowed, nan=np.inf)[beyond].argmax())
    at = tuple(int(n) for n in places[worst])
    return (
        f"is {found[at]!s} at {shape_text(at)} and should be {expected[at]!s}: off by {off[beyond][worst]:.3g}, allowed are"
        f" {tolerance.absolute:g} and {tolerance.relative:g} of the value; {len(places)} of {found.size} elements are off"
    )
