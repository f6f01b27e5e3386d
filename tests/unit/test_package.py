"""Packages in folders, and what stays behind of a load."""

import fcntl
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from edge.errors import (
    EdgeError,
    ManifestError,
    MemoryLimitError,
    PackageError,
    PackageNotFoundError,
    SignatureError,
    TrustError,
)
from edge.package.limits import PackageLimits
from edge.package.manifest import MANIFEST_FILE, SIGNATURE_FILE
from edge.package.open import local_path, open_package
from edge.paths import model_url
from tests.fakes import packages
from tests.fakes import signing_pki as pki
from tests.fakes.clock import FakeClock
from tests.fakes.packages import MODEL, files_of, load, open_files, trust, write_archive, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "digits-1.0", files_of({"digits.tflite": MODEL, "sub/labels.txt": b"zero\none\n"}))


def test_the_model_is_a_sealed_copy(folder: Path, tmp_path: Path) -> None:  # [S-5]
    with load(folder, trust(tmp_path)) as package:
        (folder / "digits.tflite").write_bytes(b"another")
        assert package.manifest.model_name == "digits"
        assert package.model_bytes == len(MODEL)
        assert Path(f"/proc/self/fd/{package.model_fd}").read_bytes() == MODEL
        assert package.signer == "CN=signer"
        seals = fcntl.fcntl(package.model_fd, fcntl.F_GET_SEALS)
        assert seals == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        with pytest.raises(PermissionError):
            os.pwrite(package.model_fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.truncate(package.model_fd, 1)


def test_nothing_stays_open(folder: Path, tmp_path: Path) -> None:  # [L-9]
    before = open_files()
    package = load(folder, trust(tmp_path))
    assert open_files() == before + 1
    package.close()
    package.close()
    assert open_files() == before


# --- where a package is ------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "file://localhost{}", "file:{}", "FILE://{}"])
def test_urls(folder: Path, tmp_path: Path, form: str) -> None:  # [L-3]
    load(form.format(folder), trust(tmp_path)).close()


def test_percent_encoding(tmp_path: Path) -> None:  # [L-3]
    folder = write_folder(tmp_path / "a b#?%41é", files_of())
    load(f"file://{quote(str(folder))}", trust(tmp_path)).close()
    load(str(folder), trust(tmp_path)).close()
    assert local_path("/a%20b") == "/a%20b"
    assert local_path("file:///a%20b") == "/a b"


def test_a_folder_that_an_archive_was_unpacked_into(folder: Path, tmp_path: Path) -> None:  # [L-3]
    outer = tmp_path / "unpacked"
    outer.mkdir()
    folder.rename(outer / "digits-1.0")
    before = open_files()
    load(outer, trust(tmp_path)).close()
    assert open_files() == before
    (outer / "beside").write_bytes(b"")
    with pytest.raises(ManifestError, match="no manifest"):
        load(outer, trust(tmp_path))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("digits", "/a/b/digits"),
        ("./digits/", "/a/b/digits"),
        ("../com.model.darknet", "/a/com.model.darknet"),
        ("../../../x", "/x"),
        ("a/../b", "/a/b/a/../b"),
        ("/x/../y", "/x/../y"),
        ("a:b/c", "/a/b/a:b/c"),
        ("file:///x", "file:///x"),
        ("file:x", "file:x"),
        ("s3://bucket/x", "s3://bucket/x"),
        ("", ""),
    ],
)
def test_relative_paths(monkeypatch: pytest.MonkeyPatch, given: str, found: str) -> None:  # [L-3]
    monkeypatch.setattr(Path, "cwd", lambda: Path("/a/b"))
    assert model_url(given) == found


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "not absolute"),
        ("file:digits", "not absolute"),
        ("s3://bucket/digits.tar.gz", "not a local path; fetch"),
        ("https://example.com/digits.tar.gz", "not a local path; fetch"),
        ("file://server/digits", "another machine"),
        ("file:///digits?x", "%3F"),
        ("file:///digits#x", "%23"),
        ("file:///a%00b", "NUL"),
        ("/a\0b", "NUL"),
        ("/" + "a" * 5000, "no package"),
        ("/nowhere/to/be/found", "there is no package at /nowhere/to/be/found"),
        ("/dev/null/x", "no package"),
    ],
)
def test_nothing_there(tmp_path: Path, url: str, word: str) -> None:  # [L-3]
    with pytest.raises(PackageNotFoundError, match=word) as refused:
        load(url, trust(tmp_path))
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero"])
def test_devices_are_not_opened(tmp_path: Path, path: str) -> None:  # [L-11]
    with pytest.raises(PackageError, match="character device"):
        load(path, trust(tmp_path))


