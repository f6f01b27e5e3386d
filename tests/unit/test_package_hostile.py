"""Packages made to take time or memory: what is not signed is bounded before anything is made of it."""

import base64
import contextlib
import ctypes
import errno
import fcntl
import gzip
import json
import os
import resource
import signal
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.errors import (
    DeadlineError,
    MemoryLimitError,
    PackageError,
    PackageNotFoundError,
    SignatureError,
)
from edge.package import tar
from edge.package.bundle import MAX_CERTIFICATE_BYTES
from edge.package.limits import PackageLimits
from edge.package.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest, format_manifest
from edge.strict_json import JsonFault, parse_object
from tests.fakes.packages import (
    LIMITS,
    MODEL,
    entries_of,
    entry,
    files_of,
    load,
    open_files,
    tar_of,
    trust,
    write_archive,
    write_folder,
)

FILES = files_of()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "p", FILES)


def packed(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data, mtime=0))
    return path


# --- while it is read ---------------------------------------------------------


@pytest.mark.parametrize("name", ["digits.tflite", MANIFEST_FILE, SIGNATURE_FILE])
def test_a_file_that_grows_while_it_is_read(folder: Path, tmp_path: Path, name: str) -> None:  # [S-8]
    def grow() -> None:
        with (folder / name).open("ab") as file:
            file.write(bytes(1000))

    before = open_files()
    with pytest.raises(PackageError, match=r"grew while it was read: it had \d+ bytes|was altered"):
        load(folder, trust(tmp_path), go_on=grow)
    assert open_files() == before


def test_a_growing_model_takes_no_more_memory_than_was_claimed(folder: Path, tmp_path: Path) -> None:  # [L-6] [S-8]
    model, copied = folder / "digits.tflite", [0]

    def grow() -> None:
        os.truncate(model, model.stat().st_size + (2 << 20))
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        copied.extend(link.stat().st_size for link in links if "memfd:model" in str(link.readlink()))

    with pytest.raises(PackageError, match="grew while it was read") as refused:
        load(folder, trust(tmp_path), go_on=grow, limits=PackageLimits())
    assert 0 < max(copied) <= int(str(refused.value).split()[-2])


def test_an_archive_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.tar.gz", tar_of(entries_of(FILES | {"noise": os.urandom(200_000)})))
    with pytest.raises(PackageError, match="cut short"):
        load(path, trust(tmp_path), go_on=lambda: os.truncate(path, 20))


@pytest.mark.parametrize("archive", [False, True])
def test_a_check_that_is_stopped(folder: Path, tmp_path: Path, archive: bool) -> None:  # [L-12] [L-9]
    path = write_archive(tmp_path / "p.tar.gz", entries_of(FILES)) if archive else folder
    steps = iter(range(10**6))

    def stop_at(last: int) -> Callable[[], None]:
        def go_on() -> None:
            if next(steps) >= last:
                raise DeadlineError("enough")

        return go_on

    before = open_files()
    for last in range(8):
        steps = iter(range(10**6))
        with pytest.raises(DeadlineError):
            load(path, trust(tmp_path), go_on=stop_at(last))
    assert open_files() == before


@pytest.fixture
def leased(folder: Path) -> Iterator[Callable[[str], None]]:
    """Takes a write lease on a file of the package, and gives it back at the end."""
    held = []

    def take(name: str) -> None:
        fd = os.open(folder / name, os.O_RDWR)
        held.append(fd)
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # how the kernel asks for it back; by default it means nothing
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    yield take
    for fd in held:
        os.close(fd)


@pytest.mark.parametrize("name", [SIGNATURE_FILE, MANIFEST_FILE, "digits.tflite"])
def test_a_lease_is_not_waited_for(
    folder: Path, tmp_path: Path, name: str, leased: Callable[[str], None]
) -> None:  # [L-12]
    leased(name)
    with pytest.raises(PackageError, match="another process holds a lease on it"):
        load(folder, trust(tmp_path))


# --- signatures and manifests -----------------------------------------------------


def test_values_are_counted_before_they_are_made(folder: Path, tmp_path: Path) -> None:  # [S-8]
    (folder / SIGNATURE_FILE).write_bytes(b'{"a": [' + b"0," * 2000 + b"0]}")
    with pytest.raises(SignatureError, match="has too many values: more than"):
        load(folder, trust(tmp_path))


def test_a_key_that_stands_twice_among_many() -> None:
    keys = ",".join(f'"{number}": 0' for number in (*range(200_000), 199_999))
    with pytest.raises(JsonFault, match="has the key '199999' twice"):
        parse_object(f"{{{keys}}}".encode(), max_bytes=1 << 22)


def test_a_certificate_of_any_size(folder: Path, tmp_path: Path) -> None:  # [S-8]
    value = json.loads(FILES[SIGNATURE_FILE])
    chain = value["verificationMaterial"]["x509CertificateChain"]["certificates"]
    chain.append({"rawBytes": base64.b64encode(bytes(MAX_CERTIFICATE_BYTES + 1)).decode()})
    (folder / SIGNATURE_FILE).write_text(json.dumps(value))
    with pytest.raises(SignatureError, match="a certificate of more than 65536 bytes"):
        load(folder, trust(tmp_path))


# --- archives -------------------------------------------------------------------


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    data = b"".join(records)
    return tar._block(b"h", len(data), kind) + data + tar.padding(len(data))


