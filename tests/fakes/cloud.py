"""Captures on their way to a store, in this process: the real service, spool, uploader, client and credentials."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge.capture.service import CaptureService
from edge.capture.statuses import CaptureState
from edge.clock import Clock, SystemClock
from edge.cloud.aws.answer import Patience
from edge.cloud.aws.client import S3Location
from edge.cloud.aws.credentials import CredentialSource, EnvironmentCredentials
from edge.cloud.aws.s3 import S3Store
from edge.cloud.aws.trust import public_trust
from edge.cloud.uploader import Uploader
from tests.fakes import captures
from tests.fakes.s3_stub import ACCESS, BUCKET, REGION, SECRET, S3Stub
from tests.system.harness import eventually

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
_LOOK_SECONDS = 0.01
STALL_SECONDS = 5.0
SOON_SECONDS = 0.5  # for stores that stall


class SkewedClock(SystemClock):
    """A system clock that is `offset` seconds off."""

    def __init__(self, offset: float) -> None:
        self.offset = offset

    def now(self) -> float:
        return time.time() + self.offset


class QuickClock(SystemClock):
    """A clock for whoever waits: a wait takes a hundredth of a second, and the clock has moved by all of it.

    `waits` are the seconds that were asked for.
    """

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._moved = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._moved

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        if event.wait(min(seconds, _LOOK_SECONDS)):
            return True
        self._moved += seconds
        return False


class NoChance:
    """Jitter that is always the same."""

    def random(self) -> float:
        return 0.5


def s3_store(
    endpoint: str,
    *,
    credentials: CredentialSource | None = None,
    clock: Clock | None = None,
    ca_file: Path | str = "",
    region: str = REGION,
    bucket: str = BUCKET,
    stall_seconds: float = STALL_SECONDS,
    answer_seconds: float = STALL_SECONDS,
    verify: bool = False,
    part_bytes: int = 0,
) -> S3Store:
    """A store with short patience."""
    patience = Patience(connect_seconds=2.0, stall_seconds=stall_seconds, answer_seconds=answer_seconds)
    location = S3Location(bucket, region, endpoint, verify=verify, patience=patience)
    if part_bytes:
        location = dataclasses.replace(location, whole_bytes=2 * part_bytes, part_bytes=part_bytes)
    source = credentials or EnvironmentCredentials(ENVIRONMENT)
    return S3Store(location, source, clock or SystemClock(), lambda: public_trust(str(ca_file)))


class Pipeline:
    """A capture service that uploads to `store`."""

    def __init__(self, folder: Path, store: S3Store, **settings: Any) -> None:
        self.clock = QuickClock()
        connections = settings.pop("connections", 4)
        period = settings.pop("period", None)
        self.uploader = Uploader(store, self.clock, chance=NoChance(), period=period, connections=connections)
        values: dict[str, Any] = {"push_period": 0.05, "batch_captures": 5, "buffer_captures": 1000, **settings}
        make = captures.disk_settings if values.pop("on_disk", False) else captures.cloud_settings
        self.settings = make(folder, **values)
        self.service = CaptureService(self.settings, SystemClock(), self.uploader)

    @property
    def spool(self) -> Path:
        """Where batches wait."""
        return self.settings.disk_path or self.settings.spool_path / "sealed"

    def error(self) -> str:
        """The last error in words."""
        return self.service.snapshot().last_error

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something; a failure tells the last error."""
        with_error = f"{what}; last error: {self.error()}"
        eventually(condition, 20, with_error)

    def wait_states(self, ids: list[str], state: CaptureState = CaptureState.SUCCESS) -> None:
        """Wait until all captures are in a state."""
        self.wait(lambda: all(self.service.status(i) is state for i in ids), f"captures are {state.name}")

    def waiting_files(self) -> list[Path]:
        """Record files and large entries in the spool."""
        return [path for path in self.spool.rglob("*") if path.is_file() and ".spool" not in path.parts]


@contextlib.contextmanager
def pipeline(folder: Path, store: S3Store, **settings: Any) -> Iterator[Pipeline]:
    """A started pipeline."""
    made = Pipeline(folder, store, **settings)
    made.service.start()
    try:
        yield made
    finally:
        made.service.stop(10)


def submit_some(made: Pipeline, count: int = 7, start: int = 0) -> list[str]:
    """Captures with and without large tensors; returns their ids."""
    ids = [f"c-{i}" for i in range(start, start + count)]
    for i, capture_id in enumerate(ids):
        made.service.submit(captures.large(capture_id) if i % 2 else captures.small(capture_id))
    return ids


def assert_all_stored(stub: S3Stub, ids: list[str]) -> None:
    """Each capture is in the bucket once, whole, and the client made no fault."""
    records = stub.records()
    assert sorted(records) == sorted(ids)
    assert stub.complaints == []
    for capture_id, event in records.items():
        for entry in event["deviceFleetInputs"]:
            if "data-ref" in entry:
                body = stub.objects[entry["data-ref"].removeprefix(f"s3://{BUCKET}/")].body
                assert body.startswith(capture_id.encode() + b"-")
