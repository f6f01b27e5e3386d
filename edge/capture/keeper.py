"""Captures by policy: the calls that were chosen, on their way from their answers to the spool (K).

A call hands over the bytes that it has anyway, its request and its answer; a thread of its own makes records of them. So no
Predict waits for a disk. What waits is bounded; beyond that a chosen call is not captured, and counted.
"""

import json
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge import durable
from edge.capture.budget import Budget, Day, noted, read
from edge.capture.record import CaptureRequest
from edge.capture.service import CaptureService
from edge.capture.summaries import Collector, Summaries, Summary, Watchable
from edge.capture.watch import Watch
from edge.capture_policy import EVERY_OTHER, Policy
from edge.clock import Clock
from edge.errors import BudgetSpentError, BufferFullError, EdgeError
from edge.tally import Tally
from edge.tensors import TensorSpec
from edge.text import counted

log = logging.getLogger(__name__)

MAX_HANDED_OVER = 256  # calls chosen by policies and not stored yet; further ones are not captured
MAX_HANDED_OVER_BYTES = 16 << 20  # of those calls together; a single larger one is accepted when no other waits
MAX_WATCHES = 1024  # models whose policy decisions are remembered
ROOM_SECONDS = 5.0  # for captures that are being written to make room
LOOK_SECONDS = 0.05  # between looks for that room
TURN_SECONDS = 5.0  # between looks for a new day
NOTE_SECONDS = 10.0  # between notes of what the budgets have
NOTE = "policies.json"  # in the spool
MAX_NOTE_BYTES = 1 << 20  # of the file with the policies' budgets, which is read whole


@dataclass(frozen=True, slots=True)
class Chosen:
    """A call that is to be captured; `make` builds its record's content, later and on another thread."""

    watch: Watch
    capture_id: str
    size: int  # bytes that it keeps in memory meanwhile
    make: Callable[[], CaptureRequest]


@dataclass(frozen=True, slots=True)
class Sample:
    """Values of a call, for the summary of its model: parts of its inputs and outputs, as arrays."""

    collector: Collector
    size: int
    inputs: Sequence[Any]
    outputs: Sequence[Any]


_NONE = Policy()  # which keeps nothing


