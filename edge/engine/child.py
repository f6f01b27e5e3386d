"""A process of this program in which a model is tried: what the engine does there, the agent survives.

Both sides speak in lines of JSON. The process is ended by the kernel with the agent, whatever it is doing then and however
the agent ends: it holds the reading end of a pipe whose other end only the agent has.
"""

import fcntl
import json
import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from edge.clock import SystemClock
from edge.durable import why, write_all
from edge.errors import MemoryLimitError
from edge.selfexec import self_command

FLAG = "--probe-model"
MAX_LINE_BYTES = 1 << 20  # of what a trial says at once; more is no answer
KEPT_LAST_WORDS_BYTES = 2000
LOOK_SECONDS = 1.0  # between looks at whether it is still wanted
MAX_WAITS = 10  # times its time that an idle child is given more, for having found no core free
_OWN_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")  # of the agent alone
_CHOSEN_BY_OOM_KILLER = "1000"  # the highest oom_score_adj: before any other process


class Child:
    """The agent's side. One thread at a time uses it."""

    def __init__(
        self, task: dict[str, Any], descriptors: Sequence[int], *, flag: str = FLAG, idle: bool = False
    ) -> None:
        """Start it; the `descriptors` keep their numbers in it, and `flag` says what it does.

        An `idle` one runs when nothing else wants to, where the system allows that to be said; it is given the more time.

        Raises:
            MemoryLimitError: the system gives no process, or no pipes to it.
        """
        import subprocess  # which the child, who has this module as well, does without

        with ExitStack() as ours, ExitStack() as theirs:
            try:
                lives, _ = _pipe(theirs, ours)
                asked, self._questions = _pipe(theirs, ours)
                self._out, out = _pipe(ours, theirs)
                self._err, err = _pipe(ours, theirs)
                self._process = subprocess.Popen(
                    [*self_command(), flag, json.dumps({**task, "lives": lives})],
                    stdin=asked,
                    stdout=out,
                    stderr=err,
                    pass_fds=(lives, *descriptors),
                    env={name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}
                    | {"OPENBLAS_NUM_THREADS": "1"},  # see TfliteEngine.prepare
                )
            except OSError as error:
                raise MemoryLimitError(f"no process can be started to try the model out: {why(error)}") from None
            self._ours = ours.pop_all()
        self._idle = idle
        if idle:
            with suppress(OSError):
                os.sched_setscheduler(self._process.pid, os.SCHED_IDLE, os.sched_param(0))
        self._said = b""
        self._last_words = b""
        self._monotonic = SystemClock().monotonic

    def hear(self, seconds: float, go_on: Callable[[], None] = lambda: None) -> dict[str, Any] | None:
        """The next thing that it says; None where it has ended.

        `go_on` is called every LOOK_SECONDS; to stop waiting, it raises.

        Raises:
            TimeoutError: it says nothing for so long.
        """
        begun = self._monotonic()
        deadline = begun + seconds
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        poll.register(self._err, select.POLLIN)
        while b"\n" not in self._said:
            left = max(0.0, deadline - self._monotonic())
            ready = [number for number, _ in poll.poll(min(LOOK_SECONDS, left) * 1000)]
            go_on()
            if not ready and left <= LOOK_SECONDS:
                deadline = begun + seconds + min(self._kept_waiting(), MAX_WAITS * seconds)
                if self._monotonic() >= deadline:
                    raise TimeoutError
            if self._err in ready and not self._listen():
                poll.unregister(self._err)
            if self._out in ready:
                data = os.read(self._out, 1 << 16)
                if not data or len(self._said) > MAX_LINE_BYTES:
                    return None
                self._said += data
        line, _, self._said = self._said.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def _kept_waiting(self) -> float:
        """How long one that is idle could have run and found no core free, in seconds: the longest of its threads.

        To be asked only where its time is over: once its files in /proc have been looked at, the kernel has to forget them when
        it ends, and whoever reaps it spins for as long as one of its threads, which no core is free for, is at that.
        """
        longest = 0
        for stat in Path(f"/proc/{self._process.pid}/task").glob("*/schedstat") if self._idle else ():
            with suppress(OSError, ValueError, IndexError):
                longest = max(longest, int(stat.read_text().split()[1]))
        return longest / 1e9

    def _listen(self) -> bool:
        """Take what it wrote on stderr; false at the end of it."""
        data = os.read(self._err, 1 << 16)
        self._last_words = (self._last_words + data)[-KEPT_LAST_WORDS_BYTES:]
        return bool(data)

    @property
    def last_words(self) -> str:
        """The end of what it, or the engine in it, wrote on stderr."""
        return self._last_words.decode(errors="replace").strip()

    def ask(self, question: dict[str, Any]) -> None:
        """Tell it something; one that has ended does not hear it."""
        with suppress(OSError):
            write_all(self._questions, json.dumps(question).encode() + b"\n")

    def has_ended(self) -> bool:
        """Whether it has ended by itself, or something else has ended it."""
        return self._process.poll() is not None

    def end(self, *, patience: float = 0.0) -> int:
        """Have it ended, after `patience` seconds if it does not by itself; the number of the signal that ended it, or 0."""
        from subprocess import TimeoutExpired

        try:
            code = self._process.wait(patience)
        except TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        os.set_blocking(self._err, False)
        with suppress(BlockingIOError):
            self._listen()
        self._ours.close()
        return -code if code < 0 else code - 128 if code > 128 else 0  # an emulator or a shell says it the second way


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """A pipe's two ends, each closed with its owner."""
    ends = os.pipe()
    for owner, number in zip((reader, writer), ends, strict=True):
        owner.callback(os.close, number)
    return ends


def become(task: dict[str, Any]) -> None:
    """In the child: end with the agent, and before it where memory runs out."""
    lives = int(task["lives"])
    fcntl.fcntl(lives, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lives, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lives, fcntl.F_SETFL, fcntl.fcntl(lives, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(lives, 0)
    if poll.poll(0):  # it went before that
        os._exit(1)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_CHOSEN_BY_OOM_KILLER)


class Voice:
    """In the child: what tells the agent something. Where stdout was, whatever the engine prints goes to stderr."""

    def __init__(self) -> None:
        self._fd = os.dup(1)
        os.dup2(2, 1)

    def say(self, something: dict[str, Any]) -> None:
        """One line."""
        write_all(self._fd, json.dumps(something).encode() + b"\n")
