"""Record files that are compressed, each when it is sealed: what a kill, a full disk and damage leave of them (R-18)."""

import errno
import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge import durable
from edge.capture.service import CaptureService
from tests.fakes import captures
from tests.fakes.captures import cloud_settings, disk_settings, large, small
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FailingDisk


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FailingDisk:
    return FailingDisk(monkeypatch)


def packing(tmp_path: Path, **changes: Any) -> Any:
    return disk_settings(tmp_path, compress=True, **changes)


def opened(make: captures.Runs, tmp_path: Path) -> tuple[CaptureService, Path]:
    """Three captures, the middle one with a large entry, and their open record file."""
    service = make(packing(tmp_path))
    for capture in (small("one"), large("two"), small("three")):
        service.submit(capture)
    [path] = (tmp_path / "disk/.spool/open").rglob("*.jsonl.gz.open")
    return service, path


def finished(make: captures.Runs, settings: Any) -> tuple[CaptureService, list[str]]:
    """The next run, and what is in its place after a turn of it; nothing else is left."""
    service = make(settings)
    service.turn(stopping=True)
    assert not captures.stray_files(settings.spool_path.parent)
    usage = service._spool.usage()
    assert (usage.size, service._buffer.captures, service._buffer._bytes) == (0, 0, 0)
    return service, captures.found(settings.disk_path)


def test_a_batch_is_one_member_whose_lines_are_the_same(make: captures.Runs, tmp_path: Path) -> None:
    service, path = opened(make, tmp_path)
    lines = path.read_bytes()  # plain while it is open
    service.turn(stopping=True)
    [record] = captures.record_files(tmp_path / "disk")
    data = record.read_bytes()
    assert record.name.endswith(".jsonl.gz") and gzip.decompress(data) == lines and len(data) < len(lines) / 2
    assert data[3:8] == bytes(5)  # no name and no time: the same lines make the same bytes
    assert [service.status(i).name for i in ("one", "two", "three")] == ["SUCCESS"] * 3
    assert (service._spool.usage().size, service._buffer._bytes, service.snapshot().pending) == (0, 0, 0)
    assert len(list((tmp_path / "disk").rglob("*-00.bin"))) == 1  # as it is


def test_bounds_count_what_is_on_the_disk(make: captures.Runs, tmp_path: Path) -> None:
    service = make(cloud_settings(tmp_path, compress=True))
    for number in range(8):
        service.submit(small(f"c{number}"))
    plain = service.snapshot().pending_bytes
    service.turn(stopping=True)
    [record] = (tmp_path / "spool/sealed").rglob("*.jsonl.gz")
    assert service.snapshot().pending_bytes == record.stat().st_size < plain / 2
    assert service._buffer._bytes == 0 and service.snapshot().pending == 8
    again = make(cloud_settings(tmp_path))
    assert (again.snapshot().pending_bytes, again.snapshot().pending) == (record.stat().st_size, 8)
    assert again.status("c3").name == "IN_PROGRESS"


@pytest.mark.parametrize("compress", [True, False])
def test_a_kill_while_it_is_compressed(make: captures.Runs, tmp_path: Path, compress: bool) -> None:
    _, path = opened(make, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])  # a line that was never acknowledged
    path.with_name(path.name + ".tmp").write_bytes(gzip.compress(whole)[:40])
    service, ids = finished(make, packing(tmp_path) if compress else disk_settings(tmp_path))
    assert ids == ["one", "two"] and service.status("two").name == "SUCCESS"
    [record] = captures.record_files(tmp_path / "disk")
    assert record.name == path.name.removesuffix(".open")  # a name is decided once


def packed_where_it_is(path: Path, keep: int | None = None) -> None:
    """As a kill leaves it that came between the compression of a batch and the way to its place."""
    path.write_bytes(gzip.compress(path.read_bytes())[:keep])


def test_a_kill_after_it_was_compressed(make: captures.Runs, tmp_path: Path) -> None:
    _, path = opened(make, tmp_path)
    packed_where_it_is(path)
    data = path.read_bytes()
    service = make(disk_settings(tmp_path))
    [batch] = service._intake.batches()
    assert (batch.size, batch.packed, sorted(batch.ids)) == (len(data), True, ["one", "three", "two"])
    _, ids = finished(make, disk_settings(tmp_path))
    assert ids == ["one", "three", "two"]
    assert captures.record_files(tmp_path / "disk")[0].read_bytes() == data  # it is not compressed twice


