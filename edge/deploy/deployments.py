"""Which model serves under each declared name, and why: declarations are brought about, kept, committed and taken back.

A new version is accepted into the store, written down as being tried, and swapped in. It proves itself by 10 minutes or 100
Predicts without INTERNAL (W-6); where the agent ends twice before that, or a Predict ends with INTERNAL, the one before serves
again and the new one is not tried again by itself (W-7).
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from edge.clock import Clock
from edge.deploy import folder
from edge.deploy.declaration import Declaration
from edge.deploy.managed import PASSING, Managed
from edge.deploy.proof import Proofs, Verdict
from edge.deploy.state import Version
from edge.deploy.store import Store
from edge.deploy.turn import held, in_time
from edge.errors import (
    DeclarationError,
    EdgeError,
    ModelNotFoundError,
    NoPreviousError,
    PackageError,
    PackageNotFoundError,
    StoppingError,
    StoreError,
    TrustError,
    VersionRefusedError,
)
from edge.serving.loading import LoadedModel
from edge.serving.registry import Registry
from edge.serving.scheduler import Caller, Nobody
from edge.text import printable, shown

log = logging.getLogger(__name__)

MAX_REFUSED_CHARACTERS = 600  # of why a version was refused, as it is shown


class Deployments:
    """The declared models. Safe to use from any thread; one change is made at a time."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        models_path: Path,
        clock: Clock,
        on_failed: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`on_failed` is called with an alias that is declared and that nothing serves."""
        self.models_path = models_path
        self._registry, self._store = registry, store
        self._clock = clock
        self._on_failed = on_failed
        self._work = threading.Lock()
        self._aliases: dict[str, Managed] = {}
        self._proofs = Proofs(clock)
        self._claimed = self._stopping = False
        self._unsaved = False  # the state in the store is not the one here: it could not be written
        self.rollbacks = 0  # versions that were taken back

    def acceptance(self, url: str) -> Version | None:
        """The accepted version whose package in the store is at that url."""
        kept = (version for one in list(self._aliases.values()) for version in one.state.versions())
        return next((version for version in kept if url == str(self._store.path(version))), None)

    def get(self, name: str) -> Managed | None:
        """A declared alias."""
        return self._aliases.get(name)

    def all(self) -> list[Managed]:
        """The declared aliases, by name."""
        return sorted(self._aliases.values(), key=lambda one: one.name)

    # --- a start -------------------------------------------------------------------

    def prepare(self) -> list[str]:
        """The names that are declared; what is kept of them is read. Where nothing is declared nothing is touched."""
        try:
            found = folder.read(self.models_path)
        except DeclarationError:
            found = {}
        if found is None or not (found or self._store.is_there):
            return []
        with self._work:
            try:
                self._claim()
            except (StoreError, OSError) as error:
                log.error("declared models: %s", error)
            for name in found:
                self._aliases.setdefault(name, Managed(name))
        return sorted(self._aliases)

    def _claim(self) -> None:
        """Have the store, and know what it knows.

        Raises:
            StoreError, OSError: it cannot be used, or another agent has it.
        """
        if not self._claimed:
            self._store.claim()
            for name, kept in self._store.read_state().items():
                self._aliases.setdefault(name, Managed(name)).state = kept
            self._claimed = True

    def _declared(self) -> folder.Declarations:
        """What is declared; where that cannot be read, why, for each name that is known."""
        try:
            found = folder.read(self.models_path)
            if found is None:
                raise DeclarationError(f"the folder of declarations {self.models_path} is gone")
        except DeclarationError as error:
            return dict.fromkeys(self._aliases, error)
        return found

    def start(self, on_settled: Callable[[str], None]) -> None:
        """Bring about what is declared, as a start of the agent does; `on_settled` is called for each name as it is done."""
        with self._work:
            self._count_starts()
            found = self._declared()
            for name in sorted({*found, *self._aliases}):
                if self._stopping:
                    return
                self._settle(name, found.get(name), Nobody())
                on_settled(name)
            self._tidy()

    def _count_starts(self) -> None:
        """One more run tries what has yet to prove itself, or takes it back (W-7)."""
        on_trial = [one for one in self._aliases.values() if one.state.trying is not None]
        try:
            if not self._claimed or self._store.take_clean_end() or not on_trial:
                return
            for one in on_trial:
                if reason := one.state.begin_run():
                    self.rollbacks += 1
                    log.error("model %s: %s is taken back: %s", one.name, one.state.bad[-1].version, reason)
            self._save()
        except StoreError as error:  # what is there serves nevertheless
            log.error("declared models: %s", error)

    def stop(self) -> None:
        """The agent ends cleanly: this run counts for nothing, even if a change is still under way."""
        self._stopping = True
        idle = self._work.acquire(timeout=1.0)
        try:
            if self._claimed and (not idle or any(one.state.trying for one in self.all())):
                self._store.mark_clean_end()
            if idle and self._unsaved:
                self._save()
        except StoreError as error:
            log.error("%s", error)
        finally:
            if idle:
                self._store.close()
                self._work.release()

    # --- declarations ----------------------------------------------------------------

    def apply(self, names: Sequence[str], caller: Caller, *, retry: bool = False) -> list[Managed]:
        """Read the declarations again and bring them about, those of `names` or all (M-2).

        With `retry`, a version that was taken back is tried again.

        Raises:
            ModelNotFoundError: one of `names` is not declared, and was not.
            DeadlineError: another change takes longer than the caller waits.
        """
        with held(self._work, caller):
            found = self._declared()
            for name in names:
                if name not in found and name not in self._aliases:
                    raise ModelNotFoundError(
                        f"model {shown(name)} is not declared: there is no {name}.json in {self.models_path}"
                    )
            which = names or sorted({*found, *self._aliases})
            done = [self._settle(name, found.get(name), caller, again=retry) for name in which]
            self._tidy()
            return done

    def _settle(
        self, name: str, found: Declaration | DeclarationError | None, caller: Caller, *, again: bool = False
    ) -> Managed:
        """Bring one name about; what fails is reported, and what served before serves on (M-3)."""
        one = self._aliases.setdefault(name, Managed(name))
        one.refused = ""
        try:
            self._claim()
            if found is None:
                self._forget(one)
                return one
            if isinstance(found, DeclarationError):
                raise found
            one.declared = found
            self._bring(one, found, caller, again=again)
        except (EdgeError, OSError) as error:
            one.refused = printable(str(error), MAX_REFUSED_CHARACTERS)
            log.error("model %s: what is declared does not serve: %s", name, one.refused)
            if isinstance(error, StoppingError):  # told before `stop` is called
                self._stopping = True
                return one
            self._keep(one, caller)
        one.serves = self._model(one) is not None
        if not one.serves:
            self._on_failed(name)
        return one

    def _bring(self, one: Managed, found: Declaration, caller: Caller, *, again: bool) -> None:
        """Have the declared version serve."""
        state = one.state
        version = self._wanted(one, found, caller, again=again)
        before = replace(state)
        serves = self._model(one, version) is not None
        if not serves or state.serving != version:
            state.try_out(version if version.since else replace(version, since=self._clock.now()))
        try:
            if state != before:
                self._save()
            if not serves:
                self._serve(one, version, caller)
        except BaseException as error:
            if not serves:
                one.state = before
                tried = before.trying is not None and before.trying.id == version.id
                if tried and before.current is not None and not isinstance(error, PASSING):
                    before.give_up()
                with suppress(StoreError):
                    self._save()
            raise

    def _wanted(self, one: Managed, found: Declaration, caller: Caller, *, again: bool) -> Version:
        """The version that a declaration means, accepted."""
        state, url = one.state, found.package
        try:
            id = self._store.identify(url)
        except (PackageNotFoundError, PackageError):
            # What was accepted does not need what it was copied from.
            known = next((version for version in state.versions() if version.package == url), None)
            if known is not None and self._store.has(known):
                return known
            raise
        bad = next((bad for bad in state.bad if bad.id == id), None)
        if bad is not None and not again:
            raise VersionRefusedError(f"{bad.version} was taken back: {bad.reason}; `models set` tries it again")
        known = state.find(id)
        if known is not None and self._store.has(known):
            version = replace(known, package=url)
        else:
            version = self._store.accept(url, id, in_time(caller, lambda: self._stopping))
        state.lift(id)
        return version

    def _serve(self, one: Managed, version: Version, caller: Caller, *, changed: bool = False) -> None:
        declared = one.declared or Declaration("")
        swap = partial(
            self._registry.swap,
            one.name,
            str(self._store.path(version)),
            caller,
            allow_changed_tensors=changed or declared.allow_changed_tensors,
            allow_gap=declared.allow_gap,
        )
        try:
            model = swap()
        except PackageError as error:
            if isinstance(error, TrustError) or not self._store.mend(version, in_time(caller, lambda: self._stopping)):
                raise
            model = swap()
        self._proofs.begin(one.name, model)

    def _keep(self, one: Managed, caller: Caller) -> None:
        """Where nothing serves under a name, what served before does again."""
        for version in one.state.versions():
            with suppress(ModelNotFoundError):
                self._registry.get(one.name)
                return
            try:
                self._serve(one, version, caller)
            except (EdgeError, OSError) as error:
                log.error("model %s: nor does %s: %s", one.name, version, error)

    def _model(self, one: Managed, version: Version | None = None) -> LoadedModel | None:
        """What serves under a name, if it is that version, or any of those that are kept."""
        try:
            model = self._registry.get(one.name)
        except ModelNotFoundError:
            return None
        versions = one.state.versions() if version is None else [version]
        return model if model.url in [str(self._store.path(one)) for one in versions] else None

    def _forget(self, one: Managed) -> None:
        """A name is no longer declared."""
        self._save(but=one.name)
        if self._model(one) is not None:
            with suppress(ModelNotFoundError):
                self._registry.unload(one.name)
        del self._aliases[one.name]
        one.serves, one.declared, one.refused = False, None, ""
        log.info("model %s is no longer declared", one.name)

    # --- proof, and the way back -------------------------------------------------------

    def look(self) -> None:
        """See whether what is on trial has proved itself (W-6); called now and then, and soon over."""
        if self._stopping or not (self._proofs or self._unsaved) or not self._work.acquire(blocking=False):
            return
        try:
            if self._unsaved:
                with suppress(StoreError):  # that it cannot be written was told before
                    self._save()
                    self._tidy()
            for name, verdict in self._proofs.look(self._on_trial).items():
                one = self._aliases[name]
                if verdict is Verdict.GOOD:
                    self._commit(one)
                elif verdict is Verdict.FAILED and one.state.current is not None:
                    work = threading.Thread(target=self._take_back, args=(one, self._on_trial(name)), daemon=True)
                    work.name = f"take back {name}"
                    work.start()
        finally:
            self._work.release()

    def _on_trial(self, name: str) -> LoadedModel | None:
        one = self._aliases.get(name)
        return self._model(one, one.state.trying) if one is not None and one.state.trying is not None else None

    def _commit(self, one: Managed) -> None:
        one.state.commit()
        try:
            self._save()
            self._tidy()
        except StoreError as error:
            log.error("%s", error)
        log.info("model %s: %s has proved itself", one.name, one.state.current)

    def _take_back(self, one: Managed, model: LoadedModel | None) -> None:
        """A Predict ended with INTERNAL."""
        with self._work:
            if model is None or self._on_trial(one.name) is not model:
                return
            try:
                self._go_back(one, Nobody(), "a Predict ended with INTERNAL")
            except (EdgeError, OSError) as error:
                log.error("model %s: what failed is to be taken back: %s", one.name, error)

    def rollback(self, name: str, caller: Caller) -> Managed:
        """Have the version before serve again; the one that serves is not tried again by itself.

        Raises:
            ModelNotFoundError: the name is not declared.
            NoPreviousError: there is no version before.
            EdgeError: as `Registry.swap`; what serves serves on.
            StoreError: the version before serves, and this cannot be written down yet; that is tried again by `look`.
            DeadlineError: another change takes longer than the caller waits.
        """
        with held(self._work, caller):
            one = self._aliases.get(name)
            if one is None:
                raise ModelNotFoundError(f"model {shown(name)} is not declared")
            self._go_back(one, caller, "it was rolled back by hand")
            self._tidy()
            return one

    def _go_back(self, one: Managed, caller: Caller, reason: str) -> None:
        state = one.state
        target, leaving = state.before, state.serving
        if target is None:
            raise NoPreviousError(f"model {one.name!r} has no version to go back to")
        self._serve(one, target, caller, changed=True)
        state.go_back(reason)
        self.rollbacks += 1
        one.refused = f"{leaving} was taken back: {reason}"
        log.warning("model %s: %s serves again; %s", one.name, target, one.refused)
        try:
            self._save()
        except StoreError as error:
            raise StoreError(f"{target} serves again, which is not written down yet: {error}") from error

    # --- what is kept ------------------------------------------------------------------

    def _save(self, but: str = "") -> None:
        self._unsaved = True
        self._store.write_state({name: one.state for name, one in self._aliases.items() if name != but})
        self._unsaved = False

    def _tidy(self) -> None:
        if not self._claimed or self._stopping:
            return
        keep = {version.id for one in self._aliases.values() for version in one.state.versions()}
        try:
            self._store.tidy(keep)
        except (StoreError, OSError) as error:
            log.warning("the package store cannot be tidied: %s", error)
