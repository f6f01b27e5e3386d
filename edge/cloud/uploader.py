"""Drains the spool into the store: oldest batch first, in each the large entries before the record that names them.

Some threads, each with one batch at a time, one object of it under way and a chunk of that in memory. A batch leaves the
spool once the store has acknowledged all of it. What happens when the store does not is decided in `edge.cloud.retry`:

    the network, the store or the credentials fail   the drain pauses, longer each time; nothing else changes
    the store refuses one object                     its batch is put off, the others go on; after some refusals while
                                                     others are taken, its captures fail

`edge.cloud.gate` sees that a store that fails is asked by one thread alone.
"""

import logging
import threading
from queue import SimpleQueue

from edge.capture.sealed import SealedBatch
from edge.capture.spool import Spool
from edge.clock import Clock
from edge.cloud.delivery import Chance, Delivery, RefusedError
from edge.cloud.gate import ClosedError, Gate
from edge.cloud.retry import LATER_MOST_SECONDS, REFUSED_BASE_SECONDS, Outcome, Verdict, later_delay
from edge.cloud.store import Bandwidth, ObjectStore, StoppedError, StoreError, Throttle
from edge.cloud.trouble import Trouble

log = logging.getLogger(__name__)

IDLE_SECONDS = 300.0  # between looks at a spool that says nothing
FOLDER_REFUSALS = 3  # in a row below one model's folder: the rest of it is left for the next round
STUMBLES = 2  # rounds in a row that end at the same batch, before the next one is tried first
_HOUR_PARTS = 5  # YYYY/MM/DD/HH/<file> at the end of a record's key


class _Round:
    """One or more walks through the spool, by several threads. `lock` guards it."""

    def __init__(self, connections: int, remembered: set[str]) -> None:
        self.lock = threading.Lock()
        self.free = threading.Semaphore(connections)
        self.queue: SimpleQueue[SealedBatch | None] = SimpleQueue()  # claimed batches
        self.threads: list[threading.Thread] = []
        self.busy = 0
        self.unseen = remembered  # batches that something is remembered of, and that were not met yet
        self.refused: dict[str, int] = {}  # in a row, below the folder of a model
        self.over = False
        self.ended_by: tuple[SealedBatch, Verdict] | None = None
        self.error: Exception | None = None

    def skips(self, folder: str) -> bool:
        """Whether enough was refused below a model's folder."""
        return self.refused.get(folder, 0) >= FOLDER_REFUSALS

    def end(self, error: Exception | None = None, failed: tuple[SealedBatch, Verdict] | None = None) -> None:
        """Take no further batch. Of several failures the one counts that asks for the longest rest."""
        with self.lock:
            self.over = True
            self.error = self.error or error
            if failed and (self.ended_by is None or failed[1].retry_after > self.ended_by[1].retry_after):
                self.ended_by = failed