@pytest.mark.parametrize("damage", ["torn", "flipped", "no end", "large entry"])
def test_a_compressed_batch_that_is_damaged(make: captures.Runs, tmp_path: Path, damage: str) -> None:
    settings = packing(tmp_path, buffer_captures=1000, batch_captures=1000)
    service = make(settings)
    for number in range(200):  # so that some whole lines come before the damage
        service.submit(small(f"c{number:03}"))
    service.submit(large("big"))
    [path] = (tmp_path / "disk/.spool/open").rglob("*.jsonl.gz.open")
    packed_where_it_is(path)
    data = bytearray(path.read_bytes())
    if damage == "large entry":
        next((tmp_path / "disk").rglob("*-00.bin.*")).unlink()
    elif damage == "flipped":
        data[-6] ^= 1  # of the sum
    path.write_bytes(data[: {"torn": len(data) // 2, "no end": len(data) - 8}.get(damage)])
    service, ids = finished(make, settings)
    if damage == "torn":
        assert 10 < len(ids) < 200 and ids == [f"c{number:03}" for number in range(len(ids))]
    else:
        assert [one for one in ids if one != "big"] == [f"c{number:03}" for number in range(200)]
        assert ("big" in ids) == (damage != "large entry")
    if damage == "large entry":
        assert service.status("big").name == "FAILURE"


class BadSector(io.RawIOBase):
    """A file that cannot be read from a place on."""

    def __init__(self, path: Path, number: int) -> None:
        self._data, self._number = io.BytesIO(path.read_bytes()[:100]), number

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._data.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        if not (size := self._data.readinto(buffer)):
            raise OSError(self._number, os.strerror(self._number))
        return size


@pytest.fixture
def sector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Compressed record files cannot be read to their end while the number of an error is in it."""
    reader, numbers = durable.reader, []

    def failing(path: Path) -> Any:
        return io.BufferedReader(BadSector(path, numbers[0])) if numbers and ".jsonl" in path.name else reader(path)

    monkeypatch.setattr(durable, "reader", failing)
    return numbers


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_cannot_be_read_is_no_damage(
    make: captures.Runs, clock: FakeClock, tmp_path: Path, sector: Any, number: int
) -> None:  # [R-18] [R-5] [G-4]
    """What was accepted waits until it can."""
    service, path = opened(make, tmp_path)
    packed_where_it_is(path)
    data = path.read_bytes()
    sector.append(number)
    service = make(packing(tmp_path))
    assert os.strerror(number) in service.snapshot().last_error
    assert path.read_bytes() == data and len(list((tmp_path / "disk").rglob("*-00.bin.*"))) == 1
    sector.clear()
    clock.advance(60)
    service.turn(stopping=True)
    assert captures.found(tmp_path / "disk") == ["one", "three", "two"] and service.snapshot().failed == 0


def test_a_sealed_batch_that_cannot_be_read(make: captures.Runs, tmp_path: Path, sector: Any) -> None:  # [R-18] [G-4]
    service = make(cloud_settings(tmp_path, compress=True))
    service.submit(small("one"))
    service.turn(stopping=True)
    [batch] = service._spool.batches()
    assert service._spool.claim(batch)
    sector.append(errno.EIO)
    for change in (service._spool.contents, service._spool.done, service._spool.give_up):
        with pytest.raises(OSError, match="Input/output error"):
            change(batch)
    sector.clear()
    assert service.status("one").name == "IN_PROGRESS" and service._spool.contents(batch).ids == ("one",)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("settings", [disk_settings, cloud_settings])
def test_a_disk_without_room_for_the_compressed_bytes(
    make: captures.Runs, disk: FailingDisk, tmp_path: Path, number: int, settings: Any
) -> None:
    service = make(settings(tmp_path, compress=True))
    service.submit(small("one"))
    service.submit(large("two"))
    disk.fail("write", number, word=".open.tmp")
    service.turn(stopping=True)
    root = tmp_path / ("disk" if settings is disk_settings else "spool/sealed")
    [record] = captures.record_files(root)
    assert record.name.endswith(".jsonl") and captures.found(root) == ["one", "two"]
    assert not captures.stray_files(tmp_path) and service.snapshot().last_error == ""
    assert service._buffer._bytes == 0
    again = make(settings(tmp_path, compress=True))  # nothing is missed under the other name
    assert again.status("one").name == ("SUCCESS" if settings is disk_settings else "IN_PROGRESS")
    assert again._spool.usage().size == service._spool.usage().size


@pytest.mark.parametrize("edge", ["write", "fsync", "rename", "open"])
def test_a_batch_that_cannot_be_compressed_is_tried_again(
    make: captures.Runs, disk: FailingDisk, clock: FakeClock, tmp_path: Path, edge: str
) -> None:  # [R-18] [G-2]
    service, _ = opened(make, tmp_path)
    disk.fail(edge, errno.EIO, word=".gz.open", times=2)
    for _ in range(4):
        clock.advance(60)
        service.turn(stopping=False)
    assert disk.failures == 2 and service.snapshot().last_error == ""
    assert captures.found(tmp_path / "disk") == ["one", "three", "two"] and not captures.stray_files(tmp_path)
    assert captures.record_files(tmp_path / "disk")[0].suffix == ".gz"
    assert (service._spool.usage().size, service._buffer._bytes) == (0, 0)


def test_a_file_whose_end_could_not_be_cut_off(make: captures.Runs, tmp_path: Path) -> None:
    service, path = opened(make, tmp_path)
    [batch] = service._intake.batches()
    batch.broken = True
    with path.open("ab") as file:
        file.write(b'{"half')
    service.turn(stopping=True)
    assert captures.found(tmp_path / "disk") == ["one", "three", "two"]


def test_what_is_given_up_and_dropped(make: captures.Runs, tmp_path: Path) -> None:  # [R-18] [R-6] [G-4]
    service = make(cloud_settings(tmp_path, compress=True, drop_oldest=True, spool_max_files=10))
    for name in ("first", "second"):
        service.submit(small(name))
        service.turn(stopping=True)
    spool = service._spool
    first = next(spool.batches())
    assert first.key.endswith(".jsonl.gz") and spool.claim(first) and spool.contents(first).ids == ("first",)
    spool.give_up(first)
    assert [path.suffix for path in sorted((tmp_path / "spool/sealed").rglob("*.jsonl*"))] == [".failed", ".gz"]
    assert spool.drop_oldest(1, 1) and [spool.contents(one).ids for one in spool.batches()] == [("second",)]
    assert spool.drop_oldest(1, 1) and not list(spool.batches()) and service.status("second").name == "FAILURE"
    assert spool.usage().size == 0


def test_plain_by_default(make: captures.Runs, tmp_path: Path) -> None:
    service = make(disk_settings(tmp_path))
    service.submit(small("one"))
    [batch] = service._intake.batches()
    assert not batch.packs
    service.turn(stopping=True)
    assert [path.suffix for path in captures.record_files(tmp_path / "disk")] == [".jsonl"]
