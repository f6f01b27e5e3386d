"""The open batches: calls append to them, one at a time, and the worker takes them when they are due.

No lock is held over the disk but the turn of whoever writes, so that a disk that does not answer holds up writers alone.
They wait for their turn with an end, and no more of them than leave threads to all other calls.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

from edge.capture.batch import OpenBatch, OpenLarge
from edge.capture.settings import CaptureSettings
from edge.clock import Clock
from edge.errors import BufferFullError, SpoolFullError

MAX_WRITERS = 64  # calls that store at a time: half the threads that serve calls
TURN_SECONDS = 5.0  # for the writers before


class Intake:
    """The batches that are open or being sealed. Safe from any thread; one worker takes."""

    def __init__(self, settings: CaptureSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._places = threading.BoundedSemaphore(MAX_WRITERS)
        self._turn = threading.Lock()  # held over the disk
        self._lock = threading.Lock()  # never held over the disk; guards all below
        self._open: dict[str, OpenBatch] = {}  # by place: a model's, in an hour
        self._sealing: list[OpenBatch] = []
        self._written: OpenBatch | None = None  # somebody appends to it
        self._hurry = False
        self.epoch = 0  # how often all batches were taken away

    # --- calls ---------------------------------------------------------------

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """For a call that is about to store.

        Raises:
            BufferFullError: too many are at it.
        """
        if not self._places.acquire(blocking=False):
            raise BufferFullError(f"{MAX_WRITERS} captures are being written already")
        try:
            yield
        finally:
            self._places.release()

    def append(
        self,
        place: str,
        new_batch: Callable[[], OpenBatch],
        capture: tuple[str, bytes, list[OpenLarge]],
        accept: Callable[[], None],
        epoch: int,
    ) -> bool:
        """Write a capture (id, line, large entries that are written already) to the batch of its place, and accept it.

        Returns whether the worker has to look.

        Raises:
            OSError, SpoolFullError: nothing was added.
        """
        if not self._turn.acquire(timeout=TURN_SECONDS):
            raise SpoolFullError(f"the disk has not taken the captures before this one for {TURN_SECONDS:g} s")
        try:
            with self._lock:
                if epoch != self.epoch:
                    raise SpoolFullError("the spool was replaced while the capture was written")
                batch = self._open.get(place)
                if batch is not None and (batch.broken or 0 < self._settings.records_per_file <= len(batch.ids)):
                    self._sealing.append(self._open.pop(place))
                    batch = None
                self._written = batch
            new = batch is None
            if batch is None:
                batch = new_batch()
                with self._lock:
                    self._open[place] = self._written = batch
            capture_id, line, large = capture
            try:
                batch.write(line)
                with self._lock:
                    batch.add(capture_id, line, large)
                    accept()
            finally:
                with self._lock:
                    self._written = None
            with self._lock:
                return new or self._is_full() or self._is_due(batch, self._clock.monotonic())
        finally:
            self._turn.release()

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
            for place, batch in self._takeable():
                if everything or self._is_due(batch, now):
                    self._sealing.append(self._open.pop(place))
            due = [batch for batch in self._sealing if stopping or now >= batch.retry_at]
        return sorted(due, key=lambda batch: len(batch.large))

    def hurry(self) -> None:
        """Have the next turn take everything that is open."""
        with self._lock:
            self._hurry = True

    def sealed(self, batch: OpenBatch) -> None:
        """Forget a batch that is in its place."""
        with self._lock:
            self._sealing.remove(batch)

    def seconds_to_next(self, now: float) -> float:
        """Seconds until a batch is due; one that is written to does not count, for its writer calls the worker."""
        with self._lock:
            if self._is_full():
                return 0.0
            times = [batch.opened_monotonic + self._settings.push_period for _, batch in self._takeable()]
            times += [batch.retry_at for batch in self._sealing]
        return max(0.0, min(times, default=float("inf")) - now)

    def take_all(self) -> list[OpenBatch] | None:
        """Take every batch away, whatever its state; None while somebody writes and does not end."""
        if not self._turn.acquire(timeout=TURN_SECONDS):
            return None
        try:
            with self._lock:
                self.epoch += 1
                taken = [*self._open.values(), *self._sealing]
                self._open.clear()
                self._sealing.clear()
                return taken
        finally:
            self._turn.release()

    def batches(self) -> list[OpenBatch]:
        """All that are open or being sealed."""
        with self._lock:
            return [*self._open.values(), *self._sealing]

    def _takeable(self) -> list[tuple[str, OpenBatch]]:
        return [(place, batch) for place, batch in self._open.items() if batch is not self._written]

    def _is_full(self) -> bool:
        """Whether enough waits for a batch."""
        waiting = [batch for _, batch in self._takeable()]
        return (
            sum(len(batch.ids) for batch in waiting) >= self._settings.batch_captures
            or sum(batch.total_bytes for batch in waiting) >= self._settings.batch_bytes
        )

    def _is_due(self, batch: OpenBatch, now: float) -> bool:
        return now - batch.opened_monotonic >= self._settings.push_period
