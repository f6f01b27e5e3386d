"""Captures come in from many threads while the spool is drained (R-5, R-6)."""

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from edge import durable
from edge.capture import batch as open_batch
from edge.capture.service import CaptureService
from edge.capture.spool import Spool
from edge.clock import SystemClock
from edge.errors import BufferFullError, SpoolFullError
from tests.fakes import captures
from tests.fakes.captures import cloud_settings, disk_settings, large, small
from tests.fakes.clock import FakeClock

THREADS, CAPTURES = 4, 60


class Drain:
    """An uploader to nowhere: remembers the keys and bytes that it was given."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.repeated: list[str] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._spool: Spool | None = None

    def start(self, spool: Spool) -> None:
        self._spool = spool
        self._thread = threading.Thread(target=self._run, name="drain")
        self._thread.start()

    def _run(self) -> None:
        assert self._spool is not None
        while not self._stop.is_set():
            self._spool.sealed.wait(0.05)
            self._spool.sealed.clear()
            self.drain(self._spool)

    def drain(self, spool: Spool) -> None:
        for batch in spool.batches():
            if spool.claim(batch):
                for entry in spool.contents(batch).large:
                    self._put(entry.key, entry.path)
                self._put(batch.key, batch.path)
                spool.done(batch)

    def _put(self, key: str, path: Path) -> None:
        if key in self.objects:
            self.repeated.append(key)
        self.objects[key] = path.read_bytes()

    def stop(self, deadline_s: float) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def last_error(self) -> tuple[str, float]:
        return "", 0.0


@pytest.mark.parametrize("settings", [cloud_settings, disk_settings])
@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"spool_max_bytes": 60_000, "drop_oldest": True},
        {"spool_max_files": 40},
        {"spool_max_bytes": 60_000, "drop_oldest": True, "compress": True},
    ],
)
def test_all_that_is_accepted_arrives_once(tmp_path: Path, settings: Any, bounds: dict[str, Any]) -> None:
    made = settings(tmp_path, bucket=captures.BUCKET, push_period=0.02, batch_captures=5, **bounds)
    drain = Drain()
    service = CaptureService(made, SystemClock(), drain)
    service.start()
    pause = threading.Event()

    def pour(thread: int) -> None:
        for number in range(CAPTURES):
            request = (large if number % 4 == 0 else small)(f"t{thread}-{number}")
            while True:
                try:
                    service.submit(request)
                    break
                except (BufferFullError, SpoolFullError):
                    pause.wait(0.002)

    threads = [threading.Thread(target=pour, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    service.stop(60)
    drain.drain(service._spool)
    service._spool.close()

    shot, usage = service.snapshot(), service._spool.usage()
    assert (usage.size, usage.files, usage.captures) == (0, 0, 0) and shot.pending == 0
    assert not drain.repeated
    record_files = {key: data for key, data in drain.objects.items() if key.endswith(captures.ENDS)}
    assert all(key.endswith(".gz") == made.compress for key in record_files)
    lines = [line for key, data in record_files.items() for line in captures.unpacked(key, data).splitlines()]
    raw = [data for key, data in drain.objects.items() if key.endswith(".bin")]
    assert len(lines) + shot.dropped == THREADS * CAPTURES
    assert all(len(data) == 5000 for data in raw)
    if not shot.dropped:
        assert len(raw) == THREADS * CAPTURES // 4
    if settings is cloud_settings:
        assert (shot.succeeded, shot.failed) == (len(lines), shot.dropped)
    assert not [
        p
        for p in tmp_path.rglob("*")
        if p.is_file() and p.suffix in (".jsonl", ".gz", ".bin", ".open", ".done") and "statuses" not in p.name
    ]


def test_what_is_uploaded_before_its_folder_is_durable_is_not_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = CaptureService(cloud_settings(tmp_path, push_period=60), SystemClock(), None)
    spool, seen = service._spool, []
    real = open_batch.seal

    def seal(*args: Any, **kwargs: Any) -> bool:
        seen.append(service.snapshot())
        done = real(*args, **kwargs)
        seen.append(service.snapshot())
        Drain().drain(spool)
        seen.append(service.snapshot())
        return done

    monkeypatch.setattr(open_batch, "seal", seal)
    service.start()
    for number in range(3):
        service.submit(small(f"c-{number}"))
    service.stop(60)
    seen.append(service.snapshot())
    assert [shot.pending for shot in seen] == [3, 3, 0, 0]
    assert [bool(shot.oldest_pending_unix_seconds) for shot in seen] == [True, True, False, False]


def uploaded(spool: Spool) -> None:
    Drain().drain(spool)


def dropped(spool: Spool) -> None:
    assert spool.drop_oldest(1, 1)


def given_up(spool: Spool) -> None:
    [batch] = spool.batches()
    assert spool.claim(batch)
    spool.give_up(batch)
    spool.drop_oldest(1, 1)


@pytest.mark.parametrize(("leave", "state"), [(uploaded, "SUCCESS"), (dropped, "FAILURE"), (given_up, "FAILURE")])
@pytest.mark.parametrize("settings", [cloud_settings, disk_settings])
@pytest.mark.parametrize("compress", [False, True])
def test_a_batch_that_leaves_before_its_folder_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any, leave: Any, state: str, compress: bool
) -> None:  # [R-5] [R-6] [G-4]
    """The rename went through and the flush of the folder did not: what is gone at the next attempt is not lost."""
    made, clock = settings(tmp_path, bucket=captures.BUCKET, drop_oldest=True, compress=compress), FakeClock()
    flush, failures = durable.fsync_folder, []

    def failing(path: Path) -> None:
        if path.name == "15" and captures.record_files(path) and not failures:
            failures.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(path)

    monkeypatch.setattr(durable, "fsync_folder", failing)
    with captures.Runs(clock) as runs:
        service = runs(made)
        service.submit(large("one"))
        service.submit(small("two"))
        service.turn(stopping=False)
        clock.advance(60)
        service.turn(stopping=False)
        assert len(failures) == 1 and "cannot be made durable yet" in service.snapshot().last_error
        leave(service._spool)
        clock.advance(60)
        service.turn(stopping=False)
        expected = "SUCCESS" if made.disk_path else state  # [G-3]
        for running in (service, None):
            again = running or runs(made)
            assert [again.status(name).name for name in ("one", "two")] == [expected] * 2
            usage = again._spool.usage()
            assert (usage.size, usage.files, usage.captures) == (0, 0, 0)
            assert (again._buffer.captures, again._buffer._bytes, again.snapshot().pending) == (0, 0, 0)
            assert not again._intake.batches() and again.snapshot().last_error == ""
