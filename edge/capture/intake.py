"""The open batches: calls append to them, one at a time, and the worker takes them when they are due.

Two locks, so that a disk that hangs stops the writers and nothing else: `_writing` is held while a call writes, `_lock` never
over disk access. Writers wait for `_writing` with a timeout, and at most MAX_WRITERS of them, which leaves threads for other calls.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from edge.capture.batch import OpenBatch, OpenLarge
from edge.capture.settings import CaptureSettings
from edge.clock import Clock
from edge.errors import BufferFullError, SpoolFullError

MAX_WRITERS = 64  # captures being written at a time: half of the threads that serve calls
TURN_SECONDS = 5.0  # that a capture waits for those written before it; then it is refused


class WrittenCapture(NamedTuple):
    """A capture about to be appended: its record line, and its large entries, which are written already."""

    capture_id: str
    line: bytes
    large: list[OpenLarge]


class Intake:
    """The batches that are open or being sealed. Safe from any thread; one worker takes."""

    def __init__(self, settings: CaptureSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._writers = threading.BoundedSemaphore(MAX_WRITERS)
        self._writing = threading.Lock()
        self._lock = threading.Lock()  # guards all below
        self._open: dict[str, OpenBatch] = {}  # by the prefix of their keys, one for each model and hour
        self._sealing: list[OpenBatch] = []
        self._written: OpenBatch | None = None  # the batch that a call appends to now
        self._hurry = False
        self.epoch = 0  # how often all batches were taken away

    # --- calls ---------------------------------------------------------------

    @contextlib.contextmanager
    def writer(self) -> Iterator[None]:
        """Count the calling thread as a writer for the length of the `with` block.

        Raises:
            BufferFullError: there are MAX_WRITERS already.
        """
        if not self._writers.acquire(blocking=False):
            raise BufferFullError(f"{MAX_WRITERS} captures are being written already")
        try:
            yield
        finally:
            self._writers.release()

    def append(
        self,
        prefix: str,
        new_batch: Callable[[], OpenBatch],
        capture: WrittenCapture,
        accept: Callable[[], None],
        epoch: int,
    ) -> bool:
        """Write a capture to the open batch of its prefix, made by `new_batch` if there is none, and call `accept`.

        Returns whether the worker must be woken. `epoch` is `self.epoch` from before the capture took any room.

        Raises:
            OSError, SpoolFullError: nothing was added.
        """
        if not self._writing.acquire(timeout=TURN_SECONDS):
            raise SpoolFullError(f"the disk has not taken the captures before this one for {TURN_SECONDS:g} s")
        try:
            with self._lock:
                if epoch != self.epoch:
                    raise SpoolFullError("the spool was replaced while the capture was written")
                batch = self._open.get(prefix)
                if batch is not None and (batch.broken or 0 < self._settings.records_per_file <= len(batch.ids)):
                    self._sealing.append(self._open.pop(prefix))
                    batch = None
                self._written = batch
            new = batch is None
            if batch is None:
                batch = new_batch()
                with self._lock:
                    self._open[prefix] = self._written = batch
            try:
                batch.write(capture.line)
                with self._lock:
                    batch.add(*capture)
                    accept()
            finally:
                with self._lock:
                    self._written = None
            with self._lock:
                return new or self._is_full() or self._is_due(batch, self._clock.monotonic())
        finally:
            self._writing.release()

    # --- the worker ----------------------------------------------------------

    def restore(self, batches: list[OpenBatch]) -> None:
        """Batches of an earlier run, to be sealed."""
        with self._lock:
            self._sealing += batches

    def take_due(self, now: float, *, stopping: bool) -> list[OpenBatch]:
        """What is to be sealed now (everything, when stopping): batches of few files first, for each file takes its time."""
        with self._lock:
            everything = stopping or self._hurry or self._is_full()
            self._hurry = False
            for prefix, batch in self._takeable():
                if everything or self._is_due(batch, now):
                    self._sealing.append(self._open.pop(prefix))
            due = [batch for batch in self._sealing if stopping or now >= batch.retry_at]
        return sorted(due, key=lambda batch: len(batch.large))

    def hurry(self) -> None:
        """Have the next turn take everything that is open."""
        with self._lock:
            self._hurry = True

    def sealed(self, batch: OpenBatch) -> None:
        """Forget a batch that is sealed."""
        with self._lock:
            self._sealing.remove(batch)

    def seconds_to_next(self, now: float) -> float:
        """Seconds until a batch is due; one that is being written to does not count, for its writer wakes the worker."""
        with self._lock:
            if self._is_full():
                return 0.0
            times = [batch.opened_monotonic + self._settings.push_period for _, batch in self._takeable()]
            times += [batch.retry_at for batch in self._sealing]
        return max(0.0, min(times, default=float("inf")) - now)

    def take_all(self) -> list[OpenBatch] | None:
        """Take every batch away, whatever its state; None if a writer is stuck."""
        if not self._writing.acquire(timeout=TURN_SECONDS):
            return None
        try:
            with self._lock:
                self.epoch += 1
                taken = [*self._open.values(), *self._sealing]
                self._open.clear()
                self._sealing.clear()
                return taken
        finally:
            self._writing.release()

    def batches(self) -> list[OpenBatch]:
        """All that are open or being sealed."""
        with self._lock:
            return [*self._open.values(), *self._sealing]

    def _takeable(self) -> list[tuple[str, OpenBatch]]:
        """Open batches that no call writes to now, with their prefixes."""
        return [(prefix, batch) for prefix, batch in self._open.items() if batch is not self._written]

    def _is_full(self) -> bool:
        """Whether the open batches hold enough to seal them before their time."""
        waiting = [batch for _, batch in self._takeable()]
        return (
            sum(len(batch.ids) for batch in waiting) >= self._settings.batch_captures
            or sum(batch.total_bytes for batch in waiting) >= self._settings.batch_bytes
        )

    def _is_due(self, batch: OpenBatch, now: float) -> bool:
        return now - batch.opened_monotonic >= self._settings.push_period
