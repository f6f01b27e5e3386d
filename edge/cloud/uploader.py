"""Drains the spool into the store: oldest batch first, in each the large entries before the record that names them.

One thread, one object at a time, a chunk of it in memory. A batch leaves the spool once the store has acknowledged all
of it. What happens when the store does not is decided in `edge.cloud.retry`:

    the network, the store or the credentials fail   the drain pauses, longer each time; nothing else changes
    the store refuses one object                     its batch is put off, the others go on; after some refusals while
                                                     others are taken, its captures fail
"""

import logging
import random
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge import durable
from edge.capture.record import read_line
from edge.capture.sealed import BatchContents, SealedBatch
from edge.capture.spool import Spool
from edge.clock import Clock
from edge.cloud.retry import (
    LATER_MOST_SECONDS,
    REFUSED_BASE_SECONDS,
    Outcome,
    Refusals,
    Verdict,
    later_delay,
    next_try,
    refused_delay,
)
from edge.cloud.store import Bandwidth, Body, ObjectStore, StoppedError, StoreError, Throttle
from edge.tally import Tally

log = logging.getLogger(__name__)

RECORD_TYPE = "application/jsonlines"
LARGE_TYPE = "application/octet-stream"
IDLE_SECONDS = 300.0  # between looks at a spool that says nothing
FOLDER_REFUSALS = 3  # in a row below one model's folder: the rest of it is left for the next round
STUMBLES = 2  # rounds in a row that end at the same batch, before the next one is tried first
MAX_PUT_OFF = 1000  # batches that something is remembered of
_HOUR_PARTS = 5  # YYYY/MM/DD/HH/<file> at the end of a record's key


class Chance(Protocol):
    """A source of jitter."""

    def random(self) -> float:
        """From 0 to 1."""
        ...


@dataclass
class _PutOff:
    """A batch that did not go through: when it is offered again (monotonic), and what is known of its objects."""

    until: float = 0.0
    stumbles: int = 0
    reason: str = ""  # why an object of it was refused
    refusals: dict[str, Refusals] = field(default_factory=dict)  # by key
    stored: set[str] = field(default_factory=set)
    given_up: dict[str, str] = field(default_factory=dict)  # key: why


class _RefusedError(Exception):
    """An object of this batch cannot go now; others may."""


