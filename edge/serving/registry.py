"""The loaded models: LOADING -> WARMING -> READY -> DRAINING -> gone.

How one is loaded is in `edge.serving.loading`.
"""

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from edge.clock import Clock
from edge.engine.engine import Engine
from edge.errors import ModelExistsError, ModelNameError, ModelNotFoundError, StateError
from edge.host import descriptors, memory
from edge.paths import model_url
from edge.serving.loading import LoadedModel, Loader, ModelDefaults
from edge.serving.loads import MIB, Load, Loads
from edge.serving.scheduler import Caller
from edge.text import counted, shown

if TYPE_CHECKING:
    from edge.package.open import Package

log = logging.getLogger(__name__)

NAME_PATTERN = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
MAX_NAME_CHARACTERS = 255  # of a model (L-1)
SPARE_DESCRIPTORS = 32  # what a load may open at once, and some for calls


class ModelState(Enum):
    """Where a model is in its life."""

    LOADING = "LOADING"
    WARMING = "WARMING"
    READY = "READY"
    DRAINING = "DRAINING"


@dataclass
class _Entry:
    state: ModelState
    model: LoadedModel | None = None

    @property
    def is_loading(self) -> bool:
        return self.state in (ModelState.LOADING, ModelState.WARMING)

    def warming(self) -> None:
        """Its sessions are being opened."""
        self.state = ModelState.WARMING


class Registry:
    """Models by the name they were loaded under. Safe to use from any thread."""

    def __init__(
        self,
        engine: Engine,
        open_package: "Callable[[str, Load], Package]",
        defaults: ModelDefaults,
        clock: Clock,
        on_change: Callable[[str, bool], None] = lambda name, serving: None,
    ) -> None:
        self._loads = Loads(clock, defaults.memory_budget_bytes, lambda: self.reserved_bytes)
        self._loader = Loader(engine, open_package, defaults, clock, self._loads)
        self._on_change = on_change
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._ready: dict[str, LoadedModel] = {}
        self._models: tuple[LoadedModel, ...] = ()

    def get(self, name: str) -> LoadedModel:
        """The model that serves under `name`.

        Raises:
            ModelNotFoundError: there is none.
        """
        model = self._ready.get(name)
        if model is None:
            raise ModelNotFoundError.of(name)
        return model

    def models(self) -> tuple[LoadedModel, ...]:
        """All models that serve, in the order of their loading; the same tuple until one comes or goes."""
        return self._models

    def load(self, name: str, url: str, caller: Caller) -> LoadedModel:
        """Load a package under a name; on any error nothing stays behind (L-9).

        Raises:
            ModelNameError, ModelExistsError, PackageNotFoundError, PackageError, TargetError, UnsupportedModelError,
            MemoryLimitError, ModelRefusedError: the first of the checks L-1 to L-7 that fails.
            LoadQueueFullError: too many loads are under way already.
            DeadlineError, StoppingError: the caller, its time or the agent has ended (L-12).
        """
        if len(name) > MAX_NAME_CHARACTERS or not NAME_PATTERN.fullmatch(name):
            raise ModelNameError(
                f"model name {shown(name)} is not allowed; expected 1 to {MAX_NAME_CHARACTERS} letters, digits and '-', beginning and ending with a letter or digit"
            )
        load = Load(self._loads, caller)
        entry = self._claim(name, load)
        try:
            descriptors.make_sure_of(SPARE_DESCRIPTORS)
            with self._loads.begin(load):
                model = self._loader.load(name, model_url(url), load, entry.warming)
                with self._lock:
                    entry.model, entry.state = model, ModelState.READY
                    self._set_ready({**self._ready, name: model})
        except BaseException:
            with self._lock:
                del self._entries[name]
            memory.give_back()
            raise
        finally:
            self._loads.tell()
        self._on_change(name, True)
        log.info(
            "model %s loaded: package %s %s, %s, %.1f MiB",
            name,
            model.manifest.model_name,
            model.manifest.model_version,
            counted(model.instances, "instance"),
            model.memory_bytes / MIB,
        )
        return model

    def _claim(self, name: str, load: Load) -> _Entry:
        """The name's entry, for this load; while another load has it, its end is waited for, so that the model serves then."""
        while True:
            with self._lock:
                existing = self._entries.get(name)
                if existing is None:
                    entry = self._entries[name] = _Entry(ModelState.LOADING)
                    return entry
            if not (existing.is_loading and self._loads.wait(load, partial(self._has_ended, name, existing))):
                raise ModelExistsError(f"model {name!r} is already {_STATE_WORDS[existing.state]}")

    def _has_ended(self, name: str, entry: _Entry) -> bool:
        return self._entries.get(name) is not entry or not entry.is_loading

    def _set_ready(self, ready: dict[str, LoadedModel]) -> None:
        self._ready, self._models = ready, tuple(ready.values())

    def unload(self, name: str) -> None:
        """Let the calls on a model finish, then give its memory back (U-1 to U-3).

        Raises:
            ModelNotFoundError: it is not loaded.
        """
        with self._lock:
            model = self.get(name)
            self._set_ready({key: value for key, value in self._ready.items() if key != name})
            model.scheduler.close()
            self._entries[name].state = ModelState.DRAINING
        self._on_change(name, False)
        model.scheduler.drain()
        if model.shape_trials is not None:
            model.shape_trials.close()
        with self._lock:
            del self._entries[name]
        del model
        memory.give_back()
        log.info("model %s unloaded", name)

    def reset_state(self, name: str, caller: Caller) -> None:
        """Let a model that keeps state forget it, in turn with its calls.

        Raises:
            ModelNotFoundError: it is not loaded.
            StateError: it keeps none.
            QueueFullError, DeadlineError: as a call that waits.
        """
        model = self.get(name)
        if model.manifest.state != "keep":
            raise StateError(f"model {name!r} keeps no state: every call starts anew (runtime.state in its manifest)")
        with model.scheduler.session(caller) as session:
            session.reset()

    def stop_loads(self) -> None:
        """Have loads under way end soon, and take no more."""
        self._loads.stop()

    def oldest_running_seconds(self) -> float:
        """How long the longest inference of any model has been running, in seconds."""
        with self._lock:
            models = [entry.model for entry in self._entries.values() if entry.model]
        return max((model.scheduler.oldest_running_seconds() for model in models), default=0.0)

    def states(self) -> list[tuple[str, ModelState, LoadedModel | None]]:
        """Every model, whatever its state."""
        with self._lock:
            return [(name, entry.state, entry.model) for name, entry in self._entries.items()]

    @property
    def reserved_bytes(self) -> int:
        """Memory that the loaded models were measured to take, in bytes, until it is given back."""
        with self._lock:
            return sum(entry.model.taken_bytes for entry in self._entries.values() if entry.model)


_STATE_WORDS = {
    ModelState.LOADING: "being loaded",
    ModelState.WARMING: "being loaded",
    ModelState.READY: "loaded",
    ModelState.DRAINING: "being unloaded",
}
