"""One batch on its way: the large entries, then the record that names them, each until the store has acknowledged it.

What happens when it does not is decided in `edge.cloud.retry`.
"""

import logging
import random
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from edge.capture import packing
from edge.capture.record import read_line
from edge.capture.sealed import BatchContents, SealedBatch
from edge.capture.spool import Spool
from edge.clock import Clock
from edge.cloud.gate import ClosedError, Gate
from edge.cloud.retry import Outcome, Refusals, next_try, refused_delay
from edge.cloud.store import UPLOAD_GONE, Body, BytesBody, ObjectStore, Pace, StoppedError, StoreError
from edge.cloud.trouble import Trouble
from edge.tally import Tally

log = logging.getLogger(__name__)

RECORD_TYPE = "application/jsonlines"
PACKED_TYPE = (
    "application/gzip"  # and no Content-Encoding, with which some clients would give plain lines under the name
)
LARGE_TYPE = "application/octet-stream"
MAX_PUT_OFF = 1000  # batches whose refusals are remembered


class Chance(Protocol):
    """A source of jitter."""

    def random(self) -> float:
        """From 0 to 1."""
        ...


@dataclass
class PutOff:
    """A batch that could not be uploaded: when it is tried again (monotonic), and what is known of its objects."""

    until: float = 0.0
    stumbles: int = 0
    reason: str = ""  # why an object of it was refused
    refusals: dict[str, Refusals] = field(default_factory=dict)  # by key
    stored: set[str] = field(default_factory=set)
    given_up: dict[str, str] = field(default_factory=dict)  # key: why


class RefusedError(Exception):
    """An object of this batch cannot be uploaded now; other batches may be."""


class _Progress:
    """A `Pace` that tells the gate of parts."""

    def __init__(self, pace: Pace, gate: Gate) -> None:
        self._pace = pace
        self._gate = gate
        self.chunk_bytes = pace.chunk_bytes
        self.parts = 0

    def pay(self, count: int) -> None:
        """As `Pace`."""
        self._pace.pay(count)

    def taken(self) -> None:
        """As `Pace`."""
        self.parts += 1
        self._gate.passed()


