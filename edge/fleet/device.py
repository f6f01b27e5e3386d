"""A device of a fleet: rounds that look for news, fetch it, and hand it over to what is declared here (F-2 to F-11).

TUF decides what is to run; the package's own signature is checked where every package's is (F-9), by `edge.deploy`.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge import durable
from edge.clock import Clock
from edge.deploy.declaration import Declaration
from edge.deploy.deployments import Deployments
from edge.errors import FleetError
from edge.fleet import document as documents
from edge.fleet import times
from edge.fleet.declared import Declared
from edge.fleet.document import Document, DocumentFault
from edge.fleet.membership import Outcome, Settings
from edge.fleet.packages import DamagedError, Packages, Wanted
from edge.fleet.source import METADATA, Source
from edge.fleet.state import Arrived, FleetState
from edge.package.trust_folder import weakness
from edge.serving.caller import Caller, Nobody

if TYPE_CHECKING:
    from edge.fleet.metadata import Trusted

log = logging.getLogger(__name__)

TUF_FOLDER = "tuf"  # of metadata that was found good
PACKAGES_FOLDER = "packages"  # of archives
TIMESTAMP = METADATA + "timestamp.json"
MAX_TIMESTAMP_BYTES = 16 << 10  # of timestamp.json, as a poll reads it
MAX_ROOT_BYTES = 64 << 10  # of the root of trust


@dataclass(frozen=True)
class _Seen:
    """What the last completed round of this run began with (F-2): the repository, and the ETag and SHA-256 of its timestamp.json.

    `here` is what on this device has decided on it besides.
    """

    repository: str = ""
    etag: str = ""
    sha256: str = ""
    here: tuple[object, ...] = ()


class Fleet:
    """One device. Rounds are run one at a time, from any thread."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        pay: Callable[[int], None] = lambda count: None,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """`pay` is called with each count of bytes that came, and may wait; `on_outcome` as in `Declared`."""
        self.name = settings.fleet
        self._settings = settings
        self._clock = clock
        self._round = threading.Lock()
        self._packages = Packages(settings.folder / PACKAGES_FOLDER, pay)
        self._here = Declared(settings, clock, self._packages, on_outcome)
        self._whole_due = 0.0  # monotonic: when everything is looked at again, news or none
        self._ends = 0.0  # when the timestamp of the last completed round ends
        self._seen = _Seen()
        self.judged = times.Judged(0.0, "")
        self.pinned: tuple[str, ...] = ()

    @property
    def state(self) -> FleetState:
        """What is remembered."""
        return self._here.state

    @property
    def refused(self) -> Mapping[str, str]:
        """By alias: why what the fleet wants does not serve."""
        return self._here.refused

    @property
    def switching(self) -> bool:
        """Whether declarations are being brought about."""
        return self._here.switching

    def declared(self) -> Mapping[str, Declaration] | None:
        """What the fleet declares now, for `Deployments`; None where that is not known."""
        return self._here.declared()

    def serve(self, deployments: Deployments) -> None:
        """From now on rounds hand over to `deployments`."""
        self._here.serve(deployments)

    # --- rounds --------------------------------------------------------------------

    def round(self, source: Source, repository: str, caller: Caller | None = None) -> bool:
        """Look for news, and bring them about; false where there is none.

        Raises:
            EdgeError: the round is to be run again; what serves serves on.
            OSError: likewise.
        """
        with self._round:
            self._here.look()
            self.judged = self._judge()
            seen = self._seen
            same = repository == seen.repository and self._clock.monotonic() < self._whole_due
            same = same and self._decisive() == seen.here
            with source.open(TIMESTAMP, most=MAX_TIMESTAMP_BYTES, etag=seen.etag if same else "") as got:
                timestamp = b"" if got.unchanged else b"".join(got.chunks())
                etag = got.etag
            digest = hashlib.sha256(timestamp).hexdigest()
            if same and (got.unchanged or digest == seen.sha256):
                self._check_fresh()
                return False
            self._seen = _Seen()
            self._whole(source, timestamp, caller or Nobody())
            self._here.save()
            self._seen = _Seen(repository, etag, digest, self._decisive())
            self._whole_due = self._clock.monotonic() + times.WHOLE_SECONDS
            return True

    def _decisive(self) -> tuple[object, ...]:
        """What on this device decides on the same news: models.d where it pins an alias, trust where it refuses a signer."""
        pinned = self._here.of_models_d() if self.pinned else ()
        return pinned, self._here.trust() if self.state.untrusted else ""

    def _judge(self) -> times.Judged:
        return times.judge(
            self._clock.now(),
            synchronised=self._clock.synchronised(),
            build_date=self._settings.build_date,
            issued=self.state.issued,
        )

    def _judge_by(self, keys: Collection[str], threshold: int) -> float:
        """The moment that expiry is judged by, where root names these keys for timestamps."""
        state = self.state
        if not times.stands(state.issued_by, keys, threshold):
            log.warning("fleet: the repository's newest date came by a key that was replaced, and counts no more")
            state.issued, state.issued_by = 0, []
            self.judged = self._judge()
        return self.judged.at

    def _check_fresh(self) -> None:
        """Nothing new is fine until what is there has ended: then somebody may be holding news back."""
        if self.judged.at >= self._ends:
            raise FleetError("the repository offers nothing newer than a timestamp.json that has expired")

    def _whole(self, source: Source, timestamp: bytes, caller: Caller) -> None:
        from edge.fleet.metadata import Trusted

        self._make_folders()
        trusted = Trusted(self._settings.folder / TUF_FOLDER, source, self._root(), self._judge_by, timestamp)
        self._ends = trusted.expires
        if trusted.issued >= self.state.issued:
            self.state.issued, self.state.issued_by = trusted.issued, trusted.issued_by
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
        """The root of trust, which nobody but root and this user could change, as the trusted roots of signers (S-4)."""
        name = f"the root of trust {self._settings.root}"
        try:
            real = Path(os.path.realpath(self._settings.root, strict=True))
            found = weakness(real, os.geteuid())
            with durable.reader(real) as file:
                data = file.read(MAX_ROOT_BYTES + 1)
        except OSError as error:
            raise FleetError(f"{name} cannot be read: {durable.why(error)}") from None
        if found:
            raise FleetError(f"{name}: {found}")
        if len(data) > MAX_ROOT_BYTES:
            raise FleetError(f"{name} is larger than {MAX_ROOT_BYTES} bytes")
        return data

    def _bring(self, document: Document, trusted: "Trusted", source: Source, caller: Caller) -> None:
        """Have serve what a document means for this device."""
        here = self._here
        chosen = documents.chosen(document, self._settings.device)
        pinned = here.of_models_d()
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
            elif bad := here.bad(wanted.sha256):
                refused[alias] = f"{package} is not tried again: {bad}"
            else:
                models[alias], places[alias] = Arrived(package, wanted.sha256), wanted
                continue
            if alias in self.state.models:
                models[alias] = self.state.models[alias]
        if refused and document.rollback:
            here.end(document.deployment, chosen, refused)
            return
        if models == self.state.models and all(here.serves(alias, one) for alias, one in models.items()):
            here.rename(document, chosen, refused)
            return
        here.tidy(one.sha256 for one in models.values())
        for alias, wanted in places.items():
            one = models[alias]
            damaged = one == self.state.models.get(alias) and not here.serves(alias, one)
            if damaged or not here.is_kept(alias, one):
                try:
                    self._packages.fetch(wanted, source)
                except DamagedError as error:
                    raise FleetError(f"{models[alias].package}: {error}") from error
        here.switch(document, models, chosen, refused, caller)

    def look(self) -> bool:
        """See whether a deployment on trial has proved itself, or was taken back; called now and then. True where it has ended.

        Raises:
            FleetError: what came of it cannot be written down yet.
        """
        if not self._round.acquire(blocking=False):
            return False
        try:
            before = self.state.proved
            self._here.look()
            return self.state.proved and not before
        finally:
            self._round.release()


def _wanted(trusted: "Trusted", package: str) -> Wanted | None:
    from edge.fleet.metadata import place, sha256_of

    info = trusted.find(package)
    return Wanted(place(info), info.length, sha256_of(info)) if info is not None else None
