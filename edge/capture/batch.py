"""One batch on its way: captures appended to an open record file, then sealed, that is made durable in its place.

    open      every byte is in the page cache: a kill loses nothing that was accepted
    sealing   record file fsynced; large entries fsynced, renamed, their folders fsynced; ids noted; record file
              renamed; its folder fsynced
    sealed    at <root>/<key>: a power cut loses nothing

The record file is fsynced first, so that no crash leaves large entries in place that no record names.
"""

import errno
import logging
import os
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edge import durable
from edge.capture import layout, packing
from edge.capture.record import LargeEntry

log = logging.getLogger(__name__)

FILES_AT_ONCE = 64  # flushed before other batches have their turn
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_OPEN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True)
class OpenLarge:
    """A large entry below the open folder (or in its place, by an earlier run), its key, and its size in bytes."""

    path: Path
    key: str
    size: int


@dataclass(eq=False)
class OpenBatch:
    """Captures of one model and hour. `size` counts the good bytes of the record file, whatever lies behind them."""

    key: str
    path: Path
    fd: int | None
    opened: float  # unix seconds
    opened_monotonic: float
    size: int = 0
    ids: list[str] = field(default_factory=list)
    large: list[OpenLarge] = field(default_factory=list)
    attempts: int = 0
    flushed: int = 0  # large entries that are on the device
    retry_at: float = 0.0  # monotonic
    placed: bool = False  # the record is where the uploader takes it, since an attempt that failed after that
    broken: bool = False  # bytes lie behind `size` that could not be cut off
    packed: bool = False  # the file is compressed; until then it holds plain lines, whatever its name
    saved_bytes: int = 0  # by that: what it takes less than was reserved for it

    @property
    def packs(self) -> bool:
        """Whether the file is to be compressed before it goes to its place."""
        return not self.packed and packing.packs(self.key)

    @property
    def total_bytes(self) -> int:
        """Bytes of the record file and its large entries."""
        return self.size + sum(entry.size for entry in self.large)

    @property
    def entry_count(self) -> int:
        """Files that it was reserved: one a capture and one a large entry."""
        return len(self.ids) + len(self.large)

    def write(self, line: bytes) -> None:
        """Write the line of a capture, which `add` then counts; its large entries are written already.

        Raises:
            OSError: the file is as it was.
        """
        assert self.fd is not None  # noqa: S101 - only sealing closes it, and nobody writes then
        try:
            durable.write_all(self.fd, line)
        except OSError:
            self._cut()
            raise

    def add(self, capture_id: str, line: bytes, large: list[OpenLarge]) -> None:
        """Count a capture that was written."""
        self.size += len(line)
        self.ids.append(capture_id)
        self.large += large

    def _cut(self) -> None:
        assert self.fd is not None  # noqa: S101
        try:
            os.ftruncate(self.fd, self.size)
        except OSError:
            self.broken = True

    def close(self) -> None:
        """Close the record file; sealing opens it again by name.

        Raises:
            OSError: it is closed, but what was written may be lost: a disk on the network may say so only now.
        """
        fd, self.fd = self.fd, None  # also where it fails the number is free, and may be another file's at once
        if fd is not None:
            os.close(fd)


