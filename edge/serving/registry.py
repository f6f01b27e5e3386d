"""The loaded models by name: LOADING -> WARMING -> READY -> DRAINING -> gone, and swaps of one for another (W).

`edge.serving.loading` loads one model; `edge.serving.aliases` is the table of names.
"""

import logging
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edge.clock import Clock
from edge.engine.engines import Engines
from edge.errors import (
    EdgeError,
    MemoryLimitError,
    ModelExistsError,
    ModelGoneError,
    ModelNameError,
    StateError,
)
from edge.host import descriptors, memory
from edge.paths import model_url
from edge.serving.agreement import check_tensors
from edge.serving.aliases import Aliases, Entry, ModelState, Prepared, already
from edge.serving.caller import Caller, Nobody
from edge.serving.failed import FailedCall
from edge.serving.loading import LoadedModel, Loader, ModelDefaults, Served, log_loaded
from edge.serving.loads import Load, Loads
from edge.text import shown

if TYPE_CHECKING:
    from edge.package.open import Package

log = logging.getLogger(__name__)

NAME_PATTERN = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
MAX_NAME_CHARACTERS = 255  # of a model's name (L-1)
SPARE_DESCRIPTORS = 32  # what a load may open at once, and some for calls


@dataclass(frozen=True)
class _Task:
    """What to load, under which entry, and in place of which model; `allow_changed_tensors` as of `Registry.swap`."""

    url: str
    load: Load
    entry: Entry
    old: LoadedModel | None = None
    allow_changed_tensors: bool = False


