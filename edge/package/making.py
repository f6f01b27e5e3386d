"""Making a signed package: a folder, or a `.tar.gz` of what is in it. It is there whole and flushed to disk, or not at all."""

import gzip
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from edge import durable
from edge.errors import PackageError
from edge.package import tar
from edge.package.bundle import check_path
from edge.package.identity import Identity
from edge.package.limits import PackageLimits
from edge.package.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest, format_manifest
from edge.package.signing import sign_files
from edge.text import shown

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")
FILE_MODE, FOLDER_MODE = 0o644, 0o755
_CHUNK_BYTES = 1 << 20

Source = bytes | Path


class _Output(Protocol):
    def write(self, data: bytes, /) -> object: ...


def make_package(
    manifest: Manifest,
    model: Path,
    extra: Sequence[Path],
    identity: Identity,
    target: Path,
    *,
    made: Mapping[str, bytes] | None = None,
) -> None:
    """Write and sign a package at `target`: an archive where its name says so, else a folder.

    Args:
        manifest: its `model` is the name that the file `model` gets in the package.
        extra: other files to put in, under their own names.
        made: further ones by name, as their bytes.

    Raises:
        PackageError: `target` exists or cannot be written, or a file cannot be read or has a name that is taken.
        ManifestError, SignatureError, TrustError: what would be made could not be loaded.
    """
    if os.path.lexists(target):
        raise _exists(target)
    sources: dict[str, Source] = {MANIFEST_FILE: format_manifest(manifest)}
    files: list[tuple[str, Source]] = [(manifest.model, model), *((one.name, one) for one in extra)]
    for name, source in [*files, *(made or {}).items()]:
        if name in sources or name == SIGNATURE_FILE:
            raise PackageError(f"the package would hold {shown(name)} twice")
        if fault := check_path(name):
            raise PackageError(f"the name {shown(name)} {fault}")
        sources[name] = source
    digests = {name: _digest(source) for name, source in sources.items()}
    name = package_name(target)
    signature = sign_files(name, digests, identity.key, identity.chain)
    # The two that a reader needs first come first, so that it need not read an archive twice.
    sources = {SIGNATURE_FILE: signature, **sources}
    digests[SIGNATURE_FILE] = hashlib.sha256(signature).digest()
    try:
        _write(sources, digests, target)
    except OSError as error:
        raise PackageError(f"{target} cannot be written: {error.strerror}") from error


def _exists(target: Path) -> PackageError:
    return PackageError(f"{target} exists already, and a package is never overwritten; load it, or name another")


def package_name(target: Path) -> str:
    """The name of a package by its path: that of the folder, or of the archive without its suffix."""
    suffix = next((suffix for suffix in ARCHIVE_SUFFIXES if target.name.endswith(suffix)), "")
    return target.name.removesuffix(suffix) or "package"


def _write(sources: Mapping[str, Source], digests: Mapping[str, bytes], target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}{durable.TEMPORARY}")
    try:
        if target.name.endswith(ARCHIVE_SUFFIXES):
            with (
                _new_file(temporary) as file,
                gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
            ):
                _write_archive(sources, digests, packed)
        else:
            temporary.mkdir(FOLDER_MODE)
            for name, source in sources.items():
                with _new_file(temporary / name) as file:
                    _copy(source, digests[name], file)
            temporary.chmod(FOLDER_MODE)
            durable.fsync_folder(temporary)
        if os.path.lexists(target):
            raise _exists(target)
        durable.rename_all([(temporary, target)])
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def _write_archive(sources: Mapping[str, Source], digests: Mapping[str, bytes], packed: _Output) -> None:
    """The same files give the same bytes: no times, no owners, one order.

    They stand at the top, as in the original's archives: what unpacks one into a folder can load the folder.
    """
    for name, source in sources.items():
        size = _size(source)
        packed.write(tar.file_header(name, size))
        _copy(source, digests[name], packed)
        packed.write(tar.padding(size))
    packed.write(tar.END)


class _NewFile:
    """A file being written; gzip asks for `write` and `flush` alone."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes, /) -> int:
        durable.write_all(self._fd, data)
        return len(data)

    def flush(self) -> None: ...


@contextmanager
def _new_file(path: Path) -> Iterator[_NewFile]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        yield _NewFile(fd)
        os.fchmod(fd, FILE_MODE)
        os.fsync(fd)
    finally:
        os.close(fd)


def _size(source: Source) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _digest(source: Source) -> bytes:
    digest = hashlib.sha256()
    for data in _chunks(source):
        digest.update(data)
    return digest.digest()


def _copy(source: Source, digest: bytes, file: _Output) -> None:
    seen = hashlib.sha256()
    for data in _chunks(source):
        seen.update(data)
        file.write(data)
    if seen.digest() != digest:
        raise PackageError(f"{source!s:.200} changed while the package was made")


def _chunks(source: Source) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    most, total = PackageLimits().max_file_bytes, 0
    try:
        with source.open("rb") as file:
            while data := file.read(_CHUNK_BYTES):
                total += len(data)
                if total > most:
                    raise PackageError(f"{source} is larger than {most} bytes, the most an agent loads")
                yield data
    except OSError as error:
        raise PackageError(f"{source} cannot be read: {error.strerror}") from error
