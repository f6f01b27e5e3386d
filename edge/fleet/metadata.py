"""What is trusted: The Update Framework's client over our own transport, with metadata that outlives a power cut (F-5).

Only this module and the operator's side know python-tuf. Its default fetcher is left out: it would bring urllib3.
"""

import contextlib
import datetime
import sys
import types
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from edge import durable
from edge.errors import FleetError
from edge.fleet import source
from edge.fleet.document import MAX_DOCUMENT_BYTES
from edge.fleet.source import METADATA, TARGETS, Source, SourceError

_FETCHER = "tuf.ngclient.urllib3_fetcher"
if _FETCHER not in sys.modules:  # tuf.ngclient imports it whether it is used or not
    stub: Any = types.ModuleType(_FETCHER)
    stub.Urllib3Fetcher = type("Urllib3Fetcher", (), {})
    sys.modules[_FETCHER] = stub

from tuf.api import exceptions  # noqa: E402 - after what it must not import
from tuf.api.exceptions import RepositoryError  # noqa: E402
from tuf.api.metadata import Metadata, Root, TargetFile, Timestamp  # noqa: E402
from tuf.ngclient.config import UpdaterConfig  # noqa: E402
from tuf.ngclient.fetcher import FetcherInterface  # noqa: E402
from tuf.ngclient.updater import Updater  # noqa: E402

MAX_ROOT_BYTES = 64 << 10  # of a root file
MAX_TIMESTAMP_BYTES = 16 << 10  # of timestamp.json
MAX_SNAPSHOT_BYTES = 512 << 10  # of a snapshot file
MAX_TARGETS_BYTES = 1 << 20  # of a role's targets file
MAX_ROOT_ROTATIONS = 64  # new root files that one update follows
MAX_DELEGATIONS = 8  # roles that are searched for a file
ISSUED = "x-issued"  # the signed field of timestamp.json that says when it was made
_BOUNDS = {"timestamp": MAX_TIMESTAMP_BYTES, "snapshot": MAX_SNAPSHOT_BYTES, "root": MAX_ROOT_BYTES}
_ISSUED_FORM = "%Y-%m-%dT%H:%M:%SZ"

Answer = TypeVar("Answer")
Role = TypeVar("Role", Root, Timestamp)
Judge = Callable[[Collection[str], int], float]
"""The moment that expiry is judged by, where root names these keys for timestamps, so many of them together."""


class MetadataError(FleetError):
    """The repository's metadata cannot be trusted; with the file and why."""


class _Fetcher(FetcherInterface):
    """Files by their path in the repository; what was fetched already is given once without asking again."""

    def __init__(self, origin: Source) -> None:
        self._origin = origin
        self.given: dict[str, bytes] = {}
        self.failed: SourceError | None = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        if url in self.given:
            yield self.given.pop(url)
            return
        role = url.removesuffix(".json").rpartition(".")[2].rpartition("/")[2]
        try:
            with self._origin.open(url, most=_BOUNDS.get(role, MAX_TARGETS_BYTES)) as got:
                yield from got.chunks()
        except SourceError as error:
            if error.missing:
                raise exceptions.DownloadHTTPError(str(error), error.status) from error
            self.failed = error
            raise exceptions.DownloadError(str(error)) from error


class _Updater(Updater):
    """ngclient, which flushes nothing: after a power cut an empty timestamp would let an older repository in."""

    def __init__(self, folder: Path, fetcher: _Fetcher, root: bytes, judge: Judge) -> None:
        config = UpdaterConfig(
            max_root_rotations=MAX_ROOT_ROTATIONS,
            max_delegations=MAX_DELEGATIONS,
            root_max_length=MAX_ROOT_BYTES,
            timestamp_max_length=MAX_TIMESTAMP_BYTES,
            snapshot_max_length=MAX_SNAPSHOT_BYTES,
            targets_max_length=MAX_TARGETS_BYTES,
        )
        super().__init__(str(folder), METADATA, fetcher=fetcher, config=config, bootstrap=root)
        self._judge = judge

    def _load_timestamp(self) -> None:
        """The first that is judged by time, by keys that the newest root names."""
        role = self._trusted_set.root.roles[Timestamp.type]
        self._trusted_set.reference_time = moment(self._judge(role.keyids, role.threshold))
        super()._load_timestamp()

    def signers(self, role: str, data: bytes) -> list[str]:
        """The ids of the keys that have signed a file of that role."""
        metadata = Metadata.from_bytes(data)
        return sorted(
            self._trusted_set.root.get_verification_result(role, metadata.signed_bytes, metadata.signatures).signed
        )

    @property
    def timestamp(self) -> Timestamp:
        """The timestamp that was verified last."""
        return self._trusted_set.timestamp

    def _persist_file(self, filename: str, data: bytes) -> None:
        path = Path(filename)
        with contextlib.suppress(OSError):
            if path.read_bytes() == data:
                return  # nothing new: flash wears
        durable.write_file(path, data)

    def _update_root_symlink(self) -> None:
        """Nothing: the link root.json is for clients without a root of trust of their own, and would lead back for a moment."""


