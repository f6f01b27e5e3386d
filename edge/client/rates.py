"""What happened between two answers of GetStatus: calls a second and their latencies, a row for each model. Pure."""

from dataclasses import dataclass
from itertools import zip_longest

from edge import histogram
from edge.rpc._generated import operations_pb2 as ops


@dataclass(frozen=True)
class Row:
    """One model. Seconds are None where no call was answered in between, or the agent does not tell."""

    name: str
    package: str
    version: str
    state: str
    calls_per_second: float
    failed_per_second: float
    p50_seconds: float | None
    p99_seconds: float | None
    running: int
    waiting: int
    memory_bytes: int


def rows(before: ops.GetStatusResponse, now: ops.GetStatusResponse, seconds: float) -> list[Row]:
    """The models, in the agent's order; one that was loaded in between counts from then on."""
    known = {_key(model): model for model in before.models}
    return [_row(known.get(_key(model)), model, seconds, list(now.bucket_seconds)) for model in now.models]


def _key(model: ops.ModelStatus) -> tuple[str, str, str]:
    return model.name, model.package_version, model.url


def _row(before: ops.ModelStatus | None, now: ops.ModelStatus, seconds: float, bounds: list[float]) -> Row:
    old = list(before.inference_counts) if before is not None else []
    counts = [after - earlier for after, earlier in zip_longest(now.inference_counts, old, fillvalue=0)]
    answered, failed = now.predicted, now.failed
    if before is not None and before.predicted <= answered and before.failed <= failed and min(counts, default=0) >= 0:
        answered, failed = answered - before.predicted, failed - before.failed
    else:  # it was loaded in between
        counts = list(now.inference_counts)
    p50, p99 = (histogram.quantile(counts, part, bounds) if bounds else None for part in (0.5, 0.99))
    return Row(
        name=now.name,
        package=now.package_name,
        version=now.package_version,
        state=now.state,
        calls_per_second=answered / seconds,
        failed_per_second=failed / seconds,
        p50_seconds=p50,
        p99_seconds=p99,
        running=now.running,
        waiting=now.waiting,
        memory_bytes=now.memory_bytes,
    )
