"""The folder of trusted roots."""

import grp
import os
import pwd
import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import MemoryLimitError, TrustError
from edge.package.trust import MAX_ROOT_FILE_BYTES, load_roots, read_root
from tests.fakes import acl
from tests.fakes import signing_pki as pki

ROOT, OTHER = pki.root(), pki.root("other", number=5)


def test_every_pem_and_nothing_else(tmp_path: Path) -> None:  # [S-3]
    folder = pki.trust_folder(tmp_path / "trust", ROOT)
    both = folder / "more.pem"
    both.write_bytes(ROOT.pem + OTHER.pem)
    both.chmod(0o444)
    (folder / "README").write_text("not a certificate")
    assert set(load_roots(folder)) == {ROOT.certificate, OTHER.certificate}


@pytest.mark.parametrize("mode", [0o444, 0o440, 0o400])
def test_modes_that_are_good(tmp_path: Path, mode: int) -> None:  # [S-4]
    folder = pki.trust_folder(tmp_path / "trust", ROOT)
    (folder / "root-0.pem").chmod(mode)
    assert load_roots(folder) == [ROOT.certificate]


@pytest.mark.parametrize("bit", [0o200, 0o020, 0o002, 0o100, 0o010, 0o001])
def test_writable_or_executable_by_anyone(tmp_path: Path, bit: int) -> None:  # [S-4]
    folder = pki.trust_folder(tmp_path / "trust", ROOT)
    file = folder / "root-0.pem"
    file.chmod(0o444 | bit)
    with pytest.raises(TrustError, match=rf"mode {0o444 | bit:04o}.*chmod 0444 {file}"):
        load_roots(folder)


def unfit(folder: Path, kind: str) -> str:
    """Put something into a trust folder that is no certificate; why it is passed over."""
    file = folder / "._root.pem"
    if kind == "folder":
        file.mkdir()
        return "is not a file"
    if kind == "pipe":
        os.mkfifo(file)
        return "is not a file"
    if kind == "dangling link":
        file.symlink_to(folder / "none")
        return r"cannot be read \(No such file or directory\)"
    if kind == "loop":
        file.symlink_to(file)
        return r"cannot be read \("
    if kind == "large":
        file.write_bytes(bytes(MAX_ROOT_FILE_BYTES + 1))
        return "is larger than 1048576 bytes"
    content = {
        "a Mac's": b"\0\5\x16\7\0\2\0\0Mac OS X        ",
        "empty": b"",
        "key": ROOT.key_pem,
        "trusted certificate": ROOT.pem.replace(b" CERTIFICATE-", b" TRUSTED CERTIFICATE-"),
        "cut": ROOT.pem[:200],
        "not X.509": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    }[kind]
    file.write_bytes(content)
    return "is not a certificate in PEM"


UNFIT = (
    "folder", "pipe", "dangling link", "loop", "large", "a Mac's", "empty", "key", "trusted certificate", "cut", "not X.509",
)  # fmt: skip


@pytest.mark.parametrize("kind", UNFIT)
def test_what_is_no_certificate_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:  # [S-3]
    folder = pki.trust_folder(tmp_path / "trust", ROOT)
    why = unfit(folder, kind)
    assert load_roots(folder) == [ROOT.certificate]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert re.search(rf"1 file ignored in {folder}: \._root\.pem {why}", record.getMessage())
    (folder / "root-0.pem").unlink()
    with pytest.raises(TrustError, match=rf"none of its \.pem files is a certificate: \._root\.pem {why}") as refused:
        load_roots(folder)
    assert "PRIVATE" not in str(refused.value)


def test_many_that_are_passed_over_take_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = pki.trust_folder(tmp_path / "trust", ROOT)
    for number in range(50):
        (folder / f"{number:02}.pem").touch()
    load_roots(folder)
    (record,) = caplog.records
    assert record.getMessage().endswith("02.pem is not a certificate in PEM; and 47 more")
    for number in range(50, 100):
        (folder / f"{number:02}.pem").touch()
    with pytest.raises(TrustError, match=r"holds 101 \.pem files; at most 100"):
        load_roots(folder)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"it holds no \.pem file; put the signer's root certificate there"):
        load_roots(pki.trust_folder(tmp_path / "trust"))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="cannot be read: No such file"):
        load_roots(tmp_path / "trust")


