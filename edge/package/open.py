"""Opening a package: it is found, verified, and its model copied to memory that nobody can change.

What is checked is what is used (S-5): the bytes that are hashed are the bytes that are kept. The model goes, while it
is hashed, into an anonymous file in memory that is then sealed.
"""

import errno
import fcntl
import hashlib
import hmac
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote_to_bytes

from edge.clock import Clock
from edge.durable import write_all
from edge.errors import ManifestError, MemoryLimitError, PackageError, PackageNotFoundError, SignatureError
from edge.host import memory
from edge.package.contents import (
    Contents,
    PackageFile,
    cannot_read,
    into_only_folder,
    open_contents,
    open_without_surprise,
)
from edge.package.limits import PackageLimits
from edge.package.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest, parse_manifest
from edge.package.selftest import (
    MAX_SELFTEST_BYTES,
    MAX_SELFTEST_DATA_BYTES,
    SELFTEST_DATA,
    SELFTEST_FILE,
    SelfTest,
    parse_selftest,
)
from edge.package.signing import TimeReading, Verified, verify_signature
from edge.package.trust import load_roots
from edge.paths import is_url
from edge.text import printable, shown

log = logging.getLogger(__name__)

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_NOTHING_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_NO_MEMORY = {errno.ENOSPC, errno.ENOMEM}
_MOST_BYTES = {SELFTEST_FILE: MAX_SELFTEST_BYTES, SELFTEST_DATA: MAX_SELFTEST_DATA_BYTES}


@dataclass(frozen=True)
class Acceptance:
    """A package that was accepted before: the SHA-256 of its signature file in hex, and when, in seconds since the epoch."""

    signature_sha256: str
    at: float


class Package:
    """A verified package. Its model is `model_bytes` long behind `model_fd`, and its sample, if it has the file of one,
    behind `sample_fd`; where it has a self-test, the tensors of that are behind `selftest_fd`. All live until `close`.
    """

    def __init__(
        self,
        manifest: Manifest,
        verified: Verified,
        model_fd: int,
        model_bytes: int,
        *,
        sample_fd: int | None = None,
        selftest: SelfTest | None = None,
        selftest_fd: int | None = None,
    ) -> None:
        self.manifest = manifest
        self.verified = verified
        self.model_fd = model_fd
        self.model_bytes = model_bytes
        self.sample_fd = sample_fd
        self.selftest = selftest
        self.selftest_fd = selftest_fd

    @property
    def signer(self) -> str:
        """The subject of the certificate that it is signed with."""
        return self.verified.signer

    def close(self) -> None:
        """Close the files; mappings of the model stay valid."""
        fds = self.model_fd, self.sample_fd, self.selftest_fd
        # Forgotten first: a close that fails closes all the same.
        self.model_fd, self.sample_fd, self.selftest_fd = -1, None, None
        for fd in fds:
            if fd is not None and fd >= 0:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def claim_of_system(what: str, size: int) -> None:
    """Check that the system has so much memory now.

    Raises:
        MemoryLimitError: it has not.
    """
    memory.check(what, size, memory.available())


def open_package(
    url: str,
    *,
    trust_dir: Path,
    clock: Clock,
    build_date: int,
    limits: PackageLimits | None = None,
    claim: Callable[[str, int], None] = claim_of_system,
    go_on: Callable[[], None] = lambda: None,
    accepted: Acceptance | None = None,
) -> Package:
    """Verify the package at a path or file:// URL; on any error nothing stays open (L-9).

    Args:
        url: absolute path or file:// URL of a folder or a `.tar.gz`.
        build_date: the agent's, in seconds since the epoch (S-6).
        claim: called with what takes memory and how much, in bytes, before it does; to refuse, it raises.
        go_on: called again and again; to stop the check, it raises.
        accepted: it must be that package, and the signer's certificate is judged as it was then (M-6).

    Raises:
        PackageNotFoundError: not a local path, or nothing is there (L-3).
        PackageError, ManifestError, SignatureError, TrustError: the package is not what it must be (L-4, L-11).
        MemoryLimitError: no memory for the copy (L-6).
    """
    with contents_at(url, go_on, limits) as contents:
        reading = _reading(clock, build_date)
        if accepted is not None:
            reading = TimeReading(accepted.at, synchronised=True, build_date=0)
        package = _verify(contents, trust_dir, reading, claim, accepted)
    verified = package.verified
    if verified.clock_note:
        log.warning("%s: the signature was judged as of %s", verified.clock_note, verified.judged_at.isoformat())
    log.info("package at %s is whole and signed by %s", shown_path(local_path(url)), verified.signer)
    return package


