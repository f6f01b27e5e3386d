"""The one way to make a file outlive a power cut: temporary name, fsync, rename, fsync the folder.

A rename is atomic but not durable; it is durable once the folder that got the new name is fsynced. A folder's own
name lives in its parent, hence `make_folders`.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"  # a file of this suffix is nothing yet; whoever finds one at start removes it
FOLDER_MODE = 0o755
FILE_MODE = 0o644
_COPY_BYTES = 1 << 20


_HINTS = {
    errno.EFBIG: "the process's limit on the size of files; LimitFSIZE=, ulimit -f",
    errno.EMFILE: "the process's limit on descriptors; LimitNOFILE=, ulimit -n",
    errno.ENFILE: "the system's limit on descriptors; fs.file-max",
}


def why(error: OSError) -> str:
    """What went wrong, in words, and which limit it is where it is one."""
    words = error.strerror or str(error)
    hint = _HINTS.get(error.errno or 0)
    return f"{words} ({hint})" if hint else words


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file that is one. A link would lead elsewhere, a pipe or a device keep whoever opens it waiting.

    Raises:
        OSError: also where something else has its name.
    """
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, FILE_MODE)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


def reader(path: Path) -> BinaryIO:
    """A regular file, to be read; see `open_regular`."""
    return os.fdopen(open_regular(path), "rb")


def is_regular(path: Path) -> bool:
    """Whether a regular file has this name, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`, in one system call where the kernel takes it so.

    Raises:
        OSError: some of it may have been written.
    """
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]


def fsync_file(path: Path) -> None:
    """Flush a file's bytes and size to the device."""
    fd = open_regular(path)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def begin_flush(fd: int) -> None:
    """Let the kernel start to write a file out, without waiting.

    A file system with delayed allocation gives blocks to a file as it is written out. Begun for all files of a batch, the
    journal's next commit, which the first fsync waits for, covers them all; otherwise each fsync takes a commit.
    """
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def begin_flush_file(path: Path) -> None:
    """`begin_flush` of a file by name; nothing if it is gone."""
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        return
    try:
        begin_flush(fd)
    finally:
        os.close(fd)


def fsync_folder(path: Path) -> None:
    """Flush a folder's names to the device."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def rename_all(moves: Iterable[tuple[Path, Path]]) -> None:
    """Rename files that are fsynced already, then fsync each folder that got a name, once.

    A move whose source is gone and whose target is there was done before a crash: it is taken as done.
    """
    folders: dict[Path, None] = {}
    for source, target in moves:
        try:
            source.replace(target)
        except FileNotFoundError:
            if not target.exists():
                raise
        folders[target.parent] = None
    for folder in folders:
        fsync_folder(folder)


def _new(temporary: Path) -> int:
    """Open a temporary file that nobody else has made: where others can write to the folder, its name may be their link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(temporary, flags, FILE_MODE)
    except FileExistsError:  # left by a crash, most often
        temporary.unlink(missing_ok=True)
        return os.open(temporary, flags, FILE_MODE)


def write_file(path: Path, data: bytes) -> None:
    """Replace `path` by `data` as a whole: after a crash it holds the old bytes or the new."""
    temporary, _ = _written_beside(path, [data])
    rename_all([(temporary, path)])


def _written_beside(path: Path, chunks: Iterable[bytes]) -> tuple[Path, int]:
    """Flush chunks to the device under a temporary name beside `path`; the name, and how many bytes they were."""
    temporary, size = path.with_name(path.name + TEMPORARY), 0
    fd = _new(temporary)
    try:
        for chunk in chunks:
            write_all(fd, chunk)
            size += len(chunk)
        os.fsync(fd)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk has better use for the room
        raise
    finally:
        os.close(fd)
    return temporary, size


def rewrite_file(path: Path, size: int, change: Callable[[Iterator[bytes]], Iterable[bytes]] = iter) -> int:
    """Write the first `size` bytes of `path` again into new blocks and put them in its place, each part as `change` makes it.

    After a failed fsync the kernel takes the lost pages for clean, so that a second fsync of the same file proves
    nothing; only new writes do.

    Returns:
        The size in bytes of what was written.

    Raises:
        OSError: `path` is as it was.
    """
    with reader(path) as old:
        temporary, written = _written_beside(path, change(_first(old, size)))
    temporary.replace(path)
    return written


def _first(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The first bytes of a file, or as many as there are."""
    while size and (chunk := file.read(min(size, _COPY_BYTES))):
        yield chunk
        size -= len(chunk)


class DurableFolders:
    """Makes folders below `root` and fsyncs the way to them, once a folder and process.

    A folder that is there already may have been made just before a kill, its name not yet on the device: the first use
    in a process therefore fsyncs all parents.
    """

    _LIMIT = 1024  # folders remembered; a new one each hour and model

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: set[Path] = set()

    def make(self, folder: Path) -> None:
        """Make `folder`, which is `root` or below it."""
        if folder in self._known:
            return
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        at = folder
        while at not in (self._root, at.parent):
            at = at.parent
            fsync_folder(at)
        if len(self._known) >= self._LIMIT:
            self._known.clear()
        self._known.add(folder)

    def forget(self) -> None:
        """Trust nothing from before: a folder may have been removed from outside."""
        self._known.clear()
