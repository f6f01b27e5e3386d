"""The spool and the capture folder while the agent runs: removed, replaced, mounted over, taken away (R-11)."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.capture.service import CaptureService
from edge.errors import SpoolFullError
from tests.fakes import captures
from tests.fakes.captures import cloud_settings, disk_settings, large, small
from tests.fakes.clock import FakeClock
from tests.fakes.disk import file_system


def refused_once(service: CaptureService, clock: FakeClock) -> None:
    """The first capture after it is refused, and shown; the worker makes the spool anew."""
    clock.advance(1)
    with pytest.raises(SpoolFullError, match="removed, replaced or mounted over"):
        service.submit(small("refused"))
    assert "removed, replaced or mounted over" in service.snapshot().last_error
    clock.advance(60)
    service.turn(stopping=False)


def take_some(service: CaptureService, clock: FakeClock, folder: Path) -> None:
    """Captures are taken again, and become durable."""
    for name in ("new-1", "new-2"):
        service.submit(large(name))
    clock.advance(60)
    service.turn(stopping=False)
    assert [service.status(name).name for name in ("new-1", "new-2")] == ["SUCCESS", "SUCCESS"]
    assert {"new-1", "new-2"} <= set(captures.found(folder))
    snapshot = service.snapshot()
    assert (snapshot.last_error, snapshot.pending, snapshot.refusing_since_unix_seconds) == ("", 0, 0)


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def replace(folder: Path) -> None:
    folder.rename(folder.with_name("before"))
    folder.mkdir()


def remove_lock(folder: Path) -> None:
    (folder / ".spool/lock").unlink()


def remove_open(folder: Path) -> None:
    shutil.rmtree(folder / ".spool/open")


@pytest.mark.parametrize("change", [remove, replace, remove_open])
def test_captures_go_on_in_a_new_folder(
    make: captures.Runs, clock: FakeClock, tmp_path: Path, change: Any
) -> None:  # [R-11] [G-4]
    """What was open is FAILURE, what was durable stays SUCCESS."""
    service = make(disk_settings(tmp_path))
    service.submit(small("durable"))
    service.turn(stopping=True)
    service.submit(large("open"))
    change(tmp_path / "disk")
    refused_once(service, clock)
    assert [service.status(name).name for name in ("durable", "open")] == ["SUCCESS", "FAILURE"]
    take_some(service, clock, tmp_path / "disk")
    assert service.snapshot().failed == 1


def test_the_worker_sees_it_without_a_capture(make: captures.Runs, clock: FakeClock, tmp_path: Path) -> None:
    service = make(disk_settings(tmp_path))
    remove(tmp_path / "disk")
    service.turn(stopping=False)
    take_some(service, clock, tmp_path / "disk")
    assert service.snapshot().refused == 0


def test_a_lock_that_is_removed_loses_nothing(make: captures.Runs, clock: FakeClock, tmp_path: Path) -> None:
    service = make(disk_settings(tmp_path))
    service.submit(large("open"))
    remove_lock(tmp_path / "disk")
    refused_once(service, clock)
    take_some(service, clock, tmp_path / "disk")
    assert service.status("open").name == "SUCCESS" and service.snapshot().failed == 0


def test_another_agent_took_the_place(make: captures.Runs, clock: FakeClock, tmp_path: Path) -> None:
    """As after a copy of the folder: it waits until the spool is free."""
    service = make(disk_settings(tmp_path))
    remove(tmp_path / "disk")
    other = CaptureService(disk_settings(tmp_path), clock, None)
    other._try_open()
    refused_once(service, clock)
    with pytest.raises(SpoolFullError, match="another agent uses the spool"):
        service.submit(small("refused"))
    captures.abandon(other)
    clock.advance(60)
    service.turn(stopping=False)
    take_some(service, clock, tmp_path / "disk")


def test_what_waited_for_its_upload(make: captures.Runs, clock: FakeClock, tmp_path: Path) -> None:  # [R-11] [G-4]
    service = make(cloud_settings(tmp_path))
    for name in ("sealed-1", "sealed-2"):
        service.submit(large(name))
    service.turn(stopping=True)
    service.submit(small("open"))
    kept = service.snapshot()
    remove(tmp_path / "spool/open")
    refused_once(service, clock)
    assert [service.status(name).name for name in ("sealed-1", "open")] == ["IN_PROGRESS", "FAILURE"]
    assert service.snapshot().pending == kept.pending - 1
    remove(tmp_path / "spool")
    refused_once(service, clock)
    snapshot = service.snapshot()
    assert [service.status(name).name for name in ("sealed-1", "sealed-2")] == ["FAILURE", "FAILURE"]
    assert (snapshot.pending, snapshot.pending_bytes, snapshot.failed) == (0, 0, 3)


def test_a_file_system_comes_and_goes(make: captures.Runs, clock: FakeClock, tmp_path: Path) -> None:
    """Mounted over the folder, and taken away again: what was open below is finished then."""
    service = make(disk_settings(tmp_path))
    service.submit(large("below"))
    with file_system(tmp_path / "disk", "size=8m"):
        refused_once(service, clock)
        assert service.status("below").name == "FAILURE"
        take_some(service, clock, tmp_path / "disk")
    refused_once(service, clock)
    clock.advance(60)
    service.turn(stopping=False)
    assert service.status("below").name == "SUCCESS"
    assert captures.found(tmp_path / "disk") == ["below"]
