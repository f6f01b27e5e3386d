"""Disks that fail and files that are damaged: nothing half-written, nothing accepted lost (C-6, R-5)."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.capture.bounds import Usage
from edge.capture.service import CaptureService
from edge.errors import CaptureNotFoundError, ConfigError, SpoolFullError
from tests.fakes import captures
from tests.fakes.captures import cloud_settings, disk_settings, large, small
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FailingDisk, file_system


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FailingDisk:
    return FailingDisk(monkeypatch)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("word", [".jsonl.open", ".bin."])
def test_a_write_that_fails_refuses_that_capture_alone(
    make: captures.Runs, disk: FailingDisk, tmp_path: Path, number: int, word: str
) -> None:  # [C-6]
    service = make(disk_settings(tmp_path))
    service.submit(large("before"))
    disk.fail("write", number, word=word)
    with pytest.raises(SpoolFullError, match=f"cannot be stored: {os.strerror(number)}"):
        service.submit(large("refused"))
    with pytest.raises(CaptureNotFoundError):
        service.status("refused")
    assert service.snapshot().last_error.endswith(os.strerror(number))
    disk.heal()
    service.submit(large("refused"))  # the client may try again
    service.submit(small("after"))
    service.turn(stopping=True)
    assert captures.found(tmp_path / "disk") == ["after", "before", "refused"]
    assert not captures.stray_files(tmp_path) and service.snapshot().last_error == ""
    assert len(list((tmp_path / "disk").rglob("*.bin"))) == 2


@pytest.mark.parametrize("word", [".jsonl.open", ".bin."])
def test_a_file_that_cannot_be_made(make: captures.Runs, disk: FailingDisk, tmp_path: Path, word: str) -> None:  # [C-6]
    service = make(disk_settings(tmp_path))
    disk.fail("open", errno.EMFILE, word=word)
    with pytest.raises(SpoolFullError, match="Too many open files"):
        service.submit(large("one"))
    disk.heal()
    service.submit(large("one"))
    service.turn(stopping=True)
    assert captures.found(tmp_path / "disk") == ["one"] and not captures.stray_files(tmp_path)


def test_a_torn_line_that_cannot_be_cut_off(make: captures.Runs, disk: FailingDisk, tmp_path: Path) -> None:
    service = make(disk_settings(tmp_path))
    service.submit(small("before"))
    disk.fail("write", errno.EIO, word=".jsonl.open")
    disk.fail("ftruncate", errno.EIO)
    with pytest.raises(SpoolFullError):
        service.submit(small("torn"))
    disk.heal()
    service.submit(small("after"))
    again = make(disk_settings(tmp_path))  # killed with the torn line in place
    again.turn(stopping=True)
    assert captures.found(tmp_path / "disk") == ["after", "before"]


def test_a_torn_line_that_cannot_be_cut_off_is_not_sealed(
    make: captures.Runs, disk: FailingDisk, tmp_path: Path
) -> None:
    service = make(disk_settings(tmp_path))
    service.submit(small("before"))
    disk.fail("write", errno.EIO, word=".jsonl.open")
    disk.fail("ftruncate", errno.EIO)
    with pytest.raises(SpoolFullError):
        service.submit(small("torn"))
    disk.heal()
    service.turn(stopping=True)
    assert captures.found(tmp_path / "disk") == ["before"]


@pytest.mark.parametrize("edge", ["fsync", "rename", "open"])
@pytest.mark.parametrize("failures", [1, 2, 5])
def test_a_batch_that_cannot_be_sealed_is_tried_again(
    make: captures.Runs, disk: FailingDisk, clock: FakeClock, tmp_path: Path, edge: str, failures: int
) -> None:  # [R-5] [G-2]
    service = make(disk_settings(tmp_path))
    service.submit(large("one"))
    service.submit(small("two"))
    disk.fail(edge, errno.EIO, times=failures)
    for _ in range(20):
        clock.advance(60)
        service.turn(stopping=False)
        if service.status("one").name == "SUCCESS":
            break
        assert "cannot be made durable yet: Input/output error" in service.snapshot().last_error
    assert disk.failures == failures
    assert [service.status(i).name for i in ("one", "two")] == ["SUCCESS", "SUCCESS"]
    assert captures.found(tmp_path / "disk") == ["one", "two"] and not captures.stray_files(tmp_path)
    assert service.snapshot().pending == 0 and service._spool.usage().size == 0


def test_after_a_failed_fsync_the_bytes_are_written_anew(
    make: captures.Runs, disk: FailingDisk, clock: FakeClock, tmp_path: Path
) -> None:
    service = make(disk_settings(tmp_path))
    service.submit(small("one"))
    [path] = (tmp_path / "disk/.spool/open").rglob("*.jsonl.open")
    inode = path.stat().st_ino
    disk.fail("fsync", errno.EIO, word=".jsonl.open", times=1)
    clock.advance(60)
    service.turn(stopping=False)
    clock.advance(60)
    service.turn(stopping=False)
    [sealed] = captures.record_files(tmp_path / "disk")
    assert sealed.stat().st_ino != inode


@pytest.mark.parametrize(("word", "left"), [(".bin.", ["two"]), (".jsonl.open", [])])
def test_what_an_error_damaged_is_not_sealed(
    make: captures.Runs, disk: FailingDisk, clock: FakeClock, tmp_path: Path, word: str, left: list[str]
) -> None:  # [R-5] [G-4]
    service = make(disk_settings(tmp_path))
    service.submit(large("one"))
    service.submit(small("two"))
    disk.fail("fsync", errno.EIO, word=word)
    clock.advance(60)
    service.turn(stopping=False)
    disk.heal()
    path = next(p for p in (tmp_path / "disk/.spool/open").rglob("*.open") if word in p.name)
    path.write_bytes(bytes(path.stat().st_size))  # the kernel dropped the pages: what is read now is what the disk has
    clock.advance(60)
    service.turn(stopping=False)
    states = {i: service.status(i).name for i in ("one", "two")}
    assert states == {i: "SUCCESS" if i in left else "FAILURE" for i in states}
    assert captures.found(tmp_path / "disk") == left and not captures.stray_files(tmp_path)
    assert service.snapshot().pending == 0 and service._spool.usage() == Usage()
    assert service._buffer._bytes == 0


def test_retries_pause_and_do_not_block_new_captures(
    make: captures.Runs, disk: FailingDisk, clock: FakeClock, tmp_path: Path
) -> None:
    service = make(disk_settings(tmp_path, buffer_captures=3, batch_captures=1))
    disk.fail("fsync", errno.EIO)
    service.submit(small("one"))
    pauses = []
    for _ in range(7):
        pauses.append(service.turn(stopping=False))
        clock.advance(pauses[-1])
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    service.submit(small("two"))
    disk.heal()
    service.turn(stopping=True)
    assert captures.found(tmp_path / "disk") == ["one", "two"]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("settings", [disk_settings, cloud_settings])
def test_a_kill_between_any_two_steps_of_sealing(
    make: captures.Runs, disk: FailingDisk, tmp_path: Path, settings: Any, compress: bool
) -> None:  # [R-5] [G-5]
    for step in range(1, 30):
        folder = tmp_path / str(step)
        service = make(settings(folder, compress=compress))
        service.submit(large("one"))
        service.submit(large("two"))
        before = disk.failures
        disk.stop_after(step - 1)
        service.turn(stopping=True)
        stopped = disk.failures > before
        disk.heal()
        again = make(settings(folder, compress=compress == bool(step % 2)))  # and the setting may have changed
        assert again.status("one").name in ("IN_PROGRESS", "SUCCESS")
        disk.fail("fsync", errno.EIO, times=step % 3)  # and the first attempts of the next run fail
        for _ in range(4):
            again.turn(stopping=True)
        disk.heal()
        root = folder / ("disk" if settings is disk_settings else "spool/sealed")
        assert captures.found(root) == ["one", "two"] and not captures.stray_files(folder)
        assert {path.suffix for path in captures.record_files(root)} == {".gz" if compress else ".jsonl"}
        final = "SUCCESS" if settings is disk_settings else "IN_PROGRESS"
        assert [again.status(i).name for i in ("one", "two")] == [final, final]
        if not stopped:
            break
    else:
        raise AssertionError("sealing has more steps than were tried")
    assert step > 8


def test_a_large_entry_removed_before_it_is_durable(
    make: captures.Runs, clock: FakeClock, tmp_path: Path
) -> None:  # [G-4]
    service = make(disk_settings(tmp_path))
    service.submit(large("one"))
    service.submit(large("two"))
    next(p for p in (tmp_path / "disk/.spool/open").rglob("*-00.bin.*") if p.read_bytes().startswith(b"one")).unlink()
    for _ in range(5):
        clock.advance(60)
        service.turn(stopping=False)
    assert [service.status(i).name for i in ("one", "two")] == ["FAILURE", "SUCCESS"]
    assert captures.found(tmp_path / "disk") == ["two"] and not captures.stray_files(tmp_path)
    assert service.snapshot().pending == 0 and service._spool.usage().size == 0


def test_everything_removed_before_it_is_durable(
    make: captures.Runs, clock: FakeClock, tmp_path: Path
) -> None:  # [G-4]
    service = make(disk_settings(tmp_path))
    service.submit(large("one"))
    for path in [p for p in (tmp_path / "disk/.spool/open").rglob("*") if p.is_file()]:
        path.unlink()
    for _ in range(2):
        clock.advance(60)
        service.turn(stopping=False)
    assert service.status("one").name == "FAILURE" and service.snapshot().pending == 0
    service.submit(small("two"))
    service.turn(stopping=True)
    assert captures.found(tmp_path / "disk") == ["two"]


def test_the_capture_folder_removed_at_work(make: captures.Runs, clock: FakeClock, tmp_path: Path) -> None:
    service = make(disk_settings(tmp_path))
    service.submit(small("one"))
    service.turn(stopping=True)
    captures.record_files(tmp_path)[0].unlink()
    hour = tmp_path / "disk/fleet-1/digits/2025/06/15/15"
    hour.rmdir()
    service.submit(small("two"))
    for _ in range(3):
        clock.advance(60)
        service.turn(stopping=False)
    assert captures.found(tmp_path / "disk") == ["two"]


# --- a real full disk --------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with file_system(tmp_path / "small", "size=1m") as folder:
        yield folder


def test_a_disk_that_is_really_full(make: captures.Runs, small_disk: Path) -> None:  # [C-6]
    # Below zero: the agent's own look at the free space does not come first.
    service = make(disk_settings(small_disk, buffer_captures=10_000, spool_min_free=-(1 << 20)))
    accepted = []
    with pytest.raises(SpoolFullError, match="No space left on device"):
        for number in range(1000):
            service.submit(large(f"id{number}"))
            accepted.append(f"id{number}")
    assert len(accepted) > 50
    service.turn(stopping=True)
    make(disk_settings(small_disk)).turn(stopping=True)
    assert captures.found(small_disk / "disk") == sorted(accepted) and not captures.stray_files(small_disk)


def test_a_disk_that_is_read_only_for_a_while(make: captures.Runs, small_disk: Path, clock: FakeClock) -> None:  # [C-6]
    service = make(disk_settings(small_disk))
    service.submit(large("one"))
    captures.abandon(service)  # killed: a file open for writing would keep the disk as it is
    service._intake.take_all()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    service = make(disk_settings(small_disk))
    with pytest.raises(SpoolFullError, match="Read-only file system"):
        service.submit(large("two"))
    service.turn(stopping=False)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    clock.advance(60)
    service.turn(stopping=False)
    service.submit(large("two"))
    service.turn(stopping=True)
    assert captures.found(small_disk / "disk") == ["one", "two"]


@pytest.fixture
def few_inodes(tmp_path: Path) -> Iterator[Path]:
    with file_system(tmp_path / "few", "size=64m,nr_inodes=80") as folder:
        yield folder


@pytest.mark.parametrize("drop", [False, True])
def test_a_disk_without_inodes(make: captures.Runs, few_inodes: Path, drop: bool) -> None:
    """There is space, and no inode: refused with that reason, or the oldest gives way."""
    service = make(cloud_settings(few_inodes, drop_oldest=drop, batch_captures=1))
    taken, refusal = 0, ""
    for number in range(60):
        try:
            service.submit(large(f"id{number}"))
            taken += 1
        except SpoolFullError as error:
            refusal = str(error)
            break
        service.turn(stopping=False)
    if drop:
        assert (taken, refusal) == (60, "") and service.snapshot().dropped > 10
    else:
        assert taken < 40 and "inodes free" in refusal
        assert "inodes free" in service.snapshot().last_error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_says_only_at_the_attempt_that_it_is_full(
    make: captures.Runs, disk: FailingDisk, tmp_path: Path, number: int
) -> None:
    """A quota, say: with drop-oldest room is made until the capture is taken."""
    service = make(cloud_settings(tmp_path, drop_oldest=True, batch_captures=1))
    for i in range(5):
        service.submit(large(f"old{i}"))
        service.turn(stopping=False)
    disk.fail("write", number, word=".bin.", times=2)
    service.submit(large("new"))
    assert service.snapshot().dropped == 2
    assert [service.status(f"old{i}").name for i in range(3)] == ["FAILURE", "FAILURE", "IN_PROGRESS"]
    disk.fail("write", number, word=".bin.")
    with pytest.raises(SpoolFullError, match=os.strerror(number)):
        service.submit(large("newer"))  # once nothing is left to drop


def test_a_quota_of_files_alone(make: captures.Runs, disk: FailingDisk, tmp_path: Path) -> None:
    """As many files give way as the capture has, whatever they weigh."""
    service = make(cloud_settings(tmp_path, drop_oldest=True, batch_captures=1))
    for i in range(5):
        service.submit(large(f"old{i}", size=50_000))
        service.turn(stopping=False)
    pictures = tuple(captures.auxiliary(f"a{i}", 2, b"\xff" * 4000) for i in range(4))
    disk.fail("write", errno.EDQUOT, word=".bin.", times=1)
    service.submit(captures.request("new", inputs=pictures))  # a record and four files: two and a half batches of two
    assert service.snapshot().dropped == 3


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.EFBIG, "LimitFSIZE="), (errno.EMFILE, "LimitNOFILE="), (errno.ENFILE, "fs.file-max")]
)
def test_a_limit_of_the_process_is_named(
    make: captures.Runs, disk: FailingDisk, tmp_path: Path, number: int, hint: str
) -> None:  # [C-6]
    service = make(disk_settings(tmp_path))
    disk.fail("write", number, word=".bin.")
    with pytest.raises(SpoolFullError, match=hint):
        service.submit(large("one"))


def test_spool_and_capture_folder_on_two_file_systems(clock: FakeClock, small_disk: Path, tmp_path: Path) -> None:
    service = CaptureService(disk_settings(tmp_path, spool_path=small_disk / "spool"), clock, None)
    with pytest.raises(ConfigError, match="different file systems"):
        service.start()
    assert not list(tmp_path.rglob("*.tmp"))
    captures.abandon(service)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("edge", ["open", "rename"])
def test_a_start_on_a_disk_that_is_full(
    make: captures.Runs, disk: FailingDisk, tmp_path: Path, number: int, edge: str
) -> None:
    """What waits must leave before there is room again."""
    service = make(cloud_settings(tmp_path))
    service.submit(small("one"))
    service.turn(stopping=True)
    disk.fail(edge, number, word="probe.tmp")
    again = make(cloud_settings(tmp_path))
    assert again._ready and [again._spool.contents(batch).ids for batch in again._spool.batches()] == [("one",)]
    assert again.snapshot().last_error == "" and not captures.stray_files(tmp_path)


def test_messages_name_the_folder(make: captures.Runs, tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("a file where the folder would be")
    service = make(disk_settings(tmp_path))
    assert service.snapshot().last_error == f"the capture folder {tmp_path}/disk/.spool cannot be used: Not a directory"
    with pytest.raises(SpoolFullError, match=f"the capture folder {tmp_path}/disk/.spool cannot be used"):
        service.submit(small("one"))
