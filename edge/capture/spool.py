"""The folders of captures: what is open, what is sealed and waits for the uploader, and the bounds on both (R-6).

    <spool>/lock          held by the agent that uses the spool
    <spool>/open/<key>…   accepted, not yet durable (edge.capture.batch)
    <spool>/sealed/<key>  destination Cloud: durable, waits for the uploader
    <disk_path>/<key>     destination Disk: durable; with periodic upload it also waits there, until it is uploaded
    …/<key>.done          a record file that the store has acknowledged, being removed with its large entries
    …/<key>.failed        a record file that was given up, kept while there is room

For the uploader:

    for batch in spool.batches():              # oldest first; a fresh walk each time, few names in memory
        if not spool.claim(batch):             # dropped meanwhile
            continue
        contents = spool.contents(batch)       # ids, and the objects to put before the record
        … put contents.large, then batch …
        spool.done(batch)                      # or done(batch, failed={ids}), give_up(batch), release(batch)

`spool.sealed` is set whenever a batch was added. A file that is missing when it is to be put was removed from outside:
count its capture as failed. All methods are safe from any thread; only one uploader may drain.
"""

import errno
import fcntl
import heapq
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from edge import durable
from edge.capture import batch as open_batch
from edge.capture import layout
from edge.capture.record import RecordSummary, read_line
from edge.capture.recovery import Recovered, recover
from edge.capture.settings import CaptureSettings
from edge.capture.statuses import CaptureState, Statuses, StatusLog
from edge.clock import Clock
from edge.errors import ConfigError, SpoolFullError

log = logging.getLogger(__name__)

_NAMES_AT_ONCE = 1024  # file names of one hour held while walking
_HEADROOM = 64  # dropping the oldest frees a 64th of the bound more than needed, so that it does not walk each time
_HOUR_CHARACTERS = len("YYYY/MM/DD/HH")


@dataclass(frozen=True)
class SealedBatch:
    """A record file that waits: its object key, file, size in bytes, and the unix seconds that its name says."""

    key: str
    path: Path
    size: int
    accepted: float


@dataclass(frozen=True)
class SealedObject:
    """A large entry: its object key, its file, its size in bytes (0 if it is missing), and whose capture it is."""

    key: str
    path: Path
    size: int
    capture_id: str


@dataclass(frozen=True)
class BatchContents:
    """The captures of a batch and the objects that its record names, in order."""

    ids: tuple[str, ...]
    large: tuple[SealedObject, ...]


@dataclass
class Usage:
    """What the spool holds: bytes, files, and captures that wait for the uploader."""

    size: int = 0
    files: int = 0
    captures: int = 0