class Registry:
    """Models by the name they were loaded under. Safe to use from any thread."""

    def __init__(
        self,
        engines: Engines,
        open_package: "Callable[[str, Load], Package]",
        defaults: ModelDefaults,
        clock: Clock,
        on_change: Callable[[str, bool], None] = lambda name, serving: None,
    ) -> None:
        self._aliases = Aliases()
        self._loads = Loads(clock, defaults.memory_budget_bytes, lambda: self.reserved_bytes, self._aliases.last_call)
        self._loader = Loader(engines, open_package, defaults, clock, self._loads)
        self._clock = clock
        self._on_change = on_change
        self._on_gone: list[Callable[[], None]] = []
        self.served = 0  # models that began to serve
        self.swaps = 0  # models that took the place of another

    @property
    def trials(self) -> dict[str, int]:
        """Trials of models, by result."""
        return self._loader.trials.counts()

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever a model takes no more calls: what is kept of it can go."""
        self._on_gone.append(callback)

    # --- loading ---------------------------------------------------------------

    def load(self, name: str, url: str, caller: Caller) -> LoadedModel:
        """Load a package under a name; on any error nothing stays behind (L-9).

        Raises:
            ModelNameError, ModelExistsError, PackageNotFoundError, PackageError, TargetError, UnsupportedModelError,
            MemoryLimitError, ModelRefusedError: the first of the checks L-1 to L-7 that fails.
            LoadQueueFullError: too many loads are under way already.
            DeadlineError, StoppingError: the caller, its time or the agent has ended (L-12).
        """
        _check_name(name)
        load = Load(self._loads, caller)
        return self._load(_Task(url, load, self._claim_name(name, load)))

    def _claim_name(self, name: str, load: Load) -> Entry:
        """A new entry for the name. While another load has the name this one waits, and then finds that the name is taken."""
        while True:
            entry, mine = self._aliases.claim(name)
            if mine:
                return entry
            if not (entry.is_loading and self._loads.wait(load, partial(self._aliases.has_ended, entry))):
                raise ModelExistsError(already(entry))

    def _load(self, task: _Task) -> LoadedModel:
        """Load where nothing serves."""
        try:
            with self._loads.begin(task.load):
                model = self._make_ready(task)
                if task.old is not None:
                    model = model.in_place_of(task.old, self._clock)
                self._aliases.publish(task.entry, model)
        except BaseException:
            self._aliases.drop(task.entry)
            memory.give_back()
            raise
        finally:
            self._loads.notify()
        self.served += 1
        self._on_change(model.name, True)
        log_loaded(model)
        return model

    def _make_ready(self, task: _Task, *, idle: bool = False) -> LoadedModel:
        """Load the task's model up to the point where it could serve; raises as `swap`."""
        descriptors.make_sure_of(SPARE_DESCRIPTORS)
        entry, old = task.entry, task.old
        model = self._loader.load(entry.name, model_url(task.url), task.load, entry.warming, idle=idle)
        if old is None:
            return model
        try:
            if not task.allow_changed_tensors:
                check_tensors((old.inputs, old.outputs), (model.inputs, model.outputs))
            (task.load.rest if idle else task.load.go_on)()
            return model
        except BaseException:
            model.drain()
            raise

    # --- unloading ---------------------------------------------------------------

    def unload(self, name: str) -> None:
        """Let the calls on a model finish, then give its memory back (U-1 to U-3).

        Raises:
            ModelNotFoundError: it is not loaded.
        """
        entry = self._aliases.close(name)
        self._drain(entry, partial(self._aliases.drop, entry))
        log.info("model %s unloaded", name)

    def _drain(self, entry: Entry, gone: Callable[[], None]) -> None:
        """Wait for the calls of a model that takes no new ones, close it, and call `gone`."""
        if entry.model is not None:
            self._on_change(entry.name, False)
            self._notify_gone()
            entry.model.drain()
        gone()
        memory.give_back()
        self._loads.notify()

    def _notify_gone(self) -> None:
        for callback in self._on_gone:
            callback()

    # --- swapping ----------------------------------------------------------------

    def swap(
        self, name: str, url: str, caller: Caller, *, allow_changed_tensors: bool = False, allow_gap: bool = False
    ) -> LoadedModel:
        """Have a package serve under a name in place of the one that does (W-1 to W-5); where none does, load it.

        The new model is made ready beside the old one. Then the name means the new one at once, and the old one finishes the
        calls that it has, beyond this method's end. On any error the old one serves on.

        Args:
            allow_changed_tensors: inputs and outputs may be others than those of the old one.
            allow_gap: where there is no room for both, the old one is unloaded first. If the new one then fails, the old one
                is loaded again from its url.

        Raises:
            ModelNameError, PackageNotFoundError, PackageError, TargetError, UnsupportedModelError, MemoryLimitError,
            ModelRefusedError, LoadQueueFullError, DeadlineError, StoppingError: as `load`.
            TensorsChangedError: its inputs or outputs are others (W-3).
            ModelExistsError: another load, swap or unload of the name has not ended in time.
            ModelNotFoundError: the old one was unloaded meanwhile; the new one does not serve either.
        """
        _check_name(name)
        load = Load(self._loads, caller)
        new, old = self._claim_swap(name, load)
        if old is None or old.model is None:
            return self._load(_Task(url, load, new))
        task = _Task(url, load, new, old.model, allow_changed_tensors)
        try:
            return self._load_beside(task, old)
        except MemoryLimitError as error:
            if not allow_gap:
                raise
            log.warning("model %s: %s; the one that serves is unloaded first, as allowed", name, error)
            self._aliases.close(name, only=old)
            self._drain(old, partial(self._aliases.succeed, new, old))
            return self._load_after_gap(task)
        finally:
            self._aliases.give_up(new)
            self._loads.notify()

    def _claim_swap(self, name: str, load: Load) -> tuple[Entry, Entry | None]:
        """Entries for a swap; whatever else happens under the name comes first, the end of one replaced before included."""
        while True:
            try:
                return self._aliases.claim_swap(name)
            except ModelExistsError:
                if not self._loads.wait(load, lambda: not self._aliases.is_busy(name)):
                    raise

    def _load_beside(self, task: _Task, old: Entry) -> LoadedModel:
        try:
            with self._loads.begin(task.load):
                model = self._make_ready(task, idle=True)
                try:
                    (model,) = self._switch([Prepared(task.entry, old, model)])
                except BaseException:
                    model.drain()
                    raise
        except BaseException:
            memory.give_back()
            raise
        return model

    def _switch(self, prepared: Sequence[Prepared]) -> list[LoadedModel]:
        """Have each serve under its name, all at once; the models as they serve."""
        models = [
            one.model.in_place_of(one.old.model, self._clock) if one.old is not None and one.old.model else one.model
            for one in prepared
        ]
        self._aliases.switch([(one.entry, model, one.old) for one, model in zip(prepared, models, strict=True)])
        for model in models:
            log_loaded(model)
        self.served += len(models)
        self._notify_gone()
        for one in prepared:
            if one.old is not None:
                self.swaps += 1
                self._drain_in_background(one.old)
            else:
                self._on_change(one.entry.name, True)
        return models

    # --- several at once ---------------------------------------------------------------

    def prepare(self, name: str, url: str, caller: Caller, *, allow_changed_tensors: bool = False) -> Prepared:
        """Have a package ready to serve under a name, beside what serves there; `switch` or `give_up` must follow (W-9).

        Until then the name can be called, and neither loaded nor swapped.

        Raises:
            EdgeError: as `swap`; the name is as it was.
        """
        _check_name(name)
        load = Load(self._loads, caller)
        new, old = self._claim_swap(name, load)
        try:
            with self._loads.begin(load):
                served = old.model if old is not None else None
                model = self._make_ready(_Task(url, load, new, served, allow_changed_tensors), idle=old is not None)
                self._aliases.hold(new, model)  # counts as taken memory from here on
        except BaseException:
            self._aliases.drop(new)
            memory.give_back()
            raise
        finally:
            self._loads.notify()
        return Prepared(new, old, model)

    def switch(self, prepared: Sequence[Prepared]) -> list[LoadedModel]:
        """Have what was prepared serve, every name at the same moment.

        Raises:
            ModelNotFoundError: what served under one of the names was unloaded meanwhile; none is switched.
        """
        try:
            return self._switch(prepared)
        finally:
            self._loads.notify()

    def give_up(self, prepared: Sequence[Prepared]) -> None:
        """What was prepared is not to serve."""
        for one in prepared:
            one.model.drain()
            self._aliases.drop(one.entry)
        memory.give_back()
        self._loads.notify()

    def _drain_in_background(self, old: Entry) -> None:
        """Drain a replaced model on a thread of its own."""

        def drain() -> None:
            if old.model is not None:
                old.model.drain()
            self._aliases.drop(old)
            memory.give_back()
            self._loads.notify()
            log.info("model %s: what served before is unloaded", old.name)

        try:
            threading.Thread(target=drain, name=f"drain {old.name}", daemon=True).start()
        except RuntimeError:  # the system gives no thread
            drain()

    def _load_after_gap(self, task: _Task) -> LoadedModel:
        """Load in place of a model that has gone; where that fails, load that one again."""
        try:
            return self._load(task)
        except BaseException:
            if task.old is not None:
                try:
                    self.load(task.entry.name, task.old.url, Nobody())
                except (EdgeError, OSError) as error:
                    log.error("model %s: what served before cannot be loaded again: %s", task.entry.name, error)
            raise

    # --- comparing ---------------------------------------------------------------------

    def answers(self, url: str, call: FailedCall, caller: Caller) -> bool:
        """Whether the model of a package, that need not serve, answers a call that another one failed on (W-6).

        Raises:
            EdgeError: as `load`; that cannot be known.
        """
        load = Load(self._loads, caller)
        with self._loads.begin(load):
            return self._loader.answers(model_url(url), call, load)

    # --- what there is -----------------------------------------------------------

    def get(self, name: str) -> LoadedModel:
        """The model that serves under `name`.

        Raises:
            ModelNotFoundError: there is none.
        """
        return self._aliases.get(name)

    def models(self) -> tuple[LoadedModel, ...]:
        """All models that serve, in the order of their names' loading; the same tuple until one comes or goes."""
        return self._aliases.models()

    def as_of(self, model: LoadedModel, unix_seconds: float | None) -> LoadedModel | Served:
        """Who served under the name of `model` at a time; None means now (W-8)."""
        return model.as_of(unix_seconds, self._clock)

    def reset_state(self, name: str, caller: Caller) -> None:
        """Let a model that keeps state forget it, in turn with its calls.

        Raises:
            ModelNotFoundError: it is not loaded.
            StateError: it keeps none.
            QueueFullError, DeadlineError: as a call that waits.
        """
        while True:
            model = self.get(name)
            if model.manifest.state != "keep":
                raise StateError(
                    f"model {name!r} keeps no state: every call starts anew (runtime.state in its manifest)"
                )
            with suppress(ModelGoneError), model.scheduler.session(caller, counts=False) as session:
                session.reset()
                return

    def stop_loads(self) -> None:
        """Have loads under way end soon, and take no more."""
        self._loads.stop()

    def end_stuck(self, limit_s: float) -> float:
        """See `Scheduler.end_stuck`, of all models."""
        return max((model.scheduler.end_stuck(limit_s) for model in self._loaded()), default=0.0)

    def states(self) -> list[tuple[str, ModelState, LoadedModel | None]]:
        """Every model, whatever its state: a name whose model is being replaced has two."""
        return [(entry.name, entry.state, entry.model) for entry in self._aliases.entries()]

    @property
    def reserved_bytes(self) -> int:
        """Memory that the loaded models were measured to take, in bytes, until it is given back."""
        return sum(model.taken_bytes for model in self._loaded())

    def _loaded(self) -> list[LoadedModel]:
        return [model for entry in self._aliases.entries() if (model := entry.model) is not None]


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME_CHARACTERS or not NAME_PATTERN.fullmatch(name):
        raise ModelNameError(
            f"model name {shown(name)} is not allowed; expected 1 to {MAX_NAME_CHARACTERS} letters, digits and '-', beginning and ending with a letter or digit"
        )