def test_a_pipe_does_not_hold_the_load_up(tmp_path: Path) -> None:  # [L-11]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PackageError, match="a pipe"):
        load(tmp_path / "pipe", trust(tmp_path))


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "digits.tflite").write_bytes(MODEL)
    with pytest.raises(PackageError, match="neither"):
        load(tmp_path / "digits.tflite", trust(tmp_path))


def test_the_package_itself_may_be_reached_by_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    load(tmp_path / "current", trust(tmp_path)).close()


# --- what it holds -----------------------------------------------------------


def _flip(path: Path) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = bytearray((folder / path).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / path).write_bytes(data)

    return change


def _socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "socket"))


def _link_to(target: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "digits.tflite").rename(folder.parent / "outside")
        (folder / "digits.tflite").symlink_to(target)

    return change


CHANGES: dict[str, tuple[Callable[[Path], object], type[EdgeError], str]] = {
    "model altered": (_flip(Path("digits.tflite")), SignatureError, "'digits.tflite' was altered"),
    "labels altered": (_flip(Path("sub/labels.txt")), SignatureError, "'sub/labels.txt' was altered"),
    "manifest altered": (_flip(Path(MANIFEST_FILE)), SignatureError, "manifest' was altered"),
    "model longer": (lambda f: (f / "digits.tflite").write_bytes(MODEL + b"x"), SignatureError, "was altered"),
    "model shorter": (lambda f: (f / "digits.tflite").write_bytes(MODEL[:-1]), SignatureError, "was altered"),
    "model empty": (lambda f: (f / "digits.tflite").write_bytes(b""), SignatureError, "was altered"),
    "model missing": (lambda f: (f / "digits.tflite").unlink(), SignatureError, "'digits.tflite' is missing"),
    "labels missing": (lambda f: (f / "sub/labels.txt").unlink(), SignatureError, "'sub/labels.txt' is missing"),
    "manifest missing": (lambda f: (f / MANIFEST_FILE).unlink(), ManifestError, "no manifest"),
    "signature missing": (lambda f: (f / SIGNATURE_FILE).unlink(), SignatureError, "not signed"),
    "signature empty": (lambda f: (f / SIGNATURE_FILE).write_bytes(b""), SignatureError, "not JSON"),
    "file added": (lambda f: (f / "more").write_bytes(b""), SignatureError, "'more' is not signed"),
    "file added below": (lambda f: (f / "sub/more").write_bytes(b""), SignatureError, "'sub/more' is not signed"),
    "git file added": (lambda f: (f / ".gitignore").write_bytes(b""), SignatureError, "not signed"),
    "hidden file added": (lambda f: (f / ".x").write_bytes(b""), SignatureError, "not signed"),
    "second signature": (lambda f: (f / "sub/model.sig").write_bytes(b""), SignatureError, "not signed"),
    "name not UTF-8": (lambda f: (f / os.fsdecode(b"\xff")).write_bytes(b""), PackageError, "not text"),
    "link within": (lambda f: (f / "link").symlink_to("digits.tflite"), PackageError, "a symbolic link"),
    "link out": (_link_to("../outside"), PackageError, "a symbolic link"),
    "absolute link": (_link_to("/etc/hostname"), PackageError, "a symbolic link"),
    "dangling link": (lambda f: (f / "link").symlink_to("nowhere"), PackageError, "a symbolic link"),
    "link to a folder": (lambda f: (f / "up").symlink_to(".."), PackageError, "a symbolic link"),
    "manifest a link": (
        lambda f: (
            (f / MANIFEST_FILE).rename(f.parent / "manifest"),
            (f / MANIFEST_FILE).symlink_to("../manifest"),
        ),
        PackageError,
        "a symbolic link",
    ),
    "manifest a folder": (
        lambda f: ((f / MANIFEST_FILE).unlink(), (f / MANIFEST_FILE).mkdir()),
        PackageError,
        "is not a file",
    ),
    "pipe": (lambda f: os.mkfifo(f / "pipe"), PackageError, "a pipe"),
    "socket": (_socket, PackageError, "a socket"),
    "too deep": (lambda f: (f / "/".join("d" * 20)).mkdir(parents=True), PackageError, "folders deep"),
    "too many": (
        lambda f: [(f / f"d{number}").mkdir() for number in range(60)],
        PackageError,
        "more than 50 files and folders",
    ),
    "too large": (lambda f: (f / "a").write_bytes(bytes((1 << 20) + 1)), PackageError, "'a' is larger than"),
    "huge and sparse": (
        lambda f: os.truncate(os.fspath(f / "digits.tflite"), 1 << 42),
        PackageError,
        "'digits.tflite' is larger than",
    ),
}


