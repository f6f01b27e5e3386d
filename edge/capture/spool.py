"""The folders of captures: what is open, what is sealed and waits for the uploader, and the bounds on both (R-6).

    <spool>/lock          held by the agent that uses the spool
    <spool>/open/<key>…   accepted, not yet durable (edge.capture.batch)
    <spool>/sealed/<key>  destination Cloud: durable, waits for the uploader
    <disk_path>/<key>     destination Disk: durable; with periodic upload it waits there until it is uploaded
    …/<key>.done          a record file that the store has acknowledged, being removed with its large entries
    …/<key>.failed        a record file that was given up, kept while there is room

For the uploader:

    for batch in spool.batches():              # oldest first; a fresh walk each time, few names in memory
        if spool.claim(batch):                 # else it was dropped meanwhile
            contents = spool.contents(batch)   # ids, and the objects to put before the record
            … put contents.large, then the record itself: batch.key, batch.path …
            spool.done(batch)                  # or done(batch, failed={ids}), give_up(batch), release(batch)

`spool.sealed` is set whenever a batch was added; the uploader clears it. A large entry without a size was removed from
outside: its capture failed. All methods are safe from any thread; only one uploader may drain.
"""

import errno
import logging
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from edge import durable
from edge.capture import batch as open_batch
from edge.capture import layout
from edge.capture.bounds import Room, Usage
from edge.capture.lock import SpoolLock
from edge.capture.recovery import Recovered, recover
from edge.capture.sealed import BatchContents, SealedBatch, SealedFolder, hour_of, remove, scan
from edge.capture.settings import CaptureSettings
from edge.capture.statuses import MAX_IDS, CaptureState, Statuses, StatusLog
from edge.clock import Clock
from edge.errors import ConfigError, SpoolFullError
from edge.text import counted

log = logging.getLogger(__name__)

OLDEST_SECONDS = 5.0  # between walks to the oldest sealed batch
_HEADROOM = 64  # dropping the oldest frees a 64th of the bounds more than needed, so that it does not walk each time


