"""What is known of uploads in parts, a small file each: what a store keeps, and bills, must be found again after a crash."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edge import durable
from edge.cloud.store import Body

MAX_NOTE_BYTES = 1 << 22  # of the file that remembers a multipart upload; 10,000 parts take about 600 KiB
_SUFFIX = ".json"


@dataclass
class Note:
    """An upload under way. `parts` are ETag and CRC-32 (hexadecimal) of those that are stored, from the first on."""

    endpoint: str
    bucket: str
    key: str
    upload: str  # the store's id of it
    file: str
    ranges: list[list[int]]  # of the file: offset and length
    modified_ns: int  # of the file
    part_bytes: int
    parts: list[list[str]] = field(default_factory=list)
    ended: bool = False  # nobody will go on with it
    lost: bool = False  # the store has lost some of it: it is to be aborted, and another begun
    again: bool = False  # it was begun since one was lost

    def is_of(self, body: Body, modified_ns: int) -> bool:
        """Whether it is an upload of these bytes."""
        return self.ranges == [list(one) for one in body.ranges] and self.modified_ns == modified_ns


class Notes:
    """The notes in a folder. For any thread, but one for each key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: str) -> Note | None:
        """The note of an object; None if there is none, or it is unreadable."""
        return self._read(self._path(key))

    def write(self, note: Note) -> None:
        """Keep a note, so that a power cut does not lose it.

        Raises:
            OSError: it is not kept.
        """
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            durable.fsync_folder(self._folder.parent)
        durable.write_file(self._path(note.key), json.dumps(asdict(note), separators=(",", ":")).encode())

    def remove(self, key: str) -> None:
        """Drop a note."""
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def all(self) -> Iterator[Note]:
        """Every readable note."""
        try:
            paths = sorted(self._folder.glob(f"*{_SUFFIX}"))
        except OSError:
            return
        for path in paths:
            if (note := self._read(path)) is not None:
                yield note

    def _path(self, key: str) -> Path:
        return self._folder / (hashlib.sha256(key.encode()).hexdigest()[:32] + _SUFFIX)

    def _read(self, path: Path) -> Note | None:
        try:
            with durable.reader(path) as file:
                note = Note(**json.loads(file.read(MAX_NOTE_BYTES)))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        texts = (note.endpoint, note.bucket, note.key, note.upload, note.file)
        whole = all(isinstance(text, str) for text in texts) and isinstance(note.part_bytes, int)
        pairs = isinstance(note.parts, list) and all(
            isinstance(part, list) and len(part) == 2 and all(isinstance(text, str) for text in part)
            for part in note.parts
        )
        return note if whole and pairs and note.part_bytes > 0 else None
