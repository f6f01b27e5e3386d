"""A disk that does not answer holds up the captures that are written to it, and nobody else (R-12)."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.capture import intake
from edge.capture import service as service_module
from edge.capture.service import CaptureService
from edge.capture.statuses import CaptureState
from edge.clock import SystemClock
from edge.errors import BufferFullError, CaptureExistsError, SpoolFullError
from tests.fakes.captures import disk_settings, large, small
from tests.system.harness import eventually

PATIENCE_SECONDS = 30


class Stall:
    """Holds each write to a file with `word` in its name until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
        self.held = threading.Semaphore(0)
        self.go_on = threading.Event()
        real = os.write

        def write(fd: int, data: Any) -> int:
            if word in str(Path(f"/proc/self/fd/{fd}").readlink()):
                self.held.release()
                self.go_on.wait(PATIENCE_SECONDS)
            return real(fd, data)

        monkeypatch.setattr(os, "write", write)

    def wait(self) -> None:
        """Wait for one more write that is held."""
        assert self.held.acquire(timeout=PATIENCE_SECONDS)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[CaptureService]:
    made = CaptureService(disk_settings(tmp_path, push_period=0.05, buffer_captures=1000), SystemClock(), None)
    made.start()
    yield made
    made.stop(PATIENCE_SECONDS)


def submitting(service: CaptureService, *requests: Any) -> list[threading.Thread]:
    threads = [threading.Thread(target=service.submit, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    return threads


def test_a_write_that_stalls(service: CaptureService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "TURN_SECONDS", 0.05)
    service.submit(small("before"))
    eventually(lambda: service.status("before") is CaptureState.SUCCESS)
    stall = Stall(monkeypatch, ".jsonl.open")
    threads = submitting(service, small("held"))
    stall.wait()
    beat = service.heartbeat()
    with pytest.raises(SpoolFullError, match="the disk has not taken the captures before this one"):
        service.submit(small("refused"))
    with pytest.raises(CaptureExistsError):
        service.submit(small("held"))  # the same id: it waits for nobody
    snapshot = service.snapshot()
    assert (snapshot.pending, snapshot.refused) == (1, 1) and "has not taken" in snapshot.last_error
    service._worker.wake()
    eventually(lambda: service.heartbeat() > beat, what="the worker turns over")
    stall.go_on.set()
    for thread in threads:
        thread.join()
    eventually(lambda: service.status("held") is CaptureState.SUCCESS)
    service.submit(small("refused"))


def test_a_check_of_the_spool_that_stalls(service: CaptureService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is asked before anything is written, by as many calls as may write."""
    monkeypatch.setattr(service_module, "CHECK_SECONDS", 0.0)
    inside, go_on, worker = threading.Semaphore(0), threading.Event(), service._worker._thread

    def lost() -> bool:
        if threading.current_thread() is not worker:
            inside.release()
            go_on.wait(PATIENCE_SECONDS)
        return False

    monkeypatch.setattr(service._spool, "lost", lost)
    threads = submitting(service, *(small(f"held-{i}") for i in range(intake.MAX_WRITERS)))
    for _ in threads:
        assert inside.acquire(timeout=PATIENCE_SECONDS)
    refused: list[BaseException] = []

    def refuse() -> None:
        try:
            service.submit(small("refused"))
        except BufferFullError as error:
            refused.append(error)

    late = threading.Thread(target=refuse)
    late.start()
    late.join(5)
    held = late.is_alive() or inside.acquire(blocking=False)
    go_on.set()
    for thread in (*threads, late):
        thread.join()
    assert not held and f"{intake.MAX_WRITERS} captures are being written already" in str(refused[0])
    eventually(lambda: service.snapshot().pending == 0)
    assert service.status("held-0") is CaptureState.SUCCESS


def test_writers_leave_threads_to_others(service: CaptureService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_WRITERS", 3)
    service._intake._writers = threading.BoundedSemaphore(3)
    stall = Stall(monkeypatch, ".bin.")
    threads = submitting(service, *(large(f"held-{i}") for i in range(3)))
    for _ in threads:
        stall.wait()
    with pytest.raises(BufferFullError, match="3 captures are being written already"):
        service.submit(small("refused"))
    stall.go_on.set()
    for thread in threads:
        thread.join()
    service.submit(small("refused"))
