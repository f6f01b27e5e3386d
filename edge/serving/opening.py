"""How a package's model is opened: with which options, found by its trial, and through which adapter."""

import os
from collections.abc import Callable

from edge.engine.engine import DelegateRef, Session, SessionOptions
from edge.engine.engines import Engines
from edge.engine.probe import TrialResult, probe
from edge.engine.samples import Sample
from edge.package.adapter import view
from edge.package.manifest import Manifest

DEFAULT_MAX_THREADS = 4


def options_for(manifest: Manifest, *, threads: int, delegate: DelegateRef | None) -> SessionOptions:
    """How a package wants its model to be opened, before it was tried out; with so many `threads` unless it says."""
    return SessionOptions(
        threads=manifest.threads or threads,
        delegate=delegate,
        signature=manifest.signature,
        signature_names=manifest.names == "signature",
        keeps_state=manifest.state == "keep",
        accelerator=manifest.accelerator,
        precision=manifest.precision,
        fallback=manifest.fallback,
    )


def try_out(
    model_fd: int,
    manifest: Manifest,
    options: SessionOptions,
    sample: Sample,
    *,
    engines: Engines,
    idle: bool = False,
    go_on: Callable[[], None] = lambda: None,
) -> tuple[SessionOptions, TrialResult]:
    """Try a model out in a process of its own; the options to serve it with, and what was found. To stop, `go_on` raises.

    Raises:
        EdgeError: as `probe`.
    """
    names = engines.for_model(options)
    trial = probe(model_fd, options, sample, run_seconds=manifest.trial_seconds, engines=names, idle=idle, go_on=go_on)
    found = options._replace(engine=trial.engine, allocate=trial.allocate, borrows=trial.borrows)
    return found, trial


def adapted(sessions: list[Session], manifest: Manifest) -> list[Session]:
    """The sessions as applications see them: these, unless the package has an adapter.

    Raises:
        ManifestError: it does not fit the model.
    """
    if not manifest.inputs and not manifest.outputs:
        return sessions
    from edge.engine.adapting import AdaptedSession  # numpy, which only adapters need

    inputs = view(sessions[0].inputs, manifest.inputs, "inputs")
    outputs = view(sessions[0].outputs, manifest.outputs, "outputs")
    return [AdaptedSession(session, inputs, outputs) for session in sessions]


def default_threads(instances: int) -> int:
    """Threads of an interpreter: all cores but one, shared out among the instances; 1 to DEFAULT_MAX_THREADS.

    An interpreter's threads wait for each other spinning: one that finds no free core holds up the inference for many
    times what it takes. The core kept back is the application's.
    """
    return max(1, min(DEFAULT_MAX_THREADS, (len(os.sched_getaffinity(0)) - 1) // instances))
