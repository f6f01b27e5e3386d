"""A spool without room: what a refusal costs, and a disk that does not let room be made (R-6)."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.capture.sealed import SealedBatch
from edge.errors import SpoolFullError
from tests.fakes import captures
from tests.fakes.captures import cloud_settings, large, small
from tests.fakes.disk import FailingDisk


def test_it_is_not_walked_again_and_again(
    make: captures.Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing was given up there is nothing to find: a refusal costs the same however much waits."""
    service = make(cloud_settings(tmp_path, batch_captures=1, spool_max_files=2))
    spool = service._spool
    service.submit(small("one"))
    service.turn(stopping=False)
    walks: list[str] = []
    waiting = spool._folder.waiting

    def seen(suffix: str = "") -> Iterator[SealedBatch]:
        walks.append(suffix)
        return waiting(suffix)

    monkeypatch.setattr(spool._folder, "waiting", seen)
    for _ in range(5):
        with pytest.raises(SpoolFullError, match="spool_max_files"):
            service.submit(large("two"))
    assert walks == [".failed"]
    monkeypatch.undo()
    spool.give_up(next(spool.batches()))
    service.submit(large("two"))


def test_what_is_being_given_up_is_found_later(make: captures.Runs, tmp_path: Path) -> None:
    """Until its captures are FAILURE it is not dropped, and it is not forgotten."""
    service = make(cloud_settings(tmp_path, batch_captures=1, spool_max_files=2))
    spool = service._spool
    service.submit(small("one"))
    service.turn(stopping=False)
    batch = next(spool.batches())
    spool.give_up(batch)
    spool._claimed.add(batch.key)
    with pytest.raises(SpoolFullError):
        service.submit(large("two"))
    spool.release(batch)
    service.submit(large("two"))


def test_the_disk_does_not_let_room_be_made(
    make: captures.Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # [R-6] [P-6]
    service = make(cloud_settings(tmp_path, drop_oldest=True, batch_captures=1, spool_max_files=2))
    service.submit(large("old"))
    service.turn(stopping=False)
    disk = FailingDisk(monkeypatch)
    disk.fail("rename", errno.EIO, word="sealed")
    with pytest.raises(SpoolFullError, match="no room can be made in it: Input/output error"):
        service.submit(large("new"))
    disk.heal()
    service.submit(large("new"))
    assert service.snapshot().dropped == 1
