"""The table of names: which model serves under each, what is being loaded for it, and what has yet to finish its calls.

A name has one entry; while its model is being replaced there is a second one beside it: first the new model that is being
loaded, then, from the moment of the switch, the old one that drains.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from edge.errors import ModelExistsError, ModelNotFoundError
from edge.serving.loading import LoadedModel


class ModelState(Enum):
    """Where a model is in its life."""

    LOADING = "LOADING"
    WARMING = "WARMING"
    READY = "READY"
    DRAINING = "DRAINING"


@dataclass(eq=False)
class Entry:
    """A model's place in the table."""

    name: str
    state: ModelState = ModelState.LOADING
    model: LoadedModel | None = None

    @property
    def is_loading(self) -> bool:
        """Whether it is on its way to READY."""
        return self.state in (ModelState.LOADING, ModelState.WARMING)

    def warming(self) -> None:
        """Its sessions are being opened."""
        self.state = ModelState.WARMING


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to serve under a name, in place of `old` where something does."""

    entry: Entry
    old: Entry | None
    model: LoadedModel


class Aliases:
    """The names and their models. Safe to use from any thread; each method is one step to all others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._beside: list[Entry] = []
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
        """All models that serve, in the order of their names' loading; the same tuple until one comes or goes."""
        return self._models

    def last_call(self) -> float:
        """When the last call on any of them ended, on the monotonic clock; 0: none has."""
        return max((model.scheduler.last for model in self._models), default=0.0)

    def entries(self) -> list[Entry]:
        """Every model, whatever its state: a name that is being swapped has two."""
        with self._lock:
            return [*self._entries.values(), *self._beside]

    # --- loading ---------------------------------------------------------------

    def claim(self, name: str) -> tuple[Entry, bool]:
        """A new entry for the name, and true; or the one that it has, and false."""
        with self._lock:
            existing = self._entries.get(name)
            if existing is not None:
                return existing, False
            self._entries[name] = made = Entry(name)
            return made, True

    def has_ended(self, entry: Entry) -> bool:
        """Whether what loaded there is done, one way or the other."""
        return self._entries.get(entry.name) is not entry or not entry.is_loading

    def publish(self, entry: Entry, model: LoadedModel) -> None:
        """It serves from now on."""
        with self._lock:
            entry.model, entry.state = model, ModelState.READY
            self._set_ready({**self._ready, entry.name: model})

    def _set_ready(self, ready: dict[str, LoadedModel]) -> None:
        self._ready, self._models = ready, tuple(ready.values())

    def drop(self, entry: Entry) -> None:
        """It is gone; the name is free if it was its entry."""
        with self._lock:
            if self._entries.get(entry.name) is entry:
                del self._entries[entry.name]
            else:
                self._beside.remove(entry)
            entry.model = None

    # --- unloading ---------------------------------------------------------------

    def close(self, name: str, *, only: Entry | None = None) -> Entry:
        """Have what serves under a name take no new calls; with `only`, if it is that entry.

        Raises:
            ModelNotFoundError: nothing serves there, or something else.
        """
        with self._lock:
            self.get(name)
            entry = self._entries[name]
            if only is not None and entry is not only:
                raise ModelNotFoundError(unloaded_meanwhile(name))
            self._set_ready({key: value for key, value in self._ready.items() if key != name})
            _close(entry)
        return entry

    # --- swapping ----------------------------------------------------------------

    def claim_swap(self, name: str) -> tuple[Entry, Entry | None]:
        """An entry for a new model, and that of the one that serves if one does.

        Raises:
            ModelExistsError: what happens under the name already must end first.
        """
        with self._lock:
            busy = self._busy(name)
            if busy is not None:
                raise ModelExistsError(already(busy))
            made, serving = Entry(name), self._entries.get(name)
            if serving is None:
                self._entries[name] = made
            else:
                self._beside.append(made)
            return made, serving

    def is_busy(self, name: str) -> bool:
        """Whether anything of a name is neither serving nor gone."""
        with self._lock:
            return self._busy(name) is not None

    def _busy(self, name: str) -> Entry | None:
        entry = self._entries.get(name)
        if entry is not None and entry.state is not ModelState.READY:
            return entry
        return next((one for one in self._beside if one.name == name), None)

    def hold(self, new: Entry, model: LoadedModel) -> None:
        """A model is ready beside the one that serves, and waits for its switch."""
        with self._lock:
            new.model = model

    def switch(self, turns: Sequence[tuple[Entry, LoadedModel, Entry | None]]) -> None:
        """Each name means its model from now on, all at once, and the old one finishes the calls that it has.

        Args:
            turns: of each name the new entry, the model, and the old entry; None where nothing served.

        Raises:
            ModelNotFoundError: an old one does not serve any more; every name is as it was.
        """
        with self._lock:
            for new, _, old in turns:
                if old is not None and (self._entries.get(new.name) is not old or old.state is not ModelState.READY):
                    raise ModelNotFoundError(unloaded_meanwhile(new.name))
            for new, model, old in turns:
                if old is not None:
                    self._entries[new.name] = new
                    self._beside[self._beside.index(new)] = old
                new.model, new.state = model, ModelState.READY
            self._set_ready({**self._ready, **{new.name: model for new, model, _ in turns}})
            for _, _, old in turns:
                if old is not None:
                    _close(old)

    def give_up(self, new: Entry) -> None:
        """Nothing is to be loaded there any more, unless it is already."""
        with self._lock:
            if new in self._beside:
                self._beside.remove(new)

    def succeed(self, new: Entry, old: Entry) -> None:
        """The entry of a model that has gone is that of the one that is to be loaded in its place."""
        with self._lock:
            self._beside.remove(new)
            self._entries[new.name] = new
            old.model = None


def _close(entry: Entry) -> None:
    entry.state = ModelState.DRAINING
    if entry.model is not None:
        entry.model.scheduler.close()


def already(entry: Entry) -> str:
    """Why a name is not free, in words."""
    return f"model {entry.name!r} is already {_STATE_WORDS[entry.state]}"


def unloaded_meanwhile(name: str) -> str:
    """Why a swap has nothing to replace, in words."""
    return f"model {name!r} was unloaded while what was to replace it was loaded"


_STATE_WORDS = {
    ModelState.LOADING: "being loaded",
    ModelState.WARMING: "being loaded",
    ModelState.READY: "loaded",
    ModelState.DRAINING: "being unloaded",
}
