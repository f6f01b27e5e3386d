"""Loading one model: its package is verified, it is tried out, memory is checked, its sessions are opened and warmed up.

When each of it may go on is in `edge.serving.loads`.
"""

import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge.clock import Clock
from edge.engine.engine import GPU, LITERT_GPU, TFLITE, DelegateRef, Session, SessionOptions
from edge.engine.engines import Engines
from edge.engine.gpu_session import GpuSession
from edge.engine.probe import ProbeResult
from edge.engine.samples import Sample
from edge.engine.shapes import ShapeTrials
from edge.errors import InferenceError, ModelRefusedError, TargetError
from edge.host import threads
from edge.host.huge_pages import use_huge_pages
from edge.package.manifest import Manifest, check_target
from edge.serving import selftest
from edge.serving.binding import InputBinder
from edge.serving.failed import FailedCall
from edge.serving.loads import MIB, Load, Loads
from edge.serving.opening import adapted, default_threads, options_for, try_out
from edge.serving.remarks import Remarks
from edge.serving.scheduler import Scheduler
from edge.tally import Tally
from edge.tensors import DYNAMIC, TensorSpec
from edge.text import counted

if TYPE_CHECKING:
    from edge.package.open import Package

log = logging.getLogger(__name__)

SPARE_THREADS = 4  # left to calls when a model takes its threads
MAX_EARLIER = 16  # models that served an alias before, that are remembered


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
class Served:
    """A model that served an alias until another took its place, at `until` on the wall clock and on the monotonic one."""

    manifest: Manifest
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    until: float
    until_monotonic: float


@dataclass(frozen=True)
class LoadedModel:
    """A model that serves; `earlier` are those that it replaced, the newest first."""

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
    shape_trials: ShapeTrials | None  # None: it takes its own shapes alone
    warning: str  # why it has not run yet, in words; empty where it has
    engine: str  # which serves it, and its release
    earlier: tuple[Served, ...] = ()
    engine_name: str = TFLITE
    accelerated: tuple[GpuSession, ...] = ()

    @property
    def taken_bytes(self) -> int:
        """What it was measured to take, with the shapes that it was given since."""
        return self.memory_bytes + (self.shape_trials.grown_bytes if self.shape_trials is not None else 0)

    @property
    def engine_now(self) -> str:
        """The engine that serves it, and why that is another than at first where the GPU has failed since."""
        fell_back = next((one.fell_back for one in self.accelerated if one.fell_back), "")
        return f"{self.engine}; on the CPU now, for {fell_back}" if fell_back else self.engine

    def in_place_of(self, old: "LoadedModel", clock: Clock) -> "LoadedModel":
        """This model from now on, where `old` served."""
        gone = Served(old.manifest, old.inputs, old.outputs, clock.now(), clock.monotonic())
        return replace(self, earlier=(gone, *old.earlier)[:MAX_EARLIER])

    def as_of(self, unix_seconds: float | None, clock: Clock) -> "LoadedModel | Served":
        """Who served under this alias then; None means now (W-8).

        The wall clock may have been set since: what it says now must not lie before the replacement either.
        """
        found: LoadedModel | Served = self
        if unix_seconds is not None and self.earlier:
            ago, monotonic = clock.now() - unix_seconds, clock.monotonic()
            for one in self.earlier:
                if unix_seconds >= one.until or ago <= monotonic - one.until_monotonic:
                    break
                found = one
        return found

    def drain(self) -> None:
        """Take no new calls, wait for those that run or wait, and give everything back."""
        self.scheduler.drain()
        if self.shape_trials is not None:
            self.shape_trials.close()


