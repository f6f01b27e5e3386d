"""What each room counts, put on a sheet. Nothing is counted here: `status` and the protocol's statistics read the same counts."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edge.capture.keeper import Keeper
from edge.capture.service import CaptureService
from edge.deploy.adoption import Models
from edge.host import usage
from edge.host.watchdog import Watchdog
from edge.metrics import table
from edge.metrics.exposition import Collector, Sheet
from edge.serving.aliases import ModelState
from edge.serving.registry import Registry
from edge.tally import Tally

if TYPE_CHECKING:  # it brings the libraries of the cloud side
    from edge.cloud.uploader import Uploader


def process(version: str, engine: Callable[[], str], started: int) -> Collector:
    """The program and its process; `started` in unix seconds."""

    def collect(sheet: Sheet) -> None:
        sheet.add(table.BUILD, 1, version, engine())
        sheet.add(table.START, started)
        now = usage.now()
        sheet.add(table.RESIDENT, now.resident_bytes)
        sheet.add(table.OPEN_FDS, now.open_fds)
        sheet.add(table.FDS_LIMIT, now.max_fds)
        sheet.add(table.CPU, now.cpu_seconds)

    return collect


def calls(counted: Mapping[tuple[str, str], Tally], refused: Callable[[], Mapping[str, int]]) -> Collector:
    """Calls by service and method, and those that no method saw."""

    def collect(sheet: Sheet) -> None:
        for (service, method), tally in counted.items():
            for code, count in tally.counts().items():
                sheet.add(table.CALLS, count, service, method, code)
        for code, count in refused().items():
            sheet.add(table.REFUSED, count, code)

    return collect


def models(registry: Registry, budget_bytes: int) -> Collector:
    """The models that serve: one an alias, so that no two samples have the same labels while one replaces another."""

    def collect(sheet: Sheet) -> None:
        for model in registry.models():
            labels = model.name, model.manifest.model_version
            counts = model.scheduler.counts()
            for code, count in {"OK": counts.answered, **model.remarks.failed.counts()}.items():
                sheet.add(table.MODEL_CALLS, count, *labels, code)
            for reason, count in model.scheduler.ended.counts().items():
                sheet.add(table.ENDED, count, *labels, reason)
            sheet.add_histogram(table.INFERENCE, counts.answered_buckets, counts.answered_seconds, *labels)
            sheet.add_histogram(table.QUEUE, counts.waited_buckets, counts.waited_seconds, *labels)
            sheet.add(table.RUNNING, model.scheduler.running, *labels)
            sheet.add(table.WAITING, model.scheduler.waiting, *labels)
            sheet.add(table.INSTANCES, model.instances, *labels)
            sheet.add(table.MODEL_MEMORY, model.taken_bytes, *labels)
            sheet.add(table.MISLABELLED, model.remarks.mislabelled, *labels)
        states = [state for _, state, _ in registry.states()]
        for state in ModelState:
            sheet.add(table.MODELS, states.count(state), state.value)
        sheet.add(table.RESERVED, registry.reserved_bytes)
        sheet.add(table.BUDGET, budget_bytes)
        for result, count in registry.trials.items():
            sheet.add(table.TRIALS, count, result)
        sheet.add(table.SWAPS, registry.swaps)

    return collect


def declared(kept: Models) -> Collector:
    """The models that stay, and whether what is to serve from the start does."""

    def collect(sheet: Sheet) -> None:
        sheet.add(table.READY, int(kept.is_ready))
        refused = [bool(one.refused) for one in kept.deployments.all()]
        sheet.add(table.DECLARED, refused.count(False), "yes")
        sheet.add(table.DECLARED, refused.count(True), "no")
        sheet.add(table.ROLLBACKS, kept.deployments.rollbacks)

    return collect


def policies(keeper: Keeper) -> Collector:
    """Captures by policy."""

    def collect(sheet: Sheet) -> None:
        counts = keeper.results.counts()
        sheet.add(table.POLICY_CAPTURES, counts["kept"], "kept")
        sheet.add(table.POLICY_CAPTURES, counts["full"] + counts["failed"], "dropped")

    return collect


def fleet(describe: Callable[[], Mapping[str, Any]], faults: Callable[[], int] = lambda: 0) -> Collector:
    """How the device stands in its fleet; `describe` has it as FleetStatus in proto/operations.proto, `faults` counts errors that nobody expected."""

    def collect(sheet: Sheet) -> None:
        now = describe()
        sheet.add(table.FLEET, 1, now["fleet"], now["deployment"])
        for state in ("switching", "trying", "committed", "refused"):
            sheet.add(table.FLEET_STATE, int(now["state"] == state), state)
        sheet.add(table.FLEET_REFUSED, sum(bool(one["refused"]) for one in now["models"]))
        sheet.add(table.FLEET_CHECKED, now["checked_unix_seconds"])
        sheet.add(table.FLEET_FAILING, int(bool(now["last_error"])))
        sheet.add(table.FLEET_FAULTS, faults())

    return collect


def captures(service: CaptureService, uploader: "Uploader | None", max_bytes: int, max_files: int) -> Collector:
    """Captures, their spool with its bounds, and uploads."""

    def collect(sheet: Sheet) -> None:
        now = service.snapshot()
        for result in ("accepted", "refused", "succeeded", "failed", "dropped"):
            sheet.add(table.CAPTURES, getattr(now, result), result)
        sheet.add(table.CAPTURES_WAITING, now.pending)
        sheet.add(table.CAPTURES_OLDEST, now.oldest_pending_unix_seconds)
        sheet.add(table.CAPTURES_REFUSING, now.refusing_since_unix_seconds)
        sheet.add(table.SPOOL, now.pending_bytes)
        sheet.add(table.SPOOL_FILES, now.files)
        sheet.add(table.SPOOL_MAX, max_bytes)
        sheet.add(table.SPOOL_MAX_FILES, max_files)
        if uploader is not None:
            for result, count in uploader.results().items():
                sheet.add(table.UPLOADS, count, result)

    return collect


def watchdog(watched: Watchdog) -> Collector:
    """The watchdog's rounds."""

    def collect(sheet: Sheet) -> None:
        for result, count in watched.rounds.counts().items():
            sheet.add(table.ROUNDS, count, result)
        sheet.add(table.BEAT, watched.alive_at)

    return collect
