"""Files whose last bytes the disk refuses only when they are closed, as NFS does at a quota (R-5, R-11)."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from edge.capture.lock import SpoolLock
from edge.capture.statuses import CaptureState, Statuses, StatusLog
from tests.fakes import captures
from tests.fakes.captures import disk_settings, small
from tests.fakes.clock import FakeClock


class Closing:
    """Closes of files with `word` in their path fail, `times` times; the number is free all the same, as Linux has it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.word, self.times = "", 0
        self.failed: list[int] = []
        self._real = os.close
        monkeypatch.setattr(os, "close", self._close)

    def fail(self, word: str, times: int = 1) -> None:
        self.word, self.times = word, times

    def _close(self, fd: int) -> None:
        path = str(Path(f"/proc/self/fd/{fd}").readlink()) if self.times else ""
        self._real(fd)
        if path and self.word in path:
            self.times -= 1
            self.failed.append(fd)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def take(self) -> os.stat_result:
        """Let another file have the number that became free."""
        other = os.open("/dev/null", os.O_RDONLY)
        if other != self.failed[0]:
            os.dup2(other, self.failed[0])
            self._real(other)
        return os.fstat(self.failed[0])

    def give(self) -> None:
        self._real(self.failed[0])


@pytest.fixture
def closing(monkeypatch: pytest.MonkeyPatch) -> Closing:
    return Closing(monkeypatch)


def test_a_record_file(make: captures.Runs, clock: FakeClock, closing: Closing, tmp_path: Path) -> None:  # [R-5] [G-2]
    service = make(disk_settings(tmp_path))
    service.submit(small("one"))
    closing.fail(".jsonl.open")
    clock.advance(60)
    service.turn(stopping=False)
    assert "cannot be made durable yet: Disk quota exceeded" in service.snapshot().last_error
    other = closing.take()
    clock.advance(60)
    service.turn(stopping=False)
    assert os.path.samestat(os.fstat(closing.failed[0]), other)  # it is nobody else's to close
    closing.give()
    assert service.status("one") is CaptureState.SUCCESS and captures.found(tmp_path / "disk") == ["one"]


def test_a_spool_that_is_gone(
    make: captures.Runs, clock: FakeClock, closing: Closing, tmp_path: Path
) -> None:
    """What waited in the buffer is given back, whatever the close of its file says."""
    service = make(disk_settings(tmp_path))
    for model in ("a", "b"):
        service.submit(small(model, model=model))
    shutil.rmtree(tmp_path / "disk")
    closing.fail(".jsonl.open", times=2)
    clock.advance(60)
    service.turn(stopping=False)
    assert len(closing.failed) == 2 and (service._buffer.captures, service._buffer._bytes) == (0, 0)
    assert [service.status(model).name for model in ("a", "b")] == ["FAILURE", "FAILURE"]
    service.submit(small("new"))


def test_an_agent_that_stops(make: captures.Runs, closing: Closing, tmp_path: Path) -> None:
    service = make(disk_settings(tmp_path))
    service.submit(small("one"))
    closing.fail(".jsonl.open")
    service.stop(1)
    again = make(disk_settings(tmp_path))  # the spool was given back
    again.turn(stopping=True)
    assert again.status("one") is CaptureState.SUCCESS


def test_the_status_log(closing: Closing, tmp_path: Path) -> None:  # [G-5]
    """It costs a note at most."""
    log = StatusLog(tmp_path, 1)
    log.load(Statuses(), None)
    log.append(CaptureState.SUCCESS, "key", ["a"])
    closing.fail("statuses.log")
    log.append(CaptureState.SUCCESS, "key", ["b"])  # another file is begun, so that the first is closed
    other = closing.take()
    log.append(CaptureState.SUCCESS, "key", ["c"])
    assert os.path.samestat(os.fstat(closing.failed[0]), other)
    closing.give()
    closing.failed.clear()
    closing.fail("statuses.log")
    log.close()
    assert len(closing.failed) == 1


def test_the_locks(closing: Closing, tmp_path: Path) -> None:
    lock = SpoolLock(tmp_path / "lock")
    lock.take()
    closing.fail("lock")
    lock.release()
    other = closing.take()
    lock.release()
    assert os.path.samestat(os.fstat(closing.failed[0]), other)
    closing.give()
    lock.take()
    lock.release()