class OpenFolder:
    """The folder of what is accepted and not yet durable; its files have the paths of their keys."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tree = threading.Lock()  # folders are made or pruned

    def create_batch(self, key: str, *, opened: float, opened_monotonic: float) -> OpenBatch:
        """Make the record file of a new batch.

        Raises:
            OSError: nothing was made.
        """
        path = self.root / (key + layout.OPEN)
        fd = self._create(path, os.O_APPEND)
        return OpenBatch(key, path, fd, opened, opened_monotonic)

    def write_large(self, entry: LargeEntry) -> OpenLarge:
        """Write a large entry straight from the request's bytes.

        Raises:
            OSError: nothing is left of it.
        """
        path = self.root / layout.open_raw_name(entry.key, len(entry.data), zlib.crc32(entry.data))
        fd = self._create(path)
        try:
            durable.write_all(fd, entry.data)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        return OpenLarge(path, entry.key, len(entry.data))

    def _create(self, path: Path, flags: int = 0) -> int:
        try:
            return os.open(path, _OPEN_FLAGS | flags, durable.FILE_MODE)
        except FileNotFoundError:
            with self._tree:
                path.parent.mkdir(mode=durable.FOLDER_MODE, parents=True, exist_ok=True)
                return os.open(path, _OPEN_FLAGS | flags, durable.FILE_MODE)

    def prune(self) -> None:
        """Remove the empty folders in it."""
        with self._tree:
            prune_empty(self.root)


def prune_empty(folder: Path) -> None:
    """Remove the empty folders below `folder`."""
    for at, _, _ in os.walk(folder, topdown=False):
        if Path(at) != folder:
            remove_if_empty(Path(at))


def remove_if_empty(folder: Path) -> bool:
    """Whether a folder was empty, and is gone."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def seal(
    batch: OpenBatch, root: Path, folders: durable.DurableFolders, *, note: Callable[[], None], beat: Callable[[], None]
) -> bool:
    """Bring a batch to its place below `root`; false while there is more to do, so that other batches have their turn.

    May be called again after it failed. `note` is called before the record appears in its place, `beat` between slow
    steps.

    Raises:
        OSError: the batch is still open, or partly in place; nothing is lost.
    """
    folder = (root / batch.key).parent
    if batch.placed:  # by now it may be uploaded and gone
        folders.make(folder)
        durable.fsync_folder(folder)
        return True
    if not batch.flushed:
        if batch.large:
            for path in (*([] if batch.packs else [batch.path]), *(entry.path for entry in batch.large)):
                durable.begin_flush_file(path)
        _flush_record(batch, beat)
    for entry in batch.large[batch.flushed : batch.flushed + FILES_AT_ONCE]:
        beat()
        _flush_large(batch, entry, root)
        batch.flushed += 1
    if batch.flushed < len(batch.large):
        return False
    for needed in {folder, *((root / entry.key).parent for entry in batch.large)}:
        folders.make(needed)
    beat()
    durable.rename_all((entry.path, root / entry.key) for entry in batch.large)
    beat()
    note()
    _place(batch, root / batch.key)
    durable.fsync_folder(folder)
    return True


def _place(batch: OpenBatch, place: Path) -> None:
    try:
        batch.path.replace(place)
    except FileNotFoundError:
        if not place.exists():
            raise
    batch.placed = True


def _flush_record(batch: OpenBatch, beat: Callable[[], None]) -> None:
    if not batch.path.exists():
        return  # in place, or lost; _place checks
    if batch.packs and _pack(batch, beat):
        return
    if batch.attempts or batch.broken:
        batch.close()
        durable.rewrite_file(batch.path, batch.size)
        batch.broken = False
    elif batch.fd is not None:
        os.fsync(batch.fd)
        batch.close()
    else:
        durable.fsync_file(batch.path)


def _pack(batch: OpenBatch, beat: Callable[[], None]) -> bool:
    """Have the record file be compressed and flushed; false where the disk has no room for that: then it stays plain.

    A full disk is just when captures must leave. What is plain has the name of what is plain, before anybody is told of it.
    """
    batch.close()
    try:
        size = durable.rewrite_file(batch.path, batch.size, partial(packing.packed, beat=beat))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        log.warning("%s: not compressed: %s", batch.key, durable.why(error))
        key = batch.key.removesuffix(layout.PACKED)
        plain = batch.path.with_name(key.rpartition("/")[2] + layout.OPEN)
        batch.path.replace(plain)
        batch.key, batch.path = key, plain
        return False
    batch.packed, batch.broken = True, False
    batch.size, batch.saved_bytes = size, batch.saved_bytes + batch.size - size
    return True


def _flush_large(batch: OpenBatch, entry: OpenLarge, root: Path) -> None:
    if not entry.path.exists() and (root / entry.key).exists():
        return
    if batch.attempts and entry.path != root / entry.key:
        durable.rewrite_file(entry.path, entry.size)
    else:
        durable.fsync_file(entry.path)
