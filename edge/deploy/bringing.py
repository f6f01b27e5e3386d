"""Bringing about what is declared: versions are accepted, written down as being tried, and swapped in, of a deployment all or none."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from edge.clock import Clock
from edge.deploy.declaration import Declaration, deployment_of, not_with
from edge.deploy.folder import Declarations
from edge.deploy.kept import Kept
from edge.deploy.managed import PASSING, Managed
from edge.deploy.proof import Proofs
from edge.deploy.state import AliasState, Bad, Version
from edge.deploy.turn import in_time
from edge.errors import (
    DeclarationError,
    EdgeError,
    ModelNotFoundError,
    PackageError,
    PackageNotFoundError,
    StoppingError,
    StoreError,
    TrustError,
    VersionRefusedError,
)
from edge.serving.aliases import Prepared
from edge.serving.caller import Caller, Nobody
from edge.serving.loading import LoadedModel
from edge.serving.registry import Registry
from edge.text import printable, shown

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_REFUSED_CHARACTERS = 600  # of the reason for a refused version, as it is shown


class PartRefused(Exception):
    """Nothing of a part is switched: `one` cannot, for the reason that is the error."""

    def __init__(self, one: Managed, error: EdgeError | OSError) -> None:
        super().__init__(str(error))
        self.one, self.error = one, error


@contextmanager
def _of(one: Managed) -> Iterator[None]:
    """What fails within fails for that alias."""
    try:
        yield
    except (EdgeError, OSError) as error:
        raise PartRefused(one, error) from error


@dataclass(frozen=True)
class Wish:
    """An alias, and the version that is to serve there; `changed`: with other tensors, if need be, `gap`: after a gap (W-4)."""

    one: Managed
    version: Version
    deployment: str = ""
    changed: bool = False
    gap: bool = False


class Bringing:
    """Has declared versions serve. For one change at a time."""

    def __init__(
        self, registry: Registry, kept: Kept, proofs: Proofs, clock: Clock, on_failed: Callable[[str], None]
    ) -> None:
        """`on_failed` is called with an alias that is declared and that nothing serves."""
        self._registry = registry
        self._kept = kept
        self._store = kept.store
        self._proofs = proofs
        self._clock = clock
        self._on_failed = on_failed
        self.elsewhere: frozenset[str] = frozenset()  # aliases that not models.d declares

    def settle(self, part: Sequence[str], found: Declarations, caller: Caller, *, again: bool = False) -> list[Managed]:
        """Bring about names that go together; what fails is reported, and what served before serves on (M-3)."""
        ones = [self._kept.alias(name) for name in part]
        for one in ones:
            one.refused, one.passing, one.untrusted = "", False, False
        try:
            self._kept.claim()
            self._bring(ones, found, caller, again=again)
        except (EdgeError, OSError, PartRefused) as error:
            self._report(ones, error)
            cause = error.error if isinstance(error, PartRefused) else error
            for one in ones:
                one.passing, one.untrusted = isinstance(cause, PASSING), isinstance(cause, TrustError)
            if isinstance(cause, StoppingError):  # told before `stop` is called
                self._kept.stopping = True
                return ones
            together = next(filter(None, (deployment_of(found.get(one.name)) for one in ones)), None)
            if together is not None and self._kept.standing(together.name).state == "unknown":
                self._kept.end(together.name, "refused", printable(str(error), MAX_REFUSED_CHARACTERS))
                self._kept.unsaved = True
            self._keep(ones, caller)
        finally:
            self._kept.coming.clear()
        for one in ones:
            one.serves = self.model(one) is not None
            if not one.serves and one.name in self._kept.aliases:
                self._on_failed(one.name)
        return ones

    def _report(self, ones: Sequence[Managed], error: Exception) -> None:
        for one in ones:
            words = str(error)
            if isinstance(error, PartRefused) and one is not error.one:
                words = f"it switches together with {error.one.name}, and there: {words}"
            one.refused = printable(words, MAX_REFUSED_CHARACTERS)
            log.error("model %s: what is declared does not serve: %s", one.name, one.refused)

    def _bring(self, ones: Sequence[Managed], found: Declarations, caller: Caller, *, again: bool) -> None:
        wishes = []
        for one in ones:
            declared = found.get(one.name)
            with _of(one):
                if declared is None:
                    self.forget(one)
                    continue
                if isinstance(declared, DeclarationError):
                    raise declared
                one.declared = declared
                elsewhere = one.name in self.elsewhere
                self._kept.unsaved |= elsewhere != one.state.elsewhere
                one.state.elsewhere = elsewhere
                wishes.append(self._wish(one, declared, found, caller, again=again))
        if wishes:
            self._try_out(wishes, caller)

    def _try_out(self, wishes: Sequence[Wish], caller: Caller) -> None:
        """Have versions serve, all or none, and be tried out where they are new."""
        before = [(wish, replace(wish.one.state)) for wish in wishes]
        missing = [wish for wish in wishes if self.model(wish.one, wish.version) is None]
        for wish in wishes:
            state = wish.one.state
            if wish in missing or state.serving != wish.version:
                state.try_out(wish.version, wish.deployment)
            elif state.trying is not None:
                state.deployment = wish.deployment
        try:
            if any(wish.one.state != state for wish, state in before):
                self._kept.save()
            if missing:
                self.serve(missing, caller)
        except BaseException as error:
            if missing:
                self._restore(before, error.error if isinstance(error, PartRefused) else error)
            raise
        self._note_first(missing)

    def serve_before(self, found: Declarations) -> set[str]:
        """At a start: the names that have something new declared; what served there before serves, while that is tried out."""
        new = {one.name for one in self._kept.all() if self._is_new(one, found.get(one.name))}
        for one in self._kept.all():
            before = (one.state.current or one.state.trying) if one.name in new else None
            if before is not None and not self._kept.stopping and not self._is_taken(one.name):
                self._serves_again([Wish(one, before)], Nobody())
        return new

    def _is_new(self, one: Managed, declared: Declaration | DeclarationError | None) -> bool:
        if not isinstance(declared, Declaration):
            return False
        try:
            id = self._store.identify(declared.package)
        except (PackageNotFoundError, PackageError, OSError):
            return False
        served = (one.state.current, one.state.trying)
        return all(version is None or version.id != id or not version.since for version in served)

    def _note_first(self, wishes: Sequence[Wish]) -> None:
        """From now on they have served."""
        new = [wish for wish in wishes if not wish.version.since]
        for wish in new:
            first = replace(wish.version, since=self._clock.now())
            if wish.one.state.trying == wish.version:
                wish.one.state.trying = first
            elif wish.one.state.current == wish.version:
                wish.one.state.current = first
        if new:
            with suppress(StoreError):  # tried again by `Deployments.look`
                self._kept.save()

    def _is_taken(self, name: str) -> bool:
        try:
            self._registry.get(name)
        except ModelNotFoundError:
            return False
        return True

    def _restore(self, before: Sequence[tuple[Wish, AliasState]], error: BaseException) -> None:
        """Nothing was switched: what is kept is as it was, but for what this says of versions that were on trial already."""
        passing = isinstance(error, PASSING)
        ended, how = before[0][0].deployment, "refused"
        for wish, state in before:
            wish.one.state = state
            if state.trying is not None and state.trying.id == wish.version.id:
                if passing:
                    state.waiting, ended = True, ""
                elif state.current is not None:
                    state.give_up()
                    how = "taken-back"
        if not isinstance(error, StoppingError):
            self._kept.end(ended, how, printable(str(error), MAX_REFUSED_CHARACTERS))
        with suppress(StoreError):
            self._kept.save()

    def _wish(self, one: Managed, declared: Declaration, found: Declarations, caller: Caller, *, again: bool) -> Wish:
        """The version that a declaration means, accepted."""
        version = self._wanted(one, declared, found, caller, again=again)
        name = declared.deployment.name if declared.deployment is not None else ""
        return Wish(one, version, name, declared.allow_changed_tensors, declared.allow_gap)

    def _wanted(
        self, one: Managed, declared: Declaration, found: Declarations, caller: Caller, *, again: bool
    ) -> Version:
        state, url = one.state, declared.package
        try:
            id = self._store.identify(url)
        except (PackageNotFoundError, PackageError):
            # What was accepted does not need what it was copied from.
            known = next((version for version in state.versions() if version.package == url), None)
            if known is not None and self._store.has(known):
                self._check_whole(one, known.id, declared, found)
                return known
            _check_bad(next((bad for bad in state.bad if bad.package == url), None))
            raise
        self._check_whole(one, id, declared, found)
        if not again:
            _check_bad(next((bad for bad in state.bad if bad.id == id), None))
        known = state.find(id)
        if known is not None and self._store.has(known):
            version = replace(known, package=url)
        else:
            version = self._kept.accept(one, url, id, self._in_time(caller), self._serves)
        state.lift(id)
        return version

    def _check_whole(self, one: Managed, id: str, declared: Declaration, found: Declarations) -> None:
        """A version that does not serve yet, and is of a deployment, waits until all of that is declared (W-9)."""
        together, serving = declared.deployment, one.state.serving
        if together is None or (serving is not None and serving.id == id):
            return
        others = not_with(together, found)
        if others or one.name not in together.models:
            raise DeclarationError(
                f"the deployment {shown(together.name)} is not whole: {others[0]} is not declared as of it, with the same models"
                if others
                else f"the deployment {shown(together.name)} does not list {one.name} among its models"
            )

    def _in_time(self, caller: Caller) -> Callable[[], None]:
        return in_time(caller, lambda: self._kept.stopping)

    # --- serving -----------------------------------------------------------------------

    def model(self, one: Managed, version: Version | None = None) -> LoadedModel | None:
        """What serves under a name, if it is that version, or any of those that are kept."""
        try:
            model = self._registry.get(one.name)
        except ModelNotFoundError:
            return None
        versions = one.state.versions() if version is None else [version]
        return model if model.url in [str(self._store.path(one)) for one in versions] else None

    def _serves(self, one: Managed, version: Version) -> bool:
        return self.model(one, version) is not None

    def on_trial(self, name: str) -> LoadedModel | None:
        """What serves under a name, if it has yet to prove itself."""
        one = self._kept.aliases.get(name)
        return self.model(one, one.state.trying) if one is not None and one.state.trying is not None else None

    def serve(self, wishes: Sequence[Wish], caller: Caller) -> None:
        """Have accepted versions serve; several at the same moment, or none.

        Raises:
            PartRefused: why the one does not.
        """
        if len(wishes) == 1:
            (wish,) = wishes
            with _of(wish.one):
                models = [self._mending(wish, caller, partial(self._swap, wish, caller))]
        else:
            models = self._switch(wishes, caller)
        for wish, model in zip(wishes, models, strict=True):
            state = wish.one.state
            before = state.current if state.trying == wish.version else None
            self._proofs.begin(wish.one.name, model, str(self._store.path(before)) if before is not None else "")

    def _swap(self, wish: Wish, caller: Caller) -> LoadedModel:
        return self._registry.swap(
            wish.one.name,
            str(self._store.path(wish.version)),
            caller,
            allow_changed_tensors=wish.changed,
            allow_gap=wish.gap,
        )

    def _prepare(self, wish: Wish, caller: Caller) -> Prepared:
        url = str(self._store.path(wish.version))
        return self._registry.prepare(wish.one.name, url, caller, allow_changed_tensors=wish.changed)

    def _switch(self, wishes: Sequence[Wish], caller: Caller) -> list[LoadedModel]:
        prepared: list[Prepared] = []
        try:
            for wish in wishes:
                with _of(wish.one):
                    prepared.append(self._mending(wish, caller, partial(self._prepare, wish, caller)))
            with _of(wishes[0].one):
                return self._registry.switch(prepared)
        except BaseException:
            self._registry.give_up(prepared)
            raise

    def _mending(self, wish: Wish, caller: Caller, attempt: Callable[[], T]) -> T:
        """An attempt to load a version; one more, where its copy in the store is damaged and can be replaced."""
        try:
            return attempt()
        except PackageError as error:
            if isinstance(error, TrustError) or not self._store.mend(wish.version, self._in_time(caller)):
                raise
            return attempt()

    def _keep(self, ones: Sequence[Managed], caller: Caller) -> None:
        """Where nothing serves under a name, what served before does again."""
        idle = [one for one in ones if not self._is_taken(one.name)]
        together = [one for one in idle if one.state.trying is not None and one.state.deployment]
        tried = [Wish(one, one.state.trying, changed=True) for one in together if one.state.trying is not None]
        if tried and self._serves_again(tried, caller):
            idle = [one for one in idle if one not in together]
        for one in idle:
            versions = list(one.state.versions())[one in together :]
            next((True for version in versions if self._serves_again([Wish(one, version)], caller)), None)

    def _serves_again(self, wishes: Sequence[Wish], caller: Caller) -> bool:
        try:
            self.serve(wishes, caller)
        except PartRefused as refusal:
            for wish in wishes:
                log.error("model %s: nor does %s: %s", wish.one.name, wish.version, refusal)
            return False
        for wish in wishes:
            if wish.one.state.waiting and wish.one.state.trying == wish.version:
                wish.one.state.waiting, self._kept.unsaved = False, True
        return True

    def forget(self, one: Managed) -> None:
        """A name is no longer declared.

        Raises:
            StoreError: that cannot be written down; it serves on.
        """
        self._kept.save(but=one.name)
        if self.model(one) is not None:
            with suppress(ModelNotFoundError):
                self._registry.unload(one.name)
        del self._kept.aliases[one.name]
        one.serves, one.declared, one.refused = False, None, ""
        log.info("model %s is no longer declared", one.name)

    def go_back(self, group: Sequence[Managed], caller: Caller) -> None:
        """Have the version before serve under each name, all at the same moment; where there is none, none.

        Raises:
            PartRefused: one cannot; what serves serves on.
        """
        self.serve(
            [
                Wish(one, one.state.before, changed=True, gap=one.declared is not None and one.declared.allow_gap)
                for one in group
                if one.state.before is not None
            ],
            caller,
        )
        for one in group:
            if one.state.before is None and self.model(one) is not None:
                with suppress(ModelNotFoundError):
                    self._registry.unload(one.name)


def _check_bad(bad: Bad | None) -> None:
    if bad is not None:
        raise VersionRefusedError(f"{bad.version} was taken back: {bad.reason}; `models set` tries it again")
