"""Where captures are read from: a folder on this machine. One file is open and one record in memory at a time."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from edge import durable
from edge.capture import layout
from edge.client.captures.records import MAX_TENSOR_BYTES, GoneError, RecordError
from edge.client.outcome import InputError

# What a record file ends in: in its place, accepted and still in the spool, and given up.
_ENDS = tuple(
    layout.RECORD + packed + state for packed in ("", layout.PACKED) for state in ("", layout.OPEN, layout.FAILED)
)
SPOOL = ".spool"  # in a capture folder, unless edge_spool_path says otherwise
SUMMARY = "summary-"  # begins the name of a summary, which holds no captures


def is_record_name(name: str) -> bool:
    """Whether a file of this name holds captures."""
    return name.endswith(_ENDS) and not name.startswith(SUMMARY)


def is_summary_name(name: str) -> bool:
    """Whether a file of this name holds summaries."""
    return name.endswith(_ENDS) and name.startswith(SUMMARY)


class Source(Protocol):
    """A folder or a bucket. Keys are paths below it, with '/'."""

    def files(self) -> Iterator[str]:
        """The keys of record files and of summaries, sorted.

        Raises:
            InputError: it cannot be looked at.
        """
        ...

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """A file's bytes.

        Raises:
            GoneError: it is not there any more.
            RecordError: it cannot be read.
        """
        ...

    def raw(self, key: str) -> bytes:
        """All bytes of a large entry.

        Raises:
            RecordError: it is not there, or too large.
        """
        ...


class Folder:
    """Captures in a folder: where the agent writes them, its spool, or a copy of a bucket.

    Links are not followed. A spool in a capture folder is left out: what is still there is not in its place yet.
    """

    def __init__(self, root: Path) -> None:
        """Raises:
        InputError: it is no folder, or cannot be read.
        """
        self._root = root
        try:
            os.scandir(root).close()
        except OSError as error:
            raise InputError(
                f"{root}: {error.strerror}; expected a folder of captures, or s3://BUCKET/PREFIX"
            ) from None

    def files(self) -> Iterator[str]:
        """As `Source`; what cannot be looked into is left out."""
        for at, folders, files in os.walk(self._root):
            folder = Path(at)
            # Only below an hour: a prefix, fleet or model may have that name, and one that begins with a dot.
            raw = layout.RAW_DATA if layout.is_hour_folder(folder.absolute().as_posix()) else None
            top = folder == self._root
            folders[:] = sorted(name for name in folders if name != raw and not _is_spool(folder / name, top=top))
            below = folder.relative_to(self._root)
            for name in sorted(files):
                if is_record_name(name) or is_summary_name(name):
                    yield str(below / name)

    def open(self, key: str) -> BinaryIO:
        """As `Source`."""
        try:
            return durable.reader(self._root / key)
        except FileNotFoundError:
            raise GoneError("it is gone") from None
        except OSError as error:
            raise RecordError(f"cannot be read: {durable.why(error)}") from None

    def raw(self, key: str) -> bytes:
        """As `Source`."""
        path = self._root / key
        try:
            if not path.parent.resolve().is_relative_to(self._root.resolve()):
                raise RecordError(f"{key} leads out of the folder")
            with durable.reader(path if path.exists() else _waiting(path)) as file:
                size = os.fstat(file.fileno()).st_size
                if size > MAX_TENSOR_BYTES:
                    raise RecordError(f"{key} has {size} bytes; at most {MAX_TENSOR_BYTES >> 20} MiB are read")
                return file.read(size)
        except OSError as error:
            raise RecordError(f"{key} cannot be read: {durable.why(error)}") from None


def _is_spool(folder: Path, *, top: bool) -> bool:
    """Whether a folder is a spool: by the name that it has in a capture folder, or by the lock in it."""
    if not folder.name.startswith("."):
        return False
    return (top and folder.name == SPOOL) or (folder / "lock").is_file()


def _waiting(path: Path) -> Path:
    """A large entry that is still in the spool has its size and sum behind its name."""
    for other in path.parent.iterdir():
        parsed = layout.parse_open_raw_name(other.name)
        if parsed is not None and parsed.name == path.name:
            return other
    return path
