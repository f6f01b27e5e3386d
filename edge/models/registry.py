"""The loaded models: LOADING -> WARMING -> READY -> DRAINING -> gone.

A load verifies the package, tries the model out in a child process, checks memory by what the trial took, and opens its
sessions. Loads go one at a time, so that each sees the memory that the one before took; Predict goes on meanwhile.
"""

import logging
import os
import platform
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from edge.clock import Clock
from edge.device import memory
from edge.device.huge_pages import use_huge_pages
from edge.errors import (
    EdgeError,
    InferenceError,
    LoadQueueFullError,
    MemoryLimitError,
    ModelExistsError,
    ModelNameError,
    ModelNotFoundError,
    ModelRefusedError,
    StoppingError,
    TargetError,
)
from edge.models.binding import InputBinder
from edge.models.manifest import Manifest, check_target
from edge.models.remarks import Remarks
from edge.models.scheduler import Scheduler
from edge.runtime.engine import DelegateRef, Engine, Session
from edge.runtime.probe import ProbeResult, probe, warm_up
from edge.tensors import TensorSpec
from edge.text import shown

if TYPE_CHECKING:
    from edge.models.package import Package

log = logging.getLogger(__name__)

NAME_PATTERN = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
MAX_NAME_CHARACTERS = 255
MAX_WAITING_LOADS = 8
DEFAULT_MAX_THREADS = 4
MIB = 1 << 20


class ModelState(Enum):
    """Where a model is in its life."""

    LOADING = "LOADING"
    WARMING = "WARMING"
    READY = "READY"
    DRAINING = "DRAINING"


@dataclass(frozen=True)
class ModelDefaults:
    """What holds for a model unless its manifest says; threads 0: from the cores."""

    instances: int
    threads: int
    queue_calls: int
    memory_budget_bytes: int
    delegate_paths: tuple[str, ...]
    strict_tensors: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """A model that serves."""

    name: str
    url: str
    manifest: Manifest
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    binder: InputBinder
    scheduler: Scheduler
    memory_bytes: int
    instances: int
    borrows: frozenset[int]  # inputs, by position, that an inference reads in shared memory where they are
    remarks: Remarks


@dataclass
class _Entry:
    state: ModelState
    model: LoadedModel | None = None