class Delivery:
    """Uploads claimed batches. Safe from any thread, each batch by one at a time; `put_off` is by key."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        *,
        gate: Gate,
        pace: Pace,
        trouble: Trouble,
        chance: Chance | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._gate = gate
        self._pace = pace
        self._trouble = trouble
        self.chance = chance or random.SystemRandom()
        self._lock = threading.Lock()  # guards what follows
        self.stored = 0  # objects, since start
        self.put_off: dict[str, PutOff] = {}
        self.results = Tally("stored", "retried", "failed", "refused", "given_up")  # attempts to store an object

    def is_put_off(self, key: str) -> bool:
        """Whether it is too early to try a batch again."""
        state = self.put_off.get(key)
        return state is not None and state.until > self._clock.monotonic()

    def forget(self, keys: Collection[str]) -> None:
        """Forget batches that are gone."""
        with self._lock:
            for key in keys:
                self.put_off.pop(key, None)

    def waiting(self) -> list[PutOff]:
        """The batches that could not be uploaded."""
        with self._lock:
            return list(self.put_off.values())

    def well(self) -> None:
        """A batch went through."""
        self._trouble.over(next((state.reason for state in self.waiting() if state.reason), ""))

    def upload(self, spool: Spool, batch: SealedBatch) -> None:
        """Upload a claimed batch and settle it.

        Raises:
            StoreError: nothing goes through.
            ClosedError: as another thread has found.
            RefusedError: an object of it was refused, perhaps not for good.
            StoppedError: it is to end.
        """
        state = self.put_off.get(batch.key) or PutOff()
        try:
            contents = spool.contents(batch)
            self._put_large(batch, state, contents)
            self._put_record(spool, batch, state, contents)
        except OSError as error:
            state.reason = f"the spool cannot be used: {error.strerror or error}"
            self._offer_again(state, batch, 1)
            raise RefusedError(state.reason) from None
        self.forget([batch.key])
        self.well()

    def _put_large(self, batch: SealedBatch, state: PutOff, contents: BatchContents) -> None:
        """Upload the large entries; a refused one does not stop the others."""
        refusal: RefusedError | None = None
        for large in contents.large:
            if large.size is None:
                state.given_up.setdefault(large.key, "its file was removed from the spool")
                continue
            try:
                self._put(state, batch, large.key, Body(large.path, large.size), LARGE_TYPE)
            except RefusedError as error:
                refusal = error
        if refusal is not None:
            raise refusal

    def _put_record(self, spool: Spool, batch: SealedBatch, state: PutOff, contents: BatchContents) -> None:
        """Upload the record, without the captures that lack an object, and settle the batch."""
        failed = {large.capture_id for large in contents.large if large.key in state.given_up}
        nothing_left = failed.issuperset(contents.ids)
        if not nothing_left:
            body = _without(batch, failed) if failed else Body(batch.path, batch.size)
            self._put(state, batch, batch.key, body, PACKED_TYPE if packing.packs(batch.key) else RECORD_TYPE)
        for key, why in state.given_up.items():
            self._trouble.give_up(key, why)
        if nothing_left or batch.key in state.given_up:
            spool.give_up(batch)
        else:
            spool.done(batch, failed)

    def _put(self, state: PutOff, batch: SealedBatch, key: str, body: Body, content_type: str) -> None:
        """Store an object, unless it is stored; or note that it is given up.

        Raises: as `upload`.
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
                self.results.count("failed")
                raise
        except ClosedError:
            self._keep(state, batch)
            raise
        else:
            with self._lock:
                self.stored += 1
            state.stored.add(key)
            self.results.count("stored")

    def _give_up(self, state: PutOff, key: str, reason: str) -> None:
        self.results.count("given_up")
        state.given_up[key] = reason
        self._store.forget(key)

    def _refused(self, state: PutOff, batch: SealedBatch, key: str, reason: str, *, counts: bool = True) -> None:
        """Give the object up, or put its batch off.

        Raises:
            RefusedError: it is put off.
        """
        refusals = state.refusals.setdefault(key, Refusals(self.stored))
        if refusals.add(self.stored, counts=counts):
            self._give_up(state, key, reason)
            return
        self.results.count("refused")
        state.reason = f"{key}: {reason}"
        self._offer_again(state, batch, refusals.count)
        raise RefusedError(state.reason)

    def _offer_again(self, state: PutOff, batch: SealedBatch, refusals: int) -> None:
        state.until = max(state.until, self._clock.monotonic() + refused_delay(refusals))
        self._keep(state, batch)

    def _keep(self, state: PutOff, batch: SealedBatch) -> None:
        with self._lock:
            if batch.key in self.put_off or len(self.put_off) < MAX_PUT_OFF:
                self.put_off[batch.key] = state

    def _try(self, key: str, body: Body, content_type: str) -> None:
        """Put an object, with immediate retries while they may help.

        Raises: as `ObjectStore.put`, and ClosedError.
        """
        tries = 0
        with self._gate.passage():
            while True:
                progress = _Progress(self._pace, self._gate)
                try:
                    self._store.put(key, body, content_type, progress)
                    self._gate.passed()
                    return
                except StoreError as error:
                    if self._gate.stopped:
                        raise StoppedError from None
                    verdict = error.verdict
                    kept = progress.parts and error.code != UPLOAD_GONE  # what was stored of it counts at the next try
                    tries = 1 if kept else tries + 1
                    self._trouble.note(verdict.reason)  # a try may take minutes
                    log.debug("%s: try %d: %s", key, tries, verdict.reason)
                    wait = next_try(verdict, tries, self.chance.random())
                    if wait is None:
                        if verdict.outcome not in (Outcome.GIVE_UP, Outcome.REFUSED):
                            self._gate.shut()
                        raise
                self.results.count("retried")
                self._gate.failed(wait, verdict.retry_after)


def _without(batch: SealedBatch, failed: Collection[str]) -> Body:
    """A batch's record without the lines of `failed` captures. A compressed one is compressed again, in memory: a batch is small."""
    if packing.packs(batch.key):
        kept = (line for _, line in _lines_but(batch, failed))
        return BytesBody(b"".join(packing.packed(kept)))
    return Body(batch.path, batch.size, [(start, len(line)) for start, line in _lines_but(batch, failed)])


def _lines_but(batch: SealedBatch, failed: Collection[str]) -> Iterator[tuple[int, bytes]]:
    """The lines of a record, but those of `failed` captures, and where each begins."""
    end = 0
    for line in packing.lines(batch.path):
        start, end = end, end + len(line)
        summary = read_line(line, batch.key)
        if summary is None or summary.capture_id not in failed:
            yield start, line
