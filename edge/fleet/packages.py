"""Packages on their way: resumed where a line broke, hashed whole, renamed, and gone once the package store has them (F-7, F-8)."""

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from edge import durable
from edge.errors import FleetError
from edge.fleet.source import CHUNK_BYTES, Source, SourceError

log = logging.getLogger(__name__)

SUFFIX = ".tar.gz"
PART = ".part"  # of a package that has not come whole
MAX_PACKAGE_BYTES = 1 << 34  # of a package that a device fetches, whatever length its metadata states
MIN_FREE_BYTES = 8 << 20  # that a download leaves free on the disk
_READ_BYTES = 1 << 20


class DamagedError(FleetError):
    """The fetched package is not the one that the metadata names; it was removed."""


class NoRoomError(FleetError):
    """The disk has no room for a package."""


@dataclass(frozen=True)
class Wanted:
    """A package: where it lies in the repository, its length in bytes, and its SHA-256 in hex."""

    place: str
    length: int
    sha256: str


class Packages:
    """The folder of archives, each named by its SHA-256. One thread uses it."""

    def __init__(self, folder: Path, pay: Callable[[int], None]) -> None:
        """`pay` is called with the bytes of each chunk, and may wait or raise."""
        self.folder = folder
        self._pay = pay

    def path(self, sha256: str) -> Path:
        """Where an archive is, or will be."""
        return self.folder / (sha256 + SUFFIX)

    def has(self, sha256: str) -> bool:
        """Whether it is here, whole."""
        return durable.is_regular(self.path(sha256))

    def fetch(self, wanted: Wanted, source: Source) -> Path:
        """Fetch an archive, or what is missing of it.

        Raises:
            SourceError: it has not come whole; what has come is kept, and gone on from.
            DamagedError: its bytes are others.
            NoRoomError: it finds no room.
            OSError: it cannot be written.
        """
        final = self.path(wanted.sha256)
        if self.has(wanted.sha256):
            return final
        if wanted.length > MAX_PACKAGE_BYTES:
            raise NoRoomError(f"it has {wanted.length} bytes; at most {MAX_PACKAGE_BYTES} are fetched")
        part = final.with_name(wanted.sha256 + PART)
        fd = durable.open_regular(part, os.O_RDWR | os.O_CREAT)
        try:
            have = os.fstat(fd).st_size
            if have > wanted.length:
                os.ftruncate(fd, have := 0)
            self._check_room(wanted.length - have)
            if have < wanted.length:
                self._receive(fd, have, wanted, source)
            os.fsync(fd)
            if (found := _sha256(fd)) != wanted.sha256:
                part.unlink()
                raise DamagedError(f"the archive has SHA-256 {found}; expected {wanted.sha256}")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise NoRoomError(f"the package cannot be kept: {durable.why(error)}") from error
            raise
        finally:
            os.close(fd)
        durable.rename_all([(part, final)])
        return final

    def _receive(self, fd: int, have: int, wanted: Wanted, source: Source) -> None:
        with source.open(wanted.place, most=wanted.length + CHUNK_BYTES, start=have) as got:
            if got.start != have:
                have = 0
                os.ftruncate(fd, 0)
            os.lseek(fd, have, os.SEEK_SET)
            for chunk in got.chunks():
                self._pay(len(chunk))
                left = wanted.length - have
                durable.write_all(fd, chunk[:left])
                have += min(len(chunk), left)
                if len(chunk) > left:
                    break  # endless data: the rest is not read
        if have < wanted.length:
            raise SourceError(f"it broke off after {have} of {wanted.length} bytes")

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed > free - MIN_FREE_BYTES:
            stay = f"of {free} that are free, {MIN_FREE_BYTES} stay so"
            raise NoRoomError(f"the package needs {needed} bytes more; {stay}")

    def tidy(self, keep: Collection[str]) -> None:
        """Remove archives and parts but those."""
        for path in self.folder.iterdir():
            if path.name.partition(".")[0] not in keep:
                try:
                    path.unlink()
                except OSError as error:
                    log.warning("%s cannot be removed: %s", path, durable.why(error))


def _sha256(fd: int) -> str:
    digest, at = hashlib.sha256(), 0
    while chunk := os.pread(fd, _READ_BYTES, at):
        digest.update(chunk)
        at += len(chunk)
    return digest.hexdigest()