def signed_paths(url: str, *, trust_dir: Path, clock: Clock, build_date: int) -> frozenset[str]:
    """The paths of the files that a package's signature lists; only the signature, verified now, and the manifest are read.

    Raises:
        PackageNotFoundError, PackageError, ManifestError, SignatureError, TrustError: as `open_package`.
    """
    with contents_at(url) as contents:
        verified, _ = _head(contents.head(), trust_dir, _reading(clock, build_date), None)
    return frozenset(verified.digests)


def _reading(clock: Clock, build_date: int) -> TimeReading:
    return TimeReading(clock.now(), clock.synchronised(), build_date)


@contextmanager
def contents_at(
    url: str, go_on: Callable[[], None] = lambda: None, limits: PackageLimits | None = None
) -> Iterator[Contents]:
    """What the package at a path or file:// URL holds, unverified, for the length of the `with` block.

    Raises:
        PackageNotFoundError: not a local path, or nothing is there (L-3).
        PackageError: it is none, or cannot be read.
    """
    path = local_path(url)
    try:
        fd = open_without_surprise(path, follow=True)
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            raise PackageNotFoundError(f"there is no package at {shown_path(path)}") from error
        raise cannot_read(f"the package at {shown_path(path)}", error) from error
    try:
        fd = into_only_folder(fd)
        yield open_contents(fd, limits or PackageLimits(), go_on)
    except OSError as error:  # a file that is none, such as those of /proc
        raise cannot_read(f"the package at {shown_path(path)}", error) from error
    finally:
        os.close(fd)


def local_path(url: str) -> str:
    """The absolute path that a model's url means.

    Raises:
        PackageNotFoundError: it means none on this machine (L-3).
    """
    path = url
    scheme, colon, rest = url.partition(":")
    if colon and scheme.lower() == "file":
        if rest.startswith("//"):
            host, slash, below = rest[2:].partition("/")
            if host.lower() not in ("", "localhost"):
                raise PackageNotFoundError(f"the url {shown_path(url)} is on another machine; use file:///path")
            rest = slash + below
        if "?" in rest or "#" in rest:
            raise PackageNotFoundError(
                f"the url {shown_path(url)} has a query or fragment; write ? as %3F and # as %23"
            )
        path = os.fsdecode(unquote_to_bytes(rest))
    elif is_url(url):
        raise PackageNotFoundError(
            f"the url {shown_path(url)} is not a local path; fetch the package first, then give its path or file:// url"
        )
    if not path.startswith("/"):
        raise PackageNotFoundError(
            f"the path {shown_path(path)} is not absolute; write /the/whole/path or file:///the/whole/path"
        )
    if "\0" in path:
        raise PackageNotFoundError(f"the path {shown_path(path)} has a NUL character")
    return path


def shown_path(path: str) -> str:
    """A path from outside, safe to print, and longer than other values may be shown."""
    return printable(path, 300)


def _verify(
    contents: Contents,
    trust_dir: Path,
    reading: TimeReading,
    claim: Callable[[str, int], None],
    accepted: Acceptance | None,
) -> Package:
    verified, manifest = _head(contents.head(), trust_dir, reading, accepted)
    if manifest.model not in verified.digests:
        raise PackageError(f"the manifest names the model {shown(manifest.model)}, which is not among the signed files")
    if manifest.sample_file is not None and manifest.sample_file not in verified.digests:
        raise PackageError(
            f"the manifest names the sample {shown(manifest.sample_file)}, which is not among the signed files"
        )
    names = _kept(manifest, verified)
    copies: dict[str, _SealedCopy] = {}
    try:
        for name in names:
            copies[name] = _SealedCopy()
        missing = set(verified.digests)
        for file in contents.files():
            if file.path == SIGNATURE_FILE:
                continue
            copy = copies.get(file.path)
            if copy is not None:
                if file.size > _MOST_BYTES.get(file.path, file.size):
                    raise PackageError(f"{file.path} is larger than {_MOST_BYTES[file.path]} bytes")
                claim(names[file.path], file.size)  # the kernel would rather kill than refuse
            _check_file(file, verified, copy)
            missing.discard(file.path)
        if missing:
            raise SignatureError(f"the package is not whole: {_some(missing)} missing, though signed")
        selftest = _selftest(copies) if SELFTEST_FILE in names else None
        made = {name: copy.seal() for name, copy in copies.items()}
        return Package(
            manifest,
            verified,
            made.pop(manifest.model),
            copies[manifest.model].size,
            sample_fd=made.pop(manifest.sample_file or "", None),
            selftest=selftest,
            selftest_fd=made.pop(SELFTEST_DATA, None),
        )
    except BaseException:
        for copy in copies.values():
            copy.close()
        raise


