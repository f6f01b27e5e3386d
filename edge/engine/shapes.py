"""Shapes that a model has not run yet are tried in a child process before the agent runs them (P-13).

Where an engine does not look at what a shape leads to, one request could end the agent and every model in it. So each new
set of shapes is run once where only a child can die, and the verdict is kept. The child stays while new shapes come; the
agent's housekeeping asks for its end.
"""

import logging
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable

from edge.clock import Clock
from edge.engine.child import Child
from edge.engine.engine import SessionOptions, Shapes
from edge.engine.probe import OPENING_SECONDS, crash_text, descriptors_of, task_of
from edge.engine.samples import FILE, MADE_UP, Sample
from edge.errors import MemoryLimitError, ModelGoneError, QueueFullError, TensorError
from edge.tensors import shape_text

log = logging.getLogger(__name__)

MAX_VERDICTS = 1024  # sets of shapes that are remembered of a model; the oldest are forgotten
IDLE_SECONDS = 30  # without a new shape, after which the child is ended
MAX_WAITING_CALLS = 8  # for the trial of new shapes, of a model: each holds a thread


class ShapeTrials:
    """The shapes of one model, and what is known of them. Safe to use from any thread."""

    def __init__(
        self,
        name: str,
        model_fd: int,
        options: SessionOptions,
        kind: str,
        *,
        run_seconds: float,
        engine: str,
        session_bytes: int,
        instances: int,
        check_room: Callable[[str, int], None],
        clock: Clock,
    ) -> None:
        """`model_fd` is copied; `kind` are the values that the model is known to run on, if there are any.

        A session takes `session_bytes` with the model's own shapes; `check_room` raises MemoryLimitError where what it names
        finds no room for so many bytes.
        """
        self._name = name
        self._fd = os.dup(model_fd)
        self._options = options
        self._kinds = (kind,) if kind not in ("", FILE) else MADE_UP
        self._run_seconds = run_seconds
        self._engine = engine
        self._session_bytes = session_bytes
        self._instances = instances
        self._check_room = check_room
        self._clock = clock
        self.grown_bytes = 0  # that the model takes more, with the largest shapes it was given
        self._verdicts: OrderedDict[Shapes, str] = OrderedDict()  # the refusal; empty where they run
        self._turn = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MAX_WAITING_CALLS)
        self._child: Child | None = None
        self._answered = 0.0  # when the child last did
        self._closed = False

    def learn(self, shapes: Shapes, refusal: str = "") -> None:
        """Keep a verdict."""
        self._verdicts[shapes] = refusal
        if len(self._verdicts) > MAX_VERDICTS:
            self._verdicts.popitem(last=False)

    def known(self, shapes: Shapes) -> bool:
        """Whether the model is known to run on these.

        Raises:
            TensorError: it is known not to.
        """
        verdict = self._verdicts.get(shapes)
        if verdict:
            raise TensorError(verdict)
        return verdict is not None

    def check(self, shapes: Shapes, input_bytes: int) -> None:
        """Try shapes that are not known; it takes as long as an inference, and the start of a process now and then.

        Raises:
            TensorError: the model cannot run on these.
            MemoryLimitError: the budget or the system has too little memory for them (L-6).
            QueueFullError: too many calls wait for trials already.
            ModelGoneError: the model is being unloaded, or was replaced.
        """
        if not self._waiting.acquire(blocking=False):
            raise QueueFullError(
                f"{MAX_WAITING_CALLS} calls with new shapes wait for model {self._name!r} already, the most allowed"
            )
        try:
            with self._turn:
                if not self.known(shapes):
                    self._grown(shapes, input_bytes)  # before they are tried
                    self.grown_bytes = self._grown(shapes, max(input_bytes, self._try(shapes)))
                    self.learn(shapes)
        finally:
            self._waiting.release()

    def _grown(self, shapes: Shapes, size: int) -> int:
        """What all sessions take more than at first, if each takes `size` bytes with such shapes; there is room for it."""
        grown = max(self.grown_bytes, self._instances * (size - self._session_bytes))
        if grown > self.grown_bytes:
            what = f"model {self._name!r} with input shapes " + ", ".join(map(shape_text, shapes))
            self._check_room(what, grown - self.grown_bytes)
        return grown

    def _try(self, shapes: Shapes) -> int:
        """Run them in the child; the bytes that a session takes for them."""
        wanted = "the model cannot take input shapes " + ", ".join(map(shape_text, shapes))
        try:
            child = self._ready_child()
            child.ask({"shapes": shapes})
            answer = child.hear(self._run_seconds)
        except TimeoutError:
            self._end_child()
            raise TensorError(
                f"{wanted}: an inference does not end within {self._run_seconds:g} s (runtime.trial_seconds)"
            ) from None
        self._answered = self._clock.monotonic()
        if answer is None:
            ended_by = self._end_child()
            if ended_by == signal.SIGKILL:
                raise MemoryLimitError(f"{wanted} for lack of memory")
            if ended_by:
                text = f"{wanted}: {crash_text(self._engine, ended_by)} on them"
                log.warning("model %s: %s: %s", self._name, text, child.last_words)
                self.learn(shapes, text)
                raise TensorError(text)
        if answer is None or answer.get("refused") == MemoryLimitError.__name__:
            self._end_child()
            raise MemoryLimitError(f"{wanted}: they cannot be tried now")
        if "refused" in answer:
            self.learn(shapes, str(answer["reason"]))
            raise TensorError(str(answer["reason"]))
        return int(answer["bytes"])

    def _ready_child(self) -> Child:
        if self._closed:
            raise ModelGoneError.of(self._name)
        if (
            self._child is not None and self._child.has_ended()
        ):  # of itself: that is no verdict on what it is asked next
            self._end_child()
        if self._child is None:
            sample = Sample()
            task = task_of(self._fd, self._options, sample, self._kinds) | {"serve": True}
            self._child = Child(task, descriptors_of(self._fd, sample))
            said = self._child.hear(OPENING_SECONDS)
            if said is None or "refused" in said:
                self._end_child()
                raise MemoryLimitError(f"model {self._name!r} cannot be tried on new shapes now")
        return self._child

    def _end_child(self) -> int:
        if self._child is None:
            return 0
        child, self._child = self._child, None
        return child.end()

    def end_idle_child(self) -> None:
        """End the child if no new shapes have come for a while, and forget one that has ended; it waits for no trial."""
        if self._child is None or not self._turn.acquire(blocking=False):
            return
        try:
            idle = self._clock.monotonic() - self._answered >= IDLE_SECONDS
            if self._child is not None and (idle or self._child.has_ended()):
                self._end_child()
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the child; idempotent."""
        with self._turn:
            self._end_child()
            if not self._closed:
                self._closed = True
                os.close(self._fd)