def test_a_pax_header_of_many_records(tmp_path: Path) -> None:  # [S-8]
    path = packed(tmp_path / "p.tar.gz", pax(*[b"6 a=b\n"] * 5000) + tar_of(entries_of(FILES)))
    with pytest.raises(PackageError, match="a header of more than 100 records"):
        load(path, trust(tmp_path))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
def test_headers_without_a_member(tmp_path: Path, kind: bytes) -> None:  # [S-8]
    path = packed(tmp_path / "p.tar.gz", pax(b"6 a=b\n", kind=kind) * 5 + tar_of(entries_of(FILES)))
    with pytest.raises(PackageError, match="more than 4 headers for one member"):
        load(path, trust(tmp_path))


@pytest.mark.parametrize("name", ["p/", "./", "p/a", "q/"])
def test_members_are_counted_before_the_signature_is_found(tmp_path: Path, name: str) -> None:  # [S-8]
    folders = [entry(name, kind=tarfile.DIRTYPE)] * (LIMITS.max_entries + 2)
    path = packed(tmp_path / "p.tar.gz", tar_of(folders + entries_of(FILES | {SIGNATURE_FILE: b""}, "p/")))
    with pytest.raises(PackageError, match="more than 50 files and folders"):
        load(path, trust(tmp_path))


def test_as_many_members_as_are_allowed(tmp_path: Path) -> None:
    files = files_of({"digits.tflite": MODEL, **{f"labels-{number}": b"" for number in range(40)}})
    limits = PackageLimits(max_entries=len(files))
    for top in ("", "p/"):
        entries = [entry("p", kind=b"5")] * bool(top) + entries_of(files, top)
        load(write_archive(tmp_path / "p.tar.gz", entries), trust(tmp_path), limits=limits).close()


def test_an_archive_in_several_gzip_members(tmp_path: Path) -> None:
    data = tar_of(entries_of(FILES))
    path = tmp_path / "p.tar.gz"
    empty = gzip.compress(b"") * 1000
    path.write_bytes(gzip.compress(data[:3000]) + empty + gzip.compress(data[3000:]) + bytes(512))
    load(path, trust(tmp_path)).close()
    path.write_bytes(gzip.compress(data) + bytes(512) + b"more")
    with pytest.raises(PackageError, match="cannot unpack it"):
        load(path, trust(tmp_path))


# --- files that are none -----------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/proc/self/mem", "/proc/self/maps", "/proc/self/fd", "/proc/self/task", "/proc/self/environ", "/sys/kernel", "/"],
)
def test_odd_files(tmp_path: Path, path: str) -> None:  # [L-3] [L-4]
    with pytest.raises((PackageError, PackageNotFoundError)):
        load(path, trust(tmp_path))


def test_a_head_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    (folder / MANIFEST_FILE).unlink()
    (folder / MANIFEST_FILE).mkdir()
    with pytest.raises(PackageError, match="sagemaker_edge_manifest is not a file"):
        load(folder, trust(tmp_path))


def test_no_descriptor_is_left(folder: Path, tmp_path: Path) -> None:  # [L-6]
    """That is the agent's want, not the package's fault."""
    trusted, limits = trust(tmp_path), resource.getrlimit(resource.RLIMIT_NOFILE)

    def allow_no_more() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))

    try:
        with pytest.raises(MemoryLimitError, match="cannot be read now: Too many open files"):
            load(folder, trusted, go_on=allow_no_more)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_no_descriptor_is_left_for_the_second_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # [L-6] [L-9]
    manifest = format_manifest(Manifest("digits", "1.0", "digits.tflite", sample="s.npz"))
    files = files_of({"digits.tflite": MODEL, "s.npz": b"inputs"}, manifest=manifest)
    folder, trusted = write_folder(tmp_path / "sampled", files), trust(tmp_path)
    real, before = os.memfd_create, open_files()

    def only_one(name: str, flags: int) -> int:
        if open_files() > before + 1:  # besides the folder
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", only_one)
    with pytest.raises(MemoryLimitError, match="Too many open files"):
        load(folder, trusted)
    assert open_files() == before


# --- a package that is a partition's root ---------------------------------------------


def test_lost_and_found(folder: Path, tmp_path: Path) -> None:
    (folder / "lost+found").mkdir(0o700)
    load(folder, trust(tmp_path)).close()
    (folder / "lost+found" / "#12").write_bytes(b"x")
    with pytest.raises(SignatureError, match=r"'lost\+found/#12' is not signed"):
        load(folder, trust(tmp_path))


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Within the block, files are opened by this thread as another user: setfsuid(2) is a thread's own."""
    libc = ctypes.CDLL(None)
    libc.setfsuid(65534)
    try:
        yield
    finally:
        libc.setfsuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a file system's own folder is root's")
def test_lost_and_found_of_root_alone(folder: Path, tmp_path: Path) -> None:
    trusted = trust(tmp_path)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)

    (folder / "lost+found").mkdir(0o700)
    with as_nobody():
        load(folder, trusted).close()
    (folder / "sub").mkdir()
    (folder / "lost+found").rename(folder / "sub" / "lost+found")
    with as_nobody(), pytest.raises(PackageError, match="cannot be read: Permission denied"):
        load(folder, trusted)


def test_members_of_the_group_cannot_replace_each_others_packages() -> None:
    """The folder that is made for packages has the sticky bit."""
    lines = (Path(__file__).parents[2] / "packaging/systemd/sagemaker-edge-agent.tmpfiles").read_text().splitlines()
    (mode,) = (line.split()[2] for line in lines if line.startswith("d /var/lib/sagemaker-edge-models "))
    assert int(mode, 8) == stat.S_ISVTX | stat.S_ISGID | 0o770
