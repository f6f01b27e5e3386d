"""Loading one model: its package is verified, the model tried out, memory claimed, its instances opened and warmed up.

The way of a LoadModel is drawn in `edge.serving`; `edge.serving.loads` decides when a load may go on.
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
from edge.engine.probe import TrialResult
from edge.engine.samples import Sample
from edge.engine.shapes import ShapeTrials
from edge.engine.weights import NEW
from edge.errors import InferenceError, ModelRefusedError, TargetError
from edge.host import memory, threads
from edge.package.manifest import Manifest, check_target
from edge.serving import selftest
from edge.serving.binding import InputBinder
from edge.serving.failed import FailedCall
from edge.serving.instances import close_all, open_instances
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
MAX_EARLIER = 16  # replaced models of a name that are remembered, for captures of their time


@dataclass(frozen=True)
class ModelDefaults:
    """What holds for a model unless its manifest says otherwise; threads 0: by the number of cores."""

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
        self._prepared: set[str] = set()  # engines
        self.trials = Tally("passed", "refused")

    def load(self, name: str, url: str, load: Load, warming: Callable[[], None], *, idle: bool = False) -> LoadedModel:
        """Load the package at a url.

        Args:
            warming: called when the instances are about to be opened and warmed up.
            idle: it can wait: the trial runs only when nothing else wants to (`edge.engine.child`), and there are rests
                between the steps while calls come (`Load.rest`).

        Raises:
            EdgeError: the first of the checks L-3 to L-7 that fails.
            DeadlineError, StoppingError: the caller, its time or the agent has ended (L-12).
        """
        step = load.rest if idle else load.go_on
        step()
        with self._loads.verifying(load):
            package = self._open_package(url, load)
        with package:
            load.memory_taken()
            step()
            manifest = package.manifest
            check_target(manifest, os="linux", arch=platform.machine())
            instances = 1 if manifest.state == "keep" else manifest.instances or self._defaults.instances
            threads_each = self._defaults.threads or default_threads(instances)
            options = options_for(manifest, threads=threads_each, delegate=self._delegate(manifest))
            if instances > 1:  # one alone would take as much with it as without
                options = options._replace(weights=NEW)
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
            step()
            self._prepare(options.engine)
            needed = instances * trial.session_bytes
            with self._loads.opening(load):
                load.claim_memory("the model", needed)
                warming()
                threads.make_sure_of(instances * (options.threads - 1) + SPARE_THREADS)
                sessions = self._sessions(
                    name, package, instances=instances, options=options, sample=sample, trial=trial
                )
            memory_bytes = needed + package.model_bytes
            try:
                step()
                return self._loaded_model(
                    name, url, package, sessions=sessions, options=options, trial=trial, memory_bytes=memory_bytes
                )
            except BaseException:
                close_all(sessions)
                raise

    def _prepare(self, engine: str) -> None:
        self._engines.prepare(engine)
        if engine not in self._prepared:
            self._prepared.add(engine)
            memory.settle()

    def _run_selftest(self, package: "Package", options: SessionOptions, load: Load, *, idle: bool) -> None:
        if package.selftest is not None and package.selftest_fd is not None:
            model = selftest.Model(package.model_fd, package.manifest, options, self._engines.describe(options.engine))
            selftest.run_selftest(model, package.selftest, package.selftest_fd, idle=idle, go_on=load.go_on)

    def answers(self, url: str, call: FailedCall, load: Load) -> bool:
        """Whether the model of the package at a url answers a call, tried in child processes that run when nothing else wants to.

        Raises:
            EdgeError: as `load`; that cannot be known.
        """
        with self._loads.verifying(load):
            package = self._open_package(url, load)
        with package:
            load.memory_taken()
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

    def _loaded_model(
        self,
        name: str,
        url: str,
        package: "Package",
        *,
        sessions: list[Session],
        options: SessionOptions,
        trial: TrialResult,
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
            name=name,
            url=url,
            manifest=package.manifest,
            inputs=first.inputs,
            outputs=first.outputs,
            binder=InputBinder(first.inputs, strict=self._defaults.strict_tensors),
            scheduler=Scheduler(
                name,
                served,
                queue_calls=self._defaults.queue_calls,
                clock=self._clock,
                keeps_state=options.keeps_state,
            ),
            memory_bytes=memory_bytes,
            instances=len(sessions),
            borrows=first.borrows,
            remarks=Remarks(name),
            shape_trials=self._shape_trials(name, package, sessions[0], options, trial, instances=len(sessions)),
            warning=trial.reason,
            engine=engine,
            engine_name=options.engine,
            accelerated=tuple(session for session in sessions if isinstance(session, GpuSession)),
        )

    def _shape_trials(
        self,
        name: str,
        package: "Package",
        session: Session,
        options: SessionOptions,
        trial: TrialResult,
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
        trial: TrialResult,
    ) -> list[Session]:
        from edge.engine.sample_inputs import SampleInputs  # with the first model: an idle agent has none

        def opened(how: SessionOptions) -> Session:
            session = self._open_session(name, package.model_fd, how)
            try:
                if trial.kind:
                    SampleInputs(session.inputs, sample).run(session, trial.kind)
                    session.reset()
            except BaseException:
                session.close()
                raise
            return session

        try:
            return open_instances(name, opened, instances, options)
        except InferenceError as error:
            raise ModelRefusedError("the runtime fails on the model's first inference") from error

    def _open_session(self, name: str, model_fd: int, options: SessionOptions) -> Session:
        if options.engine == LITERT_GPU:
            return GpuSession(self._engines, model_fd, options, name)
        return self._engines.open(f"/proc/self/fd/{model_fd}", options)


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