def moment(seconds: float) -> datetime.datetime:
    """Seconds since the epoch as TUF takes them."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def issued(timestamp: Timestamp) -> int:
    """When a timestamp says it was made, in seconds since the epoch; 0 where it does not."""
    text = timestamp.unrecognized_fields.get(ISSUED)
    try:
        return int(datetime.datetime.strptime(f"{text}+0000", _ISSUED_FORM + "%z").timestamp())
    except ValueError:
        return 0


class Trusted:
    """A repository, refreshed and found good as of when `judge` says; files of it can be asked for by their path."""

    def __init__(self, folder: Path, origin: Source, root: bytes, judge: Judge, timestamp: bytes | None) -> None:
        """Fetch what is new and verify it all; `timestamp` is timestamp.json where that is fetched already.

        Raises:
            MetadataError: it cannot be trusted.
            SourceError: a file did not come.
            OSError: it cannot be kept here.
        """
        self._origin = origin
        self._folder = folder
        self._fetcher = _Fetcher(origin)
        if timestamp is not None:
            self._fetcher.given[METADATA + "timestamp.json"] = timestamp

        def refreshed() -> _Updater:
            updater = _Updater(folder, self._fetcher, root, judge)
            updater.refresh()
            return updater

        self._updater = self._told(refreshed)

    def _told(self, ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except exceptions.DownloadHTTPError as error:
            raise SourceError(str(error), status=error.status_code) from error
        except exceptions.DownloadError as error:
            raise self._fetcher.failed or SourceError(str(error)) from error
        except RepositoryError as error:
            raise MetadataError(f"{type(error).__name__.removesuffix('Error')}: {error}") from error

    @property
    def expires(self) -> float:
        """When the timestamp ends, in seconds since the epoch."""
        return self._updater.timestamp.expires.timestamp()

    @property
    def issued(self) -> int:
        """When it says it was made, in seconds since the epoch; 0 where it does not."""
        return issued(self._updater.timestamp)

    @property
    def issued_by(self) -> list[str]:
        """The ids of the keys that it is signed with."""
        with durable.reader(self._folder / "timestamp.json") as file:
            data = file.read(MAX_TIMESTAMP_BYTES)
        return self._told(lambda: self._updater.signers(Timestamp.type, data))

    def find(self, path: str) -> TargetFile | None:
        """What the responsible role says of a file; None where it has none of that name.

        Raises:
            MetadataError, SourceError, OSError: as `__init__`.
        """
        return self._told(lambda: self._updater.get_targetinfo(path))

    def document(self, path: str) -> bytes | None:
        """A small file, whole and verified; None where there is none.

        Raises:
            MetadataError, SourceError, OSError: as `__init__`.
        """
        info = self.find(path)
        if info is None:
            return None
        if info.length > MAX_DOCUMENT_BYTES:
            raise MetadataError(f"{path} has {info.length} bytes; at most {MAX_DOCUMENT_BYTES} are read")
        data = source.read(self._origin, place(info), MAX_DOCUMENT_BYTES)
        self._told(lambda: info.verify_length_and_hashes(data))
        return data


def root_of(data: bytes) -> Root:
    """What a root file says; nothing is verified.

    Raises:
        MetadataError: it is none.
    """
    return _parsed(data, Root)


def timestamp_of(data: bytes) -> Timestamp:
    """What a timestamp.json says; nothing is verified.

    Raises:
        MetadataError: it is none.
    """
    return _parsed(data, Timestamp)


def _parsed(data: bytes, kind: type[Role]) -> Role:
    try:
        signed = Metadata.from_bytes(data).signed
    except RepositoryError as error:
        raise MetadataError(str(error)) from error
    if not isinstance(signed, kind):
        raise MetadataError(f"is signed as {signed.type}; expected {kind.type}")
    return signed


def place(info: TargetFile) -> str:
    """Where a file lies in the repository: its name begins with its hash."""
    folder, _, name = info.path.rpartition("/")
    return f"{TARGETS}{folder}/{sha256_of(info)}.{name}"


def sha256_of(info: TargetFile) -> str:
    """The SHA-256 of a file, in hex.

    Raises:
        MetadataError: its role names none.
    """
    sha256 = info.hashes.get("sha256", "")
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise MetadataError(f"{info.path} has no SHA-256")
    return str(sha256)