class Uploader:
    """Uploads in a thread of its own.

    `period` in seconds: between rounds, where captures go to Disk first; None uploads as soon as a batch is sealed.
    `bandwidth` None is no limit.
    """

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        *,
        period: float | None = None,
        bandwidth: Bandwidth | None = None,
        chance: Chance | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._period = period
        self._chance = chance or random.SystemRandom()
        self._stop = threading.Event()
        self._pace = Throttle(bandwidth or Bandwidth(0, clock), self._stop)
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._failures = 0  # rounds in a row that ended early
        self._blocked = 0  # rounds in a row that left folders out, and in which nothing went through
        self._stored = 0  # objects, since start
        self._results = Tally("stored", "retried", "refused", "given_up")  # attempts to store an object
        self._unfit = False  # the store cannot work, as far as can be seen from here
        self._put_off: dict[str, _PutOff] = {}
        self._given_up = ("", 0.0)
        self._error = ("", 0.0)
        self._logged = ""  # of the trouble that is told

    # --- life ----------------------------------------------------------------

    def start(self, spool: Spool) -> None:
        """Begin to drain; `spool.sealed` tells of new batches."""
        self._wake = spool.sealed
        log.info("captures go to %s", self._store.uri(""))
        self._thread = threading.Thread(target=self._run, args=(spool,), name="uploader", daemon=True)
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """End within the deadline; what is not acknowledged stays in the spool."""
        self._stop.set()
        self._wake.set()
        self._store.abort()
        if self._thread is not None:
            self._thread.join(deadline_s)

    def last_error(self) -> tuple[str, float]:
        """The last failure in words and its unix seconds; empty and 0 when all is well."""
        return self._error

    def results(self) -> dict[str, int]:
        """Attempts to store an object since the start, by result."""
        return self._results.counts()

    def _run(self, spool: Spool) -> None:
        self._check()
        while not self._stop.is_set():
            spool.sealed.clear()
            try:
                pause = self.drain(spool)
            except StoppedError:
                break
            except Exception as error:  # a defect in one round must not end uploads for good
                log.exception("a round of uploads failed")
                pause = self._later(Verdict(Outcome.RETRY_LATER, f"uploads failed: {type(error).__name__}"))
            # A new batch says nothing about whether the store is back.
            waits_for_time = self._failures > 0 or self._period is not None
            if not self._stop.is_set():
                self._clock.wait(self._stop if waits_for_time else spool.sealed, pause)
        self._store.close()

    def _check(self) -> None:
        """Say what only the operator can fix, before anything waits for it."""
        try:
            self._store.check()
            self._unfit = False
        except StoreError as error:
            self._unfit = True
            self._failed(error.verdict.reason)

    # --- a round -------------------------------------------------------------

    def drain(self, spool: Spool) -> float:
        """Upload what waits; returns the seconds to leave it then.

        Raises:
            StoppedError: `stop` was called.
        """
        refused: dict[str, int] = {}  # in a row, below the folder of a model
        stored, gone = self._stored, set(self._put_off)
        for batch in spool.batches():
            gone.discard(batch.key)
            if self._stop.is_set():
                raise StoppedError
            folder = batch.key.rsplit("/", _HOUR_PARTS)[0]
            if refused.get(folder, 0) >= FOLDER_REFUSALS or self._is_put_off(batch.key) or not spool.claim(batch):
                continue
            try:
                self._upload(spool, batch)
                refused.pop(folder, None)
            except _RefusedError as error:
                refused[folder] = refused.get(folder, 0) + 1
                self._failed(str(error))
            except StoreError as error:
                pause = self._later(error.verdict)
                self._stumble(batch, error.verdict, pause)
                return pause
            finally:
                spool.release(batch)
        for key in gone:
            self._put_off.pop(key, None)
        self._failures = 0
        left_out = any(count >= FOLDER_REFUSALS for count in refused.values())
        self._blocked = self._blocked + 1 if left_out and self._stored == stored else 0
        return self._next_round(left_out)

    def _is_put_off(self, key: str) -> bool:
        state = self._put_off.get(key)
        return state is not None and state.until > self._clock.monotonic()

    def _next_round(self, left_out: bool) -> float:
        """Seconds to the next round after one that came to its end."""
        pause = self._period or IDLE_SECONDS
        if self._unfit:
            self._check()
        if self._unfit:
            return min(pause, LATER_MOST_SECONDS)
        if self._error[0] and not self._put_off:
            self._well()
        if left_out:
            return max(REFUSED_BASE_SECONDS, later_delay(self._blocked, True, self._chance.random()))
        if self._put_off:
            now = self._clock.monotonic()
            pause = min(pause, max(REFUSED_BASE_SECONDS, min(state.until - now for state in self._put_off.values())))
        return pause

    def _later(self, verdict: Verdict) -> float:
        """Seconds to leave the store alone."""
        self._failures += 1
        self._failed(verdict.reason)
        self._store.close()
        return max(verdict.retry_after, later_delay(self._failures, verdict.slow, self._chance.random()))

    def _stumble(self, batch: SealedBatch, verdict: Verdict, pause: float) -> None:
        """Let the next batch go first where the store seems to fail on this one alone."""
        state = self._put_off.get(batch.key)
        if state is not None and verdict.outcome is Outcome.RETRY_SOON:
            state.stumbles += 1
            if state.stumbles >= STUMBLES:
                state.stumbles = 0
                state.until = self._clock.monotonic() + 2 * pause

    # --- a batch -------------------------------------------------------------

    def _upload(self, spool: Spool, batch: SealedBatch) -> None:
        """Upload a claimed batch and settle it.

        Raises:
            StoreError: nothing goes through.
            _RefusedError: an object of it was refused, perhaps not for good.
            StoppedError: `stop` was called.
        """
        state = self._put_off.get(batch.key) or _PutOff()
        try:
            contents = spool.contents(batch)
            self._put_large(batch, state, contents)
            self._put_record(spool, batch, state, contents)
        except OSError as error:
            state.reason = f"the spool cannot be used: {error.strerror or error}"
            self._offer_again(state, batch, 1)
            raise _RefusedError(state.reason) from None
        self._put_off.pop(batch.key, None)
        self._well()

    def _put_large(self, batch: SealedBatch, state: _PutOff, contents: BatchContents) -> None:
        """Upload the large entries; one that is refused does not keep the others back."""
        refusal: _RefusedError | None = None
        for large in contents.large:
            if large.size is None:
                state.given_up.setdefault(large.key, "its file was removed from the spool")
                continue
            try:
                self._put(state, batch, large.key, Body(large.path, large.size), LARGE_TYPE)
            except _RefusedError as error:
                refusal = error
        if refusal is not None:
            raise refusal

    def _put_record(self, spool: Spool, batch: SealedBatch, state: _PutOff, contents: BatchContents) -> None:
        """Upload the record, without the captures that lack an object, and settle the batch."""
        failed = {large.capture_id for large in contents.large if large.key in state.given_up}
        nothing_left = failed.issuperset(contents.ids)
        if not nothing_left:
            ranges = _lines_but(batch.path, batch.key, failed) if failed else None
            self._put(state, batch, batch.key, Body(batch.path, batch.size, ranges), RECORD_TYPE)
        for key, why in state.given_up.items():
            self._given_up = (f"{key}: given up: {why}", self._clock.now())
            self._failed(self._given_up[0], logging.ERROR)
        if nothing_left or batch.key in state.given_up:
            spool.give_up(batch)
        else:
            spool.done(batch, failed)

    def _put(self, state: _PutOff, batch: SealedBatch, key: str, body: Body, content_type: str) -> None:
        """Store an object, unless it is stored; or note that it is given up.

        Raises: as `_upload`.
        """
        if key in state.stored or key in state.given_up:
            return
        try:
            self._try(key, body, content_type)
        except OSError as error:
            self._refused(state, batch, key, f"its file cannot be read: {error.strerror or error}")
        except StoreError as error:
            if error.verdict.outcome is Outcome.GIVE_UP:
                self._give_up(state, key, error.verdict.reason)
            elif error.verdict.outcome is Outcome.REFUSED:
                self._refused(state, batch, key, error.verdict.reason, counts=error.verdict.counts)
            else:
                self._keep(state, batch)  # what is stored of it is not sent again when the network comes back
                raise
        else:
            self._stored += 1
            self._results.count("stored")
            state.stored.add(key)

    def _give_up(self, state: _PutOff, key: str, reason: str) -> None:
        self._results.count("given_up")
        state.given_up[key] = reason

    def _refused(self, state: _PutOff, batch: SealedBatch, key: str, reason: str, *, counts: bool = True) -> None:
        """Give the object up, or put its batch off.

        Raises:
            _RefusedError: it is put off.
        """
        refusals = state.refusals.setdefault(key, Refusals(self._stored))
        if refusals.add(self._stored, counts=counts):
            self._give_up(state, key, reason)
            return
        self._results.count("refused")
        state.reason = f"{key}: {reason}"
        self._offer_again(state, batch, refusals.count)
        raise _RefusedError(state.reason)

    def _offer_again(self, state: _PutOff, batch: SealedBatch, refusals: int) -> None:
        state.until = max(state.until, self._clock.monotonic() + refused_delay(refusals))
        self._keep(state, batch)

    def _keep(self, state: _PutOff, batch: SealedBatch) -> None:
        if batch.key in self._put_off or len(self._put_off) < MAX_PUT_OFF:
            self._put_off[batch.key] = state

    def _try(self, key: str, body: Body, content_type: str) -> None:
        """Put an object, again and again while that may help at once.

        Raises: as `ObjectStore.put`.
        """
        tries = 0
        while True:
            try:
                self._store.put(key, body, content_type, self._pace)
                return
            except StoreError as error:
                if self._stop.is_set():
                    raise StoppedError from None
                tries += 1
                self._note(error.verdict.reason)  # a try may take minutes
                log.debug("%s: try %d: %s", key, tries, error.verdict.reason)
                wait = next_try(error.verdict, tries, self._chance.random())
                if wait is None:
                    raise
                self._results.count("retried")
                if wait and self._clock.wait(self._stop, wait):
                    raise StoppedError from None

    # --- what operators see --------------------------------------------------

    def _failed(self, text: str, level: int = logging.WARNING) -> None:
        if text != self._logged:
            log.log(level, "uploads: %s", text)
        self._logged = text
        self._note(text)

    def _note(self, text: str) -> None:
        """Show a failure, which the log has once it is known to last."""
        self._error = (text, self._clock.now())

    def _well(self) -> None:
        """A batch went through: only what is put off or was given up is still to be told."""
        waiting = next((state.reason for state in self._put_off.values() if state.reason), "")
        error = (waiting, self._clock.now()) if waiting else self._given_up
        if self._logged and not error[0]:
            log.info("uploads go through again")
        self._logged, self._error = error[0], error


def _lines_but(path: Path, key: str, failed: Collection[str]) -> list[tuple[int, int]]:
    """Where the lines of a record file are, but those of `failed` captures: offset and length of each."""
    ranges, end = [], 0
    with durable.reader(path) as file:
        for line in file:
            start, end = end, end + len(line)
            summary = read_line(line, key)
            if summary is None or summary.capture_id not in failed:
                ranges.append((start, len(line)))
    return ranges
