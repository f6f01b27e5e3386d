"""The files behind `models set` and `models forget`: declarations, the copies beside them, and the lock around a change."""

import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge import durable
from edge.capture_policy import Policy
from edge.client.outcome import InputError, RefusedError
from edge.deploy import declaration, folder
from edge.deploy.declaration import ALIAS, MAX_TOGETHER
from edge.errors import DeclarationError, EdgeError
from edge.text import shown

POLL_SECONDS = 0.2
LOCK_FILE = ".lock"  # only who may write declarations can open it: nobody else can hold up a change
MAX_ALIAS_CHARACTERS = 255 - len(declaration.SUFFIX + durable.TEMPORARY)  # as long as a file's name can be
MAX_COPY_CHARACTERS = 200  # of an alias in the name of a copy
_COPIES = (".package", ".tar.gz")  # of a package beside its declaration, by what it is


def pairs(words: list[str]) -> dict[str, str]:
    """Aliases and their packages, out of `alias package alias package ...`."""
    if len(words) % 2 or not words:
        raise InputError(f"expected an alias and a package, or several such pairs; {len(words)} words were given")
    if len(words) > 2 * MAX_TOGETHER:
        raise InputError(f"{len(words) // 2} models are too many; at most {MAX_TOGETHER} switch together")
    found: dict[str, str] = {}
    for alias, package in zip(words[::2], words[1::2], strict=True):
        if checked(alias) in found:
            raise InputError(f"{alias} is given twice")
        found[alias] = package
    return found


def policy(place: Path) -> Policy | None:
    """The policy of captures in a declaration that is there, which another package does not change."""
    try:
        before = read(place)
        return declaration.parse(before).capture if before is not None else None
    except DeclarationError:
        return None


def checked(alias: str) -> str:
    """An alias whose declaration a file can have."""
    if len(alias) > MAX_ALIAS_CHARACTERS or not ALIAS.fullmatch(alias):
        raise InputError(
            f"{shown(alias)} is no alias; expected at most {MAX_ALIAS_CHARACTERS} letters, digits and '-', beginning and ending with a letter or digit"
        )
    return alias


@contextmanager
def whatever_umask() -> Iterator[None]:
    """What is made within has the modes that the agent needs."""
    before = os.umask(0o777 & ~durable.FOLDER_MODE)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def changing(models: Path, end: float) -> Iterator[None]:
    """The folder of declarations, for one command at a time; what is written there the agent can read, whatever the umask.

    Raises:
        InputError: it cannot be written.
        RefusedError: another command changes it until `end`, on the monotonic clock.
    """
    with whatever_umask():
        try:
            models.mkdir(durable.FOLDER_MODE, exist_ok=True)
            fd = _open_lock(models)
        except OSError as error:
            raise not_written(models, error) from None
        try:
            while not _locked(fd, models / LOCK_FILE):
                if time.monotonic() >= end:
                    raise RefusedError("ABORTED", f"another command still changes {models}; nothing is changed")
                time.sleep(POLL_SECONDS)
                os.close(fd)
                fd = _open_lock(models)
            try:
                yield
            finally:
                (models / LOCK_FILE).unlink(missing_ok=True)
        finally:
            os.close(fd)


def _open_lock(models: Path) -> int:
    """The lock, which whoever may write into the folder can open."""
    path, owner = models / LOCK_FILE, models.stat()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.geteuid() in (0, os.fstat(fd).st_uid):
        if os.geteuid() == 0:
            os.fchown(fd, owner.st_uid, owner.st_gid)
        os.fchmod(fd, 0o660 if owner.st_mode & stat.S_IWGRP else 0o600)
    return fd


def _locked(fd: int, path: Path) -> bool:
    """Whether this command has the lock; one that has been removed meanwhile is none."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), path.lstat())
    except (BlockingIOError, FileNotFoundError):
        return False


def read(place: Path) -> bytes | None:
    """The bytes of a declaration; None where there is none."""
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{place}: {error.strerror}") from None


def write(place: Path, data: bytes | None) -> None:
    """Replace a declaration, or remove it."""
    try:
        folder.write(place, data)
    except OSError as error:
        raise not_written(place, error) from None


def not_written(path: Path, error: OSError) -> InputError:
    """What to say where a file of the declarations cannot be written."""
    return InputError(f"{path} cannot be written: {durable.why(error)}; ask as root, or as its owner")


def copy_beside(place: Path, source: Path) -> Path:
    """Where the copy of a package is, beside its declaration: of another package elsewhere, so that the two are told apart."""
    from edge.package.open import contents_at, signature_of

    alias, suffix = place.name.removesuffix(declaration.SUFFIX), _COPIES[not source.is_dir()]
    try:
        with contents_at(str(source.absolute())) as contents:
            id = hashlib.sha256(signature_of(contents.head())).hexdigest()
    except EdgeError:
        id = "unsigned"  # which the agent refuses, with the reason
    return place.with_name(f"{alias[:MAX_COPY_CHARACTERS]}-{id[:12]}{suffix}")


def copy(source: Path, place: Path) -> Path:
    """A copy of a package beside its declaration, where the agent can read it."""
    target = copy_beside(place, source)
    if source.resolve().is_relative_to(target.resolve()):
        raise InputError(f"{source} is where its copy would be; leave out --copy, or move it elsewhere")
    try:
        remove(target)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, copy_function=shutil.copyfile)
            for path in (target, *(path for path in target.rglob("*") if path.is_dir())):
                path.chmod(durable.FOLDER_MODE)
        else:
            shutil.copyfile(source, target)
    except (OSError, shutil.Error) as error:
        remove(target)
        raise InputError(f"{source} cannot be copied to {target}: {error}") from None
    for path in (target, *target.rglob("*")):
        if path.is_file() and not path.is_symlink():
            path.chmod(durable.FILE_MODE)
    return target


def remove(path: Path) -> None:
    """Remove a copy."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