def _head(
    head: Mapping[str, bytes], trust_dir: Path, reading: TimeReading, accepted: Acceptance | None
) -> tuple[Verified, Manifest]:
    """A package's verified signature and its manifest."""
    if MANIFEST_FILE not in head:
        raise ManifestError(
            f"the package has no manifest: {MANIFEST_FILE} is missing; make the package with this agent's tool (package)"
        )
    signature = signature_of(head)
    if accepted is not None and hashlib.sha256(signature).hexdigest() != accepted.signature_sha256:
        raise SignatureError("the package is not the one that was accepted: its signature is another")
    verified = verify_signature(signature, load_roots(trust_dir), reading)
    manifest_bytes = head[MANIFEST_FILE]
    _compare(MANIFEST_FILE, hashlib.sha256(manifest_bytes).digest(), verified)
    return verified, parse_manifest(manifest_bytes)


def _kept(manifest: Manifest, verified: Verified) -> dict[str, str]:
    """The files of which a copy is kept, with their names in messages."""
    kept = {manifest.model: "the model's file"}
    if manifest.sample_file is not None:
        kept.setdefault(manifest.sample_file, "the sample")
    if SELFTEST_FILE in verified.digests:
        for name in (SELFTEST_FILE, SELFTEST_DATA):
            if name not in verified.digests:
                raise PackageError(f"the package has {SELFTEST_FILE}, and no {SELFTEST_DATA} with its tensors")
            if name in kept:
                raise PackageError(f"the manifest takes {name}, a file of the self-test, for {kept[name]}")
            kept[name] = "the self-test"
    return kept


def _selftest(copies: "dict[str, _SealedCopy]") -> SelfTest:
    """The self-test of a package, whose description is not kept."""
    described = copies.pop(SELFTEST_FILE)
    try:
        return parse_selftest(described.read(), copies[SELFTEST_DATA].size)
    finally:
        described.close()


def signature_of(head: Mapping[str, bytes]) -> bytes:
    """The signature file of a package.

    Raises:
        SignatureError: it has none.
    """
    if SIGNATURE_FILE not in head:
        raise SignatureError(f"the package is not signed: {SIGNATURE_FILE} is missing")
    return head[SIGNATURE_FILE]


def _check_file(file: PackageFile, verified: Verified, copy: "_SealedCopy | None") -> None:
    if file.path not in verified.digests:
        raise SignatureError(
            f"{shown(file.path)} is not signed; a package holds exactly the signed files: remove it, or sign again"
        )
    digest = hashlib.sha256()
    for data in file.chunks:
        digest.update(data)
        if copy is not None:
            copy.write(data)
    _compare(file.path, digest.digest(), verified)


def _compare(path: str, digest: bytes, verified: Verified) -> None:
    signed = verified.digests.get(path)
    if signed is None:
        raise SignatureError(f"{shown(path)} is not among the signed files")
    if not hmac.compare_digest(digest, signed):
        raise SignatureError(f"{shown(path)} was altered after it was signed: its SHA-256 is not the signed one")


def _some(paths: set[str]) -> str:
    first = ", ".join(shown(path) for path in sorted(paths)[:3])
    return (
        f"{first} is"
        if len(paths) == 1
        else f"{first} and {len(paths) - 3} more are"
        if len(paths) > 3
        else f"{first} are"
    )


class _SealedCopy:
    """An anonymous file in memory that, once sealed, nobody can change."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("model", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.size = 0

    def write(self, data: bytes) -> None:
        try:
            write_all(self._fd, data)
        except OSError as error:
            if error.errno in _NO_MEMORY:
                raise MemoryLimitError("the system has no memory for the model's file") from error
            raise
        self.size += len(data)

    def read(self) -> bytes:
        """All of it."""
        return os.pread(self._fd, self.size, 0)

    def seal(self) -> int:
        """The finished file; the caller closes it."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
        return self._fd

    def close(self) -> None:
        os.close(self._fd)
