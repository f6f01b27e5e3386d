"""A device of a fleet: rounds that look for news, fetch it, hand it over to what keeps declared models, and see how it does.

TUF decides what is to run; the package's own signature is checked where every package's is (F-9), by `edge.deploy`, which
tries, swaps, proves and takes back. What is declared here is one file, so that a kill at any moment leaves the old
declaration or the new one.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge import durable
from edge.clock import Clock
from edge.deploy import folder
from edge.deploy.declaration import Declaration, Together
from edge.deploy.deployments import Deployments
from edge.deploy.managed import Managed
from edge.errors import DeclarationError, FleetError
from edge.fleet import document as documents
from edge.fleet import state as states
from edge.fleet import times
from edge.fleet.document import Document, DocumentFault
from edge.fleet.membership import Outcome, Settings
from edge.fleet.packages import DamagedError, Packages, Wanted
from edge.fleet.source import METADATA, Source
from edge.fleet.state import Arrived, FleetState
from edge.serving.scheduler import Caller, Nobody
from edge.text import printable

if TYPE_CHECKING:
    from edge.fleet.metadata import Trusted

log = logging.getLogger(__name__)

STATE_FILE = "state.json"
TUF_FOLDER = "tuf"  # of metadata that was found good
PACKAGES_FOLDER = "packages"  # of archives
TIMESTAMP = METADATA + "timestamp.json"
_BY_ANOTHER = "it switches together with "  # begins why an alias does not serve where that is another's fault
MAX_TIMESTAMP_BYTES = 16 << 10  # of timestamp.json, as a poll reads it


@dataclass(frozen=True)
class _Seen:
    """What the last completed round of this run began with (F-2): the repository, and the ETag and SHA-256 of its timestamp.json."""

    repository: str = ""
    etag: str = ""
    sha256: str = ""


class Fleet:
    """One device. Rounds are run one at a time, from any thread."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        pay: Callable[[int], None] = lambda count: None,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """`pay` is called with each count of bytes that came, and may wait; `on_outcome` once a deployment, as it ends here."""
        self.name = settings.fleet
        self._settings = settings
        self._clock = clock
        self._on_outcome = on_outcome
        self._round = threading.Lock()
        self._packages = Packages(settings.folder / PACKAGES_FOLDER, pay)
        self._deployments: Deployments | None = None
        self._whole_due = 0.0  # monotonic: when everything is looked at again, news or none
        self._ends = 0.0  # when the timestamp of the last completed round ends
        self._seen = _Seen()
        self.judged = times.Judged(0.0, "")
        self.lost = False  # the state could not be read, and no round went through since
        self.state = self._read()
        self.refused: dict[str, str] = {}  # by alias: why what the fleet wants does not serve
        self.pinned: tuple[str, ...] = ()
        self.switching = False  # declarations are being brought about

    def _read(self) -> FleetState:
        path = self._settings.folder / STATE_FILE
        try:
            with durable.reader(path) as file:
                return states.parse(file.read(states.MAX_STATE_BYTES + 1))
        except FileNotFoundError:
            return FleetState()
        except (OSError, states.StateFault) as error:
            log.error("the fleet's state %s %s; everything is looked at anew", path, error)
            self.lost = True
            return FleetState()

    def _save(self) -> None:
        """Make what is in memory what a start would find; FleetError where it cannot be written."""
        try:
            durable.write_file(self._settings.folder / STATE_FILE, states.to_bytes(self.state))
        except OSError as error:
            raise FleetError(f"the fleet's state cannot be written: {durable.why(error)}") from error

    def declared(self) -> Mapping[str, Declaration] | None:
        """What the fleet declares now, for `Deployments`; None where that is not known."""
        if self.lost:
            return None
        state, pinned = self.state, self._of_models_d()
        models = {alias: one for alias, one in state.models.items() if alias not in pinned}
        together = None
        if len(models) > 1 and state.rollback:
            text = repr(sorted((alias, one.sha256) for alias, one in models.items()))
            together = Together(hashlib.sha256(text.encode()).hexdigest()[:16], tuple(sorted(models)))
        return {alias: Declaration(self._path(one), deployment=together) for alias, one in models.items()}

    def _of_models_d(self) -> frozenset[str]:
        """Aliases that models.d declares (F-11); it is `Deployments` that says where it cannot be read."""
        try:
            return frozenset(folder.read(self.deployments.models_path) or {})
        except DeclarationError:
            return frozenset()

    def _path(self, one: Arrived) -> str:
        return str(self._packages.path(one.sha256))

    def serve(self, deployments: Deployments) -> None:
        """From now on rounds hand over to `deployments`."""
        self._deployments = deployments

    @property
    def deployments(self) -> Deployments:
        """What brings declarations about."""
        assert self._deployments is not None, "serve() comes first"  # noqa: S101 - an order that app.py keeps
        return self._deployments

    # --- rounds --------------------------------------------------------------------

    def round(self, source: Source, repository: str, caller: Caller | None = None) -> bool:
        """Look for news, and bring them about; false where there is none.

        Raises:
            EdgeError: the round is to be run again; what serves serves on.
            OSError: likewise.
        """
        with self._round:
            self._look()
            self.judged = times.judge(
                self._clock.now(),
                synchronised=self._clock.synchronised(),
                build_date=self._settings.build_date,
                issued=self.state.issued,
            )
            seen = self._seen
            same = repository == seen.repository and self._clock.monotonic() < self._whole_due
            with source.open(TIMESTAMP, most=MAX_TIMESTAMP_BYTES, etag=seen.etag if same else "") as got:
                timestamp = b"" if got.unchanged else b"".join(got.chunks())
                etag = got.etag
            digest = hashlib.sha256(timestamp).hexdigest()
            if same and (got.unchanged or digest == seen.sha256):
                self._check_fresh()
                return False
            self._seen = _Seen()
            self._whole(source, timestamp, caller or Nobody())
            self._seen = _Seen(repository, etag, digest)
            self._whole_due = self._clock.monotonic() + times.WHOLE_SECONDS
            self._save()
            return True

    def _check_fresh(self) -> None:
        """Nothing new is fine until what is there has ended: then somebody may be holding news back."""
        if self.judged.at >= self._ends:
            raise FleetError("the repository offers nothing newer than a timestamp.json that has expired")

    def _whole(self, source: Source, timestamp: bytes, caller: Caller) -> None:
        from edge.fleet.metadata import Trusted

        self._make_folders()
        trusted = Trusted(self._settings.folder / TUF_FOLDER, source, self._root(), self.judged.at, timestamp)
        self._ends = trusted.expires
        self.state.issued = max(self.state.issued, trusted.issued)
        name = f"fleets/{self._settings.fleet}/models.json"
        data = trusted.document(name)
        if data is None:
            raise FleetError(f"the repository has no document for this fleet: {name}")
        try:
            document = documents.parse(data)
        except DocumentFault as fault:
            raise FleetError(f"{name} {fault}") from None
        self._bring(document, trusted, source, caller)

    def _make_folders(self) -> None:
        folders = durable.DurableFolders(self._settings.folder.parent)
        for name in (TUF_FOLDER, TUF_FOLDER + "/root_history", PACKAGES_FOLDER):
            folders.make(self._settings.folder / name)

    def _root(self) -> bytes:
        try:
            with durable.reader(self._settings.root.resolve()) as file:
                return file.read(64 << 10)
        except OSError as error:
            raise FleetError(f"the root of trust {self._settings.root} cannot be read: {durable.why(error)}") from None

    def _bring(self, document: Document, trusted: "Trusted", source: Source, caller: Caller) -> None:
        """Have serve what a document means for this device."""
        chosen = documents.chosen(document, self._settings.device)
        pinned = self._of_models_d()
        self.pinned = tuple(sorted(pinned & chosen.keys()))
        refused: dict[str, str] = {}
        models: dict[str, Arrived] = {}
        places: dict[str, Wanted] = {}
        for alias, package in chosen.items():
            if alias in pinned:
                continue
            wanted = _wanted(trusted, package)
            if wanted is None:
                refused[alias] = f"{package} is not in the repository"
            elif wanted.sha256 in self.state.bad:
                refused[alias] = f"{package} is not tried again: {self.state.bad[wanted.sha256]}"
            else:
                models[alias], places[alias] = Arrived(package, wanted.sha256), wanted
                continue
            if alias in self.state.models:
                models[alias] = self.state.models[alias]
        if refused and document.rollback:
            self._end(document.deployment, chosen, refused)
            return
        if models == self.state.models and all(self._serves(alias, one) for alias, one in models.items()):
            self._rename(document, chosen, refused)
            return
        self._tidy(one.sha256 for one in models.values())
        for alias, wanted in places.items():
            one = models[alias]
            damaged = one == self.state.models.get(alias) and not self._serves(alias, one)
            if damaged or not self._is_kept(alias, one):
                try:
                    self._packages.fetch(wanted, source)
                except DamagedError as error:
                    raise FleetError(f"{models[alias].package}: {error}") from error
        self.switching = True
        try:
            self._switch(document, models, chosen, refused, caller)
        finally:
            self.switching = False

    def _rename(self, document: Document, chosen: Mapping[str, str], refused: dict[str, str]) -> None:
        """A deployment that asks for what serves already, or is on trial."""
        is_new = document.deployment != self.state.deployment
        self.state.deployment = document.deployment
        self.refused, self.lost = refused, False
        if is_new and self.state.proved:
            self._end(document.deployment, chosen, refused)

    def _apply(self, names: set[str], caller: Caller) -> list[Managed]:
        """Have declarations brought about; a name that is declared nowhere and serves nowhere needs nothing."""
        known = [name for name in sorted(names) if name in self.state.models or self.deployments.get(name) is not None]
        return self.deployments.apply(known, caller) if known else []

    def _serves(self, alias: str, one: Arrived) -> bool:
        managed = self.deployments.get(alias)
        serving = managed.state.serving if managed is not None and managed.serves else None
        return serving is not None and serving.package == self._path(one)

    def _is_kept(self, alias: str, one: Arrived) -> bool:
        """Whether the package store has what an archive was accepted from."""
        managed = self.deployments.get(alias)
        path = self._path(one)
        return managed is not None and any(version.package == path for version in managed.state.versions())

    def _switch(
        self,
        document: Document,
        models: dict[str, Arrived],
        chosen: Mapping[str, str],
        refused: dict[str, str],
        caller: Caller,
    ) -> None:
        """Declare, and have the declarations brought about."""
        names = {*models, *self.state.models}
        self.state.begin(document.deployment, models, rollback=document.rollback)
        before = self.state.before
        self._save()
        self.lost = False
        log.info("fleet %s: deployment %s", self._settings.fleet, document.deployment)
        passing = False
        for one in self._apply({*names, *before}, caller):
            if one.refused and one.name in models:
                refused[one.name] = one.refused
                passing = passing or one.passing
                blamed = not (one.passing or one.refused.startswith(_BY_ANOTHER))
                if blamed and models[one.name] != before.get(one.name):
                    self.state.refuse(models[one.name].sha256, one.refused)
        if passing:
            self._go_back(refused)
            raise FleetError(f"deployment {document.deployment}: {_words(refused)}")
        if refused and document.rollback:
            self._go_back(refused)
            self._end(document.deployment, chosen, refused)
        elif refused:
            kept = {alias: one for alias, one in before.items() if alias in refused}
            self.state.models = {alias: one for alias, one in models.items() if alias not in refused} | kept
        self.refused = refused
        self._save()
        self._tidy()

    def _go_back(self, refused: dict[str, str]) -> None:
        """Declare again what was declared before, and have it serve."""
        names = {*self.state.models, *self.state.before}
        self.state.go_back()
        self.refused = dict(refused)
        self._save()
        for one in self._apply(names, Nobody()):
            if one.refused:
                log.error("fleet %s: %s: what served before: %s", self._settings.fleet, one.name, one.refused)
        self._tidy()

    # --- proof ---------------------------------------------------------------------

    def look(self) -> bool:
        """See whether a deployment on trial has proved itself, or was taken back; called now and then. True where it has ended.

        Raises:
            FleetError: what came of it cannot be written down yet.
        """
        if not self.state.proved and self._round.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._round.release()
            return self.state.proved
        return False

    def _look(self) -> None:
        state = self.state
        if state.proved:
            return
        chosen = {alias: one.package for alias, one in state.models.items()}
        failed = {alias: why for alias, one in state.models.items() if (why := self._taken_back(alias, one))}
        if failed:
            name = state.deployment
            for alias, why in failed.items():
                state.refuse(state.models[alias].sha256, why)
            if state.rollback:
                self._go_back(failed)
            else:
                before = {alias: state.before[alias] for alias in failed if alias in state.before}
                state.models = {a: one for a, one in state.models.items() if a not in failed} | before
                self._save()
            self._end(name, chosen, failed)
        elif all(self._has_proved(alias, one) for alias, one in state.models.items()):
            self._end(state.deployment, chosen, self.refused)
            state.proved, state.before, state.deployment_before = True, {}, ""
            self._save()
            self._tidy()

    def _taken_back(self, alias: str, one: Arrived) -> str:
        """Why an alias is not on trial any more; empty where it is, or has proved itself."""
        managed, path = self.deployments.get(alias), self._path(one)
        if managed is None:
            return ""
        serving = managed.state.serving
        if serving is not None and serving.package == path:
            return ""
        return next((bad.reason for bad in managed.state.bad if bad.package == path), "")

    def _has_proved(self, alias: str, one: Arrived) -> bool:
        managed = self.deployments.get(alias)
        if managed is None or managed.state.trying is not None or managed.state.current is None:
            return False
        return managed.state.current.package == self._path(one)

    def _end(self, deployment: str, models: Mapping[str, str], refused: Mapping[str, str]) -> None:
        """A deployment has ended here."""
        self.refused = dict(refused)
        if refused:
            log.error("fleet %s: deployment %s failed: %s", self._settings.fleet, deployment, _words(refused))
        else:
            log.info("fleet %s: deployment %s has proved itself", self._settings.fleet, deployment)
        mark = f"{deployment} {'failed' if refused else 'ok'}"
        if mark != self.state.reported:
            self._on_outcome(Outcome(deployment, models, refused))
            self.state.reported = mark
            self._save()

    def _tidy(self, further: Iterable[str] = ()) -> None:
        """Archives go once the package store has what they were accepted from (F-8)."""
        keep = {one.sha256 for alias, one in self.state.models.items() if not self._is_kept(alias, one)} | set(further)
        try:
            self._packages.tidy(keep)
        except OSError as error:
            log.warning("archives of packages cannot be tidied: %s", durable.why(error))


def _wanted(trusted: "Trusted", package: str) -> Wanted | None:
    from edge.fleet.metadata import place, sha256_of

    info = trusted.find(package)
    return Wanted(place(info), info.length, sha256_of(info)) if info is not None else None


def _words(refused: Mapping[str, str]) -> str:
    return printable("; ".join(f"{alias}: {why}" for alias, why in sorted(refused.items())), 600)
