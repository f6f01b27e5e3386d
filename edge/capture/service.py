"""The captures of a device: `submit` accepts them, and the worker's `turn` makes them durable (the way: `edge.capture`)."""

import contextlib
import logging
from collections.abc import Callable

from edge import durable
from edge.capture import batch_again, layout, record
from edge.capture.batch import NO_ROOM, OpenBatch, OpenLarge
from edge.capture.bounds import Buffer
from edge.capture.intake import Intake, WrittenCapture
from edge.capture.naming import Naming
from edge.capture.record import CaptureRequest, Record
from edge.capture.refusals import Refusals
from edge.capture.settings import CaptureSettings
from edge.capture.snapshot import CaptureSnapshot
from edge.capture.spool import Spool
from edge.capture.statuses import CaptureState, Statuses
from edge.capture.upload import Uploader
from edge.capture.worker import RETRY_FIRST_SECONDS, Worker, retry_delay
from edge.clock import Clock
from edge.errors import (
    BufferFullError,
    CaptureExistsError,
    CaptureNotFoundError,
    ConfigError,
    SpoolFullError,
    StoppingError,
)
from edge.text import counted

log = logging.getLogger(__name__)

CHECK_SECONDS = 0.1  # between checks that the spool is still there, however many captures come
_LOST = "the spool was removed, replaced or mounted over; it is made anew"


