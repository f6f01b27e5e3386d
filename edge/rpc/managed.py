"""How a model that stays, or one that was loaded, stands: for operators."""

from typing import Any

from edge.capture.service import CaptureService
from edge.clock import Clock
from edge.deploy.adoption import Models
from edge.deploy.managed import Managed
from edge.errors import ModelNotFoundError
from edge.rpc._generated import operations_pb2 as ops
from edge.serving.registry import Registry


def message(models: Models, registry: Registry, name: str, declared: Managed | None) -> ops.ManagedModel:
    """One alias; `declared` where it is that, or was until now."""
    made = ops.ManagedModel(name=name)
    if declared is None or models.deployments.get(name) is not None:
        made.why, since = models.why(name)
        made.since_unix_seconds = int(since)
    try:
        manifest = registry.get(name).manifest
        made.version = f"{manifest.model_name} {manifest.model_version}"
    except ModelNotFoundError:
        pass
    if declared is not None:
        state = declared.state
        made.package = declared.declared.package if declared.declared else ""
        made.committed = state.current is not None and state.trying is None
        made.previous_version = str(state.before or "")
        made.released, made.refused = models.released(name), declared.refused
    return made


def messages(models: Models, registry: Registry) -> list[ops.ManagedModel]:
    """Every alias, declared or loaded, by name."""
    names = {one.name for one in models.deployments.all()} | {model.name for model in registry.models()}
    return [message(models, registry, name, models.deployments.get(name)) for name in sorted(names)]


def account(registry: Registry, captures: CaptureService, clock: Clock) -> dict[str, Any]:
    """What serves and what was captured, in a few words: for a heartbeat (F-22). Times are in seconds since the epoch."""
    now, monotonic, captured = clock.now(), clock.monotonic(), captures.latest()
    models: dict[str, dict[str, Any]] = {}
    for model in registry.models():
        counts = model.scheduler.counts()
        models[model.name] = one = {
            "version": f"{model.manifest.model_name} {model.manifest.model_version}",
            "predicted": counts.answered,
            "failed": sum(model.remarks.failed.counts().values()),
        }
        if counts.last:
            one["last_inference"] = int(now - (monotonic - counts.last))
        if (at := captured.get(model.manifest.model_name)) is not None:
            one["last_capture"] = int(at)
    snapshot = captures.snapshot()
    names = ("pending", "succeeded", "failed", "dropped", "refused", "last_error")
    return {"models": models, "captures": {name: getattr(snapshot, name) for name in names}}