@pytest.mark.parametrize("why", CHANGES)
def test_changed_packages(folder: Path, tmp_path: Path, why: str) -> None:  # [L-4] [L-9] [L-11] [S-5]
    change, kind, word = CHANGES[why]
    trusted = trust(tmp_path)
    load(folder, trusted).close()
    change(folder)
    before = open_files()
    with pytest.raises(kind, match=word):
        load(folder, trusted)
    assert open_files() == before


def test_every_flipped_byte_of_every_file(tmp_path: Path) -> None:  # [S-5]
    folder = write_folder(tmp_path / "p", files_of({"digits.tflite": b"TFL3" * 8, "labels": b"zero"}))
    trusted = trust(tmp_path)
    for path in sorted(folder.iterdir()):
        good = path.read_bytes()
        for position in range(0, len(good), 1 if len(good) < 300 else 7):
            bad = bytearray(good)
            bad[position] ^= 0x20
            path.write_bytes(bad)
            with pytest.raises((SignatureError, TrustError)):
                load(folder, trusted)
        path.write_bytes(good)
    load(folder, trusted).close()


def test_an_empty_folder_is_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "empty").mkdir()
    load(folder, trust(tmp_path)).close()


def test_a_hard_link_is_a_file_like_any_other(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "same").hardlink_to(folder / "digits.tflite")
    load(folder, trust(tmp_path)).close()


def test_files_that_may_not_be_read(folder: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything: needs another user")
    (folder / "digits.tflite").chmod(0)
    with pytest.raises(PackageError, match="cannot be read: Permission denied"):
        load(folder, trust(tmp_path))


def test_a_model_that_was_not_signed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "p", files_of({"other.tflite": MODEL}))
    with pytest.raises(PackageError, match=r"names the model 'digits\.tflite', which is not among the signed files"):
        load(folder, trust(tmp_path))


def test_a_signed_manifest_must_be_good(tmp_path: Path) -> None:  # [S-1]
    folder = write_folder(tmp_path / "p", files_of(manifest=b'{"format_version": 9}'))
    with pytest.raises(ManifestError, match="this agent reads 1"):
        load(folder, trust(tmp_path))


def test_a_manifest_that_was_not_signed(tmp_path: Path) -> None:
    files = files_of()
    digests = {"digits.tflite": packages.hashlib.sha256(MODEL).digest()}
    files[SIGNATURE_FILE] = packages.sign_files("p", digests, packages.SIGNER.key, packages.SIGNER.chain)
    with pytest.raises(SignatureError, match="manifest' is not among the signed"):
        load(write_folder(tmp_path / "p", files), trust(tmp_path))


def test_untrusted_signer(tmp_path: Path) -> None:  # [S-3]
    stranger = pki.signer(pki.root("strange", number=20))
    folder = write_folder(tmp_path / "p", files_of(signer=stranger))
    with pytest.raises(TrustError, match="not trusted"):
        load(folder, trust(tmp_path))


def test_roots_are_read_at_each_load(folder: Path, tmp_path: Path) -> None:  # [S-3] [S-4]
    trusted = trust(tmp_path)
    load(folder, trusted).close()
    (trusted / "root-0.pem").chmod(0o644)
    with pytest.raises(TrustError, match="chmod 0444"):
        load(folder, trusted)


def test_memory_for_the_copy(folder: Path, tmp_path: Path) -> None:  # [L-6] [L-9]
    before = open_files()
    with pytest.raises(MemoryLimitError, match=r"needs 0\.1 MiB of memory and 0\.0 MiB are available"):
        load(folder, trust(tmp_path), available=1000)
    assert open_files() == before


def test_total_size(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="the package is larger than 36000 bytes"):
        load(folder, trust(tmp_path), limits=PackageLimits(max_total_bytes=36000))


@pytest.mark.parametrize(("name", "kind"), [(MANIFEST_FILE, "manifest"), (SIGNATURE_FILE, "sig")])
@pytest.mark.parametrize("packed", [False, True])
def test_head_size(tmp_path: Path, name: str, kind: str, packed: bool) -> None:
    files = files_of() | {name: b" " * 5000}
    limits = PackageLimits(max_manifest_bytes=4096, max_signature_bytes=4096)
    path = (
        write_archive(tmp_path / "p.tar.gz", packages.entries_of(files))
        if packed
        else write_folder(tmp_path / "p", files)
    )
    with pytest.raises(PackageError, match=f"{kind}.* is larger than 4096 bytes"):
        load(path, trust(tmp_path), limits=limits)


def test_the_log_says_that_the_clock_was_not_believed(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:  # [S-6]
    caplog.set_level(logging.INFO)
    clock = FakeClock(0.0)
    open_package(str(folder), trust_dir=trust(tmp_path), clock=clock, build_date=packages.BUILD_DATE).close()
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "before the agent's build date" in warning.getMessage()
    assert "2026-05-22" in warning.getMessage()
