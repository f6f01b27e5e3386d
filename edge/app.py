"""The agent put together: the only module that knows all the parts, and the order they start and stop in."""

import functools
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edge import address, histogram, paths
from edge.capture.keeper import Keeper
from edge.capture.record import iso_seconds
from edge.capture.service import CaptureService
from edge.capture.settings import capture_settings
from edge.capture.snapshot import CaptureSnapshot
from edge.capture_policy import parse_policies
from edge.clock import Clock, SystemClock
from edge.config import Config, Loaded
from edge.deploy.adoption import Models
from edge.deploy.declaration import Declaration
from edge.deploy.deployments import Deployments
from edge.deploy.folder import Declarations
from edge.deploy.note import Note
from edge.deploy.store import Store
from edge.engine.engines import Engines
from edge.host import memory, signals
from edge.host.evidence import InferencesEnd, ServerAnswers, SocketIsThere, WorkerTurns
from edge.host.housekeeping import keep_house
from edge.host.huge_pages import Keeper as HugePages
from edge.host.notify import Notifier
from edge.host.watchdog import Watchdog, answer_seconds
from edge.package import trust_folder
from edge.package.judge import Judge
from edge.rpc import managed
from edge.rpc._generated import operations_pb2 as ops
from edge.rpc.admins import admins
from edge.rpc.oip.servicer import InferenceServicer
from edge.rpc.server import Server
from edge.rpc.servicer import Servicer
from edge.rpc.socket_file import claim_socket
from edge.rpc.tls import credentials
from edge.serving.caller import Caller
from edge.serving.loading import ModelDefaults
from edge.serving.loads import MIB, Load
from edge.serving.registry import Registry
from edge.shm.guard import Guard
from edge.shm.peers import Peers
from edge.shm.posix import Regions
from edge.shm.sysv import SegmentReader
from edge.stopping import CAPTURES_SECONDS, GRACE_SECONDS, KEEPER_SECONDS, STOP_SECONDS
from edge.tensors import TensorSpec
from edge.text import counted
from edge.version import version

if TYPE_CHECKING:
    from edge.cloud.store import Bandwidth
    from edge.cloud.uploader import Uploader
    from edge.fleet.polling import Polling
    from edge.metrics.service import Metrics
    from edge.package.open import Package

log = logging.getLogger(__name__)

CAPTURE_TURN_SECONDS = 60.0  # a capture worker that has made no progress for so long is stuck, however slow the disk


