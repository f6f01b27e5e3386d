"""Power cuts: what of a folder is there afterwards, if the device keeps only what was flushed to it.

Every fsync is a moment; at one of them the power goes. Two kinds of file system: one that loses every name whose folder was not
flushed since (`names` False), and one that keeps all names, as a journal of metadata does, and empties files that were not flushed.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class PowerCut(BaseException):
    """The power goes."""


class Disk:
    """Watches a folder: what is flushed is kept by inode, a folder's names by its path."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[int, bytes] = {}
        self._folders: dict[Path, list[tuple[str, int, str]]] = {}
        self._held: list[int] = []  # so that no inode is used again
        self.flushes = 0
        self.cut_at: int | None = None
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]:
            self._folders[folder] = self._names(folder)
            for path in folder.iterdir():
                if path.is_file() and not path.is_symlink():
                    self._keep(os.open(path, os.O_RDONLY))

    @staticmethod
    def _names(folder: Path) -> list[tuple[str, int, str]]:
        """Name, inode, and where a link leads."""
        return [
            (path.name, path.lstat().st_ino, str(path.readlink()) if path.is_symlink() else "")
            for path in folder.iterdir()
        ]

    def _keep(self, fd: int) -> None:
        self._held.append(fd)
        size = os.fstat(fd).st_size
        self._files[os.fstat(fd).st_ino] = os.pread(fd, size, 0)

    def flush(self, fd: int) -> None:
        """An fsync."""
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if not path.is_relative_to(self._root):
            return
        if self.flushes == self.cut_at:
            raise PowerCut
        self.flushes += 1
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            self._folders[path] = self._names(path)
        else:
            again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
            self._keep(again)

    def after(self, target: Path, *, names: bool) -> None:
        """What is there once the power is back, in another folder."""
        self._build(self._root, target, names)

    def _build(self, folder: Path, target: Path, names: bool) -> None:
        target.mkdir()
        there = self._names(folder) if names and folder.is_dir() else self._folders.get(folder, [])
        for name, inode, link in there:
            if link:
                (target / name).symlink_to(link)
            elif (folder / name).is_dir() or folder / name in self._folders:
                self._build(folder / name, target / name, names)
            else:
                (target / name).write_bytes(self._files.get(inode, b""))

    def close(self) -> None:
        """Let go of the files."""
        for fd in self._held:
            os.close(fd)
        self._held.clear()


@contextmanager
def watched(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Have every fsync below a folder go through a `Disk`."""
    disk = Disk(root)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk.flush)
        try:
            yield disk
        finally:
            disk.close()
