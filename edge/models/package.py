"""A model package, verified: the signature first, then exactly the signed files (S-2 to S-6, L-3, L-4, L-11).

Nothing of a package is used from where it lies. Its model goes into a private, sealed memory file and is hashed once more
on the way, so that between check and use nothing can change.
"""

import datetime
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from edge.clock import Clock
from edge.errors import ManifestError, PackageError, SignatureError
from edge.models import signing
from edge.models.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, SIGNATURE_FILE, Manifest, parse_manifest
from edge.models.tree import PackageLimits, Tree, open_tree
from edge.models.trust import judgement_time, load_roots

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Package:
    """A verified package; a context manager. `signer` and `expires` tell a person who signed it and until when."""

    def __init__(
        self,
        tree: Tree,
        manifest: Manifest,
        files: dict[str, str],
        model_bytes: int,
        leaf: tuple[str, datetime.datetime],
    ) -> None:
        self._tree = tree
        self._model_fd: int | None = None
        self.manifest = manifest
        self.files = files
        self.model_bytes = model_bytes
        self.signer, self.expires = leaf

    @property
    def model_fd(self) -> int:
        """A sealed memory file with the model, made at first use; it is read through /proc/self/fd/<fd>.

        Raises:
            PackageError: the model changed since it was verified.
        """
        if self._model_fd is None:
            self._model_fd = self._copy_model()
        return self._model_fd

    def _copy_model(self) -> int:
        name = self.manifest.model
        digest = hashlib.sha256()
        fd = os.memfd_create("model", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)

        def copy(_: str, __: int, chunks: Iterator[bytes]) -> None:
            for chunk in chunks:
                digest.update(chunk)
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(fd, rest) :]

        try:
            self._tree.visit(copy, only=name)
            if digest.hexdigest() != self.files[name]:
                raise PackageError(f"the package's {name!r} changed while it was loaded")
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def close(self) -> None:
        """Close what is open; what was loaded from `model_fd` stays."""
        self._tree.close()
        if self._model_fd is not None:
            os.close(self._model_fd)
            self._model_fd = None

    def __enter__(self) -> "Package":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Contents:
    """What one pass over a package finds: the sha256 and size of every file, and the two small files themselves."""

    _KEPT: ClassVar = {MANIFEST_FILE: MAX_MANIFEST_BYTES, SIGNATURE_FILE: signing.MAX_BUNDLE_BYTES}

    def __init__(self, tree: Tree) -> None:
        self.digests: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.kept: dict[str, bytes] = {}
        tree.visit(self._visit)

    def _visit(self, name: str, size: int, chunks: Iterator[bytes]) -> None:
        digest, seen, most = hashlib.sha256(), 0, self._KEPT.get(name)
        parts: list[bytes] = []
        for chunk in chunks:
            digest.update(chunk)
            seen += len(chunk)
            if most is not None:
                if seen > most:
                    raise PackageError(f"{name} is larger than {most} bytes")
                parts.append(chunk)
        self.digests[name], self.sizes[name] = digest.hexdigest(), seen
        if most is not None:
            self.kept[name] = b"".join(parts)


def open_package(
    url: str, *, trust_dir: Path, clock: Clock, build_date: int, limits: PackageLimits | None = None
) -> Package:
    """Open and verify the package at a url; `build_date` in seconds since the epoch.

    Raises:
        PackageNotFoundError: the url is not local, or nothing is there (L-3).
        PackageError: the package is not what it must be; ManifestError, SignatureError, TrustError say which part (L-4).
    """
    tree = open_tree(url, limits or PackageLimits())
    try:
        return _verified(tree, trust_dir, clock, build_date)
    except BaseException:
        tree.close()
        raise


def _verified(tree: Tree, trust_dir: Path, clock: Clock, build_date: int) -> Package:
    contents = _Contents(tree)
    if MANIFEST_FILE not in contents.kept:
        raise ManifestError(f"the package has no {MANIFEST_FILE}")
    if SIGNATURE_FILE not in contents.kept:
        raise SignatureError(f"the package has no {SIGNATURE_FILE}: it is not signed")
    bundle = signing.parse_bundle(contents.kept[SIGNATURE_FILE])
    roots = load_roots(trust_dir)
    signed = signing.verify(bundle, roots, judgement_time(bundle.chain, clock, build_date))
    found = {name: digest for name, digest in contents.digests.items() if name != SIGNATURE_FILE}
    _compare(signed, found)
    manifest = parse_manifest(contents.kept[MANIFEST_FILE])
    if manifest.model not in found:
        raise ManifestError(f"{MANIFEST_FILE}: model is {manifest.model!r}, which the package does not hold")
    leaf = (bundle.leaf.subject.rfc4514_string(), bundle.leaf.not_valid_after_utc)
    return Package(tree, manifest, found, contents.sizes[manifest.model], leaf)


def _compare(signed: dict[str, str], found: dict[str, str]) -> None:
    """Exactly the signed files (S-5)."""
    for name in sorted(signed.keys() - found.keys()):
        raise SignatureError(f"the package lacks {name[:200]!r}, which was signed")
    for name in sorted(found.keys() - signed.keys()):
        raise SignatureError(f"the package holds {name[:200]!r}, which was not signed")
    for name in sorted(signed):
        if signed[name] != found[name]:
            raise SignatureError(f"the package's {name[:200]!r} was altered after it was signed")