class App:
    """One run of the agent."""

    def __init__(self, loaded: Loaded, *, socket: str, replace_socket: bool, max_message_bytes: int) -> None:
        memory.tune_allocator(max_message_bytes)  # gRPC's threads start with the server below
        self._config = loaded.config
        self._max_message_bytes = max_message_bytes
        self._warnings = loaded.warnings
        self._spool_source = loaded.sources["edge_spool_path"]
        self._socket = address.read(socket)
        self._clock = SystemClock()
        self._version, self._build_date = version()
        self._judge = Judge(Path(self._config.core_root_certs_path), self._clock, self._build_date)
        self._started = int(self._clock.now())
        self._stop = threading.Event()
        claim_socket(self._socket, replace=replace_socket)
        admitted = admins(self._config.edge_admins, self._socket)
        if admitted is not None:
            admitted.make_folder()
            claim_socket(admitted.socket, replace=True)  # the folder is this user's own
        self._notifier = Notifier()
        self._engines = Engines(self._config.edge_engine, self._config.edge_accelerators.split(","))
        peers = Peers(self._config.edge_listen)
        self._segments = SegmentReader(self._clock, peers)
        self._regions = Regions(self._clock, peers, Guard(self._clock))
        self._uploads = _uploader(self._config, self._clock, lambda: self._bandwidth)
        self._captures = CaptureService(capture_settings(self._config), self._clock, self._uploads)
        self._keeper = Keeper(
            self._captures,
            parse_policies(self._config.edge_capture_policies),
            folder=Path(self._config.edge_spool_path),
            clock=self._clock,
            summary_seconds=self._config.edge_capture_summary_seconds,
        )
        self._server = Server(
            self._socket,
            max_message_bytes=max_message_bytes,
            max_receive_bytes=self._config.edge_receive_max_mib * MIB,
            max_requests_bytes=self._config.edge_requests_max_mib * MIB,
            clock=self._clock,
            kind=self._config.edge_rpc_server,
            listen=self._config.edge_listen,
            admins=admitted,
            tls=credentials(self._config),
        )
        self._registry = Registry(
            self._engines, self._open_package, _defaults(self._config), self._clock, self._server.set_serving
        )
        store = self._config.edge_package_store_path
        self._fleet = self._member()
        deployments = Deployments(
            self._registry,
            Store(
                Path(store) if store else None,
                self._config.edge_package_store_max_mib * MIB,
                self._judge.accept,
                self._judge.signed_paths,
            ),
            Path(self._config.edge_models_path),
            self._clock,
            lambda name: self._server.set_serving(name, False),
            **({"further": self._fleet.fleet.declared} if self._fleet is not None else {}),
        )
        if self._fleet is not None:
            self._fleet.fleet.serve(deployments)
            self._fleet.telling.account = lambda: managed.account(self._registry, self._captures, self._clock)
        deployments.on_declared(self._declared)
        note = Note(paths.runtime_folder(), self._clock)
        self._models = Models(self._registry, deployments, note, self._clock, strict=self._config.edge_models_strict)
        servicer = Servicer(
            self._registry,
            self._captures,
            self._segments,
            models=self._models,
            max_message_bytes=max_message_bytes,
            describe=self._status,
            regions=self._regions,
            keeper=self._keeper,
            clock=self._clock,
            check_fleet=None if self._fleet is None else functools.partial(_check, self._fleet),
        )
        self._server.register(
            servicer, InferenceServicer(servicer, self._registry, self._models, self._clock, version=self._version)
        )

    def _open_package(self, url: str, load: Load) -> "Package":
        from edge.package.open import Acceptance  # imported with the first package: see edge.package.judge

        version = self._models.deployments.acceptance(url)
        accepted = Acceptance(version.id, version.accepted) if version is not None else None
        return self._judge.open(url, load.claim_memory, load.go_on, accepted)

    def _declared(self, found: Declarations) -> None:
        """Models are declared, some with a policy of captures."""
        policies = {name: one.capture for name, one in found.items() if isinstance(one, Declaration) and one.capture}
        self._keeper.declare(policies, {name for name, one in found.items() if not isinstance(one, Declaration)})

    def run(self) -> NoReturn:
        """Serve until a signal says stop, and exit."""
        signals.watch(self._stop)
        for warning in self._warnings:
            log.warning("configuration: %s", warning)
        if trouble := trust_folder.trouble(Path(self._config.core_root_certs_path)):
            log.warning("%s", trouble)
        log.info("captures wait in %s (%s)", self._config.edge_spool_path, self._spool_source)
        metrics = self._metrics()
        self._captures.open()
        self._models.prepare(self._ready)  # before the first LoadModel can come
        self._server.start(serving=False)
        self._captures.start()  # not before: see Server.start
        self._keeper.start()
        housekeeper = threading.Thread(target=self._keep_house, name="housekeeping", daemon=True)
        housekeeper.start()
        leaving = threading.Thread(target=self._leave, args=(self._fleet,), name="fleet stop", daemon=True)
        if self._fleet is not None:
            leaving.start()  # now: at the stop there may be no room for a thread
        watchdog = self._watchdog()
        watchdog.start()
        if metrics is not None:
            metrics.start(watchdog)
        memory.settle()
        log.info("version %s serves on %s", self._version, address.display(self._socket))
        if address.is_abstract(self._socket):
            log.warning(
                "any program in this network namespace can connect: an abstract socket has no owner and no mode"
            )
        if self._config.edge_listen and self._config.edge_listen_cert_file:
            log.info(
                "clients with a certificate of %s can connect to %s (edge_listen)",
                self._config.edge_listen_client_ca_file,
                self._config.edge_listen,
            )
        elif self._config.edge_listen:
            log.warning("any user of this machine can connect to %s (edge_listen)", self._config.edge_listen)
        self._models.start()
        self._stop.wait()
        end = self._clock.monotonic() + STOP_SECONDS
        self._notifier.stopping()
        watchdog.stop()
        if metrics is not None:
            metrics.end()
        self._shut_down(end)
        if metrics is not None:
            metrics.stop(end)
        housekeeper.join(max(0.0, end - self._clock.monotonic()))  # it may wait for a disk
        if self._fleet is not None:
            leaving.join(max(0.0, end - self._clock.monotonic()))
        # A call that outlived the grace must not hold up the exit, as joining its thread would.
        logging.shutdown()
        os._exit(0)

    def _ready(self) -> None:
        """What is to serve from the start does (M-4)."""
        if not self._stop.is_set():
            self._server.set_serving("", True)
            self._notifier.ready()
        if self._fleet is not None:
            self._fleet.start()

    def _leave(self, fleet: "Polling") -> None:
        """End the fleet's round at once, beside the other steps: a look-up of a name cannot be ended, and they do not wait for it."""
        self._stop.wait()
        fleet.stop()

    def _shut_down(self, end: float) -> None:
        log.info("stopping: finishing calls in flight")
        self._registry.stop_loads()
        self._models.end_waits()
        self._server.stop(GRACE_SECONDS)
        self._models.stop()
        self._keeper.stop(max(KEEPER_SECONDS, end - self._clock.monotonic() - CAPTURES_SECONDS))
        self._captures.stop(max(CAPTURES_SECONDS, end - self._clock.monotonic()))
        self._segments.close()
        self._regions.close()
        log.info("stopped")

    def _metrics(self) -> "Metrics | None":
        """What tells the metrics; it is loaded only where they are to be told."""
        config = self._config
        if not (config.edge_metrics_listen or config.edge_metrics_textfile):
            return None
        from edge.metrics import sources
        from edge.metrics.service import Metrics

        if config.edge_metrics_listen.startswith("/"):
            claim_socket(config.edge_metrics_listen, replace=True)
        metrics = Metrics(config.edge_metrics_listen, config.edge_metrics_textfile, self._clock)
        metrics.register(sources.process(self._version, self._engines.describe, self._started))
        metrics.register(sources.calls(self._server.calls, self._server.refused))
        metrics.register(sources.models(self._registry, config.edge_memory_budget_mib * MIB))
        metrics.register(sources.declared(self._models))
        spool_max_bytes, spool_max_files = config.edge_spool_max_mib * MIB, config.edge_spool_max_files
        metrics.register(sources.captures(self._captures, self._uploads, spool_max_bytes, spool_max_files))
        metrics.register(sources.policies(self._keeper))
        if (fleet := self._fleet) is not None:
            metrics.register(sources.fleet(fleet.describe, lambda: fleet.faults))
        return metrics

    def _watchdog(self) -> Watchdog:
        patience = answer_seconds(self._notifier.watchdog_seconds)
        checks = (
            ServerAnswers(self._socket, patience),
            SocketIsThere(self._socket, self._server.socket_is_there),
            WorkerTurns("capture worker", self._captures.heartbeat, self._clock, CAPTURE_TURN_SECONDS),
            InferencesEnd(self._registry.end_stuck, self._config.edge_inference_stuck_seconds),
        )
        return Watchdog(checks, self._notifier, self._clock, status=self._status_line)

    def _status_line(self) -> str:
        """What `systemctl status` shows."""
        captures = self._captures.snapshot()
        text = (
            f"{counted(len(self._registry.models()), 'model')} loaded, {counted(captures.pending, 'capture')} waiting"
        )
        if captures.oldest_pending_unix_seconds:
            text += f" since {iso_seconds(captures.oldest_pending_unix_seconds)}Z"
        if idle := [one.name for one in self._models.deployments.all() if one.refused]:
            text += f"; declared and not served: {', '.join(idle)}"
        if self._fleet is not None and (failing := self._fleet.describe()["last_error"]):
            text += f"; fleet: {failing}"
        return f"{text}; last error: {captures.last_error}" if captures.last_error else text

    def _keep_house(self) -> None:
        trim = memory.Trim(self._max_message_bytes)
        huge_pages = HugePages(self._clock.monotonic)

        def end_idle_trials() -> None:
            for model in self._registry.models():
                if model.shape_trials is not None:
                    model.shape_trials.end_idle_child()

        def look_at_memory() -> None:
            large = self._server.large_requests
            trim.look(sum(model.scheduler.predicted for model in self._registry.models()) + large)
            huge_pages.look(self._registry.served, large, crowded=self._server.crowded)

        duties = (self._segments.sweep, self._regions.sweep, self._models.look, end_idle_trials, look_at_memory)
        keep_house(self._clock, self._stop, duties)

    def _status(self) -> Any:
        """The answer of Operations.GetStatus."""
        return ops.GetStatusResponse(
            version=self._version,
            started_unix_seconds=self._started,
            engine=self._engines.describe(),
            models=[_model_status(*state) for state in self._registry.states()],
            captures=_capture_status(self._captures.snapshot(), self._keeper.results.counts()),
            memory_budget_bytes=self._config.edge_memory_budget_mib * MIB,
            memory_reserved_bytes=self._registry.reserved_bytes,
            managed=managed.messages(self._models, self._registry),
            models_path=self._config.edge_models_path,
            bucket_seconds=histogram.BOUNDS,
            fleet=ops.FleetStatus(**self._fleet.describe()) if self._fleet is not None else None,
        )

    @functools.cached_property
    def _bandwidth(self) -> "Bandwidth":
        """What uploads and packages of the fleet share; its module is loaded only where there are such."""
        from edge.cloud.store import Bandwidth

        return Bandwidth(self._config.edge_upload_max_kib_per_second * 1024, self._clock)

    def _member(self) -> "Polling | None":
        """What brings models of the fleet; nothing of it is loaded where the agent is in none."""
        if not self._config.edge_fleet_root:
            return None
        from edge.fleet.build import build

        return build(self._config, self._clock, self._version, self._build_date, self._bandwidth)


