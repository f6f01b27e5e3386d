"""A device's reports: the end of each deployment, and heartbeats. They are kept until they are sent (F-12, F-13)."""

import hashlib
import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from edge import durable, strict_json
from edge.errors import FleetError
from edge.strict_json import JsonFault

log = logging.getLogger(__name__)

FORMAT = 1
SUFFIX = ".json"
MAX_REPORTS = 64  # waiting to be sent; the oldest is dropped first
MAX_REPORT_BYTES = 64 << 10  # of a report that waits to be sent


class RefusedReportError(FleetError):
    """A report is not taken; others may be."""


class Outlet(Protocol):
    """Where reports go. One thread puts; `abort` may come from another."""

    def put(self, key: str, path: Path, place: int, size: int) -> None:
        """Store `size` bytes of a file, from `place` on, under a key.

        Raises:
            RefusedReportError: it is not taken; others may be.
            FleetError: nothing can be stored now.
        """
        ...

    def abort(self) -> None:
        """End what is under way."""
        ...


class Reports:
    """The folder of reports that wait; a file each: a line that names the key, then the report. For any thread."""

    def __init__(self, folder: Path, outlet: Outlet | None) -> None:
        """Without an outlet nothing is kept."""
        self._folder = folder
        self._lock = threading.Lock()
        self.outlet = outlet

    def put(self, key: str, report: Mapping[str, Any]) -> None:
        """Queue a report; a waiting one of the same key is replaced.

        Raises:
            FleetError: it cannot be kept.
        """
        if self.outlet is None:
            return
        data = json.dumps({"format": FORMAT, **report}).encode()
        with self._lock:
            self._keep(key, data)

    def _keep(self, key: str, data: bytes) -> None:
        try:
            durable.DurableFolders(self._folder.parent.parent).make(self._folder)
            self._make_room()
            name = hashlib.sha256(key.encode()).hexdigest()[:16]
            durable.write_file(self._folder / (name + SUFFIX), json.dumps({"key": key}).encode() + b"\n" + data)
        except OSError as error:
            raise FleetError(f"a report cannot be kept: {durable.why(error)}") from error

    def _waiting(self) -> list[Path]:
        try:
            found = [path for path in self._folder.iterdir() if path.suffix == SUFFIX]
            return sorted(found, key=lambda path: path.stat().st_mtime_ns)
        except FileNotFoundError:
            return []

    def _make_room(self) -> None:
        for path in self._waiting()[: 1 - MAX_REPORTS]:
            path.unlink(missing_ok=True)

    def send(self) -> None:
        """Send the waiting reports.

        Raises:
            FleetError: some of it still waits.
        """
        if self.outlet is None:
            return
        with self._lock:
            self._send(self.outlet)

    def _send(self, outlet: Outlet) -> None:
        refused: FleetError | None = None
        for path in self._waiting():
            try:
                with durable.reader(path) as file:
                    head = file.readline(MAX_REPORT_BYTES)
                    size = len(file.read(MAX_REPORT_BYTES + 1))
                key = strict_json.text(strict_json.parse_object(head, max_bytes=MAX_REPORT_BYTES)["key"], "key")
                if size > MAX_REPORT_BYTES:
                    raise JsonFault("is too large")
            except (JsonFault, KeyError) as fault:
                log.warning("%s is no report, and is removed: %s", path, fault)
            except OSError as error:
                raise FleetError(f"a report cannot be read: {durable.why(error)}") from error
            else:
                try:
                    outlet.put(key, path, len(head), size)
                except RefusedReportError as error:  # it waits, and holds back none of the others
                    refused = refused or error
                    continue
            path.unlink(missing_ok=True)
        if refused is not None:
            raise refused


class FolderOutlet:
    """Reports as files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, key: str, path: Path, place: int, size: int) -> None:
        """See `Outlet`."""
        target = self._folder / key
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            durable.write_file(target, path.read_bytes()[place : place + size])
        except OSError as error:
            raise RefusedReportError(f"the report {target} cannot be written: {durable.why(error)}") from error

    def abort(self) -> None:
        """Writing a file ends by itself."""


class BucketOutlet:
    """Reports as objects of the bucket that captures go to."""

    def __init__(self, store: Any, pace: Any) -> None:
        self._store = store
        self._pace = pace

    def put(self, key: str, path: Path, place: int, size: int) -> None:
        """See `Outlet`."""
        from edge.cloud.retry import Outcome
        from edge.cloud.store import Body, StoppedError, StoreError

        try:
            self._store.put(key, Body(path, size, [(place, size)]), "application/json", self._pace)
        except (StoreError, StoppedError, OSError) as error:
            answered = isinstance(error, StoreError) and error.verdict.outcome in (Outcome.REFUSED, Outcome.GIVE_UP)
            kind = RefusedReportError if answered else FleetError
            raise kind(f"the report {key} is not stored: {error}") from error
        finally:
            self._store.close()

    def abort(self) -> None:
        """End what is under way."""
        self._store.abort()


def report_key(fleet: str, deployment: str, device: str, *, failed: bool) -> str:
    """Where the report of a deployment's end goes."""
    return f"reports/{fleet}/{deployment}/{'failed' if failed else 'ok'}/{device}{SUFFIX}"


def heartbeat_key(fleet: str, device: str) -> str:
    """Where a device's account of itself goes."""
    return f"heartbeats/{fleet}/{device}{SUFFIX}"
