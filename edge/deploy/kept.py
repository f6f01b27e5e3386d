"""What the agent knows of its declared models, and the store knows for the next run."""

import logging
from collections.abc import Callable, Iterable

from edge.deploy.declaration import deployment_of, not_with
from edge.deploy.folder import Declarations
from edge.deploy.managed import Managed
from edge.deploy.state import MAX_ENDED, MAX_TRIES, Standing, State, Version
from edge.deploy.store import Store
from edge.errors import DeclarationError, StoreError, StoreFullError

log = logging.getLogger(__name__)


class Kept:
    """The declared aliases, and how deployments have ended. For one change at a time; reading is safe at any."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.aliases: dict[str, Managed] = {}
        self.claimed = False  # the store is ours, and its state is read
        self.unsaved = False  # the state in the store is not the one here: it could not be written
        self.stopping = False  # the agent is about to end
        self.rollbacks = 0  # versions that were taken back
        self.coming: set[str] = set()  # ids of packages that the change under way accepted, and no alias has yet
        self._ended: list[Standing] = []
        self._saved_trying: set[str] = set()

    def claim(self) -> None:
        """Have the store, and know what it knows.

        Raises:
            StoreError, OSError: it cannot be used, or another agent has it.
        """
        if not self.claimed:
            self.store.claim()
            kept = self.store.read_state()
            for name, one in kept.models.items():
                self.alias(name).state = one
            self._ended = kept.ended
            self._saved_trying = self._trying()
            self.claimed = True

    def alias(self, name: str) -> Managed:
        """A declared alias; from now on it is one."""
        return self.aliases.setdefault(name, Managed(name))

    def all(self) -> list[Managed]:
        """The aliases, by name."""
        return sorted(self.aliases.values(), key=lambda one: one.name)

    def acceptance(self, url: str) -> Version | None:
        """The accepted version whose package in the store is at that url."""
        kept = (version for one in list(self.aliases.values()) for version in one.state.versions())
        return next((version for version in kept if url == str(self.store.path(version))), None)

    def count_starts(self) -> None:
        """One more run tries what has yet to prove itself, or takes it back (W-7)."""
        on_trial = [one for one in self.all() if one.state.trying is not None]
        try:
            if not self.claimed or self.store.take_clean_end() or not on_trial:
                return
            over = [one for one in on_trial if one.state.begin_run()]
            for first in over:
                group = self.tried_with(first)
                if first.state.trying is not None and any(one.state.current for one in group):
                    self._go_back(group)
            self.save()
        except StoreError as error:  # what is there serves nevertheless
            log.error("declared models: %s", error)

    def _go_back(self, group: list[Managed]) -> None:
        reason = f"the agent ended {MAX_TRIES} times before it had proved itself"
        deployment = group[0].state.deployment
        for one in group:
            one.state.go_back(reason)
            self.rollbacks += 1
            log.error("model %s: %s is taken back: %s", one.name, one.state.bad[-1].version, reason)
        self.end(deployment, "taken-back", reason)

    # --- deployments -------------------------------------------------------------------

    def tried_with(self, one: Managed) -> list[Managed]:
        """The aliases whose versions on trial prove themselves with that one's, itself among them."""
        name = one.state.deployment
        return [other for other in self.all() if other.state.deployment == name] if name else [one]

    def end(self, deployment: str, state: str, reason: str = "") -> None:
        """A deployment has ended so; nothing where the name is empty."""
        if deployment:
            standing = Standing(deployment, state, reason)
            self._ended = [*(one for one in self._ended if one.name != deployment), standing][-MAX_ENDED:]

    def standing(self, deployment: str) -> Standing:
        """How a deployment stands."""
        if deployment in self._trying():
            return Standing(deployment, "trying")
        return next((one for one in self._ended if one.name == deployment), Standing(deployment, "unknown"))

    def _trying(self) -> set[str]:
        return {one.state.deployment for one in list(self.aliases.values())} - {""}

    # --- the store ---------------------------------------------------------------------

    def save(self, but: str = "") -> None:
        """Have the store know what is known here; of the alias `but`, nothing.

        Raises:
            StoreError: it cannot be written down.
        """
        if not self.claimed:
            raise StoreError("the package store's state could not be read yet, so it is not overwritten")
        self.unsaved = True
        trying = self._trying()
        self._ended = [one for one in self._ended if one.name not in trying]
        for gone in self._saved_trying - trying - {one.name for one in self._ended}:
            self.end(gone, "replaced")
        self._saved_trying = trying
        self.store.write_state(
            State({name: one.state for name, one in self.aliases.items() if name != but}, self._ended)
        )
        self.unsaved = False

    def accept(
        self, one: Managed, url: str, id: str, go_on: Callable[[], None], serves: Callable[[Managed, Version], bool]
    ) -> Version:
        """`Store.accept`; where there is no room, versions that served before the current ones go, that alias's first (F-8)."""
        spare = iter([one, *(other for other in self.all() if other is not one)])
        while True:
            try:
                version = self.store.accept(url, id, go_on)
                self.coming.add(version.id)
                return version
            except StoreFullError as error:
                if not any(self._let_go(other, error, serves) for other in spare):
                    raise

    def _let_go(self, one: Managed, error: StoreFullError, serves: Callable[[Managed, Version], bool]) -> bool:
        """Have the version before the current one go; false where there is none, or it serves."""
        old = one.state.previous
        if old is None or serves(one, old):
            return False
        one.state.previous = None
        try:
            self.save()
        except StoreError:
            one.state.previous = old
            return False
        log.warning("model %s: %s, which served before, goes to make room: %s", one.name, old, error)
        self.tidy()
        return True

    def tidy(self) -> None:
        """Have the store keep what is needed, and no more."""
        if not self.claimed or self.stopping:
            return
        keep = {version.id for one in self.aliases.values() for version in one.state.versions()}
        try:
            self.store.tidy(keep | self.coming)
        except (StoreError, OSError) as error:
            log.warning("the package store cannot be tidied: %s", error)

    def close(self, *, idle: bool) -> None:
        """The agent ends cleanly: this run counts for nothing, even if a change is still under way and it is not `idle`."""
        try:
            if self.claimed and (not idle or any(one.state.trying for one in self.all())):
                self.store.mark_clean_end()
            if idle and self.unsaved:
                self.save()
        except StoreError as error:
            log.error("%s", error)
        finally:
            if idle:
                self.store.close()


def parts(names: Iterable[str], found: Declarations, kept: Kept) -> list[list[str]]:
    """The names; those of a deployment together, with those of it that are not among them."""
    made: dict[str, set[str]] = {}
    for name in names:
        declared, together = found.get(name), deployment_of(found.get(name))
        deployment, those = "", {name}
        known = kept.aliases.get(name)
        if together is not None:
            deployment, those = together.name, {name, *together.models}.difference(not_with(together, found))
        elif known is not None and isinstance(declared, DeclarationError):
            deployment = known.state.deployment
        made.setdefault(f"of {deployment}" if deployment else name, set()).update(those)
    return [sorted(part) for part in made.values()]
