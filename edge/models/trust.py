"""The certificates that a device trusts: every `*.pem` of one folder (S-3, S-4)."""

import os
import stat
from pathlib import Path

from cryptography import x509

from edge.errors import TrustError
from edge.models.certificates import BAD_CERTIFICATE

MAX_ROOT_FILES = 100
MAX_ROOT_FILE_BYTES = 1024 * 1024
FORBIDDEN_MODE = 0o333  # writable or executable, by anyone


def load_roots(folder: Path) -> list[x509.Certificate]:
    """The trusted roots.

    Raises:
        TrustError: the folder cannot be read or holds none, or a file is malformed or has a mode that S-4 forbids;
            with the fix.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".pem")
    except OSError as error:
        raise TrustError(
            f"the folder of trusted root certificates {folder} cannot be read: {error.strerror}"
        ) from error
    if not files:
        raise TrustError(
            f"no root certificate is trusted: {folder} holds no .pem file; put the signer's root certificate there, mode 0444"
        )
    if len(files) > MAX_ROOT_FILES:
        raise TrustError(f"{folder} holds {len(files)} .pem files; at most {MAX_ROOT_FILES} are read")
    roots: list[x509.Certificate] = []
    for path in files:
        try:
            found = x509.load_pem_x509_certificates(_read(path))
            for root in found:
                _ = (root.extensions, root.subject, root.issuer, root.not_valid_after_utc)
        except BAD_CERTIFICATE as error:
            raise TrustError(f"the root certificate file {path} is not PEM, or not X.509: {error}") from error
        roots.extend(root for root in found if root not in roots)
    return roots


def _read(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise TrustError(f"the root certificate {path} is not a file")
            if found.st_mode & FORBIDDEN_MODE:
                raise TrustError(
                    f"the root certificate file {path} has mode {stat.S_IMODE(found.st_mode):04o}: nobody may be able to"
                    f" write or execute it; run: chmod 0444 {path}"
                )
            if found.st_size > MAX_ROOT_FILE_BYTES:
                raise TrustError(f"the root certificate file {path} is larger than {MAX_ROOT_FILE_BYTES} bytes")
            return os.read(fd, MAX_ROOT_FILE_BYTES)
        finally:
            os.close(fd)
    except OSError as error:
        raise TrustError(f"the root certificate file {path} cannot be read: {error.strerror}") from error
