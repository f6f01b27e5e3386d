"""The order of system calls that makes a file durable (R-5)."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge import durable
from tests.fakes.disk import Recorder


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    return Recorder(monkeypatch, tmp_path)


def test_write_file(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    durable.write_file(tmp_path / "f", b"new")
    assert recorder.events == ["fsync f.tmp", "rename f.tmp f", "fsync ."]
    assert (tmp_path / "f").read_bytes() == b"new"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"old")

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        durable.write_file(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"


@pytest.mark.parametrize(
    "write", [lambda path: durable.write_file(path, b"new"), lambda path: durable.rewrite_file(path, 1)]
)
def test_what_has_the_temporary_name_is_not_written_to(write: Callable[[Path], None], tmp_path: Path) -> None:
    path, temporary, other = tmp_path / "f", tmp_path / "f.tmp", tmp_path / "other"
    for link in (temporary.symlink_to, temporary.hardlink_to):
        path.write_bytes(b"old")
        other.write_bytes(b"precious")
        link(other)
        write(path)
        assert other.read_bytes() == b"precious"
        assert path.is_file()
        assert not path.is_symlink()
        assert not temporary.exists()
    os.mkfifo(temporary)
    write(path)
    assert path.is_file()
    temporary.write_bytes(b"left by a crash, and longer")
    write(path)
    assert path.stat().st_size < 4


@pytest.mark.parametrize("taken", [1, 7, 1000])
def test_short_writes_go_on(taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[int, bytes], int] = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:taken])))
    data = bytes(range(256)) * 3
    durable.write_file(tmp_path / "f", memoryview(data))  # type: ignore[arg-type]
    assert (tmp_path / "f").read_bytes() == data


def test_rename_all_fsyncs_each_folder_once(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    moves = []
    for name in ("x", "y"):
        (tmp_path / name).write_bytes(b"1")
        moves.append((tmp_path / name, tmp_path / "a" / name))
    durable.rename_all(moves)
    assert recorder.events == ["rename x a/x", "rename y a/y", "fsync a"]
    durable.rename_all(moves)  # as after a crash
    assert recorder.events[3:] == ["fsync a"] or recorder.events[3:][-1] == "fsync a"


def test_rename_all_misses_a_file_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        durable.rename_all([(tmp_path / "x", tmp_path / "y")])


def test_rewrite_file_makes_a_new_one(recorder: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    inode = path.stat().st_ino
    durable.rewrite_file(path, 4)
    assert path.read_bytes() == b"0123"
    assert path.stat().st_ino != inode
    assert recorder.events == ["fsync f.tmp", "rename f.tmp f"]


def test_folders_are_durable_up_to_the_root_once(recorder: Recorder, tmp_path: Path) -> None:
    folders = durable.DurableFolders(tmp_path)
    folders.make(tmp_path / "a" / "b")
    assert recorder.events == ["fsync a", "fsync ."]
    folders.make(tmp_path / "a" / "b")
    assert len(recorder.events) == 2
    durable.DurableFolders(tmp_path).make(tmp_path / "a" / "b")  # the next process trusts nothing
    assert recorder.events[2:] == ["fsync a", "fsync ."]
    folders.forget()
    (tmp_path / "a" / "b").rmdir()
    folders.make(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
