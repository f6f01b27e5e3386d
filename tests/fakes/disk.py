"""The operating system's edge of the disk: what is asked of it, and disks that fail."""

import contextlib
import errno
import os
import pathlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EDGES = ("open", "write", "fsync", "ftruncate", "rename")


@contextlib.contextmanager
def file_system(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own at a folder, a tmpfs with mount's `options`; skips where none can be mounted."""
    folder.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Recorder:
    """Notes fsyncs and renames below a folder, in order: `fsync <path>`, `rename <from> <to>`.

    `begun` has, for each write-out that was begun, the number of events before it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.events: list[str] = []
        self.begun: list[int] = []
        self._folder = folder
        fsync, replace, advise = os.fsync, pathlib.Path.replace, os.posix_fadvise

        def noted_advise(fd: int, *rest: int) -> None:
            self.begun.append(len(self.events))
            advise(fd, *rest)

        monkeypatch.setattr(os, "posix_fadvise", noted_advise)

        def noted_fsync(fd: int) -> None:
            self._note("fsync", Path(f"/proc/self/fd/{fd}").readlink())
            fsync(fd)

        def noted_replace(source: Path, target: Path) -> Path:
            result = replace(source, target)
            self._note("rename", source, target)
            return result

        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(pathlib.Path, "replace", noted_replace)

    def _note(self, what: str, *paths: Path) -> None:
        if all(path.is_relative_to(self._folder) for path in paths):
            self.events.append(" ".join([what, *(path.relative_to(self._folder).as_posix() for path in paths)]))


class FailingDisk:
    """Makes chosen system calls fail on files whose path has a word in it, for as long as it is armed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._lock = threading.Lock()
        self._rules: dict[str, tuple[int, str, int]] = {}
        self.failures = 0
        self._steps: int | None = None
        for edge in ("write", "fsync", "ftruncate"):
            monkeypatch.setattr(os, edge, self._by_fd(edge, getattr(os, edge)))
        monkeypatch.setattr(os, "open", self._by_path("open", os.open))
        replace = pathlib.Path.replace
        monkeypatch.setattr(pathlib.Path, "replace", self._by_path("rename", replace))

    def fail(self, edge: str, number: int = errno.ENOSPC, *, word: str = "", times: int = 1_000_000) -> None:
        """Let `edge` fail with errno `number` on paths with `word` in them, `times` times."""
        assert edge in EDGES
        with self._lock:
            self._rules[edge] = (number, word, times)

    def stop_after(self, steps: int) -> None:
        """Let so many fsyncs and renames through, and none from then on: as far as a kill let it come."""
        with self._lock:
            self._steps = steps

    def heal(self) -> None:
        """Let everything work again."""
        with self._lock:
            self._rules.clear()
            self._steps = None

    def _check(self, edge: str, path: str) -> None:
        with self._lock:
            if self._steps is not None and edge in ("fsync", "rename"):
                self._steps -= 1
                if self._steps < 0:
                    self.failures += 1
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            number, word, times = self._rules.get(edge, (0, "", 0))
            if not times or word not in path:
                return
            self._rules[edge] = (number, word, times - 1)
            self.failures += 1
        raise OSError(number, os.strerror(number))

    def _by_fd(self, edge: str, real: Any) -> Any:
        def call(fd: int, *rest: Any) -> Any:
            try:
                path = str(Path(f"/proc/self/fd/{fd}").readlink())
            except OSError:
                path = ""
            if path.startswith("/") and edge == "write" and self._rules.get("write") and len(rest[0]) > 1:
                self._tear(fd, path, real, rest[0])
            self._check(edge, path)
            return real(fd, *rest)

        return call

    def _tear(self, fd: int, path: str, real: Any, data: Any) -> None:
        """A disk that is full takes the first half of a write before it refuses the rest."""
        _, word, times = self._rules["write"]
        if times and word in path:
            real(fd, bytes(data[: len(data) // 2]))

    def _by_path(self, edge: str, real: Any) -> Any:
        def call(path: Any, *rest: Any, **options: Any) -> Any:
            self._check(edge, str(path))
            return real(path, *rest, **options)

        return call
