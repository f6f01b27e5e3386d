"""A repository's files: metadata as it was first read, overlaid with the changes about to be written."""

import contextlib
import datetime
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, TargetFile, Targets

from edge.fleet import document as documents
from edge.fleet.change import TIMESTAMP, Change
from edge.fleet.document import Document
from edge.fleet.files import ChangedError, Files, FleetRepositoryError, MissingFileError
from edge.fleet.metadata import sha256_of
from edge.text import shown

TOP = ("root", "targets", "snapshot", "timestamp")
PACKAGES = "packages"  # the role of whoever makes packages


class Contents:
    """Files below `metadata` and `targets`, and a `change` of them that `write` writes."""

    def __init__(self, files: Files, now: datetime.datetime) -> None:
        self.files = files
        self._now = now.replace(microsecond=0)
        self._read: dict[str, bytes] = {}  # metadata, by file name
        self._names: frozenset[str] | None = None  # of metadata
        self.change = Change()

    def versions(self, role: str) -> list[int]:
        """The versions of a role's file, the newest last."""
        names = [*self._there(), *self.change.metadata]
        return sorted(
            {int(n.partition(".")[0]) for n in names if n.endswith(f".{role}.json") and n.partition(".")[0].isdigit()}
        )

    def _there(self) -> frozenset[str]:
        """The names of metadata. The timestamp is read before: what is listed may be newer than it, and never older."""
        if self._names is None:
            with contextlib.suppress(MissingFileError):
                self._read[TIMESTAMP] = self.files.read(f"metadata/{TIMESTAMP}")
            self._names = self._list()
        return self._names

    def _list(self) -> frozenset[str]:
        paths = (entry.path.removeprefix("metadata/") for entry in self.files.entries("metadata/"))
        return frozenset(path for path in paths if "/" not in path)

    def at(self, name: str) -> str:
        """A metadata file's name for messages."""
        return self.files.at(f"metadata/{name}")

    def data(self, role: str, version: int | None = None) -> bytes:
        """A role's file, the newest where no version is named.

        Raises:
            FleetRepositoryError: there is none.
        """
        name = self._name(role, version)
        if name in self.change.metadata:
            return self.change.metadata[name]
        self._there()
        if name not in self._read:
            self._read[name] = self.files.read(f"metadata/{name}")
        return self._read[name]

    def latest(self, role: str, version: int | None = None) -> Metadata[Any]:
        """A role's metadata.

        Raises:
            FleetRepositoryError: there is none, or it is damaged.
        """
        try:
            return Metadata.from_bytes(self.data(role, version))
        except (RepositoryError, ValueError, KeyError, TypeError) as error:
            raise FleetRepositoryError(f"{self.at(self._name(role, version))} is damaged: {error}") from None

    def _name(self, role: str, version: int | None = None) -> str:
        """The name of a role's file, the newest where no version is named.

        Raises:
            FleetRepositoryError: there is none.
        """
        if role == "timestamp":
            return TIMESTAMP
        versions = self.versions(role)
        if not versions:
            where = self.files.at("metadata")
            raise FleetRepositoryError(f"there is no {role}.json in {where}; `fleet init` makes a repository")
        return f"{version or versions[-1]}.{role}.json"

    def _role(self, fleet: str, version: int | None = None) -> Metadata[Any]:
        """A fleet's role; an empty one where its operator has yet to sign it for the first time."""
        return self.latest(fleet, version) if self.versions(fleet) else Metadata(Targets(expires=self._now))

    def fleets(self) -> list[str]:
        """The fleets, by name."""
        delegations = self.latest("targets").signed.delegations
        return sorted(set(delegations.roles) - {PACKAGES}) if delegations is not None else []

    def document(self, fleet: str, version: int | None = None) -> Document | None:
        """A fleet's document; None where nothing was deployed yet.

        Raises:
            FleetRepositoryError: there is no such fleet, or the document is damaged.
        """
        if fleet not in self.fleets():
            known = ", ".join(self.fleets()) or "none"
            raise FleetRepositoryError(
                f"there is no fleet {shown(fleet)}; there are: {known}; `fleet add-fleet` adds one"
            )
        target = self._role(fleet, version).signed.targets.get(f"fleets/{fleet}/models.json")
        if target is None:
            return None
        name = self.place(target)
        try:
            given = self.change.targets.get(name)
            return documents.parse(given if isinstance(given, bytes) else self.files.read(f"targets/{name}"))
        except MissingFileError as error:
            raise FleetRepositoryError(f"the document of {fleet} {error}") from None
        except documents.DocumentFault as fault:
            raise FleetRepositoryError(f"the document of {fleet} {fault}") from None

    def packages(self) -> dict[str, TargetFile]:
        """The published packages, by path."""
        found: dict[str, TargetFile] = dict(self.latest(PACKAGES).signed.targets)
        return found

    @staticmethod
    def place(target: TargetFile) -> str:
        folder, _, name = target.path.rpartition("/")
        return f"{folder}/{sha256_of(target)}.{name}"

    def write(self) -> None:
        """Write the change, in the safe order.

        Raises:
            FleetRepositoryError: something could not be written; what was before is in force.
            ChangedError: so it is because somebody else has changed the repository meanwhile.
        """
        self.change.write(self.files, self._check_unchanged, first=TIMESTAMP not in self._there())
        self.change, self._names, self._read = Change(), None, {}

    def _check_unchanged(self) -> None:
        try:
            timestamp = self.files.read(f"metadata/{TIMESTAMP}")
        except MissingFileError:
            timestamp = None
        if self._list() != self._there() or timestamp != self._read.get(TIMESTAMP):
            raise ChangedError(self.files.at("metadata"))