def _check(fleet: "Polling", folder: str, caller: Caller) -> ops.FleetStatus:
    """The answer of Operations.CheckFleet."""
    fleet.check(folder, caller)
    return ops.FleetStatus(**fleet.describe())


def _uploader(config: Config, clock: Clock, bandwidth: Callable[[], "Bandwidth"]) -> "Uploader | None":
    """Where captures go to the cloud, at once or from the disk; its libraries are loaded only then."""
    cloud = config.core_capture_data_destination == "Cloud"
    if not cloud and not config.core_capture_data_periodic_upload:
        return None
    from edge.cloud.build import build_store
    from edge.cloud.uploader import Uploader

    store = build_store(config, clock)
    if store is None:
        return None
    return Uploader(
        store,
        clock,
        period=None if cloud else float(config.core_capture_data_periodic_upload_period_seconds),
        connections=config.edge_upload_connections,
        bandwidth=bandwidth(),
    )


def _defaults(config: Config) -> ModelDefaults:
    return ModelDefaults(
        instances=config.edge_model_instances,
        threads=config.edge_model_threads,
        queue_calls=config.edge_queue_calls,
        memory_budget_bytes=config.edge_memory_budget_mib * MIB,
        delegate_paths=config.edge_delegate_paths,
        strict_tensors=config.edge_strict_tensors,
    )


