"""What a fleet has declared on this device: brought about, proved or taken back, and told of (F-9 to F-12).

It is one file, so that a kill at any moment leaves the old declaration or the new one. `edge.deploy` tries, swaps, proves and
takes back; here is what that means for the deployment.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from edge import durable
from edge.clock import Clock
from edge.deploy import folder
from edge.deploy.declaration import Declaration, Together
from edge.deploy.deployments import Deployments
from edge.deploy.managed import Managed
from edge.errors import DeclarationError, FleetError
from edge.fleet import state as states
from edge.fleet.document import Document
from edge.fleet.membership import Outcome, Settings
from edge.fleet.packages import Packages
from edge.fleet.state import MAX_UNTOLD, Arrived, FleetState
from edge.package.trust_folder import mark
from edge.serving.caller import Caller, Nobody
from edge.text import printable

log = logging.getLogger(__name__)

STATE_FILE = "state.json"
_SET, _FREE = "synchronised", "free"  # of the clock
_BY_ANOTHER = "it switches together with "  # begins why an alias does not serve where that is another's fault


class Declared:
    """What is declared here. For one round or look at a time; reading is safe from any thread."""

    def __init__(
        self, settings: Settings, clock: Clock, packages: Packages, on_outcome: Callable[[Outcome], None]
    ) -> None:
        """`on_outcome` is called once a deployment, as it ends here; where it raises FleetError, it is called again later."""
        self._settings = settings
        self._clock = clock
        self._packages = packages
        self._on_outcome = on_outcome
        self._deployments: Deployments | None = None
        self._unsaved = False  # the file is not what is here: it could not be written
        self._said = ""  # of a report that cannot be kept, once
        self.lost = False  # the state could not be read, and no round went through since
        self.state = self._read()
        self.refused: dict[str, str] = {}  # by alias: why what the fleet wants does not serve
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

    def save(self) -> None:
        """Write the state file; FleetError if it cannot be written."""
        self._unsaved = True
        try:
            durable.write_file(self._settings.folder / STATE_FILE, states.to_bytes(self.state))
        except OSError as error:
            raise FleetError(f"the fleet's state cannot be written: {durable.why(error)}") from error
        self._unsaved = False

    def declared(self) -> Mapping[str, Declaration] | None:
        """What the fleet declares now, for `Deployments`; None where that is not known."""
        if self.lost:
            return None
        state, pinned = self.state, self.of_models_d()
        models = {alias: one for alias, one in state.models.items() if alias not in pinned}
        # What a deployment drops serves on until that has proved itself: if it fails, this is to serve again.
        dropped = {alias: one for alias, one in self._dropped().items() if alias not in pinned}
        together = None
        if len(models) > 1 and state.rollback:
            text = repr(sorted((alias, one.sha256) for alias, one in models.items()))
            together = Together(hashlib.sha256(text.encode()).hexdigest()[:16], tuple(sorted(models)))
        return {
            **{alias: Declaration(self._path(one)) for alias, one in dropped.items()},
            **{alias: Declaration(self._path(one), deployment=together) for alias, one in models.items()},
        }

    def _dropped(self) -> dict[str, Arrived]:
        """What was declared before a deployment that has yet to prove itself and goes back as a whole, and is not of that."""
        state = self.state
        if state.proved or not state.rollback:
            return {}
        return {alias: one for alias, one in state.before.items() if alias not in state.models}

    def of_models_d(self) -> frozenset[str]:
        """Aliases that models.d declares (F-11); it is `Deployments` that says where it cannot be read."""
        try:
            return frozenset(folder.read(self.deployments.models_path) or {})
        except DeclarationError:
            return frozenset()

    def _path(self, one: Arrived) -> str:
        return str(self._packages.path(one.sha256))

    def serve(self, deployments: Deployments) -> None:
        """From now on declarations are handed over to `deployments`."""
        self._deployments = deployments

    @property
    def deployments(self) -> Deployments:
        """What brings declarations about."""
        assert self._deployments is not None, "serve() comes first"  # noqa: S101 - an order that app.py keeps
        return self._deployments

    def serves(self, alias: str, one: Arrived) -> bool:
        """Whether a package serves under an alias."""
        managed = self.deployments.get(alias)
        serving = managed.state.serving if managed is not None and managed.serves else None
        return serving is not None and serving.package == self._path(one)

    def is_kept(self, alias: str, one: Arrived) -> bool:
        """Whether the package store has what an archive was accepted from."""
        managed = self.deployments.get(alias)
        path = self._path(one)
        return managed is not None and any(version.package == path for version in managed.state.versions())

    # --- packages that are not tried again -----------------------------------------

    def trust(self) -> str:
        """What a signer is judged by on this device: it changes where the trusted roots do, or the clock is set."""
        roots = mark(self._settings.roots) if self._settings.roots is not None else ""
        return f"{roots} {_SET if self._clock.synchronised() else _FREE}"

    def bad(self, sha256: str) -> str:
        """Why a package is not tried again (F-10); empty where it may be tried."""
        was = self.state.untrusted.get(sha256)
        # A clock that is no longer set, as after each start, knows no better than one that was.
        if was is not None and self.trust() not in (was, was.removesuffix(_SET) + _FREE):
            self.state.forgive(sha256)
        return self.state.bad.get(sha256, "")

    # --- a switch ------------------------------------------------------------------

    def rename(self, document: Document, chosen: Mapping[str, str], refused: dict[str, str]) -> None:
        """A deployment that asks for what serves already, or is on trial."""
        is_new = document.deployment != self.state.deployment
        self.state.deployment = document.deployment
        self.refused, self.lost = refused, False
        if is_new and self.state.proved:
            self.end(document.deployment, chosen, refused)

    def _apply(self, names: set[str], caller: Caller) -> list[Managed]:
        """Have declarations brought about; a name that is declared nowhere and serves nowhere needs nothing."""
        known = [name for name in sorted(names) if name in self.state.models or self.deployments.get(name) is not None]
        return self.deployments.apply(known, caller) if known else []

    def switch(
        self,
        document: Document,
        models: dict[str, Arrived],
        chosen: Mapping[str, str],
        refused: dict[str, str],
        caller: Caller,
    ) -> None:
        """Declare, and have the declarations brought about."""
        self.switching = True
        try:
            self._switch(document, models, chosen, refused, caller)
        finally:
            self.switching = False

    def _switch(
        self,
        document: Document,
        models: dict[str, Arrived],
        chosen: Mapping[str, str],
        refused: dict[str, str],
        caller: Caller,
    ) -> None:
        names = {*models, *self.state.models}
        self._begin(document, models)
        before = self.state.before
        log.info("fleet %s: deployment %s", self._settings.fleet, document.deployment)
        passing = False
        for one in self._apply({*names, *before}, caller):
            if one.refused and one.name in models:
                refused[one.name] = one.refused
                passing = passing or one.passing
                blamed = not (one.passing or one.refused.startswith(_BY_ANOTHER))
                if blamed and models[one.name] != before.get(one.name):
                    trust = self.trust() if one.untrusted else ""
                    self.state.refuse(models[one.name].sha256, one.refused, trust)
        if passing:
            self._go_back(refused, models)
            raise FleetError(f"deployment {document.deployment}: {words(refused)}")
        if refused and document.rollback:
            self._go_back(refused)
            self.end(document.deployment, chosen, refused)
        elif refused:
            kept = {alias: one for alias, one in before.items() if alias in refused}
            self.state.models = {alias: one for alias, one in models.items() if alias not in refused} | kept
        self.refused = refused
        self.save()
        self.tidy()

    def _begin(self, document: Document, models: dict[str, Arrived]) -> None:
        """Nothing is brought about before a start would find it declared."""
        old = replace(self.state)
        self.state.begin(document.deployment, models, rollback=document.rollback)
        try:
            self.save()
        except FleetError:
            self.state = old
            raise
        self.lost = False

    def _go_back(self, refused: Mapping[str, str], come: Mapping[str, Arrived] | None = None) -> None:
        """Declare again what was declared before, and have it serve; archives that have come, and are tried again, stay."""
        names = {*self.state.models, *self.state.before}
        self.state.go_back()
        self.refused = dict(refused)
        try:
            self.save()
        except FleetError as error:  # what served before serves all the same; the next look saves
            log.error("fleet: %s", error)
        for one in self._apply(names, Nobody()):
            if one.refused:
                log.error("fleet %s: %s: what served before: %s", self._settings.fleet, one.name, one.refused)
        self.tidy(one.sha256 for one in (come or {}).values())

    # --- proof ---------------------------------------------------------------------

    def look(self) -> None:
        """See whether a deployment on trial has proved itself, or was taken back.

        Raises:
            FleetError: what came of it cannot be written down yet.
        """
        if not self.state.proved:
            self._look()
        if self._unsaved:
            self.save()
        self._tell()

    def _look(self) -> None:
        state = self.state
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
                self.save()
            self.end(name, chosen, failed)
        elif all(self._has_proved(alias, one) for alias, one in state.models.items()):
            dropped = set(self._dropped())
            state.proved, state.before, state.deployment_before = True, {}, ""
            self.end(state.deployment, chosen, self.refused)
            self.save()
            self._apply(dropped, Nobody())
            self.tidy()

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

    def end(self, deployment: str, models: Mapping[str, str], refused: Mapping[str, str]) -> None:
        """A deployment has ended here."""
        self.refused = dict(refused)
        if refused:
            log.error("fleet %s: deployment %s failed: %s", self._settings.fleet, deployment, words(refused))
        else:
            log.info("fleet %s: deployment %s has proved itself", self._settings.fleet, deployment)
        told = f"{deployment} {'failed' if refused else 'ok'}"
        if told != self.state.reported:
            outcome = Outcome(deployment, dict(models), dict(refused))
            self.state.untold = [*self.state.untold, outcome][-MAX_UNTOLD:]
            self.state.reported = told
            self.save()
            self._tell()

    def _tell(self) -> None:
        """Hand on the ends that are untold; where one cannot be kept, it waits in the state, and holds up nothing."""
        if not self.state.untold:
            return
        try:
            while self.state.untold:
                self._on_outcome(self.state.untold[0])
                self.state.untold = self.state.untold[1:]
            self._said = ""
            self.save()
        except FleetError as error:
            if str(error) != self._said:
                log.warning("fleet: %s; it is tried again", error)
            self._said = str(error)

    def tidy(self, further: Iterable[str] = ()) -> None:
        """Archives go once the package store has what they were accepted from (F-8)."""
        keep = {one.sha256 for alias, one in self.state.models.items() if not self.is_kept(alias, one)} | set(further)
        try:
            self._packages.tidy(keep)
        except OSError as error:
            log.warning("archives of packages cannot be tidied: %s", durable.why(error))


def words(refused: Mapping[str, str]) -> str:
    """The reasons why aliases do not serve, in one line."""
    return printable("; ".join(f"{alias}: {why}" for alias, why in sorted(refused.items())), 600)