class Registry:
    """Models by the name they were loaded under. Safe to use from any thread."""

    def __init__(
        self,
        engine: Engine,
        open_package: "Callable[[str], Package]",
        defaults: ModelDefaults,
        clock: Clock,
        on_change: Callable[[str, bool], None] = lambda name, serving: None,
    ) -> None:
        self._engine = engine
        self._open_package = open_package
        self._defaults = defaults
        self._clock = clock
        self._on_change = on_change
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._ready: dict[str, LoadedModel] = {}
        self._models: tuple[LoadedModel, ...] = ()
        self._load_turn = threading.Lock()
        self._loads = 0
        self._stopping = False

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

    def load(self, name: str, url: str) -> LoadedModel:
        """Load a package under a name; on any error nothing stays behind (L-9).

        Raises:
            ModelNameError, ModelExistsError, PackageNotFoundError, PackageError, TargetError, UnsupportedModelError,
            MemoryLimitError, ModelRefusedError: the first of the checks L-1 to L-7 that fails.
            LoadQueueFullError: too many loads wait already.
        """
        if len(name) > MAX_NAME_CHARACTERS or not NAME_PATTERN.fullmatch(name):
            raise ModelNameError(
                f"model name {shown(name)} is not allowed; expected 1 to {MAX_NAME_CHARACTERS} letters, digits and '-', beginning and ending with a letter or digit"
            )
        entry = self._claim(name)
        try:
            with self._load_turn:
                if self._stopping:
                    raise StoppingError("the agent is stopping")
                model = self._open(name, url, entry)
        except BaseException:
            with self._lock:
                del self._entries[name]
            memory.give_back()
            raise
        finally:
            with self._lock:
                self._loads -= 1
        with self._lock:
            entry.model, entry.state = model, ModelState.READY
            self._set_ready({**self._ready, name: model})
        self._on_change(name, True)
        log.info(
            "model %s loaded: package %s %s, %d instances, %d MiB",
            name,
            model.manifest.model_name,
            model.manifest.model_version,
            model.instances,
            model.memory_bytes // MIB,
        )
        return model

    def _claim(self, name: str) -> _Entry:
        with self._lock:
            existing = self._entries.get(name)
            if existing is not None:
                raise ModelExistsError(f"model {name!r} is already {_STATE_WORDS[existing.state]}")
            if self._loads > MAX_WAITING_LOADS:
                raise LoadQueueFullError(f"{self._loads} models are being loaded already; try again when one is done")
            self._loads += 1
            entry = self._entries[name] = _Entry(ModelState.LOADING)
            return entry

    def _open(self, name: str, url: str, entry: _Entry) -> LoadedModel:
        with self._open_package(url) as package:
            manifest = package.manifest
            check_target(manifest, os="linux", arch=platform.machine())
            self._engine.prepare()  # what it takes must be there before memory is looked at
            delegate = self._delegate(manifest)
            instances = manifest.instances or self._defaults.instances
            threads = manifest.threads or self._defaults.threads or default_threads(instances)
            trial = probe(package.model_fd, threads=threads, delegate=delegate)
            needed = instances * trial.session_bytes
            self._check_memory(needed)
            entry.state = ModelState.WARMING
            sessions = self._sessions(package, instances, threads, delegate, trial)
            memory_bytes = needed + package.model_bytes
        use_huge_pages()
        first = sessions[0]
        scheduler = Scheduler(name, sessions, queue_calls=self._defaults.queue_calls, clock=self._clock)
        return LoadedModel(
            name,
            url,
            manifest,
            first.inputs,
            first.outputs,
            InputBinder(first.inputs, strict=self._defaults.strict_tensors),
            scheduler,
            memory_bytes,
            instances,
            first.borrows,
            Remarks(name),
        )

    def _delegate(self, manifest: Manifest) -> DelegateRef | None:
        if manifest.delegate is None:
            return None
        if manifest.delegate not in self._defaults.delegate_paths:
            allowed = ", ".join(self._defaults.delegate_paths) or "none (see edge_delegate_paths)"
            raise TargetError(f"the package needs the delegate {manifest.delegate}; this agent allows {allowed}")
        return DelegateRef(manifest.delegate)

    def _check_memory(self, needed: int) -> None:
        available = memory.available()
        if self._defaults.memory_budget_bytes:
            available = min(available, self._defaults.memory_budget_bytes - self.reserved_bytes)
        if needed > available:
            raise MemoryLimitError(
                f"the model needs {_mib(needed)} of memory and {_mib(max(0, available))} are available"
            )

    def _sessions(
        self, package: "Package", instances: int, threads: int, delegate: DelegateRef | None, trial: ProbeResult
    ) -> list[Session]:
        sessions: list[Session] = []
        try:
            for _ in range(instances):
                session = self._engine.open(
                    f"/proc/self/fd/{package.model_fd}",
                    threads=threads,
                    delegate=delegate,
                    in_place=trial.in_place,
                    borrows=trial.borrows,
                )
                sessions.append(session)
                warm_up(session)
        except InferenceError as error:
            _close(sessions)
            raise ModelRefusedError("the runtime fails on the model's first inference") from error
        except EdgeError:
            _close(sessions)
            raise
        return sessions

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
        with self._lock:
            del self._entries[name]
        del model
        memory.give_back()
        log.info("model %s unloaded", name)

    def close(self) -> None:
        """Take no more loads and unload everything."""
        self._stopping = True
        for model in self.models():
            try:
                self.unload(model.name)
            except ModelNotFoundError:
                continue

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
        """Memory that the loaded models were measured to take, in bytes."""
        return sum(model.memory_bytes for model in self._ready.values())


_STATE_WORDS = {
    ModelState.LOADING: "being loaded",
    ModelState.WARMING: "being loaded",
    ModelState.READY: "loaded",
    ModelState.DRAINING: "being unloaded",
}


def default_threads(instances: int) -> int:
    """Threads of an interpreter: all cores but one, shared out among the instances; 1 to DEFAULT_MAX_THREADS.

    An interpreter's threads wait for each other spinning: one that finds no free core holds up the inference for many
    times what it takes. The core kept back is the application's.
    """
    return max(1, min(DEFAULT_MAX_THREADS, (len(os.sched_getaffinity(0)) - 1) // instances))


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"


def _close(sessions: list[Session]) -> None:
    for session in sessions:
        session.close()