class Spool:
    """The spool's folders and their bounds."""

    def __init__(self, settings: CaptureSettings, clock: Clock, statuses: Statuses) -> None:
        self._settings = settings
        self._clock = clock
        self._statuses = statuses
        self.uploads = settings.bucket is not None
        self._on_disk = settings.disk_path is not None
        self._sealed_state = CaptureState.SUCCESS if self._on_disk else CaptureState.IN_PROGRESS  # [G-3]
        self.root = settings.disk_path or settings.spool_path / "sealed"
        self.notes_folder = settings.spool_path / "uploads"  # the uploader's own
        self.open_folder = open_batch.OpenFolder(settings.spool_path / "open")
        # Others may use the capture folder too: there only this fleet's and device's files are ours.
        prefix = f"{settings.folder_prefix.strip('/')}/{settings.fleet}".lstrip("/")
        if self._on_disk:
            self._folder = SealedFolder(self.root, prefix, settings.device, spool=settings.spool_path)
        else:
            self._folder = SealedFolder(self.root)
        # An id is noted when it is sealed and, where it is uploaded, when that is done: a full file knows MAX_IDS.
        self._log = StatusLog(settings.spool_path, MAX_IDS if self._on_disk else 2 * MAX_IDS)
        self._room = Room(settings, self.open_folder.root)
        self._durable_folders = durable.DurableFolders(self.root)
        self.sealed = threading.Event()
        self.dropped = 0
        self._drop_lock = threading.Lock()  # one thread makes room at a time; also guards _claimed and _given_up
        self._claimed: set[str] = set()
        self._given_up = True  # there may be batches that were given up
        self._lock = SpoolLock(settings.spool_path / "lock")
        self._counting = threading.Lock()  # what is sealed, while the uploader may remove of it
        self._taken_before = False
        self._refreshed = 0.0  # monotonic, when `oldest` was
        self.oldest: float | None = None  # unix seconds since which the oldest sealed batch waits, as last found

    # --- start and end -------------------------------------------------------

    def start(self) -> Recovered:
        """Take the spool, load the statuses, and return what an earlier run left open.

        May be called again after `close`, for a spool that was replaced: what was not there any more is FAILURE.

        Raises:
            ConfigError: another agent uses the spool, or spool and capture folder are not on one file system.
            OSError: the folders cannot be used now; trying again is safe.
        """
        spool = self._settings.spool_path
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.take()
        for folder in (self.open_folder.root, self.root):
            folder.mkdir(mode=durable.FOLDER_MODE, parents=True, exist_ok=True)
        self._check_one_file_system()
        with self._counting:
            return self._take_stock()

    def _take_stock(self) -> Recovered:
        self._room.reset()
        self._given_up = True
        noted: dict[str, int] = {}
        if not self._taken_before:  # later the statuses are known, and the records that are there are read
            noted = self._log.load(self._statuses, self._sealed_state if self.uploads else None)
        there: set[str] = set()
        found = recover(self.open_folder.root, self.root, monotonic=self._clock.monotonic())
        for batch in found.batches:
            self._room.add(batch.total_bytes, batch.entry_count)
            if self.uploads:  # those in place are counted with what is sealed
                placed = [entry.size for entry in batch.large if entry.path == self.root / entry.key]
                self._room.add(-sum(placed), -len(placed))
            for capture_id in batch.ids:
                self._statuses.accept(capture_id)
            noted.pop(batch.key, None)
            there.update(batch.ids)
        if self.uploads:
            self._count(noted, there)
        if self._on_disk:
            if next(SealedFolder(self._settings.spool_path / "sealed").waiting(), None):
                log.warning("captures wait in the spool for destination Cloud; they stay until it is chosen again")
        else:
            for key, captures in noted.items():
                log.error("%s: its file is gone from the spool; %s failed", key, counted(captures, "capture"))
            found.lost += self._log.ids_of(noted)
        for capture_id in found.lost:
            self._statuses.accept(capture_id)
        self.fail("", found.lost)
        if self._taken_before and (lost := self._statuses.fail_but(there)):
            log.error("the spool that is not there any more had %s, which failed", counted(lost, "capture"))
        self.prune()
        self._find_oldest()
        self._taken_before = True
        return found

    def _check_one_file_system(self) -> None:
        probe, target = self.open_folder.root / "probe.tmp", self.root / ".probe.tmp"
        try:
            probe.touch()
            probe.replace(target)
        except OSError as error:
            probe.unlink(missing_ok=True)
            if error.errno in open_batch.NO_ROOM:
                return  # this check only tells of a mistake; what waits makes room as it is uploaded
            if error.errno != errno.EXDEV:
                raise
            raise ConfigError(
                f"the spool {self._settings.spool_path} and the capture folder {self.root} are on different file "
                "systems, so that files cannot be moved at once; put the spool inside the capture folder"
            ) from None
        target.unlink()

    def _count(self, noted: dict[str, int], there: set[str]) -> None:
        """Count what is sealed, learn the ids that the status log lacks, and end removals that were cut short.

        `noted` has the number of ids that the log knows, by key; what is found is taken out of it. The ids that are read
        and wait are added to `there`.
        """
        for folder in self._folder.hour_folders():
            for entry in list(scan(folder)):
                name = entry.name.removesuffix(layout.DONE).removesuffix(layout.FAILED)
                if not self._folder.is_record(name) or not entry.is_file(follow_symlinks=False):
                    continue
                path, key = Path(entry.path), self._folder.key_of(folder / name)
                if entry.name.endswith(layout.DONE):
                    contents = self._folder.contents(path, key)
                    if noted.pop(key, None) is not None:
                        self._settle(key, contents.ids, CaptureState.SUCCESS)
                    remove(path, contents)
                    continue
                self._room.add(entry.stat().st_size, 1)
                captures = noted.pop(key, None)
                if entry.name.endswith(layout.FAILED):
                    continue
                if captures is None:
                    ids = self._folder.contents(path, key).ids
                    captures = len(ids)
                    there.update(ids)
                    self._statuses.restore([i for i in ids if self._statuses.get(i) is None], self._sealed_state)
                self._room.add(captures=captures)
            for kind in scan(folder / layout.RAW_DATA):
                for entry in scan(Path(kind.path)):
                    if self._folder.is_raw(entry.name) and entry.is_file(follow_symlinks=False):
                        self._room.add(entry.stat().st_size, 1)

    def close(self) -> None:
        """Flush the status log and give the spool back; `start` takes it again."""
        self._durable_folders.forget()
        self._log.close()
        self._lock.release()

    def lost(self) -> bool:
        """Whether the folders are not those that were taken: removed, replaced, a file system mounted over them or gone."""
        return self._lock.lost() or not self.open_folder.root.is_dir()

    # --- bounds --------------------------------------------------------------

    def reserve_room(self, size: int, files: int) -> None:
        """Reserve room for `size` bytes in `files` files, dropping the oldest batches if that is the policy.

        Raises:
            SpoolFullError: naming the bound and its setting.
        """
        if self.uploads and self._room.lacks(size, files):
            wanted = (
                size + self._settings.spool_max_bytes // _HEADROOM,
                files + self._settings.spool_max_files // _HEADROOM,
            )
            with self._drop_lock:
                self._drop(lambda: not self._room.lacks(*wanted))
        self._room.reserve(size, files)

    def drop_oldest(self, size: int, files: int) -> bool:
        """Drop what takes so much room, whatever the bounds say, if that is the policy; false if nothing could be dropped."""
        if not (self.uploads and self._settings.drop_oldest):
            return False
        with self._drop_lock:
            before = self._room.usage()

            def enough() -> bool:
                now = self._room.usage()
                return before.size - now.size >= size and before.files - now.files >= files

            return self._drop(enough) > 0

    def release_room(self, size: int, files: int) -> None:
        """Give room back."""
        self._room.add(-size, -files)

    def usage(self) -> Usage:
        """What is held now."""
        return self._room.usage()

    def _drop(self, enough: Callable[[], bool]) -> int:
        """Remove batches, oldest first, those given up before those that wait; returns how many.

        Raises:
            SpoolFullError: one cannot be removed.
        """
        batches = captures = 0
        try:
            for suffix in (layout.FAILED, ""):
                if not (self._given_up if suffix else self._settings.drop_oldest):
                    continue
                skipped = False
                for batch in self._folder.waiting(suffix):
                    if enough():
                        return batches
                    if batch.key in self._claimed:
                        skipped = True
                        continue
                    contents = self.contents(batch)
                    if not suffix:
                        self._settle(batch.key, contents.ids, CaptureState.FAILURE)
                    self._finish(batch, contents)
                    batches += 1
                    captures += 0 if suffix else len(contents.ids)
                self._given_up &= not suffix or skipped
        except OSError as error:
            raise SpoolFullError(f"the spool is full, and no room can be made in it: {durable.why(error)}") from error
        finally:
            if captures:
                self.dropped += captures
                log.warning("the spool is full: dropped the %d oldest captures", captures)
        return batches

    # --- sealed batches ------------------------------------------------------

    def seal(self, batch: open_batch.OpenBatch, beat: Callable[[], None]) -> bool:
        """Make a batch durable in its place; one thread does. `beat` is called between slow steps.

        Returns false while there is more to do: call it again, after other batches.

        Raises:
            OSError: nothing is lost; call it again later.
        """
        try:
            done = open_batch.seal(
                batch,
                self.root,
                self._durable_folders,
                note=lambda: self._log.append(self._sealed_state, batch.key, batch.ids),
                beat=beat,
            )
        except OSError:
            self._durable_folders.forget()
            raise
        if not done:
            return False
        if self._on_disk:
            self._statuses.finish(batch.ids, CaptureState.SUCCESS)
        if self.uploads:
            self.oldest = self.oldest or batch.opened
            self._room.add(files=1 - len(batch.ids), captures=len(batch.ids))  # each capture took a file for its line
            self.sealed.set()
        else:
            self.release_room(batch.total_bytes, batch.entry_count)
        return True

    def batches(self) -> Iterator[SealedBatch]:
        """Sealed batches that wait for the uploader, oldest first; files may come and go meanwhile."""
        return self._folder.waiting() if self.uploads else iter(())

    def refresh_oldest(self) -> None:
        """Find the oldest sealed batch again, at most every OLDEST_SECONDS."""
        if self._clock.monotonic() - self._refreshed >= OLDEST_SECONDS:
            self._find_oldest()

    def _find_oldest(self) -> None:
        self._refreshed = self._clock.monotonic()
        first = next(self.batches(), None)
        self.oldest = None if first is None else first.accepted

    def contents(self, batch: SealedBatch) -> BatchContents:
        """The ids and large entries of a batch, from its record file; empty if that is gone."""
        return self._folder.contents(batch.path, batch.key)

    def claim(self, batch: SealedBatch) -> bool:
        """Keep a batch from being dropped until done, give_up or release; false if it is gone, or claimed already."""
        with self._drop_lock:
            if batch.key in self._claimed or not batch.path.exists():
                return False
            self._claimed.add(batch.key)
            return True

    def release(self, batch: SealedBatch) -> None:
        """Leave a claimed batch for later."""
        with self._drop_lock:
            self._claimed.discard(batch.key)

    def done(self, batch: SealedBatch, failed: Collection[str] = ()) -> None:
        """The store has acknowledged the record and all large entries, except those of the `failed` captures.

        Raises:
            OSError: the files could not all be removed; the next start removes them, or they are uploaded once more.
        """
        contents = self.contents(batch)
        self._settle(batch.key, [i for i in contents.ids if i not in failed], CaptureState.SUCCESS)
        self._settle(batch.key, [i for i in contents.ids if i in failed], CaptureState.FAILURE)
        self._finish(batch, contents)
        self.release(batch)

    def give_up(self, batch: SealedBatch) -> None:
        """The store refuses the batch for good: its captures failed; the files stay while there is room for them.

        Raises:
            OSError: it waits as before.
        """
        contents = self.contents(batch)
        with self._drop_lock:
            batch.path.replace(batch.path.with_name(batch.path.name + layout.FAILED))
            self._given_up = True
        self._settle(batch.key, contents.ids, CaptureState.FAILURE)
        self._room.add(captures=-len(contents.ids))
        self.release(batch)

    def fail(self, key: str, capture_ids: Collection[str]) -> None:
        """Set accepted captures to FAILURE: their files are gone or damaged."""
        self._set_states(key, capture_ids, CaptureState.FAILURE)

    def _settle(self, key: str, capture_ids: Collection[str], state: CaptureState) -> None:
        if not self._on_disk:  # on Disk they are SUCCESS since they were sealed (G-3)
            self._set_states(key, capture_ids, state)

    def _set_states(self, key: str, capture_ids: Collection[str], state: CaptureState) -> None:
        if capture_ids:
            self._log.append(state, key, capture_ids)
            self._statuses.finish(capture_ids, state)

    def _finish(self, batch: SealedBatch, contents: BatchContents) -> None:
        """Remove a batch's files. The mark comes first: a record never waits without its large entries."""
        marked = batch.path.with_name(batch.key.rpartition("/")[2] + layout.DONE)
        waited = not batch.path.name.endswith(layout.FAILED)
        with self._counting:
            try:
                batch.path.replace(marked)
            except FileNotFoundError:
                return
            self._room.add(
                -batch.size - sum(large.size or 0 for large in contents.large),
                -1 - len(contents.large),
                -len(contents.ids) if waited else 0,
            )
        remove(marked, contents)

    def prune(self) -> None:
        """Remove the empty folders of past hours; for the thread that seals."""
        self.open_folder.prune()
        if not self.uploads:
            return
        now = layout.hour(self._clock.now())
        for folder in self._folder.hour_folders():
            if hour_of(folder) == now:
                continue
            open_batch.prune_empty(folder)
            for at in (folder, *folder.parents):
                if at == self.root or not open_batch.remove_if_empty(at):
                    break
        self._durable_folders.forget()
