"""Applications among models that stay: their LoadModel adopts what serves already, and what they load is noted (M-7 to M-10)."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge.clock import Clock
from edge.deploy.deployments import Deployments
from edge.deploy.note import Note
from edge.errors import EdgeError, ModelExistsError, ModelNotFoundError
from edge.paths import model_url
from edge.serving.caller import Caller, Nobody
from edge.serving.loading import LoadedModel
from edge.serving.registry import Registry
from edge.text import printable

log = logging.getLogger(__name__)

MAX_READY_SECONDS = 60.0  # that READY, and the LoadModel of a declared model, wait for the declared models (M-4)


@dataclass
class _Alias:
    """How applications stand to a name: whether one has adopted it, or released it."""

    restored: bool = False
    adopted: bool = False
    released: bool = False
    since: float = 0.0


class Models:
    """What LoadModel and UnLoadModel mean where models stay. Safe to use from any thread."""

    def __init__(
        self, registry: Registry, deployments: Deployments, note: Note, clock: Clock, *, strict: bool = False
    ) -> None:
        """With `strict`, no LoadModel adopts: a name that serves is ALREADY_EXISTS from the first."""
        self.deployments = deployments
        self._registry = registry
        self._note = note
        self._clock = clock
        self._strict = strict
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._aliases: dict[str, _Alias] = {}
        self._pending: set[str] = set()
        self._restore: dict[str, str] = {}
        self._on_ready: Callable[[], None] = lambda: None
        self._ready_by = 0.0
        registry.on_gone(self._drop_declared)
        self.is_ready = False  # what is to serve from the start does, or the time for it is over (M-4)

    # --- a start -----------------------------------------------------------------

    def prepare(self, on_ready: Callable[[], None]) -> None:
        """Read what is declared and what was loaded: from then on a LoadModel of such a name waits for its turn (M-4).

        `on_ready` is called once: when all that has been brought about, or 60 s from now.
        """
        declared = self.deployments.prepare()
        self._restore = self._note.read()
        self._pending = {*declared, *self._restore}
        self._on_ready = on_ready
        self._ready_by = self._clock.monotonic() + MAX_READY_SECONDS

    def start(self) -> None:
        """Bring about what is declared and restore what was loaded."""
        if not self._pending:
            self._ready()
            return
        threading.Thread(target=self._bring, name="declared models", daemon=True).start()

    def _bring(self) -> None:
        try:
            self.deployments.start(self._declared_settled)
            for name, url in self._restore.items():
                if self._serves_declared(name):
                    self._note.drop(name)
                elif name in self._pending:
                    self._load_again(name, url)
                self._settled(name)
        except Exception:
            log.exception("models that stay: the start failed")
        self._ready()

    def _load_again(self, name: str, url: str) -> None:
        try:
            self._registry.load(name, url, Nobody())
        except ModelExistsError:
            return  # an application that would not wait was first; the note has what it loaded
        except (EdgeError, OSError) as error:
            log.warning("model %s: what an application had loaded is not restored: %s", name, error)
            self._note.drop(name)
            return
        with self._lock:
            self._aliases[name] = _Alias(restored=True, since=self._clock.now())
        log.info("model %s: what an application had loaded before the crash is restored", name)

    def _declared_settled(self, name: str) -> None:
        if name not in self._restore or self._serves_declared(name):
            self._settled(name)

    def _settled(self, name: str) -> None:
        with self._changed:
            self._pending.discard(name)
            self._changed.notify_all()

    def _ready(self) -> None:
        with self._changed:
            self._pending.clear()
            self._changed.notify_all()
            on_ready, self._on_ready = self._on_ready, lambda: None
            self.is_ready = True
        on_ready()

    def look(self) -> None:
        """Called now and then: READY in time, and what is being tried proves itself."""
        if self._pending and self._clock.monotonic() >= self._ready_by:
            log.error("declared models take longer than %.0f s; the agent is ready without them", MAX_READY_SECONDS)
            self._ready()
        self.deployments.look()

    def end_waits(self) -> None:
        """The agent is about to end: no LoadModel waits any longer for what will not come."""
        with self._changed:
            self._pending.clear()
            self._changed.notify_all()

    def stop(self) -> None:
        """The agent ends cleanly: what applications loaded is forgotten."""
        self.deployments.stop()
        self._note.close()

    # --- calls ---------------------------------------------------------------------

    def load(self, name: str, url: str, caller: Caller) -> LoadedModel:
        """LoadModel: the first of a declared or restored name finds it loaded, and adopts it (M-8).

        Raises:
            EdgeError: as `Registry.load`.
        """
        self._wait(name, caller)
        try:
            model = self._registry.load(name, url, caller)
        except ModelExistsError:
            adopted = self._adopt(name, url, caller)
            if adopted is None:
                raise
            model = adopted
        self._called(name, model)
        return model

    def replace(self, name: str, url_of: Callable[[], str], caller: Caller) -> LoadedModel:
        """RepositoryModelLoad: as `load`, and what serves under a name that is not declared is replaced (W-1).

        `url_of` is asked once a start has come to the name.

        Raises:
            EdgeError: as `Registry.swap`; ModelExistsError where the name is declared, and adopted already (M-9).
        """
        self._wait(name, caller)
        if self._serves_declared(name):
            return self.load(name, url_of(), caller)
        model = self._registry.swap(name, url_of(), caller)
        self._called(name, model)
        return model

    def _called(self, name: str, model: LoadedModel) -> None:
        """An application has loaded a model, or adopted it."""
        with self._lock:
            alias = self._aliases.setdefault(name, _Alias(since=self._clock.now()))
            alias.adopted, alias.released = True, False
        if not self._serves_declared(name):
            self._note.put(name, model.url)

    def _wait(self, name: str, caller: Caller) -> None:
        """While a start has yet to come to a name, wait for it."""
        if self._pending:
            left = caller.time_remaining()
            with self._changed:
                self._changed.wait_for(
                    lambda: name not in self._pending,
                    MAX_READY_SECONDS if left is None else min(MAX_READY_SECONDS, left),
                )

    def _adopt(self, name: str, url: str, caller: Caller) -> LoadedModel | None:
        """What serves under a name that no application has adopted yet; None where one has, or where none can."""
        declared = self._serves_declared(name)
        with self._lock:
            alias = self._aliases.setdefault(name, _Alias()) if declared else self._aliases.get(name)
            if self._strict or alias is None or alias.adopted or not (declared or alias.restored):
                return None
            alias.adopted = True
        try:
            model = self._registry.get(name)
            asked = model_url(url)
            if not declared and asked != model.url:
                model = self._registry.swap(name, url, caller, allow_changed_tensors=True, allow_gap=True)
                alias.restored = False
            else:
                log.info(
                    "model %s: LoadModel of %s adopts what serves, %s %s",
                    name,
                    "the same package" if asked == model.url else printable(asked),
                    model.manifest.model_name,
                    model.manifest.model_version,
                )
        except BaseException:
            alias.adopted = False
            raise
        return model

    def _serves_declared(self, name: str) -> bool:
        """Whether what serves under a declared name came by its declaration, and not from an application where that failed."""
        declared = self.deployments.get(name)
        if declared is None:
            return False
        try:
            version = self.deployments.acceptance(self._registry.get(name).url)
        except ModelNotFoundError:
            return False
        return version is not None and declared.state.find(version.id) is not None

    def _drop_declared(self) -> None:
        """What a declared model has taken the place of is not restored."""
        for one in self.deployments.all():
            if self._serves_declared(one.name):
                self._note.drop(one.name)

    def unload(self, name: str) -> None:
        """UnLoadModel: a declared model stays, for the next application to adopt (M-10).

        Raises:
            ModelNotFoundError: it is not loaded.
        """
        if self._serves_declared(name):
            with self._lock:
                alias = self._aliases.setdefault(name, _Alias())
                alias.adopted, alias.released = False, True
            log.info("model %s: released by UnLoadModel; it is declared, and stays", name)
            return
        self._registry.unload(name)
        with self._lock:
            self._aliases.pop(name, None)
        self._note.drop(name)

    # --- what there is ---------------------------------------------------------------

    def released(self, name: str) -> bool:
        """Whether an application has unloaded it, and none loaded it since."""
        alias = self._aliases.get(name)
        return alias is not None and alias.released

    def why(self, name: str) -> tuple[str, float]:
        """Why a model serves, `declared`, `restored` or `called`, and since when if that is known, in seconds since the epoch."""
        declared = self.deployments.get(name)
        alias = self._aliases.get(name)
        if declared is not None:
            return "declared", declared.state.serving.since if declared.state.serving else 0.0
        if alias is None:
            return "called", 0.0
        return ("restored" if alias.restored else "called"), alias.since
