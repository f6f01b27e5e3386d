"""The certificates that a device trusts: every `*.pem` of one folder (S-3, S-4)."""

import logging
import os
import stat
from pathlib import Path

from cryptography import x509

from edge.errors import MemoryLimitError, TrustError
from edge.package.certificates import BAD_CERTIFICATE
from edge.package.contents import cannot_read
from edge.package.trust_folder import weakness
from edge.text import counted

log = logging.getLogger(__name__)

MAX_ROOT_FILES = 100  # files in the trust folder; each is read at every load
MAX_ROOT_FILE_BYTES = 1024 * 1024  # of a file in the trust folder, which is read whole
FORBIDDEN_MODE = 0o333  # writable or executable, by anyone
_SHOWN_FILES = 3


class NoRootError(Exception):
    """A file of the folder is no certificate: why, in words that follow its name."""


def load_roots(folder: Path) -> list[x509.Certificate]:
    """The trusted roots. What is no certificate is passed over, and the log says so.

    Raises:
        TrustError: the folder cannot be read or holds none, or it or a certificate could be changed by others (S-4); with
            the fix.
        MemoryLimitError: no descriptor is left to read them.
    """
    user = os.geteuid()
    try:
        real = Path(os.path.realpath(folder, strict=True))
        found = weakness(real, user)
        files = sorted(path for path in real.iterdir() if path.suffix == ".pem")
    except OSError as error:
        what = f"the folder of trusted root certificates {folder}"
        _raise_if_nothing_is_left(what, error)
        raise TrustError(f"{what} cannot be read: {error.strerror}") from error
    if found:
        raise TrustError(found)
    if len(files) > MAX_ROOT_FILES:
        raise TrustError(f"{folder} holds {len(files)} .pem files; at most {MAX_ROOT_FILES} are read")
    roots: list[x509.Certificate] = []
    passed_over: list[str] = []
    for path in files:
        try:
            roots.extend(root for root in read_root(path, user) if root not in roots)
        except NoRootError as reason:
            passed_over.append(f"{path.name} {reason}")
    if passed_over:
        log.warning("%s ignored in %s: %s", counted(len(passed_over), "file"), folder, _some(passed_over))
    if not roots:
        what = f"none of its .pem files is a certificate: {_some(passed_over)}" if files else "it holds no .pem file"
        raise TrustError(
            f"no root certificate is trusted in {folder}: {what}; put the signer's root certificate there, mode 0444"
        )
    return roots


def read_root(path: Path, user: int) -> list[x509.Certificate]:
    """The certificates of one file, which nobody but root and `user` could change (S-4); its folder was judged before.

    Raises:
        NoRootError: it is no certificate, or cannot be read.
        TrustError: it is one that others could change.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))  # resolve() has another error for a loop of links
        fd = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        _raise_if_nothing_is_left(f"the root certificate file {path}", error)
        raise NoRootError(f"cannot be read ({error.strerror})") from error
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise NoRootError("is not a file")
        if state.st_size > MAX_ROOT_FILE_BYTES:
            raise NoRootError(f"is larger than {MAX_ROOT_FILE_BYTES} bytes")
        certificates = _certificates(os.read(fd, MAX_ROOT_FILE_BYTES))
        found = _file_weakness(path, state, user)
        if not found and path.is_symlink():
            found = weakness(real.parent, user)
        if found:
            raise TrustError(found)
    except OSError as error:
        raise NoRootError(f"cannot be read ({error.strerror})") from error
    finally:
        os.close(fd)
    return certificates


def _raise_if_nothing_is_left(what: str, error: OSError) -> None:
    """Of descriptors or memory: that is the agent's want, and no word on the folder."""
    found = cannot_read(what, error)
    if isinstance(found, MemoryLimitError):
        raise found from error


def _certificates(data: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(data)
        for root in found:
            _ = (root.extensions, root.subject, root.issuer, root.not_valid_after_utc)
    except BAD_CERTIFICATE as error:
        raise NoRootError("is not a certificate in PEM") from error
    return found


def _file_weakness(path: Path, state: os.stat_result, user: int) -> str:
    if state.st_mode & FORBIDDEN_MODE:
        return (
            f"the root certificate file {path} has mode {stat.S_IMODE(state.st_mode):04o}: nobody may be able to write or"
            f" execute it; run: chmod 0444 {path}"
        )
    if state.st_uid not in (0, user):
        return f"the root certificate file {path} belongs to user {state.st_uid}, who could change it; run: chown {user} {path}"
    return ""


def _some(texts: list[str]) -> str:
    more = len(texts) - _SHOWN_FILES
    return "; ".join(texts[:_SHOWN_FILES]) + (f"; and {more} more" if more > 0 else "")
