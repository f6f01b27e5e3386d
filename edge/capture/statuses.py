"""What became of each capture id: the newest 100,000 of them, kept across restarts (C-3, G-1 to G-5).

In memory: one 128-bit digest and a state for each id. On disk: an append-only log of JSON lines
`[state, record key, [ids]]`, one for each batch and change. It is not fsynced, but its write-out is begun before the
fsync of the batch that it tells of: a kill loses none of it, a power cut at most its last moments, and then the batches
that still wait tell their ids themselves. The log is two files, the older of which goes when the newer is full, so that
nothing is ever copied.
"""

import contextlib
import hashlib
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from enum import IntEnum
from pathlib import Path

from edge import durable
from edge.capture.record import check_id
from edge.errors import CaptureIdError

log = logging.getLogger(__name__)

MAX_IDS = 100_000  # capture ids whose state is remembered (G-5); the oldest are forgotten
MAX_LOG_BYTES = 32 << 20  # of each of the two files of the status log
_NEW, _OLD = "statuses.log", "statuses.old.log"
# Of a release before. The spool may lie in the capture folder, where whatever ends in .jsonl is read as records.
_FORMER = {_NEW: "statuses.jsonl", _OLD: "statuses.old.jsonl"}


class CaptureState(IntEnum):
    """The state of a capture, numbered as on the wire."""

    FAILURE = 0
    SUCCESS = 1
    IN_PROGRESS = 2


class Statuses:
    """States by id. Safe to use from any thread.

    An id is first reserved (nobody else can take it), then accepted or released, then finished.
    """

    def __init__(self, limit: int = MAX_IDS) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._reserved: set[int] = set()
        self._states: dict[int, CaptureState] = {}
        self._order: deque[int] = deque()
        self.succeeded = 0
        self.failed = 0

    def get(self, capture_id: str) -> CaptureState | None:
        """The state of an accepted id, or None."""
        with self._lock:
            return self._states.get(_digest(capture_id))

    def reserve(self, capture_id: str) -> bool:
        """Take an id; false if it is accepted already, or another call holds it and has not decided."""
        key = _digest(capture_id)
        with self._lock:
            if key in self._states or key in self._reserved:
                return False
            self._reserved.add(key)
            return True

    def release(self, capture_id: str) -> None:
        """Give a reserved id back: its capture was refused."""
        with self._lock:
            self._reserved.discard(_digest(capture_id))

    def accept(self, capture_id: str) -> None:
        """From now on the id is IN_PROGRESS, whatever the log said of it before."""
        with self._lock:
            key = _digest(capture_id)
            self._reserved.discard(key)
            self._put(key, CaptureState.IN_PROGRESS)

    def finish(self, capture_ids: Iterable[str], state: CaptureState) -> None:
        """Set the final state of ids that are IN_PROGRESS; others stay as they are."""
        with self._lock:
            for capture_id in capture_ids:
                key = _digest(capture_id)
                known = self._states.get(key)
                if known is CaptureState.IN_PROGRESS:
                    self._states[key] = state
                elif known is not None:
                    continue
                if state is CaptureState.SUCCESS:
                    self.succeeded += 1
                else:
                    self.failed += 1

    def fail_but(self, capture_ids: Collection[str]) -> int:
        """Set all ids that are IN_PROGRESS to FAILURE but these; returns how many."""
        kept = {_digest(capture_id) for capture_id in capture_ids}
        with self._lock:
            lost = [key for key, state in self._states.items() if state is CaptureState.IN_PROGRESS and key not in kept]
            self._states.update(dict.fromkeys(lost, CaptureState.FAILURE))
            self.failed += len(lost)
        return len(lost)

    def restore(self, capture_ids: Iterable[str], state: CaptureState) -> None:
        """Set states as the log of an earlier run says."""
        with self._lock:
            for capture_id in capture_ids:
                self._put(_digest(capture_id), state)

    def _put(self, key: int, state: CaptureState) -> None:
        if key not in self._states:
            self._order.append(key)
            if len(self._order) > self._limit:
                self._states.pop(self._order.popleft(), None)
        self._states[key] = state


