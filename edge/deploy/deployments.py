"""Which model serves under each declared name, and why: declarations are brought about, kept, committed and taken back.

A new version is accepted into the store, written down as being tried, and swapped in. It proves itself by 10 minutes or 100
Predicts without a fault of its own (W-6); where the agent ends twice before that, or a Predict shows such a fault, the one before
serves again and the new one is not tried again by itself (W-7). Versions of one deployment do all of that together (W-9).

What is kept is in `edge.deploy.kept`, how a version comes to serve in `edge.deploy.bringing`.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from edge.clock import Clock
from edge.deploy import folder
from edge.deploy.bringing import Bringing, PartRefused
from edge.deploy.declaration import Declaration
from edge.deploy.kept import Kept, parts
from edge.deploy.managed import Managed
from edge.deploy.proof import Proofs, Verdict
from edge.deploy.state import Standing, Version
from edge.deploy.store import Store
from edge.deploy.turn import held
from edge.errors import DeclarationError, EdgeError, ModelNotFoundError, NoPreviousError, StoreError
from edge.serving.caller import Caller, Nobody
from edge.serving.loading import LoadedModel
from edge.serving.registry import Registry
from edge.text import shown

log = logging.getLogger(__name__)

TAKE_BACK_SECONDS = 30.0  # between tries, where there is no room for what served before, say


def _nothing() -> Mapping[str, Declaration]:
    return {}


class Deployments:
    """The declared models. Safe to use from any thread; one change is made at a time."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        models_path: Path,
        clock: Clock,
        on_failed: Callable[[str], None] = lambda name: None,
        *,
        further: Callable[[], Mapping[str, Declaration] | None] = _nothing,
    ) -> None:
        """Declared models of a registry.

        Args:
            on_failed: called with an alias that is declared and that nothing serves.
            further: what is declared elsewhere than in models.d, which goes before it; asked at a start and by `apply`; None
                where that is not known, and what serves goes on. It must not raise, nor wait for a network.
        """
        self.models_path = models_path
        self._further = further
        self._kept = Kept(store)
        self._proofs = Proofs(clock, lambda url, call: registry.answers(url, call, Nobody()))
        self._bringing = Bringing(registry, self._kept, self._proofs, clock, on_failed)
        self._clock = clock
        self._take_back_at: dict[str, float] = {}  # by alias: not to be tried again before
        self._work = threading.Lock()
        self._pinned: frozenset[str] = frozenset()
        self._on_declared: list[Callable[[folder.Declarations], None]] = []

    def on_declared(self, callback: Callable[[folder.Declarations], None]) -> None:
        """Have `callback` called with what is declared, or why that cannot be read, by alias, whenever it was read."""
        self._on_declared.append(callback)

    def acceptance(self, url: str) -> Version | None:
        """The accepted version whose package in the store is at that url."""
        return self._kept.acceptance(url)

    def get(self, name: str) -> Managed | None:
        """A declared alias."""
        return self._kept.aliases.get(name)

    def all(self) -> list[Managed]:
        """The declared aliases, by name."""
        return self._kept.all()

    @property
    def rollbacks(self) -> int:
        """Versions that were taken back."""
        return self._kept.rollbacks

    def pinned(self) -> frozenset[str]:
        """Aliases of models.d that are declared elsewhere too, which has no effect."""
        return self._pinned

    def standing(self, deployment: str) -> Standing:
        """How a deployment stands (W-9): also one of an earlier run of the agent, if it was one of the last 16 to end."""
        return self._kept.standing(deployment)

    # --- a start -------------------------------------------------------------------

    def prepare(self) -> list[str]:
        """The names that are declared; what is kept of them is read. Where nothing is declared nothing is touched."""
        further = self._further()
        try:
            found = folder.read(self.models_path)
        except DeclarationError:
            found = {}
        if further is not None and not further and (found is None or not (found or self._kept.store.is_there)):
            return []
        with self._work:
            try:
                self._kept.claim()
            except (StoreError, OSError) as error:
                log.error("declared models: %s", error)
            for name in (*(found or {}), *(further or {})):
                self._kept.alias(name)
        return sorted(self._kept.aliases)

    def _declared(self) -> folder.Declarations:
        found = self._read()
        for callback in self._on_declared:
            callback(found)
        return found

    def _read(self) -> folder.Declarations:
        """What is declared; where that cannot be read, why, for each name that it may concern."""
        declared, aliases = self._further(), self._kept.aliases
        if declared is None:
            unread = DeclarationError("what is declared elsewhere cannot be read")
            further: folder.Declarations = {one.name: unread for one in aliases.values() if one.state.elsewhere}
        else:
            further = dict(declared)
        try:
            found = folder.read(self.models_path)
            if found is None:
                gone = DeclarationError(f"the folder of declarations {self.models_path} is gone")
                found = dict.fromkeys((one.name for one in aliases.values() if not one.state.elsewhere), gone)
                found = {name: error for name, error in found.items() if name not in further}
        except DeclarationError as error:
            return dict.fromkeys({*aliases, *further}, error)
        self._pinned = frozenset(further.keys() & found.keys())
        self._bringing.elsewhere = frozenset(further.keys() - found.keys())
        return {**further, **found}

    def start(self, on_settled: Callable[[str], None]) -> None:
        """Bring about what is declared, as a start of the agent does; `on_settled` is called for each name as it is done."""
        with held(self._work, Nobody()):
            self._kept.count_starts()
            found = self._declared()
            new = self._bringing.serve_before(found)
            every = parts(sorted({*found, *self._kept.aliases}), found, self._kept)
            for part in sorted(
                every, key=lambda part: not new.isdisjoint(part)
            ):  # the trial of a new one may take minutes
                if self._kept.stopping:
                    return
                for one in self._bringing.settle(part, found, Nobody()):
                    on_settled(one.name)
            self._kept.tidy()

    def stop(self) -> None:
        """The agent ends cleanly: this run counts for nothing, even if a change is still under way."""
        self._kept.stopping = True
        idle = self._work.acquire(timeout=1.0)
        try:
            self._kept.close(idle=idle)
        finally:
            if idle:
                self._work.release()

    # --- declarations ----------------------------------------------------------------

    def apply(self, names: Sequence[str], caller: Caller, *, retry: bool = False) -> list[Managed]:
        """Read the declarations again and bring them about, those of `names` or all (M-2); of a deployment all or none (W-9).

        With `retry`, a version that was taken back is tried again.

        Raises:
            ModelNotFoundError: one of `names` is not declared, and was not.
            DeadlineError: another change takes longer than the caller waits.
        """
        with held(self._work, caller):
            found = self._declared()
            for name in names:
                if name not in found and name not in self._kept.aliases:
                    raise ModelNotFoundError(
                        f"model {shown(name)} is not declared: there is no {name}.json in {self.models_path}"
                    )
            which = names or sorted({*found, *self._kept.aliases})
            done = [
                one
                for part in parts(which, found, self._kept)
                for one in self._bringing.settle(part, found, caller, again=retry)
            ]
            self._kept.tidy()
            return done

    # --- proof, and the way back -------------------------------------------------------

    def look(self) -> None:
        """See whether what is on trial has proved itself (W-6); called now and then, and soon over."""
        if self._kept.stopping or not (self._proofs or self._kept.unsaved) or not self._work.acquire(blocking=False):
            return
        try:
            if self._kept.unsaved:
                with suppress(StoreError):  # that it cannot be written was told before
                    self._kept.save()
                    self._kept.tidy()
            verdicts = self._proofs.look(self._bringing.on_trial)
            judged: set[str] = set()
            for name in verdicts:
                if name not in judged:
                    group = self._kept.tried_with(self._kept.aliases[name])
                    judged.update(one.name for one in group)
                    self._judge(group, verdicts)
        finally:
            self._work.release()

    def _judge(self, group: list[Managed], verdicts: Mapping[str, Verdict]) -> None:
        """What becomes of versions that are on trial together."""
        failed = [one for one in group if verdicts.get(one.name) in (Verdict.FAILED, Verdict.WORSE)]
        if failed and any(one.state.current for one in group):
            self._begin_taking_back(failed[0], verdicts[failed[0].name].value)
        elif failed:
            for one in failed:
                self._proofs.begin_anew(one.name)
        elif all(verdicts.get(one.name) is Verdict.GOOD for one in group):
            self._commit(group)

    def _commit(self, group: list[Managed]) -> None:
        self._kept.end(group[0].state.deployment, "committed")
        for one in group:
            one.state.commit()
        try:
            self._kept.save()
            self._kept.tidy()
        except StoreError as error:
            log.error("%s", error)
        for one in group:
            log.info("model %s: %s has proved itself", one.name, one.state.current)

    def _begin_taking_back(self, one: Managed, why: str) -> None:
        """Have it done by a thread, for it may take as long as a load; where it cannot be done now, it is tried again."""
        now = self._clock.monotonic()
        if now < self._take_back_at.get(one.name, now):
            return
        self._take_back_at[one.name] = now + TAKE_BACK_SECONDS
        model = self._bringing.on_trial(one.name)
        work = threading.Thread(
            target=self._take_back, args=(one, model, why), name=f"take back {one.name}", daemon=True
        )
        try:
            work.start()
        except RuntimeError as error:  # the system gives no thread
            log.error("model %s: what failed is to be taken back: %s", one.name, error)

    def _take_back(self, one: Managed, model: LoadedModel | None, why: str) -> None:
        """Its Predicts failed."""
        with held(self._work, Nobody()):
            try:
                if model is not None and self._bringing.on_trial(one.name) is model:
                    self._go_back(one, Nobody(), why)
                self._take_back_at.pop(one.name, None)
            except (EdgeError, OSError) as error:
                log.error("model %s: what failed is to be taken back: %s", one.name, error)

    def rollback(self, name: str, caller: Caller) -> Managed:
        """Have the version before serve again, and those of its deployment if that is on trial; it is not tried again by itself.

        Raises:
            ModelNotFoundError: the name is not declared.
            NoPreviousError: there is no version before.
            EdgeError: as `Registry.swap`; what serves serves on.
            StoreError: the version before serves, and this cannot be written down yet; that is tried again by `look`.
            DeadlineError: another change takes longer than the caller waits.
        """
        with held(self._work, caller):
            one = self._kept.aliases.get(name)
            if one is None:
                raise ModelNotFoundError(f"model {shown(name)} is not declared")
            self._go_back(one, caller, "it was rolled back by hand")
            self._kept.tidy()
            return one

    def _go_back(self, at_fault: Managed, caller: Caller, reason: str) -> None:
        """Have what served before an alias's version, and before what came with it, serve again."""
        group = self._kept.tried_with(at_fault)
        if all(one.state.before is None for one in group):
            raise NoPreviousError(f"model {at_fault.name!r} has no version to go back to")
        try:
            self._bringing.go_back(group, caller)
        except PartRefused as refusal:
            raise refusal.error from None
        self._kept.end(at_fault.state.deployment, "taken-back", f"{at_fault.name}: {reason}")
        for one in group:
            target, leaving = one.state.before, one.state.serving
            self._kept.rollbacks += 1
            one.state.go_back(reason, blame=one is at_fault)
            because = reason if one is at_fault else f"it came together with {at_fault.name}, and there {reason}"
            one.refused = f"{leaving} was taken back: {because}"
            one.serves = target is not None
            log.warning("model %s: %s serves again; %s", one.name, target or "nothing", one.refused)
        try:
            self._kept.save()
        except StoreError as error:
            before = at_fault.state.current or "nothing"
            raise StoreError(f"{before} serves again, which is not written down yet: {error}") from error