def test_a_link_is_followed_to_the_file_that_counts(tmp_path: Path) -> None:  # [S-4]
    folder = pki.trust_folder(tmp_path / "trust")
    real = tmp_path / "real.pem"
    real.write_bytes(ROOT.pem)
    real.chmod(0o444)
    (folder / "link.pem").symlink_to(real)
    assert load_roots(folder) == [ROOT.certificate]
    real.chmod(0o644)
    with pytest.raises(TrustError, match="chmod 0444"):
        load_roots(folder)


# --- who could change it ------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777, 0o2775])
def test_a_folder_that_others_may_write_to(tmp_path: Path, mode: int) -> None:  # [S-4]
    folder = pki.trust_folder(tmp_path / "trust", ROOT)
    folder.chmod(mode)
    with pytest.raises(TrustError, match=rf"{folder} has mode {mode:04o}: .*; run: chmod go-w {folder}"):
        load_roots(folder)


def test_a_folder_above_that_others_may_write_to(tmp_path: Path) -> None:  # [S-4]
    above = tmp_path / "above"
    above.mkdir()
    folder = pki.trust_folder(above / "trust", ROOT)
    above.chmod(0o757)
    with pytest.raises(TrustError, match=rf"{above} has mode 0757: .*; run: chmod go-w {above}"):
        load_roots(folder)
    above.chmod(0o1777)  # as /tmp
    assert load_roots(folder) == [ROOT.certificate]


def test_a_group_of_the_owner_alone_above(tmp_path: Path) -> None:  # [S-4]
    """As a shell with umask 002 makes folders, where each user has a group."""
    above = tmp_path / "above"
    above.mkdir()
    folder = pki.trust_folder(above / "trust", ROOT)
    above.chmod(0o775)
    members = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == os.getegid()} | {os.geteuid()}
    if members == {os.geteuid()} and not grp.getgrgid(os.getegid()).gr_mem:
        assert load_roots(folder) == [ROOT.certificate]
        acl.give(above, acl.Acl(acl.USER, 7, 12345))
        above.chmod(0o775)
    with pytest.raises(TrustError, match=f"{above} has mode"):
        load_roots(folder)


def linked(tmp_path: Path) -> tuple[Path, Path]:
    """A trust folder with a link to a root elsewhere, and that root."""
    folder = pki.trust_folder(tmp_path / "trust")
    elsewhere = pki.trust_folder(tmp_path / "elsewhere", ROOT)
    (folder / "root.pem").symlink_to(elsewhere / "root-0.pem")
    return folder, elsewhere / "root-0.pem"


def test_a_link_into_a_folder_that_others_may_write_to(tmp_path: Path) -> None:  # [S-4]
    folder, target = linked(tmp_path)
    assert load_roots(folder) == [ROOT.certificate]
    target.parent.chmod(0o757)
    with pytest.raises(TrustError, match=f"{target.parent} has mode 0757"):
        load_roots(folder)


CHANGES_OF_OWNER: dict[str, Callable[[Path, Path], Path]] = {
    "root": lambda folder, target: target,
    "folder": lambda folder, target: folder,
    "folder of the target": lambda folder, target: target.parent,
    "folder above": lambda folder, target: folder.parent,
}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only it gives files away")
@pytest.mark.parametrize("what", CHANGES_OF_OWNER)
def test_what_belongs_to_another_user(tmp_path: Path, what: str) -> None:  # [S-4]
    folder, target = linked(tmp_path)
    os.chown(CHANGES_OF_OWNER[what](folder, target), 12345, -1)
    with pytest.raises(TrustError, match=r"belongs to user 12345, who could change .*; run: chown 0 "):
        load_roots(folder)
    assert read_root(target, 12345) == [ROOT.certificate]


def test_no_descriptor_is_left(tmp_path: Path) -> None:  # [L-6]
    folder, limits = pki.trust_folder(tmp_path / "trust", ROOT), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(MemoryLimitError, match="cannot be read now: Too many open files"):
            load_roots(folder)
        with pytest.raises(MemoryLimitError, match="cannot be read now: Too many open files"):
            read_root(folder / "root-0.pem", os.geteuid())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