class Keeper:
    """The policies and what they chose. Safe from any thread."""

    def __init__(
        self,
        captures: CaptureService,
        policies: Mapping[str, Policy],
        *,
        folder: Path,
        clock: Clock,
        summary_seconds: float = 0.0,
    ) -> None:
        """`policies` are the configuration's, by alias; what the budgets have is noted in `folder`.

        `summary_seconds`: between summaries of each model; 0: there are none.
        """
        self._captures = captures
        self._summaries = Summaries(summary_seconds, clock)
        self._configured = dict(policies)
        self._declared: dict[str, Policy] = {}
        self._on_change: list[Callable[[], None]] = []
        self._clock = clock
        self._note = folder / NOTE
        self._noted_at = 0.0
        self._last_note: dict[str, Any] = {}
        self._lock = threading.Lock()  # never held over the disk
        self._budgets: dict[str, Budget] = {}
        self._day = Day()
        self._used: dict[str, tuple[int, int]] = {}  # today, as noted, of policies that are not there yet
        self._watches: dict[str, tuple[Policy, Sequence[TensorSpec], Watch]] = {}
        self._queue: deque[Chosen | Sample] = deque()
        self._queued = self._queued_bytes = 0
        self._work = threading.Event()
        self._stopping, self._pause = threading.Event(), threading.Event()  # nobody sets the latter
        self._thread: threading.Thread | None = None
        self._begun = False
        self.results = Tally("kept", "full", "failed")  # calls that were chosen, since the start

    # --- policies --------------------------------------------------------------

    def watch(self, model: Watchable) -> Watch | None:
        """The watch on a model, or None where nothing is kept of it, or another serves under its alias by now."""
        alias, outputs = model.alias, model.outputs
        with self._lock:
            if (
                not model.serves()
            ):  # else the summary of the one in its place would be taken for that of a model that went
                return None
            key = alias if alias in self._declared or alias in self._configured else EVERY_OTHER
            policy = self._declared.get(alias) or self._configured.get(key) or _NONE
            if not (policy.keeps or self._summaries.period):
                return None
            collector = self._summaries.collector(model)
            known = self._watches.get(alias)
            if known is not None and known[0] == policy and known[1] is outputs and known[2].collector is collector:
                return known[2]
            budget = self._budget(key, policy) if policy.keeps else Budget(policy)
            watch = Watch(alias, policy, budget, outputs, collector)
            if len(self._watches) >= MAX_WATCHES:
                self._watches.pop(next(iter(self._watches)))
            self._watches[alias] = (policy, outputs, watch)
            if self._begun and self._thread is None:
                self._start()
            return watch

    def keep_only(self, serving: Callable[[], Mapping[str, Sequence[TensorSpec]]]) -> None:
        """Forget all models but those that are `serving`, by their aliases and outputs: they are gone."""
        with self._lock:
            models = serving()  # as of now: nobody is watched meanwhile
            self._summaries.keep_only(models)
            for alias in [one for one in self._watches if one not in models]:
                del self._watches[alias]

    def declare(self, policies: Mapping[str, Policy], unread: Collection[str] = ()) -> None:
        """Take the policies of declared models, which go before the configuration's, in place of those before.

        Those of `unread` stay as they are: what is declared of them cannot be read.
        """
        with self._lock:
            stay = {alias: policy for alias, policy in self._declared.items() if alias in unread}
            changed = {**stay, **policies} != self._declared
            self._declared = {**stay, **policies}
        if changed:
            for callback in self._on_change:
                callback()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when policies changed: what is kept of watches can go."""
        self._on_change.append(callback)

    def _budget(self, key: str, policy: Policy) -> Budget:
        """With the lock held: the budget of a policy, which a policy in its place takes over."""
        budget = self._budgets.get(key)
        if budget is None:
            budget = self._budgets[key] = Budget(policy)
            budget.begin(*self._used.pop(key, (0, 0)))
        else:
            budget.resize(policy)
        return budget

    # --- calls -----------------------------------------------------------------

    def reserve(self, watch: Watch, capture_id: str, size: int) -> bool:
        """Promise to capture a call that keeps `size` bytes until then; false where there is no room or budget for it."""
        with self._lock:
            full = self._queued >= MAX_HANDED_OVER or (
                self._queued and self._queued_bytes + size > MAX_HANDED_OVER_BYTES
            )
            if full or self._stopping.is_set() or not watch.budget.reserve():
                if not watch.budget.spent:
                    self.results.count("full")
                return False
            self._queued += 1
            self._queued_bytes += size
        self._captures.promise(capture_id)
        return True

    def withdraw(self, watch: Watch, capture_id: str, size: int) -> None:
        """Undo what `reserve` promised: the call cannot be captured."""
        with self._lock:
            self._queued -= 1
            self._queued_bytes -= size
        watch.budget.give_back()
        self._captures.break_promise(capture_id)
        self.results.count("failed")

    def hand_over(self, chosen: "Chosen | Sample") -> None:
        """Take what was reserved."""
        self._queue.append(chosen)
        self._work.set()

    def reserve_sample(self, size: int) -> bool:
        """Whether there is room for the values of a call, which keep `size` bytes."""
        with self._lock:
            if self._queued >= MAX_HANDED_OVER or self._queued_bytes + size > MAX_HANDED_OVER_BYTES:
                return False
            self._queued += 1
            self._queued_bytes += size
            return True

    # --- life ------------------------------------------------------------------

    def start(self) -> None:
        """Learn what the budgets have, and start the thread once there is a policy."""
        self._read()
        self._look_at_day()  # the thread looks after calls were counted
        with self._lock:
            self._begun = True
            if self._watches and self._thread is None:
                self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="policies", daemon=True)
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """Store what was handed over, within the deadline; calls are no longer chosen."""
        self._stopping.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join(deadline_s)
            if self._thread.is_alive():
                log.error("%d calls that were chosen by policy are not captured: the disk is too slow", self._queued)

    def _run(self) -> None:
        while True:
            stopping = self._stopping.is_set()
            self._work.clear()
            try:
                self._turn(stopping=stopping)
            except Exception:  # a defect in one turn must not end the policies for good
                log.exception("a turn of the capture policies failed")
            if stopping:
                self._write(self._clock.monotonic())
                return
            if not self._queue:
                due = self._summaries.seconds_to_next(self._clock.monotonic())
                self._clock.wait(self._work, max(0.0, min(due, TURN_SECONDS)))

    def _turn(self, *, stopping: bool) -> None:
        self._look_at_day()
        while self._queue:
            one = self._queue.popleft()
            try:
                if isinstance(one, Sample):
                    one.collector.add(one.inputs, one.outputs)
                else:
                    self._store(one)
            finally:
                with self._lock:
                    self._queued -= 1
                    self._queued_bytes -= one.size
        now = self._clock.monotonic()
        self._say_spent()
        with self._lock:
            summaries = self._summaries.due(now, stopping=stopping)
        for summary in summaries:
            self._summarise(summary)
        if now - self._noted_at >= NOTE_SECONDS:
            self._write(now)

    def _look_at_day(self) -> None:
        if not self._day.begins(self._clock.now(), self._clock.monotonic(), self._clock.synchronised):
            return
        with self._lock:
            self._used.clear()
            for budget in self._budgets.values():
                budget.begin()

    def _say_spent(self) -> None:
        with self._lock:
            spent = [(key, budget) for key, budget in self._budgets.items() if budget.spent and not budget.said]
        for key, budget in spent:
            budget.said = True
            log.warning(
                "capture policy %s: its budget of the day is spent, with %s and %d bytes",
                key, counted(budget.records, "record"), budget.bytes,
            )  # fmt: skip

    def _store(self, chosen: Chosen) -> None:
        taken = 0

        def charge(size: int) -> None:
            nonlocal taken
            if not taken:  # it may be tried again
                chosen.watch.budget.take(size)
                taken = size

        try:
            request = chosen.make()
            end = self._clock.monotonic() + ROOM_SECONDS
            while not self._captures.submit_promised(request, charge):
                if self._clock.monotonic() > end:
                    raise BufferFullError("captures wait to be written")
                self._clock.wait(self._pause, LOOK_SECONDS)
            self.results.count("kept")
        except Exception as error:
            if not isinstance(error, BudgetSpentError):
                chosen.watch.budget.give_back(taken)
            self._captures.break_promise(chosen.capture_id)
            self.results.count("failed")
            known = isinstance(error, EdgeError)
            log.log(
                logging.DEBUG if isinstance(error, BudgetSpentError) else logging.WARNING if known else logging.ERROR,
                "model %s: a call is not captured: %s",
                chosen.watch.alias,
                error,
                exc_info=not known,
            )

    def _summarise(self, summary: Summary) -> None:
        """Store a summary; where that cannot be done now, the next one has its period too."""
        model = summary.collector.model
        request = CaptureRequest(
            model.name, model.version, str(uuid.uuid4()), self._clock.now(), summary=summary.content
        )
        try:
            if self._captures.submit_promised(request, lambda size: None):
                summary.collector.stored(summary)
        except EdgeError as error:
            log.warning("model %s: its summary waits: %s", model.alias, error)

    # --- what the budgets have ---------------------------------------------------

    def _read(self) -> None:
        try:
            with durable.reader(self._note) as file:
                day, used = read(json.loads(file.read(MAX_NOTE_BYTES)))
        except (OSError, ValueError, RecursionError):
            return
        self._day.day, self._used = day, used
        for key, budget in self._budgets.items():
            budget.begin(*self._used.pop(key, (0, 0)))

    def _write(self, now: float) -> None:
        """Note what the budgets have; a disk that takes no more costs the note alone."""
        with self._lock:
            used = noted(self._day.day, self._budgets.items())
            # Models that nobody has called since the start keep what they had.
            used["used"] = {**{key: list(had) for key, had in self._used.items()}, **used["used"]}
        if used == self._last_note:
            return
        self._noted_at, self._last_note = now, used
        try:
            durable.write_file(self._note, json.dumps(used).encode())
        except OSError as error:
            log.debug("the budgets of the capture policies cannot be noted: %s", durable.why(error))
