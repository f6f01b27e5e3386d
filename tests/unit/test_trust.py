"""The folder of trusted roots."""

from pathlib import Path

import pytest

from edge.errors import TrustError
from edge.models.trust import MAX_ROOT_FILE_BYTES, load_roots
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


def test_one_bad_file_is_not_overlooked(tmp_path: Path) -> None:
    folder = pki.trust_folder(tmp_path / "trust", ROOT, OTHER)
    bad = folder / "root-1.pem"
    bad.chmod(0o644)
    bad.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    bad.chmod(0o444)
    with pytest.raises(TrustError, match=r"root-1\.pem is not PEM"):
        load_roots(folder)


def test_a_key_is_not_a_root(tmp_path: Path) -> None:
    folder = pki.trust_folder(tmp_path / "trust")
    (folder / "key.pem").write_bytes(ROOT.key_pem)
    (folder / "key.pem").chmod(0o400)
    with pytest.raises(TrustError, match=r"key\.pem is not PEM") as refused:
        load_roots(folder)
    assert "PRIVATE" not in str(refused.value)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"holds no \.pem file; put the signer's root certificate there"):
        load_roots(pki.trust_folder(tmp_path / "trust"))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="cannot be read: No such file"):
        load_roots(tmp_path / "trust")


def test_a_folder_named_as_a_certificate(tmp_path: Path) -> None:
    folder = pki.trust_folder(tmp_path / "trust")
    (folder / "a.pem").mkdir()
    with pytest.raises(TrustError, match="is not a file"):
        load_roots(folder)


def test_a_pipe_does_not_hold_the_load_up(tmp_path: Path) -> None:
    import os

    folder = pki.trust_folder(tmp_path / "trust")
    os.mkfifo(folder / "a.pem")
    with pytest.raises(TrustError, match="is not a file"):
        load_roots(folder)


def test_too_large(tmp_path: Path) -> None:
    folder = pki.trust_folder(tmp_path / "trust")
    (folder / "a.pem").write_bytes(bytes(MAX_ROOT_FILE_BYTES + 1))
    (folder / "a.pem").chmod(0o444)
    with pytest.raises(TrustError, match="larger than"):
        load_roots(folder)


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
