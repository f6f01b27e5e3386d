"""Trying a model out in a child process before the agent itself loads it.

A truncated or altered model file can crash the engine, and nothing in this process could catch that. The file's structure
is checked first (`edge.runtime.model_file`): what a damaged one does to the engine may differ from process to process. Then a
child loads the model, runs it once on zeros, and reports how much memory that took (L-6, L-7, L-10); if it dies, only the child does.
"""

import json
import logging
import mmap
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.device import signals
from edge.errors import EdgeError, MemoryLimitError, ModelRefusedError, TargetError, UnsupportedModelError
from edge.runtime.engine import DelegateRef, Session
from edge.runtime.model_file import check_model_file
from edge.selfexec import self_command

if TYPE_CHECKING:
    from edge.runtime.tflite import TfliteEngine

log = logging.getLogger(__name__)

FLAG = "--probe-model"
TIMEOUT_SECONDS = 300
MAX_WARM_UP_BYTES = 1 << 30
_REFUSALS: dict[str, type[EdgeError]] = {
    cls.__name__: cls for cls in (ModelRefusedError, TargetError, UnsupportedModelError, MemoryLimitError)
}


@dataclass(frozen=True)
class ProbeResult:
    """What was found out.

    `session_bytes`: the memory that one interpreter of the model takes beyond the model file itself. `in_place`: its tensors
    are where they are from one inference to the next. `borrows`: the inputs, by position, that it can read where they are lent.
    """

    session_bytes: int
    in_place: bool = False
    borrows: tuple[int, ...] = ()


def warm_up(session: Session) -> None:
    """One inference on zeros; a dynamic dimension counts as the model has it.

    Raises:
        UnsupportedModelError: the inputs are too large to warm up.
        InferenceError: the runtime failed.
    """
    if sum(spec.byte_count for spec in session.inputs) > MAX_WARM_UP_BYTES:
        raise UnsupportedModelError(f"the model's inputs take more than {MAX_WARM_UP_BYTES} bytes")
    session.run([bytes(spec.byte_count) for spec in session.inputs], tuple(spec.shape for spec in session.inputs))


def probe(model_fd: int, *, threads: int, delegate: DelegateRef | None) -> ProbeResult:
    """Try the model out in a child process.

    Raises:
        ModelRefusedError: the runtime refuses it, crashes on it, or takes longer than TIMEOUT_SECONDS.
        TargetError, UnsupportedModelError: as the engine says.
        MemoryLimitError: the system ended the child for lack of memory.
    """
    _check_structure(model_fd)
    task = {"fd": model_fd, "threads": threads, "delegate": [delegate.path, delegate.options] if delegate else None}
    environment = {k: v for k, v in os.environ.items() if k not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")}
    command = [*self_command(), FLAG, json.dumps(task)]
    try:
        child = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=(model_fd,),
            timeout=TIMEOUT_SECONDS,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        if not error.stdout:
            raise ModelRefusedError(f"trying the model out took longer than {TIMEOUT_SECONDS} s") from None
        child = subprocess.CompletedProcess(command, 0, error.stdout, error.stderr or b"")
    except OSError as error:
        log.error("the model cannot be tried out: %s", error)
        raise MemoryLimitError("no process can be started to try the model out") from None
    return _judge(child)


def _check_structure(model_fd: int) -> None:
    size = os.fstat(model_fd).st_size
    if not size:
        raise ModelRefusedError("the runtime refuses the model file: it is empty")
    with mmap.mmap(model_fd, size, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as data:
        check_model_file(data)


def _judge(child: "subprocess.CompletedProcess[bytes]") -> ProbeResult:
    """The child's last word; how it ended counts only where it has said nothing."""
    if not child.stdout and child.returncode == -signal.SIGKILL:
        raise MemoryLimitError("the system ended the trial of the model, most likely for lack of memory")
    if not child.stdout and (child.returncode < 0 or child.returncode > 128):
        number = -child.returncode if child.returncode < 0 else child.returncode - 128
        log.warning(
            "the engine crashed on the model: signal %d: %s", number, child.stderr[-2000:].decode(errors="replace")
        )
        raise ModelRefusedError("the runtime crashes on the model file")
    try:
        answer = json.loads(child.stdout.splitlines()[-1])
        if "refused" in answer:
            raise _REFUSALS[answer["refused"]](str(answer["reason"]))
        size, in_place = int(answer["session_bytes"]), answer["in_place"] is True
        return ProbeResult(size, in_place, tuple(map(int, answer.get("borrows", ()))))
    except (ValueError, KeyError, IndexError, TypeError):
        log.error(
            "the trial of the model ended oddly: exit %d: %s",
            child.returncode,
            child.stderr[-2000:].decode(errors="replace"),
        )
        raise ModelRefusedError("the runtime fails on the model file") from None


def main(task_text: str) -> int:
    """The child: try the model out and answer with a JSON line; the last one counts."""
    signals.unblock()
    from edge.errors import InferenceError
    from edge.runtime.borrowing import borrows_well
    from edge.runtime.tflite import TfliteEngine

    task = json.loads(task_text)
    delegate = DelegateRef(task["delegate"][0], tuple(map(tuple, task["delegate"][1]))) if task["delegate"] else None
    engine, path = TfliteEngine(), f"/proc/self/fd/{task['fd']}"
    try:
        engine.prepare()
        before = _private_bytes()
        session = engine.open(path, threads=task["threads"], delegate=delegate)
        warm_up(session)
        answer: dict[str, object] = {"session_bytes": max(0, _private_bytes() - before), "in_place": False}
        session.close()
    except InferenceError as error:
        answer = {
            "refused": "ModelRefusedError",
            "reason": f"the first inference fails: {str(error).splitlines()[0][:200]}",
        }
    except MemoryError:
        answer = {"refused": "MemoryLimitError", "reason": "the trial of the model ran out of memory"}
    except (ModelRefusedError, TargetError, UnsupportedModelError) as error:
        answer = {"refused": type(error).__name__, "reason": str(error)}
    _say(answer)
    # What follows only makes calls cheaper: whatever becomes of it, the answer stands.
    if "refused" not in answer and delegate is None and _serves_in_place(engine, path, task["threads"]):
        answer["in_place"] = True
        _say(answer)
        borrows = engine.borrowable(path)
        if borrows and borrows_well(
            engine.open(path, threads=task["threads"], in_place=True, borrows=borrows), frozenset(borrows)
        ):
            _say(answer | {"borrows": borrows})
    return 0


def _say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201


def _serves_in_place(engine: "TfliteEngine", path: str, threads: int) -> bool:
    """Whether the model's tensors stay in place, by what is known of its graph and by trying it."""
    if not engine.stays_in_place(path):
        return False
    session = engine.open(path, threads=threads, in_place=True)
    for _ in range(2):
        warm_up(session)
    return session.is_in_place()


def _private_bytes() -> int:
    """This process's anonymous memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