class CaptureService:
    """All of a device's captures. Safe from any thread."""

    def __init__(self, settings: CaptureSettings, clock: Clock, uploader: Uploader | None) -> None:
        self._settings = settings
        self._clock = clock
        self._uploader = uploader
        self._statuses = Statuses()
        self._spool = Spool(settings, clock, self._statuses)
        self._worker = Worker(self, clock)
        self._naming = Naming(settings, self._spool.root)
        self._ready = False
        self._stopping = False
        self._uploading = False
        self._checked = 0.0  # monotonic, when the spool was
        self._leaving = False  # the spool is gone, and its batches are not closed yet
        self._intake = Intake(settings, clock)
        self._refusals = Refusals(clock)
        self._buffer = Buffer(settings.buffer_captures, settings.buffer_bytes)
        self._pruned_hour = ""
        self._open_attempts = 0
        self._open_retry_at = 0.0
        self._error = ("", 0.0)

    # --- life ----------------------------------------------------------------

    def open(self) -> None:
        """Take the spool, and find what an earlier run left.

        A disk that cannot be used now is tried again later: until then captures are refused, all else goes on.

        Raises:
            ConfigError: another agent uses the spool, or it is on another file system than the capture folder.
        """
        self._try_open()

    def start(self) -> None:
        """Start the worker; the spool is opened first if it was not.

        Raises:
            ConfigError: as `open`.
        """
        if not (self._ready or self._open_attempts):
            self.open()
        self._worker.start()
        self._start_uploader()

    def stop(self, deadline_s: float) -> None:
        """Refuse new captures and bring what was accepted to the disk, within the deadline."""
        self._stopping = True
        begun = self._clock.monotonic()
        ended = self._worker.stop(deadline_s)
        if not ended:
            log.error("captures could not be flushed in %.1f s; the next start finishes them", deadline_s)
        if self._uploader is not None and self._uploading:
            self._uploader.stop(max(0.0, deadline_s - (self._clock.monotonic() - begun)))
        if ended:
            for batch in self._intake.batches():
                with contextlib.suppress(OSError):  # the next start finishes what is there
                    batch.close()
            self._spool.close()

    def heartbeat(self) -> float:
        """Monotonic seconds at which the worker last moved."""
        return self._worker.heartbeat()

    def _start_uploader(self) -> None:
        if self._uploader is not None and self._ready and not self._uploading:
            self._uploading = True
            self._uploader.start(self._spool)

    def _try_open(self) -> None:
        try:
            found = self._spool.start()
        except OSError as error:
            where = error.filename or self._settings.disk_path or self._settings.spool_path
            self._retry_open(f"the capture folder {where} cannot be used: {durable.why(error)}")
            return
        self._intake.restore(found.batches)
        for batch in found.batches:
            self._buffer.restore(len(batch.ids), batch.total_bytes)
        self._pruned_hour = layout.hour(self._clock.now())
        self._open_attempts = 0
        self._ready = True

    def _retry_open(self, why: str) -> None:
        self._open_attempts += 1
        self._open_retry_at = self._clock.monotonic() + retry_delay(self._open_attempts)
        self._note_error(why)

    # --- calls ---------------------------------------------------------------

    def check_new(self, capture_id: str, inference_time: float | None) -> None:
        """[C-3] [C-4] What `submit` would refuse anyway, before the request's tensors are copied.

        Raises:
            CaptureExistsError, CaptureTimeError
        """
        if self._statuses.get(capture_id) is not None:
            raise _exists(capture_id)
        record.check_time(inference_time, self._clock.now())

    def submit(self, request: CaptureRequest) -> None:
        """Accept a capture: when this returns, a kill of the process does not lose it.

        Raises:
            CaptureIdError, CaptureExistsError, CaptureTimeError, CaptureContentError: the request is at fault.
            BufferFullError, SpoolFullError: there is no room, or the disk takes no more.
            StoppingError: the agent is stopping.
        """
        record.check_id(request.capture_id)
        if not self._statuses.reserve(request.capture_id):
            raise _exists(request.capture_id)
        try:
            now = self._clock.now()
            record.check_time(request.inference_time, now)
            record.check_content(request)
            self._accept(request, now)
        except BaseException as error:
            self._statuses.release(request.capture_id)
            if isinstance(error, BufferFullError | SpoolFullError):
                self._refusals.note_refused(str(error))
            raise
        self._refusals.note_accepted(request.model_name)

    def promise(self, capture_id: str) -> None:
        """Make an id, which the agent chose, IN_PROGRESS; `submit_promised` or `break_promise` must follow."""
        self._statuses.accept(capture_id)

    def break_promise(self, capture_id: str) -> None:
        """Make a promised id FAILURE: its call is not captured."""
        self._statuses.finish([capture_id], CaptureState.FAILURE)

    def submit_promised(self, request: CaptureRequest, charge: Callable[[int], None]) -> bool:
        """As `submit`, for a promised id. `charge` is called with the record's size in bytes first, and may raise.

        Returns false if half of the buffer is full, for the other half is kept for applications: it is then written out soon.

        Raises:
            CaptureContentError, SpoolFullError, StoppingError: as `submit`.
        """
        record.check_content(request)
        try:
            if self._buffer.is_half_full():
                raise BufferFullError("half of it is the applications'")
            self._accept(request, self._clock.now(), charge)
        except BufferFullError:
            self._intake.hurry()
            self._worker.wake()
            return False
        except SpoolFullError as error:
            self._refusals.note_refused(str(error))
            raise
        self._refusals.note_accepted(request.model_name)
        return True

    def status(self, capture_id: str) -> CaptureState:
        """[G]

        Raises:
            CaptureNotFoundError: the id is unknown, or forgotten.
        """
        state = self._statuses.get(capture_id)
        if state is None:
            raise CaptureNotFoundError(f"no capture with id {capture_id[: record.MAX_ID_CHARACTERS]!r} is known")
        return state

    def snapshot(self) -> CaptureSnapshot:
        """The state now, without reading the disk: the time of the oldest capture may be some seconds old."""
        oldest = [batch.opened for batch in self._intake.batches()]
        error = max(self._error, self._refusals.current(), key=lambda item: item[1])
        # The buffer first: a batch that moves to the spool meanwhile is then counted twice, not missed.
        buffered = self._buffer.captures
        usage = self._spool.usage()
        pending = max(0, buffered + usage.captures)
        if self._spool.oldest is not None:
            oldest.append(self._spool.oldest)
        if self._uploader is not None:
            error = max(error, self._uploader.last_error(), key=lambda item: item[1])
        return CaptureSnapshot(
            destination=self._settings.destination,
            pending=pending,
            pending_bytes=usage.size,
            oldest_pending_unix_seconds=int(min(oldest, default=0)) if pending else 0,
            succeeded=self._statuses.succeeded,
            failed=self._statuses.failed,
            dropped=self._spool.dropped,
            refused=self._refusals.total,
            refusing_since_unix_seconds=int(self._refusals.since),
            last_error=error[0],
            last_error_unix_seconds=int(error[1]),
            accepted=self._refusals.accepted,
            files=usage.files,
        )

    def latest(self) -> dict[str, float]:
        """When the last capture of each model was taken, in unix seconds, by its package's name."""
        return self._refusals.latest()

    # --- accepting -----------------------------------------------------------

    def _accept(self, request: CaptureRequest, now: float, charge: Callable[[int], None] | None = None) -> None:
        prefix, made = self._naming.record(request, now)
        if charge is not None:
            charge(made.size)
        epoch = self._intake.epoch
        with self._intake.writer():
            self._check_ready()  # it asks the disk, which may not answer
            self._buffer.reserve(made.size)
            try:
                due = self._store(request.capture_id, made, prefix, now, epoch)
            except BaseException:
                self._buffer.release(1, made.size)
                raise
        if due:
            self._worker.wake()

    def _check_ready(self) -> None:
        if self._stopping:
            raise StoppingError("the agent is stopping")
        now = self._clock.monotonic()
        if self._ready and now - self._checked >= CHECK_SECONDS:
            self._checked = now
            self._check_spool()
        if not self._ready:
            raise SpoolFullError(self._error[0] or "the capture folder cannot be used")

    def _check_spool(self) -> None:
        """Notice a spool that was removed or replaced; the worker then closes it and opens what is there now."""
        if self._spool.lost():
            self._ready, self._leaving = False, True
            self._note_error(_LOST)
            self._worker.wake()

    def _store(self, capture_id: str, made: Record, prefix: str, now: float, epoch: int) -> bool:
        """Write a capture to the spool; true if the worker must be woken.

        Raises:
            SpoolFullError: nothing is left of it.
        """
        size, files = made.size, 1 + len(made.large)
        while True:
            self._spool.reserve_room(size, files)
            large: list[OpenLarge] = []
            try:
                for entry in made.large:
                    large.append(self._spool.open_folder.write_large(entry))
                return self._intake.append(
                    prefix,
                    lambda: self._new_batch(prefix, now),
                    WrittenCapture(capture_id, made.line, large),
                    lambda: self._statuses.accept(capture_id),
                    epoch,
                )
            except BaseException as error:
                for written in large:
                    written.path.unlink(missing_ok=True)
                self._spool.release_room(size, files)
                if not isinstance(error, OSError):
                    raise
                # A quota is not part of what statvfs reports: only writing tells. Each round of this loop drops something.
                if error.errno not in NO_ROOM or not self._spool.drop_oldest(size, files):
                    raise SpoolFullError(f"the capture cannot be stored: {durable.why(error)}") from error

    def _new_batch(self, prefix: str, now: float) -> OpenBatch:
        key = self._naming.key(prefix, now)
        return self._spool.open_folder.create_batch(key, opened=now, opened_monotonic=self._clock.monotonic())

    # --- the worker's turn ---------------------------------------------------

    def turn(self, *, stopping: bool) -> float:
        """Seal the batches that are due (all, when stopping); returns the seconds until the next one is."""
        now = self._clock.monotonic()
        self._refusals.report()
        if self._ready:
            self._check_spool()
        if self._leaving and not self._leave_spool():
            return RETRY_FIRST_SECONDS
        if not self._ready:
            if now < self._open_retry_at:
                return self._open_retry_at - now
            try:
                self._try_open()
            except ConfigError as error:
                self._retry_open(str(error))
            if not self._ready:
                return self._open_retry_at - now
            self._start_uploader()
        self._prune()
        self._spool.refresh_oldest()
        for batch in self._intake.take_due(now, stopping=stopping):
            while not self._seal(batch) and stopping:
                pass
        return self._intake.seconds_to_next(self._clock.monotonic())

    def _leave_spool(self) -> bool:
        """Close a spool that is gone; false while a call still writes to it."""
        batches = self._intake.take_all()
        if batches is None:
            return False
        for batch in batches:
            self._buffer.release(len(batch.ids), batch.total_bytes + batch.saved_bytes)
            with contextlib.suppress(OSError):  # what is there is read when it is opened again
                batch.close()
        self._spool.close()
        self._leaving = False
        return True

    def _seal(self, batch: OpenBatch) -> bool:
        """Seal a batch, or a part of a large one; false if it is not finished and should go on at once."""
        try:
            if batch.attempts:
                batch_again.reload(batch, self._spool, self._buffer)
            if batch.ids:
                if not self._spool.seal(batch, self._worker.beat):
                    return False
            else:  # its only capture was refused, or is lost
                batch.close()
                batch.path.unlink(missing_ok=True)
        except OSError as error:
            self._postpone(batch, error)
            return True
        self._spool.release_room(batch.saved_bytes, 0)
        self._buffer.release(len(batch.ids), batch.total_bytes + batch.saved_bytes)
        self._intake.sealed(batch)
        self._error = ("", 0.0)
        return True

    def _prune(self) -> None:
        """Once an hour, remove the open folders of past hours."""
        hour = layout.hour(self._clock.now())
        if hour != self._pruned_hour:
            self._spool.prune()
            self._pruned_hour = hour

    def _postpone(self, batch: OpenBatch, error: OSError) -> None:
        """Try a batch again later that cannot be sealed now."""
        batch.attempts += 1
        batch.flushed = 0
        batch.retry_at = self._clock.monotonic() + retry_delay(batch.attempts)
        self._note_error(f"{counted(len(batch.ids), 'capture')} cannot be made durable yet: {durable.why(error)}")

    def _note_error(self, text: str) -> None:
        """Show an error in the status, and log it if it is a new one."""
        is_new = self._error[0] != text
        self._error = (text, self._clock.now())
        log.log(logging.ERROR if is_new else logging.DEBUG, "%s", text)


def _exists(capture_id: str) -> CaptureExistsError:
    return CaptureExistsError(f"capture id {capture_id!r} was already taken")