class Loader:
    """Loads models. Safe to use from any thread."""

    def __init__(
        self,
        engines: Engines,
        open_package: "Callable[[str, Load], Package]",
        defaults: ModelDefaults,
        clock: Clock,
        loads: Loads,
    ) -> None:
        self._engines = engines
        self._open_package = open_package
        self._defaults = defaults
        self._clock = clock
        self._loads = loads
        self.trials = Tally("passed", "refused")

    def load(self, name: str, url: str, load: Load, warming: Callable[[], None], *, idle: bool = False) -> LoadedModel:
        """Load the package at a url; `warming` is called when its sessions are being opened, `idle` is its trial (`Child`).

        Raises:
            EdgeError: the first of the checks L-3 to L-7 that fails.
            DeadlineError, StoppingError: the caller, its time or the agent has ended (L-12).
        """
        with self._loads.verifying(load):
            package = self._open_package(url, load)
        with package:
            load.taken()
            manifest = package.manifest
            check_target(manifest, os="linux", arch=platform.machine())
            self._engines.prepare()  # what it takes must be there before memory is looked at
            instances = 1 if manifest.state == "keep" else manifest.instances or self._defaults.instances
            threads_each = self._defaults.threads or default_threads(instances)
            options = options_for(manifest, threads=threads_each, delegate=self._delegate(manifest))
            sample = Sample(manifest.sample_shapes, package.sample_fd)
            with self._loads.trial(load):
                threads.make_sure_of(1 + options.threads + SPARE_THREADS)  # the child's count as the agent's
                try:
                    options, trial = try_out(
                        package.model_fd,
                        manifest,
                        options,
                        sample,
                        engines=self._engines,
                        idle=idle,
                        go_on=load.go_on,
                    )
                    self._run_selftest(package, options, load, idle=idle)
                except ModelRefusedError:
                    self.trials.count("refused")
                    raise
                self.trials.count("passed")
            self._engines.prepare(options.engine)
            needed = instances * trial.session_bytes
            with self._loads.turn(load):
                load.claim("the model", needed)
                warming()
                threads.make_sure_of(instances * (options.threads - 1) + SPARE_THREADS)
                sessions = self._sessions(
                    name, package, instances=instances, options=options, sample=sample, trial=trial
                )
            use_huge_pages()
            memory_bytes = needed + package.model_bytes
            try:
                return self._loaded(
                    name, url, package, sessions=sessions, options=options, trial=trial, memory_bytes=memory_bytes
                )
            except BaseException:
                _close(sessions)
                raise

    def _run_selftest(self, package: "Package", options: SessionOptions, load: Load, *, idle: bool) -> None:
        if package.selftest is not None and package.selftest_fd is not None:
            model = selftest.Model(package.model_fd, package.manifest, options, self._engines.describe(options.engine))
            selftest.run_selftest(model, package.selftest, package.selftest_fd, idle=idle, go_on=load.go_on)

    def answers(self, url: str, call: FailedCall, load: Load) -> bool:
        """Whether the model of the package at a url answers a call; in processes of their own, when no other wants to run.

        Raises:
            EdgeError: as `load`; that cannot be known.
        """
        with self._loads.verifying(load):
            package = self._open_package(url, load)
        with package:
            load.taken()
            manifest = package.manifest
            threads_each = self._defaults.threads or default_threads(1)
            options = options_for(manifest, threads=threads_each, delegate=self._delegate(manifest))
            sample = Sample(manifest.sample_shapes, package.sample_fd)
            with self._loads.trial(load):
                options, _ = try_out(
                    package.model_fd,
                    manifest,
                    options,
                    sample,
                    engines=self._engines,
                    idle=True,
                    go_on=load.go_on,
                )
                model = selftest.Model(package.model_fd, manifest, options, self._engines.describe(options.engine))
                return selftest.answers(model, call, load.go_on)

    def _loaded(
        self,
        name: str,
        url: str,
        package: "Package",
        *,
        sessions: list[Session],
        options: SessionOptions,
        trial: ProbeResult,
        memory_bytes: int,
    ) -> LoadedModel:
        served = adapted(sessions, package.manifest)
        first = served[0]
        engine = self._engines.describe(options.engine)
        if options.engine == LITERT_GPU:
            engine += ", in part" if trial.partly else ", fully"
        elif options.accelerator == GPU:
            engine += f", not on the GPU: {trial.passed_over or 'edge_accelerators does not allow it'}"
            log.warning("model %s is served by %s", name, engine)
        elif trial.passed_over:
            log.info("model %s is served by the interpreter: %s", name, trial.passed_over)
        if trial.reason:
            log.warning("model %s is loaded and has not run yet: %s", name, trial.reason)
        return LoadedModel(
            name,
            url,
            package.manifest,
            first.inputs,
            first.outputs,
            InputBinder(first.inputs, strict=self._defaults.strict_tensors),
            Scheduler(name, served, queue_calls=self._defaults.queue_calls, clock=self._clock),
            memory_bytes,
            len(sessions),
            first.borrows,
            Remarks(name),
            self._shape_trials(name, package, sessions[0], options, trial, instances=len(sessions)),
            trial.reason,
            engine,
            engine_name=options.engine,
            accelerated=tuple(session for session in sessions if isinstance(session, GpuSession)),
        )

    def _shape_trials(
        self,
        name: str,
        package: "Package",
        session: Session,
        options: SessionOptions,
        trial: ProbeResult,
        *,
        instances: int,
    ) -> ShapeTrials | None:
        if not any(DYNAMIC in spec.signature for spec in session.inputs):
            return None
        trials = ShapeTrials(
            name,
            package.model_fd,
            options,
            trial.kind,
            run_seconds=package.manifest.trial_seconds,
            engine=self._engines.describe(options.engine),
            session_bytes=trial.session_bytes,
            instances=instances,
            check_room=self._loads.check_room,
            clock=self._clock,
        )
        if trial.allocate and trial.kind:
            trials.learn(tuple(spec.shape for spec in session.inputs))
        return trials

    def _delegate(self, manifest: Manifest) -> DelegateRef | None:
        if manifest.delegate is None:
            return None
        if manifest.delegate not in self._defaults.delegate_paths:
            allowed = ", ".join(self._defaults.delegate_paths) or "none (see edge_delegate_paths)"
            raise TargetError(f"the package needs the delegate {manifest.delegate}; this agent allows {allowed}")
        return DelegateRef(manifest.delegate)

    def _sessions(
        self,
        name: str,
        package: "Package",
        *,
        instances: int,
        options: SessionOptions,
        sample: Sample,
        trial: ProbeResult,
    ) -> list[Session]:
        from edge.engine.sample_inputs import SampleInputs

        sessions: list[Session] = []
        try:
            for _ in range(instances):
                session = self._open(name, package.model_fd, options)
                sessions.append(session)
                if trial.kind:
                    SampleInputs(session.inputs, sample).run(session, trial.kind)
                    session.reset()
        except InferenceError as error:
            _close(sessions)
            raise ModelRefusedError("the runtime fails on the model's first inference") from error
        except BaseException:
            _close(sessions)
            raise
        return sessions

    def _open(self, name: str, model_fd: int, options: SessionOptions) -> Session:
        if options.engine == LITERT_GPU:
            return GpuSession(self._engines, model_fd, options, name)
        return self._engines.open(f"/proc/self/fd/{model_fd}", options)


def _close(sessions: list[Session]) -> None:
    for session in sessions:
        session.close()


def log_loaded(model: LoadedModel) -> None:
    """Say that it serves."""
    before = f" in place of {model.earlier[0].manifest.model_version}" if model.earlier else ""
    log.info(
        "model %s loaded: package %s %s%s, %s, %.1f MiB, on %s",
        model.name,
        model.manifest.model_name,
        model.manifest.model_version,
        before,
        counted(model.instances, "instance"),
        model.memory_bytes / MIB,
        model.engine,
    )