class StatusLog:
    """The log files below `folder`. Any thread appends."""

    def __init__(self, folder: Path, ids_per_file: int) -> None:
        self._new, self._old = folder / _NEW, folder / _OLD
        self._ids_per_file = ids_per_file
        self._ids = 0  # in the newer file
        self._bytes = 0
        self._fd: int | None = None
        self._fails = False
        self._lock = threading.Lock()

    def load(self, statuses: Statuses, kept: CaptureState | None) -> dict[str, int]:
        """Fill `statuses` from the log; returns how many ids the batches have whose last state is `kept`, by record key.

        Lines that are not ours are skipped: a torn or altered log costs statuses, never the start.
        """
        self._take_over()
        found: dict[str, int] = {}
        skipped = 0
        for path in (self._old, self._new):
            _remove_unless_regular(path)
            self._ids = 0
            for entry in _entries(path):
                if entry is None:
                    skipped += 1
                    continue
                state, key, ids = entry
                self._ids += len(ids)
                statuses.restore(ids, state)
                if state is kept:
                    found[key] = len(ids)
                else:
                    found.pop(key, None)
        if skipped:
            log.warning("skipped %d unreadable lines of the status log", skipped)
        return found

    def _take_over(self) -> None:
        """Rename what a release before left."""
        for path in (self._old, self._new):
            with contextlib.suppress(OSError):
                path.with_name(_FORMER[path.name]).replace(path)

    def ids_of(self, keys: Collection[str]) -> list[str]:
        """The ids that the log has of batches, by record key."""
        if not keys:
            return []
        entries = (entry for path in (self._old, self._new) for entry in _entries(path) if entry is not None)
        return list(dict.fromkeys(capture_id for _, key, ids in entries if key in keys for capture_id in ids))

    def append(self, state: CaptureState, key: str, capture_ids: Iterable[str]) -> None:
        """Note a change. A disk that takes no more costs the note, not the capture."""
        ids = list(capture_ids)
        line = json.dumps([state.name, key, ids], separators=(",", ":")).encode("ascii") + b"\n"
        with self._lock:
            try:
                if self._ids >= self._ids_per_file or self._bytes >= MAX_LOG_BYTES:
                    self._close()
                    self._new.replace(self._old)
                    self._ids = self._bytes = 0
                if self._fd is None:
                    self._fd = self._open()
                durable.write_all(self._fd, line)
                durable.begin_flush(self._fd)
                self._ids += len(ids)
                self._bytes += len(line)
                self._fails = False
            except OSError as error:
                log.log(
                    logging.DEBUG if self._fails else logging.WARNING,
                    "the status log cannot be written: %s",
                    error.strerror,
                )
                self._fails = True
                with contextlib.suppress(OSError):
                    self._close()  # the next append ends the torn line

    def _open(self) -> int:
        fd = durable.open_regular(self._new, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            size = os.fstat(fd).st_size
            self._bytes = size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                durable.write_all(fd, b"\n")  # end a torn line, so that it does not spoil the next
        except OSError:
            os.close(fd)
            raise
        return fd

    def close(self) -> None:
        """Flush the log and close it."""
        with self._lock:
            if self._fd is not None:
                try:
                    try:
                        os.fsync(self._fd)
                    finally:
                        self._close()
                except OSError as error:
                    log.warning("the status log cannot be flushed: %s", error.strerror)

    def _close(self) -> None:
        fd, self._fd = self._fd, None  # also where it fails the number is free, and may be another file's at once
        if fd is not None:
            os.close(fd)


def _remove_unless_regular(path: Path) -> None:
    """Make way for a log where something else has its name, a pipe say, which would be written to and never read."""
    if not durable.is_regular(path) and os.path.lexists(path):
        log.warning("%s is not a regular file: it is removed", path)
        path.unlink()


def _entries(path: Path) -> Iterator[tuple[CaptureState, str, list[str]] | None]:
    """The entries of a log file, None for a line that is none."""
    try:
        with durable.reader(path) as file:
            if os.fstat(file.fileno()).st_size > 2 * MAX_LOG_BYTES:
                log.warning("the status log is larger than this agent writes: it is not read")
                return
            for line in file:
                yield _entry(line)
    except FileNotFoundError:
        return


def _entry(line: bytes) -> tuple[CaptureState, str, list[str]] | None:
    try:
        name, key, ids = json.loads(line)
        if not isinstance(key, str) or not isinstance(ids, list):
            return None
        for capture_id in ids:
            check_id(capture_id)
        return CaptureState[name], key, ids
    except (ValueError, TypeError, KeyError, RecursionError, CaptureIdError):
        return None


def _digest(capture_id: str) -> int:
    """16 bytes stand for an id: a third of the memory of 100,000 long ids."""
    return int.from_bytes(hashlib.blake2b(capture_id.encode(), digest_size=16).digest())
