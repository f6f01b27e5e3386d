"""Packages of every good and bad kind, signed with the small PKI."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from edge.host import memory
from edge.package.limits import PackageLimits
from edge.package.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest, format_manifest
from edge.package.open import Package, open_package
from edge.package.signing import sign_files
from tests.fakes import signing_pki as pki
from tests.fakes.clock import FakeClock
from tests.fakes.signing_pki import DAY, NOW, Holder

MODEL = b"a model that no runtime has to like" * 1000
ROOT = pki.root()
SIGNER = pki.signer(ROOT)
BUILD_DATE = int((NOW - 10 * DAY).timestamp())
LIMITS = PackageLimits(max_entries=50, max_file_bytes=1 << 20, max_total_bytes=4 << 20, free_unpacked_bytes=1 << 20)
ENOUGH = 1 << 40


def files_of(
    files: Mapping[str, bytes] | None = None, *, signer: Holder = SIGNER, manifest: bytes | None = None
) -> dict[str, bytes]:
    """The files of a good package, manifest and signature included."""
    content = dict(files if files is not None else {"digits.tflite": MODEL})
    content[MANIFEST_FILE] = manifest or format_manifest(Manifest("digits", "1.0", "digits.tflite"))
    digests = {name: hashlib.sha256(data).digest() for name, data in content.items()}
    return {SIGNATURE_FILE: sign_files("digits-1.0", digests, signer.key, signer.chain), **content}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Lay files out in a new folder."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Entry:
    """A member of an archive, of any kind."""
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, len(data), link
    return member, data


def tar_of(entries: Iterable[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar as the standard library writes it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for member, data in entries:
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def entries_of(files: Mapping[str, bytes], top: str = "") -> list[Entry]:
    """The members for files, below a folder of the archive."""
    return [entry(top + name, data) for name, data in files.items()]


def write_archive(path: Path, entries: Iterable[Entry], form: int = tarfile.PAX_FORMAT) -> Path:
    """Write a `.tar.gz`."""
    path.write_bytes(gzip.compress(tar_of(entries, form), mtime=0))
    return path


def trust(folder: Path) -> Path:
    """The folder of trusted roots for these packages, made at first use."""
    path = folder / "trust"
    return path if path.exists() else pki.trust_folder(path, ROOT)


def load(
    path: Path | str,
    trust_dir: Path,
    *,
    limits: PackageLimits = LIMITS,
    available: int = ENOUGH,
    go_on: Callable[[], None] = lambda: None,
) -> Package:
    """Open a package as the agent does, at `pki.NOW`."""
    clock = FakeClock(NOW.timestamp())
    return open_package(
        str(path),
        trust_dir=trust_dir,
        clock=clock,
        build_date=BUILD_DATE,
        limits=limits,
        claim=lambda what, size: memory.check(what, size, available),
        go_on=go_on,
    )


def open_files() -> int:
    """How many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