class Spool:
    """The spool's folders and their bounds."""

    def __init__(self, settings: CaptureSettings, clock: Clock, statuses: Statuses) -> None:
        self._settings = settings
        self._clock = clock
        self._statuses = statuses
        self.uploads = settings.bucket is not None
        self.open = open_batch.OpenFolder(settings.spool_path / "open")
        self.root = settings.disk_path or settings.spool_path / "sealed"
        self.status_log = StatusLog(settings.spool_path)
        self.sealed = threading.Event()
        self.dropped = 0
        self._folders = durable.DurableFolders(self.root)
        self._lock = threading.RLock()
        self._tree = threading.Lock()  # folders below root are made or pruned
        self._usage = Usage()
        self._claimed: str | None = None
        self._lock_fd: int | None = None

    # --- start ---------------------------------------------------------------

    def start(self) -> Recovered:
        """Take the spool, load the statuses, and return what an earlier run left open.

        Raises:
            ConfigError: another agent uses the spool, or spool and capture folder are not on one file system.
            OSError: the folders cannot be used now; trying again is safe.
        """
        spool = self._settings.spool_path
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock(spool / "lock")
        for folder in (self.open.root, self.root):
            folder.mkdir(mode=durable.FOLDER_MODE, parents=True, exist_ok=True)
        self._check_one_file_system()
        self._usage = Usage()
        waiting = self.status_log.load(self._statuses)
        found = recover(self.open.root, self.root, monotonic=self._clock.monotonic())
        for batch in found.batches:
            self._usage.size += batch.total_bytes
            self._usage.files += batch.entry_count
            for capture_id in batch.ids:
                self._statuses.accept(capture_id)
            waiting.pop(batch.key, None)
        if self.uploads:
            self._scan(waiting)
        for key, ids in waiting.items():
            log.error("%s: its file is gone from the spool; %d captures failed", key, len(ids))
            found.lost += ids
        for capture_id in found.lost:
            self._statuses.accept(capture_id)
        self.fail("", found.lost)
        return found

    def fail(self, key: str, capture_ids: Collection[str]) -> None:
        """Set accepted captures to FAILURE: their files are gone or damaged."""
        if capture_ids:
            self.status_log.append(CaptureState.FAILURE, key, capture_ids)
            self._statuses.finish(capture_ids, CaptureState.FAILURE)

    def _take_lock(self, path: Path) -> None:
        if self._lock_fd is not None:
            return
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ConfigError(
                f"another agent uses the spool {path.parent}; give each agent its own sagemaker_edge_edge_spool_path"
            ) from None
        except OSError:
            os.close(fd)
            raise
        self._lock_fd = fd

    def _check_one_file_system(self) -> None:
        probe, target = self.open.root / "probe.tmp", self.root / ".probe.tmp"
        probe.touch()
        try:
            probe.replace(target)
        except OSError as error:
            probe.unlink(missing_ok=True)
            if error.errno != errno.EXDEV:
                raise
            raise ConfigError(
                f"the spool {self._settings.spool_path} and the capture folder {self.root} are on different file "
                "systems, so that files cannot be moved at once; put the spool inside the capture folder"
            ) from None
        target.unlink()

    def _scan(self, waiting: dict[str, list[str]]) -> None:
        """Count what is sealed, learn the ids that the status log lacks, and finish what was being removed."""
        for folder in self._hour_folders():
            for entry in list(os.scandir(folder)):
                name = entry.name.removesuffix(layout.DONE).removesuffix(layout.FAILED)
                if not layout.is_record_name(name, self._device()):
                    continue
                key = f"{folder.relative_to(self.root).as_posix()}/{name}"
                contents = self._read(Path(entry.path), key)
                if entry.name.endswith(layout.DONE):
                    self._remove(Path(entry.path), contents)
                    continue
                self._usage.files += 1 + len(contents.large)
                self._usage.size += entry.stat().st_size + sum(large.size for large in contents.large)
                if entry.name.endswith(layout.FAILED):
                    continue
                self._usage.captures += len(contents.ids)
                if waiting.pop(key, None) is None:
                    known = [i for i in contents.ids if self._statuses.get(i) is None]
                    self._statuses.restore(known, CaptureState.IN_PROGRESS)

    def close(self) -> None:
        """Give the spool back; everything is on disk."""
        self.status_log.close()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    # --- bounds --------------------------------------------------------------

    def take(self, size: int, files: int) -> None:
        """Reserve room for `size` bytes in `files` files, dropping the oldest batches if that is the policy.

        Raises:
            SpoolFullError: naming the bound and its setting.
        """
        with self._lock:
            reason = self._lack(size, files)
            if reason is not None:
                self._make_room(size, files)
                reason = self._lack(size, files)
            if reason is not None:
                raise SpoolFullError(f"the spool is full: {reason}")
            self._usage.size += size
            self._usage.files += files

    def give(self, size: int, files: int) -> None:
        """Return room."""
        with self._lock:
            self._usage.size = max(0, self._usage.size - size)
            self._usage.files = max(0, self._usage.files - files)

    def usage(self) -> Usage:
        """What is held now."""
        with self._lock:
            return Usage(self._usage.size, self._usage.files, self._usage.captures)

    def _lack(self, size: int, files: int) -> str | None:
        """Why there is no room, in words."""
        settings = self._settings
        if self._usage.size + size > settings.spool_max_bytes:
            return (
                f"{self._usage.size} bytes wait, {size} more would pass sagemaker_edge_edge_spool_max_mib "
                f"({settings.spool_max_bytes} bytes)"
            )
        if self._usage.files + files > settings.spool_max_files:
            return f"{self._usage.files} files wait; sagemaker_edge_edge_spool_max_files is {settings.spool_max_files}"
        try:
            state = os.statvfs(self.open.root)
        except OSError as error:
            return f"its folder cannot be used: {error.strerror}"
        free = state.f_bavail * state.f_frsize
        if free - size < settings.spool_min_free:
            return (
                f"{free} bytes are free on its disk, and sagemaker_edge_edge_spool_min_free_mib keeps "
                f"{settings.spool_min_free} of them"
            )
        return None

    def _make_room(self, size: int, files: int) -> None:
        """Remove what was given up, and, if the policy says so, the oldest that waits."""
        if not self.uploads:
            return
        suffixes = [layout.FAILED, ""] if self._settings.drop_oldest else [layout.FAILED]
        size += self._settings.spool_max_bytes // _HEADROOM
        files += self._settings.spool_max_files // _HEADROOM
        batches_dropped = captures_dropped = 0
        for suffix in suffixes:
            for batch in self.batches(suffix):
                if self._lack(size, files) is None:
                    break
                if batch.key == self._claimed:
                    continue
                contents = self.contents(batch)
                self._finish(batch, contents, CaptureState.FAILURE, contents.ids, waited=not suffix)
                batches_dropped += 1
                captures_dropped += len(contents.ids)
        if batches_dropped:
            self.dropped += captures_dropped
            log.warning(
                "the spool is full: dropped the %d oldest captures (%d files)", captures_dropped, batches_dropped
            )

    # --- sealed batches ------------------------------------------------------

    def seal(self, batch: open_batch.OpenBatch, beat: Callable[[], None]) -> None:
        """Make a batch durable in its place.

        Raises:
            OSError: nothing is lost; call it again later.
        """
        state = CaptureState.IN_PROGRESS if self.uploads and self._settings.disk_path is None else CaptureState.SUCCESS
        with self._tree:
            try:
                open_batch.seal(
                    batch,
                    self.root,
                    self._folders,
                    note=lambda: self.status_log.append(state, batch.key, batch.ids),
                    beat=beat,
                )
            except OSError:
                self._folders.forget()
                raise
        with self._lock:
            if self.uploads:
                self._usage.files -= len(batch.ids) - 1  # each capture took one for its record
                self._usage.captures += len(batch.ids)
        if not self.uploads:
            self.give(batch.total_bytes, batch.entry_count)
        if state is CaptureState.SUCCESS:
            self._statuses.finish(batch.ids, state)
        if self.uploads:
            self.sealed.set()

    def batches(self, suffix: str = "") -> Iterator[SealedBatch]:
        """Sealed batches that wait, oldest first; files may come and go meanwhile."""
        if not self.uploads:
            return
        for _, group in groupby(self._hour_folders(), key=_hour):
            folders = list(group)
            after = ""
            while names := heapq.nsmallest(_NAMES_AT_ONCE, self._record_names(folders, suffix, after)):
                for name, folder in names:
                    path = folder / (name + suffix)
                    try:
                        size = path.stat().st_size
                    except FileNotFoundError:
                        continue
                    key = f"{folder.relative_to(self.root).as_posix()}/{name}"
                    yield SealedBatch(key, path, size, layout.accepted_at(name))
                after = names[-1][0]

    def _record_names(self, folders: list[Path], suffix: str, after: str) -> Iterator[tuple[str, Path]]:
        device = self._device()
        for folder in folders:
            try:
                entries = os.scandir(folder)
            except FileNotFoundError:
                continue
            with entries:
                for entry in entries:
                    name = entry.name.removesuffix(suffix)
                    if (
                        name > after
                        and entry.name.endswith(layout.RECORD + suffix)
                        and layout.is_record_name(name, device)
                        and entry.is_file(follow_symlinks=False)
                    ):
                        yield name, folder

    def claim(self, batch: SealedBatch) -> bool:
        """Keep a batch from being dropped until done, give_up or release; false if it is gone."""
        with self._lock:
            if not batch.path.exists():
                return False
            self._claimed = batch.key
            return True

    def release(self, batch: SealedBatch) -> None:
        """Leave a claimed batch for later."""
        with self._lock:
            if self._claimed == batch.key:
                self._claimed = None

    def contents(self, batch: SealedBatch) -> BatchContents:
        """The ids and large entries of a batch, from its record file; empty if that is gone."""
        return self._read(batch.path, batch.key)

    def done(self, batch: SealedBatch, failed: Collection[str] = ()) -> None:
        """The store has acknowledged the record and all large entries, except those of the `failed` captures.

        Raises:
            OSError: the files could not all be removed; they are at the next start, at the latest.
        """
        contents = self.contents(batch)
        with self._lock:
            self.release(batch)
            succeeded = [capture_id for capture_id in contents.ids if capture_id not in failed]
            self._settle(batch, succeeded, CaptureState.SUCCESS)
            if failed:
                self._settle(batch, [i for i in contents.ids if i in failed], CaptureState.FAILURE)
            self._finish(batch, contents, None, (), waited=True)

    def give_up(self, batch: SealedBatch) -> None:
        """The store refuses the batch for good: its captures failed; the files stay while there is room for them."""
        contents = self.contents(batch)
        with self._lock:
            self.release(batch)
            self._settle(batch, contents.ids, CaptureState.FAILURE)
            batch.path.replace(batch.path.with_name(batch.path.name + layout.FAILED))
            self._usage.captures = max(0, self._usage.captures - len(contents.ids))

    def _settle(self, batch: SealedBatch, capture_ids: Collection[str], state: CaptureState) -> None:
        if self._settings.disk_path is not None:
            return  # they are SUCCESS since they were sealed (G-3)
        self.status_log.append(state, batch.key, capture_ids)
        self._statuses.finish(capture_ids, state)

    def _finish(
        self,
        batch: SealedBatch,
        contents: BatchContents,
        state: CaptureState | None,
        capture_ids: Collection[str],
        *,
        waited: bool,
    ) -> None:
        """Remove a batch's files, after setting the state of `capture_ids` if there is one."""
        if state is not None and waited:
            self._settle(batch, capture_ids, state)
        self.give(batch.size + sum(large.size for large in contents.large), 1 + len(contents.large))
        if waited:
            self._usage.captures = max(0, self._usage.captures - len(contents.ids))
        marked = batch.path.with_name(batch.path.name + layout.DONE)
        try:
            batch.path.replace(marked)
        except FileNotFoundError:
            return
        self._remove(marked, contents)

    def _remove(self, path: Path, contents: BatchContents) -> None:
        """Remove large entries, then the record file, then folders of past hours that are empty now."""
        for large in contents.large:
            large.path.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        folder = path.parent
        if _hour(folder) < layout.hour(self._clock.now()) and not any(folder.glob("*" + layout.RECORD)):
            with self._tree:
                open_batch.prune_empty(folder)
                self._prune_up(folder)
                self._folders.forget()

    def _prune_up(self, folder: Path) -> None:
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    # --- reading -------------------------------------------------------------

    def _read(self, path: Path, key: str) -> BatchContents:
        ids: list[str] = []
        large: list[SealedObject] = []
        for summary in _summaries(path, key):
            ids.append(summary.capture_id)
            for large_key in summary.large:
                at = self.root / large_key
                try:
                    size = at.lstat().st_size
                except FileNotFoundError:
                    size = 0
                large.append(SealedObject(large_key, at, size, summary.capture_id))
        return BatchContents(tuple(ids), tuple(large))

    def _hour_folders(self) -> list[Path]:
        """The folders that may hold record files, oldest hour first."""
        base = self.root
        if self._settings.disk_path is not None:  # others may use the capture folder too
            base = base / self._settings.folder_prefix / self._settings.fleet
        found = []
        for at, folders, _ in os.walk(base):
            folders[:] = [name for name in folders if name != layout.RAW_DATA and not name.startswith(".")]
            relative = Path(at).relative_to(self.root).as_posix()
            if layout.is_hour_folder(relative):
                found.append(Path(at))
        return sorted(found, key=_hour)

    def _device(self) -> str | None:
        """On Disk only files of this device are ours to upload; the spool's own folder holds nothing else."""
        return self._settings.device if self._settings.disk_path is not None else None


def _hour(folder: Path) -> str:
    return folder.as_posix()[-_HOUR_CHARACTERS:]


def _summaries(path: Path, key: str) -> Iterator[RecordSummary]:
    try:
        with path.open("rb") as file:
            for line in file:
                summary = read_line(line, key)
                if summary is not None:
                    yield summary
    except FileNotFoundError:
        return
