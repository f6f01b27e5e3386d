"""Reading the folder of sealed batches: which wait, oldest first, and what is in them."""

import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from edge import durable
from edge.capture import layout, packing
from edge.capture.record import read_line

_NAMES_AT_ONCE = 1024  # file names of one hour held while walking
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
    """A large entry: its object key, its file, its size in bytes (None if no file is there), and whose capture it is."""

    key: str
    path: Path
    size: int | None
    capture_id: str


@dataclass(frozen=True)
class BatchContents:
    """The captures of a batch and the objects that its record names, in order."""

    ids: tuple[str, ...]
    large: tuple[SealedObject, ...]


class SealedFolder:
    """The sealed files below `root`, of keys that start with `prefix` and of `device` alone where that is given.

    `spool` is left out: it may lie below `root` and have keys of its own.
    """

    def __init__(self, root: Path, prefix: str = "", device: str | None = None, *, spool: Path | None = None) -> None:
        self.root = root
        self._base = root / prefix
        self._device = device
        self._spool = spool

    def waiting(self, suffix: str = "") -> Iterator[SealedBatch]:
        """Record files whose name is one and `suffix`, oldest first; files may come and go meanwhile."""
        for _, group in groupby(self.hour_folders(), key=hour_of):
            folders = list(group)
            after = ""
            while names := heapq.nsmallest(_NAMES_AT_ONCE, self._records(folders, suffix, after)):
                for name, folder in names:
                    path = folder / (name + suffix)
                    try:
                        size = path.lstat().st_size
                    except FileNotFoundError:
                        continue
                    yield SealedBatch(self.key_of(folder / name), path, size, layout.accepted_at(name))
                after = names[-1][0]

    def _records(self, folders: list[Path], suffix: str, after: str) -> Iterator[tuple[str, Path]]:
        for folder in folders:
            for entry in scan(folder):
                name = entry.name.removesuffix(suffix)
                if (
                    name > after
                    and entry.name.endswith(suffix)
                    and self.is_record(name)
                    and entry.is_file(follow_symlinks=False)
                ):
                    yield name, folder

    def is_record(self, name: str) -> bool:
        """Whether a file name, without what its state adds, is that of a record file here."""
        return layout.is_record_name(name, self._device)

    def is_raw(self, name: str) -> bool:
        """Whether a file name is that of a large entry here."""
        return layout.is_raw_name(name, self._device)

    def key_of(self, path: Path) -> str:
        """The object key of a file."""
        return path.relative_to(self.root).as_posix()

    def contents(self, path: Path, key: str) -> BatchContents:
        """The ids and large entries of a record file; empty if it is gone."""
        ids: list[str] = []
        large: list[SealedObject] = []
        try:
            for line in packing.lines(path):
                summary = read_line(line, key)
                if summary is not None:
                    ids.append(summary.capture_id)
                    large += [self._object(large_key, summary.capture_id) for large_key in summary.large]
        except FileNotFoundError:
            pass
        return BatchContents(tuple(ids), tuple(large))

    def _object(self, key: str, capture_id: str) -> SealedObject:
        path = self.root / key
        return SealedObject(key, path, path.lstat().st_size if durable.is_regular(path) else None, capture_id)

    def hour_folders(self) -> list[Path]:
        """The folders that may hold record files, oldest hour first."""
        found = []
        for at, folders, _ in os.walk(self._base):
            path = Path(at)
            if layout.is_hour_folder(self.key_of(path)):
                found.append(path)
                # Below an hour there are many files; above it, a prefix, fleet or model may have that name, or any other.
                # A prefix may look like an hour, too, so that the rest is walked.
                folders[:] = [name for name in folders if name != layout.RAW_DATA]
            elif path == self._spool:
                folders.clear()
        return sorted(found, key=hour_of)


def scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder; none if it is gone."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        yield from entries


def hour_of(folder: Path) -> str:
    """YYYY/MM/DD/HH of an hour's folder."""
    return folder.as_posix()[-_HOUR_CHARACTERS:]


def remove(path: Path, contents: BatchContents) -> None:
    """Remove large entries, then the record file that names them."""
    for large in contents.large:
        large.path.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
