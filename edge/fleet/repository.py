"""The operator's side of a repository: which roles each command signs, with which keys.

Packages and documents come first, then the roles that name them, then snapshot and timestamp: whoever reads in between
sees the state before. Each act asks for the keys of the roles that it changes, and no others; where the online key is
elsewhere, `timestamp` takes over there what is new.
"""

import datetime
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from edge.fleet import document as documents
from edge.fleet.change import TIMESTAMP
from edge.fleet.contents import PACKAGES, TOP, Contents
from edge.fleet.document import FLEET, Document
from edge.fleet.files import Files, FleetRepositoryError
from edge.fleet.keys import Keys
from edge.fleet.metadata import ISSUED, issued, sha256_of
from edge.text import shown

DAYS = {"root": 3650, "targets": 365, "snapshot": 30, "timestamp": 14}
ROLE_DAYS = 365  # of a role that signs packages or a fleet's document
KEYID_CHARACTERS = 8  # by which a key can be told
ROOT_KEYS, ROOT_THRESHOLD, TARGETS_KEYS = 3, 2, 2
_SERIALIZER = JSONSerializer(compact=True)


class FleetRepository(Contents):
    """A repository, and acts on it. They gather in `change`; `write` writes them."""

    def __init__(self, files: Files, keys: Keys, now: datetime.datetime) -> None:
        super().__init__(files, now)
        self._keys = keys
        self.unsigned: list[str] = []  # roles whose online key is not here

    # --- acts ----------------------------------------------------------------------

    def init(self) -> None:
        """A new repository, with keys: root 2 of 3, targets 2 of 2, one for packages, one online."""
        if self._there():
            raise FleetRepositoryError(f"{self.files.at('metadata')} is not empty: a repository is made once")
        root = Root(consistent_snapshot=True, expires=self._now)
        root.roles["root"].threshold, root.roles["targets"].threshold = ROOT_THRESHOLD, TARGETS_KEYS
        for n in range(ROOT_KEYS):
            root.add_key(self._key(f"root-{n + 1}"), "root")
        for n in range(TARGETS_KEYS):
            root.add_key(self._key(f"targets-{n + 1}"), "targets")
        for role in ("snapshot", "timestamp"):
            root.add_key(self._key("online"), role)
        targets = Targets(expires=self._now, delegations=Delegations({}, {}))
        self._sign("root", Metadata(root), raise_version=False)
        self._sign("targets", Metadata(targets), raise_version=False)
        self._delegate(PACKAGES, "packages/*/*", self._key(PACKAGES), raise_version=False)
        self._sign("snapshot", Metadata(Snapshot(expires=self._now)), raise_version=False)
        self._online(first=True)

    def add_fleet(self, name: str, public: Key | None = None) -> None:
        """A fleet; `public` is its operator's key, else one is made here."""
        if name in (*TOP, PACKAGES) or not FLEET.fullmatch(name) or len(name) > 63:
            raise FleetRepositoryError(
                f"{shown(name)} is no fleet's name; expected 1 to 63 letters, digits, '-' and '_'"
            )
        if name in self.fleets():
            raise FleetRepositoryError(f"there is a fleet {name} already")
        self._delegate(name, f"fleets/{name}/*", public or self._key(f"fleet-{name}"), foreign=public is not None)
        self._online()

    def publish(self, archive: Path, name: str, version: str) -> str:
        """A package; returns the path that documents name it by."""
        path = f"packages/{name}/{version}.tar.gz"
        if not documents.PACKAGE.fullmatch(path):
            raise FleetRepositoryError(
                f"the package's name {shown(name)} and version {shown(version)} make no path; expected letters, digits and single - _ . between"
            )
        try:
            target = TargetFile.from_file(path, str(archive), ["sha256"])
        except (OSError, RepositoryError, ValueError) as error:
            raise FleetRepositoryError(f"{archive}: {error}") from None
        known = self.packages().get(path)
        if known is not None and known.hashes != target.hashes:
            raise FleetRepositoryError(
                f"{path} is published with other bytes (SHA-256 {sha256_of(known)}); give the package another version"
            )
        role = self.latest(PACKAGES)
        role.signed.targets[path] = target
        self.change.targets[self.place(target)] = archive
        self._sign(PACKAGES, role)
        self._online()
        return path

    def deploy(self, fleet: str, document: Document) -> None:
        """A fleet's document; every package in it is published."""
        self.document(fleet)
        published = self.packages()
        for alias, rules in document.models.items():
            for rule in rules:
                if rule.package not in published:
                    known = ", ".join(sorted(published)) or "none"
                    raise FleetRepositoryError(f"{alias}: {rule.package} is not published; published: {known}")
        data = documents.to_bytes(document)
        documents.parse(data)
        target = TargetFile.from_data(f"fleets/{fleet}/models.json", data, ["sha256"])
        role = self._role(fleet)
        role.signed.targets[target.path] = target
        self.change.targets[self.place(target)] = data
        self._sign(fleet, role, raise_version=bool(self.versions(fleet)))
        self._online()

    def issued(self) -> int:
        """When the timestamp in force was made, in seconds since the epoch; 0 where there is none."""
        return issued(self.latest("timestamp").signed) if TIMESTAMP in self._there() else 0

    def timestamp(self) -> None:
        """A new timestamp, over a new snapshot where a role is newer than in it: the daily duty."""
        self._online(required=True)

    def renew(self, role: str) -> None:
        """Sign a role again as it is, for another term."""
        known = [*TOP, PACKAGES, *self.fleets()]
        if role not in known:
            raise FleetRepositoryError(f"there is no role {shown(role)}; there are: {', '.join(known)}")
        if role not in ("snapshot", "timestamp"):
            self._sign(role, self.latest(role))
        self._online(first=role == "snapshot")

    def rotate(self, role: str, old: Sequence[str] | None, new: Sequence[str] = ()) -> list[str]:
        """Other keys for a role in place of `old`, the first of its keys where there is none; returns their names.

        They are made here, but for `new`, which are among the keys.
        """
        root, targets = self.latest("root"), self.latest("targets")
        roles = root.signed.roles if role in TOP else targets.signed.delegations.roles
        if role not in roles:
            raise FleetRepositoryError(
                f"there is no role {shown(role)}; there are: {', '.join([*TOP, PACKAGES, *self.fleets()])}"
            )
        keyids = list(roles[role].keyids)
        going = list(dict.fromkeys(self._one_of(role, keyids, name) for name in old)) if old else keyids[:1]
        if len(new) > len(going):
            raise FleetRepositoryError(f"{len(new)} keys cannot come where {len(going)} go")
        for name in new:
            if self._keys.public(name).keyid in keyids:
                raise FleetRepositoryError(f"the key {shown(name)} is one of {role}'s already")
        holder, coming = root if role in TOP else targets, {name: self._keys.public(name) for name in new}
        for _ in range(len(going) - len(coming)):
            name = next(f"{role}-{n}" for n in range(2, 1000) if not self._keys.has(f"{role}-{n}"))
            coming[name] = self._keys.make(name)
        for keyid in going:
            holder.signed.revoke_key(keyid, role)
        for key in coming.values():
            holder.signed.add_key(key, role)
        if role in TOP:
            self._sign("root", root, also=keyids if role == "root" else ())
        else:
            self._sign("targets", targets)
        if role not in ("root", "snapshot", "timestamp"):
            self._sign(role, self.latest(role))
        self._online(first=role in ("snapshot", "timestamp"))
        return list(coming)

    def _one_of(self, role: str, keyids: Sequence[str], name: str) -> str:
        """The id of a role's key by its name or, where its public half is lost as well, by the beginning of its id.

        Raises:
            FleetRepositoryError: it is none of the role's.
        """
        if self._keys.has(name):
            found = [self._keys.public(name).keyid]
        else:
            found = [keyid for keyid in keyids if len(name) >= KEYID_CHARACTERS and keyid.startswith(name)]
        if len(found) != 1 or found[0] not in keyids:
            known = ", ".join(keyid[:KEYID_CHARACTERS] for keyid in keyids)
            raise FleetRepositoryError(f"the key {shown(name)} is none of {role}'s, whose ids begin with {known}")
        return found[0]

    # --- signing -------------------------------------------------------------------

    def _key(self, name: str) -> Key:
        return self._keys.public(name) if self._keys.has(name) else self._keys.make(name)

    def _delegate(
        self, name: str, pattern: str, key: Key, *, raise_version: bool = True, foreign: bool = False
    ) -> None:
        targets = self.latest("targets")
        targets.signed.delegations.roles[name] = DelegatedRole(name, [], 1, True, paths=[pattern])
        targets.signed.add_key(key, name)
        self._sign("targets", targets, raise_version=raise_version)
        if foreign:
            self.unsigned.append(name)
        else:
            left = self.versions(name)  # by a command that broke off before the targets named it
            role = Metadata(Targets(left[-1] + 1 if left else 1, expires=self._now))
            self._sign(name, role, raise_version=False)

    def _verifier(self, role: str) -> Any:
        return self.latest("root").signed if role in TOP else self.latest("targets").signed

    def _sign(
        self, role: str, metadata: Metadata[Any], *, raise_version: bool = True, also: Iterable[str] = ()
    ) -> None:
        """Sign a role's next version with the keys that are here.

        Raises:
            FleetRepositoryError: they are not enough.
        """
        signed = metadata.signed
        before = TIMESTAMP if role == "timestamp" else f"{signed.version}.{role}.json"
        signed.version += raise_version and before not in self.change.metadata  # an act makes one version of a role
        signed.expires = self._now + datetime.timedelta(days=DAYS.get(role, ROLE_DAYS))
        holder = signed if role == "root" else self._verifier(role)
        asked = [*holder.get_delegated_role(role).keyids, *also]
        metadata.signatures.clear()
        for signer in self._keys.signers(dict.fromkeys(asked)):
            try:
                metadata.sign(signer, append=True)
            except UnsignedMetadataError as error:
                why = error.__cause__ or error
                raise FleetRepositoryError(
                    f"the key {self._keys.names()[signer.public_key.keyid]} does not sign: {type(why).__name__}: {why}".rstrip(
                        ": "
                    )
                ) from None
        try:
            holder.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            if role == "root" and raise_version:
                self.latest("root").signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except UnsignedMetadataError:
            need = holder.get_delegated_role(role).threshold
            raise FleetRepositoryError(
                f"{need} of the {len(set(asked))} keys of {role} must sign; {self._keys.folder} has {len(metadata.signatures)} of them"
            ) from None
        name = TIMESTAMP if role == "timestamp" else f"{signed.version}.{role}.json"
        self.change.metadata[name] = metadata.to_bytes(_SERIALIZER)

    def _online(self, *, first: bool = False, required: bool = False) -> None:
        """A snapshot of what is newer than in the last one, and a timestamp; where their key is elsewhere, it is left to `timestamp`."""
        root = self.latest("root").signed
        missing = [role for role in ("snapshot", "timestamp") if not self._keys.signers(root.roles[role].keyids)]
        if missing and not required:
            self.unsigned += missing
            return
        for role in ("root", "targets"):  # by these the others are judged
            self._verified(role)
        meta = {
            f"{role}.json": self._meta(role) for role in ("targets", PACKAGES, *self.fleets()) if self.versions(role)
        }
        snapshot = self.latest("snapshot")
        half = datetime.timedelta(days=DAYS["snapshot"] / 2)
        if first or meta != snapshot.signed.meta or snapshot.signed.expires - self._now < half:
            snapshot.signed.meta = meta
            self._sign("snapshot", snapshot)
        try:
            timestamp = self.latest("timestamp")
        except FleetRepositoryError:
            timestamp, raise_version = Metadata(Timestamp(expires=self._now)), False
        else:
            raise_version = True
        timestamp.signed.snapshot_meta = self._meta("snapshot")
        timestamp.signed.unrecognized_fields[ISSUED] = self._now.strftime("%Y-%m-%dT%H:%M:%SZ")
        self._sign("timestamp", timestamp, raise_version=raise_version)

    def _meta(self, role: str) -> MetaFile:
        data = self._verified(role)
        return MetaFile(self.versions(role)[-1], len(data), {"sha256": hashlib.sha256(data).hexdigest()})

    def _verified(self, role: str) -> bytes:
        """A role's newest file: whole, of the version that its name says, signed with the keys that are the role's now.

        Raises:
            FleetRepositoryError: it is not; nothing may be signed over it.
        """
        data, metadata, name = self.data(role), self.latest(role), self._name(role)
        path = self.at(name)
        if name != f"{metadata.signed.version}.{role}.json":
            raise FleetRepositoryError(
                f"{path} is version {metadata.signed.version} by its content; nothing is signed over it"
            )
        holders = [self._verifier(role)]
        if role == "root" and metadata.signed.version - 1 in self.versions(role):
            holders.append(self.latest(role, metadata.signed.version - 1).signed)
        try:
            for holder in holders:
                holder.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except (RepositoryError, ValueError) as error:
            raise FleetRepositoryError(
                f"{path} is not signed with {role}'s keys, and nothing is signed over it: {error}"
            ) from None
        return data
