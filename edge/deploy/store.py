"""The package store: what was accepted, each package in a folder named by its signature file's SHA-256, and the state file.

A package is copied file by file into a folder of a temporary name, verified there, flushed and renamed: one that is there is
whole and was found good. It is verified again whenever it is opened.
"""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edge import durable
from edge.deploy import state
from edge.deploy.state import State, StateFault, Version
from edge.errors import PackageError, PackageNotFoundError, SignatureError, StoreError, StoreFullError, TrustError
from edge.text import counted, shown

if TYPE_CHECKING:
    from edge.package.open import Package

log = logging.getLogger(__name__)

MIB = 1 << 20
STATE_FILE = "state.json"
LOCK_FILE = "lock"
CLEAN_END_FILE = "clean-end"  # there if the run before ended cleanly while a version was on trial
SET_ASIDE = ".unreadable"
# What a package's own paths run into: a part too long, or a file where another's folder is.
_NO_SUCH_TREE = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)

Open = Callable[[str, Callable[[], None]], "Package"]  # a package at a url, judged now
SignedPaths = Callable[[str], Collection[str]]  # the files of a package at a url, by its signature, judged now


class Store:
    """The folder of accepted packages. It is made when the first one is accepted; one agent has it at a time."""

    def __init__(self, folder: Path | None, max_bytes: int, open_package: Open, signed_paths: SignedPaths) -> None:
        self.folder = folder
        self._signed_paths = signed_paths
        self._max_bytes = max_bytes
        self._open_package = open_package
        self._lock: int | None = None

    @property
    def is_there(self) -> bool:
        """Whether it holds a state that this user can reach."""
        try:
            return self.folder is not None and (self.folder / STATE_FILE).exists()
        except OSError as error:
            log.error("the package store %s cannot be looked into: %s", self.folder, durable.why(error))
            return False

    def path(self, version: Version) -> Path:
        """Where an accepted package is."""
        return self._there() / version.id

    def _there(self) -> Path:
        if self.folder is None:
            raise StoreError(
                "there is no folder to keep packages in: this user can write to none of the usual ones; name one in edge_package_store_path"
            )
        return self.folder

    # --- the folder as a whole ---------------------------------------------------

    def claim(self) -> None:
        """Have the folder for this agent alone, until it ends; make it where it is not there.

        Raises:
            StoreError: it cannot be used, or another agent has it.
        """
        folder = self._there()
        if self._lock is not None:
            return
        try:
            folder.mkdir(durable.FOLDER_MODE, parents=True, exist_ok=True)
            for parent in (folder.parent, folder.parent.parent):
                durable.fsync_folder(parent)
            lock = _open_lock(folder / LOCK_FILE)
        except OSError as error:
            raise StoreError(
                f"the package store {folder} cannot be used: {durable.why(error)}; let the agent's user write there, or name another folder in edge_package_store_path"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise StoreError(f"the package store {folder} is another agent's; name one of its own") from None
        self._lock = lock

    def close(self) -> None:
        """Let others have it."""
        lock, self._lock = self._lock, None  # also where it fails the number is free, and may be another file's at once
        if lock is not None:
            os.close(lock)

    def read_state(self) -> State:
        """What was kept; nothing where there is no state. One that cannot be read is set aside."""
        path = self._there() / STATE_FILE
        try:
            with durable.reader(path) as file:
                return state.parse(file.read(state.MAX_STATE_BYTES + 1))
        except FileNotFoundError:
            return State()
        except StateFault as fault:
            aside = path.with_name(STATE_FILE + SET_ASIDE)
            log.error(
                "the state of declared models is lost, they are accepted anew: %s %s; while %s is there, no package is removed",
                path,
                fault,
                aside,
            )
            path.replace(aside)
            return State()

    def write_state(self, kept: State) -> None:
        """Replace the state; after a crash it is the old one or the new.

        Raises:
            StoreError: it cannot be written, and is the old one.
        """
        self.claim()
        data = state.to_bytes(kept)
        if len(data) > state.MAX_STATE_BYTES:
            raise StoreError(
                f"the state in {self.folder} would have {len(data)} bytes; {state.MAX_STATE_BYTES} are read"
            )
        try:
            durable.write_file(self._there() / STATE_FILE, data)
        except OSError as error:
            raise StoreError(f"the state in {self.folder} cannot be written: {durable.why(error)}") from error

    def mark_clean_end(self) -> None:
        """Have the next run know that this one ended cleanly. It waits for nothing, and needs no state to be written.

        Raises:
            StoreError: the mark cannot be made.
        """
        folder = self._there()
        try:
            _write(folder / CLEAN_END_FILE, [])
            durable.fsync_folder(folder)
        except FileExistsError:
            pass
        except OSError as error:
            raise StoreError(f"in {folder} a clean end cannot be noted: {durable.why(error)}") from error

    def take_clean_end(self) -> bool:
        """Whether the run before ended cleanly, as `mark_clean_end` said; it says so once.

        Raises:
            StoreError: it did, and the mark cannot be removed.
        """
        folder = self._there()
        try:
            (folder / CLEAN_END_FILE).unlink()
            durable.fsync_folder(folder)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"{folder / CLEAN_END_FILE} cannot be removed: {durable.why(error)}") from error
        return True

    def tidy(self, keep: Collection[str]) -> None:
        """Remove packages but those, and what was left half made; what is not the store's own stays.

        Raises:
            StoreError: the store is another agent's.
        """
        self.claim()
        folder = self._there()
        if (folder / (STATE_FILE + SET_ASIDE)).exists():
            return
        (folder / (STATE_FILE + durable.TEMPORARY)).unlink(missing_ok=True)
        gone = [path for path in self._packages() if path.name not in keep]
        removed = 0
        for path in sorted(gone, key=lambda path: not path.name.endswith(durable.TEMPORARY)):
            try:
                shutil.rmtree(
                    path.replace(path.with_name(path.name.removesuffix(durable.TEMPORARY) + durable.TEMPORARY))
                )
                removed += 1
            except OSError as error:
                log.warning("%s cannot be removed from the package store: %s", path, durable.why(error))
        if removed:
            log.info("%s removed from the package store", counted(removed, "package"))

    def _packages(self) -> list[Path]:
        """The folders that the store made, those that are half made included."""
        return [
            path
            for path in self._there().iterdir()
            if state.is_id(path.name.removesuffix(durable.TEMPORARY)) and path.is_dir() and not path.is_symlink()
        ]

    # --- packages ------------------------------------------------------------------

    def identify(self, url: str) -> str:
        """The id of the package at a url; reads no more than its signature.

        Raises:
            PackageNotFoundError, PackageError: there is none.
        """
        from edge.package.open import contents_at, signature_of  # see edge.package.judge

        with contents_at(url) as contents:
            return hashlib.sha256(signature_of(contents.head())).hexdigest()

    def has(self, version: Version) -> bool:
        """Whether a package is here."""
        return self.path(version).is_dir()

    def accept(self, url: str, id: str, go_on: Callable[[], None]) -> Version:
        """Copy a package here and judge it now.

        Args:
            url: absolute path or file:// url.
            id: its id, as `identify` found it.
            go_on: called again and again; to stop, it raises.

        Raises:
            PackageNotFoundError, PackageError, MemoryLimitError: as `open_package`.
            StoreFullError: it finds no room within the store's bound, or on the disk.
            StoreError: the store cannot be written.
        """
        self.claim()
        target = self._there() / id
        temporary = target.with_name(id + durable.TEMPORARY)
        try:
            if target.is_dir():
                try:
                    return self._judge(target, url, id, go_on)
                except TrustError:
                    raise
                except PackageError as error:
                    log.warning("%s in the package store is damaged, it is copied again: %s", target, error)
            if temporary.exists():
                shutil.rmtree(temporary)
            self._copy(url, temporary, self._signed_paths(url), go_on)
            version = self._judge(temporary, url, id, go_on)
            if target.exists():  # and is damaged
                shutil.rmtree(target)
            durable.rename_all([(temporary, target)])
        except OSError as error:
            raise self._failed(error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return version

    def mend(self, version: Version, go_on: Callable[[], None]) -> bool:
        """Copy a package here again whose copy was found damaged; false where its source does not have it any more."""
        try:
            if self.identify(version.package) != version.id:
                return False
            self.accept(version.package, version.id, go_on)
        except (PackageNotFoundError, PackageError, StoreError, OSError) as error:
            log.error("the damaged copy %s in the package store cannot be replaced: %s", version.id, error)
            return False
        return True

    def _judge(self, path: Path, url: str, id: str, go_on: Callable[[], None]) -> Version:
        with self._open_package(str(path), go_on) as package:
            if package.verified.signature_sha256 != id:
                raise PackageError("the package changed while it was copied; try again")
            facts = package.manifest
            return Version(id, url, facts.model_name, facts.model_version, package.verified.judged_at.timestamp())

    def _copy(self, url: str, target: Path, signed: Collection[str], go_on: Callable[[], None]) -> None:
        """Copy a package of which the signature was judged; nothing that is not signed takes room."""
        from edge.package.manifest import SIGNATURE_FILE
        from edge.package.open import contents_at

        damaged = target.with_name(target.name.removesuffix(durable.TEMPORARY))
        left = self._max_bytes - self.size() + _size(damaged)
        target.mkdir(durable.FOLDER_MODE)
        folders = {target}
        with contents_at(url, go_on) as contents:
            contents.head()  # of an archive, which folder in it is the package
            for file in contents.files():
                if file.path not in signed and file.path != SIGNATURE_FILE:
                    raise SignatureError(f"{shown(file.path)} is not signed; a package holds exactly the signed files")
                left -= file.size
                if left < 0:
                    raise StoreFullError(
                        f"the package finds no room in the store: {self._max_bytes // MIB} MiB are allowed (edge_package_store_max_mib)"
                    )
                path = target / file.path
                folders |= {one for one in path.parents if one.is_relative_to(target)}
                try:
                    _write(path, file.chunks)
                except OSError as error:
                    if error.errno in _NO_SUCH_TREE:
                        raise PackageError(f"no folder can hold {shown(file.path)}: {durable.why(error)}") from error
                    raise self._failed(error) from error
        for folder in folders:
            durable.fsync_folder(folder)

    def _failed(self, error: OSError) -> StoreError:
        """That the store cannot be written, and whether room would help."""
        kind = StoreFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
        return kind(f"the package cannot be kept in {self.folder}: {durable.why(error)}")

    def size(self) -> int:
        """Bytes of all packages here."""
        return sum(map(_size, self._packages()))


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _open_lock(path: Path) -> int:
    """The lock, to be written where that can be: what is in a store that is read only serves as well."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        try:
            return durable.open_regular(path)
        except OSError:
            raise error from None


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    path.parent.mkdir(durable.FOLDER_MODE, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, durable.FILE_MODE)
    try:
        for chunk in chunks:
            durable.write_all(fd, chunk)
        os.fsync(fd)
    finally:
        os.close(fd)