class Uploader:
    """Uploads in threads of its own, `connections` at most.

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
        connections: int = 1,
        chance: Chance | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._period = period
        self._connections = connections
        self._stop = threading.Event()
        self._gate = Gate(connections, clock, self._stop)
        self._trouble = Trouble(clock)
        self._pace = Throttle(bandwidth or Bandwidth(0, clock), self._stop)
        self._delivery = Delivery(store, clock, gate=self._gate, pace=self._pace, trouble=self._trouble, chance=chance)
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._failures = 0  # rounds in a row that ended early
        self._blocked = 0  # rounds in a row that left folders out, and in which nothing went through
        self._untidy = ""  # why, as it was logged last
        self._unfit = False  # the store cannot work, as far as can be seen from here

    # --- life ----------------------------------------------------------------

    def start(self, spool: Spool) -> None:
        """Begin to drain; `spool.sealed` announces new batches."""
        self._wake = spool.sealed
        self._store.keep_notes_in(spool.notes_folder)
        log.info("captures go to %s", self._store.uri(""))
        self._thread = threading.Thread(target=self._run, args=(spool,), name="uploader", daemon=True)
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """End within the deadline; objects that were not acknowledged stay in the spool."""
        self._stop.set()
        self._wake.set()
        self._gate.wake()
        self._store.abort()
        if self._thread is not None:
            self._thread.join(deadline_s)

    def last_error(self) -> tuple[str, float]:
        """The last failure and its time in unix seconds; empty and 0 if there is none."""
        return self._trouble.last()

    def results(self) -> dict[str, int]:
        """Attempts to store an object since the start, by result."""
        return self._delivery.results.counts()

    def _run(self, spool: Spool) -> None:
        self._check()
        while not self._stop.is_set():
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
        """Report what only the operator can fix, before any capture waits for it."""
        try:
            self._store.check()
            self._unfit = False
        except StoreError as error:
            self._unfit = True
            self._trouble.tell(error.verdict.reason)
        except Exception:  # a defect here must not end uploads for good; the round looks again
            self._unfit = True
            log.exception("a look at what uploads need failed")

    # --- a round -------------------------------------------------------------

    def drain(self, spool: Spool) -> float:
        """Upload the waiting batches; returns the seconds until the next round.

        Raises:
            StoppedError: `stop` was called.
        """
        stored = self._delivery.stored
        turn = _Round(self._connections, set(self._delivery.put_off))
        self._gate.open()
        try:
            self._walk(spool, turn)
        finally:
            for _ in turn.threads:
                turn.queue.put(None)
            for thread in turn.threads:
                thread.join()
        if turn.error is not None:
            raise turn.error
        if self._stop.is_set():
            raise StoppedError
        if turn.ended_by is not None:
            batch, verdict = turn.ended_by
            pause = self._later(verdict)
            self._stumble(batch, verdict, pause)
            return pause
        self._delivery.forget(turn.unseen)
        self._failures = 0
        self._tidy()
        left_out = any(turn.skips(folder) for folder in turn.refused)
        self._blocked = self._blocked + 1 if left_out and self._delivery.stored == stored else 0
        return self._next_round(left_out)

    def _walk(self, spool: Spool, turn: _Round) -> None:
        """Hand waiting batches to threads, also those that are sealed meanwhile."""
        while True:
            spool.sealed.clear()
            for batch in spool.batches():
                turn.unseen.discard(batch.key)
                if self._skips(turn, batch):
                    continue
                turn.free.acquire()
                if turn.over or self._stop.is_set():
                    return
                if self._skips(turn, batch) or not spool.claim(batch):  # much may have come in between
                    turn.free.release()
                    continue
                self._hand_out(spool, turn, batch)
            with turn.lock:
                if not turn.busy:
                    return
            spool.sealed.wait()  # set by whoever seals, by the last thread that is busy, and by a stop
            if turn.over or self._stop.is_set():
                return

    def _skips(self, turn: _Round, batch: SealedBatch) -> bool:
        return turn.skips(_folder(batch)) or self._delivery.is_put_off(batch.key)

    def _hand_out(self, spool: Spool, turn: _Round, batch: SealedBatch) -> None:
        """Give a claimed batch to an idle thread, or to a new one."""
        with turn.lock:
            turn.busy += 1
            more = turn.busy > len(turn.threads)
        turn.queue.put(batch)
        if more:
            thread = threading.Thread(target=self._work, args=(spool, turn), name="upload", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system gives no more threads: then with fewer, or later
                if not turn.threads:
                    spool.release(batch)
                    raise
            else:
                turn.threads.append(thread)

    def _work(self, spool: Spool, turn: _Round) -> None:
        """Upload the batches that are handed out, until there are no more."""
        while (batch := turn.queue.get()) is not None:
            try:
                self._one(spool, turn, batch)
            except Exception as error:  # noqa: BLE001 - raised again where the round was begun
                turn.end(error)
            finally:
                spool.release(batch)
                with turn.lock:
                    turn.busy -= 1
                    idle = not turn.busy
                turn.free.release()
                if idle or turn.over:
                    spool.sealed.set()

    def _one(self, spool: Spool, turn: _Round, batch: SealedBatch) -> None:
        try:
            self._delivery.upload(spool, batch)
            with turn.lock:
                turn.refused.pop(_folder(batch), None)
        except RefusedError as error:
            with turn.lock:
                turn.refused[_folder(batch)] = turn.refused.get(_folder(batch), 0) + 1
            self._trouble.tell(str(error))
        except StoreError as error:
            turn.end(failed=(batch, error.verdict))
            self._gate.shut()
        except ClosedError:
            turn.end()

    def _tidy(self) -> None:
        """Have the store drop unfinished uploads; if that fails, try after the next round."""
        try:
            self._store.tidy(self._pace)
        except StoreError as error:
            level = logging.DEBUG if str(error) == self._untidy else logging.WARNING
            log.log(level, "uploads in parts that nothing waits for cannot be aborted: %s", error)
            self._untidy = str(error)

    def _next_round(self, left_out: bool) -> float:
        """Seconds to the next round after one that came to its end."""
        pause = self._period or IDLE_SECONDS
        if self._unfit:
            self._check()
        if self._unfit:
            return min(pause, LATER_MOST_SECONDS)
        put_off = self._delivery.waiting()
        if self._trouble.last()[0] and not put_off:
            self._delivery.well()
        if left_out:
            return max(REFUSED_BASE_SECONDS, later_delay(self._blocked, True, self._delivery.chance.random()))
        if put_off:
            now = self._clock.monotonic()
            pause = min(pause, max(REFUSED_BASE_SECONDS, min(state.until - now for state in put_off)))
        return pause

    def _later(self, verdict: Verdict) -> float:
        """Seconds to leave the store alone."""
        self._failures += 1
        self._trouble.tell(verdict.reason)
        self._store.close()
        return max(verdict.retry_after, later_delay(self._failures, verdict.slow, self._delivery.chance.random()))

    def _stumble(self, batch: SealedBatch, verdict: Verdict, pause: float) -> None:
        """Try the next batch first if the store seems to fail on this one only."""
        state = self._delivery.put_off.get(batch.key)
        if state is not None and verdict.outcome is Outcome.RETRY_SOON:
            state.stumbles += 1
            if state.stumbles >= STUMBLES:
                state.stumbles = 0
                state.until = self._clock.monotonic() + 2 * pause


def _folder(batch: SealedBatch) -> str:
    """The folder of the batch's model."""
    return batch.key.rsplit("/", _HOUR_PARTS)[0]