def _model_status(name: str, state: Any, model: Any) -> Any:
    status = ops.ModelStatus(name=name, state=state.value)
    if model is not None:
        status.package_name, status.package_version = model.manifest.model_name, model.manifest.model_version
        status.instances, status.memory_bytes = model.instances, model.taken_bytes
        status.waiting, status.running = model.scheduler.waiting, model.scheduler.running
        counts = model.scheduler.counts()
        status.predicted, status.mislabelled = counts.answered, model.remarks.mislabelled
        status.failed = sum(model.remarks.failed.counts().values())
        status.inference_counts.extend(histogram.without_last_zeros(counts.answered_buckets))
        status.warning, status.url, status.engine = model.warning, model.url, model.engine_now
        status.inputs.extend(map(_tensor_status, model.inputs))
        status.outputs.extend(map(_tensor_status, model.outputs))
    return status


def _tensor_status(spec: TensorSpec) -> Any:
    return ops.TensorStatus(name=spec.name, data_type=spec.dtype.name, shape=spec.signature)


def _capture_status(snapshot: CaptureSnapshot, chosen: Mapping[str, int]) -> Any:
    told = asdict(snapshot) | {f"policy_{result}": count for result, count in chosen.items()}
    return ops.CaptureStatus(**{field.name: told[field.name] for field in ops.CaptureStatus.DESCRIPTOR.fields})
